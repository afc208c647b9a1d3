"""The figure of information preference: what a code holds, by how far the decoder sees."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlae import one_bit
from vlae.report.figures.colours import GREY
from vlae.report.tables.information import SERIES, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

FREE, NOT_FREE, FULL, TOY = SERIES
# Looks of the series: they differ without colours, too.
LOOKS: dict[str, dict[str, Any]] = {
    FREE: {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    NOT_FREE: {"color": "#D55E00", "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    FULL: {"color": "#4d4d4d", "marker": "x", "linestyle": ""},
    TOY: {"color": "#009E73", "marker": "D", "linestyle": "-"},
}
# Looks of what a probe reads, with free bits.
READ: dict[str, dict[str, Any]] = {
    "digit": {"color": "#0072B2", "marker": "o", "label": "digit: accuracy"},
    "thickness": {"color": "#009E73", "marker": "^", "label": "thickness: R²"},
    "slant": {"color": "#CC79A7", "marker": "v", "label": "slant: R²"},
}
SIZE = (9.2, 2.9)  # inches
MISSING = "not trained"


def draw_information(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw NLL, KL and what a linear probe reads against the reach, and the toy's KL.

    The horizontal axis is logarithmic in 1 + reach. Bars of one standard error are smaller than
    most marks.
    """
    from matplotlib.figure import Figure

    found = rows(params, root)
    small = [row for row in found if row["series"] in (FREE, NOT_FREE)]
    toy = [row for row in found if row["series"] == TOY]
    figure = Figure(figsize=SIZE, dpi=dpi, layout="constrained")
    nll, kl, read, bit = figure.subplots(1, 4)
    _lines(nll, found, "nll", (FREE, NOT_FREE, FULL), "NLL, nats")
    _lines(kl, found, "kl", (FREE, NOT_FREE, FULL), "KL(q(z|x) ‖ p(z)), nats")
    kl.set_ylim(bottom=0)
    if nll.get_legend_handles_labels()[0]:
        nll.legend(frameon=False, fontsize=7, handlelength=2.6)
    for key, look in READ.items():
        points = _measured([row for row in found if row["series"] == FREE], key)
        _plot(read, points, look | {"linestyle": "-"})
        look = look | {"linestyle": "--", "markerfacecolor": "white", "label": None}
        _plot(read, _measured([row for row in found if row["series"] == NOT_FREE], key), look)
    read.set_ylim(0, 1)
    read.set_title("a linear probe of z", loc="left")
    if any(row[key] is not None for row in small for key in READ):
        read.legend(frameon=False, fontsize=7, loc="lower right")
    _lines(bit, toy, "kl", (TOY,), "one global bit: KL, nats")
    if toy:
        ends = [min(row["reach"] for row in toy), max(row["reach"] for row in toy)]
        steps = [ends[0], one_bit.SPACING, ends[1]]
        for label, kl_at, style in (
            ("exact, Gaussian", lambda reach: one_bit.gaussian_code(reach)[1], "-"),
            ("exact, any", one_bit.exact_kl, ":"),
        ):
            look = {"color": "black", "linewidth": 0.9, "linestyle": style, "label": label}
            bit.step(_place(steps), [kl_at(reach) for reach in steps], where="post", **look)
        bit.legend(
            frameon=False, fontsize=7, loc="center right", handlelength=1.5, borderaxespad=0
        )
    for axes, of in ((nll, small), (kl, small), (read, small), (bit, toy)):
        _finish(axes, [row["reach"] for row in of])
    return figure


def _lines(axes: "Axes", found: list[dict], key: str, series: tuple[str, ...], title: str) -> None:
    axes.set_title(title, loc="left")
    for name in series:
        points = _measured([row for row in found if row["series"] == name], key)
        label = "ours" if name == TOY else name
        _plot(axes, points, LOOKS[name] | {"label": label})


def _measured(found: list[dict], key: str) -> list[tuple[float, float, float]]:
    """Return (reach, value, standard error) of the rows that have a value."""
    return [
        (row["reach"], row[key], row[f"{key}_se"] or 0.0) for row in found if row[key] is not None
    ]


def _plot(axes: "Axes", points: list[tuple[float, float, float]], look: dict[str, Any]) -> None:
    if points:
        x, y, error = zip(*points, strict=True)
        axes.errorbar(_place(x), y, yerr=error, markersize=4, linewidth=1, **look)


def _place(reaches: Iterable[float]) -> list[float]:
    return [math.log2(1 + reach) for reach in reaches]


def _finish(axes: "Axes", reaches: list[int]) -> None:
    ticks = sorted({*reaches})
    axes.set_xticks(_place(ticks), [str(reach) for reach in ticks])
    axes.set_xlabel("the decoder's reach, pixels")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    if not axes.has_data():
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, MISSING, ha="center", va="center", color=GREY, transform=axes.transAxes
        )
