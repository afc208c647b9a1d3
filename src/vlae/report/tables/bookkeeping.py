"""The table of the parts of a code's length: what is sent, what comes back, what it costs.

Section 2 of the paper: a naive two-part code sends z and then x. Bits-back coding draws z with
bits that are sent anyway, and gets them back. It is longer than -log p(x) by KL(q(z|x) || p(z|x)).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.errors import VlaeError
from vlae.report.doubt import doubt
from vlae.report.tables.table import Table
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.records import (
    check_record,
    evaluation_file,
    images_file,
    read_evaluation,
    read_per_image,
)
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params, Run

NAME = "bookkeeping"
BIN_BITS = 5  # bins of z have the width 2^-5, as those of the coder (vlae.coding.distributions)
BOUND: dict[str, type] = {"elbo": float, "elbo_se": float}
PROBE = {
    "posterior_entropy": float,
    "posterior_entropy_se": float,
    "latent_dim": int,
    "n_test": int,
    "checkpoint_sha256": str,
    "data_sha256": str,
}
CODE = {"dataset": str, "n_test": int, "bits_per_image": float}
# What two records of a run share if they are about the same weights and images.
SHARED = ("checkpoint_sha256", "data_sha256", "n_test")
LEGEND = (
    "Means over the test images, of one image: lengths of codes in bits, the parts of −ELBO in "
    "nats. A naive two-part code sends z under p(z), then x "
    f"under p(x|z); z is rounded to bins of width 1/{2**BIN_BITS}, as in the coder, which costs "
    f"{BIN_BITS} bits a variable. Bits-back coding draws z from q(z|x) with bits that are sent "
    f"anyway, and these come back: the entropy of q(z|x), with the same {BIN_BITS} bits a "
    "variable. So the width of the bins cancels in the bits-back length, which is naive − comes "
    "back = −ELBO. Coded: what the real coder needed. −ELBO is the reconstruction "
    "E[−log p(x|z)] plus KL(q(z|x) ‖ p(z)). It is also −log p(x) plus the gap "
    "KL(q(z|x) ‖ p(z|x)), what an imperfect q costs. −log p(x) is estimated by importance "
    "sampling; an estimate that is too high makes the gap too small. ±: one standard error, "
    "paired. †: the importance sampling is not reliable (docs/evaluation.md). Empty: not "
    "recorded. The csv file has everything in both units, with errors, and also the lengths for "
    "densities, without the bits of the bins: their entropy may be negative."
)
# Of each part: nats, bits, and the standard error in nats. `coded` has no error.
PARTS = (
    *("naive", "comes_back", "bits_back", "nll", "gap", "reconstruction", "kl"),
    *("naive_density", "posterior_entropy", "coded"),
)
CSV = (
    *("dataset", "run", "n_test", "latent_dim"),
    *(f"{part}_{what}" for part in PARTS for what in ("nats", "bits", "se_nats")),
    "note",
)


@dataclass(frozen=True)
class Account:
    """The parts of the length of a run's code, means over the test images in nats an image.

    of: (value, standard error) by name, one of PARTS. Naive and comes_back are for bins of width
        2^-BIN_BITS, naive_density and posterior_entropy for densities. What is not recorded is
        absent; the error is None if it is unknown.
    latent_dim: None if the entropy of the posterior is not recorded.
    note: why the importance sampling is not reliable, or None.
    """

    run: "Run"
    n_test: int
    latent_dim: int | None
    of: dict[str, tuple[float, float | None]]
    note: str | None

    def bits(self, part: str) -> float | None:
        """Return a part in bits an image, or None."""
        return self.of[part][0] / math.log(2) if part in self.of else None


def bookkeeping_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    return [
        str(file(name))
        for name, run in params.runs.items()
        if run.model.latent_dim
        for file in (
            *(evaluation_file, images_file),
            *([paths.probe] if name in params.probes else []),
            *([paths.codelength] if name in params.codelengths else []),
        )
    ]


def accounts(params: "Params", root: Path) -> Iterator[Account]:
    """Yield the account of each evaluated run with a code, in the order of params.yaml.

    Raises VlaeError for a record that cannot be used, or if two of a run are about other weights
    or images.
    """
    for name, run in params.runs.items():
        evaluation = read_evaluation(root, name, run.dataset) if run.model.latent_dim else None
        if evaluation is None:
            continue
        check_record(root / evaluation_file(name), evaluation, {}, BOUND)
        bound, kl = -evaluation["elbo"], evaluation["kl"]
        gap_error, reconstruction_error = _paired_errors(root, evaluation)
        of: dict[str, tuple[float, float | None]] = {
            "bits_back": (bound, evaluation["elbo_se"]),
            "nll": (evaluation["nll"], evaluation["nll_se"]),
            "gap": (bound - evaluation["nll"], gap_error),
            "kl": (kl, evaluation["kl_se"]),
            "reconstruction": (bound - kl, reconstruction_error),
        }
        probe = _probe(root, name, evaluation)
        if probe is not None:
            of |= _what_comes_back(root, probe, bound, evaluation["elbo_se"])
        if name in params.codelengths:
            of |= _coded(root, name, evaluation)
        dimensions = None if probe is None else probe["latent_dim"]
        yield Account(run, evaluation["n_test"], dimensions, of, doubt(evaluation))


def build(params: "Params", root: Path) -> Table:
    """Build the table, a row per evaluated run with a code, grouped by data set.

    Raises the errors of accounts.
    """
    import pandas as pd

    found = sorted(accounts(params, root), key=lambda one: one.run.dataset)  # stable
    shown = [_cells(one) for one in found]
    return Table(
        name=NAME,
        title="What a code costs, and what comes back",
        legend=LEGEND,
        frame=pd.DataFrame([_row(one) for one in found], columns=list(CSV), dtype=object),
        shown=pd.DataFrame(shown, columns=list(shown[0]) if shown else ["Run"]),
        text=("Run",),
        groups=[one.run.dataset for one in found],
        narrow={
            "Naive, bits": "Naive",
            "Comes back, bits": "Back",
            "Bits-back, bits": "Net",
            "Coded, bits": "Coded",
            "Reconstruction, nats": "Recon.",
        },
        left_out=("−ELBO, nats",),
    )


def _paired_errors(root: Path, evaluation: dict) -> tuple[float | None, float | None]:
    """Return the standard errors of the gap and of the reconstruction, in nats.

    Both are errors of differences on the same images. That of the gap has the second level's
    in it (docs/evaluation.md). They are None for old records, without the bound of each image.
    Raises VlaeError if the values of the images are not finite, or too large.
    """
    images = read_per_image(root, evaluation, ("elbo",))
    if "elbo" not in images or evaluation["n_test"] < 2:
        return None, None
    values = {key: array.astype(np.float64) for key, array in images.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        _, first_level = mean_and_error(values["log_likelihood"] - values["elbo"])
        _, reconstruction = mean_and_error(values["elbo"] + values["kl"])
    if not math.isfinite(first_level) or not math.isfinite(reconstruction):
        path = root / images_file(evaluation["run"])
        raise VlaeError(f"{path}: elbo, log_likelihood or kl is not finite or too large")
    second_level = (evaluation.get("deep") or {}).get("difference_se", 0.0)
    return math.hypot(first_level, second_level), reconstruction


def _probe(root: Path, run: str, evaluation: dict) -> dict | None:
    """Return the record of a run's posterior, of the same weights and images, or None."""
    path = root / paths.probe(run)
    if not path.exists():
        return None
    probe = check_record(path, read_json(path), {"run": run}, PROBE)
    _check_same(path, probe, evaluation)
    return probe


def _what_comes_back(
    root: Path, probe: dict, bound: float, bound_error: float
) -> dict[str, tuple[float, float | None]]:
    """Return the parts that follow from the entropy of the posterior; the bound is in nats.

    The images are the same, but how the two covary is not recorded. So the error of a sum is the
    sum of the errors, the most that it can be. Raises VlaeError if the posterior is so narrow
    that nothing comes back from these bins.
    """
    entropy, error = probe["posterior_entropy"], probe["posterior_entropy_se"]
    in_bins = entropy + probe["latent_dim"] * BIN_BITS * math.log(2)
    if in_bins <= 0:
        path = root / paths.probe(probe["run"])
        raise VlaeError(f"{path}: a posterior narrower than bins of width 1/{2**BIN_BITS}")
    return {
        "naive": (bound + in_bins, bound_error + error),
        "comes_back": (in_bins, error),
        "naive_density": (bound + entropy, bound_error + error),
        "posterior_entropy": (entropy, error),
    }


def _coded(root: Path, run: str, evaluation: dict) -> dict[str, tuple[float, None]]:
    """Return the length that the coder measured on the same images, if there is one."""
    path = root / paths.codelength(run)
    if not path.exists():
        return {}
    code = check_record(path, read_json(path), {"run": run}, CODE)
    if any(code[key] != evaluation[key] for key in ("dataset", "n_test")):
        return {}
    _check_same(path, code, evaluation)
    return {"coded": (code["bits_per_image"] * math.log(2), None)}


def _check_same(path: Path, record: dict, evaluation: dict) -> None:
    """Raise VlaeError if a record is not about the weights and images of the evaluation.

    Old records do not say what they are about.
    """
    for key in SHARED:
        if key in record and key in evaluation and record[key] != evaluation[key]:
            other = evaluation_file(evaluation["run"])
            raise VlaeError(f"{path}: its {key} is not that of {other}; one of them is outdated")


def _row(account: Account) -> dict:
    row = dict.fromkeys(CSV) | {
        "dataset": account.run.dataset,
        "run": account.run.name,
        "n_test": account.n_test,
        "latent_dim": account.latent_dim,
        "note": account.note,
    }
    for part, (value, error) in account.of.items():
        row[f"{part}_nats"], row[f"{part}_se_nats"] = value, error
        row[f"{part}_bits"] = account.bits(part)
    return row


def _cells(account: Account) -> dict[str, str]:
    """Return the cells for readers, by heading."""

    def nats(part: str) -> str:
        return rounded(account.of[part][0])

    def bits(part: str) -> str:
        value = account.bits(part)
        return "" if value is None else f"{value:,.1f}"

    mark = " †" if account.note else ""
    _, error = account.of["gap"]
    return {
        "Run": account.run.name,
        "Naive, bits": bits("naive"),
        "Comes back, bits": bits("comes_back"),
        "Bits-back, bits": bits("bits_back"),
        "Coded, bits": bits("coded"),
        "−ELBO, nats": nats("bits_back"),
        "Reconstruction, nats": nats("reconstruction"),
        "KL, nats": nats("kl"),
        "−log p(x), nats": nats("nll") + mark,
        "Gap, nats": nats("gap") + ("" if error is None else f" ± {rounded_error(error)}") + mark,
    }
