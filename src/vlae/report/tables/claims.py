"""The table of the paper's claims with our verdicts."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlae.evaluation.reconstruction_error import KINDS
from vlae.report.paper import citation, paper_claims
from vlae.report.tables.table import Table
from vlae.report.verdicts import Checked, check_claims
from vlae.storage import paths
from vlae.storage.records import evaluation_file, images_file, training_file
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

LEGEND = (
    "Each claim is a difference between two models, in nats per image unless another unit stands "
    "there. It is positive in the paper. The standard error is over the test images, paired image "
    "by image, and over trainings where a run was repeated with other seeds. With one seed it "
    "does not cover what another training would give. "
    "Reproduced: our difference is positive by more than 2 s.e., and the paper's is within 2 s.e. "
    "and the rounding of its printed numbers. Same sign: positive by more than 2 s.e.; the paper "
    "gives no size. Same sign, other size: positive by more than 2 s.e., but the paper's value is "
    "further away. Not significant: within 2 s.e. of zero. Contradicted: negative by more than "
    "2 s.e. ‡: the two trainings differ in more than what the claim is about, as the note says. "
    "≈: derived here from printed numbers. Levels (0 to 255): difference between originals and "
    "decompressions in the means of 8x8 pixels (table cifar10_kept)."
)


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
        left_out=("Paper, terms", "Ours, terms", "Epochs", "Seeds", "Printed in"),
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
        "paper": claim.value,
        "paper_terms": claim.derived,
        "ours": one.ours,
        "standard_error": one.standard_error,
        "ours_higher": one.higher,
        "ours_lower": one.lower,
        "verdict": one.verdict,
        "epochs": " ".join(map(str, one.epochs or ())),
        "seeds": " ".join(map(str, one.seeds or ())),
        "unequal": one.unequal,
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
        "Verdict": f"**{one.verdict}{' ‡' if one.unequal else ''}**",
        "Paper, terms": (one.claim.derived or "").replace(" - ", " − "),
        "Ours, terms": "" if one.ours is None else f"{one.higher:.2f} − {one.lower:.2f}",
        "Epochs": ", ".join(map(str, dict.fromkeys(one.epochs or ()))),
        "Seeds": ", ".join(map(str, dict.fromkeys(one.seeds or ()))),
        "Printed in": one.claim.source,
        "Note": "; ".join(filter(None, (one.unequal, one.note))),
    }


def _numbers(one: Checked) -> tuple[str, str, str]:
    """Return the paper's value, ours and its standard error as text for readers."""
    claim = one.claim
    unit = "" if claim.unit == "nats" else f" {claim.unit}"
    if claim.value is None:
        paper = "> 0"
    else:
        paper = (f"≈ {claim.value:.2f}" if claim.derived else f"{claim.value:g}") + unit
    ours = "" if one.ours is None else rounded(one.ours) + unit
    return paper, ours, rounded_error(one.standard_error)
