"""Is the manual in plain language? python -m docs.plain

Prints every sentence of more than `WORDS` words, and every symbol that a page uses before it says what the symbol is. A
page says so where the sentence, or the row of a table, with the first use holds one of the symbol's words in `SYMBOLS`.
Code, headings and the targets of links are not read. Spelling is codespell's.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORDS = 35
SYMBOLS = {
    "T": ("context", "feature map"),
    "E": ("encoder", "extractor"),
    "D": ("discriminator",),
    "G": ("decoder", "decodes"),
    "G2": ("decoder", "decodes"),
    "M": ("attention",),
    "C": ("channel",),
    "R": ("residual",),
    "V": ("changes", "change the picture"),
    "F": ("features",),
    "y": ("category",),
    "y'": ("another category", "other category", "other categories"),
}
FENCE = re.compile(r"^( *)(```|~~~).*?^ *\2 *$", re.S | re.M)
# A sentence ends before white space and something that begins one; "Sec. 2" and "e.g. a" do not end.
END = re.compile(r"(?<=[.!?:])[\"*_)]*\s+(?=[\"*_(\[]*[A-Z0-9`])")
ABBREVIATED = re.compile(r"\b(Sec|Eq|Eqs|Fig|Table|e\.g|i\.e|vs|al|No)\.$")
USED = re.compile(
    r"(?<![\w²/.'+-])(" + "|".join(sorted(map(re.escape, SYMBOLS), key=len, reverse=True)) + r")(?![\w²'/-]|\.\w)"
)


def pages():
    """Returns the paths of all that is checked: README and its kin, the manual, and the tutorials."""
    manual = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "results" not in path.parts]
    tutorials = [path for path in sorted((ROOT / "examples").glob("*.py")) if "# %% [markdown]" in path.read_text()]
    return [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *manual, *tutorials]


def prose(text, is_script=False):
    """Returns the Markdown of a page without its code and comments; of a script, that of its cells of text."""
    if is_script:
        cells = re.findall(r"^# %% \[markdown\]\n((?:#.*\n?)+)", text, flags=re.M)
        text = "\n\n".join(re.sub(r"^# ?", "", cell, flags=re.M) for cell in cells)
    text = FENCE.sub("", text)
    text = re.sub(r"<!--.*?-->|^:::.*?(?=^\S|\Z)", "\n", text, flags=re.S | re.M)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "`code`", text.replace("(R)", ""))


def blocks(text):
    """Returns [(is it a row of a table, text)] of the paragraphs, items and rows of a page, in order."""
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            found.append(None)
            continue
        stripped = re.sub(r"^(>|[*-]|\d+\.)\s+", "", line.strip())
        begins = stripped != line.strip() or line.lstrip().startswith("|")
        if not line.strip():
            found.append(None)
        elif begins or not found or found[-1] is None or found[-1][0]:
            found.append([line.lstrip().startswith("|"), stripped])
        else:
            found[-1][1] += " " + stripped
    return [tuple(block) for block in found if block is not None]


def sentences(text):
    """Returns the sentences of a paragraph."""
    found = [""]
    for part in END.split(text):
        joined = ABBREVIATED.search(found[-1])
        found = [*found[:-1], f"{found[-1]} {part}"] if joined else [*found, part]
    return [sentence for sentence in found if sentence]


def faults(text):
    """Returns what is wrong with the prose of a page, a sentence each."""
    found, defined = [], set()
    for is_row, block in blocks(text):
        for sentence in [block] if is_row else sentences(block):
            if not is_row and (count := len(sentence.split())) > WORDS:
                found.append(f"{count} words: {sentence}")
            for symbol in dict.fromkeys(USED.findall(sentence)):
                if symbol in defined:
                    continue
                defined.add(symbol)
                if not any(word in sentence.lower() for word in SYMBOLS[symbol]):
                    words = " or ".join(f'"{word}"' for word in SYMBOLS[symbol])
                    found.append(f"{symbol} is used before it is said what it is ({words}): {sentence}")
    return found


def main():
    count = 0
    for path in pages():
        for fault in faults(prose(path.read_text(encoding="utf-8"), path.suffix == ".py")):
            print(f"{path.relative_to(ROOT)}: {fault}")
            count += 1
    if count:
        sys.exit(f"error: {count} places are not plain")


if __name__ == "__main__":
    main()
