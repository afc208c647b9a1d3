"""The paper's printed numbers, read from paper.yaml."""

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from vlae.errors import VlaeError, suggestion

BOUNDS = ("none", "<", "≤")
QUANTITIES = {  # quantities of claims with their possible units, the default unit first
    "nll": ("nats", "bits/dim"),
    "kl": ("nats",),
    "training_bound": ("nats",),
    "structure": ("levels",),
    "colour": ("levels",),
}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table, as printed; the head of paper.yaml explains the fields.

    `value` is in the table's unit, `kl` in nats per image (None: not printed). `kl_derived` is
    true if the paper prints the KL only in bits, so that we computed the nats. `instead` is our
    run on the most similar data set, shown with the `note` until `run` is trained.
    """

    model: str
    source: str
    bound: str
    reference: str | None = None
    value: float | None = None
    derived: str | None = None
    kl: float | None = None
    kl_printed: str | None = None
    kl_derived: bool = False
    run: str | None = None
    reading_of: str | None = None
    beside: str | None = None
    instead: str | None = None
    group: str | None = None
    note: str | None = None

    @property
    def ours_alone(self) -> bool:
        """True for a model that is not in the paper."""
        return self.source == "not in the paper"


@dataclass(frozen=True)
class PaperTable:
    """One of our tables: its heading data, and its rows in printed order."""

    name: str
    title: str
    dataset: str
    unit: str
    source: str
    importance_samples: int
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class Claim:
    """A positive difference between two runs, according to the paper.

    The paper states it, or it follows from the printed numbers in `derived`. The head of
    paper.yaml explains the fields. `value` and `rounding` are in `unit`: nats per image, bits/dim
    or levels of 0 to 255. Without a value the paper says only which of the two is lower.
    """

    claim: str
    group: str
    quantity: str
    higher: str
    lower: str
    source: str
    unit: str
    value: float | None = None
    rounding: float | None = None
    derived: str | None = None

    @property
    def size(self) -> tuple[float, float] | None:
        """The value and its rounding; None if the paper says only which of the two is lower."""
        return None if self.value is None or self.rounding is None else (self.value, self.rounding)


@cache
def paper() -> dict:
    """Return the parsed paper.yaml."""
    return yaml.safe_load(files("vlae.report").joinpath("paper.yaml").read_text(encoding="utf-8"))


def citation() -> str:
    """Return the reference of the paper."""
    return paper()["paper"]


def table_names() -> list[str]:
    """Return the names of all tables, in the paper's order."""
    return list(paper()["tables"])


def paper_table(name: str) -> PaperTable:
    """Return table `name` as printed. Raises VlaeError if there is no such table."""
    if name not in paper()["tables"]:
        raise VlaeError(f"no table {name!r}; {suggestion(name, table_names())}")
    table = dict(paper()["tables"][name])
    rows, bound = table.pop("rows"), table.pop("bound")
    of_model = {row["model"]: row for row in rows}
    # A group applies to the following rows, until the next group.
    group, parsed = None, []
    for entry in rows:
        row = {"bound": bound, "source": table["source"]}
        if "reading_of" in entry:
            row |= of_model[entry["reading_of"]]
        if "beside" in entry:
            row["value"] = of_model[entry["beside"]]["value"]
        row |= entry
        group = entry.get("group", group)
        parsed.append(_row(row | {"group": group}))
    return PaperTable(name=name, rows=tuple(parsed), **table)


def paper_claims() -> list[Claim]:
    """Return the paper's claims in the order of our table. Raises VlaeError for a faulty entry."""
    group, claims = None, []
    for entry in paper()["claims"]:
        group = entry.get("group", group)
        units = QUANTITIES.get(entry["quantity"], (None,))
        claim = Claim(**{"unit": units[0]} | entry | {"group": group})
        if claim.unit not in units or claim.unit is None:
            raise VlaeError(f"paper.yaml: {claim.claim}: unknown quantity or unit")
        if (claim.value is None) != (claim.rounding is None):
            raise VlaeError(f"paper.yaml: {claim.claim}: a value needs its rounding")
        claims.append(claim)
    return claims


def printed_nll(run: str) -> float | None:
    """Return the NLL that the paper prints for our `run`, in the table's unit, or None.

    If two tables print one (the VLAE on dynamic MNIST: Table 2 and the ablation), the first is
    used. A value that we derived does not count as printed, nor does one beside a model of ours
    that the paper does not have.
    """
    for name in table_names():
        for row in paper_table(name).rows:
            printed = row.value is not None and not row.derived and not row.ours_alone
            if row.run == run and printed:
                return row.value
    return None


def printed_kl(run: str) -> float | None:
    """Return the KL, nats per image, that the paper states for our `run`, or None."""
    for name in table_names():
        for row in paper_table(name).rows:
            if row.run == run and row.kl is not None:
                return row.kl
    return None


def _row(entry: dict) -> PaperRow:
    kl = entry.pop("kl", None)
    if entry["bound"] not in BOUNDS:
        raise VlaeError(f"paper.yaml: {entry['model']}: bound must be one of {BOUNDS}")
    if kl is None:
        return PaperRow(**entry)
    return PaperRow(
        **entry,
        kl=kl["nats"] if "nats" in kl else kl["bits"] * math.log(2),
        kl_printed=", ".join(f"{kl[unit]} {unit}" for unit in ("nats", "bits") if unit in kl),
        kl_derived="nats" not in kl,
    )
