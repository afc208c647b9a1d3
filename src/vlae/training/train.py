"""Trains one run (section 4): maximises the free-bits bound and averages the weights.

The loop prepares the data, creates or resumes the state, steps until the epochs are done or the
time limit is reached, and writes the averaged model with its record.
"""

import gc
import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from vlae import logs
from vlae.config.schema import Run
from vlae.data.batches import permutation, training_images
from vlae.data.dataset import Dataset
from vlae.errors import VlaeError
from vlae.hardware import choose_device, choose_precision, describe, set_arithmetic
from vlae.models.build import backend_name, build_model
from vlae.randomness import generator
from vlae.revision import revision
from vlae.storage.tensors import copy_into
from vlae.threads import use_free_processors
from vlae.training.distributed import SINGLE, ProcessGroup, in_processes, processes_for
from vlae.training.identity import identity
from vlae.training.interrupt import Interrupt
from vlae.training.optimizer import set_learning_rate
from vlae.training.progress import Progress
from vlae.training.result import write_results
from vlae.training.resume import beginning, take_over
from vlae.training.saved_state import (
    SavedState,
    before_decay,
    exclusive,
    save_state,
    state_path,
)
from vlae.training.schedule import Schedule, schedule_of
from vlae.training.step import Arithmetic, new_step
from vlae.training.train_state import TrainState, new_train_state
from vlae.training.validation import validation_bound

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The arguments of `train`, as every process receives them.

    started: value of time.monotonic() at the start, seconds.
    """

    run: Run
    dataset: Dataset
    device: torch.device
    precision: str
    minutes: float | None
    checkpoint_seconds: float
    started: float
    from_scratch: bool


def train(
    run: Run,
    dataset: Dataset,
    device: str = "auto",
    precision: str = "auto",
    minutes: float | None = None,
    checkpoint_seconds: float = 120,
    processes: int | None = None,
    from_scratch: bool = False,
) -> bool:
    """Train `run` up to its number of epochs.

    Training continues from the run's state in scratch/, else from its published checkpoint
    (vlae.training.published), else it begins with the weights of the run that
    `training.start_from` names, or with random weights. With `from_scratch`, neither a published
    checkpoint nor a state that continues one is used.

    Returns True when training is finished and the results are written. Returns False when the
    time limit (`minutes`) or a signal stopped it; its state is then saved. On the CPU the weights
    are bit-identical however often training was interrupted; on a GPU they are meant to be
    (docs/gpu.md). Raises VlaeError for a state of another run and for a training that diverged;
    the last good state stays.

    processes: number of processes that share the work (vlae.training.distributed), by default one
    per GPU of the run. Apart from rounding, the result does not depend on it, and any number can
    continue a state.
    """
    started = time.monotonic()
    on = choose_device(device)
    count = processes or processes_for(run.gpus, on)
    if run.training.batch_size % count:
        raise VlaeError(
            f"{run.name}: batch_size {run.training.batch_size} cannot be shared equally by "
            f"{count} processes"
        )
    precision = choose_precision(precision, on)
    job = Job(run, dataset, on, precision, minutes, checkpoint_seconds, started, from_scratch)
    return in_processes(count, on.type, _train, job) if count > 1 else _train(job, SINGLE)


def _train(job: Job, group: ProcessGroup) -> bool:
    """Do the job in one process of the group; return what `train` returns."""
    run, kind, device = job.run, job.dataset.kind, job.device
    seed, size = run.training.seed, run.training.batch_size
    set_arithmetic(device, job.precision)
    use_free_processors(backend_name(run.model, device.type, job.precision))
    images = training_images(job.dataset, run.training.split).to(device)
    valid = torch.from_numpy(job.dataset.valid).to(device)
    schedule = schedule_of(run.training, len(images))
    if not schedule.steps_per_epoch:
        raise VlaeError(f"{run.name}: batch_size {size} exceeds the {len(images)} training images")
    with ExitStack() as stack:
        begun = _begin(job, schedule, group, stack)
        if begun is None:
            return True
        path, saved = begun
        state = new_train_state(run, images, kind, device)
        _restore(state, saved, path, run)
        group.broadcast([*state.weights.values(), *state.average.values()])
        step, backend = new_step(state, images, kind, run, _arithmetic(job, group), group)
        keeper = Keeper(job, state, saved, path, backend, group)
        averaged = build_model(run.model).to(device)
        interrupt = Interrupt(job.started, job.minutes)
        stack.callback(interrupt.restore)  # only after the state is saved: a signal may come twice
        per_epoch, last = schedule.steps_per_epoch, schedule.last_step
        keeper.announce(len(images), per_epoch)
        progress = Progress(
            run, kind, (per_epoch, last), saved.step, saved.curve, not group.is_main
        )
        stack.callback(progress.close)
        stack.enter_context(logging_redirect_tqdm([logs.LOGGER]))
        first = saved.step
        gc.freeze()  # all present objects stay alive, so the collector need not scan them
        stack.callback(gc.unfreeze)
        while saved.step < last:
            if saved.step == schedule.decay_from:
                keeper.save_before_decay()
            epoch, within = divmod(saved.step, per_epoch)
            if within == 0 or saved.step == first:
                indices = permutation(seed, epoch, len(images)).to(device)
            if saved.step >= schedule.decay_from:
                rate = run.training.learning_rate * schedule.factor(saved.step)
                set_learning_rate(state.optimizer, rate)
            random = generator(seed, "step", saved.step, device.type)
            step(indices[within * size : (within + 1) * size], random)
            saved.step += 1
            state.after_step(saved.step)
            progress.after_step(state, saved.step, path)
            if within + 1 == per_epoch:
                row = progress.row(state, saved.step)
                if run.training.split == "train" and group.is_main:
                    copy_into(dict(averaged.named_parameters()), state.average, "average")
                    bound = validation_bound(averaged, valid, kind, run, job.precision)
                    row["valid_elbo"], row["valid_kl"] = bound
                saved.curve.append(row)
                state.sums.zero_()
                progress.end_epoch(row)
            if saved.step == last:
                break
            # All processes stop at the same step. Asking costs a message, so they ask rarely.
            asks = group.size == 1 or saved.step % 10 == 0
            if asks and group.any(interrupt.due(), device):
                break
            keeper.save_when_due()
        keeper.save()
        if saved.step < last:
            keeper.tell_where_it_stopped(interrupt.reason, last)
        elif group.is_main:
            start = keeper.belongs_to.get("start")
            write_results(run, job.dataset, saved, state, per_epoch, start)
        return saved.step == last


def _begin(
    job: Job, schedule: Schedule, group: ProcessGroup, stack: ExitStack
) -> tuple[Path, SavedState] | None:
    """Lock the run until `stack` is closed, and return the path and state to continue from.

    Returns None if a published checkpoint was taken over and no training is left.
    """
    run, dataset, device = job.run, job.dataset, job.device
    base = state_path(run, dataset.training_sha256)
    belongs_to = identity(run, dataset.training_sha256)
    group.agree(lambda: group.is_main and stack.enter_context(exclusive(base)), device)
    begun = group.agree(
        lambda: beginning(run, dataset, base, belongs_to, schedule, job.from_scratch), device
    )
    if begun is None:

        def taken_over() -> None:
            if group.is_main:
                take_over(run, dataset, schedule)

        group.agree(taken_over, device)
        return None
    begun[1].schedule = schedule.end
    return begun


def _restore(state: TrainState, saved: SavedState, path: Path, run: Run) -> None:
    """Restore a saved state; before the first step, take the weights that the run begins with."""
    if saved.step > saved.first_step:
        state.load_state_dict(saved.tensors, saved.step - saved.first_step, str(path))
    elif saved.step:
        gamma = saved.curve[-1].get("gamma", 1.0)
        state.start_from_average(saved.tensors, gamma, str(path))
    elif run.start is not None:
        state.start_from_run(run.start)


def _arithmetic(job: Job, group: ProcessGroup) -> Arithmetic:
    on_one_gpu = job.device.type == "cuda" and group.size == 1
    return Arithmetic(
        job.precision,
        graph=on_one_gpu and os.environ.get("VLAE_CUDA_GRAPH") != "0",
        compiled=os.environ.get("VLAE_COMPILE") == "1",
    )


class Keeper:
    """Saves the training state, with the history of which machine did which steps."""

    def __init__(
        self,
        job: Job,
        state: TrainState,
        saved: SavedState,
        path: Path,
        backend: str,
        group: ProcessGroup,
    ) -> None:
        self.job, self.state, self.saved, self.path = job, state, saved, path
        self.group = group
        self.belongs_to = identity(job.run, job.dataset.training_sha256)
        self.saved_at = time.monotonic()
        hardware = describe(job.device)
        self.history = {
            "from_step": saved.step,
            "to_step": saved.step,
            "seconds": 0.0,
            "device": job.device.type,
            "hardware": f"{group.size} x {hardware}" if group.size > 1 else hardware,
            "precision": job.precision,
            "core": backend,
            "torch": torch.__version__,
            "git_revision": revision() if group.is_main else "",
            "setup_seconds": round(self.saved_at - job.started, 1),
        }
        saved.history.append(self.history)

    def save(self) -> None:
        """Write the state, in the main process.

        Raises VlaeError if the losses are not finite; the last good state then stays in place.
        """
        if not torch.isfinite(self.state.sums).all():
            raise VlaeError(
                f"{self.job.run.name}: loss or weights are not finite at step {self.saved.step}; "
                f"the last good state is kept in {self.path}"
            )
        self.saved_at = time.monotonic()
        if self.group.is_main:
            self.history["to_step"] = self.saved.step
            self.history["seconds"] = round(time.monotonic() - self.job.started, 1)
            self.saved.tensors = self.state.state_dict()
            save_state(self.path, self.saved, self.belongs_to)

    def save_when_due(self) -> None:
        """Save if the last save is more than `checkpoint_seconds` ago."""
        if time.monotonic() - self.saved_at > self.job.checkpoint_seconds:
            self.save()

    def save_before_decay(self) -> None:
        """Save the state of this step, and a copy that the decay will not overwrite."""
        self.save()
        if self.group.is_main:
            save_state(before_decay(self.path), self.saved, self.belongs_to)

    def announce(self, images: int, steps_per_epoch: int) -> None:
        """Log what is trained, from which epoch and on what hardware."""
        run, about = self.job.run, self.history
        if self.group.is_main:
            logger.info(
                "%s: %s parameters, %s images, epoch %d of %d, %s, %s, %s",
                run.name,
                f"{sum(w.numel() for w in self.state.weights.values()):,}",
                f"{images:,}",
                self.saved.step // steps_per_epoch,
                run.training.epochs,
                *(about[key] for key in ("hardware", "precision", "core")),
            )

    def tell_where_it_stopped(self, reason: str | None, last_step: int) -> None:
        """Log that the same command continues from here."""
        if self.group.is_main:
            logger.info(
                "%s: stopped by %s at step %d of %d; the same command continues from here",
                self.job.run.name,
                reason or "another process",
                self.saved.step,
                last_step,
            )
