"""Kinds of models as the page's style sheet knows them: a class and two colours."""

import re
from dataclasses import dataclass

from vlae.config.schema import Run
from vlae.report.figures.colours import COLOUR_OF, contrast, kind_of, lighter

BRIGHT = 3.0  # largest contrast with white of a colour that is seen well on a dark background


@dataclass(frozen=True)
class ModelKind:
    """A kind of model. key: its class. light, dark: its colours on such backgrounds."""

    key: str
    title: str
    light: str
    dark: str


def on_dark(colour: str) -> str:
    """Return "#rrggbb" mixed with as much white as a dark background needs."""
    for percent in range(0, 100, 5):
        mixed = lighter(colour, percent / 100)
        if contrast([int(mixed[i : i + 2], 16) for i in (1, 3, 5)]) <= BRIGHT:
            break
    return mixed


KINDS = {
    title: ModelKind(
        re.sub("[^a-z]+", "-", title.lower()),
        title[0].upper() + title[1:],
        colour,
        on_dark(colour),
    )
    for title, colour in COLOUR_OF.items()
}


def model_kind(run: Run) -> ModelKind:
    """Return the kind of a run's model."""
    return KINDS[kind_of(run)]
