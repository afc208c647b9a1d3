"""Learning curves: bound and KL of every run against the epoch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlae.report.figures.colours import GREY, colours_of, kind_legend, kind_of, legible
from vlae.report.paper import printed_kl
from vlae.storage.records import epochs_before, read_curve, read_training
from vlae.units import NATS, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params, Run

PAPERS = "KL in the paper, test images"
LINES: dict[str, dict[str, Any]] = {  # matplotlib's properties of lines
    "training images": {"linestyle": "-", "linewidth": 1.4},
    "other seeds": {"linestyle": "-", "linewidth": 0.5},
    "validation images": {"linestyle": (0, (1, 1.2)), "linewidth": 1.4},
    PAPERS: {"linestyle": (0, (5, 3)), "linewidth": 0.7},
}
# Inches: width and heights of a panel, and the space around it for ticks, labels and titles.
WIDTH, LEFT, RIGHT = 3.6, 0.6, 2.1
HEIGHTS, TOP, BETWEEN, BOTTOM = (3.2, 1.5), 0.75, 0.18, 0.45
LABEL = 0.14  # minimal distance between labels, in inches
KINDS = 0.2  # height of the legend of kinds
ABREAST = 2  # panels side by side; more would be too small on a page


@dataclass(frozen=True)
class Series:
    """One run in one panel, in the panel's unit; NaN where there is no value."""

    label: str
    colour: str
    epoch: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    paper: float | None
    repeated: list[tuple[np.ndarray, np.ndarray]]  # epochs and training values with other seeds


@dataclass(frozen=True)
class Panels:
    """One column of the figure, for the trained runs of a data set.

    bounds: in `unit`. divergences: KLs in nats per image. missing: names of untrained runs.
    """

    unit: Unit
    bounds: list[Series]
    divergences: list[Series]
    missing: list[str]


def draw_curves(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw the learning curves, with one column per data set and comparison.

    The upper panel shows -ELBO in nats per image or bits/dim, the lower one KL in nats per image,
    both against the epoch. If any run is trained, data sets without trained runs have no column
    and are only listed.
    """
    from matplotlib.figure import Figure

    runs_of: dict[str, list[str]] = {}
    for name, run in params.runs.items():
        if not run.repeats:
            runs_of.setdefault(panel_of(run), []).append(name)
    panels = {name: read_panels(runs, params, root) for name, runs in runs_of.items()}
    trained = {name: column for name, column in panels.items() if column.bounds}
    empty = [name for name in panels if name not in trained] if trained else []
    panels = trained or panels
    # If no run has a latent variable, there is no KL to show.
    has_kl = any(column.divergences for column in panels.values())
    foot = BOTTOM + (HEIGHTS[1] + BETWEEN if has_kl else 0)
    step, block = LEFT + WIDTH + RIGHT, foot + HEIGHTS[0] + TOP
    lines = max(1, -(-len(panels) // ABREAST))
    size = (step * max(1, min(ABREAST, len(panels))), block * lines + KINDS)
    figure = Figure(figsize=size, dpi=dpi)

    def axes(index: int, bottom: float, height: float, **shared: Any) -> "Axes":
        line, column = divmod(index, ABREAST)
        x, bottom = LEFT + column * step, (lines - 1 - line) * block + bottom
        return figure.add_axes(
            (x / size[0], bottom / size[1], WIDTH / size[0], height / size[1]), **shared
        )

    for index, (dataset, column) in enumerate(panels.items()):
        upper = axes(index, foot, HEIGHTS[0], label=f"{dataset} elbo")
        upper.set_title(dataset, loc="left", weight="bold", pad=22)
        _draw_bounds(upper, column)
        if column.divergences:
            lower = axes(index, BOTTOM, HEIGHTS[1], sharex=upper, label=f"{dataset} kl")
            name = f"KL ({NATS.name})"
            _draw_panel(lower, column.divergences, name, HEIGHTS[1], NATS, low=0.0)
            # The axis is shared, and the longest run may have no KL.
            upper.set_xlim(0, 1.02 * max(line.epoch[-1] for line in column.bounds))
            upper.tick_params(labelbottom=False)
            upper.set_xlabel("")
    kinds = {kind_of(params.runs[name]) for name in params.runs if read_curve(root, name)}
    kind_legend(figure, kinds, (LEFT / size[0], 1 - 0.25 / size[1]), ncols=len(kinds) or 1)
    repeated = any(line.repeated for column in panels.values() for line in column.bounds)
    _legend(figure, size, set() if repeated else {"other seeds"})
    if empty:
        text = "no run trained: " + ", ".join(empty)
        x, y = 1 - 0.1 / size[0], 1 - 0.1 / size[1]
        figure.text(x, y, text, ha="right", va="top", color=GREY, size=7.5)
    return figure


def read_panels(runs: list[str], params: "Params", root: Path) -> Panels:
    """Read the curves of a panel's runs. A refined run's begins after the epochs of its start.

    Test likelihoods are not among them: the bound of training images is another quantity.
    """
    unit = params.image_kind(params.runs[runs[0]].dataset).unit
    panels = Panels(unit, [], [], [])
    colours = colours_of(params.runs[run] for run in runs)
    for run in runs:
        curve = read_curve(root, run)
        if curve is None:
            panels.missing.append(run)
            continue
        others = [
            other
            for repetition in params.repetitions(run)
            if (other := read_curve(root, repetition)) is not None
        ]
        training = read_training(root, run, params.runs[run].dataset) or {}
        before = epochs_before(training) or 0
        label, colour = short(run), colours[run]
        panels.bounds.append(
            Series(
                label=label,
                colour=colour,
                epoch=before + curve["epoch"],
                training=-curve["elbo"] * unit.per_nat,
                validation=-curve["valid_elbo"] * unit.per_nat,
                paper=None,
                repeated=[
                    (before + other["epoch"], -other["elbo"] * unit.per_nat) for other in others
                ],
            )
        )
        if np.any(curve["kl"] != 0):  # zero throughout: no latent variable
            panels.divergences.append(
                Series(
                    label=label,
                    colour=colour,
                    epoch=before + curve["epoch"],
                    training=curve["kl"],
                    validation=curve["valid_kl"],
                    paper=printed_kl(run),
                    repeated=[(before + other["epoch"], other["kl"]) for other in others],
                )
            )
    return panels


def panel_of(run: "Run") -> str:
    """Return the title of a run's panel: its data set and, if it has one, its comparison."""
    return f"{run.dataset}: {run.comparison}" if run.comparison else run.dataset


def short(run: str) -> str:
    """Return the name of a run without its data set."""
    return run.partition("-")[2] or run


def limits(series: list[Series], unit: Unit = NATS) -> tuple[float, float]:
    """Return the ends of the axis in `unit`; the steep first tenth of a training is cut off."""
    shown: list[Iterable[float]] = [line.training[_steep(len(line.epoch)) :] for line in series]
    shown += [line.validation[-1:] for line in series if np.isfinite(line.validation[-1])]
    shown += [[line.paper] for line in series if line.paper is not None]
    low, high = min(map(min, shown)), max(map(max, shown))
    margin = max(unit.least, 0.06 * (high - low))
    return low - margin, high + margin


def _steep(epochs: int) -> int:
    """Return the number of epochs in a training's steep start; 0 for fewer than 5 epochs."""
    return 1 + epochs // 10 if epochs >= 5 else 0


def place_labels(wanted: list[float], distance: float) -> list[float]:
    """Return positions in [0, 1] near the wanted ones, in their order and `distance` apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(1.0, max(0.0, wanted[i])) for i in order]
    for _ in range(200):  # push neighbours apart that are too close
        for i in range(len(placed) - 1):
            push = distance - (placed[i + 1] - placed[i])
            if push > 0:
                placed[i] -= push / 2
                placed[i + 1] += push / 2
    lowest, highest = 0.0, 1.0
    for i in range(len(placed)):  # move up those that are below 0
        placed[i] = lowest = max(placed[i], lowest)
        lowest += distance
    for i in reversed(range(len(placed))):  # move down those above 1; too many end below 0
        placed[i] = highest = min(placed[i], highest)
        highest -= distance
    result = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        result[i] = position
    return result


def draw_labels(axes: "Axes", labels: list[tuple[float, str, str]], height: float) -> None:
    """Write labels (value, text, colour) at the right of a panel, each joined to its value.

    height: of the panel, in inches. Call it once the axis has its limits.
    """
    low, high = axes.get_ylim()
    wanted = [(value - low) / (high - low) for value, *_ in labels]
    placed = place_labels(wanted, LABEL / height)
    for at, y, (_, text, colour) in zip(wanted, placed, labels, strict=True):
        axes.plot(
            (1.005, 1.04),
            (at, y),
            color=colour,
            linewidth=0.5,
            clip_on=False,
            transform=axes.transAxes,
        )
        axes.text(
            1.05, y, text, color=legible(colour), size=7, va="center", transform=axes.transAxes
        )


def _draw_bounds(axes: "Axes", column: Panels) -> None:
    if not column.bounds:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color="#cccccc", linestyle=(0, (4, 4)))
        text = "\n".join(f"{run}: not trained" for run in column.missing)
        axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, linespacing=1.6)
        return
    name = f"−ELBO ({column.unit.name})"
    _draw_panel(axes, column.bounds, name, HEIGHTS[0], column.unit)
    if column.missing:
        text = "not trained: " + ", ".join(map(short, column.missing))
        axes.text(0, 1.03, text, transform=axes.transAxes, color=GREY, size=7.5)


def _draw_panel(
    axes: "Axes",
    series: list[Series],
    name: str,
    height: float,
    unit: Unit,
    low: float | None = None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    last = max(line.epoch[-1] for line in series)
    lowest, high = limits(series, unit)
    of_bounds, low = low is None, lowest if low is None else low
    axes.set(ylabel=name, ylim=(low, high), xlabel="epoch", xlim=(0, 1.02 * last))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    labels: list[tuple[float, str, str]] = []
    for line in series:
        axes.plot(line.epoch, line.training, color=line.colour, **LINES["training images"])
        for epoch, training in line.repeated:
            axes.plot(epoch, training, color=line.colour, **LINES["other seeds"])
        axes.plot(line.epoch[-1], line.training[-1], "o", color=line.colour, markersize=3)
        axes.plot(line.epoch, line.validation, color=line.colour, **LINES["validation images"])
        ends = {"": line.training[-1]}
        # The KLs of validation and training images almost coincide, so they share a label.
        if of_bounds and np.isfinite(line.validation[-1]):
            ends[", valid."] = line.validation[-1]
        if line.paper is not None:
            axes.axhline(
                line.paper, color=line.colour, zorder=1, **LINES["KL in the paper, test images"]
            )
            ends[", paper"] = line.paper
        labels += [(y, f"{line.label}{which} {y:.2f}", line.colour) for which, y in ends.items()]
    draw_labels(axes, labels, height)


def _legend(figure: "Figure", size: tuple[float, float], left_out: set[str]) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[
            Line2D([], [], color=GREY, label=name, **line)
            for name, line in LINES.items()
            if name not in left_out
        ],
        loc="upper left",
        bbox_to_anchor=(LEFT / size[0], 1 - 0.06 / size[1]),
        borderaxespad=0,
        ncols=len(LINES) - len(left_out),
        frameon=False,
        fontsize=7.5,
        labelcolor=GREY,
        handlelength=2.4,
    )
