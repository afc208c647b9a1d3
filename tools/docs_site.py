"""The documentation site's files: MkDocs calls this when it builds (`make docs`, mkdocs.yml).

Every page has the place in the site that its file has in the repository, so that a link between
two files holds in both. Files that a page links to (tables, figures, settings) come with it.
The tutorial's page is made here from its notebook.
"""

import re
from pathlib import Path

import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

import mermaid_svg

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "results/*.md")
PAGES += ("results/tables/*.md", "results/cards/*.md")
ASSETS = {ROOT / "docs" / name for name in ("iframe-worker.js", "site.css")}  # of mkdocs.yml
NOTEBOOK = Path("docs/tutorial.ipynb")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)


def on_config(config):
    """Give each model card its place in the navigation."""
    cards = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("results/cards/*.md"))
    for section in config.nav:
        if "Model cards" in section:
            section["Model cards"] = [{Path(card).stem: card} for card in cards]
    config.nav = [section for section in config.nav if [] not in section.values()]
    return config


def on_files(files, config):
    """Replace the files of docs/ by the pages and what they link to, each in its own place."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    for page in sorted(pages):
        files.append(File.generated(config, _place(page), abs_src_path=str(page)))
    linked = {target for page in pages for target in _linked(page)}
    for target in sorted((linked | ASSETS) - pages):
        files.append(File.generated(config, _place(target), abs_src_path=str(target)))
    for place, content in _tutorial():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown, page, **_):
    """Draw diagrams here: the reader's browser would load a library for them."""
    try:
        return MERMAID.sub(lambda block: mermaid_svg.drawn(block.group(1)), markdown)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def _place(path):
    return path.relative_to(ROOT).as_posix()


def _linked(page):
    """The files of the repository that a page links to; one that is missing fails the build."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        if "://" not in link and target.is_file() and target.is_relative_to(ROOT):
            yield target


def _tutorial():
    """The notebook as a page, with its pictures beside it: (place, content) of each."""
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=4)
    page, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": NOTEBOOK.stem, "output_files_dir": f"{NOTEBOOK.stem}_files"}
    )
    yield NOTEBOOK.with_suffix(".md").as_posix(), page
    for name, content in resources["outputs"].items():
        yield (NOTEBOOK.parent / name).as_posix(), content
