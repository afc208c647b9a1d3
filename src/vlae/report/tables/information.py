"""The table of information preference: what a code holds, by how far the decoder sees.

One row per run of the comparison "information preference", then full-sized networks: a factorized
decoder and the readings of the decoder's window (decoder_windows).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlae import one_bit
from vlae.errors import VlaeError
from vlae.receptive_field import decoder_kernels, reach
from vlae.report.doubt import doubt
from vlae.report.tables import decoder_windows
from vlae.report.tables.table import Table
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.records import (
    check_record,
    evaluation_file,
    read_results,
    read_samples,
    training_file,
)
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import DecoderConfig, Params, Run

NAME = "information"
COMPARISON = "information preference"
TOY = "one_bit"  # the format of the toy data set (vlae.one_bit)
FACTORIZED = "static_mnist-vlae_factorized"  # of full size
SERIES = ("with free bits", "without free bits", "full size", "one global bit")
# What a probe reads, by its name in the record of vlae.evaluation.probe.
READ = {"digit": "linear", "thickness": "thickness_r2", "slant": "slant_r2"}
MEASURED = ("nll", "kl", *READ, "changed")  # each with a standard error in the csv
CSV = (
    *("series", "run", "dataset", "reach", "pixels", "free_bits", "epochs", "latent_dim"),
    *(f"{key}{which}" for key in MEASURED for which in ("", "_se")),
    *("exact_nll", "exact_kl", "gaussian_kl", "note"),
)
TITLE = "What a code holds, by how far the decoder sees"
LEGEND = (
    "VLAEs that differ only in the window of their decoder, trained for the same few epochs. "
    "Reach: how many pixels up and to either side the decoder sees; 0 is a factorized decoder. "
    "Pixels: how many it sees in all. NLL and KL(q(z|x) ‖ p(z)) are those of the test images, in "
    "nats per image. Digit: test images whose digit a linear probe of a sample z of q(z|x) names, "
    "in %. Thickness, slant: R² of a linear regression from z to those of the strokes. Changed: "
    "how many of the 784 pixels differ between a test image and its decompression. Full size: the "
    f"networks of table decoder_windows, and {FACTORIZED}, which saw the validation images too. "
    "One global bit: a toy distribution of which NLL and KL are known exactly (vlae.one_bit); "
    "Exact: its NLL and the KL of the shortest code. Gaussian KL: that of the best code whose "
    "q(z|x) and p(z) are Gaussian, as these networks have. Networks of the other series are "
    "small, and no row is meant to reach the paper's numbers."
)


@dataclass(frozen=True)
class Point:
    """A run of the table. reach: pixels its decoder sees up and to either side; pixels: all."""

    series: str
    run: "Run"
    reach: int
    pixels: int


def points(params: "Params") -> list[Point]:
    """Return the runs of the table, sorted by series and reach."""
    found = [_point(run, params) for run in params.runs.values() if run.comparison == COMPARISON]
    windows = [FACTORIZED, *(reading.run for reading in decoder_windows.COMPARISONS[0].readings)]
    windows = [name for name in windows if name in params.runs]
    if found:  # without the small networks there is nothing to compare with
        found += [_point(params.runs[name], params, "full size") for name in windows]
    return sorted(found, key=lambda point: (SERIES.index(point.series), point.reach))


def _point(run: "Run", params: "Params", series: str | None = None) -> Point:
    from vlae.config.schema import ModelConfig

    if not isinstance(run.model, ModelConfig):
        raise VlaeError(f"run {run.name}: not a model of binary images")
    if series is None:
        toy = params.datasets[run.dataset]["format"] == TOY
        series = SERIES[3] if toy else SERIES[0 if run.training.free_bits else 1]
    seen = window(run.model.decoder)
    far = max((max(abs(row), abs(column)) for row, column in seen), default=0)
    return Point(series, run, far, len(seen))


def window(decoder: "DecoderConfig") -> set[tuple[int, int]]:
    """Return the other pixels that a decoder sees, as offsets (rows down, columns right)."""
    if decoder.kind == "factorized":
        return set()
    kernels = decoder_kernels(decoder.first_kernel, decoder.masked_blocks, decoder.last_masked)
    return reach(kernels)


def information_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    return [
        str(file(point.run.name))
        for point in points(params)
        for file in (training_file, evaluation_file, paths.samples, paths.probe)
        if file is not paths.probe or point.run.name in params.probes
    ]


def rows(params: "Params", root: Path) -> list[dict]:
    """Return the rows, with the keys of CSV; None where nothing is recorded, with a `note`."""
    return [_row(point, params, root) for point in points(params)]


def _row(point: Point, params: "Params", root: Path) -> dict:
    run = point.run
    row = dict.fromkeys(CSV) | {
        "series": point.series,
        "run": run.name,
        "dataset": run.dataset,
        "reach": point.reach,
        "pixels": point.pixels,
        "free_bits": run.training.free_bits,
        "latent_dim": run.model.latent_dim,
    }
    if point.series == SERIES[3]:
        row |= {"exact_nll": one_bit.exact_nll(), "exact_kl": one_bit.exact_kl(point.reach)}
        row["gaussian_kl"] = one_bit.gaussian_code(point.reach)[1] if point.reach else None
    training, evaluation = read_results(root, run.name, run.dataset)
    if training is None:
        return row | {"note": "not trained"}
    row["epochs"] = training["epochs"]
    images = read_samples(root, run.name)
    if images is not None:
        path = Path(root, paths.samples(run.name))
        row["changed"], row["changed_se"] = decoder_windows.changed_pixels(images, path)
    if evaluation is None:
        return row | {"note": "not evaluated"}
    row |= {key: evaluation[key] for key in ("nll", "nll_se", "kl", "kl_se")}
    return row | _probed(run, params, root) | {"note": doubt(evaluation)}


def _probed(run: "Run", params: "Params", root: Path) -> dict:
    """Return what a linear probe and regressions read from a drawn z, if it is recorded."""
    path = Path(root, paths.probe(run.name))
    if run.name not in params.probes or not path.exists():
        return {}
    about = {"run": run.name, "dataset": run.dataset}
    record = check_record(path, read_json(path), about, {"drawn": dict})
    numbers = [f"{key}{end}" for key in READ.values() for end in ("", "_se")]
    drawn = check_record(path, record["drawn"], {}, dict.fromkeys(numbers, float))
    return {f"{n}{end}": drawn[f"{k}{end}"] for n, k in READ.items() for end in ("", "_se")}


def build(params: "Params", root: Path) -> Table:
    """Build the table. Raises VlaeError for a record that cannot be used."""
    import pandas as pd

    found = rows(params, root)
    return Table(
        name=NAME,
        title=TITLE,
        legend=LEGEND,
        frame=pd.DataFrame(found, columns=list(CSV), dtype=object),
        shown=pd.DataFrame([_cells(row) for row in found]),
        text=("Run", "Note"),
        groups=[row["series"] for row in found],
        below={"Note": "{}"},
    )


def _cells(row: dict) -> dict[str, str]:
    """Return the cells for readers, by heading."""

    def measured(key: str, factor: float = 1) -> str:
        value, error = row[key], row[f"{key}_se"]
        if value is None:
            return ""
        text = rounded(factor * value)
        return text if error is None else f"{text} ± {rounded_error(factor * error)}"

    return {
        "Run": row["run"],
        "Reach": str(row["reach"]),
        "Pixels": str(row["pixels"]),
        "Free bits": rounded(row["free_bits"]),
        "Epochs": "" if row["epochs"] is None else str(row["epochs"]),
        "NLL": measured("nll"),
        "Exact NLL": "" if row["exact_nll"] is None else rounded(row["exact_nll"]),
        "KL": measured("kl"),
        "Exact KL": "" if row["exact_kl"] is None else rounded(row["exact_kl"]),
        "Gaussian KL": "" if row["gaussian_kl"] is None else rounded(row["gaussian_kl"]),
        "Digit, %": measured("digit", 100),
        "Thickness": measured("thickness"),
        "Slant": measured("slant"),
        "Changed": measured("changed"),
        "Note": row["note"] or "",
    }
