"""Continues a training from the run's published checkpoint.

A machine without a training state continues a run from its averaged weights, with zero moments,
instead of starting from random weights. A published checkpoint is model.safetensors with
train.json and curve.csv beside it. It is looked for in three folders:

- results/checkpoints/RUN;
- scratch/RUN/recorded, to which the workflow copies the checkpoint that dvc.lock records, before
  DVC clears the outputs of the stage;
- scratch/RUN/published, to which a user copies a checkpoint trained on another machine.

The one with the most epochs is used.
"""

import csv
import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from vlae.config.schema import Run, as_dict
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.paths import BY_HAND, CHECKPOINT_FILES, CURVE, MODEL, RECORD, RECORDED
from vlae.storage.read import read_json, read_safetensors, read_text
from vlae.storage.records import TRAINING, check_record
from vlae.storage.write import sha256, write_atomically
from vlae.training.identity import decay_epochs, recipe_sha256, settings
from vlae.training.saved_state import SavedState
from vlae.training.schedule import Schedule
from vlae.training.start import start_of

logger = logging.getLogger(__name__)

NEEDED = TRAINING | {"steps": int, "data_sha256": str, "checkpoint_sha256": str, "config": dict}
# Keys of a training stretch. A record from before stretches were noted counts as one stretch.
STRETCH = ("seconds", "device", "hardware", "precision", "core", "torch", "git_revision")


@dataclass(frozen=True)
class Published:
    """A checkpoint that belongs to the run.

    record: its train.json. weights: its averaged weights by name. curve: one row per epoch.
    """

    folder: Path
    record: dict
    weights: dict[str, Tensor]
    curve: list[dict]

    def reaches(self, schedule: Schedule) -> bool:
        """Return True if the checkpoint is the end of this schedule."""
        theirs = {"epochs": self.record["epochs"], "decay_epochs": decay_epochs(self.record)}
        decay = self.record["config"]["training"].get("decay")
        return (theirs | {"decay": decay} if decay else theirs) == schedule.end

    def copy_to(self, folder: Path) -> None:
        """Copy its files to another folder."""
        for name in CHECKPOINT_FILES:
            source, target = self.folder / name, folder / name
            if source != target:
                write_atomically(target, partial(shutil.copyfile, source))

    def state(self) -> SavedState:
        """Return a training state that continues from it; its tensors are the averaged weights."""
        start = {
            "step": self.record["steps"],
            "checkpoint_sha256": self.record["checkpoint_sha256"],
            "stretches": stretches(self.record),
        }
        tensors = {f"average/{name}": weight for name, weight in self.weights.items()}
        return SavedState(self.record["steps"], tensors, list(self.curve), start=start)


def published(run: Run, dataset: Dataset, schedule: Schedule) -> Published | None:
    """Return the checkpoint that a training with this schedule can continue or take over.

    Returns None if there is none. A checkpoint that exists but cannot be used is named on stderr,
    with the reason.
    """
    found = None
    scratch = paths.scratch(run.name)
    for folder in (scratch / BY_HAND, scratch / RECORDED, paths.checkpoint(run.name)):
        if not (folder / RECORD).exists() or not (folder / MODEL).exists():
            continue
        try:
            one = _read(run, dataset, folder)
            if not one.reaches(schedule) and one.record["steps"] > schedule.decay_from:
                raise VlaeError(
                    f"it has {one.record['epochs']} epochs, but epochs {schedule.epochs} with "
                    f"decay_epochs {schedule.decay_epochs} can continue from at most "
                    f"{schedule.epochs - schedule.decay_epochs}"
                )
        except (VlaeError, OSError) as error:
            logger.info("%s: cannot continue from %s: %s", run.name, folder, error)
            continue
        if found is None or one.record["epochs"] > found.record["epochs"]:
            found = one
    return found


def _read(run: Run, dataset: Dataset, folder: Path) -> Published:
    """Read a checkpoint. Raises VlaeError with the reason if it does not belong to this run."""
    path = folder / RECORD
    of_run = {"run": run.name, "dataset": run.dataset}
    record = check_record(path, read_json(path), of_run, NEEDED)
    config = record["config"]
    numbers = recipe_sha256(run)
    # The recipe's numbers identify the model; its settings may differ where they do not matter.
    if numbers is None and config.get("model") != as_dict(run.model):
        raise VlaeError("it belongs to another model")
    if not isinstance(config.get("training"), dict):
        raise VlaeError(f"{RECORD} does not say how it was trained")
    theirs, wanted = settings(config["training"]), settings(as_dict(run.training))
    if theirs != wanted:
        changed = sorted(k for k in theirs.keys() | wanted if theirs.get(k) != wanted.get(k))
        raise VlaeError(f"it was trained with another {', '.join(changed)}")
    by_content = "training_sha256" in record  # old records only have the hash of the file
    data = dataset.training_sha256 if by_content else dataset.sha256
    if record["training_sha256" if by_content else "data_sha256"] != data:
        raise VlaeError("it was trained on other data")
    if record.get("start") != start_of(run):
        raise VlaeError(f"it began with other weights of {run.training.start_from}")
    if record.get("recipe_sha256") != numbers:
        raise VlaeError("it was trained with another model or code, or does not record which")
    if sha256(folder / MODEL) != record["checkpoint_sha256"]:
        raise VlaeError(f"{MODEL} is not the file that {RECORD} describes")
    try:
        weights, _ = read_safetensors(folder / MODEL)
    except ValueError as error:
        raise VlaeError(f"{MODEL} cannot be read: {error}") from error
    return Published(folder, record, weights, _read_curve(folder / CURVE))


def _read_curve(path: Path) -> list[dict]:
    """Return the rows of a curve.csv in the form of a training state's.

    Raises VlaeError for any other file.
    """
    rows = []
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            numbers = {k: float(v) for k, v in row.items() if v}
            rows.append(numbers | {k: int(row[k]) for k in ("epoch", "step")})
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise VlaeError(f"{CURVE} is not a learning curve: {error}") from error
    return rows


def stretches(record: dict) -> list[dict]:
    """Return the stretches of training that a train.json lists, in order."""
    single = {
        "from_checkpoint": None,
        "from_epoch": 0,
        "to_epoch": record["epochs"],
        "decay_epochs": decay_epochs(record),
    }
    recorded = {key: record.get(key) for key in STRETCH}
    recorded["core"] = recorded["core"] or "PyTorch"  # the only backend when records had no "core"
    return record.get("stretches") or [single | recorded]
