"""Checks that each table and figure belongs to the recorded results.

Nothing is drawn: the checksums of the files are compared with the notes that were written with the
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

AGAIN = "`snakemake --cores all --config train=false` draws them again from the recorded results"


def drawings(params: Params) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield (kind, name, inputs, outputs) of all tables and figures that show any of the runs.

    kind: "tables", "figures" or "summaries" (what DVC shows). Paths are relative to the root.
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
    """Compare all drawings with their notes; yield a line for each that differs, and a summary.

    Raises VlaeError with the names of those that differ.
    """
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
    said = (
        f"{len(wrong)} of them NOT as recorded" if wrong else "as drawn from the recorded results"
    )
    yield f"{checked['tables']} tables and {checked['figures']} figures: {said} (by checksum)"
    if wrong:
        raise VlaeError(f"not drawn from the recorded results: {', '.join(wrong)}; {AGAIN}")
