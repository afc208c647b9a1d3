"""The paper's Figures 1 to 4, learning curves and likelihoods, drawn from recorded results.

A figure is always drawn: where a result is missing, a panel says so in its place.
"""

from contextlib import contextmanager
from pathlib import Path

from vlae.errors import VlaeError
from vlae.report.figures.image_grids import draw_images
from vlae.report.figures.learning_curves import draw_curves
from vlae.report.figures.likelihoods import draw_against_k, draw_per_image
from vlae.report.figures.receptive_fields import WINDOWS_OF, draw_windows
from vlae.storage import paths
from vlae.storage.records import (
    curve_file,
    evaluation_file,
    images_file,
    training_file,
)
from vlae.storage.write import write_atomically

# The figures of one run's images, by name; WINDOWS_OF has those of several runs' images, the
# others show all runs.
IMAGES_OF = {
    "figure1_static_mnist": "static_mnist-vlae",
    "figure2_omniglot": "omniglot-vlae",
    "figure2_omniglot_rebuilt": "omniglot_rebuilt-vlae",
}
READ_OF_RUNS = {  # what the others read of each run
    "learning_curves": (curve_file,),
    "nll_against_k": (training_file, evaluation_file),
    "per_image_nll": (training_file, evaluation_file, images_file, paths.samples),
}
FIGURES = (*IMAGES_OF, *WINDOWS_OF, *READ_OF_RUNS)

STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
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
    "pdf.fonttype": 42,  # text stays text
}
# Neither the time nor the version of a library may change the bytes of a figure.
METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
DPI = 200


def figure_inputs(name: str, params) -> list[str]:
    """The recorded results that figure `name` reads where they exist, relative to the root."""
    _check(name)
    if name not in READ_OF_RUNS:
        runs = WINDOWS_OF[name].runs.values() if name in WINDOWS_OF else [IMAGES_OF[name]]
        readers = (paths.samples, training_file, evaluation_file)
        return [str(file(run)) for run in runs if run in params.runs for file in readers]
    return [str(file(run)) for run in params.runs for file in READ_OF_RUNS[name]]


def figure_outputs(name: str) -> list[str]:
    """The files that write_figure makes, relative to the root."""
    _check(name)
    return [str(Path("results", "figures", f"{name}.{end}")) for end in METADATA]


def build_figure(name: str, params, root: Path | str = "."):
    """Figure `name` as a matplotlib Figure, not yet rendered.

    Raises VlaeError for an unknown figure and for a recorded result that cannot be used.
    """
    _check(name)
    with _style():
        if name in IMAGES_OF:
            return draw_images(IMAGES_OF[name], params, Path(root), DPI)
        if name in WINDOWS_OF:
            return draw_windows(WINDOWS_OF[name], params, Path(root), DPI)
        if name == "nll_against_k":
            return draw_against_k(params, Path(root), DPI)
        if name == "per_image_nll":
            return draw_per_image(params, Path(root), DPI)
        return draw_curves(params, Path(root))


def write_figure(name: str, params, root: Path | str = ".") -> list[Path]:
    """Write results/figures/NAME.{png,pdf} under `root`, each whole or not at all.

    The same results give the same bytes. Raises as build_figure does.
    """
    figure = build_figure(name, params, root)
    written = [Path(root, output) for output in figure_outputs(name)]
    for path in written:
        write_atomically(path, lambda partial, kind=path.suffix[1:]: _save(figure, partial, kind))
    return written


def _save(figure, path: Path, kind: str) -> None:
    with _style():
        figure.savefig(path, format=kind, dpi=DPI, metadata=METADATA[kind])


@contextmanager
def _style():
    """Our style on matplotlib's defaults, whatever the user's own matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _check(name: str) -> None:
    if name not in FIGURES:
        raise VlaeError(f"no figure {name!r}; there are {', '.join(FIGURES)}")
