"""Draws a small Mermaid flowchart (A --> B, A -- "label" --> B) as an SVG, from top to bottom.

Mermaid draws in the reader's browser, from a library that it downloads. The site loads nothing.
"""

import re
from html import escape
from itertools import pairwise

from grandalf.graphs import Edge, Graph, Vertex
from grandalf.layouts import SugiyamaLayout

ARROW = re.compile(r'\s*(?:-- "([^"]*)" )?-->\s*')
BEHIND = "var(--md-default-bg-color, white)"  # the page's ground, behind boxes and labels
HEIGHT, LETTER, MARGIN = 30, 8.5, 24  # of a box, of a character's width, around all


class Box:
    """What the layout has to know of a vertex: its size; it sets `xy`, the middle."""

    def __init__(self, name):
        self.w, self.h, self.xy = LETTER * len(name) + MARGIN, HEIGHT, (0, 0)


def edges(chart):
    """(from, label or None, to) of each arrow, in order. Raises ValueError for other syntax."""
    first, *lines = [line.strip() for line in chart.strip().splitlines()]
    if first not in ("flowchart TD", "flowchart LR"):
        raise ValueError(f"only a Mermaid flowchart is drawn, not {first!r}")
    for line in lines:
        names, labels = ARROW.split(line)[::2], ARROW.split(line)[1::2]
        if len(names) < 2 or not all(re.fullmatch(r"\w+", name) for name in names):
            raise ValueError(f"of Mermaid only arrows between names are drawn, not {line!r}")
        yield from ((a, label, b) for (a, b), label in zip(pairwise(names), labels, strict=True))


def drawn(chart):
    """The chart as an SVG that takes the page's colour."""
    arrows = list(edges(chart))
    vertices = {name: Vertex(name) for a, _, b in arrows for name in (a, b)}
    for name, vertex in vertices.items():
        vertex.view = Box(name)
    graph = Graph(list(vertices.values()), [Edge(vertices[a], vertices[b]) for a, _, b in arrows])
    layout = SugiyamaLayout(graph.C[0])
    layout.xspace, layout.yspace = 60, 50
    layout.init_all()
    layout.draw(3)
    boxes = {name: vertex.view for name, vertex in vertices.items()}
    left = min(box.xy[0] - box.w / 2 for box in boxes.values()) - MARGIN
    top = min(box.xy[1] for box in boxes.values()) - HEIGHT / 2 - MARGIN
    width = max(box.xy[0] + box.w / 2 for box in boxes.values()) + 6 * MARGIN - left
    height = max(box.xy[1] for box in boxes.values()) + HEIGHT / 2 + MARGIN - top
    parts = [_arrow(boxes[a].xy, boxes[b].xy, label) for a, label, b in arrows]
    parts += [_box(name, box) for name, box in boxes.items()]
    said = "; ".join(f"{a} to {b}" for a, _, b in arrows)
    return (
        f'<svg viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}" role="img" '
        f'aria-label="Arrows: {escape(said)}" style="max-width: {width:.0f}px" fill="none" '
        'stroke="currentColor"><defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" '
        'markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" '
        f'fill="currentColor"/></marker></defs>{"".join(parts)}</svg>\n'
    )


def _box(name, box):
    (x, y), w = box.xy, box.w
    return (
        f'<rect x="{x - w / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{w:.0f}" height="{HEIGHT}" '
        f'rx="5" fill="{BEHIND}"/>{_text(x, y + 5, name)}'
    )


def _arrow(start, end, label):
    (x, y), (to_x, to_y) = start, end
    y, to_y = y + HEIGHT / 2, to_y - HEIGHT / 2
    line = f'<path d="M{x:.0f} {y:.0f} {to_x:.0f} {to_y:.0f}" marker-end="url(#head)"/>'
    return line + (_text((x + to_x) / 2, (y + to_y) / 2 + 5, label, BEHIND) if label else "")


def _text(x, y, text, stroke="none"):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-size="14" stroke="{stroke}" '
        f'stroke-width="6" paint-order="stroke" fill="currentColor">{escape(text)}</text>'
    )
