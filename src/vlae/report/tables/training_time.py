"""The table of training times, by the speed of recorded trainings."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.report.tables.table import Table
from vlae.storage.records import read_training, training_file

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "training_time"

# Kinds of machines, by what a record says of its core and device.
KINDS = {
    "amx": "1 core with AMX",
    "avx512": "1 core, AVX512-BF16",
    "avx2": "1 core with AVX2 alone",
    "pytorch": "1 core, PyTorch alone",
    "gpu": "GPU",
}

# A stretch that was interrupted names the hardware of each part: "1 core of X, 2 cores of X".
SEVERAL = re.compile(r"\b\d+ cores of ")

LEGEND = (
    "Hours that the epochs of each run take at the fastest speed recorded for it, on one core of "
    "a processor or on a GPU. With AMX, with AVX512-BF16 without AMX, or with AVX2 alone, the C++ "
    "core computes. Empty: not recorded on one core or a GPU. Of a run that begins with another "
    "run's weights, only its own epochs count. The machines were shared with other work, and "
    "several runs shared a GPU: a quiet machine is faster."
)


def time_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    return [str(training_file(run)) for run in params.runs]


def build(params: "Params", root: Path) -> Table:
    """Build the table, a row per trained run. Raises VlaeError for a record that is no use."""
    import pandas as pd

    rows = []
    for name, run in params.runs.items():
        training = read_training(root, name, run.dataset)
        if training is not None:
            rows.append({"run": name, "epochs": training["epochs"]} | _hours(training))
    frame = pd.DataFrame(rows, columns=["run", "epochs", *KINDS])
    shown = pd.DataFrame(
        {
            "Run": frame["run"],
            "Epochs": frame["epochs"].astype(str),
            **{title: frame[kind].map(_shown) for kind, title in KINDS.items()},
        }
    )
    recorded = [title for kind, title in KINDS.items() if frame[kind].notna().any()]
    return Table(
        name=NAME,
        title="How long a training takes",
        legend=LEGEND,
        frame=frame,
        shown=shown[["Run", "Epochs", *recorded]],
        text=("Run",),
    )


def _hours(training: dict) -> dict[str, float]:
    """Return the hours that all epochs take, by kind of machine, where it is recorded."""
    whole = {**training, "from_epoch": 0, "to_epoch": training["epochs"]}
    fastest: dict[str, float] = {}
    for stretch in training.get("stretches") or [whole]:
        epochs, seconds = stretch["to_epoch"] - stretch["from_epoch"], stretch.get("seconds", 0)
        if epochs > 0 and seconds > 0 and not SEVERAL.search(stretch["hardware"]):
            kind, a_run = _kind(stretch), seconds / epochs * training["epochs"] / 3600
            fastest[kind] = min(fastest.get(kind, a_run), a_run)
    return fastest


def _kind(stretch: dict) -> str:
    if stretch.get("device", "cpu") != "cpu":
        return "gpu"
    core = stretch.get("core", "PyTorch")
    names = {"AMX": "amx", "AVX-512": "avx512", "AVX2": "avx2"}
    return next((kind for name, kind in names.items() if name in core), "pytorch")


def _shown(hours: float) -> str:
    return f"{hours:.2g}" if hours == hours else ""
