"""Learning curves while they grow, by DVCLive where it is installed.

The truth is the curve in the training state, which ends up in curve.csv; these files in
scratch/RUN/live/ are for watching (VS Code, `dvc plots show`, any text editor). They are
written anew from the state when a training is resumed, so that no epoch stands twice.
"""

import shutil
import sys
from pathlib import Path


class LiveCurves:
    """One step an epoch: loss, elbo, kl and the validation's, nats; images_per_second."""

    def __init__(self, folder: Path, rows: list[dict]):
        try:
            from dvclive import Live
        except ImportError:  # a training machine needs nothing but PyTorch and a few
            self._live = None
            print("no live curves: dvclive is not installed", file=sys.stderr)
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
        for row in rows:
            self.log(row)

    def log(self, row: dict) -> None:
        if self._live is None:
            return
        self._live.step = row["epoch"]
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._live.log_metric(name, value, plot=True)
        self._live.make_summary()
