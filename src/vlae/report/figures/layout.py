"""A page on which positions are given in printed dots from the top left corner."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Page:
    """A figure of `width` x `height` dots, on which everything has an exact position in dots."""

    def __init__(self, width: int, height: int, dpi: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)

    def axes(self, left: int, top: int, wide: int, high: int, label: str) -> "Axes":
        """Add axes with this top left corner and this size."""
        box = (
            left / self.width,
            1 - (top + high) / self.height,
            wide / self.width,
            high / self.height,
        )
        return self.figure.add_axes(box, label=label)

    def write(self, left: int, top: int, text: str, **style: Any) -> None:
        """Write text at this position, with matplotlib's text properties."""
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)
