"""Text of users in pictures: drawn as it is, in a font that has its characters."""

import functools
import sys
import textwrap

from matplotlib import font_manager

DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib
BOXES = "Last Resort"  # comes with it too: a font that has a box for every character
# What to install for characters that no font of the machine has, by ranges of code points.
SCRIPTS = (
    (range(0x2E80, 0xFB00), "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (range(0x1F000, 0x1FB00), "Noto Emoji (Debian and Ubuntu: fonts-noto-core)"),
)
OTHER = "Noto Sans (Debian and Ubuntu: fonts-noto)"


def text_style(*texts):
    """Returns the properties of a matplotlib `Text` that shows some texts as they are.

    Without them matplotlib takes what stands between two `$` for mathematics, and draws boxes for characters that its
    own font does not have, as the Chinese ones. If no font of the machine has a character, one warning on stderr names
    a font to install.
    """
    characters = frozenset(x for text in texts for x in str(text) if x.isprintable() and not x.isspace())
    return {"parse_math": False, "fontfamily": _families(frozenset(_missing(DEFAULT_FONT, characters)))}


def label(name, width=80):
    """Returns a category's name as a label, in lines of at most `width` characters."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a folder's name need not be UTF-8
    return textwrap.fill(" ".join(name.replace("_", " ").split()), width)


@functools.cache
def _families(characters):
    """Returns the names of fonts, matplotlib's own first, that have the `characters` together, as far as there are."""
    families, missing = [DEFAULT_FONT], set(characters)
    installed = {font.name for font in font_manager.fontManager.ttflist if not font.name.startswith(BOXES)}
    for family in sorted(installed if missing else ()):
        rest = _missing(family, missing)
        if len(rest) < len(missing):
            families.append(family)
            missing = rest
    if missing:
        _warn(frozenset(missing))
    return families


def _missing(family, characters):
    """Returns those of some characters that a font does not have."""
    return {x for x in characters if ord(x) not in _code_points(family)}


@functools.cache
def _code_points(family):
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a font file that is damaged
        return frozenset()


@functools.cache
def _warn(characters):
    fonts = {next((f for codes, f in SCRIPTS if ord(x) in codes), OTHER) for x in characters}
    shown = "".join(sorted(characters)[:8])
    print(
        f"warning: no font of this machine has {shown}; install {' and '.join(sorted(fonts))}, or pictures show boxes",
        file=sys.stderr,
    )
