"""The picture of a circuit: parts of the model as dots, layers up, and a line for each edge, as thick as its score.

>>> path = [Edge("embed", "L0H2.v", ("L0H2",), Size(2.0)), Edge("L0H2", "logits", ("logits",), Size(1.0))]
>>> drawn = wiring(path, {"embed": -1, "L0H2": 0, "logits": 1}, key="circuit", title="A circuit", units="logits")
>>> drawn.count("<path"), drawn.count("<circle")
(2, 3)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interp.language import called, say
from interp.report import links
from interp.report.heat import CHARACTER, drawing
from interp.report.markup import element, figure_number
from interp.report.tables import Size

MOST = 60
"""Edges that are drawn, the strongest ones."""
THICKEST = 8.0
"""Width of the line of the strongest edge."""
ROW = 46.0
"""Height between two rows of dots."""
APART = 62.0
"""Least width between two dots of a row."""
DOT = 6.0
"""Radius of a dot."""

_ENTERS = {"q": -7.0, "k": 0.0, "v": 7.0}
"""How far beside a head's dot its queries, keys and values are read."""

_HEAD = re.compile(r"L\d+(?:H|KV)(\d+)")

Place = tuple[str, str]
"""A part of the model, and the role at which it stands; empty where edges have none."""


@dataclass(frozen=True)
class Edge:
    """One edge.

    Attributes:
        sender: what writes.
        receiver: the input that reads.
        readers: whose input it is: the heads that share it, an MLP, or the end.
        score: of the edge, with its interval.
        role: where it is read; empty is everywhere.
    """

    sender: str
    receiver: str
    readers: tuple[str, ...]
    score: Size
    role: str = ""

    @property
    def kind(self) -> str:
        """``q``, ``k`` or ``v`` of heads; else empty."""
        return self.receiver.partition(".")[2] if self.receiver[-2:] in (".q", ".k", ".v") else ""

    @property
    def label(self) -> str:
        """Both ends, and the word."""
        label = f"{self.sender} → {self.receiver}"
        return f"{label} ({called('role', self.role)})" if self.role else label


def wiring(
    edges: Sequence[Edge],
    layers: Mapping[str, int],
    *,
    key: str,
    title: str,
    units: str,
    roles: Sequence[str] = (),
) -> Markup:
    """Draw a circuit. Heads of one index stand above one another, and so do MLPs; with roles, above their word.

    Args:
        edges: what is drawn.
        layers: part of the model -> its layer; -1 for the embedding, the number of layers for the end.
        key: unique on the page.
        title: the accessible name.
        units: of the scores.
        roles: across, where edges have one.
    """
    ends = [(edge, ends) for edge in edges for ends in _ends(edge, edges)]
    plane = _Plane.of({place for _, both in ends for place in both}, layers, roles)
    largest = max(abs(edge.score.mean) for edge in edges) or 1.0
    parts = [*plane.grid(), *plane.columns()]
    for edge, (start, end) in sorted(ends, key=lambda one: abs(one[0].score.mean)):
        parts.append(_line(edge, plane.at[start], plane.at[end], largest, units))
    parts += [_dot(name, role, *plane.at[name, role]) for name, role in plane.at]
    said = [f"{edge.label}: {figure_number(edge.score.mean, 2)}" for edge in edges]
    return drawing(parts, plane.size, key=key, title=title, description="; ".join(said), class_="plot circuit")


def _ends(edge: Edge, edges: Sequence[Edge]) -> list[tuple[Place, Place]]:
    """Where an edge leads: to its reader; from a key or value to wherever its head goes on."""
    found: list[tuple[Place, Place]] = []
    sending = {(one.sender, one.role) for one in edges}
    for reader in edge.readers:
        goes_on = [(name, role) for name, role in sorted(sending) if name == reader]
        if len(edge.readers) > 1 and not goes_on:
            continue
        places = goes_on if edge.kind in ("k", "v") and goes_on else [(reader, edge.role)]
        found += [((edge.sender, edge.role), place) for place in places]
    return found or [((edge.sender, edge.role), (edge.readers[0], edge.role))]


@dataclass(frozen=True)
class _Plane:
    """Where dots lie.

    Attributes:
        at: the middle of each dot.
        rows: layer, and whether it is a row of MLPs -> height.
        heads: role -> the middle of its column.
        inner: the layers of the model.
        size: width and height.
        left: where the columns begin.
    """

    at: Mapping[Place, tuple[float, float]]
    rows: Mapping[tuple[int, bool], float]
    heads: Mapping[str, float]
    inner: frozenset[int]
    size: tuple[float, float]
    left: float = 64.0

    @classmethod
    def of(cls, places: set[Place], layers: Mapping[str, int], roles: Sequence[str]) -> _Plane:
        kinds = sorted({_row(name, layers) for name, _ in places})
        top = 26.0
        rows = {kind: top + ROW * (len(kinds) - 1 - i) for i, kind in enumerate(kinds)}
        at: dict[Place, tuple[float, float]] = {}
        heads: dict[str, float] = {}
        start = cls.left
        for role in roles or ("",):
            names = [name for name, place in places if place == role]
            columns = sorted({_column(name) for name in names})
            width = max(APART * len(columns), CHARACTER * len(called("role", role)) + 16)
            heads[role] = start + width / 2
            for name in names:
                x = start + width * (columns.index(_column(name)) + 0.5) / max(len(columns), 1)
                at[name, role] = (x, rows[_row(name, layers)])
            start += width
        floor = top + ROW * max(len(kinds) - 1, 0) + 24
        ends = {-1, max(layers.values())}
        inner = frozenset(layer for layer, _ in rows) - ends
        return cls(at, rows, heads, inner, (start + 36, floor + (22 if roles else 0)))

    def grid(self) -> list[Markup]:
        """A line for each row, and a name for each layer."""
        parts: list[Markup] = []
        named: set[int] = set()
        for (layer, _), y in self.rows.items():
            parts.append(element("line", class_="grid", x1=self.left - 6, x2=self.size[0], y1=y, y2=y))
            if layer in self.inner and layer not in named:
                text = say("layer {layer}", layer=layer)
                parts.append(element("text", text, class_="tick", x=0.0, y=y + 4, **links.attributes({"layer": layer})))
            named.add(layer)
        return parts

    def columns(self) -> list[Markup]:
        """The roles, below."""
        return [
            element(
                "text", called("role", role), class_="role", x=x, y=self.size[1] - 8, text_anchor="middle",
                **links.attributes({"role": role}),
            )
            for role, x in self.heads.items()
            if role
        ]  # fmt: skip


def _row(name: str, layers: Mapping[str, int]) -> tuple[int, bool]:
    """The row of a part of the model; an MLP stands above the heads of its layer."""
    return layers[name], name.startswith("MLP")


def _column(name: str) -> tuple[int, int]:
    """What stands above one another: the two ends, the heads of one index, the MLPs."""
    head = _HEAD.fullmatch(name)
    if head:
        return 1, int(head[1])
    return (2 if name.startswith("MLP") else 0), 0


def _line(edge: Edge, start: tuple[float, float], end: tuple[float, float], largest: float, units: str) -> Markup:
    tip = element("title", f"{edge.label}: {edge.score.text} {units}".rstrip())
    width = max(0.8, THICKEST * abs(edge.score.mean) / largest)
    (x, y), (to, up) = start, end
    to, up = to + _ENTERS.get(edge.kind, 0.0), up + DOT
    bend = (y - up) / 2
    aside = -bend / 2 if start[0] == end[0] and y - up > ROW else 0.0  # past the dots of its own column
    path = f"M{x:.1f} {y:.1f}C{x + aside:.1f} {y - bend:.1f} {to + aside:.1f} {up + bend:.1f} {to:.1f} {up:.1f}"
    class_ = "arc against" if edge.score.mean < 0 else "arc"
    return element("path", tip, class_=class_, d=path, stroke_width=width, **links.of_label(edge.sender))


def _dot(name: str, role: str, x: float, y: float) -> Markup:
    about = links.of_label(name)
    tip = element("title", f"{name} ({called('role', role)})" if role else name)
    dot = element("circle", tip, class_="dot", cx=x, cy=y, r=DOT, **about)
    return dot + element("text", name, class_="tick strong halo", x=x + DOT + 3, y=y - 5, **about)
