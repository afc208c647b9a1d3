"""Saves and loads training states, each one safetensors file that records what it belongs to.

A state is written atomically to scratch/RUN/, outside the outputs of both workflow engines. Its
name contains a fingerprint of everything that determines the weights, except the number of epochs
and the decay at their end. A changed configuration therefore starts a new state beside the old
one, and changing it back finds the old one again.

The number of epochs and the decay affect the weights only from the start of the decay. A copy of
the state at that point (`before_decay`) lets a longer budget continue from there.
"""

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vlae.config.schema import Run
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_safetensors, shown
from vlae.storage.write import write_safetensors
from vlae.training.identity import identity
from vlae.training.schedule import DECAYS

logger = logging.getLogger(__name__)

# Required keys of a row of the curve and of an entry of the history.
CURVE_KEYS = {"epoch", "step", "loss", "elbo", "kl"}
HISTORY = {"from_step", "to_step", "seconds", "device", "hardware", "precision", "torch"}


@dataclass
class SavedState:
    """A training state.

    step: number of steps done, including those of `start`. tensors, by name: weights/…,
    average/…, exp_avg/…, exp_inf/…, and the sums of the current epoch. curve: one row per epoch,
    including those of `start`. history: which machine did which steps since `start`.

    schedule: the end that the training aims at (Schedule.end). start: the published checkpoint
    that it continues (vlae.training.published), None if it started from random weights.
    """

    step: int
    tensors: dict[str, Tensor]
    curve: list[dict] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    schedule: dict | None = None
    start: dict | None = None

    @property
    def first_step(self) -> int:
        """The step at which this stretch of training began, with zero moments."""
        return self.start["step"] if self.start else 0


def state_path(run: Run, data_sha256: str) -> Path:
    """Return the path of the state of a training that started from random weights."""
    text = json.dumps(identity(run, data_sha256), sort_keys=True)
    return (
        paths.scratch(run.name)
        / f"state-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    )


def continued(path: Path) -> Path:
    """Return the path, beside `path`, of the state of a training that continued a published
    checkpoint. The state records which one."""
    return path.with_suffix(".continued.safetensors")


def before_decay(path: Path) -> Path:
    """Return the path of the copy of a state from the start of its decay."""
    return path.with_suffix(".before-decay.safetensors")


def save_state(path: Path, state: SavedState, belongs_to: dict) -> None:
    """Write the state atomically: even after a crash, the file has the old or the new state."""
    about = {
        "identity": belongs_to,
        "step": state.step,
        "curve": state.curve,
        "history": state.history,
        "schedule": state.schedule,
        "start": state.start,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors.items()}
    about["sha256"] = _digest(about, tensors)
    write_safetensors(path, tensors, {"vlae": json.dumps(about)})


def load_state(path: Path, belongs_to: dict) -> SavedState | None:
    """Return the state at `path`, or None if there is none.

    Raises VlaeError for a file that cannot be read or has changed since it was saved. Raises it
    also for a file of another configuration; the message names the differences.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = read_safetensors(path)
        theirs, state = _checked(json.loads(metadata["vlae"]), tensors)
    except (ValueError, KeyError, RecursionError) as error:
        raise VlaeError(
            f"{path} is not a readable training state ({error}); "
            "move it away to train from the beginning"
        ) from error
    differences = list(_differences(theirs, belongs_to))
    if differences:
        raise VlaeError(
            f"{path} belongs to another configuration: {'; '.join(differences)}; "
            "restore that configuration or move the file away"
        )
    return state


def _checked(about: object, tensors: dict[str, Tensor]) -> tuple[dict, SavedState]:
    """Return a state's identity and the state. Raises ValueError unless it is as it was saved."""
    keys = {"identity", "step", "curve", "history"}
    newer = {"sha256", "schedule", "start"}  # old states have none of these
    if not isinstance(about, dict) or about.keys() - newer != keys:
        raise ValueError("its description does not have the expected keys")
    digest = about.pop("sha256", None)
    if digest is not None and digest != _digest(about, tensors):
        raise ValueError("it has changed since it was saved")
    if type(about["step"]) is not int or about["step"] < 0:
        raise ValueError(f"step is {shown(about['step'])}")
    for part, needed in (("curve", CURVE_KEYS), ("history", HISTORY)):
        rows = about[part]
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and needed <= row.keys() for row in rows
        ):
            raise ValueError(f"{part} has an unexpected form")
    schedule, start = about.get("schedule"), about.get("start")
    for part, needed in (("schedule", {"epochs", "decay_epochs"}), ("start", {"step"})):
        value = about.get(part)
        if value is not None and not (isinstance(value, dict) and needed <= value.keys()):
            raise ValueError(f"{part} has an unexpected form")
    ends = schedule or {"epochs": 0, "decay_epochs": 0}
    for number in (ends["epochs"], ends["decay_epochs"], (start or {"step": 0})["step"]):
        if type(number) is not int or number < 0:
            raise ValueError(f"schedule or start has {shown(number)}, not a count")
    if ends.keys() - {"epochs", "decay_epochs", "decay"} or ends.get("decay") not in (
        None,
        *DECAYS,
    ):
        raise ValueError("schedule has an unexpected form")
    if not isinstance(about["identity"], dict):
        raise ValueError("identity has an unexpected form")
    state = SavedState(about["step"], tensors, about["curve"], about["history"], schedule, start)
    return about["identity"], state


def _digest(about: dict, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of a state's description and every tensor's name, type, shape, bytes."""
    digest = hashlib.sha256(json.dumps(about).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _differences(theirs: object, ours: object, where: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            at = f"{where}.{key}" if where else key
            yield from _differences(theirs.get(key), ours.get(key), at)
    elif theirs != ours:
        yield f"{where} is {shown(ours)} here and {shown(theirs)} there"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock a run, so that only one process trains it at a time.

    The kernel releases the lock of a process that dies, and its partly written files are removed
    here. Raises VlaeError if another process holds the lock. On a file system without locks, logs
    that and continues.
    """
    lock = path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VlaeError(f"{path}: another process is training this run") from None
        except OSError as error:  # for example Lustre mounted without flock
            logger.info(
                "%s: this file system has no locks (flock: %s); do not start a second training "
                "of this run",
                path,
                error.strerror,
            )
        for half_written in path.parent.glob(f".{path.stem}.*"):
            half_written.unlink()
        yield
