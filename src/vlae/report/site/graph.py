"""The graph of the workflow's rules as inline SVG, laid out here: no graphviz is needed."""

import re
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup, escape

from vlae.storage.read import read_text

BLOCK = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)  # of workflow/scripts/readme.py
ARROW = re.compile(r"^\s*(\w+) --> (\w+)\s*$", re.MULTILINE)
# In units of the SVG.
BOX, TALL, BETWEEN, DOWN, MARGIN = 104, 36, 56, 58, 8
SWEEPS = 8

Edges = set[tuple[str, str]]


def read_rules(root: Path) -> Edges:
    """Return the arrows between two rules that `make readme` has drawn in README.md, or none."""
    path = Path(root, "README.md")
    block = BLOCK.search(read_text(path)) if path.exists() else None
    return set(ARROW.findall(block[0])) if block else set()


def layers(edges: Edges) -> dict[str, int]:
    """Return the column of each rule: one behind the last of those that it needs.

    `edges` have no cycle.
    """
    before: dict[str, set[str]] = {name: set() for edge in edges for name in edge}
    for first, second in edges:
        before[second].add(first)
    columns: dict[str, int] = {}
    while len(columns) < len(before):
        ready = [n for n in before if n not in columns and before[n] <= columns.keys()]
        if not ready:
            raise ValueError("the rules' graph has a cycle")
        columns |= {n: max((columns[b] + 1 for b in before[n]), default=0) for n in ready}
    return columns


def reduced(edges: Edges) -> Edges:
    """Return the edges without those that follow from others."""
    after: dict[str, set[str]] = {name: set() for edge in edges for name in edge}
    columns = layers(edges)
    for first in sorted(columns, key=lambda name: -columns[name]):
        for second in [b for a, b in edges if a == first]:
            after[first] |= {second} | after[second]
    return {
        (a, b) for a, b in edges if not any(b in after[c] for x, c in edges if x == a and c != b)
    }


def draw_graph(edges: Edges, recorded: set[str]) -> Markup:
    """Return the graph. Rules that are in `recorded` are drawn as steps that DVC records."""
    shown = reduced(edges)
    columns = layers(edges)
    paths = [_through(edge, columns) for edge in sorted(shown)]
    order = _order(columns, paths)
    most = max(len(names) for names in order)
    places = {}
    for column, names in enumerate(order):
        free = (most - len(names)) / 2
        for row, name in enumerate(names):
            left = MARGIN + column * (BOX + BETWEEN)
            places[name] = left, MARGIN + (row + free) * DOWN
    width = 2 * MARGIN + len(order) * (BOX + BETWEEN) - BETWEEN
    height = 2 * MARGIN + most * DOWN - (DOWN - TALL)
    parts = [_arrow([places[name] for name in path]) for path in paths]
    for name in sorted(columns):
        left, top = places[name]
        style = "recorded" if name in recorded else "drawn"
        parts.append(
            f'<g class="{style}"><rect x="{left}" y="{top}" width="{BOX}" height="{TALL}" '
            f'rx="7"/><text x="{left + BOX / 2}" y="{top + TALL / 2 + 4.5}">{escape(name)}</text>'
            "</g>"
        )
    said = "; ".join(f"{a} before {b}" for a, b in sorted(shown))
    return Markup(
        f'<svg class="graph" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Order of the workflow\'s rules: {escape(said)}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _through(edge: tuple[str, str], columns: dict[str, int]) -> list[str]:
    """The edge with a place of its own in every column that it crosses."""
    first, last = edge
    between = range(columns[first] + 1, columns[last])
    return [first, *(f"{first} {last} {column}" for column in between), last]


def _order(columns: dict[str, int], paths: list[list[str]]) -> list[list[str]]:
    """The names in each column from top to bottom, each near the mean of its neighbours."""
    order: list[list[str]] = [[] for _ in range(max(columns.values()) + 1)]
    for name in sorted(columns):
        order[columns[name]].append(name)
    for path in paths:
        for column, name in enumerate(path[1:-1], start=columns[path[0]] + 1):
            order[column].append(name)
    near: dict[str, list[str]] = {}
    for path in paths:
        for one, other in pairwise(path):
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    for _ in range(SWEEPS):
        for names in order:
            place = {n: i - (len(each) - 1) / 2 for each in order for i, n in enumerate(each)}
            middle = {n: sum(place[o] for o in near[n]) / len(near[n]) for n in names}
            names.sort(key=middle.__getitem__)
    return order


def _arrow(places: list[tuple[float, float]]) -> str:
    """A curve from the first box, through free places, to the last."""
    (left, top), *rest = places
    x, y = left + BOX, top + TALL / 2
    line = f"M{x} {y}"
    for left, top in rest:
        half, middle = (x + left) / 2, top + TALL / 2
        is_last = (left, top) == places[-1]
        line += f"C{half} {y} {half} {middle} {left - 3 if is_last else left} {middle}"
        x, y = left + BOX, middle
        line += "" if is_last else f"H{x}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{line}"/>'
