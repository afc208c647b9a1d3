"""Progress of a training: a bar, a line and a row of its curve for each epoch.

The truth is the curve in the training state, which ends up in curve.csv. DVCLive's files in
scratch/RUN/live/ are for watching it (VS Code, `dvc plots show`, any text editor). They are
written anew from the state when a training is resumed, so that no epoch stands twice.
"""

import logging
import math
import shutil
import time
from pathlib import Path

from tqdm import tqdm

from vlae.config.schema import Run
from vlae.errors import VlaeError
from vlae.images import ImageKind
from vlae.storage import paths
from vlae.training.train_state import TrainState

logger = logging.getLogger(__name__)

# What a row of curve.csv has; the losses in nats an image.
COLUMNS = [
    "epoch",
    "step",
    "seconds",
    "images_per_second",
    "loss",
    "elbo",
    "kl",
    "valid_elbo",
    "valid_kl",
]
GPU_STEPS = 50  # between two looks at the losses there: each waits for the GPU


class Progress:
    """The epoch in progress, told on stderr by the main process only (`silent` for the others).

    `steps`: those of an epoch, and in all. `step`: how many are done.
    """

    def __init__(
        self,
        run: Run,
        kind: ImageKind,
        steps: tuple[int, int],
        step: int,
        curve: list[dict],
        silent: bool,
    ) -> None:
        self.run, self.kind, self.silent = run, kind, silent
        self.steps_per_epoch, last_step = steps
        self.live = None if silent else LiveCurves(paths.scratch(run.name) / "live", curve)
        self.bar = tqdm(
            total=last_step,
            initial=step,
            unit="step",
            disable=True if silent else None,
            smoothing=0.02,
        )
        self._begin(step)

    def _begin(self, step: int) -> None:
        self.began, self.first = time.monotonic(), step

    def _images_per_second(self, step: int) -> float:
        seconds = time.monotonic() - self.began
        return self.run.training.batch_size * (step - self.first) / seconds

    def after_step(self, state: TrainState, step: int, saved: Path) -> None:
        """Show the mean losses of the epoch so far, `step` steps being done in all.

        Raises VlaeError if they say that the training diverged; `saved` has the last good state.
        """
        self.bar.update()
        if state.sums.device.type != "cpu" and step % GPU_STEPS:
            return
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        loss, reconstruction, kl = (state.sums / (within + 1)).tolist()
        late = epoch > 0 and within >= 50
        if not math.isfinite(loss) or (late and loss > self.kind.uniform_loss):
            raise VlaeError(
                f"{self.run.name}: training diverged at step {step} (mean loss {loss:.1f} nats); "
                f"the last good state is kept in {saved}; lower "
                f"runs.{self.run.name}.training.learning_rate"
            )
        self.bar.set_postfix_str(
            f"ELBO {-reconstruction - kl:.2f} KL {kl:.2f} nats, "
            f"{self._images_per_second(step):.0f} images/s"
        )

    def row(self, state: TrainState, step: int) -> dict:
        """The row of the curve for the epoch that ends with so many steps in all."""
        loss, reconstruction, kl = (state.sums / self.steps_per_epoch).tolist()
        row = {
            "epoch": step // self.steps_per_epoch,
            "step": step,
            "seconds": round(time.monotonic() - self.began, 1),
            "images_per_second": round(self._images_per_second(step), 1),
            "loss": loss,
            "elbo": -reconstruction - kl,
            "kl": kl,
        }
        if state.free_bits is not None:
            row["gamma"] = state.free_bits.gamma.item()
        return row

    def end_epoch(self, row: dict) -> None:
        """Tell the row, and begin the next epoch."""
        if self.live is not None:
            self.live.log(row)
            text = (
                f"{self.run.name}: epoch {row['epoch']}  ELBO {row['elbo']:.2f}  "
                f"KL {row['kl']:.2f}"
                + (f"  validation {row['valid_elbo']:.2f}" if "valid_elbo" in row else "")
                + f" nats  {row['images_per_second']:.0f} images/s"
            )
            logger.info(text)
        self._begin(row["step"])

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()


class LiveCurves:
    """One step an epoch: loss, elbo, kl and the validation's, nats; images_per_second."""

    def __init__(self, folder: Path, rows: list[dict]) -> None:
        try:
            from dvclive import Live
        except ImportError:  # a training machine needs nothing but PyTorch and a few
            self._live = None
            logger.info("no live curves: dvclive is not installed")
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
        for row in rows:
            self.log(row)

    def log(self, row: dict) -> None:
        """Add the row of an epoch."""
        if self._live is None:
            return
        self._live.step = row["epoch"]
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._live.log_metric(name, value, plot=True)
        self._live.make_summary()
