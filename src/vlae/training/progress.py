"""Shows the progress of a training: a bar, and a log line and a curve row per epoch.

The curve in the training state is authoritative; it ends up in curve.csv. DVCLive's files in
scratch/RUN/live/ serve for watching (VS Code, `dvc plots show`, any text editor). A resumed
training rewrites them from the state, so that no epoch appears twice.
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

# Columns of curve.csv; the losses are in nats per image.
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
GPU_STEPS = 50  # steps between two readings of the losses; each reading waits for the GPU


class Progress:
    """Reports the current epoch on stderr; `silent` in all processes but the main one.

    `steps`: number of steps per epoch and in total. `step`: number of steps done.
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
        """Show the mean losses of the epoch so far, after `step` steps in total.

        Raises VlaeError if they show that the training diverged. `saved` is the path of the last
        good state, for the message.
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
                f"{self.run.block}.training.learning_rate"
            )
        self.bar.set_postfix_str(
            f"ELBO {-reconstruction - kl:.2f} KL {kl:.2f} nats, "
            f"{self._images_per_second(step):.0f} images/s"
        )

    def row(self, state: TrainState, step: int) -> dict:
        """Return the curve row of the epoch that ends after `step` steps in total."""
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
        """Log the row and begin the next epoch."""
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
        """Close the progress bar."""
        self.bar.close()


class LiveCurves:
    """DVCLive curves with one point per epoch: training and validation losses (nats), speed."""

    def __init__(self, folder: Path, rows: list[dict]) -> None:
        try:
            from dvclive import Live
        except ImportError:  # optional, so that a training machine does not need DVC
            self._live = None
            logger.info("no live curves: dvclive is not installed")
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
        for row in rows:
            self.log(row)

    def log(self, row: dict) -> None:
        """Add an epoch's row."""
        if self._live is None:
            return
        self._live.step = row["epoch"]
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._live.log_metric(name, value, plot=True)
        self._live.make_summary()
