"""The recorded test images of a run, each with its values and its place among all test images."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup

from vlae.report.figures.image_grids import spread
from vlae.report.site.plot import histogram
from vlae.report.site.sprites import Sprite, sprite
from vlae.storage.records import read_index, read_per_image
from vlae.units import NATS, Unit

MOST = 100  # images of a run that the page shows
OPTIONAL = ("ess", "pareto_k")  # values per image that old evaluations lack


@dataclass(frozen=True)
class Item:
    """A test image: its place in the grid, its index in the test set, and its values.

    nll: in the run's unit. kl: nats. below: share of all test images with a lower NLL.
    """

    place: int
    index: int
    nll: float
    kl: float
    ess: float | None
    pareto_k: float | None
    below: float


@dataclass(frozen=True)
class Explorer:
    """decompressions: None for a run without a code. borrowed: the run whose test images these
    are, where the run has recorded none itself. plot: the NLL of all test images."""

    originals: Sprite
    decompressions: Sprite | None
    items: list[Item]
    borrowed: str | None
    plot: Markup


@dataclass
class RecordedImages:
    """Recorded test images by test set: a run without a code has recorded none of its own."""

    found: dict[tuple, tuple[str, np.ndarray, np.ndarray]] = field(default_factory=dict)

    def of(
        self, root: Path, evaluation: dict, own: np.ndarray
    ) -> tuple[str, np.ndarray, np.ndarray] | None:
        """Return (run, images, indices) for the evaluation's test set: the run's `own` if any."""
        key = tuple(evaluation.get(k) for k in ("dataset", "data_sha256", "binarization_seed"))
        if not len(own):
            return self.found.get(key)
        index = read_index(root, evaluation["run"], len(own))
        found = evaluation["run"], at_most(own), at_most(index)
        self.found.setdefault(key, found)
        return found


def build_explorer(
    root: Path,
    evaluation: dict,
    images: dict[str, np.ndarray],
    unit: Unit,
    known: RecordedImages,
) -> Explorer | None:
    """Return the explorer of an evaluated run, given its recorded images; None if none of its test
    images is recorded."""
    found = known.of(root, evaluation, images["originals"])
    if found is None:
        return None
    source, originals, indices = found
    values = read_per_image(root, evaluation, OPTIONAL)
    nll = -values["log_likelihood"].astype(np.float64) * unit.per_nat
    row = {index: i for i, index in enumerate(values["index"].tolist())}
    ordered = np.sort(nll)
    items = []
    for place, index in enumerate(indices.tolist()):
        if index not in row:  # of an evaluation of the first test images only
            continue
        i = row[index]
        below = float(np.searchsorted(ordered, nll[i]) / len(ordered))
        ess, k = (
            float(values[name][i])
            if name in values and not evaluation["exact"] and np.isfinite(values[name][i])
            else None
            for name in OPTIONAL
        )
        kl = float(values["kl"][i])
        items.append(Item(place, index, float(nll[i]), kl, ess, k, below))
    shown = sprite(originals)
    if not items or shown is None:
        return None
    own = source == evaluation["run"]
    again = sprite(at_most(images["decompressions"])) if own else None
    about = (
        f"{len(nll):,} test images, from {nll.min():.2f} to {nll.max():.2f} {unit.short}, "
        f"median {np.median(nll):.2f}"
    )
    plot = histogram("NLL of every test image", about, f"NLL ({unit.name})", nll)
    return Explorer(shown, again, items, None if own else source, plot)


def at_most(images: np.ndarray) -> np.ndarray:
    """Return the images (n, …), or MOST of them, evenly spaced."""
    return images if len(images) <= MOST else spread(images, MOST)


def image_digits(unit: Unit) -> int:
    """Return the decimals with which the NLL of one image is shown."""
    return 2 if unit == NATS else 3
