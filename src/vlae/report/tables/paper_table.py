"""The paper's tables with our measured rows beside the printed ones."""

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.errors import VlaeError, nearest
from vlae.report.doubt import doubt
from vlae.report.paper import PaperRow, PaperTable, citation, paper_table
from vlae.report.repetitions import repeated_evaluations
from vlae.report.tables.table import Table
from vlae.storage.records import (
    epochs_before,
    evaluation_file,
    read_results,
    training_file,
)
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    import pandas as pd

    from vlae.config.schema import Params

COLUMNS = {  # columns of build_frame's frame and of the csv
    "group": "string",
    "model": "string",
    "reference": "string",
    "run": "string",
    "bound": "string",
    "paper": "Float64",
    "ours": "Float64",
    "standard_error": "Float64",
    "seeds": "Int64",
    "spread": "Float64",
    "difference": "Float64",
    "kl_paper": "Float64",
    "kl_ours": "Float64",
    "kl_standard_error": "Float64",
    "epochs": "Int64",
    "epochs_before": "Int64",
    "importance_samples": "string",
    "hardware": "string",
    "test_images": "Int64",
    "doubt": "string",
    "note": "string",
    "source": "string",
}


HEADERS = {
    "model": "Model",
    "paper": "Paper",
    "ours": "Ours",
    "standard_error": "± s.e.",
    "seeds": "Seeds",
    "spread": "Spread",
    "difference": "Difference",
    "kl_paper": "KL, paper",
    "kl_ours": "KL, ours",
    "epochs": "Epochs",
    "importance_samples": "Importance samples",
    "hardware": "Hardware",
    "test_images": "Test images",
    "note": "Note",
}


def table_inputs(name: str, params: "Params") -> list[str]:
    """Return the recorded results that the paper's table `name` reads if they exist.

    The paths are relative to the root.
    """
    return [
        str(file(run))
        for row in paper_table(name).rows
        for one in (row.run, row.instead)
        if one in params.runs
        for run in (one, *params.repetitions(one))
        for file in (training_file, evaluation_file)
    ]


def build(name: str, params: "Params", root: Path) -> Table:
    """Build table `name` of the paper. Raises the errors of build_frame."""
    import pandas as pd

    table, frame = paper_table(name), build_frame(name, params, root)
    keys = _shown(frame)
    cells = [_cells(record, row) for record, row in zip(records(frame), table.rows, strict=True)]
    return Table(
        name=name,
        title=f"{table.title} ({table.source} of the paper)",
        legend=_legend(table, keys, frame),
        frame=frame,
        shown=pd.DataFrame(cells, columns=keys).rename(columns=HEADERS),
        text=("Model", "Hardware", "Note"),
        groups=[row.group for row in table.rows],
        below={"Note": "{}", "Test images": "{} test images", "Hardware": "{}"},
        narrow={"Difference": "Diff.", "Importance samples": "IS"},
        source=f"Paper: {citation()}.",
    )


def build_frame(name: str, params: "Params", root: Path | str = ".") -> "pd.DataFrame":
    """Build table `name` of the paper as a pandas.DataFrame with a line per row.

    paper, ours, standard_error, spread and difference (ours - paper) are in the table's unit, the
    KL columns in nats per image.

    If a run was repeated with other seeds, ours and kl_ours are means over the trainings. `seeds`
    is then their number and `spread` the standard deviation of the NLL among them. The standard
    errors are means too. They describe a single training, over the test images, which all
    trainings share.

    `epochs_before` are those of the run whose weights a training began with. `bound` is the sign
    before the paper's value: <, ≤, or ≈ for a value that we derived from printed ones. Cells that
    do not apply are missing. A run without a recorded result has the note "not trained". `doubt`
    says why the importance sampling of a row is not reliable.

    Raises VlaeError for an unknown table and for a record that cannot be used.
    """
    import pandas as pd

    table = paper_table(name)
    rows = [_paper_cells(row) | _our_cells(row, table, params, Path(root)) for row in table.rows]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def records(frame: "pd.DataFrame") -> list[dict]:
    """Return the lines of build_frame as dicts, with None for cells that do not apply."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _paper_cells(row: PaperRow) -> dict:
    return {
        "group": row.group,
        "model": row.model,
        "reference": row.reference,
        "run": row.run,
        "bound": "≈" if row.derived else None if row.bound == "none" else row.bound,
        "paper": row.value,
        "kl_paper": row.kl,
        "source": row.source,
    }


def _our_cells(row: PaperRow, table: PaperTable, params: "Params", root: Path) -> dict:
    if row.run is None:
        return {}
    if row.instead and _training(row.run, params, root) is None:
        row = replace(row, run=row.instead)
        remarks = [*dict.fromkeys([*_paper_remarks(row), *([row.note] if row.note else [])])]
        return {"run": row.run} | _cells_of(row, remarks, table, params, root)
    dataset = params.runs[row.run].dataset if row.run in params.runs else table.dataset
    if dataset != table.dataset:
        raise VlaeError(
            f"run {row.run}: data set {dataset!r}, but {table.name} is {table.dataset}"
        )
    return _cells_of(row, _paper_remarks(row), table, params, root)


def _training(run: str, params: "Params", root: Path) -> dict | None:
    return read_results(root, run, params.runs[run].dataset)[0] if run in params.runs else None


def _cells_of(
    row: PaperRow, remarks: list[str], table: PaperTable, params: "Params", root: Path
) -> dict:
    """Return the cells of row.run, on any data set, with the remarks in its note."""
    if row.run not in params.runs:
        absent = ["not trained: params.yaml has no such run", nearest(row.run, params.runs)]
        return {"note": "; ".join(filter(None, [*absent, *remarks]))}
    training, evaluation = read_results(root, row.run, params.runs[row.run].dataset)
    if training is None:
        why = params.why_not_trained(row.run)
        return {"note": "; ".join([f"not trained: {why}" if why else "not trained", *remarks])}
    if evaluation is None:
        trained = f"trained for {_count(training['epochs'], 'epoch')}, not evaluated"
        return {
            "epochs": training["epochs"],
            "epochs_before": epochs_before(training),
            "hardware": training["hardware"],
            "note": "; ".join([trained, *remarks]),
        }

    evaluations, of_seeds = repeated_evaluations(row.run, evaluation, params, root)
    # The record has the mean in nats and in bits/dim; the same factor converts the error.
    scale = evaluation["bits_per_dim"] / evaluation["nll"] if table.unit == "bits/dim" else 1.0

    def mean(key: str) -> float:
        return statistics.fmean(each[key] for each in evaluations)

    ours, several = mean("nll") * scale, len(evaluations) > 1
    doubtful = doubt(evaluation)
    if doubtful:
        remarks = [doubtful, *remarks]
    return {
        "ours": ours,
        "standard_error": mean("nll_se") * scale,
        "seeds": len(evaluations),
        "spread": statistics.stdev(e["nll"] for e in evaluations) * scale if several else None,
        "difference": None if row.value is None else ours - row.value,
        "kl_ours": mean("kl"),
        "kl_standard_error": mean("kl_se"),
        "epochs": evaluation["epochs"],
        "epochs_before": epochs_before(training),
        "importance_samples": _samples(evaluation),
        "hardware": _hardware(training, evaluation),
        "test_images": evaluation["n_test"],
        "doubt": doubtful,
        "note": "; ".join([*_budget(training, evaluation, row, table), *of_seeds, *remarks]),
    }


def epochs(record: dict) -> str:
    """Return the cell of the epochs in a row of `build_frame`: "30", "61 + 60", or ""."""
    count, before = record["epochs"], record["epochs_before"]
    return "" if count is None else f"{before} + {count}" if before is not None else str(count)


def _samples(evaluation: dict) -> str:
    """Return the cell: "exact", "64", or with a second level "64; 4096 on 200" (images)."""
    if evaluation["exact"]:
        return "exact"
    first, deep = evaluation["importance_samples"], evaluation.get("deep")
    return f"{first}; {deep['importance_samples']} on {deep['images']}" if deep else str(first)


def _budget(training: dict, evaluation: dict, row: PaperRow, table: PaperTable) -> list[str]:
    """Return remarks on the budget of our number, from its records, and on the paper's budget."""
    spent = "exact" if evaluation["exact"] else f"IS-{evaluation['importance_samples']}"
    if deep := evaluation.get("deep"):
        spent += f" corrected by IS-{deep['importance_samples']} on {deep['images']} images"
    remarks = [f"{_count(evaluation['epochs'], 'epoch')}{_course(training)}, {spent}"]
    if row.ours_alone:
        pass
    elif evaluation["exact"] or row.reference:  # a quoted row was not evaluated by the paper
        remarks.append("paper's budget not reported")
    else:
        remarks.append(f"paper: IS-{table.importance_samples}, budget not reported")
    if table.unit == "bits/dim":
        remarks.append(f"KL of {evaluation['kl'] / math.log(2):.1f} bits")
    if training["epochs"] != evaluation["epochs"]:
        remarks.append(f"training has since reached {_count(training['epochs'], 'epoch')}")
    if training["split"] == "train":
        remarks.append("trained without the validation images")
    if evaluation["config"].get("images"):
        remarks.append(f"the first {evaluation['n_test']} test images only")
    if draws := [draw["nll"] for draw in evaluation.get("draws", [])]:
        spread = f"{min(draws):.2f} to {max(draws):.2f} nats"
        remarks.append(f"{spread} over {_count(len(draws), 'binarization')} of the test images")
    return remarks


def _course(training: dict) -> str:
    """Return a remark on a training's start, bound, decay and number of stretches, or ""."""
    stretches = training.get("stretches") or [{}]
    decay = stretches[-1].get("decay_epochs", 0)
    decaying = f" (the learning rate decays over the last {decay})" if decay else ""
    several = f" in {len(stretches)} stretches" if len(stretches) > 1 else ""
    begun = training.get("start")
    begins = f" after the {begun['epochs']} of {begun['run']}" if begun else ""
    samples = training.get("config", {}).get("training", {}).get("bound_samples", 1)
    bound = f" with a K = {samples} importance-weighted bound" if samples > 1 else ""
    return decaying + begins + bound + several


def _paper_remarks(row: PaperRow) -> list[str]:
    if row.ours_alone:
        return [row.note] if row.note else []
    if row.derived:
        return [f"paper's value derived: {row.derived} ({row.source})"]
    if row.value is None and row.kl is not None:
        return [f"the paper prints its KL only: {row.kl_printed}"]
    if row.value is None:
        return ["the paper prints no value"]
    return []


def _hardware(training: dict, evaluation: dict) -> str:
    if training["hardware"] == evaluation["hardware"]:
        return training["hardware"]
    return f"{training['hardware']}; evaluated on {evaluation['hardware']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _legend(table: PaperTable, keys: list[str], frame: "pd.DataFrame") -> str:
    """Explain what the table shows and each sign in it."""
    sentences = [
        f"Test negative log-likelihood in {table.unit}, lower is better.",
        "Bold: rows reproduced here; all others are quoted.",
        "Difference: ours − paper.",
    ]
    if "kl_paper" in keys or "kl_ours" in keys:
        sentences.append("KL(q(z|x) ‖ p(z)) in nats per image.")
    if bounds := sorted({row.bound for row in table.rows} - {"none"}):
        sentences.append(f"{' and '.join(bounds)}: upper bound, as printed.")
    if frame["importance_samples"].str.contains(" on ", na=False).any():
        sentences.append(
            "Importance samples: for every test image; a second number is for some images drawn "
            "at random, which correct the mean."
        )
    if "spread" in keys:
        sentences.append(
            "Seeds: number of trainings; with several, ours is their mean and the spread their "
            "standard deviation."
        )
    if frame["doubt"].notna().any():
        sentences.append("†: the importance sampling is not reliable (docs/evaluation.md).")
    if any(row.ours_alone and row.value is not None for row in table.rows):
        sentences.append("VLAE+ is ours; beside it stands the paper's best VLAE of the table.")
    if any(row.derived or row.kl_derived for row in table.rows):
        sentences.append("≈: derived here from printed numbers.")
    return " ".join(sentences)


def _shown(frame: "pd.DataFrame") -> list[str]:
    """Return the columns for readers, without empty columns for KL and seeds."""
    optional = [key for key in HEADERS if key.startswith("kl_") or key == "spread"]
    empty = {key for key in optional if frame[key].isna().all()}
    return [
        key for key in HEADERS if key not in empty | ({"seeds"} if "spread" in empty else set())
    ]


def _cells(record: dict, row: PaperRow) -> dict[str, str]:
    cells = {key: "" if record[key] is None else str(record[key]) for key in HEADERS}
    for key in ("ours", "kl_ours"):
        cells[key] = rounded(record[key])
    if record["doubt"]:
        cells["ours"] += " †"
    for key in ("standard_error", "spread"):
        cells[key] = rounded_error(record[key])
    cells["epochs"] = epochs(record)
    cells["difference"] = rounded(record["difference"], sign="+")
    cells["kl_paper"] = ("≈ " if row.kl_derived else "") + rounded(record["kl_paper"])
    cells["paper"] = rounded(record["paper"])
    if row.derived:  # two decimals would claim a precision that the printed numbers lack
        cells["paper"] = f"{record['paper']:g}"
    if record["test_images"] is not None:
        cells["test_images"] = f"{record['test_images']:,}"
    if row.value is not None and record["bound"]:
        cells["paper"] = f"{record['bound']} {cells['paper']}"
    if row.reference:
        cells["model"] += f" ({row.reference})"
    if row.run:
        cells["model"] = f"**{cells['model']}**"
    return cells
