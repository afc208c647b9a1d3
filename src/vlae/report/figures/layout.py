"""A page whose places are given in printed dots, from its top left corner."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Page:
    """A figure of so many dots; everything on it stands where it is put, dot by dot."""

    def __init__(self, width: int, height: int, dpi: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)

    def axes(self, left: int, top: int, wide: int, high: int, label: str) -> "Axes":
        """Axes with this top left corner and this size."""
        box = (
            left / self.width,
            1 - (top + high) / self.height,
            wide / self.width,
            high / self.height,
        )
        return self.figure.add_axes(box, label=label)

    def write(self, left: int, top: int, text: str, **style: Any) -> None:
        """Text at this place, with matplotlib's properties of text."""
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)
