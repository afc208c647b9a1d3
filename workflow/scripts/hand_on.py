"""Copies the recorded checkpoint of a training with a longer budget, so that it continues from it.

DVC removes a stage's outputs before it runs the stage. So the checkpoint that dvc.lock records is
copied from the cache to scratch/RUN/recorded first (vlae.training.published). It is not a
dependency of the stage: with or without it, the training reaches its budget.
"""

import hashlib
import json
import shutil
from pathlib import Path

from vlae.config.schema import Params
from vlae.config.stages import split_stage
from vlae.storage import paths
from vlae.storage.paths import CHECKPOINT_FILES, MODEL, RECORD, RECORDED
from vlae.storage.write import sha256, write_atomically, write_json
from vlae.training.identity import decay_epochs, recipe_sha256


def wanted(stage) -> bool:
    """Return True for a recorded training stage whose run has no training state here."""
    step, run = split_stage(stage.addressing)
    recorded = step == "train" and all(out.hash_info for out in stage.outs)
    return recorded and not has_state(run)


def has_state(run: str) -> bool:
    """Return True if a training of the run has been started here."""
    return any(paths.scratch(run).glob("state-*.safetensors"))


def hand_on(params: Params, stage, cache) -> None:
    """Copy the stage's recorded outputs, which the cache has, to scratch/RUN/recorded."""
    run = params.runs[stage.addressing.partition("@")[2]]
    folder = paths.scratch(run.name) / RECORDED
    for out in stage.outs:
        name, stored = Path(out.def_path).name, Path(cache.oid_to_path(out.hash_info.value))
        if name in CHECKPOINT_FILES:
            write_atomically(
                folder / name, lambda path, stored=stored: shutil.copyfile(stored, path)
            )
    record = json.loads((folder / RECORD).read_text())
    added = {}  # keys that old records lack and dvc.lock proves
    if "checkpoint_sha256" not in record:
        added["checkpoint_sha256"] = sha256(folder / MODEL)
    if "recipe_sha256" not in record and _same_recipe(run, stage, record):
        added["recipe_sha256"] = recipe_sha256(run)
    if added:
        write_json(folder / RECORD, record | added)


def _same_recipe(run, stage, record: dict) -> bool:
    """Return True if the recipe in dvc.lock differs from the present one only in the budget.

    This is for old records, which do not name their recipe.
    """
    path = paths.recipe(run.name, "train")
    recipe = json.loads(path.read_text())
    training = recipe["configuration"]["training"]
    training["epochs"] = record["epochs"]
    training.pop("decay_epochs", None)
    if decay_epochs(record):
        return False  # records with a decay name their recipe
    text = json.dumps(recipe, indent=1) + "\n"
    recorded = {dep.def_path: dep.hash_info.value for dep in stage.deps if dep.hash_info}
    return recorded.get(str(path)) == hashlib.md5(text.encode()).hexdigest()
