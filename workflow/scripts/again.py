"""Steps that are asked for again although they are recorded (--forcerun, --forceall, --force).

What a step has left in scratch/ is put aside before it begins again: a training would go on from
its last state, an evaluation gather the blocks that are there. A mark stays until it is done, so
that a step that was interrupted goes on when it is forced once more, instead of beginning again.
"""

import os
import shutil
from pathlib import Path

from vlae.storage import paths

PUT_ASIDE = "before-again"  # folder in scratch/RUN
LEFTOVERS = {"train": "state-*.safetensors", "evaluate": "evaluation"}  # in scratch/RUN


def mark(stage: str) -> Path | None:
    """The file that is there while a stage that was begun again is not done; None for a stage that
    leaves nothing in scratch/."""
    step, _, run = stage.partition("@")
    return paths.scratch(run) / f"{step}-again" if step in LEFTOVERS else None


def begun(stage: str) -> bool:
    """Return True for a stage that has been begun again and was interrupted."""
    path = mark(stage)
    return path is not None and path.exists()


def begin(stage: str) -> None:
    """Let the stage begin from nothing, unless it has done so and was interrupted."""
    path = mark(stage)
    if path is None or path.exists():
        return
    aside = path.parent / PUT_ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(LEFTOVERS[stage.partition("@")[0]]):
        target = aside / left.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(left, target)
    path.touch()
