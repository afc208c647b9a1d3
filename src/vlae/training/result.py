"""Writes the results of a finished training to results/checkpoints/RUN."""

import os
import subprocess

from torch import Tensor

from vlae.config.schema import Run, as_dict
from vlae.data.dataset import Dataset
from vlae.storage import paths
from vlae.storage.paths import CURVE, MODEL, RECORD
from vlae.storage.write import sha256, write_json, write_safetensors, write_text
from vlae.training.identity import recipe_sha256
from vlae.training.progress import COLUMNS
from vlae.training.saved_state import SavedState


def write_results(
    run: Run,
    dataset: Dataset,
    saved: SavedState,
    average: dict[str, Tensor],
    steps_per_epoch: int,
) -> None:
    """Write results/checkpoints/RUN: averaged weights, learning curve and train.json.

    `saved` is the training state after the last step.
    """
    folder = paths.checkpoint(run.name)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in average.items()}
    about = {"run": run.name}  # a single entry: safetensors writes several in random order
    write_safetensors(folder / MODEL, tensors, about)
    columns = [*COLUMNS, "gamma"] if "gamma" in saved.curve[-1] else COLUMNS
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(key)) for key in columns) for row in saved.curve]
    write_text(folder / CURVE, "\n".join(lines) + "\n")
    last, stretches = saved.curve[-1], _stretches(saved, steps_per_epoch)

    def of_all(key: str) -> str:
        return ", ".join(dict.fromkeys(part[key] for part in stretches))

    write_json(
        folder / RECORD,
        {
            "run": run.name,
            "dataset": run.dataset,
            "epochs": saved.step // steps_per_epoch,
            "steps": saved.step,
            "images_seen": saved.step * run.training.batch_size,
            "seconds": round(sum(part["seconds"] for part in stretches), 1),
            "device": stretches[-1]["device"],
            "hardware": of_all("hardware"),
            "precision": of_all("precision"),
            "core": of_all("core"),
            "torch": of_all("torch"),
            "git_revision": git_revision(),
            "stretches": stretches,
            "data_sha256": dataset.sha256,
            "training_sha256": dataset.training_sha256,
            "recipe_sha256": recipe_sha256(run),
            "checkpoint_sha256": sha256(folder / MODEL),
            "seed": run.training.seed,
            "split": run.training.split,
            "parameters": sum(tensor.numel() for tensor in average.values()),
            "final": {
                "loss": last["loss"],
                "elbo": last["elbo"],
                "kl": last["kl"],
                "reconstruction": -last["elbo"] - last["kl"],
            },
            "config": {"model": as_dict(run.model), "training": as_dict(run.training)},
        },
    )


def _stretches(saved: SavedState, steps_per_epoch: int) -> list[dict]:
    """Return the stretches of the training for train.json: where each began, on what hardware."""
    worked = [part for part in saved.history if part["to_step"] > part["from_step"]]
    worked = worked or saved.history[-1:]
    if saved.schedule is None:
        raise ValueError("a state without a schedule has no results")
    start = saved.start or {"checkpoint_sha256": None, "stretches": []}
    names = ("device", "hardware", "precision", "core", "torch")
    told = {k: ", ".join(dict.fromkeys(p.get(k, "PyTorch") for p in worked)) for k in names}
    this = {
        "from_checkpoint": start["checkpoint_sha256"],
        "from_epoch": saved.first_step // steps_per_epoch,
        "to_epoch": saved.step // steps_per_epoch,
        "decay_epochs": saved.schedule["decay_epochs"],
        "seconds": round(sum(part["seconds"] for part in worked), 1),
        **told,
        "git_revision": git_revision(),
    }
    return [*start["stretches"], this]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def git_revision() -> str | None:
    """Return the git commit of the working directory, with "+" appended if src/ has changes.

    VLAE_REVISION takes precedence; it serves copies of the tree without history. Returns None if
    git has no answer.
    """
    if named := os.environ.get("VLAE_REVISION"):
        return named
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        revision = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src"]).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+" if changed else "")
