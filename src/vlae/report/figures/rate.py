"""The figure of rate and loss: what is kept of an image, by the bits that its code takes."""

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlae.report.figures.colours import GREY
from vlae.report.figures.image_grids import empty
from vlae.report.figures.learning_curves import place_labels
from vlae.report.tables.information import SERIES, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

SMALL, FULL = SERIES[0], SERIES[2]
LOOKS: dict[str, dict[str, Any]] = {
    SMALL: {"color": "#0072B2", "marker": "o", "linestyle": "-", "label": "small networks"},
    FULL: {"color": "#4d4d4d", "marker": "x", "linestyle": "", "label": "full size"},
}
PIXELS = 784
PANELS = {
    "digit": ("digits that a linear probe of z names, %", 100.0),
    "changed": ("pixels that a decompression changes, %", 100 / PIXELS),
}
SIZE = (7.6, 3.2)  # inches
# Bits between neighbours whose labels could overlap; distance of their labels, as a share of the
# axis; bits from the rightmost of them to the labels.
NEAR, APART, ASIDE = 1.2, 0.055, 0.9


def draw_rate(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw what a code keeps against its rate, KL / ln 2 in bits; a label is the window's reach.

    Left: test images whose digit a linear probe of a drawn z names. Right: pixels that differ
    between a test image and its decompression.
    """
    from matplotlib.figure import Figure

    found = [row for row in rows(params, root) if row["series"] in LOOKS]
    if not any(row["kl"] is not None for row in found):
        return empty("no run of the comparison evaluated", dpi)
    figure = Figure(figsize=SIZE, dpi=dpi, layout="constrained")
    for axes, (key, (title, factor)) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        axes.set_title(title, loc="left")
        known = [row for row in found if row["kl"] is not None and row[key] is not None]
        for series in LOOKS:
            _draw(axes, [row for row in known if row["series"] == series], key, factor)
        _label(axes, [(_bits(row), factor * row[key], str(row["reach"])) for row in known])
        axes.set_xlabel("rate: KL(q(z|x) ‖ p(z)), bits an image")
        axes.grid(color="#e6e6e6", linewidth=0.5)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=7)
    return figure


def _bits(row: dict) -> float:
    return row["kl"] / math.log(2)


def _draw(axes: "Axes", known: list[dict], key: str, factor: float) -> None:
    if not known:
        return
    x, y = [_bits(row) for row in known], [factor * row[key] for row in known]
    error = [factor * (row[f"{key}_se"] or 0.0) for row in known]
    look = LOOKS[known[0]["series"]]
    axes.errorbar(x, y, yerr=error, markersize=4, linewidth=0.8, **look)


def _label(axes: "Axes", points: list[tuple[float, float, str]]) -> None:
    """Write each point's text at its right, apart from those of its neighbours."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # the lines to the labels change nothing
    points = sorted(points)
    starts = [0] + [i for i in range(1, len(points)) if points[i][0] - points[i - 1][0] > NEAR]
    for start, end in pairwise([*starts, len(points)]):
        near = points[start:end]
        placed = place_labels([(y - low) / (high - low) for _, y, _ in near], APART)
        left = near[-1][0] + ASIDE
        for (x, y, text), at in zip(near, placed, strict=True):
            height = low + at * (high - low)
            axes.plot([x, left], [y, height], color=GREY, linewidth=0.4, zorder=1)
            axes.annotate(
                text,
                (left, height),
                (1.5, 0),
                textcoords="offset points",
                color=GREY,
                fontsize=6.5,
                va="center",
            )
