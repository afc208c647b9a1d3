"""Training state: one safetensors file that is whole or not there, and says what it belongs to.

It lies in scratch/RUN/, outside the outputs of both workflow engines, and its name holds
a fingerprint of everything that determines the weights but the number of epochs. A
changed configuration therefore starts a state of its own beside the old one, and
changing it back finds the old one again.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlae import paths
from vlae.errors import VlaeError
from vlae.files import write_atomically
from vlae.params import Run, as_dict

FORMAT = 1


@dataclass
class State:
    """`tensors` by name: weights/…, average/…, exp_avg/…, exp_inf/…, and sums of the epoch in
    progress. `curve`: one row an epoch. `history`: what machine did which steps."""

    step: int
    tensors: dict[str, Tensor]
    curve: list[dict] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)


def identity(run: Run, data_sha256: str) -> dict:
    """All that the weights after a given step depend on, machine and library versions aside."""
    training = {k: v for k, v in as_dict(run.training).items() if k != "epochs"}
    recipe = paths.recipe(run.name, "train")
    return {
        "format": FORMAT,
        "run": run.name,
        "dataset": run.dataset,
        "data_sha256": data_sha256,
        "recipe": json.loads(recipe.read_text())["numbers"] if recipe.exists() else None,
        "model": as_dict(run.model),
        "training": training,
    }


def state_path(run: Run, data_sha256: str) -> Path:
    text = json.dumps(identity(run, data_sha256), sort_keys=True)
    return (
        paths.scratch(run.name)
        / f"state-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    )


def save_state(path: Path, state: State, belongs_to: dict) -> None:
    """Write atomically: a reader, or a machine that fails, sees the old state or the new one."""
    about = {
        "identity": belongs_to,
        "step": state.step,
        "curve": state.curve,
        "history": state.history,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors.items()}
    metadata = {"vlae": json.dumps(about)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_state(path: Path, belongs_to: dict) -> State | None:
    """The state at `path`, or None where there is none.

    Raises VlaeError for a file that cannot be read, and for one that belongs to another
    configuration, saying what differs.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["vlae"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        theirs = about["identity"]
        state = State(int(about["step"]), tensors, list(about["curve"]), list(about["history"]))
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise VlaeError(
            f"{path} is no readable training state ({' '.join(str(error).split())}); "
            "move it away to train from the beginning"
        ) from error
    differences = list(_differences(theirs, belongs_to))
    if differences:
        raise VlaeError(
            f"{path} belongs to another configuration: {'; '.join(differences)}; "
            "restore that configuration or move the file away"
        )
    return state


def _differences(theirs: object, ours: object, where: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            at = f"{where}.{key}" if where else key
            yield from _differences(theirs.get(key), ours.get(key), at)
    elif theirs != ours:
        yield f"{where} is {ours!r} here and {theirs!r} there"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Only one process trains a run at a time; the kernel frees the lock of one that dies.

    What such a process was writing when it died is removed. Raises VlaeError when another
    process holds it.
    """
    lock = path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VlaeError(f"{path}: another process is training this run") from None
        for half_written in path.parent.glob(f".{path.name}.*"):
            half_written.unlink()
        yield


def as_tensors(prefix: str, named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in named.items()}


def from_tensors(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(prefix + "/")}


@torch.no_grad()
def copy_into(targets: dict[str, Tensor], sources: dict[str, Tensor], what: str) -> None:
    """Copy tensors by name. Raises VlaeError where a name or a shape does not fit."""
    if targets.keys() != sources.keys():
        odd = sorted(targets.keys() ^ sources.keys())
        raise VlaeError(
            f"{what}: these tensors are missing or not of this model: {', '.join(odd[:5])}"
        )
    for name, target in targets.items():
        if target.shape != sources[name].shape:
            shapes = f"{tuple(sources[name].shape)} instead of {tuple(target.shape)}"
            raise VlaeError(f"{what}: tensor {name} has shape {shapes}")
        target.copy_(sources[name])
