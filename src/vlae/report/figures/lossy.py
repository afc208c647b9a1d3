"""Test images, what comes back of codes of a few bits, and other formats at their smallest."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlae.errors import VlaeError
from vlae.report.figures.colours import GREY
from vlae.report.figures.image_grids import INK, MARGIN, PAPER, compose_grid, empty, show_grid
from vlae.report.figures.layout import Page
from vlae.storage import paths
from vlae.storage.read import read_json
from vlae.storage.records import check_record, read_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlae.config.schema import Params

RUN = "static_mnist-vlae"
COLUMNS = 16  # images in a row
ZOOM = 3  # width and height of a pixel in printed dots
HEADING, LABEL, GAP = 70, 390, 36  # in dots: above the rows, left of them, between them
RECORD = {"n_test": int, "bits": int, "bits_per_image": float, "kl_bits": float, "others": list}
RECORD |= {"pixel_error": float, "file_bytes": int}
OTHER = {"format": str, "bytes_each": float, "bytes_together": float, "pixel_error": float}


def lossy_inputs(params: "Params") -> list[str]:
    """Return the recorded results that the figure reads if they exist, relative to the root."""
    files = (paths.lossy(RUN), paths.lossy_images(RUN)) if RUN in params.lossy else ()
    return [str(path) for path in files]


def draw_lossy(params: "Params", root: Path, dpi: int) -> "Figure":
    """Draw originals, three draws from their codes, and other formats' smallest files of them.

    Raises VlaeError for a recorded result that cannot be used.
    """
    path = root / paths.lossy(RUN)
    if RUN not in params.lossy or not path.exists():
        return empty(f"{RUN}: no codes sent", dpi)
    about = {"run": RUN, "dataset": params.lossy[RUN].dataset}
    record = check_record(path, read_json(path), about, RECORD)
    others = [check_record(path, other, {}, OTHER) for other in record["others"]]
    rows = _rows(root / paths.lossy_images(RUN), record, others)
    count = min(COLUMNS, len(rows[0][1]))
    high, wide = (ZOOM * n for n in compose_grid(rows[0][1], count, 1).shape)
    height = HEADING + len(rows) * (high + GAP) - GAP + MARGIN
    page = Page(MARGIN + LABEL + wide + MARGIN, height, dpi)
    title = f"{RUN} · {record['n_test']:,} test images, some of them shown"
    page.write(MARGIN, HEADING // 2, title, va="center", size=9, color=GREY)
    for number, (text, images) in enumerate(rows):
        top = HEADING + number * (high + GAP)
        heading, *lines = text.split("\n")
        page.write(MARGIN, top + 12, heading, va="top", size=8.5)
        page.write(MARGIN, top + 40, "\n".join(lines), va="top", size=7, color=GREY)
        axes = page.axes(MARGIN + LABEL, top, wide, high, heading)
        show_grid(axes, _greys(images, count))
    return page.figure


def _rows(path: Path, record: dict, others: list[dict]) -> list[tuple[str, np.ndarray]]:
    """Return label and images of each row: bits or grey levels, uint8 (n, 28, 28)."""
    arrays = read_arrays(path, ("originals", "draws", "backs"), "images of a lossy file")
    originals, draws, backs = (arrays[name] for name in ("originals", "draws", "backs"))
    if (
        any(array.dtype != np.uint8 for array in arrays.values())
        or originals.ndim != 3
        or not len(originals)
        or draws.ndim != 4
        or draws.shape[1:] != originals.shape
        or backs.shape != (len(others), *originals.shape)
    ):
        raise VlaeError(f"{path}: originals, draws and backs do not belong together")
    size = record["file_bytes"] / record["n_test"]
    rows = [("Test images $x$\n98 bytes an image as plain bits", _grey(originals))]
    for number, images in enumerate(draws):
        label = f"VLAE, draw {number + 1} of $p$($x$|$z$)"
        if number == 0:
            label += (
                f"\n{size:.1f} bytes an image with the header\n"
                f"{record['bits']} bits of $z$, whose KL is {record['kl_bits']:.1f} bits\n"
                f"{record['pixel_error']:.1%} of the pixels differ"
            )
        else:
            label += "\nfrom the same bytes"
        rows.append((label, _grey(images)))
    for other, images in zip(others, backs, strict=True):
        rows.append(
            (
                f"{other['format']}, lowest quality\n"
                f"{other['bytes_together']:.0f} bytes an image, all in one picture\n"
                f"{other['bytes_each']:.0f} bytes as a file of its own\n"
                f"{other['pixel_error']:.1%} of the pixels differ, rounded",
                255 - images,
            )
        )
    return rows


def _grey(bits: np.ndarray) -> np.ndarray:
    return np.where(bits == 1, INK, PAPER).astype(np.uint8)


def _greys(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange grey images in one row of compose_grid."""
    grid = compose_grid(np.zeros_like(images[:columns]), columns, 1)
    height, width = images.shape[1:]
    for place, image in enumerate(images[:columns]):
        left = 1 + place * (width + 1)
        grid[1 : 1 + height, left : left + width] = image
    return grid
