"""Images of runs with different decoder windows (Figures 3 and 4), one panel per run."""

import textwrap
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from vlae.images import BINARY_IMAGE
from vlae.report.figures.image_grids import (
    GAP,
    GUTTER,
    MARGIN,
    SIDE,
    ZOOM,
    compose_grid,
    recorded_images,
    say,
    show_grid,
    spread,
)
from vlae.report.figures.layout import Page
from vlae.units import COLOUR_IMAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

GREY = "#4d4d4d"
ABREAST = 2
# In printed dots: height of the heading and of a panel's head; distance from the images up to the
# lines in the head: the window, the record (two lines), and the names of the grids.
HEADING, HEAD = 70, 150
WINDOW_LINE, RECORD_LINE, GRID_LINE = 118, 98, 14
LETTER = 0.08  # width of a letter in inches, for breaking lines
GRIDS = {
    "originals": "Test images $x$",
    "decompressions": "Decompressions $x$′ ∼ $p$($x$|$z$), $z$ ∼ $q$($z$|$x$)",
    "samples": "Samples $x$ ∼ $p$($x$|$z$), $z$ ∼ $p$($z$)",
}


@dataclass(frozen=True)
class Windows:
    """The content of a figure.

    heading: the text above all panels. runs: run names by title. grids: keys of GRIDS, shown for
    each run. side: number of images along a grid's side. pixels: width of an image.
    """

    heading: str
    runs: dict[str, str]
    grids: tuple[str, ...]
    side: int
    pixels: int = COLOUR_IMAGE[1]


WINDOWS = {
    "4x2": "Receptive field 4x2",
    "5x3": "Receptive field 5x3",
    "7x4": "Receptive field 7x4",
    "7x4gray": "Receptive field 7x4, grayscale",
}
NARROW = "Narrow networks (half the feature maps and half the decoder blocks), "
FIGURE_3, FIGURE_4 = tuple(WINDOWS), ("4x2", "7x4")
READINGS = {"A, 69 pixels": "a", "C, 159 pixels": "c", "D, 402 pixels": "d"}
PAIRS, SAMPLES = (("originals", "decompressions"), 7), (("samples",), SIDE)
WINDOWS_OF = {
    "figure3_cifar10": Windows(
        "CIFAR-10, as in Figure 3 of the paper",
        {WINDOWS[window]: f"cifar10-vlae_{window}" for window in FIGURE_3},
        *PAIRS,
    ),
    "figure4_cifar10_samples": Windows(
        "CIFAR-10, as in Figure 4 of the paper",
        {WINDOWS[window]: f"cifar10-vlae_{window}" for window in FIGURE_4},
        *SAMPLES,
    ),
    "figure3_cifar10_narrow": Windows(
        NARROW + "not those of the paper's Figure 3",
        {WINDOWS[window]: f"cifar10-narrow_{window}" for window in FIGURE_3},
        *PAIRS,
    ),
    "figure4_cifar10_samples_narrow": Windows(
        NARROW + "not those of the paper's Figure 4",
        {WINDOWS[window]: f"cifar10-narrow_{window}" for window in FIGURE_4},
        *SAMPLES,
    ),
    "cifar10_vlae_7x4": Windows(
        "The network of the paper's Figures 3c and 4b",
        {WINDOWS["7x4"]: "cifar10-vlae_7x4"},
        tuple(GRIDS),
        7,
    ),
    "decoder_windows": Windows(
        "Statically binarized MNIST: readings of the decoder's window (table decoder_windows)",
        {
            f"{reading}, {weights}": f"static_mnist-window_{run}"
            for reading, name in READINGS.items()
            for weights, run in (("tied", name), ("untied", f"{name}_untied"))
        },
        *PAIRS,
        BINARY_IMAGE[1],
    ),
}


def draw_windows(shown: Windows, params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw originals beside their decompressions, or samples, for each of the runs.

    The panel of a run without recorded images gives the reason.
    """
    size = ZOOM * (shown.side * (shown.pixels + 1) + 1)
    panel = len(shown.grids) * (size + GUTTER) - GUTTER
    abreast = min(ABREAST, len(shown.runs))
    lines = -(-len(shown.runs) // abreast)
    width = 2 * MARGIN + abreast * (panel + GAP) - GAP
    height = HEADING + lines * (HEAD + size + MARGIN)
    page = Page(width, height, dpi)
    write, axes = page.write, page.axes
    write(MARGIN, HEADING // 2, shown.heading, va="center", size=9, color=GREY)
    for place, (heading, run) in enumerate(shown.runs.items()):
        line, column = divmod(place, abreast)
        left = MARGIN + column * (panel + GAP)
        top = HEADING + line * (HEAD + size + MARGIN) + HEAD
        letter = f"$\\bf{{{'abcdef'[place]}}}$  " if len(shown.runs) > 1 else ""
        write(left, top - WINDOW_LINE, letter + heading, size=9, va="baseline")
        found = recorded_images(run, params, root)
        if isinstance(found, str):
            text = textwrap.fill(found, int(panel / dpi / LETTER), break_on_hyphens=False)
            say(axes(left, top, panel, size, run), text)
            continue
        title, images = found
        title = title.replace(" (", "\n(", 1)
        write(left, top - RECORD_LINE, title, size=7, va="top", color=GREY)
        for i, name in enumerate(shown.grids):
            at = left + i * (size + GUTTER)
            write(at, top - GRID_LINE, GRIDS[name], size=7.5, va="baseline")
            side = min(shown.side, isqrt(len(images[name])))
            grid = compose_grid(spread(images[name], side**2), side)
            high, wide = grid.shape[:2]
            show_grid(axes(at, top, ZOOM * wide, ZOOM * high, f"{run} {name}"), grid)
    return page.figure
