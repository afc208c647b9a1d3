"""The table that compares readings of the decoder's window (docs/readings.md, section 1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.errors import VlaeError
from vlae.images import FIXED, recorded_kind
from vlae.receptive_field import decoder_kernels, reach
from vlae.report.doubt import doubt
from vlae.report.paper import PaperRow, paper_table
from vlae.report.tables.table import Table
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import (
    curve_file,
    evaluation_file,
    read_curve,
    read_results,
    read_samples,
    training_file,
)
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "decoder_windows"


@dataclass(frozen=True)
class Reading:
    """One reading of the decoder's window.

    run: a VLAE. alone: the same decoder without a code on dynamic MNIST, or None.
    """

    title: str
    run: str
    alone: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Readings of the window with everything but the length of training equal.

    paper, paper_alone: rows of the paper's tables, as (table, model), for the VLAE and for its
    decoder alone.
    """

    title: str
    readings: tuple[Reading, ...]
    paper: tuple[str, str]
    paper_alone: tuple[str, str] | None = None


A, D = "A. six 3x3 convolutions, as printed", "D. 7x7, then twelve 3x3"
STATIC = ("table1_static_mnist", "VLAE")
ALONE = ("table2_dynamic_mnist", "Unconditional decoder")
COMPARISONS = (
    Comparison(
        "Static MNIST, the 50,000 training images",
        (
            Reading(A, "static_mnist-window_a"),
            Reading(A, "static_mnist-window_a_untied", "dynamic_mnist-pixelcnn_a"),
            Reading(D, "static_mnist-window_d_untied", "dynamic_mnist-pixelcnn"),
        ),
        STATIC,
        ALONE,
    ),
    Comparison(
        "Static MNIST, training and validation images",
        (
            Reading(A, "static_mnist-vlae_window_a"),
            Reading(D, "static_mnist-vlae", "dynamic_mnist-pixelcnn_tied"),
        ),
        STATIC,
        ALONE,
    ),
    Comparison(
        "Dynamic MNIST, training and validation images",
        (Reading(A, "dynamic_mnist-vlae_window_a"), Reading(D, "dynamic_mnist-vlae")),
        ("table6_ablation", "PixelCNN decoder + AF prior"),
    ),
)
TITLE = "Two readings of the decoder's window"
LEGEND = (
    "VLAEs that, within a group, differ only in their masked convolutions and in the length of "
    "training (Epochs); in the first group that is the same too. Pixels: how many other pixels a "
    "pixel sees. Tied: yes if the masked 3x3 "
    "convolutions share their weights. NLL and KL(q(z|x) ‖ p(z)) are those of the test images. "
    "Bound: −ELBO of the training and validation images after the last epoch. All are in nats per "
    "image. Changed: how many of the 784 pixels differ between a test image and its "
    "decompression. Alone: NLL of the same decoder without a code, on dynamically binarized "
    "MNIST. The paper does not say how long its models were trained, or whether on the validation "
    "images too."
)
HEADERS = {
    "reading": "Window",
    "pixels": "Pixels",
    "tied": "Tied",
    "nll": "NLL",
    "kl": "KL",
    "train_bound": "Bound, train",
    "valid_bound": "Bound, valid",
    "changed": "Changed",
    "alone": "Alone",
    "epochs": "Epochs",
    "hardware": "Hardware",
    "note": "Note",
}
ERRORS = ("nll", "kl", "changed", "alone")
CSV = (
    *("reading", "run", "alone_run", "pixels", "rows_above", "columns_aside", "tied"),
    *(f"{key}{which}" for key in ERRORS for which in ("", "_se")),
    *("train_bound", "valid_bound", "epochs", "hardware", "note"),
)


def readings() -> list[Reading]:
    """Return the readings of all comparisons."""
    return [reading for comparison in COMPARISONS for reading in comparison.readings]


def windows_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    files = []
    for reading in readings():
        if reading.run in params.runs:
            kinds = (training_file, evaluation_file, curve_file, paths.samples)
            files += [str(file(reading.run)) for file in kinds]
        if reading.alone in params.runs:
            files += [str(file(reading.alone)) for file in (training_file, evaluation_file)]
    return list(dict.fromkeys(files))


def build(params: "Params", root: Path) -> Table:
    """Build the table. Raises VlaeError for a record that cannot be used."""
    import pandas as pd

    rows: list[dict] = []
    groups: list[str | None] = []
    for comparison in COMPARISONS:
        known = [reading for reading in comparison.readings if reading.run in params.runs]
        found = [_row(reading, params, root) for reading in known]
        rows += [_paper(comparison), *found] if found else []
        groups += [comparison.title] * (len(found) + 1) if found else []
    return Table(
        name=NAME,
        title=TITLE,
        legend=LEGEND,
        frame=pd.DataFrame(rows, columns=list(CSV), dtype=object),
        shown=pd.DataFrame([_cells(row) for row in rows]),
        groups=groups,
        text=("Window", "Tied", "Hardware", "Note"),
        below={"Note": "{}", "Hardware": "{}"},
    )


def _paper(comparison: Comparison) -> dict:
    whole = _printed(*comparison.paper)
    numbers = {"nll": whole.value, "kl": whole.kl}
    if comparison.paper_alone:
        numbers["alone"] = _printed(*comparison.paper_alone).value
    return dict.fromkeys(CSV) | {"reading": "The paper"} | numbers


def _printed(table: str, model: str) -> PaperRow:
    (row,) = (row for row in paper_table(table).rows if row.model == model)
    return row


def _row(reading: Reading, params: "Params", root: Path) -> dict:
    from vlae.config.schema import ModelConfig

    run = params.runs[reading.run]
    if not isinstance(run.model, ModelConfig):
        raise VlaeError(f"run {reading.run}: not a model of binary images")
    decoder = run.model.decoder
    seen = reach(decoder_kernels(decoder.first_kernel, decoder.masked_blocks, decoder.last_masked))
    row = dict.fromkeys(CSV) | {
        "reading": reading.title,
        "run": reading.run,
        "alone_run": reading.alone,
        "pixels": len(seen),
        "rows_above": max(-row for row, _ in seen),
        "columns_aside": max(abs(column) for _, column in seen),
        "tied": decoder.tied,
    }
    if reading.alone in params.runs:
        of = params.runs[reading.alone].dataset
        _, evaluation = read_results(root, reading.alone, of)
        if evaluation is not None:
            row |= {"alone": evaluation["nll"], "alone_se": evaluation["nll_se"]}
    training, evaluation = read_results(root, reading.run, run.dataset)
    if training is None:
        why = params.why_not_trained(reading.run)
        return row | {"note": f"not trained: {why}" if why else "not trained"}
    row |= {"epochs": training["epochs"], "hardware": training["hardware"]}
    begun = training.get("start")
    remarks = [f"begun after the {begun['epochs']} epochs of {begun['run']}"] if begun else []
    curve = read_curve(root, reading.run)
    if curve is not None:
        row["train_bound"] = -float(curve["elbo"][-1])
        if np.isfinite(curve["valid_elbo"][-1]):
            row["valid_bound"] = -float(curve["valid_elbo"][-1])
    images = read_samples(root, reading.run)
    if images is not None:
        row["changed"], row["changed_se"] = changed_pixels(
            images, Path(root, paths.samples(reading.run))
        )
    if evaluation is None:
        return row | {"note": "; ".join([*remarks, "not evaluated"])}
    row["note"] = "; ".join(filter(None, [*remarks, doubt(evaluation)]))
    return row | {key: evaluation[key] for key in ("nll", "nll_se", "kl", "kl_se")}


def changed_pixels(images: dict[str, np.ndarray], path: Path) -> tuple[float, float]:
    """Return mean and standard error of the number of pixels that a decompression changes."""
    originals, again = images["originals"], images["decompressions"]
    if recorded_kind(originals.shape[1:]) is not FIXED or len(originals) < 2:
        raise VlaeError(f"{path}: needs at least two binary images")
    return mean_and_error((originals != again).sum((1, 2)).astype(np.float64))


def _cells(row: dict) -> dict[str, str]:
    """Return the cells for readers, by heading."""

    def text(key: str) -> str:
        value = row[key]
        if value is None:
            return ""
        if key in ERRORS:
            error = row[f"{key}_se"]
            return rounded(value) + (f" ± {rounded_error(error)}" if error is not None else "")
        if key == "tied":
            return "yes" if value else "no"
        return rounded(value) if isinstance(value, float) else str(value)

    cells = {heading: text(key) for key, heading in HEADERS.items()}
    return cells | ({"Window": f"**{cells['Window']}**"} if row["run"] else {})
