"""Verdicts on the paper's claims, from the recorded runs.

A claim is a difference between two runs that is positive in the paper. The verdict depends only on
our difference, its standard error and the paper's value.
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.config.schema import ModelConfig
from vlae.errors import VlaeError
from vlae.evaluation.reconstruction_error import KINDS, errors
from vlae.images import COLOUR, recorded_kind
from vlae.report.doubt import doubt
from vlae.report.paper import Claim, paper_claims
from vlae.report.repetitions import repeated_evaluations
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import read_per_image, read_results, read_samples, training_file
from vlae.units import BITS_PER_DIM

if TYPE_CHECKING:
    from vlae.config.schema import Params, Run

REPRODUCED = "reproduced"
SAME_SIGN = "same sign"
OTHER_SIZE = "same sign, other size"
NOT_SIGNIFICANT = "not significant"
CONTRADICTED = "contradicted"
NOT_TRAINED = "not trained yet"

# Settings of a training that both sides of a fair comparison share, beside the epochs.
SHARED = ("learning_rate", "batch_size", "decay_epochs", "optimizer", "polyak", "split")


@dataclass(frozen=True)
class Checked:
    """A claim and our numbers for it, in the claim's unit; None if records are missing.

    `ours` is `higher` - `lower`, means over `seeds` trainings each. `epochs` are those of the two
    runs, in this order. `unequal` says what sets their trainings apart, so that the difference is
    not of the models alone.
    """

    claim: Claim
    verdict: str
    note: str
    unequal: str = ""
    ours: float | None = None
    standard_error: float | None = None
    higher: float | None = None
    lower: float | None = None
    epochs: tuple[int, int] | None = None
    seeds: tuple[int, int] | None = None


@dataclass(frozen=True)
class Difference:
    """Our two values, in the claim's unit, and the standard error of their difference; None if
    none is recorded. `seeds`: how many trainings each value is the mean of."""

    higher: float
    lower: float
    standard_error: float | None
    remarks: list[str]
    seeds: tuple[int, int] = (1, 1)


def check_claims(params: "Params", root: Path | str = ".") -> list[Checked]:
    """Check every claim of the paper. Raises VlaeError for a record that cannot be used."""
    return [_check(claim, params, Path(root)) for claim in paper_claims()]


def verdict(ours: float, standard_error: float | None, claim: Claim) -> str:
    """Return the verdict on our difference; `ours` and its error are in the claim's unit.

    Without a standard error (None), any difference counts as significant, and the only tolerance
    is the rounding of the printed value. A difference that is compatible with zero is "not
    significant", even if the paper's value is within its error. Where the paper gives no size,
    the verdict says that it is from the sign alone.
    """
    margin = 2 * (standard_error or 0.0)
    if abs(ours) <= margin:
        return NOT_SIGNIFICANT
    if ours < 0:
        return CONTRADICTED
    if claim.size is None:
        return SAME_SIGN
    value, rounding = claim.size
    # 1e-9: a difference of exactly the margin counts as within it, despite rounding.
    return REPRODUCED if abs(ours - value) <= margin + rounding + 1e-9 else OTHER_SIZE


def paired_error(
    higher: np.ndarray, lower: np.ndarray, corrections: tuple[float, ...] = ()
) -> float:
    """Return the standard error of mean(higher) - mean(lower), values of the same images (n,).

    `corrections`: standard errors of the corrections that a second level of importance sampling
    adds to the means. They are added in quadrature. This neglects their covariance with the first
    level (docs/evaluation.md), which is small in comparison. It also neglects the covariance of
    the two runs' corrections, which use the same images.
    """
    difference = higher.astype(np.float64) - lower.astype(np.float64)
    first = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return math.hypot(first, *corrections)


def _check(claim: Claim, params: "Params", root: Path) -> Checked:
    trainings, evaluations, missing, reasons = [], [], [], []
    for run in dict.fromkeys((claim.higher, claim.lower)):
        training = evaluation = None
        if run in params.runs:
            training, evaluation = read_results(root, run, params.runs[run].dataset)
        if training is None:
            missing.append(f"{run}: not trained")
            reasons.append(params.why_not_trained(run) if run in params.runs else "")
            continue
        trainings.append(training)
        if claim.quantity in KINDS:
            if not Path(root, paths.samples(run)).exists():
                missing.append(f"{run}: not sampled")
        elif evaluation is not None:
            evaluations.append(evaluation)
        elif claim.quantity != "training_bound":
            missing.append(f"{run}: not evaluated")
    if missing:
        missing += dict.fromkeys(filter(None, reasons))  # once, if both runs have one data set
        return Checked(claim, NOT_TRAINED, "; ".join(missing))
    if claim.quantity == "training_bound":
        ours, records = _training_difference(root, trainings), trainings
    elif claim.quantity in KINDS:
        ours, records = _decompressions_difference(claim, root, trainings), trainings
    else:
        ours, records = _test_difference(claim, params, root, evaluations), evaluations
    epochs = (records[0]["epochs"], records[1]["epochs"])
    unequal = _unequal(params.runs[claim.higher], params.runs[claim.lower], epochs)
    return Checked(
        claim=claim,
        verdict=verdict(ours.higher - ours.lower, ours.standard_error, claim),
        note="; ".join(ours.remarks),
        unequal="; ".join(unequal),
        ours=ours.higher - ours.lower,
        standard_error=ours.standard_error,
        higher=ours.higher,
        lower=ours.lower,
        epochs=epochs,
        seeds=ours.seeds,
    )


def _unequal(higher: "Run", lower: "Run", epochs: tuple[int, int]) -> list[str]:
    """Return what sets the two trainings apart, beside the models that the claim compares."""
    settings: list[tuple] = [("epochs", *epochs)] if epochs[0] != epochs[1] else []
    for key in SHARED:
        pair = getattr(higher.training, key), getattr(lower.training, key)
        if pair[0] != pair[1]:
            settings.append((key.replace("_", " "), *pair))
    activations = [_flow_activations(run) for run in (higher, lower)]
    if all(activations) and activations[0] != activations[1]:
        settings.append(("activation of the flow", *map("/".join, activations)))
    return [f"{name} {first} and {second}" for name, first, second in settings]


def _flow_activations(run: "Run") -> list[str]:
    if not isinstance(run.model, ModelConfig):
        return []
    flows = (run.model.prior, run.model.posterior)
    return sorted({flow.hidden_activation for flow in flows if flow.flow != "none"})


def _decompressions_difference(claim: Claim, root: Path, trainings: list[dict]) -> Difference:
    """Compare the mean errors of the recorded decompressions, paired if the images are equal."""
    originals, values = [], []
    for training in trainings:
        given, again = _colour_pairs(root, training["run"])
        originals.append(given)
        values.append(errors(given, again)[claim.quantity])
    (first, second), (higher, lower) = originals, values
    remarks = [f"{' and '.join(dict.fromkeys(f'{len(v):,}' for v in values))} decompressions"]
    if np.array_equal(first, second):
        error = paired_error(higher, lower)
    else:
        error = math.hypot(*(mean_and_error(each)[1] for each in values))
        remarks.append("not the same test images in both, so the standard error is unpaired")
    return Difference(float(higher.mean()), float(lower.mean()), error, remarks)


def _colour_pairs(root: Path, run: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the recorded originals of `run` and their decompressions.

    Raises VlaeError unless there are at least two colour images.
    """
    images = read_samples(root, run)
    if (
        images is None
        or recorded_kind(images["originals"].shape[1:]) is not COLOUR
        or len(images["originals"]) < 2
    ):
        raise VlaeError(f"{Path(root, paths.samples(run))}: needs at least two colour images")
    return images["originals"], images["decompressions"]


def _training_difference(root: Path, trainings: list[dict]) -> Difference:
    values: list[float] = []
    for training in trainings:
        final = training.get("final")
        elbo = final.get("elbo") if isinstance(final, dict) else None
        # In Python, JSON's true and false are integers too.
        if isinstance(elbo, bool) or not isinstance(elbo, int | float) or not math.isfinite(elbo):
            path = Path(root, training_file(training["run"]))
            raise VlaeError(f"{path}: 'final' must hold the number elbo")
        values.append(-elbo)
    remarks = [
        "ours is the −ELBO of the last epoch, the paper's an NLL; no standard error is recorded, "
        "so only the sign and the rounding decide"
    ]
    higher, lower = values
    return Difference(higher, lower, None, remarks)


def _test_difference(
    claim: Claim, params: "Params", root: Path, evaluations: list[dict]
) -> Difference:
    """Compare the means over seeds; their error is over test images and, where a run was
    repeated, over trainings."""
    images = [read_per_image(root, evaluation) for evaluation in evaluations]
    key = "log_likelihood" if claim.quantity == "nll" else "kl"
    remarks = []
    if _same_images(evaluations, images):
        deep = [evaluation.get("deep") for evaluation in evaluations]
        corrections = [d["difference_se"] for d in deep if d] if claim.quantity == "nll" else []
        error = paired_error(images[0][key], images[1][key], tuple(corrections))
    else:
        error = math.hypot(*(evaluation[f"{claim.quantity}_se"] for evaluation in evaluations))
        remarks.append("not the same test images in both, so the standard error is unpaired")
    if claim.quantity == "nll":
        doubts = [(e["run"], doubt(e)) for e in evaluations]
        remarks += [f"{run}: {why}" for run, why in doubts if why]
    higher, lower = (_over_seeds(claim.quantity, params, root, one) for one in evaluations)
    error = math.hypot(error, *(_error_of_mean(values) for values in (higher, lower)))
    scale = BITS_PER_DIM.per_nat if claim.unit == BITS_PER_DIM.name else 1.0
    first, second = (scale * statistics.fmean(values) for values in (higher, lower))
    return Difference(first, second, scale * error, remarks, (len(higher), len(lower)))


def _over_seeds(quantity: str, params: "Params", root: Path, evaluation: dict) -> list[float]:
    """Return the quantity of every training of the run, nats per image."""
    repeated, _ = repeated_evaluations(evaluation["run"], evaluation, params, root)
    return [each[quantity] for each in repeated]


def _error_of_mean(values: list[float]) -> float:
    """Return the standard error of the mean over trainings; 0 for one, of which it is unknown."""
    return math.sqrt(statistics.variance(values) / len(values)) if len(values) > 1 else 0.0


def _same_images(evaluations: list[dict], images: list[dict[str, np.ndarray]]) -> bool:
    """Return True if both evaluations used the same bits; a seed binarizes a dynamic test set."""
    first, second = evaluations
    same = all(first.get(k) == second.get(k) for k in ("data_sha256", "binarization_seed"))
    return same and np.array_equal(images[0]["index"], images[1]["index"])
