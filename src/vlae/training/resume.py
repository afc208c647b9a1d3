"""Finds what a training goes on from: its own state, a published checkpoint, or nothing."""

import logging
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
    """The state to train on from, and where to save it; None where a published checkpoint is all
    that the schedule asks for (`take_over`).

    A state in scratch comes first, of two the one that is further. `path` is that of a training
    from nothing, the only one that is looked at with `from_scratch`. Raises VlaeError for a state
    that cannot be used, and for one beyond what the schedule asks for.
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
    logger.info("%s: goes on from %s", run.name, recorded.folder)
    return continued(path), recorded.state()


def take_over(run: Run, dataset: Dataset, schedule: Schedule) -> None:
    """Make the results of a published checkpoint that has the budget behind it."""
    recorded = published(run, dataset, schedule)
    if recorded is None:
        raise VlaeError(f"{run.name}: the published checkpoint that was to be taken over is gone")
    recorded.copy_to(paths.checkpoint(run.name))
    epochs = recorded.record["epochs"]
    logger.info("%s: %s has all %d epochs: taken over", run.name, recorded.folder, epochs)


def _on_schedule(
    run: Run, path: Path, state: SavedState, belongs_to: dict, schedule: Schedule
) -> SavedState:
    """The state, or the one before its decay where that was towards another end."""
    if state.schedule is not None:
        earlier = Schedule(schedule.steps_per_epoch, **state.schedule)
        if earlier != schedule and state.step > earlier.decay_from:
            before = load_state(before_decay(path), belongs_to)
            if before is None:
                raise VlaeError(
                    f"{path} is within or behind a decay of the learning rate towards "
                    f"{earlier.epochs} epochs, and {before_decay(path).name}, from which another "
                    "budget goes on, is missing; move the state away"
                )
            state = before
        elif earlier == schedule:
            return state
    done = state.step // schedule.steps_per_epoch
    if state.step > schedule.last_step:
        raise VlaeError(
            f"{path} has {done} epochs behind it, more than the {schedule.epochs} of "
            f"runs.{run.name}.training.epochs; raise them, or move the state away"
        )
    if state.step > schedule.decay_from:
        raise VlaeError(
            f"{path} has {done} epochs behind it, but of the {schedule.epochs} of "
            f"runs.{run.name}.training.epochs the last {schedule.decay_epochs} are for the decay; "
            "raise epochs, lower decay_epochs, or move the state away"
        )
    return state
