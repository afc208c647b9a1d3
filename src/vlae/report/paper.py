"""The paper's printed numbers, read from paper.yaml."""

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from vlae.errors import VlaeError, suggestion

BOUNDS = ("none", "<", "≤")
QUANTITIES = {  # what claims are about, and the units it may be in, the first without a word
    "nll": ("nats", "bits/dim"),
    "kl": ("nats",),
    "training_bound": ("nats",),
    "structure": ("levels",),
    "colour": ("levels",),
}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table, as printed; see the head of paper.yaml for the fields.

    `value` is in the table's unit, `kl` in nats per image (None: not printed), `kl_derived`
    says that the paper prints the KL in bits only and that the nats are our arithmetic.
    `instead` is our run on the nearest data set, shown until `run` is trained, with the `note`.
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
    instead: str | None = None
    group: str | None = None
    note: str | None = None

    @property
    def ours_alone(self) -> bool:
        """True for a model that the paper does not have."""
        return self.source == "not in the paper"


@dataclass(frozen=True)
class PaperTable:
    """One of our tables: what stands above it, and its rows in printed order."""

    name: str
    title: str
    dataset: str
    unit: str
    source: str
    importance_samples: int
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class Claim:
    """A positive difference between two runs that the paper states, or that follows from its
    numbers (`derived` says from which); see the head of paper.yaml for the fields.

    `value` and `rounding` are in `unit`: nats per image, bits/dim or levels of 0 to 255; without
    a value only the order is judged.
    """

    claim: str
    group: str
    quantity: str
    higher: str
    lower: str
    judged: str
    source: str
    unit: str
    value: float | None = None
    rounding: float | None = None
    derived: str | None = None

    @property
    def size(self) -> tuple[float, float] | None:
        """The value and its rounding where they are judged, None where only the order is."""
        if self.judged == "order" or self.value is None or self.rounding is None:
            return None
        return self.value, self.rounding


@cache
def paper() -> dict:
    """The parsed paper.yaml."""
    return yaml.safe_load(files("vlae.report").joinpath("paper.yaml").read_text(encoding="utf-8"))


def citation() -> str:
    """The work whose numbers these are."""
    return paper()["paper"]


def table_names() -> list[str]:
    """The names of all tables, in the paper's order."""
    return list(paper()["tables"])


def paper_table(name: str) -> PaperTable:
    """The printed rows of table `name`; VlaeError when there is no such table."""
    if name not in paper()["tables"]:
        raise VlaeError(f"no table {name!r}; {suggestion(name, table_names())}")
    table = dict(paper()["tables"][name])
    rows, bound = table.pop("rows"), table.pop("bound")
    # A group holds for the rows that follow, until the next one.
    group, parsed = None, []
    for row in rows:
        group = row.get("group", group)
        parsed.append(_row({"bound": bound, "source": table["source"]} | row | {"group": group}))
    return PaperTable(name=name, rows=tuple(parsed), **table)


def paper_claims() -> list[Claim]:
    """Return the paper's claims in the order of our table."""
    group, claims = None, []
    for entry in paper()["claims"]:
        group = entry.get("group", group)
        units = QUANTITIES.get(entry["quantity"], (None,))
        claim = Claim(**{"unit": units[0]} | entry | {"group": group})
        if claim.unit not in units or claim.unit is None:
            raise VlaeError(f"paper.yaml: {claim.claim}: unknown quantity or unit")
        if claim.judged not in ("size", "order"):
            raise VlaeError(f"paper.yaml: {claim.claim}: judged by size or order")
        if claim.judged == "size" and claim.size is None:
            raise VlaeError(f"paper.yaml: {claim.claim}: a size needs value and rounding")
        claims.append(claim)
    return claims


def printed_nll(run: str) -> float | None:
    """The NLL that the paper prints for our `run`, or None.

    Where two tables print one (dynamic MNIST's VLAE: Table 2 and the ablation), the first
    counts. A value derived by us is not a printed one.
    """
    for name in table_names():
        for row in paper_table(name).rows:
            if row.run == run and row.value is not None and not row.derived:
                return row.value
    return None


def printed_kl(run: str) -> float | None:
    """The KL, nats per image, that the paper states for our `run`, or None."""
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
