"""The settings that each expensive step reads, by value.

They are part of the run's recipes (recipes.py). So a default can change, or move into the block of
a run, without outdating results that have the same values as before.
"""

import json
from typing import Any

from vlae.config.schema import Params, Run, as_dict
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.storage.read import read_json

REFINED = "_refined"  # ends the names of stages of the runs in `refined:`


def configurations(run: Run) -> dict[str, dict]:
    """Return {"train": …, "evaluate": …, "sample": …}, as in the recipes.

    That of a training contains that of the run it begins with. Sampling has no settings there: the
    numbers of its recipe depend on its seed.
    """
    training = {"model": as_dict(run.model), "training": as_dict(run.training)}
    if run.start is not None:
        training["start"] = configurations(run.start)["train"]
    evaluation = as_dict(run.evaluation)
    if not (run.model.latent_dim and run.evaluation.deep_images):
        del evaluation["deep_images"], evaluation["deep_samples"]  # not used without a deep level
    return {
        "train": {"dataset": run.dataset, **training},
        "evaluate": evaluation,
        "sample": {},
    }


def stage_of(step: str, run: Run) -> str:
    """Return the name in dvc.yaml of a run's step: train, evaluate or sample."""
    return f"{step}{REFINED if run.training.start_from else ''}@{run.name}"


def split_stage(stage: str) -> tuple[str, str]:
    """Return the step of a stage and its run, data set or classifier."""
    step, _, name = stage.partition("@")
    return step.removesuffix(REFINED), name


def reconfigured(params: Params) -> set[str]:
    """Return the stages, such as train@RUN, whose recipe lacks their present configuration.

    Changes of the code are not considered.
    """
    runs = {
        stage_of(step, run)
        for run in params.runs.values()
        for step in ("train", "evaluate", "sample")
        if not in_recipe(run, step)
    }
    return runs | {
        f"{step}@{name}"
        for step, configs in measurements(params).items()
        for name, config in configs.items()
        if recorded(name, step) != as_dict(config)
    }


def measurements(params: Params) -> dict[str, dict[str, Any]]:
    """Return the settings, by name, of the steps that are neither of a run nor of a data set."""
    return {
        "classifier": params.classifiers,
        "codelength": params.codelengths,
        "probe": params.probes,
        "lossy": params.lossy,
    }


def in_recipe(run: Run, step: str) -> bool:
    """Return True if the step's recipe exists and has this configuration of the run."""
    return recorded(run.name, step) == json.loads(json.dumps(configurations(run)[step]))


def recorded(name: str, step: str) -> Any:
    """Return the configuration in a recipe; None if there is none."""
    try:
        return read_json(paths.recipe(name, step))["configuration"]
    except (VlaeError, KeyError, TypeError):
        return None
