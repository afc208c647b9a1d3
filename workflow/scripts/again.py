"""Starts recorded steps from scratch that are forced (--forcerun, --forceall, --force).

The files of a step in scratch/ are put aside before it starts. Otherwise a training would continue
from its last state, and an evaluation would use the saved blocks. A mark stays until the step is
done: if it is interrupted and forced once more, it continues instead of starting again.
"""

import os
import shutil
from pathlib import Path

from vlae.config.stages import split_stage
from vlae.storage import paths

PUT_ASIDE = "before-again"  # folder in scratch/RUN
LEFTOVERS = {"train": "state-*.safetensors", "evaluate": "evaluation"}  # in scratch/RUN


def mark(stage: str) -> Path | None:
    """Return the file that exists while a forced stage is not done.

    Returns None for a stage that leaves no files in scratch/.
    """
    step, run = split_stage(stage)
    return paths.scratch(run) / f"{step}-again" if step in LEFTOVERS else None


def begun(stage: str) -> bool:
    """Return True if a forced stage has started and was interrupted."""
    path = mark(stage)
    return path is not None and path.exists()


def begin(stage: str) -> None:
    """Let the stage start from scratch, unless it has done so and was interrupted."""
    path = mark(stage)
    if path is None or path.exists():
        return
    aside = path.parent / PUT_ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(LEFTOVERS[split_stage(stage)[0]]):
        target = aside / left.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(left, target)
    path.touch()
