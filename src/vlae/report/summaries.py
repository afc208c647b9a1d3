"""Writes a model card for each run, and the metrics and the curve that DVC shows (docs/dvc.md).

They are small files in git, for every evaluated run. The records have some fifty fields, and DVC
shows files only if they are in git or in its cache.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.report.cards import CARDS, card, card_file
from vlae.report.drawn import write_note
from vlae.storage.read import read_text
from vlae.storage.records import curve_file, evaluation_file, read_evaluation, training_file
from vlae.storage.write import write_text

if TYPE_CHECKING:
    from vlae.config.schema import Params

METRICS, CURVES = Path("results/metrics"), Path("results/curves")
SHOWN = ("nll", "nll_se", "kl", "bits_per_dim", "epochs")  # the first three in nats per image


SUMMARY = "runs"  # name of the note for all summaries (vlae.report.drawn)


def run_inputs(run: str) -> list[str]:
    """Return the recorded results that a run's summary is made from, relative to the root."""
    return [str(evaluation_file(run)), str(curve_file(run)), str(training_file(run))]


def run_outputs(run: str) -> list[str]:
    """Return the files of a run's summary, relative to the root."""
    return [str(METRICS / f"{run}.json"), str(CURVES / f"{run}.csv"), str(card_file(run))]


def summary_inputs(params: "Params") -> list[str]:
    """Return the inputs of all runs."""
    return [path for run in params.runs for path in run_inputs(run)]


def summary_outputs(params: "Params") -> list[str]:
    """Return the outputs of all runs; those of runs without results do not exist."""
    return [path for run in params.runs for path in run_outputs(run)]


def write_summaries(params: "Params", root: Path | str = ".") -> None:
    """Write results/metrics/RUN.json, results/curves/RUN.csv and results/cards/RUN.md.

    They are written for all runs that have results.

    The files of all other runs are removed. A note says what the files were made from
    (vlae.report.drawn). Raises VlaeError for a record that cannot be used.
    """
    root, kept = Path(root), set()
    for run, of_run in params.runs.items():
        record = read_evaluation(root, run, of_run.dataset)
        if record is None or not all((root / path).exists() for path in run_inputs(run)):
            continue
        metrics, curve, model_card = (root / name for name in run_outputs(run))
        write_text(metrics, json.dumps({key: record[key] for key in SHOWN}, indent=1) + "\n")
        write_text(curve, read_text(root / curve_file(run)))
        write_text(model_card, card(params, of_run, root))
        kept |= {metrics, curve, model_card}
    for folder, ending in ((METRICS, "json"), (CURVES, "csv"), (CARDS, "md")):
        for old in {*(root / folder).glob(f"*.{ending}")} - kept:
            old.unlink()
    write_note("summaries", SUMMARY, summary_inputs(params), summary_outputs(params), root)
