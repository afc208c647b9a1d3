"""The checkpoint that a run is recorded with, as something to go on from.

A machine that has no training state continues a run from its averaged weights, with moments of
zero, instead of from nothing. Only those travel: model.safetensors with train.json and curve.csv
beside it. They lie in results/checkpoints/RUN; in scratch/RUN/recorded, where the workflow puts
what dvc.lock records before DVC clears a stage's outputs; or in scratch/RUN/published, where what
another machine has trained is put by hand. Of several the furthest is taken.
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

logger = logging.getLogger(__name__)

NEEDED = TRAINING | {"steps": int, "data_sha256": str, "checkpoint_sha256": str, "config": dict}
# What a stretch of training says of itself; a record of before stretches were noted is one.
STRETCH = ("seconds", "device", "hardware", "precision", "core", "torch", "git_revision")


@dataclass(frozen=True)
class Published:
    """A checkpoint that belongs to the run: `record` is its train.json, `weights` its averaged
    weights by name, `curve` a row for each epoch."""

    folder: Path
    record: dict
    weights: dict[str, Tensor]
    curve: list[dict]

    def reaches(self, schedule: Schedule) -> bool:
        """True if it is what this schedule ends with."""
        theirs = {"epochs": self.record["epochs"], "decay_epochs": decay_epochs(self.record)}
        decay = self.record["config"]["training"].get("decay")
        return (theirs | {"decay": decay} if decay else theirs) == schedule.end

    def copy_to(self, folder: Path) -> None:
        """Write its files to another folder, as they are."""
        for name in CHECKPOINT_FILES:
            source, target = self.folder / name, folder / name
            if source != target:
                write_atomically(target, partial(shutil.copyfile, source))

    def state(self) -> SavedState:
        """The training state that goes on from it: averaged weights only."""
        start = {
            "step": self.record["steps"],
            "checkpoint_sha256": self.record["checkpoint_sha256"],
            "stretches": stretches(self.record),
        }
        tensors = {f"average/{name}": weight for name, weight in self.weights.items()}
        return SavedState(self.record["steps"], tensors, list(self.curve), start=start)


def published(run: Run, dataset: Dataset, schedule: Schedule) -> Published | None:
    """The checkpoint from which, or with which, a training by this schedule goes on; None where
    there is none that it can. One that is there and cannot be used is named on stderr, with the
    reason."""
    found = None
    scratch = paths.scratch(run.name)
    for folder in (scratch / BY_HAND, scratch / RECORDED, paths.checkpoint(run.name)):
        if not (folder / RECORD).exists() or not (folder / MODEL).exists():
            continue
        try:
            one = _read(run, dataset, folder)
            if not one.reaches(schedule) and one.record["steps"] > schedule.decay_from:
                raise VlaeError(
                    f"it has {one.record['epochs']} epochs behind it, and epochs "
                    f"{schedule.epochs} with decay_epochs {schedule.decay_epochs} leave "
                    f"{schedule.epochs - schedule.decay_epochs} to it"
                )
        except (VlaeError, OSError) as error:
            logger.info("%s: does not go on from %s: %s", run.name, folder, error)
            continue
        if found is None or one.record["epochs"] > found.record["epochs"]:
            found = one
    return found


def _read(run: Run, dataset: Dataset, folder: Path) -> Published:
    """Raises VlaeError, saying what is wrong, for a checkpoint that is not this run's."""
    path = folder / RECORD
    of_run = {"run": run.name, "dataset": run.dataset}
    record = check_record(path, read_json(path), of_run, NEEDED)
    config = record["config"]
    numbers = recipe_sha256(run)
    # The recipe's numbers say what the model is; of its settings some may not matter to it.
    if numbers is None and config.get("model") != as_dict(run.model):
        raise VlaeError("it is of another model")
    if not isinstance(config.get("training"), dict):
        raise VlaeError(f"{RECORD} does not say how it was trained")
    theirs, wanted = settings(config["training"]), settings(as_dict(run.training))
    if theirs != wanted:
        odd = sorted(k for k in theirs.keys() | wanted if theirs.get(k) != wanted.get(k))
        raise VlaeError(f"it was trained with another {', '.join(odd)}")
    by_content = "training_sha256" in record  # records of before have the file's sum only
    data = dataset.training_sha256 if by_content else dataset.sha256
    if record["training_sha256" if by_content else "data_sha256"] != data:
        raise VlaeError("it was trained on other data")
    if record.get("recipe_sha256") != numbers:
        raise VlaeError("the model or code that it was trained with is another, or not recorded")
    if sha256(folder / MODEL) != record["checkpoint_sha256"]:
        raise VlaeError(f"{MODEL} is not the one that {RECORD} describes")
    try:
        weights, _ = read_safetensors(folder / MODEL)
    except ValueError as error:
        raise VlaeError(f"{MODEL} cannot be read: {error}") from error
    return Published(folder, record, weights, _read_curve(folder / CURVE))


def _read_curve(path: Path) -> list[dict]:
    """Rows of a curve.csv as a training state has them. Raises VlaeError for any other file."""
    rows = []
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            numbers = {k: float(v) for k, v in row.items() if v}
            rows.append(numbers | {k: int(row[k]) for k in ("epoch", "step")})
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise VlaeError(f"{CURVE} is no learning curve: {error}") from error
    return rows


def stretches(record: dict) -> list[dict]:
    """The stretches of training that a train.json lists, the first one first."""
    whole = {
        "from_checkpoint": None,
        "from_epoch": 0,
        "to_epoch": record["epochs"],
        "decay_epochs": decay_epochs(record),
    }
    told = {key: record.get(key) for key in STRETCH}
    told["core"] = told["core"] or "PyTorch"  # there was no other when records had no word of it
    return record.get("stretches") or [whole | told]
