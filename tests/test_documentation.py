"""What the documentation names is there."""

import re

import pytest

from miniature import PROJECT

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])
# Paths of the repository as code, and links to files in it.
NAMED = re.compile(r"`((?:src|tests|workflow|docs|benchmarks|tools|results)/[\w./-]+)`")
LINKED = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
MADE = tuple(
    f"results/{name}"
    for name in (
        *("logs", "report.html", "samples", "evaluations", "checkpoints", "classifiers"),
        *("codelengths", "lossy", "probes"),
    )
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    text = path.read_text()
    named = [PROJECT / name for name in NAMED.findall(text) if not name.startswith(MADE)]
    linked = [path.parent / name for name in LINKED.findall(text)]
    missing = [str(target) for target in (*named, *linked) if not target.exists()]
    assert missing == []


def test_extending_names_the_files_of_each_change():
    paragraphs = (PROJECT / "docs" / "extending.md").read_text().split("\n\n**")[1:]
    assert len(paragraphs) == 17
    for paragraph in paragraphs:
        title = paragraph.partition(".**")[0]
        assert NAMED.findall(paragraph) or "`params.yaml`" in paragraph or "](" in paragraph, title


def test_architecture_has_every_room():
    text = (PROJECT / "docs" / "architecture.md").read_text()
    source = PROJECT / "src" / "vlae"
    rooms = {path.name for path in source.iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"| `{room}/` |" in text} == rooms
    modules = {path.stem for room in rooms for path in (source / room).glob("*.py")}
    named = set(re.findall(r"`([a-z_]+)`", text)) - {"formats"}
    assert named <= modules, named - modules
