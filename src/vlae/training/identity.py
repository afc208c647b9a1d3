"""Identifies a training by everything its weights depend on, without loading PyTorch.

Two trainings with equal identities have equal weights after the same step.
"""

import hashlib
import json

from vlae.config.schema import Run, as_dict
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.training.start import start_of

FORMAT = 1


def settings(training: dict) -> dict:
    """Return a training's configuration without the settings that only decide its end."""
    return {k: v for k, v in training.items() if k not in ("epochs", "decay_epochs", "decay")}


def recipe_numbers(run: Run) -> object:
    """Return the numbers in the run's recipe, or None if no recipe has been written.

    Raises VlaeError for a file that is not a recipe.
    """
    recipe = paths.recipe(run.name, "train")
    if not recipe.exists():
        return None
    known = read_json(recipe)
    if not isinstance(known, dict) or "numbers" not in known:
        raise VlaeError(f"{recipe} is not a recipe; write it anew with `vlae recipe`")
    return known["numbers"]


def identity(run: Run, data_sha256: str) -> dict:
    """Return everything that the weights after a given step depend on.

    Machine and library versions are not included. The identity holds for a training that started
    from random weights, or from those of another run (start). data_sha256: hash of the training
    images (Dataset.training_sha256). Raises VlaeError if that run has no checkpoint.
    """
    start = start_of(run)
    return {
        "format": FORMAT,
        "run": run.name,
        "dataset": run.dataset,
        "data_sha256": data_sha256,
        "recipe": recipe_numbers(run),
        "model": as_dict(run.model),
        "training": settings(as_dict(run.training)),
    } | ({} if start is None else {"start": start})


def recipe_sha256(run: Run) -> str | None:
    """Return the SHA-256 of the numbers in a run's recipe, or None without a recipe."""
    numbers = recipe_numbers(run)
    if numbers is None:
        return None
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def decay_epochs(record: dict) -> int:
    """Return the number of decay epochs in a train.json, 0 for old records without the setting."""
    return record["config"]["training"].get("decay_epochs", 0)
