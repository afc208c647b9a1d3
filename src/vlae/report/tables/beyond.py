"""The table of our own models: each beside the paper's best VLAE, with what its training cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.report.paper import citation, paper_table, table_names
from vlae.report.tables import paper_table as one_table
from vlae.report.tables.table import Table
from vlae.storage.records import read_training, training_file
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "beyond"

COLUMNS = (  # of the csv
    "dataset",
    "model",
    "run",
    "paper_model",
    "paper",
    "reproduced",
    "ours",
    "standard_error",
    "gain",
    "epochs",
    "epochs_before",
    "hours",
    "hardware",
    "reliable",
)
HEADERS = {  # of the columns for readers; the csv has more
    "model": "Model",
    "paper": "Paper's best",
    "reproduced": "Our run of it",
    "ours": "VLAE+",
    "standard_error": "± s.e.",
    "gain": "Gain",
    "epochs": "Epochs",
    "hours": "Hours",
    "run": "Run",
}

LEGEND = (
    "Test negative log-likelihood (NLL, nats per image, lower is better) of models that the paper "
    "does not have, beside the paper's best VLAE on the same data and our run of that. "
    "Gain: the paper's NLL − VLAE+. Hours: of the training, with those of the run whose weights "
    "it began with; the csv names the machine. docs/readings.md says how each change was chosen. "
    "†: the importance sampling is not reliable, and the true value is probably lower. "
    "‡: on OMNIGLOT rebuilt by its recipe, not on the paper's file."
)


def _tables() -> list[str]:
    """Return the names of the paper's tables that have a row for a model of ours."""
    return [name for name in table_names() if any(row.beside for row in paper_table(name).rows)]


def beyond_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    files = [file for name in _tables() for file in one_table.table_inputs(name, params)]
    rows = [row for name in _tables() for row in paper_table(name).rows if row.beside]
    named = {run for row in rows for run in (row.run, row.instead)}
    runs = [run for name, run in params.runs.items() if name in named]
    starts = [str(training_file(run.start.name)) for run in runs if run.start]
    return list(dict.fromkeys([*files, *starts]))


def build(params: "Params", root: Path) -> Table:
    """Build the table, a row per evaluated model. Raises VlaeError for a record that is no use."""
    import pandas as pd

    rows = [row for name in _tables() for row in _rows(name, params, root)]
    return Table(
        name=NAME,
        title="Beyond the paper",
        legend=LEGEND,
        frame=pd.DataFrame(rows, columns=list(COLUMNS), dtype=object),
        shown=pd.DataFrame([_cells(row) for row in rows], columns=list(HEADERS.values())),
        text=("Model", "Run"),
        groups=[row["group"] for row in rows],
        left_out=("Run",),
        source=f"Paper: {citation()}.",
    )


def _rows(name: str, params: "Params", root: Path) -> Iterator[dict]:
    """Yield a row for each model of ours in the paper's table `name` that is evaluated."""
    records = one_table.records(one_table.build_frame(name, params, root))
    of_model = {record["model"]: record for record in records}
    for row, record in zip(paper_table(name).rows, records, strict=True):
        if row.beside is None or record["ours"] is None:
            continue
        yield {
            **{key: record[key] for key in COLUMNS if key in record},
            "group": paper_table(name).title,
            "dataset": params.runs[record["run"]].dataset,
            "paper_model": row.beside,
            "reproduced": of_model[row.beside]["ours"],
            "gain": -record["difference"],
            "hours": _hours(record["run"], params, root),
            "reliable": record["doubt"] is None,
            "rebuilt": record["run"] != row.run,
        }


def _hours(run: str, params: "Params", root: Path) -> float | None:
    """Return the hours of a training and of the one that it began with; None: not recorded."""
    trainings = [read_training(root, run, params.runs[run].dataset) or {}]
    if start := trainings[0].get("start"):
        before = read_training(root, start["run"], params.runs[start["run"]].dataset) or {}
        same = before.get("checkpoint_sha256") == start["checkpoint_sha256"]
        trainings.append(before if same else {})  # it may have been trained further since
    if any("seconds" not in training for training in trainings):
        return None
    return sum(training["seconds"] for training in trainings) / 3600


def _cells(row: dict) -> dict[str, str]:
    marks = ("" if row["reliable"] else " †") + (" ‡" if row["rebuilt"] else "")
    cells = {
        "model": row["model"],
        "paper": rounded(row["paper"]),
        "reproduced": rounded(row["reproduced"]),
        "ours": f"**{rounded(row['ours'])}{marks}**",
        "standard_error": rounded_error(row["standard_error"]),
        "gain": rounded(row["gain"], sign="+"),
        "epochs": one_table.epochs(row),
        "hours": "" if row["hours"] is None else f"{row['hours']:.1f}",
        "run": row["run"],
    }
    return {HEADERS[key]: cell for key, cell in cells.items()}
