"""The configuration that each expensive step reads, by value.

It stands in the run's recipes (recipes.py), so that a default may change, or move into the
run's own block, without outdating what has the same value as before.
"""

import json
from typing import Any

from vlae.config.schema import Params, Run, as_dict
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_json


def configurations(run: Run) -> dict[str, dict]:
    """{"train": …, "evaluate": …, "sample": …} as in the recipes. Sampling has none: its seed
    shows in its numbers."""
    training = {"model": as_dict(run.model), "training": as_dict(run.training)}
    evaluation = as_dict(run.evaluation)
    if not (run.model.latent_dim and run.evaluation.deep_images):
        del evaluation["deep_images"], evaluation["deep_samples"]  # not read then
    return {
        "train": {"dataset": run.dataset, **training},
        "evaluate": evaluation,
        "sample": {},
    }


def reconfigured(params: Params) -> set[str]:
    """The stages, for example train@RUN, whose recipe has another configuration by now, or
    none; the code is not asked."""
    runs = {
        f"{step}@{run.name}"
        for run in params.runs.values()
        for step in ("train", "evaluate", "sample")
        if not in_recipe(run, step)
    }
    return runs | {
        f"classifier@{name}"
        for name, config in params.classifiers.items()
        if _recorded(name, "classifier") != as_dict(config)
    }


def in_recipe(run: Run, step: str) -> bool:
    """Return True if the step's recipe exists and has this configuration of the run."""
    return _recorded(run.name, step) == json.loads(json.dumps(configurations(run)[step]))


def _recorded(name: str, step: str) -> Any:
    """The configuration in a recipe; None where there is none."""
    try:
        return read_json(paths.recipe(name, step))["configuration"]
    except (VlaeError, KeyError, TypeError):
        return None
