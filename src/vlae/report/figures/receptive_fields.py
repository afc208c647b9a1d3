"""Images of runs with different decoder windows (Figures 3 and 4), one panel per run."""

import textwrap
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.images import BINARY_IMAGE
from vlae.report.figures.colours import GREY
from vlae.report.figures.image_grids import (
    GAP,
    GUTTER,
    MARGIN,
    SIDE,
    ZOOM,
    compose_grid,
    recorded_images,
    show_grid,
    spread,
)
from vlae.report.figures.layout import Page
from vlae.units import COLOUR_IMAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

ABREAST = 2
# In printed dots: height of the heading and of a panel's head; distance from the images up to the
# lines in the head: the window, the record (two lines), and the names of the grids.
HEADING, HEAD = 70, 150
WINDOW_LINE, RECORD_LINE, GRID_LINE = 118, 98, 14
LETTER = 0.08  # width of a letter in inches, for breaking lines
LINE = 30  # of the remarks at the end
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
READINGS = {
    "A, 69 pixels, tied": "vlae_window_a",
    "D, 402 pixels, tied": "vlae",
    "A, 69 pixels, untied": "window_a_untied",
    "D, 402 pixels, untied": "window_d_untied",
}
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
        {title: f"static_mnist-{name}" for title, name in READINGS.items()},
        *PAIRS,
        BINARY_IMAGE[1],
    ),
}


def draw_windows(shown: Windows, params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw originals beside their decompressions, or samples, for each of the runs.

    A run without recorded images has no panel, but a line at the end that gives the reason.
    """
    found = {run: recorded_images(run, params, root) for run in shown.runs.values()}
    missing = [reason for reason in found.values() if isinstance(reason, str)]
    size = ZOOM * (shown.side * (shown.pixels + 1) + 1)
    panel = len(shown.grids) * (size + GUTTER) - GUTTER
    panels = max(1, len(shown.runs) - len(missing))
    abreast = min(ABREAST, panels)
    width = 2 * MARGIN + abreast * (panel + GAP) - GAP
    letters = int((width - 2 * MARGIN) / dpi / LETTER)
    said = [textwrap.fill(text, letters, break_on_hyphens=False) for text in missing]
    foot = sum(LINE * (text.count("\n") + 1) for text in said)
    lines = 0 if len(missing) == len(shown.runs) else -(-panels // abreast)
    page = Page(width, HEADING + lines * (HEAD + size + MARGIN) + foot, dpi)
    page.write(MARGIN, HEADING // 2, shown.heading, va="center", size=9, color=GREY)
    place = 0
    for letter, (heading, run) in zip("abcdef", shown.runs.items(), strict=False):
        recorded = found[run]
        if isinstance(recorded, str):
            continue
        line, column = divmod(place, abreast)
        left = MARGIN + column * (panel + GAP)
        top = HEADING + line * (HEAD + size + MARGIN) + HEAD
        name = f"$\\bf{{{letter}}}$  {heading}" if len(shown.runs) > 1 else heading
        _draw_panel(page, (left, top, size), name, run, shown, recorded)
        place += 1
    top = page.height - foot
    for text in said:
        page.write(MARGIN, top, text, size=7.5, va="top", color=GREY)
        top += LINE * (text.count("\n") + 1)
    return page.figure


def _draw_panel(
    page: Page,
    at: tuple[int, int, int],
    heading: str,
    run: str,
    shown: Windows,
    recorded: tuple[str, dict[str, np.ndarray]],
) -> None:
    """Draw the grids of one run; `at`: left and top of the first one, and their size, in dots."""
    left, top, size = at
    title, images = recorded
    page.write(left, top - WINDOW_LINE, heading, size=9, va="baseline")
    text = title.replace(" (", "\n(", 1)
    page.write(left, top - RECORD_LINE, text, size=7, va="top", color=GREY)
    for name in shown.grids:
        page.write(left, top - GRID_LINE, GRIDS[name], size=7.5, va="baseline")
        side = min(shown.side, isqrt(len(images[name])))
        grid = compose_grid(spread(images[name], side**2), side)
        high, wide = grid.shape[:2]
        show_grid(page.axes(left, top, ZOOM * wide, ZOOM * high, f"{run} {name}"), grid)
        left += size + GUTTER
