"""The headline figure: how far each number is from the one that the paper prints."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.report.figures.colours import COLOUR_OF, GREY, kind_legend, kind_of
from vlae.report.paper import paper_table
from vlae.report.tables.headline import Line, lines, tolerance
from vlae.units import rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

# Inches.
WIDTH, LEFT, RIGHT = 3.6, 3.1, 1.9
ROW, HEAD, AXIS, TOP = 0.22, 0.3, 0.5, 0.5

SHORT = {"Statically binarized": "static", "Dynamically binarized": "dynamic", " Silhouettes": ""}
PANELS: dict[str, Callable[[Line], bool]] = {
    "NLL (nats per image)": lambda line: line.quantity == "NLL" and line.unit == "nats",
    "NLL (bits/dim)": lambda line: line.quantity == "NLL" and line.unit == "bits/dim",
    "KL (nats per image)": lambda line: line.quantity == "KL",
}


def draw_headline(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw ours − paper for every line of the headline table, one panel per quantity and unit.

    A dot has the colour of its model's kind and a bar of one standard error. The grey band is what
    counts as reproduced. What is not trained is a line of text.
    """
    from matplotlib.figure import Figure

    found = lines(params, root)
    panels = {name: [line for line in found if of(line)] for name, of in PANELS.items()}
    heights = {name: ROW * len(rows) + HEAD + AXIS for name, rows in panels.items()}
    size = (LEFT + WIDTH + RIGHT, TOP + sum(heights.values()))
    figure = Figure(figsize=size, dpi=dpi)
    top = TOP
    for name, rows in panels.items():
        height = ROW * len(rows)
        bottom = size[1] - top - HEAD - height
        axes = figure.add_axes(
            (LEFT / size[0], bottom / size[1], WIDTH / size[0], height / size[1]), label=name
        )
        _draw_panel(axes, name, rows, params)
        top += heights[name]
    kinds = {kind_of(params.runs[line.run]) for line in found if line.difference is not None}
    kind_legend(figure, kinds, (0.1 / size[0], 1 - 0.06 / size[1]), ncols=3)
    return figure


def _draw_panel(axes: "Axes", name: str, rows: list[Line], params: "Params") -> None:
    axes.set_title(name, loc="left", weight="bold", pad=6)
    axes.axvline(0, color=GREY, linewidth=0.7)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="ours − paper")
    axes.set_yticks(range(len(rows)), [_label(line) for line in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    reach = [2 * tolerance(line.quantity, line.unit, line.dataset) for line in rows]
    for y, line in enumerate(rows):
        within = tolerance(line.quantity, line.unit, line.dataset)
        axes.fill_between((-within, within), y - 0.5, y + 0.5, color="#e0e0e0", linewidth=0)
        if line.difference is None or line.ours is None:
            text = "not trained"
        else:
            colour = COLOUR_OF[kind_of(params.runs[line.run])]
            axes.errorbar(
                line.difference, y, xerr=line.standard_error, fmt="o", color=colour, markersize=4
            )
            reach.append(abs(line.difference) + (line.standard_error or 0))
            text = f"{rounded(line.ours)}{line.marks}, paper {line.printed}"
        axes.text(
            1.03, y, text, va="center", size=7, color=GREY, transform=axes.get_yaxis_transform()
        )
    axes.set_xlim(-1.08 * max(reach), 1.08 * max(reach))


def _label(line: Line) -> str:
    title = paper_table(line.table).title.partition(",")[0]
    for long, short in SHORT.items():
        title = title.replace(long, short)
    return f"{line.model} · {title}"
