"""The paper's tables with our measured rows beside the printed ones."""

import math
import statistics
from dataclasses import replace
from pathlib import Path

from vlae.errors import VlaeError
from vlae.report.paper import PaperRow, PaperTable, citation, paper_table, table_names
from vlae.report.tables import claims, code_content
from vlae.report.tables.formats import to_csv, to_latex, to_markdown
from vlae.storage.records import evaluation_file, read_results, repeated_evaluations, training_file
from vlae.storage.write import write_text

COLUMNS = {  # of build_table's frame and of the csv
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
    "importance_samples": "string",
    "hardware": "string",
    "test_images": "Int64",
    "note": "string",
    "source": "string",
}


CLAIMS, KEPT = "claims", "cifar10_kept"  # the tables that are none of the paper's
TABLES = (*table_names(), CLAIMS, KEPT)


def table_inputs(name: str, params) -> list[str]:
    """The recorded results that table `name` reads where they exist, relative to the root."""
    if name == CLAIMS:
        return claims.claims_inputs(params)
    if name == KEPT:
        return code_content.kept_inputs(params)
    return [
        str(file(run))
        for row in paper_table(name).rows
        for one in (row.run, row.instead)
        if one in params.runs
        for run in (one, *params.repetitions(one))
        for file in (training_file, evaluation_file)
    ]


def table_outputs(name: str) -> list[str]:
    """The files that write_table makes, relative to the root."""
    _check(name)
    return [str(Path("results", "tables", f"{name}.{end}")) for end in ("csv", "md", "tex")]


def build_table(name: str, params, root: Path | str = "."):
    """Table `name` of the paper as a pandas.DataFrame, one line for every row of it.

    paper, ours, standard_error, spread and difference (ours - paper) are in the table's unit,
    the KL columns in nats an image. Where a run has been repeated with other seeds, ours and
    kl_ours are means over the trainings, `seeds` is their number and `spread` the standard
    deviation of a single one's NLL; the standard errors are the mean ones, still of a single
    training: over the test images, which all share. `bound` is the sign before the paper's
    value: <, ≤, or ≈ for one that we derived from printed ones. Cells that do not apply are
    missing; a run without a recorded result has the note "not trained".

    Raises VlaeError for an unknown table and for a record that cannot be used.
    """
    import pandas as pd

    table = paper_table(name)
    rows = [_paper_cells(row) | _our_cells(row, table, params, Path(root)) for row in table.rows]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def write_table(name: str, params, root: Path | str = ".") -> list[Path]:
    """Write results/tables/NAME.{csv,md,tex} under `root`, each whole or not at all.

    The csv has full precision; the other two are for readers. Raises as build_table does.
    """
    _check(name)
    if name == CLAIMS:
        texts = claims.claims_texts(claims.check_claims(params, root))
    elif name == KEPT:
        texts = code_content.kept_texts(code_content.kept_rows(params, Path(root)))
    else:
        table, frame = paper_table(name), build_table(name, params, root)
        texts = to_csv(frame), to_markdown(frame, table, citation()), to_latex(frame, table)
    paths = [Path(root, output) for output in table_outputs(name)]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths


def _check(name: str) -> None:
    if name not in TABLES:
        raise VlaeError(f"no table {name!r}; there are {', '.join(TABLES)}")


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


def _our_cells(row: PaperRow, table: PaperTable, params, root: Path) -> dict:
    if row.run is None:
        return {}
    if row.instead and _training(row.run, params, root) is None:
        row = replace(row, run=row.instead)
        return {"run": row.run} | _cells_of(
            row, [*_paper_remarks(row), row.note], table, params, root
        )
    dataset = params.runs[row.run].dataset if row.run in params.runs else table.dataset
    if dataset != table.dataset:
        raise VlaeError(
            f"run {row.run}: data set {dataset!r}, but {table.name} is {table.dataset}"
        )
    return _cells_of(row, _paper_remarks(row), table, params, root)


def _training(run: str, params, root: Path) -> dict | None:
    return read_results(root, run, params.runs[run].dataset)[0] if run in params.runs else None


def _cells_of(row: PaperRow, remarks: list[str], table: PaperTable, params, root: Path) -> dict:
    """The cells of row.run, whatever data set it is on, with the remarks in its note."""
    if row.run not in params.runs:
        return {"note": "; ".join(["not trained", *remarks])}
    training, evaluation = read_results(root, row.run, params.runs[row.run].dataset)
    if training is None:
        why = params.why_not_trained(row.run)
        return {"note": "; ".join([f"not trained: {why}" if why else "not trained", *remarks])}
    if evaluation is None:
        trained = f"trained for {_count(training['epochs'], 'epoch')}, not evaluated"
        return {
            "epochs": training["epochs"],
            "hardware": training["hardware"],
            "note": "; ".join([trained, *remarks]),
        }

    evaluations, of_seeds = repeated_evaluations(row.run, evaluation, params, root)
    # The record gives nats and, by the same factor for mean and error, bits per dimension.
    scale = evaluation["bits_per_dim"] / evaluation["nll"] if table.unit == "bits/dim" else 1.0

    def mean(key: str) -> float:
        return statistics.fmean(each[key] for each in evaluations)

    ours, several = mean("nll") * scale, len(evaluations) > 1
    return {
        "ours": ours,
        "standard_error": mean("nll_se") * scale,
        "seeds": len(evaluations),
        "spread": statistics.stdev(e["nll"] for e in evaluations) * scale if several else None,
        "difference": None if row.value is None else ours - row.value,
        "kl_ours": mean("kl"),
        "kl_standard_error": mean("kl_se"),
        "epochs": evaluation["epochs"],
        "importance_samples": _samples(evaluation),
        "hardware": _hardware(training, evaluation),
        "test_images": evaluation["n_test"],
        "note": "; ".join([*_budget(training, evaluation, row, table), *of_seeds, *remarks]),
    }


def _samples(evaluation: dict) -> str:
    """The cell: "exact", "64", or with a second level "64; 4096 on 200" (images)."""
    if evaluation["exact"]:
        return "exact"
    first, deep = evaluation["importance_samples"], evaluation.get("deep")
    return f"{first}; {deep['importance_samples']} on {deep['images']}" if deep else str(first)


def _budget(training: dict, evaluation: dict, row: PaperRow, table: PaperTable) -> list[str]:
    """What was spent on our number, from its records, beside what the paper says it spent."""
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
    """What a training record says beyond the epochs: a decay of the learning rate at the end, and
    stretches that went on from a published checkpoint. Else ""."""
    stretches = training.get("stretches") or [{}]
    decay = stretches[-1].get("decay_epochs", 0)
    decaying = f" (the learning rate decays over the last {decay})" if decay else ""
    return decaying + (f" in {len(stretches)} stretches" if len(stretches) > 1 else "")


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
