"""Finds the starting point of a training: its own state, a published checkpoint, or none."""

import logging
import math
from pathlib import Path

from vlae.config.schema import Run
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.storage import paths
from vlae.training.published import published
from vlae.training.saved_state import SavedState, before_decay, continued, load_state
from vlae.training.schedule import Schedule

logger = logging.getLogger(__name__)


def beginning(
    run: Run,
    dataset: Dataset,
    path: Path,
    belongs_to: dict,
    schedule: Schedule,
    from_scratch: bool,
) -> tuple[Path, SavedState] | None:
    """Return the state to continue from and the path to save it at.

    Returns None if a published checkpoint already is the end of the schedule (`take_over`). A
    state in scratch takes precedence; of two, the one with more steps is used. `path` belongs to
    a training that started from random weights; with `from_scratch` only this path is considered.
    Raises VlaeError for a state that cannot be used or is beyond the end of the schedule.
    """
    paths_of_states = [path] if from_scratch else [path, continued(path)]
    found = {at: state for at in paths_of_states if (state := load_state(at, belongs_to))}
    if found:
        at = max(found, key=lambda at: found[at].step)
        return at, _on_schedule(run, at, found[at], belongs_to, schedule)
    recorded = None if from_scratch else published(run, dataset, schedule)
    if recorded is None:
        return path, SavedState(0, {})
    if recorded.reaches(schedule):
        return None
    logger.info("%s: continues from %s", run.name, recorded.folder)
    return continued(path), recorded.state()


def take_over(run: Run, dataset: Dataset, schedule: Schedule) -> None:
    """Copy a published checkpoint that has all epochs of the schedule to the results.

    Raises VlaeError if the checkpoint has disappeared.
    """
    recorded = published(run, dataset, schedule)
    if recorded is None:
        raise VlaeError(f"{run.name}: the published checkpoint has disappeared; train again")
    recorded.copy_to(paths.checkpoint(run.name))
    epochs = recorded.record["epochs"]
    logger.info("%s: %s has all %d epochs; no training needed", run.name, recorded.folder, epochs)


def _on_schedule(
    run: Run, path: Path, state: SavedState, belongs_to: dict, schedule: Schedule
) -> SavedState:
    """Return the state, or the one from before its decay if that decay had another end.

    Raises VlaeError if the schedule cannot continue from the state.
    """
    if state.schedule is not None:
        earlier = Schedule(schedule.steps_per_epoch, **state.schedule)
        if earlier != schedule and state.step > earlier.decay_from:
            before = load_state(before_decay(path), belongs_to)
            if before is None:
                raise VlaeError(
                    f"{path} is in or after the learning-rate decay that ends at "
                    f"{earlier.epochs} epochs; another budget continues from "
                    f"{before_decay(path).name}, which is missing; move the state away"
                )
            state = before
        elif earlier == schedule:
            return state
    tenths = math.ceil(10 * state.step / schedule.steps_per_epoch)  # never less than was done
    done = f"{tenths / 10:g}"
    if state.step > schedule.last_step:
        raise VlaeError(
            f"{path} has {done} epochs, more than {run.block}.training.epochs = "
            f"{schedule.epochs}; raise that number, or move the state away"
        )
    if state.step > schedule.decay_from:
        raise VlaeError(
            f"{path} has {done} epochs, but the last {schedule.decay_epochs} of "
            f"{run.block}.training.epochs = {schedule.epochs} are for the decay; "
            "raise epochs, lower decay_epochs, or move the state away"
        )
    return state
