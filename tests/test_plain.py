"""The check of the manual's language finds what it is for, and nothing else."""

import pytest

from docs import plain

LONG = "The " + "word " * 34 + "end."


def test_a_sentence_of_more_than_35_words_is_found():
    assert plain.faults(f"Short. {LONG}\n\nShort.") == [f"36 words: {LONG}"]
    assert not plain.faults(LONG.replace("word ", "", 1))


def test_the_lines_of_a_paragraph_are_read_together_and_its_items_apart():
    assert len(plain.faults("word " * 20 + "\n" + "word " * 20)) == 1
    assert not plain.faults("\n".join(["* " + "word " * 20] * 2))
    assert not plain.faults("word " * 20 + "\n\n" + "word " * 20)


@pytest.mark.parametrize("text", ["See Sec. 2 of it.", "It is small, e.g. A4 paper.", "A. B. C is a channel."])
def test_an_abbreviation_ends_no_sentence(text):
    assert len(plain.sentences(text)) == (3 if text.startswith("A.") else 1)


def test_a_symbol_has_to_be_said_at_its_first_use():
    (fault,) = plain.faults("T is small. The context T is large.")
    assert fault.startswith('T is used before it is said what it is ("context" or "feature map"): T is small.')
    assert not plain.faults("The context T is large. T is small.")
    assert not plain.faults("| T | context |\n| --- | --- |\n\nT is small.")


@pytest.mark.parametrize(
    "text", ["Intel(R) makes it.", "`T` and `f(T)`.", "# T\n", "T-shirts, T² and AT/T.", "Model T.5"]
)
def test_what_only_looks_like_a_symbol_is_none(text):
    assert not plain.faults(plain.prose(text))


def test_code_comments_and_targets_of_links_are_not_read():
    text = f"```sh\n{LONG}\n```\n\n<!-- {LONG} -->\n\n[link]({LONG.replace(' ', '_')}) `{LONG}`\n\n::: module.name\n"
    assert not plain.faults(plain.prose(text))


def test_of_a_script_the_cells_of_text_are_read():
    script = f'# %% [markdown]\n# # Title\n#\n# {LONG}\n\n# %%\nprint("{LONG}")  # {LONG}\n'
    assert plain.faults(plain.prose(script, is_script=True)) == [f"36 words: {LONG}"]


def test_the_pages_are_those_of_the_manual():
    names = {path.name for path in plain.pages()}
    assert {"README.md", "CHANGELOG.md", "gate.md", "front_door.md"} <= names
