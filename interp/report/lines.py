"""Dots, curves and bars with their intervals, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interp.language import say
from interp.report import links
from interp.report.heat import CHARACTER, drawing
from interp.report.markup import element, figure_number
from interp.report.tables import interval_text


@dataclass(frozen=True)
class Point:
    """A mean with its interval, over ``n`` (None: it is no mean); NaN bounds draw no interval."""

    mean: float
    low: float
    high: float
    n: int | None

    def tip(self, label: str) -> str:
        """What the tooltip of the point says."""
        text = f"{label}: {figure_number(self.mean, 4)} {interval_text(self.low, self.high, 3)}".rstrip()
        return text if self.n is None else f"{text}, n = {self.n}"


@dataclass(frozen=True)
class Series:
    """A named run of points, drawn in the tone ``a``, ``b``, ``c`` or ``d`` (each with its own marker and dash).

    ``guessed``: what guessing would give at each point, where that is drawn beside it.
    """

    name: str
    tone: str
    points: tuple[Point, ...]
    guessed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Level:
    """A level that curves are held against: its value, its name, and its tone (``c`` or ``f``)."""

    value: float
    name: str
    tone: str


@dataclass(frozen=True)
class Span:
    """A linear axis."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where a value lies; values beyond the ends stay at the ends."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round values within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count - 1, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's label: as few decimals as it needs."""
    if value == round(value):
        return figure_number(value, 0)
    return figure_number(value, max(2, 1 - math.floor(math.log10(abs(value))))).rstrip("0")


_MARKS = {"pass": "✓", "fail": "✗"}


def marker(tone: str, x: float, y: float, tip: str | None = None, about: Mapping[str, str] | None = None) -> Markup:
    """The mark of a tone: a disc (a), a diamond (b), a small bar (c), a square (d); ``about``: its attributes."""
    more = about or {}
    title = element("title", tip) if tip else Markup("")
    if tone == "b":
        return element("path", title, class_="dot b", d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", **more)
    if tone == "d":
        return element("rect", title, class_="dot d", x=x - 3.5, y=y - 3.5, width=7.0, height=7.0, **more)
    if tone == "c":
        return element("path", title, class_="dot c", d=f"M{x - 1.25:.2f} {y - 6:.1f}h2.5v12h-2.5z", **more)
    return element("circle", title, class_=f"dot {tone}", cx=x, cy=y, r=4.2, **more)


def dot_rows(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    low: float,
    high: float,
    key: str,
    title: str,
    description: str,
    badges: Sequence[tuple[str, str]] | None = None,
    width: float = 215.0,
) -> Markup:
    """One row per label, one dot with interval per series: the ladder of rungs.

    ``badges`` are written after each row: ``pass`` or ``fail``, and the words.
    """
    left = 14.0 + max((len(label) for label in labels), default=1) * 1.06 * CHARACTER
    right = left + width
    row, top = 18.0 + 13.0 * len(series), 12.0
    span = Span(low, high, left, right)
    bottom = top + row * len(labels)
    parts: list[Markup] = []
    for value in ticks(low, high):
        x = span(value)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=top, y2=bottom))
        parts.append(element("text", tick_text(value), class_="tick", x=x, y=bottom + 15, text_anchor="middle"))
    parts.append(element("text", axis, class_="axis", x=(left + right) / 2, y=bottom + 32, text_anchor="middle"))
    for i, label in enumerate(labels):
        y = top + i * row
        if i:
            parts.append(element("line", class_="rule", x1=0.0, x2=right, y1=y, y2=y))
        parts.append(element("text", label, class_="tick strong", x=left - 10, y=y + row / 2 + 4, text_anchor="end"))
        for s, one in enumerate(series):
            point, at = one.points[i], y + 15.5 + 13.0 * s
            if one.guessed and math.isfinite(one.guessed[i]):
                tip = say("{name}, guessing: {share}", name=one.name, share=figure_number(one.guessed[i], 3))
                parts.append(marker("c", span(one.guessed[i]), at, f"{label}, {tip}"))
            if not math.isfinite(point.mean):
                continue
            if math.isfinite(point.low) and math.isfinite(point.high):
                parts.append(
                    element("line", class_=f"whisker {one.tone}", x1=span(point.low), x2=span(point.high), y1=at, y2=at)
                )
            parts.append(
                marker(one.tone, span(point.mean), at, point.tip(f"{label}, {one.name}"), links.of_label(label))
            )
        if badges:
            kind, said = badges[i]
            word = f"{_MARKS[kind]} {said}"
            parts.append(element("text", word, class_=f"badge {kind}", x=right + 14, y=y + row / 2 + 4))
    total = right + (96 if badges else 14)
    return drawing(parts, (total, bottom + 40), key=key, title=title, description=description)


def curves(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    low: float,
    high: float,
    key: str,
    title: str,
    description: str,
    rules: Sequence[Level] = (),
    facet: str = "",
    width: float = 205.0,
    height: float = 140.0,
) -> Markup:
    """Lines over ordered labels (layers) with interval bands; ``rules`` are levels with their names.

    ``facet``: what the labels are, of ``interp.report.links.FACETS``, if any of them.
    """
    left, top = 34.0, 10.0
    right, bottom = left + width, top + height
    inset = min(18.0, width / (2 * max(len(labels), 1)))
    across = Span(0.0, max(len(labels) - 1.0, 1.0), left + inset, right - inset)
    up = Span(low, high, bottom, top)
    parts: list[Markup] = []
    for value in ticks(low, high):
        parts.append(element("line", class_="grid", x1=left, x2=right, y1=up(value), y2=up(value)))
        parts.append(element("text", tick_text(value), class_="tick", x=left - 6, y=up(value) + 3.8, text_anchor="end"))
    every = max(1, math.ceil(len(labels) * 20 / width))
    for i, label in enumerate(labels):
        if i % every == 0:
            parts.append(
                element(
                    "text",
                    label,
                    class_="tick",
                    x=across(i),
                    y=bottom + 15,
                    text_anchor="middle",
                    **links.attributes({facet: label}),
                )
            )
    parts.append(element("text", axis, class_="axis", x=(left + right) / 2, y=bottom + 31, text_anchor="middle"))
    for level in rules:
        if math.isfinite(level.value):
            title_, y = element("title", f"{level.name}: {figure_number(level.value, 4)}"), up(level.value)
            parts.append(element("line", title_, class_=f"line {level.tone}", x1=left, x2=right, y1=y, y2=y))
    for one in series:
        parts.extend(_curve(one, labels, across, up, axis, facet))
    return drawing(parts, (right + 8, bottom + 38), key=key, title=title, description=description)


def _curve(series: Series, labels: Sequence[str], across: Span, up: Span, axis: str, facet: str) -> list[Markup]:
    places = [(i, p) for i, p in enumerate(series.points) if math.isfinite(p.mean)]
    start = say("start")  # comes after no layer
    parts: list[Markup] = []
    band = [(i, p) for i, p in places if math.isfinite(p.low) and math.isfinite(p.high)]
    if len(band) > 1:
        edge = [(across(i), up(p.high)) for i, p in band] + [(across(i), up(p.low)) for i, p in reversed(band)]
        parts.append(element("path", class_=f"band {series.tone}", d=_path(edge) + "z"))
    elif band:
        i, p = band[0]
        parts.append(
            element("line", class_=f"whisker {series.tone}", x1=across(i), x2=across(i), y1=up(p.low), y2=up(p.high))
        )
    if len(places) > 1:
        parts.append(
            element("path", class_=f"line {series.tone}", d=_path([(across(i), up(p.mean)) for i, p in places]))
        )
    parts.extend(
        marker(
            series.tone,
            across(i),
            up(p.mean),
            p.tip(f"{labels[i] if labels[i] == start else f'{axis} {labels[i]}'}, {series.name}"),
            links.attributes({facet: labels[i]}),
        )
        for i, p in places
    )
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def bars(
    labels: Sequence[str],
    points: Sequence[Point],
    *,
    axis: str,
    key: str,
    title: str,
    description: str,
    tones: Sequence[str] | None = None,
    width: float = 430.0,
) -> Markup:
    """Horizontal bars from zero with intervals and their values; ``tones`` add a class per bar."""
    reach = [v for p in points for v in (p.mean, p.low, p.high) if math.isfinite(v)]
    low, high = min([0.0, *reach]), max([0.0, *reach])
    low, high = (low, high) if high > low else (0.0, 1.0)
    left, row, top = 12.0 + max((len(label) for label in labels), default=1) * CHARACTER, 19.0, 6.0
    right = left + width
    span = Span(low, high, left, right)
    bottom = top + row * len(labels)
    parts: list[Markup] = []
    for value in ticks(low, high, 6):
        parts.append(element("line", class_="grid", x1=span(value), x2=span(value), y1=top, y2=bottom))
        parts.append(
            element("text", tick_text(value), class_="tick", x=span(value), y=bottom + 15, text_anchor="middle")
        )
    parts.append(element("text", axis, class_="axis", x=(left + right) / 2, y=bottom + 32, text_anchor="middle"))
    for i, (label, point) in enumerate(zip(labels, points, strict=True)):
        y = top + i * row
        parts.append(
            element(
                "text",
                label,
                class_="tick",
                x=left - 7,
                y=y + row / 2 + 3.8,
                text_anchor="end",
                **links.of_label(label),
            )
        )
        if not math.isfinite(point.mean):
            continue
        edges = sorted((span(0.0), span(point.mean)))
        tone = (tones[i] if tones else "") or ("positive" if point.mean >= 0 else "negative")
        tip = element("title", point.tip(label))
        parts.append(
            element(
                "rect",
                tip,
                class_=f"bar {tone}",
                x=edges[0],
                y=y + 3,
                width=max(edges[1] - edges[0], 0.8),
                height=row - 6,
                rx=1,
                **links.of_label(label),
            )
        )
        if math.isfinite(point.low) and math.isfinite(point.high):
            parts.append(
                element(
                    "line",
                    class_="whisker ink",
                    x1=span(point.low),
                    x2=span(point.high),
                    y1=y + row / 2,
                    y2=y + row / 2,
                )
            )
        parts.append(element("text", figure_number(point.mean, 2), class_="tick", x=right + 10, y=y + row / 2 + 3.8))
    zero = span(0.0)
    parts.append(element("line", class_="zero", x1=zero, x2=zero, y1=top, y2=bottom))
    return drawing(parts, (right + 58, bottom + 40), key=key, title=title, description=description)


def line_legend(entries: Sequence[tuple[str, str]], *, key: str, units: str = "") -> Markup:
    """Names of tones: ``(name, tone)``; ``c``, ``f`` are levels, ``e`` a fit, ``mark`` a bar, ``band`` an interval."""
    parts: list[Markup] = []
    x = 2.0
    for name, tone in entries:
        if tone == "mark":
            parts.append(marker("c", x + 13, 12.0))
        elif tone == "band":
            parts.append(element("line", class_="whisker ink", x1=x, x2=x + 26, y1=12.0, y2=12.0))
        else:
            parts.append(element("line", class_=f"line {tone}", x1=x, x2=x + 26, y1=12.0, y2=12.0))
            if tone not in ("c", "e", "f"):
                parts.append(marker(tone, x + 13, 12.0))
        parts.append(element("text", name, class_="tick", x=x + 33, y=15.8))
        x += 33 + len(name) * CHARACTER + 24
    if units:
        parts.append(element("text", units, class_="axis", x=x, y=15.8))
        x += len(units) * CHARACTER + 12
    names = ", ".join(name for name, _ in entries)
    return drawing(parts, (x, 24.0), key=key, title=say("Legend"), description=names, class_="plot legend")
