"""The table of the information in the codes of colour images, one row per run.

The rows are computed from the recorded test images and their decompressions. They give the errors
of vlae.evaluation.reconstruction_error and the number of images that the data set's classifier
recognises (vlae.evaluation.classifier).
"""

import math
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.errors import VlaeError
from vlae.evaluation.reconstruction_error import (
    BLOCK,
    KINDS,
    errors,
    errors_of_others,
)
from vlae.images import COLOUR, recorded_kind
from vlae.report.tables.table import Table
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import (
    evaluation_file,
    read_index,
    read_results,
    read_samples,
    training_file,
)
from vlae.units import BITS_PER_DIM, rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

CHANCE = 0.1  # accuracy of a random guess, for ten classes of equal size
CSV = (
    *("run", "dataset", "epochs", "bits_per_dim", "kl_nats", "kl_bits"),
    *("n_test", "images"),
    *(f"{kind}{which}" for kind in KINDS for which in ("", "_se", "_others")),
    *(
        f"recognised_{of}{which}"
        for of in ("originals", "decompressions")
        for which in ("", "_se")
    ),
    *("chance", "note"),
)
HEADERS = (
    *("Run", "Epochs", "bits/dim", "KL, nats", "KL, bits", "Test images", "Decompressed"),
    *("Structure error", "Structure, others", "Colour error", "Colour, others"),
    *("Recognised, originals", "Recognised, decompressions"),
)
TITLE = "What the codes of colour images keep"
LEGEND = (
    "Test images compared with their decompressions, sampled from p(x|z) with z ~ q(z|x). "
    f"Errors are root mean square differences of the means of {BLOCK}x{BLOCK} pixels, in levels "
    "of 0 to 255: structure in luma, colour in the two chromas. They are means over the images, "
    "± standard error. Others: the same for the decompressions of all other images, as without "
    "any code. Recognised: images that a small classifier assigns to the right one of ten classes "
    "(chance: 10 %), ± standard error; it was trained on original images. bits/dim and "
    "KL(q(z|x) ‖ p(z)) are means per image over all test images, all else over the decompressed "
    "ones."
)


def kept_runs(params: "Params") -> list[str]:
    """Return the runs on colour images, without repetitions, sorted by data set."""
    runs = [
        n
        for n, r in params.runs.items()
        if params.image_kind(r.dataset) is COLOUR and not r.repeats
    ]
    return sorted(runs, key=lambda run: params.runs[run].dataset)


def kept_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    runs = kept_runs(params)
    datasets = dict.fromkeys(params.runs[run].dataset for run in runs)
    weights = [paths.classifier(name) for name in datasets if name in params.classifiers]
    return [
        *(str(f(run)) for run in runs for f in (training_file, evaluation_file, paths.samples)),
        *(str(file) for path in weights for file in (path, path.with_suffix(".json"))),
    ]


def kept_rows(params: "Params", root: Path) -> list[dict]:
    """Return the rows, with the keys of CSV; None if nothing is recorded, with a `note`.

    bits_per_dim and kl_* are means over all test images, the other values over the recorded ones.
    Errors are in levels of 0 to 255, fractions of recognised images between 0 and 1.
    """
    return [
        dict.fromkeys(CSV) | {"run": run, "dataset": params.runs[run].dataset} | row
        for dataset, runs in groupby(kept_runs(params), lambda run: params.runs[run].dataset)
        for run, row in _of_dataset(dataset, list(runs), params, root)
    ]


def _of_dataset(
    dataset: str, runs: list[str], params: "Params", root: Path
) -> Iterator[tuple[str, dict]]:
    """Yield (run, row) of each run on a data set; the classifier is read at most once."""
    judge = None
    for run in runs:
        training, evaluation = read_results(root, run, dataset)
        row, remarks = {}, []
        if training is None:
            why = params.why_not_trained(run)
            yield run, {"note": f"not trained: {why}" if why else "not trained"}
            continue
        row["epochs"] = training["epochs"]
        if evaluation is None:
            remarks.append("not evaluated")
        else:
            row["bits_per_dim"] = evaluation["nll"] * BITS_PER_DIM.per_nat
            row["kl_nats"] = evaluation["kl"]
            row["kl_bits"] = evaluation["kl"] / math.log(2)
            row["n_test"] = evaluation["n_test"]
        images = read_samples(root, run)
        if images is None:
            yield run, row | {"note": "; ".join([*remarks, "not sampled"])}
            continue
        originals, again = images["originals"], images["decompressions"]
        if recorded_kind(originals.shape[1:]) is not COLOUR or len(originals) < 2:
            raise VlaeError(f"{Path(root, paths.samples(run))}: needs at least two colour images")
        row["images"] = len(originals)
        others = errors_of_others(originals, again)
        for kind, values in errors(originals, again).items():
            row[kind], row[f"{kind}_se"] = mean_and_error(values)
            row[f"{kind}_others"] = float(others[kind].mean())
        judge = judge or _judge(root, dataset)
        if judge is None:
            remarks.append("no classifier trained")
        else:
            index = read_index(root, run, len(originals))
            row |= judge(run, index, again, evaluation)
        yield run, row | {"note": "; ".join(remarks)}


def _judge(root: Path, dataset: str) -> Callable[..., dict] | None:
    """Return a function that classifies decompressions, or None without a classifier."""
    from vlae.evaluation.classifier import accuracy, classify, read_classifier

    found = read_classifier(root, dataset)
    if found is None:
        return None
    record, model, test = found

    def judge(run: str, index: np.ndarray, images: np.ndarray, evaluation: dict | None) -> dict:
        path = Path(root, paths.classifier(dataset))
        if evaluation and evaluation.get("data_sha256") != record["data_sha256"]:
            raise VlaeError(f"{path}: trained on other data than {run} was evaluated on")
        if index.min() < 0 or index.max() >= record["n_test"]:
            raise VlaeError(f"{Path(root, paths.samples(run))}: originals_index: no such image")
        labels, row = test["test_labels"][index], {"chance": CHANCE}
        for of, predictions in (
            ("originals", test["test_predictions"][index]),
            ("decompressions", classify(model, images)),
        ):
            share, error = accuracy(predictions, labels)
            row |= {f"recognised_{of}": share, f"recognised_{of}_se": error}
        return row

    return judge


def build(params: "Params", root: Path) -> Table:
    """Build the table. Raises VlaeError for a record that cannot be used."""
    import pandas as pd

    rows = kept_rows(params, root)
    return Table(
        name="cifar10_kept",
        title=TITLE,
        legend=LEGEND,
        frame=pd.DataFrame(rows, columns=list(CSV), dtype=object),
        shown=pd.DataFrame([_cells(row) for row in rows], columns=[*HEADERS, "Note"]),
        text=("Run", "Note"),
        below={"Note": "{}"},
    )


def _cells(row: dict) -> list[str]:
    """Return the cells for readers, in the order of HEADERS and Note."""

    def with_error(key: str) -> str:
        value, error = row[key], row[f"{key}_se"]
        return "" if value is None else f"{rounded(value)} ± {rounded_error(error)}"

    def share(key: str) -> str:
        value, error = row[key], row[f"{key}_se"]
        return "" if value is None else f"{100 * value:.1f} ± {100 * error:.1f} %"

    epochs, *images = (
        "" if row[key] is None else f"{row[key]:,}" for key in ("epochs", "n_test", "images")
    )
    cells = [row["run"], epochs]
    cells += [rounded(row[key]) for key in ("bits_per_dim", "kl_nats", "kl_bits")]
    cells += images
    for kind in KINDS:
        cells += [with_error(kind), rounded(row[f"{kind}_others"])]
    return [
        *(*cells, share("recognised_originals"), share("recognised_decompressions")),
        row["note"],
    ]
