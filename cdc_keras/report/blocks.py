"""What the sections of report.html are made of: text, tables and pictures, as plain data for the template."""

import base64
import dataclasses
import pathlib

import jinja2

TEMPLATE = "page.html.j2"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        title: the heading.
        blocks: what `text`, `bullets`, `table`, `picture` and `panels` return.
    """

    title: str
    blocks: list


def page(name, sections):
    """Returns the HTML of a page; every text is escaped.

    Args:
        name: the title.
        sections: `Section`s.
    """
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template(TEMPLATE).render(name=name, sections=sections)


def text(sentence):
    """Returns a paragraph."""
    return {"kind": "text", "text": sentence}


def bullets(sentences):
    """Returns a list of sentences."""
    return {"kind": "list", "items": list(sentences)}


def table(rows, head=()):
    """Returns a table of rows of cells, which may be of any type."""
    return {"kind": "table", "head": list(head), "rows": [list(map(str, row)) for row in rows]}


def picture(path):
    """Returns a PNG file as a picture, or a sentence if there is no such file."""
    if not path.is_file():
        return text("There is no picture yet.")
    return {"kind": "picture", "image": _image(path.stem.replace("_", " "), path.read_bytes())}


def panels(images):
    """Returns small pictures side by side, as many as fit, of {description: content of a PNG file}."""
    return {"kind": "panels", "images": [_image(alt, content) for alt, content in images.items()]}


def _image(alt, content):
    return {"alt": alt, "content": base64.b64encode(content).decode()}
