"""What the site has beside the pages of docs/: README, the change log, the cards of the zoo. A hook of MkDocs.

Links are written as they work in the repository. Those that lead out of docs/ are turned into links to the pages made
here.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Page of the site: file of the repository.
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
PAGES |= {"zoo/index.md": "zoo/README.md"}
PAGES |= {f"zoo/{path.parent.name}.md": f"zoo/{path.parent.name}/README.md" for path in ROOT.glob("zoo/*/README.md")}
CARD_PICTURES = {f"zoo/{path.parent.name}/{path.name}": path for path in ROOT.glob("zoo/*/*.png")}
TUTORIALS = {f"tutorials/{path.name}" for path in ROOT.glob("docs/tutorials/*.ipynb")}  # executed by make docs
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files, config):
    """Adds the pages that are files elsewhere, and a page for each text file that a page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, path in CARD_PICTURES.items():
        files.append(File.generated(config, page, abs_src_path=str(path)))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for source in sorted({target for file in pages for target in _linked(file) if (ROOT / target).is_file()}):
        if _page(source) is None and not source.endswith((".md", ".png")):
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, f"files/{source}.md", content=f"# {source}\n\n```text\n{text}```\n"))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links of the repository into links of the site."""
    here = page.file.src_uri

    def link(match):
        opening, target, anchor, closing = match.groups()
        if "://" in target or here.endswith(".ipynb"):
            return match[0]
        source = _resolved(_source(here), target)
        there = _page(source) or f"files/{source}.md"
        if files.get_file_from_path(there) is None:
            return match[0]
        return f"{opening}{posixpath.relpath(there, posixpath.dirname(here))}{anchor or ''}{closing}"

    return LINK.sub(link, markdown)


def _linked(file):
    """Returns the files of the repository that a page links to, paths from its root."""
    found = LINK.findall(file.content_string)
    return [_resolved(_source(file.src_uri), target) for _, target, _, _ in found if "://" not in target]


def _source(page):
    """Returns the path in the repository of a page of the site."""
    return PAGES.get(page, f"docs/{page}")


def _resolved(source, target):
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _page(source):
    """Returns the page of the site that shows a file or folder of the repository; None if there is none."""
    if source in ("docs/README.md", "README.md"):
        return "index.md"
    if source in CARD_PICTURES:
        return source
    if source == "zoo":
        return "zoo/index.md"
    for page, file in PAGES.items():
        if source in (file, posixpath.dirname(file) or None):
            return page
    tutorial = f"tutorials/{pathlib.PurePosixPath(source).stem}.ipynb"
    if source.startswith("examples/") and tutorial in TUTORIALS:
        return tutorial
    if source == "examples":
        return "tutorials/what_t_keeps.ipynb"
    return source.removeprefix("docs/") if source.startswith("docs/") else None
