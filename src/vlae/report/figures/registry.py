"""All figures by name, drawn from recorded results.

To add one, write a module that draws it and add a line here. A figure is always drawn; where a
result is missing, a panel says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlae.errors import VlaeError, suggestion
from vlae.report.drawn import write_note
from vlae.report.figures.bookkeeping import draw_bookkeeping
from vlae.report.figures.headline import draw_headline
from vlae.report.figures.image_grids import draw_images
from vlae.report.figures.information import draw_information
from vlae.report.figures.learning_curves import draw_curves
from vlae.report.figures.likelihoods import draw_against_k, draw_per_image
from vlae.report.figures.lossy import draw_lossy, lossy_inputs
from vlae.report.figures.rate import draw_rate
from vlae.report.figures.receptive_fields import WINDOWS_OF, draw_windows
from vlae.report.tables.bookkeeping import bookkeeping_inputs
from vlae.report.tables.information import information_inputs
from vlae.storage import paths
from vlae.storage.records import (
    curve_file,
    evaluation_file,
    images_file,
    training_file,
)
from vlae.storage.write import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

    from vlae.config.schema import Params

STYLE: "dict[RcKeyType, Any]" = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # part of matplotlib, so the same everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#4d4d4d",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": "#4d4d4d",
    "ytick.color": "#4d4d4d",
    "pdf.fonttype": 42,  # TrueType fonts keep text searchable
}
# Omit dates and library versions, so that they do not change the bytes of a figure.
METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
DPI = 200


@dataclass(frozen=True)
class Entry:
    """A figure.

    files: functions from a run to a recorded result that the figure reads if it exists.
    draw(params, root, dpi): returns the figure; raises VlaeError for a result that cannot be used.
    runs: the runs that it shows, None for all.
    inputs(params): returns the recorded results that it reads if they exist, relative to the
        root, if they are not the same `files` of every run.
    """

    files: tuple[Callable[[str], Path], ...]
    draw: Callable[..., "Figure"]
    runs: tuple[str, ...] | None = None
    inputs: Callable[..., list[str]] | None = None


IMAGES = (paths.samples, training_file, evaluation_file)
# Figures of one run's images; WINDOWS_OF has the figures of several runs' images.
IMAGES_OF = {
    "figure1_static_mnist": "static_mnist-vlae",
    "figure2_omniglot": "omniglot-vlae",
    "figure2_omniglot_rebuilt": "omniglot_rebuilt-vlae",
}
FIGURES = (
    {"headline": Entry((training_file, evaluation_file), draw_headline)}
    | {name: Entry(IMAGES, partial(draw_images, run), (run,)) for name, run in IMAGES_OF.items()}
    | {
        name: Entry(IMAGES, partial(draw_windows, shown), tuple(shown.runs.values()))
        for name, shown in WINDOWS_OF.items()
    }
    | {
        "bookkeeping": Entry((), draw_bookkeeping, inputs=bookkeeping_inputs),
        "information": Entry((), draw_information, inputs=information_inputs),
        "rate": Entry((), draw_rate, inputs=information_inputs),
        "lossy": Entry((), draw_lossy, inputs=lossy_inputs),
        "learning_curves": Entry((curve_file, training_file), draw_curves),
        "nll_against_k": Entry((training_file, evaluation_file), draw_against_k),
        "per_image_nll": Entry(
            (training_file, evaluation_file, images_file, paths.samples), draw_per_image
        ),
    }
)


def figure_inputs(name: str, params: "Params") -> list[str]:
    """Return the recorded results that figure `name` reads if they exist, relative to the root."""
    entry = _entry(name)
    if entry.inputs is not None:
        return entry.inputs(params)
    runs = params.runs if entry.runs is None else [r for r in entry.runs if r in params.runs]
    return [str(file(run)) for run in runs for file in entry.files]


def figure_outputs(name: str) -> list[str]:
    """Return the files that write_figure writes, relative to the root."""
    _entry(name)
    return [str(Path("results", "figures", f"{name}.{end}")) for end in METADATA]


def build_figure(name: str, params: "Params", root: Path | str = ".") -> "Figure":
    """Build figure `name` as a matplotlib Figure, not yet rendered.

    Raises VlaeError for an unknown figure and for a recorded result that cannot be used.
    """
    entry = _entry(name)
    with _style():
        return entry.draw(params, Path(root), DPI)


def write_figure(name: str, params: "Params", root: Path | str = ".") -> list[Path]:
    """Write results/figures/NAME.{png,pdf} under `root`, each atomically, and the note of what
    they were drawn from (vlae.report.drawn).

    The same results give the same bytes. Raises the errors of build_figure.
    """
    figure = build_figure(name, params, root)
    written = [Path(root, output) for output in figure_outputs(name)]
    for path in written:
        write_atomically(path, partial(_save, figure, kind=path.suffix[1:]))
    write_note("figures", name, figure_inputs(name, params), figure_outputs(name), root)
    return written


def _save(figure: "Figure", path: Path, kind: str) -> None:
    with _style():
        figure.savefig(path, format=kind, dpi=DPI, metadata=METADATA[kind])


@contextmanager
def _style() -> Iterator[None]:
    """Apply our style to matplotlib's defaults, ignoring the user's matplotlibrc."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _entry(name: str) -> Entry:
    if name not in FIGURES:
        raise VlaeError(f"no figure {name!r}; {suggestion(name, FIGURES)}")
    return FIGURES[name]
