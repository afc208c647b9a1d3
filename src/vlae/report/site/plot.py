"""Small line plots and histograms as inline SVG, whose colours the page's style sheet sets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

# In units of the SVG: its size, and the space around the panel for ticks and labels.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 230, 54, 18, 10, 38
MARKER = 2.6
FURTHEST = 1e15  # of the values in a histogram: what is further away is no likelihood


@dataclass(frozen=True)
class Line:
    """One line: x and y (n,), gaps where y is NaN.

    style: its class in the style sheet. error: half the height of a band around it, (n,). hollow:
    which of the points have an open marker, (n,); None for a line without markers.
    """

    x: np.ndarray
    y: np.ndarray
    style: str
    error: np.ndarray | None = None
    hollow: np.ndarray | None = None


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`. log: x in powers of two."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Return the values' places, 0 at the low end and 1 at the high one."""
        values, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            values, low, high = np.log2(values), math.log2(low), math.log2(high)
        return (values - low) / ((high - low) or 1.0)

    def ticks(self, most: int) -> list[float]:
        """Return at most `most` + 1 round values between the ends."""
        if self.log:
            powers = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return [2.0**power for power in powers[:: max(1, -(-len(powers) // most))]]
        span = self.high - self.low
        if not 0 < span < math.inf:
            return [self.low]
        step = _step(span / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def line_plot(name: str, about: str, x: Axis, y: Axis, lines: Iterable[Line]) -> Markup:
    """Return a plot; `name` and `about` are read to those who do not see it."""
    parts = [*_frame(x, y)]
    for line in lines:
        at = _points(x, y, line)
        if line.error is not None:
            above = _points(x, y, Line(line.x, line.y + line.error, ""))
            below = _points(x, y, Line(line.x, line.y - line.error, ""))
            parts.append(f'<path class="band" d="{_path([*above, *below[::-1]])}Z"/>')
        parts.append(f'<path class="line {escape(line.style)}" d="{_path(at)}"/>')
        hollow = [] if line.hollow is None else line.hollow.tolist()
        for (left, top), is_open in zip(at, hollow, strict=False):
            style = "open" if is_open else "full"
            parts.append(f'<circle class="{style}" cx="{left:.1f}" cy="{top:.1f}" r="{MARKER}"/>')
    return _svg(name, about, parts)


def histogram(name: str, about: str, label: str, values: np.ndarray, bins: int = 50) -> Markup:
    """Return a histogram of values (n,), with a mark that a script can move (`class="mark"`).

    The SVG says as data-low and data-high where its axis ends.
    """
    values = np.clip(values, -FURTHEST, FURTHEST)
    low, high = float(values.min()), float(values.max())
    least = 1e-6 * max(1.0, abs(low), abs(high))  # so that the bins differ
    if high - low < least:
        low, high = low - least, high + least
    counts, edges = np.histogram(values, bins, (low, high))
    x = Axis(label, float(edges[0]), float(edges[-1]))
    y = Axis("test images", 0.0, 1.05 * float(counts.max()))
    parts = [*_frame(x, y)]
    bottom = HEIGHT - BOTTOM
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            left, right = (_across(float(x.place(np.array(edge)))) for edge in (low, high))
            top = _down(float(y.place(np.array(count))))
            size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
            parts.append(f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" {size}/>')
    parts.append(f'<line class="mark" x1="0" x2="0" y1="{TOP}" y2="{bottom}"/>')
    ends = f'data-low="{x.low:.6g}" data-high="{x.high:.6g}" data-left="{LEFT}"'
    return _svg(name, about, parts, f' {ends} data-right="{WIDTH - RIGHT}"')


def _svg(name: str, about: str, parts: list[str], more: str = "") -> Markup:
    head = (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(name)}. {escape(about)}"{more}>'
    )
    return Markup(head + "".join(parts) + "</svg>")


def _frame(x: Axis, y: Axis) -> Iterable[str]:
    """The grid, the ticks and the labels of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, text in _labelled(y.ticks(5)):
        top = _down(float(y.place(np.array(value))))
        yield f'<path class="grid" d="M{LEFT} {top:.1f}H{right}"/>'
        yield f'<text class="y" x="{LEFT - 6}" y="{top + 3.6:.1f}">{text}</text>'
    for value, text in _labelled(x.ticks(7)):
        left = _across(float(x.place(np.array(value))))
        yield f'<path class="tick" d="M{left:.1f} {bottom}v4"/>'
        yield f'<text class="x" x="{left:.1f}" y="{bottom + 15}">{text}</text>'
    yield f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>'
    middle = (LEFT + right) / 2
    yield f'<text class="x label" x="{middle}" y="{HEIGHT - 5}">{escape(x.label)}</text>'
    turned = f'transform="translate(12 {(TOP + bottom) / 2}) rotate(-90)"'
    yield f'<text class="x label" {turned}>{escape(y.label)}</text>'


def _points(x: Axis, y: Axis, line: Line) -> list[tuple[float, float]]:
    seen = np.isfinite(line.y)
    places = zip(x.place(line.x[seen]).tolist(), y.place(line.y[seen]).tolist(), strict=True)
    # What lies far outside is drawn just outside: the panel is clipped by the style sheet.
    return [(_across(left), _down(min(max(up, -0.2), 1.2))) for left, up in places]


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in points) if points else ""


def _across(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _down(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, … times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _labelled(values: list[float]) -> list[tuple[float, str]]:
    """Each value with its text, all with the decimals that one of them needs."""
    digits = max((len(f"{value:.10g}".partition(".")[2]) for value in values), default=0)
    return [(value, f"{value:,.{digits}f}") for value in values]
