"""Says what the weights of a training depend on, without loading PyTorch.

Two trainings with the same identity have the same weights after the same step.
"""

import hashlib
import json

from vlae.config.schema import Run, as_dict
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_json

FORMAT = 1


def settings(training: dict) -> dict:
    """A training's configuration without what only decides its end."""
    return {k: v for k, v in training.items() if k not in ("epochs", "decay_epochs", "decay")}


def recipe_numbers(run: Run) -> object:
    """Return what the code does for this run, in numbers; None where no recipe has been
    written."""
    recipe = paths.recipe(run.name, "train")
    if not recipe.exists():
        return None
    known = read_json(recipe)
    if not isinstance(known, dict) or "numbers" not in known:
        raise VlaeError(f"{recipe} is no recipe; `vlae recipe` writes it")
    return known["numbers"]


def identity(run: Run, data_sha256: str) -> dict:
    """All that the weights after a given step depend on, machine and library versions aside,
    where training began from nothing.

    data_sha256: of the training images (Dataset.training_sha256).
    """
    return {
        "format": FORMAT,
        "run": run.name,
        "dataset": run.dataset,
        "data_sha256": data_sha256,
        "recipe": recipe_numbers(run),
        "model": as_dict(run.model),
        "training": settings(as_dict(run.training)),
    }


def recipe_sha256(run: Run) -> str | None:
    """SHA-256 of the numbers in a run's recipe: of what the code does. None without a recipe."""
    numbers = recipe_numbers(run)
    if numbers is None:
        return None
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def decay_epochs(record: dict) -> int:
    """The decay that a train.json ends with; those of before there was one have none."""
    return record["config"]["training"].get("decay_epochs", 0)
