"""Colours of runs: a kind of model has the same hue in every panel of every figure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlae.config.schema import ColourModelConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlae.config.schema import Run

GREY = "#4d4d4d"
# Okabe and Ito's palette for colour-blind readers, without its pale yellow.
COLOUR_OF = {
    "VLAE": "#0072B2",
    "Gaussian prior, local decoder": "#56B4E9",
    "IAF posterior, local decoder": "#009E73",
    "AF prior, factorized decoder": "#E69F00",
    "IAF posterior, factorized decoder": "#D55E00",
    "Gaussian prior, factorized decoder": "#CC79A7",
    "decoder alone": "#000000",
}
CONTRAST = 4.5  # the least of text on white (WCAG 2.2, level AA)
LIGHTEST = 0.5  # share of white in the last of several runs of a kind


def kind_of(run: "Run") -> str:
    """Return the kind of the run's model, a key of COLOUR_OF."""
    model = run.model
    if isinstance(model, ColourModelConfig):
        return "VLAE"
    if model.latent_dim == 0:
        return "decoder alone"
    factorized = model.decoder.kind == "factorized"
    if model.posterior.flow == "iaf":
        code = "IAF posterior"
    elif model.prior.flow == "af":
        if not factorized:
            return "VLAE"
        code = "AF prior"
    else:
        code = "Gaussian prior"
    return f"{code}, {'factorized' if factorized else 'local'} decoder"


def colours_of(runs: "Iterable[Run]") -> dict[str, str]:
    """Return the colour of each run of one panel, by name: the colour of its kind.

    Several runs of a kind get shades of it, from the colour itself to a light one.
    """
    of_kind: dict[str, list[str]] = {}
    for run in runs:
        of_kind.setdefault(kind_of(run), []).append(run.name)
    return {
        name: lighter(COLOUR_OF[kind], LIGHTEST * i / max(1, len(names) - 1))
        for kind, names in of_kind.items()
        for i, name in enumerate(names)
    }


def lighter(colour: str, white: float) -> str:
    """Return "#rrggbb" mixed with this share of white, from 0 to 1."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * white):02x}" for c in channels)


def legible(colour: str) -> str:
    """Return "#rrggbb" darkened as far as text on white needs it to be read."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    while contrast(channels) < CONTRAST:
        channels = [round(0.95 * c) for c in channels]
    return "#" + "".join(f"{c:02x}" for c in channels)


def contrast(channels: list[int]) -> float:
    """Return the contrast ratio of a colour (red, green, blue) with white, from 1 to 21."""
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in channels
    ]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def kind_legend(figure: "Figure", kinds: set[str], at: tuple[float, float], **style: Any) -> None:
    """Name the colours of these kinds; `at`: top left corner, relative to the figure's size."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker="o", markersize=4, linestyle="", label=kind)
        for kind, colour in COLOUR_OF.items()
        if kind in kinds
    ]
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=at,
        borderaxespad=0,
        frameon=False,
        fontsize=7.5,
        labelcolor=GREY,
        handletextpad=0.1,
        columnspacing=1,
        **style,
    )
    figure.add_artist(legend)  # a figure may have another legend
