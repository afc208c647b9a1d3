"""The headline table: every number that the paper prints for a model of its own, beside ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.report.paper import PaperRow, citation, paper_table, table_names
from vlae.report.tables import paper_table as one_table
from vlae.report.tables.table import Table
from vlae.units import rounded, rounded_error

if TYPE_CHECKING:
    from vlae.config.schema import Params

NAME = "headline"

REPRODUCED = "reproduced"
BEYOND = "beyond"
CLOSE = "close"
NOT_REPRODUCED = "not reproduced"
NOT_TRAINED = "not trained"
STATUSES = (REPRODUCED, BEYOND, CLOSE, NOT_REPRODUCED, NOT_TRAINED)  # as they are counted

# Largest distance from the paper's value of a number that counts as reproduced, in its unit.
TOLERANCE = {"nats": 0.15, "bits/dim": 0.03}
TOLERANCE_OF = {"caltech101": 0.3}  # of few images, whose estimates are less certain
KL_TOLERANCE = 0.5
TIMES_CLOSE = 4  # a number is close within so many tolerances

LEGEND = (
    "Test negative log-likelihood (NLL, lower is better) and KL(q(z|x) ‖ p(z)), in nats per image "
    "unless another unit stands there, of every row of the paper that can be trained here. "
    "Difference: ours − paper. "
    f"Reproduced: within {TOLERANCE['nats']} nats ({TOLERANCE_OF['caltech101']} on Caltech-101, "
    f"{TOLERANCE['bits/dim']} bits/dim on CIFAR-10, {KL_TOLERANCE} nats for a KL). "
    f"Close: within {TIMES_CLOSE} times as much. "
    "Beyond: an NLL below the paper's by more than the tolerance of reproduced. "
    "The window as printed: each pixel sees 69 others. The other PixelCNNs of binary images see "
    "402, which lowers NLL and KL; on dynamic MNIST only these, used without a code, reach the "
    "paper's NLL (docs/readings.md). "
    "Values are means over the test images, which are the paper's unless ‡ stands beside them, "
    "and over the seeds where a run was repeated (on Caltech-101). "
    "Epochs are ours; the paper does not report its own. 61 + 60: begun with the weights of "
    "another run, after its 61 epochs. "
    "†: the importance sampling is not reliable, and the true value is probably lower. "
    "‡: on OMNIGLOT rebuilt by its recipe, not on the paper's file. "
    "≈: derived here from printed numbers."
)


@dataclass(frozen=True)
class Line:
    """A printed number beside ours, in `unit`; None where nothing is printed or recorded."""

    table: str
    dataset: str
    model: str
    quantity: str
    unit: str
    paper: float
    derived: bool
    run: str
    instead: bool
    ours: float | None
    standard_error: float | None
    doubtful: bool
    epochs: int | None
    epochs_before: int | None  # of the run whose weights the training began with
    hardware: str | None
    source: str

    @property
    def marks(self) -> str:
        """The marks behind our value, which LEGEND explains."""
        instead = self.instead and self.ours is not None
        return (" †" if self.doubtful else "") + (" ‡" if instead else "")

    @property
    def printed(self) -> str:
        """The paper's value; a derived one has its mark, and no digits that are not printed."""
        if not self.derived:
            return rounded(self.paper)
        return "≈ " + (f"{self.paper:g}" if self.quantity == "NLL" else rounded(self.paper))

    @property
    def difference(self) -> float | None:
        """Ours - paper."""
        return None if self.ours is None else self.ours - self.paper

    @property
    def status(self) -> str:
        """The status in one word or two; LEGEND defines them."""
        return status(self.quantity, self.unit, self.dataset, self.difference)


def status(quantity: str, unit: str, dataset: str, difference: float | None) -> str:
    """Return the status of a number that differs by `difference` (ours - paper, in `unit`)."""
    if difference is None:
        return NOT_TRAINED
    within = tolerance(quantity, unit, dataset)
    # 1e-9: a difference of exactly the tolerance counts as within it, despite rounding.
    if abs(difference) <= within + 1e-9:
        return REPRODUCED
    if difference < 0 and quantity == "NLL":
        return BEYOND
    return CLOSE if abs(difference) <= TIMES_CLOSE * within + 1e-9 else NOT_REPRODUCED


def tolerance(quantity: str, unit: str, dataset: str) -> float:
    """Return the largest distance from the paper's value that counts as reproduced, in `unit`."""
    return KL_TOLERANCE if quantity == "KL" else TOLERANCE_OF.get(dataset, TOLERANCE[unit])


def headline_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the table reads if they exist, relative to the root."""
    files = [file for name in table_names() for file in one_table.table_inputs(name, params)]
    return list(dict.fromkeys(files))


def lines(params: "Params", root: Path) -> list[Line]:
    """Return all lines in the paper's order. Raises VlaeError for a record that cannot be used."""
    found, seen = [], set()
    for name in table_names():
        records = one_table.records(one_table.build_frame(name, params, root))
        for row, record in zip(paper_table(name).rows, records, strict=True):
            for line in _lines(name, row, record):
                key = (line.run, line.quantity, line.paper)
                if key not in seen:  # the paper prints some numbers in two places
                    seen.add(key)
                    found.append(line)
    return found


def _lines(table: str, row: PaperRow, record: dict) -> list[Line]:
    if row.run is None or row.ours_alone:
        return []
    printed = paper_table(table)
    parts = []
    if row.value is not None:
        own = record["ours"], record["standard_error"]
        parts.append(("NLL", printed.unit, row.value, bool(row.derived), *own))
    if row.kl:  # zero for a model without a code, which is no result
        own = record["kl_ours"], record["kl_standard_error"]
        parts.append(("KL", "nats", row.kl, row.kl_derived, *own))
    return [
        Line(
            table=table,
            dataset=printed.dataset,
            model=row.model,
            quantity=quantity,
            unit=unit,
            paper=value,
            derived=derived,
            run=record["run"],
            instead=record["run"] != row.run,
            ours=ours,
            standard_error=error,
            doubtful=bool(record["doubt"]) and quantity == "NLL",
            epochs=record["epochs"],
            epochs_before=record["epochs_before"],
            hardware=record["hardware"],
            source=row.source,
        )
        for quantity, unit, value, derived, ours, error in parts
    ]


def build(params: "Params", root: Path) -> Table:
    """Build the table. Raises VlaeError for a record that cannot be used."""
    import pandas as pd

    found = lines(params, root)
    return Table(
        name=NAME,
        title="The numbers of the paper, and ours",
        legend=LEGEND,
        frame=pd.DataFrame([_record(line) for line in found], dtype=object),
        shown=pd.DataFrame([_cells(line) for line in found]),
        text=("Model", "Status", "Run"),
        groups=[paper_table(line.table).title for line in found],
        left_out=("Run",),
        source=f"Paper: {citation()}.",
    )


def _record(line: Line) -> dict:
    return {
        "dataset": line.dataset,
        "model": line.model,
        "quantity": line.quantity,
        "unit": line.unit,
        "paper": line.paper,
        "ours": line.ours,
        "standard_error": line.standard_error,
        "difference": line.difference,
        "status": line.status,
        "epochs": line.epochs,
        "epochs_before": line.epochs_before,
        "hardware": line.hardware,
        "reliable": None if line.ours is None else not line.doubtful,
        "run": line.run,
        "source": line.source,
    }


def _cells(line: Line) -> dict[str, str]:
    ours, error = rounded(line.ours), rounded_error(line.standard_error)
    return {
        "Model": line.model,
        "Quantity": line.quantity + ("" if line.unit == "nats" else f", {line.unit}"),
        "Paper": line.printed,
        "Ours": ours + line.marks,
        "± s.e.": error,
        "Difference": rounded(line.difference, sign="+"),
        "Epochs": one_table.epochs(vars(line)),
        "Status": f"**{line.status}**",
        "Run": line.run,
    }
