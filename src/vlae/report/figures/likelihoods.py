"""Likelihoods of the test images: against the number of importance samples, and per image."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.report.figures.colours import GREY, colours_of, kind_legend, kind_of
from vlae.report.figures.image_grids import compose_grid, empty, show_grid
from vlae.report.figures.layout import Page
from vlae.report.figures.learning_curves import ABREAST, draw_labels, panel_of, short
from vlae.storage.records import estimator, read_originals, read_per_image, read_results
from vlae.units import BITS_PER_DIM, NATS, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params, Run

# Inches, for the panels against K: size of a panel, and the space around it.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 3.4, 3.2, 0.6, 1.6, 0.35, 0.6
HEAD_LINE, FOOT_LINES = 0.65, 0.35  # remarks above and below all panels
# For the per-image figure, whose sizes are in printed dots:
SHOWN, ZOOM = 5, 3  # images per group (best, median, worst); width of a pixel in dots
MARGIN, HISTOGRAM, GAP, HEAD, FOOT, ROW = 40, 520, 50, 110, 110, 176
AXIS = 60  # space between two rows for the labels of an axis
BINS = 60


def draw_against_k(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw the NLL of each run against the number K of importance samples.

    There is one panel per data set and comparison. Runs with an exact likelihood, which does not
    depend on K, and data sets without an estimate are omitted.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[tuple[str, dict, str]]] = {}
    missing = []
    for run, record, colour in _evaluations(params, root):
        if record is None:
            missing.append(run)
        elif not record["exact"] and record.get("curve"):
            panels.setdefault(panel_of(params.runs[run]), []).append((run, record, colour))
    if not panels:
        return empty("no run with importance samples evaluated", dpi)
    step, height = LEFT + WIDTH + RIGHT, BOTTOM + HEIGHT + TOP
    lines = -(-len(panels) // ABREAST)
    size = (step * min(ABREAST, len(panels)), FOOT_LINES + lines * height + HEAD_LINE)
    figure = Figure(figsize=size)
    for i, (name, runs) in enumerate(panels.items()):
        line, column = divmod(i, ABREAST)
        x, y = LEFT + column * step, FOOT_LINES + (lines - 1 - line) * height + BOTTOM
        axes = figure.add_axes(
            (x / size[0], y / size[1], WIDTH / size[0], HEIGHT / size[1]), label=name
        )
        axes.set_title(name, loc="left", weight="bold")
        unit = params.image_kind(params.runs[runs[0][0]].dataset).unit
        _draw_against_k(axes, runs, unit)
    text = "Band: ± 1 s.e. Filled: K samples of every test image. Open: corrected by K of a few."
    _write(figure, size, LEFT, 1 - 0.25 / size[1], text)
    kinds = {kind_of(params.runs[run]) for runs in panels.values() for run, *_ in runs}
    kind_legend(figure, kinds, (LEFT / size[0], 1 - 0.35 / size[1]), ncols=len(kinds))
    if missing:
        text = f"not evaluated: {', '.join(missing)}"
        _write(figure, size, LEFT, 0.1 / size[1], text)
    return figure


def _draw_against_k(axes: "Axes", runs: list[tuple[str, dict, str]], unit: Unit) -> None:
    labels: list[tuple[float, str, str]] = []
    for run, record, colour in runs:
        k, nll, se = (np.array([p[key] for p in record["curve"]]) for key in ("k", "nll", "se"))
        nll, se = nll * unit.per_nat, se * unit.per_nat
        axes.fill_between(k, nll - se, nll + se, color=colour, alpha=0.18, linewidth=0)
        axes.plot(k, nll, color=colour, linewidth=1.2, label=run)
        all_images = k <= record["importance_samples"]
        for chosen, face in ((all_images, colour), (~all_images, "white")):
            axes.plot(
                k[chosen],
                nll[chosen],
                "o",
                color=colour,
                markerfacecolor=face,
                markersize=3.2,
            )
        labels.append((nll[-1], f"{short(run)} {nll[-1]:.2f}", colour))
    axes.set_xscale("log", base=2)
    axes.set(xlabel="importance samples K per image", ylabel=f"NLL ({unit.name})")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    draw_labels(axes, labels, HEIGHT)


def choose(nll: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return the positions of the best, median and worst images by nll (n,), `count` of each.

    Each group is in ascending order of nll. Fewer than 3 * count images give fewer of each.
    """
    order = np.argsort(nll, kind="stable")
    count = min(count, len(order) // 3)
    middle = (len(order) - count) // 2
    return {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }


def draw_per_image(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw one row per run: a histogram of the NLL of all test images, and selected images.

    The images are selected from those recorded with the samples, so the figure needs no data set;
    best and worst refer to these. A run without a code has no recorded images. It shows those of
    another run that was evaluated on the same test images. Runs on colour images, in bits/dim, are
    below the others and have their own axis.
    """
    rows, missing = _read_rows(params, root)
    if not rows:
        return empty("no run evaluated", dpi)
    originals: dict[tuple, dict[int, np.ndarray]] = {}
    for row in rows:
        key = _test_set(row.record)
        originals[key] = originals.get(key) or read_originals(root, row.run)
    groups = [[row for row in rows if row.unit == unit] for unit in (NATS, BITS_PER_DIM)]
    groups = [group for group in groups if group]
    side = max((image.shape[-1] for of in originals.values() for image in of.values()), default=28)
    strip = ZOOM * (SHOWN * (side + 1) + 1)
    page = Page(
        2 * MARGIN + HISTOGRAM + 3 * (GAP + strip),
        HEAD + ROW * len(rows) + AXIS * (len(groups) - 1) + FOOT,
        dpi,
    )
    left = {
        group: MARGIN + HISTOGRAM + GAP + i * (strip + GAP)
        for i, group in enumerate(("best", "median", "worst"))
    }
    page.write(MARGIN, 50, "NLL of every test image", size=9, va="baseline")
    for name, x in left.items():
        text = f"{name.capitalize()} of the recorded images"
        page.write(x, 50, text, size=9, va="baseline")
    top = HEAD
    for group in groups:
        least, most = min(row.nll.min() for row in group), max(row.nll.max() for row in group)
        edges = np.linspace(least, most, BINS + 1).tolist()
        for row in group:
            _draw_histogram(page, top, row, edges, last=row is group[-1])
            _draw_chosen(page, top, row, originals[_test_set(row.record)], left)
            top += ROW
        top += AXIS
    if missing:
        size, text = (page.width / dpi, page.height / dpi), f"not evaluated: {', '.join(missing)}"
        _write(page.figure, size, MARGIN / dpi, 16 / page.height, text)
    return page.figure


@dataclass(frozen=True)
class Row:
    """A run in draw_per_image.

    nll: (n_test,) in `unit`. by_number: the same values by the test images' indices.
    """

    run: str
    record: dict
    colour: str
    unit: Unit
    nll: np.ndarray
    by_number: dict[int, float]


def _read_rows(params: "Params", root: Path) -> tuple[list[Row], list[str]]:
    """Return the evaluated runs and the names of the others; runs of a comparison are omitted."""
    rows, missing = [], []
    for run, record, colour in _evaluations(params, root):
        if params.runs[run].comparison:
            continue
        if record is None:
            missing.append(run)
            continue
        unit = params.image_kind(params.runs[run].dataset).unit
        values = read_per_image(root, record)
        nll = -values["log_likelihood"].astype(np.float64) * unit.per_nat
        by_number = dict(zip(values["index"].tolist(), nll, strict=True))
        rows.append(Row(run, record, colour, unit, nll, by_number))
    return rows, missing


def _draw_histogram(page: Page, top: int, row: Row, edges: list[float], last: bool) -> None:
    """Draw the NLL of every test image; only the last row of a group labels the axis."""
    title = f"{row.run} · {_title(row.record, row.nll, row.unit)}"
    page.write(MARGIN, top, title, size=7, color=GREY, va="baseline")
    panel = page.axes(MARGIN, top + 12, HISTOGRAM, ZOOM * 30, f"{row.run} histogram")
    panel.hist(row.nll, bins=edges, color=row.colour)
    panel.axvline(np.median(row.nll), color="black", linewidth=0.7)
    panel.set(yticks=[], xlim=(edges[0], edges[-1]))
    panel.spines["left"].set_visible(False)
    panel.tick_params(labelbottom=last)
    if last:
        panel.set_xlabel(f"{row.unit.short}; line: median")


def _draw_chosen(
    page: Page, top: int, row: Row, recorded: dict[int, np.ndarray], left: dict[str, int]
) -> None:
    """Draw the best, median and worst of the recorded images, with their values below."""
    originals = {n: image for n, image in recorded.items() if n in row.by_number}
    if len(originals) < 3:
        text = "no recorded test images"
        page.write(left["best"], top + 60, text, size=7, color=GREY, va="baseline")
        return
    numbers = np.array(list(originals))
    values = np.array([row.by_number[n] for n in numbers.tolist()])
    for group, chosen in choose(values, SHOWN).items():
        images = np.stack([originals[n] for n in numbers[chosen].tolist()])
        grid = compose_grid(images, len(images), rows=1)
        wide, high = ZOOM * grid.shape[1], ZOOM * grid.shape[0]
        show_grid(page.axes(left[group], top + 12, wide, high, f"{row.run} {group}"), grid)
        cell = images.shape[-1] + 1
        for place, value in enumerate(values[chosen]):
            x = left[group] + ZOOM * (cell * place + cell // 2 + 1)
            text = f"{value:.1f}" if row.unit == NATS else f"{value:.2f}"
            page.write(x, top + 12 + high + 22, text, size=6.5, ha="center", va="baseline")


def _test_set(record: dict) -> tuple:
    """Return the keys that determine the bits of an evaluation's test images."""
    return tuple(record.get(key) for key in ("dataset", "data_sha256", "binarization_seed"))


def _title(record: dict, nll: np.ndarray, unit: Unit) -> str:
    first = estimator(record | {"deep": None})  # the second level has no values per image
    return f"mean {nll.mean():.2f}, median {np.median(nll):.2f} {unit.short} ({first})"


def _evaluations(params: "Params", root: Path) -> Iterator[tuple[str, dict | None, str]]:
    """Yield (run, evaluation or None, colour) of every run except repetitions with other seeds.

    Colours are those of the learning curves.
    """
    panels: dict[str, list[Run]] = {}
    for run in params.runs.values():
        if not run.repeats:
            panels.setdefault(panel_of(run), []).append(run)
    for runs in panels.values():
        colours = colours_of(runs)
        for run in runs:
            _, evaluation = read_results(root, run.name, run.dataset)
            yield run.name, evaluation, colours[run.name]


def _write(figure: "Figure", size: tuple[float, float], left: float, y: float, text: str) -> None:
    """Write a remark, wrapped to the figure's width; its last line is at the relative height y."""
    text = textwrap.fill(text, int((size[0] - 2 * left) / 0.05), break_on_hyphens=False)
    figure.text(left / size[0], y, text, size=7, color=GREY, va="bottom")
