"""The paper's claims, checked with the recorded runs.

A claim is a difference between two runs that is positive in the paper. Our difference has a
standard error if the values of each test image are recorded. The verdict depends only on these
two and on the paper's value.
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.errors import VlaeError
from vlae.evaluation.reconstruction_error import KINDS, errors
from vlae.images import COLOUR, recorded_kind
from vlae.report.doubt import doubt
from vlae.report.paper import Claim, citation, paper_claims
from vlae.report.repetitions import repeated_evaluations
from vlae.report.tables.table import Table
from vlae.statistics import mean_and_error
from vlae.storage import paths
from vlae.storage.records import (
    evaluation_file,
    images_file,
    read_per_image,
    read_results,
    read_samples,
    training_file,
)
from vlae.units import BITS_PER_DIM, rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

REPRODUCED = "reproduced"
SAME_DIRECTION = "same direction"
NOT_SIGNIFICANT = "not significant"
CONTRADICTED = "contradicted"
NOT_TRAINED = "not trained yet"

LEGEND = (
    "Each claim is a difference between two models that is positive in the paper, in nats per "
    "image unless another unit is given. Standard errors are those of the difference over the "
    "test images, paired image by image; they do not cover the variation between trainings. "
    "Reproduced: ours is positive by more than 2 s.e. and, where the claim is about a size, the "
    "paper's value is within 2 s.e. and the rounding of the printed numbers. Same direction: "
    "positive by more than 2 s.e., of another size. Not significant: within 2 s.e. of zero. "
    "Contradicted: negative by more than 2 s.e. For a claim marked > 0, only the sign is judged. "
    "≈: derived here from printed numbers. Levels (0 to 255): difference between originals and "
    "decompressions in the means of 8x8 pixels (table cifar10_kept)."
)


@dataclass(frozen=True)
class Checked:
    """A claim and our numbers for it, in the claim's unit; None if records are missing.

    `ours` is `higher` - `lower`. `epochs` are those of the two runs, in this order.
    """

    claim: Claim
    verdict: str
    note: str
    ours: float | None = None
    standard_error: float | None = None
    higher: float | None = None
    lower: float | None = None
    epochs: tuple[int, int] | None = None


def claims_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the claims are checked with if they exist."""
    named = [run for claim in paper_claims() for run in (claim.higher, claim.lower)]
    read = [
        str(file(run))
        for name in dict.fromkeys(named)
        if name in params.runs
        for run in (name, *params.repetitions(name))
        for file in (training_file, evaluation_file, images_file)
    ]
    of_images = [c for c in paper_claims() if c.quantity in KINDS]
    sampled = dict.fromkeys(run for claim in of_images for run in (claim.higher, claim.lower))
    return [*read, *(str(paths.samples(run)) for run in sampled if run in params.runs)]


def check_claims(params: "Params", root: Path | str = ".") -> list[Checked]:
    """Check every claim of the paper. Raises VlaeError for a record that cannot be used."""
    return [_check(claim, params, Path(root)) for claim in paper_claims()]


def verdict(ours: float, standard_error: float | None, claim: Claim) -> str:
    """Return the verdict on our difference; `ours` and its error are in the claim's unit.

    Without a standard error (None), any difference counts as significant, and the only tolerance
    is the rounding of the printed value. A difference that is compatible with zero is "not
    significant", even if the paper's value is within its error.
    """
    margin = 2 * (standard_error or 0.0)
    if abs(ours) <= margin:
        return NOT_SIGNIFICANT
    if ours < 0:
        return CONTRADICTED
    if claim.size is None:
        return REPRODUCED
    value, rounding = claim.size
    # 1e-9: a difference of exactly the margin counts as within it, despite rounding.
    return REPRODUCED if abs(ours - value) <= margin + rounding + 1e-9 else SAME_DIRECTION


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
        return _training_difference(claim, root, trainings)
    if claim.quantity in KINDS:
        return _decompressions_difference(claim, root, trainings)
    return _test_difference(claim, params, root, evaluations)


def _decompressions_difference(claim: Claim, root: Path, trainings: list[dict]) -> Checked:
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
    means = [float(each.mean()) for each in values]
    return _checked(claim, means, error, [t["epochs"] for t in trainings], remarks)


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


def _training_difference(claim: Claim, root: Path, trainings: list[dict]) -> Checked:
    values = []
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
    return _checked(claim, values, None, [t["epochs"] for t in trainings], remarks)


def _test_difference(
    claim: Claim, params: "Params", root: Path, evaluations: list[dict]
) -> Checked:
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
    scale = BITS_PER_DIM.per_nat if claim.unit == BITS_PER_DIM.name else 1.0
    values = [scale * evaluation[claim.quantity] for evaluation in evaluations]
    remarks += _over_seeds(claim, params, root, evaluations)
    return _checked(claim, values, scale * error, [e["epochs"] for e in evaluations], remarks)


def _over_seeds(claim: Claim, params: "Params", root: Path, evaluations: list[dict]) -> list[str]:
    """Return a remark on the difference of the means over seeds, if both runs were repeated.

    Its standard error is over trainings, not over test images.
    """
    values = []
    for evaluation in evaluations:
        repeated, _ = repeated_evaluations(evaluation["run"], evaluation, params, root)
        values.append([each[claim.quantity] for each in repeated])
    if min(map(len, values)) < 2:
        return []
    higher, lower = values
    difference = statistics.fmean(higher) - statistics.fmean(lower)
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in values))
    return [
        f"means of {len(higher)} and {len(lower)} seeds differ by {difference:.2f} "
        f"± {error:.2g} nats (s.e. over trainings)"
    ]


def _same_images(evaluations: list[dict], images: list[dict[str, np.ndarray]]) -> bool:
    """Return True if both evaluations used the same bits; a seed binarizes a dynamic test set."""
    first, second = evaluations
    same = all(first.get(k) == second.get(k) for k in ("data_sha256", "binarization_seed"))
    return same and np.array_equal(images[0]["index"], images[1]["index"])


def _checked(
    claim: Claim,
    values: list[float],
    error: float | None,
    epochs: list[int],
    remarks: list[str],
) -> Checked:
    higher, lower = values
    if epochs[0] != epochs[1]:
        remarks.append(f"not the same budget: {epochs[0]} and {epochs[1]} epochs")
    return Checked(
        claim=claim,
        verdict=verdict(higher - lower, error, claim),
        note="; ".join(remarks),
        ours=higher - lower,
        standard_error=error,
        higher=higher,
        lower=lower,
        epochs=(epochs[0], epochs[1]),
    )


def build(params: "Params", root: Path) -> Table:
    """Build the table of all claims. Raises VlaeError for a record that cannot be used."""
    import pandas as pd

    checked = check_claims(params, root)
    return Table(
        name="claims",
        title="The paper's claims, checked",
        legend=LEGEND,
        frame=pd.DataFrame([_record(one) for one in checked], dtype=object),
        shown=pd.DataFrame([_cells(one) for one in checked]),
        text=("Claim", "Verdict", "Printed in", "Note"),
        groups=[one.claim.group for one in checked],
        below={"Note": "{}"},
        left_out=("Paper, terms", "Ours, terms", "Epochs", "Printed in"),
        spec={"Claim": r"p{0.45\linewidth}"},
        source=f"Paper: {citation()}.",
    )


def _record(one: Checked) -> dict:
    """Return the claim's row of the csv."""
    claim = one.claim
    return {
        "group": claim.group,
        "claim": claim.claim,
        "quantity": claim.quantity,
        "unit": claim.unit,
        "higher": claim.higher,
        "lower": claim.lower,
        "judged": claim.judged,
        "paper": claim.value,
        "paper_terms": claim.derived,
        "ours": one.ours,
        "standard_error": one.standard_error,
        "ours_higher": one.higher,
        "ours_lower": one.lower,
        "verdict": one.verdict,
        "epochs": " ".join(map(str, one.epochs or ())),
        "note": one.note,
        "source": claim.source,
    }


def _cells(one: Checked) -> dict[str, str]:
    """Return the claim's cells for readers, by heading."""
    paper, ours, error = _numbers(one)
    return {
        "Claim": one.claim.claim,
        "Paper": paper,
        "Ours": ours,
        "± s.e.": error,
        "Verdict": f"**{one.verdict}**",
        "Paper, terms": (one.claim.derived or "").replace(" - ", " − "),
        "Ours, terms": "" if one.ours is None else f"{one.higher:.2f} − {one.lower:.2f}",
        "Epochs": ", ".join(map(str, dict.fromkeys(one.epochs or ()))),
        "Printed in": one.claim.source,
        "Note": one.note,
    }


def _numbers(one: Checked) -> tuple[str, str, str]:
    """Return the paper's value, ours and its standard error as text for readers."""
    claim = one.claim
    unit = "" if claim.unit == "nats" else f" {claim.unit}"
    if claim.value is None:
        paper = "> 0"
    else:
        paper = (f"≈ {claim.value:.2f}" if claim.derived else f"{claim.value:g}") + unit
        if claim.judged == "order":
            paper = f"> 0 ({paper})"
    ours = "" if one.ours is None else rounded(one.ours) + unit
    return paper, ours, rounded_error(one.standard_error)
