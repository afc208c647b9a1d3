"""Checks that each table and figure is what the recorded results give, by content.

Nothing is drawn for it: the files' checksums are compared with the notes that are kept beside the
drawings (vlae.report.drawn).
"""

from collections.abc import Iterator
from pathlib import Path

from vlae.config.schema import Params
from vlae.errors import VlaeError
from vlae.report.drawn import differences, note_file
from vlae.report.figures.registry import FIGURES, figure_inputs, figure_outputs
from vlae.report.summaries import SUMMARY, summary_inputs, summary_outputs
from vlae.report.tables.registry import TABLES, table_inputs, table_outputs

AGAIN = "`snakemake --cores all --config train=false` draws them again from what is recorded"


def drawings(params: Params) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(kind, name, inputs, outputs) of the tables and figures that show any of the runs, paths
    relative to the root; kind is "tables", "figures" or "summaries" (what DVC shows of all runs).
    """
    for name in TABLES:
        if inputs := table_inputs(name, params):
            yield "tables", name, inputs, table_outputs(name)
    for name in FIGURES:
        if inputs := figure_inputs(name, params):
            yield "figures", name, inputs, figure_outputs(name)
    if params.runs:
        yield "summaries", SUMMARY, summary_inputs(params), summary_outputs(params)


def verify_drawings(params: Params, root: Path) -> Iterator[str]:
    """Compare all drawings with their notes; yields a line for each that disagrees, and one that
    says how many were checked. Raises VlaeError naming those that disagree."""
    checked, wrong = dict.fromkeys(("tables", "figures", "summaries"), 0), []
    for kind, name, inputs, outputs in drawings(params):
        if not any(Path(root, path).exists() for path in [*outputs, str(note_file(kind, name))]):
            continue  # not drawn yet
        checked[kind] += 1
        found = list(differences(kind, name, inputs, outputs, root))
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            yield f"{kind}/{name}: NOT as recorded, {found[0]}{more}"
            wrong.append(f"{kind}/{name}")
    said = f"{len(wrong)} of them NOT as recorded" if wrong else "as drawn from the results here"
    yield f"{checked['tables']} tables and {checked['figures']} figures: {said} (by checksum)"
    if wrong:
        raise VlaeError(f"not what the recorded results give: {', '.join(wrong)}; {AGAIN}")
