"""Pairs of numbers that should be equal: marks about a diagonal, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interp.language import say
from interp.report import links
from interp.report.heat import drawing
from interp.report.lines import Span, marker, tick_text, ticks
from interp.report.markup import element, figure_number


@dataclass(frozen=True)
class Mark:
    """One pair: across and upwards, what it is, and its tone."""

    across: float
    upwards: float
    name: str
    tone: str


def diagonal(
    marks: Sequence[Mark],
    *,
    across: str,
    upwards: str,
    key: str,
    title: str,
    description: str,
    slope: float = math.nan,
    side: float = 170.0,
) -> Markup:
    """Marks on two axes of one range, with the line on which both numbers are equal, and one of a slope through 0."""
    seen = [v for mark in marks for v in (mark.across, mark.upwards) if math.isfinite(v)]
    low, high = min([0.0, *seen]), max([0.0, *seen])
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin
    left, top = 58.0, 10.0
    right, bottom = left + side, top + side
    x, y = Span(low, high, left, right), Span(low, high, bottom, top)
    parts: list[Markup] = []
    for value in ticks(low, high, 4):
        parts.append(element("line", class_="grid", x1=x(value), x2=x(value), y1=top, y2=bottom))
        parts.append(element("line", class_="grid", x1=left, x2=right, y1=y(value), y2=y(value)))
        parts.append(element("text", tick_text(value), class_="tick", x=x(value), y=bottom + 15, text_anchor="middle"))
        parts.append(element("text", tick_text(value), class_="tick", x=left - 6, y=y(value) + 3.8, text_anchor="end"))
    parts.append(element("line", class_="line c", x1=x(low), y1=y(low), x2=x(high), y2=y(high)))
    if math.isfinite(slope):
        parts.append(_through_origin(slope, x, y))
    parts.append(element("text", across, class_="axis", x=(left + right) / 2, y=bottom + 31, text_anchor="middle"))
    middle = (top + bottom) / 2
    parts.append(
        element(
            "text",
            upwards,
            class_="axis",
            x=10.0,
            y=middle,
            text_anchor="middle",
            transform=f"rotate(-90 10 {middle:g})",
        )
    )
    for mark in marks:
        if math.isfinite(mark.across) and math.isfinite(mark.upwards):
            tip = say(
                "{name}: {exact} exact, {estimated} estimated",
                name=mark.name, exact=figure_number(mark.across, 3), estimated=figure_number(mark.upwards, 3),
            )  # fmt: skip
            parts.append(marker(mark.tone, x(mark.across), y(mark.upwards), tip, links.of_label(mark.name)))
    return drawing(parts, (right + 12, bottom + 38), key=key, title=title, description=description)


def _through_origin(slope: float, x: Span, y: Span) -> Markup:
    """The part of ``upwards = slope * across`` that lies within the axes."""
    first, last = sorted((x.low / slope, x.high / slope)) if slope else (x.low, x.high)
    ends = max(x.low, first), min(x.high, last)
    (x1, x2), (y1, y2) = map(x, ends), (y(slope * across) for across in ends)
    tip = element("title", say("slope {slope}", slope=figure_number(slope, 3)))
    return element("line", tip, class_="line e", x1=x1, y1=y1, x2=x2, y2=y2)
