"""The table of code lengths: bits-back coding beside other formats, for the same images."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.errors import VlaeError
from vlae.report.tables.table import Table
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.records import check_record, evaluation_file, read_evaluation

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "codelengths"
SPEEDS = ("encode_images_per_second", "decode_images_per_second")
NUMBERS = dict.fromkeys(("bits_per_image", *SPEEDS), float)
RECORD = NUMBERS | {"n_test": int, "file_bytes": int, "hardware": str, "others": list}
OTHER = NUMBERS | {"format": str, "of": str, "bytes": int}
CSV = (
    *("dataset", "method", "of", "images", "bytes", "bits_per_image", "bound_bits", "over_bound"),
    *(*SPEEDS, "hardware"),
)
LEGEND = (
    "Test images compressed without loss and unpacked again; all came back. Bound: "
    "−ELBO / ln 2 of the recorded evaluation, or the negative log-likelihood of a decoder without "
    "a code, on the same images. Over it: what the file needs more, in %: the bits that bits-back "
    "coding has to begin with, and rounding. The models' bits are without the header of their "
    "file. Images a second: one thread, measured on one machine for the row; see the csv file. "
    "Other formats have their strongest settings. A run named after another data set was trained "
    "on that one."
)


def length_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    return [
        str(file(run))
        for run in params.codelengths
        for file in (paths.codelength, evaluation_file)
    ]


def build(params: "Params", root: Path) -> Table:
    """Build the table, a row per run, then one per format. Raises VlaeError for a bad record."""
    import pandas as pd

    rows: list[dict] = []
    others: dict[tuple[str, ...], dict] = {}
    for run, config in params.codelengths.items():
        path = root / paths.codelength(run)
        if not path.exists():
            continue
        about = {"run": run, "dataset": config.dataset}
        record = check_record(path, read_json(path), about, RECORD)
        how = "bits-back" if params.runs[run].model.latent_dim else "pixel by pixel"
        rows.append(_row(record, run, how, record["file_bytes"], record))
        rows[-1] |= _bound(params, root, run, record)
        for other in record["others"]:
            other = check_record(path, other, {}, OTHER)
            key = (other["format"], other["of"])
            row = _row(other, *key, other["bytes"], record)
            others.setdefault((config.dataset, *key), row)
    rows = sorted([*rows, *others.values()], key=lambda row: row["dataset"])  # stable
    frame = pd.DataFrame(rows, columns=CSV)
    percent = frame["over_bound"].map(lambda share: _number(100 * share, 2, "+"))
    shown = pd.DataFrame(
        {
            "Method": frame["method"],
            "How": frame["of"],
            "Bytes": frame["bytes"].map("{:,}".format),
            "Bits an image": frame["bits_per_image"].map(lambda bits: _number(bits, 1)),
            "Bound": frame["bound_bits"].map(lambda bits: _number(bits, 1)),
            "Over it, %": percent,
            "Packed, images/s": frame[SPEEDS[0]].map(lambda speed: _number(speed, 0)),
            "Unpacked, images/s": frame[SPEEDS[1]].map(lambda speed: _number(speed, 0)),
        }
    )
    return Table(
        name=NAME,
        title="Code lengths of binary images",
        legend=LEGEND,
        frame=frame,
        shown=shown,
        text=("Method", "How"),
        groups=[row["dataset"] for row in rows],
    )


def _row(numbers: dict, method: str, of: str, size: int, record: dict) -> dict:
    return {
        "dataset": record["dataset"],
        "method": method,
        "of": of,
        "images": record["n_test"],
        "bytes": size,
        "bits_per_image": numbers["bits_per_image"],
        **{key: numbers[key] for key in SPEEDS},
        "hardware": record["hardware"],
    }


def _bound(params: "Params", root: Path, run: str, record: dict) -> dict:
    """Return the bits that the evaluation of the same images says, if there is one."""
    own = params.runs[run].dataset
    found = read_evaluation(root, run, own) if own == record["dataset"] else None
    if found is None or found["n_test"] != record["n_test"]:
        return {}
    if not isinstance(found.get("elbo"), float):
        raise VlaeError(f"{root / evaluation_file(run)}: no number 'elbo'")
    bits = -found["elbo"] / math.log(2)
    return {"bound_bits": bits, "over_bound": record["bits_per_image"] / bits - 1}


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign},.{digits}f}" if value == value else ""
