"""Tables in Markdown, which README, cards, documents and commands have in common."""

import re

NUMBER = re.compile(r"[+-]?\d.*")


def markdown_table(head, rows):
    """Returns a Markdown table as text without a newline at its end.

    A column whose filled cells all begin as numbers is aligned to the right. A `|` and a line break inside a cell are
    escaped, so that a cell stays one.

    Args:
        head: titles of the columns.
        rows: sequences of as many cells, of any type.
    """
    head, *rows = [[_cell(value) for value in row] for row in (head, *rows)]
    columns = zip(*rows, strict=True) if rows else ([] for _ in head)
    marks = ["---:" if any(c) and all(NUMBER.fullmatch(x) for x in c if x) else "---" for c in columns]
    lines = [head, marks, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value):
    return re.sub(r"\s*\n\s*", " ", str(value).replace("|", "\\|"))
