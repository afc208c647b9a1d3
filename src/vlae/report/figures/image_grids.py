"""Grids of images: test images beside their decompressions, and samples (Figures 1 and 2)."""

from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlae.errors import VlaeError
from vlae.images import KINDS
from vlae.report.doubt import doubt
from vlae.storage import paths
from vlae.storage.records import epochs_before, estimator, read_results, read_samples
from vlae.units import Unit, rounded_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

INK, PAPER, LINE = 0, 255, 205  # grey levels: strokes, background, the lines between cells
SIDE = 10  # maximal number of images along a side; a hundred images are recorded
ZOOM = 2  # width and height of a pixel in printed dots
# In printed dots: between originals and decompressions, before the samples, margins, headings.
GUTTER, GAP, MARGIN, HEAD = 16, 64, 24, 110


def compose_grid(images: np.ndarray, side: int, rows: int | None = None) -> np.ndarray:
    """Arrange the first images in a uint8 grid with `side` columns and `rows` (or `side`) rows.

    Bits (n, h, w) become grey levels (H, W), dark ink on white; colour images (n, 3, h, w) give
    (H, W, 3). A one-pixel line surrounds every cell: cell (i, j) begins at pixel row
    1 + i (h + 1) and column 1 + j (w + 1).
    """
    shown = np.where(images == 1, INK, PAPER) if images.ndim == 3 else images.transpose(0, 2, 3, 1)
    _, height, width, *colours = shown.shape
    rows = side if rows is None else rows
    size = (rows * (height + 1) + 1, side * (width + 1) + 1, *colours)
    grid = np.full(size, LINE, np.uint8)
    for place, image in enumerate(shown[: rows * side]):
        row, column = divmod(place, side)
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def show_grid(axes: "Axes", grid: np.ndarray) -> None:
    """Fill the axes with a grid of compose_grid, without interpolation."""
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
    axes.set_axis_off()


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the images (n, …), evenly spaced from the first to the last.

    Even steps show all classes if the test images are sorted by class.
    """
    return images[np.linspace(0, len(images) - 1, count).round().astype(int)]


def compose_panels(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the grids, all of one size; originals and decompressions have the same places."""
    side = min(SIDE, *(isqrt(len(array)) for array in images.values()))
    return {name: compose_grid(spread(array, side**2), side) for name, array in images.items()}


def draw_images(run: str, params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw test images, a sampled decompression of each, and unconditional samples of `run`.

    Raises VlaeError for a recorded result that cannot be used.
    """
    found = recorded_images(run, params, root)
    if isinstance(found, str):
        return empty(found, dpi)
    title, images = found
    return _draw(title, compose_panels(images), dpi)


def recorded_images(
    run: str, params: "Params", root: Path
) -> tuple[str, dict[str, np.ndarray]] | str:
    """Return a title and the recorded images of `run`, or the reason why there are none.

    Raises VlaeError for a recorded result that cannot be used.
    """
    if run not in params.runs:
        return f"{run}: not trained"
    dataset = params.runs[run].dataset
    training, evaluation = read_results(root, run, dataset)
    images = read_samples(root, run)
    if images is None and training is None:
        return ": ".join(filter(None, [run, "not trained", params.why_not_trained(run)]))
    if images is None:
        return f"{run}: not sampled"
    if training is None:
        raise VlaeError(f"{paths.samples(run)}: the training record is missing")
    if any(len(array) == 0 for array in images.values()):
        raise VlaeError(f"{paths.samples(run)}: has no originals, decompressions or samples")
    kind, shape = params.image_kind(dataset), images["originals"].shape[1:]
    if shape != kind.shape:
        found = next(other.name for other in KINDS if other.shape == shape)
        raise VlaeError(
            f"{paths.samples(run)}: {found} images, but those of {dataset} are {kind.name}"
        )
    return _title(run, training, evaluation, kind.unit), images


def _title(run: str, training: dict, evaluation: dict | None, unit: Unit) -> str:
    if evaluation is None:
        return f"{run} · {length(training)} · not evaluated"
    nll, error = (unit.per_nat * evaluation[key] for key in ("nll", "nll_se"))
    how = estimator(evaluation) + (", not reliable" if doubt(evaluation) else "")
    return (
        f"{run} · NLL {nll:.2f} ± {rounded_error(error)} {unit.short} ({how}, "
        f"{evaluation['n_test']:,} test images) · {length(training)}"
    )


def length(training: dict) -> str:
    """Return a training's epochs: 1 epoch, 30 epochs, 60 + 6 epochs with those of its start."""
    epochs = training["epochs"]
    before = epochs_before(training)
    if before is None:
        return f"{epochs} epoch{'' if epochs == 1 else 's'}"
    return f"{before} + {epochs} epochs"


def _draw(title: str, panels: dict[str, np.ndarray], dpi: int) -> "Figure":
    from matplotlib.figure import Figure

    size = ZOOM * len(panels["originals"])
    left = {"originals": MARGIN}
    left["decompressions"] = left["originals"] + size + GUTTER
    left["samples"] = left["decompressions"] + size + GAP
    width, height = left["samples"] + size + MARGIN, HEAD + size + MARGIN
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    for name, grid in panels.items():
        axes = figure.add_axes(
            (left[name] / width, MARGIN / height, size / width, size / height), label=name
        )
        show_grid(axes, grid)

    def write(x: int, dots_above: int, text: str, **style: Any) -> None:
        figure.text(x / width, (MARGIN + size + dots_above) / height, text, va="baseline", **style)

    write(left["originals"], 66, title, color="#4d4d4d", size=7.5)
    for name, text in (
        ("originals", r"$\bf{a}$  Test images $x$"),
        ("decompressions", "Decompressions $x$′ ∼ $p$($x$|$z$), $z$ ∼ $q$($z$|$x$)"),
        ("samples", r"$\bf{b}$  Samples $x$ ∼ $p$($x$|$z$), $z$ ∼ $p$($z$)"),
    ):
        write(left[name], 18, text, size=9)
    return figure


def empty(text: str, dpi: int) -> "Figure":
    """Draw a frame with a text that says why there is no figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1880 / dpi, 716 / dpi), dpi=dpi)
    say(figure.add_axes((0.02, 0.05, 0.96, 0.9)), text, size=11)
    return figure


def say(axes: "Axes", text: str, size: float = 9) -> None:
    """Draw a frame with a text instead of images."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#cccccc", linestyle=(0, (4, 4)))
    axes.text(0.5, 0.5, text, ha="center", va="center", size=size, color="#4d4d4d")
