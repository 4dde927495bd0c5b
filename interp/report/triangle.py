"""An attention pattern as inline SVG: who reads whom, below the diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from interp.language import say
from interp.report import links
from interp.report.heat import CHARACTER, drawing
from interp.report.markup import element, figure_number
from interp.report.palette import Scale

SIDE = 15.0
"""Side of a cell in SVG units, for up to ``LARGE`` words; half of it beyond."""
LARGE = 64


def pattern(
    words: Sequence[str], weights: np.ndarray, scale: Scale, *, key: str, title: str, description: str
) -> Markup:
    """Draw a pattern: rows read, columns are read.

    Cells of the first colour are left to the ground they stand on, since there are many.

    Args:
        words: the tokens, as words.
        weights: dest, src; shares in [0, 1]. Only the lower triangle is drawn.
        scale: what the colours mean.
        key: unique prefix of the element ids.
        title: accessible name.
        description: accessible description.

    >>> drawn = pattern(["a", "b"], np.array([[1, 0], [0, 1]]), Scale.rising(0, 1, units="share", name="weight"),
    ...                 key="k", title="t", description="d")
    >>> drawn.count("<rect"), "b reads b: 1.00" in drawn
    (2, True)
    """
    side = SIDE if len(words) <= LARGE else SIDE / 2
    longest = max((len(word) for word in words), default=1) * CHARACTER + 8
    size = longest + side * len(words)
    ground = f"M{longest:g} {longest:g}{_stairs(longest, side, len(words))}z"
    parts = [element("path", class_=scale.step(scale.low), d=ground)]
    for i, word in enumerate(words):
        about, along = links.attributes({"position": i}), longest + (i + 0.5) * side
        parts.append(element("text", word, class_="tick", x=longest - 5, y=along + 4, text_anchor="end", **about))
        turned = f"translate({along + 4:.1f} {longest - 5:.1f}) rotate(-90)"
        parts.append(element("text", word, class_="tick", transform=turned, **about))
        for j in range(i + 1):
            step = scale.step(float(weights[i, j]))
            if step == scale.step(scale.low):
                continue
            weight = figure_number(float(weights[i, j]), 2)
            tip = say("{dest} reads {src}: {weight}", dest=word, src=words[j], weight=weight)
            parts.append(
                element(
                    "rect", element("title", tip), class_=step, x=longest + j * side + 0.5, y=longest + i * side + 0.5,
                    width=side - 1, height=side - 1,
                )
            )  # fmt: skip
    return drawing(parts, (size, size), key=key, title=title, description=description)


def _stairs(start: float, side: float, count: int) -> str:
    """The outline of the lower triangle from its upper left corner, clockwise, without the first point."""
    steps = "".join(f"H{start + (i + 1) * side:g}V{start + (i + 1) * side:g}" for i in range(count))
    return f"{steps}H{start:g}"
