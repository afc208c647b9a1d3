"""The figure of what a code costs: a bar per run, of the bits that stay and that come back."""

import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlae.config.schema import ColourModelConfig
from vlae.report.figures.colours import GREY
from vlae.report.figures.image_grids import empty
from vlae.report.figures.learning_curves import panel_of, short
from vlae.report.tables.bookkeeping import BIN_BITS, Account, accounts
from vlae.units import rounded_error

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

    from vlae.config.schema import Params

# Inches: the panel of the whole code, that of the gap, and the space around them.
WIDE, NARROW, LEFT, BETWEEN, RIGHT = 4.4, 2.0, 1.9, 0.75, 0.85
ROW, TITLE, AXIS, TOP = 0.21, 0.24, 0.72, 0.66
BAR = 0.72 * ROW  # thickness
# The looks of a bar's segments. Dark, medium and hatched differ without colours, too.
SEGMENTS: dict[str, dict[str, Any]] = {
    "nll": {"facecolor": "#1f4e79"},
    "gap": {"facecolor": "#e69f00"},
    "comes_back": {
        "facecolor": "#f0f0f0",
        "edgecolor": "#9a9a9a",
        "hatch": "/////",
        "linewidth": 0.5,
    },
}
NAMES = {
    "nll": "−log p(x): the least that an image costs under the model",
    "gap": "gap: what an imperfect q(z|x) costs; with it, the bits-back length (−ELBO)",
    "comes_back": (
        f"comes back (z in bins of width 1/{2**BIN_BITS}); the whole bar: naive two-part length"
    ),
}
CODER: dict[str, Any] = {"marker": "D", "color": "black", "markersize": 3.5, "linestyle": ""}


def draw_bookkeeping(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw what each run's code costs, in bits an image; repetitions are omitted.

    Left: -log p(x) and the gap, which are the bits-back length, and what comes back; the whole bar
    is the naive two-part code. Right: the gap, enlarged, and what the coder needed. Binary and
    colour images have axes of their own.
    """
    from matplotlib.figure import Figure

    found = [one for one in accounts(params, root) if not one.run.repeats]
    if not found:
        return empty("no run with a code evaluated", dpi)
    blocks: dict[str, list[Account]] = {}
    for one in sorted(found, key=lambda one: panel_of(one.run)):  # stable
        kind = params.image_kind(one.run.dataset)
        blocks.setdefault(kind.unit.name, []).append(one)
    heights = [_height(block) for block in blocks.values()]
    size = (LEFT + WIDE + BETWEEN + NARROW + RIGHT, TOP + sum(heights) + AXIS * len(heights))
    figure = Figure(figsize=size, dpi=dpi)
    top = size[1] - TOP
    for (unit, block), height in zip(blocks.items(), heights, strict=True):
        low = (top - height) / size[1]
        whole, enlarged = (
            figure.add_axes((x / size[0], low, width / size[0], height / size[1]), label=name)
            for x, width, name in (
                (LEFT, WIDE, f"{unit} code"),
                (LEFT + WIDE + BETWEEN, NARROW, f"{unit} gap"),
            )
        )
        _draw_block(whole, enlarged, block, height)
        top -= height + AXIS
    _legend(figure, size)
    return figure


def _height(block: list[Account]) -> float:
    return ROW * len(block) + TITLE * len({panel_of(one.run) for one in block})


def _draw_block(whole: "Axes", enlarged: "Axes", block: list[Account], height: float) -> None:
    """Draw the rows of one kind of images; the vertical axis is in inches, downwards."""
    places, at = [], 0.0
    for title, rows in groupby(block, key=lambda one: panel_of(one.run)):
        at += TITLE
        margin = (72 * (0.1 - LEFT), 4)  # points
        whole.annotate(title, (0, at), margin, _across(whole), "offset points", weight="bold")
        for one in rows:
            places.append(at + ROW / 2)
            _draw_run(whole, enlarged, one, at + ROW / 2)
            at += ROW
    for axes, name in ((whole, "bits an image"), (enlarged, "bits an image above −log p(x)")):
        axes.set(ylim=(height, 0), xlabel=name)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.5)
        axes.set_axisbelow(True)
    whole.set_yticks(places, [short(one.run.name) for one in block])
    whole.tick_params(axis="y", length=0)
    ends = [one.bits("naive") or one.bits("bits_back") or 0.0 for one in block]
    whole.set_xlim(0, max(1.0, *ends))
    enlarged.set_title("the gap, enlarged", loc="left", size=8)
    enlarged.axvline(0, color=GREY, linewidth=0.7)
    beyond = [value for one in block for value in _above(one)]
    enlarged.set_xlim(min(0, *beyond), 1.05 * max(0.1, *beyond))


def _draw_run(whole: "Axes", enlarged: "Axes", one: Account, y: float) -> None:
    bits = {part: one.bits(part) or 0.0 for part in ("nll", "gap", "comes_back", "naive")}
    left, style = 0.0, dict[str, Any](va="center_baseline", size=6.5)
    for part, look in SEGMENTS.items():
        whole.barh(y, bits[part], BAR, left, **look)
        left += bits[part]
    whole.text(0.01, y, f"{bits['nll']:,.0f}", color="white", transform=_across(whole), **style)
    probed = not isinstance(one.run.model, ColourModelConfig)  # codes of colour images are not
    end = "entropy of q(z|x) not recorded" if probed else ""
    if "naive" in one.of:
        end = f"{bits['naive']:,.0f}"
        box = {"facecolor": SEGMENTS["comes_back"]["facecolor"], "edgecolor": "none", "pad": 0.8}
        text, x = f"{bits['comes_back']:,.0f}", left - bits["comes_back"] / 2
        whole.text(x, y, text, ha="center", bbox=box, **style)
    whole.annotate(end, (left, y), (4, 0), textcoords="offset points", color=GREY, **style)
    enlarged.barh(y, bits["gap"], BAR, **SEGMENTS["gap"])
    if "coded" in one.of:
        enlarged.plot(_above(one)[-1], y, **CODER)
    _, error = one.of["gap"]
    text = f"{bits['gap']:,.2f}" + (f" ± {rounded_error(error / math.log(2))}" if error else "")
    text += " †" if one.note else ""
    enlarged.text(1.03, y, text, color=GREY, transform=_across(enlarged), **style)


def _across(axes: "Axes") -> "Transform":
    """Return coordinates relative to the width of the panel, and in rows."""
    return axes.get_yaxis_transform()


def _above(one: Account) -> list[float]:
    """Return how far the bits-back length and, if measured, the coder's are above -log p(x)."""
    base = one.bits("nll") or 0.0
    return [value - base for part in ("bits_back", "coded") if (value := one.bits(part))]


def _legend(figure: "Figure", size: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Patch(label=NAMES[part], **look) for part, look in SEGMENTS.items()]
    handles.append(Line2D([], [], label="what the real coder needed", **CODER))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.1 / size[0], 1 - 0.08 / size[1]),
        borderaxespad=0,
        frameon=False,
        fontsize=7.5,
        labelcolor=GREY,
        ncols=2,
    )
