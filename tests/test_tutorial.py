"""The tutorial runs, and finds the KL that it says the decoder's window leaves to the code."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from miniature import PROJECT
from published import environment, published_clone

NOTEBOOK = PROJECT / "docs" / "tutorial.ipynb"
FOUND = re.compile(r"KL ([\d.]+) bits, exact (\d); -ELBO ([\d.]+) bits, exact (\d)")


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def needs_results(cell) -> bool:
    return "pretrained" in cell.metadata.get("tags", [])


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    return "".join(output.get("text", "") for output in outputs)


def check_toy(text: str) -> None:
    factorized, local, full = (map(float, line) for line in FOUND.findall(text))
    for (kl, exact, bound, least), off in ((factorized, 0.5), (local, 0.5), (full, 0.05)):
        assert abs(kl - exact) < off
        assert least - 0.05 < bound < least + 2


def test_what_is_committed_has_been_executed_and_is_small():
    notebook = read()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    check_toy(printed(notebook))
    assert NOTEBOOK.stat().st_size < 100_000


@pytest.mark.slow
def test_the_toy_finds_the_exact_kl(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT / "src"))
    notebook = read()
    notebook.cells = [cell for cell in notebook.cells if not needs_results(cell)]
    execute(notebook, tmp_path)
    check_toy(printed(notebook))


@pytest.mark.slow
@pytest.mark.skipif("VLAE_DATA_MIRROR" not in os.environ, reason="no mirror of the data sets")
def test_the_part_on_a_trained_model_runs(tmp_path, monkeypatch):
    for name, value in environment(published_clone(tmp_path / "clone")).items():
        monkeypatch.setenv(name, value)
    notebook = read()
    imports = next(cell for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = [imports, *filter(needs_results, notebook.cells)]
    execute(notebook, tmp_path)
    assert "64 samples:" in printed(notebook)
    assert (tmp_path / "tutorial.png").stat().st_size > 1000


def execute(notebook, folder) -> None:
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
