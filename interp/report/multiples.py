"""Attention patterns of many heads as small multiples: layers down, heads across, each a square of few marks.

>>> weights = np.array([[[[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.2, 0.7, 0.1]]]])
>>> "L0H2: is reads cat, 0.70" in patterns(weights, layers=[0], heads=[2], tokens=["The", "cat", "is"], key="p")
True
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from interp.language import say
from interp.report.heat import CHARACTER, drawing
from interp.report.links import attributes
from interp.report.markup import element, figure_number
from interp.report.palette import Scale
from interp.report.words import spelled
from interp.sites import head_label

SCALE = Scale.rising(0, 1, units="share", name="attention weight")
"""What the colours of a pattern mean."""
WIDEST = 860.0
"""All heads of a layer together, at most."""
_CELLS = (2.0, 7.0)
"""The least and the most width of a cell."""
_GAP, _LEFT, _TOP = 10.0, 36.0, 34.0


def patterns(
    weights: Float[np.ndarray, "layer head dest src"],
    *,
    layers: Sequence[int],
    heads: Sequence[int],
    tokens: Sequence[str],
    key: str,
) -> Markup:
    """Draw every head's weights on one prompt.

    Args:
        weights: shares in [0, 1]; NaN draws nothing.
        layers: which layers these are.
        heads: which heads these are.
        tokens: of the prompt, both those that read (down) and those that are read (across).
        key: unique prefix of the element ids.
    """
    size = len(tokens)
    cell = min(_CELLS[1], max(_CELLS[0], ((WIDEST - _LEFT) / len(heads) - _GAP) / size))
    side = cell * size
    parts = [element("text", say("head"), class_="axis", x=_LEFT, y=11.0)]
    for j, head in enumerate(heads):
        x = _LEFT + j * (side + _GAP) + side / 2
        parts.append(element("text", str(head), class_="tick", x=x, y=26.0, text_anchor="middle"))
    for i, layer in enumerate(layers):
        y = _TOP + i * (side + _GAP)
        parts.append(element("text", str(layer), class_="tick", x=25.0, y=y + side / 2 + 4, text_anchor="middle"))
        for j, head in enumerate(heads):
            place = f"translate({_LEFT + j * (side + _GAP):.1f} {y:.1f}) scale({cell:.3f})"
            parts.append(_one(weights[i, j], head_label(layer, head), tokens, place))
    total = (max(_LEFT + len(heads) * (side + _GAP), 11 * CHARACTER), _TOP + len(layers) * (side + _GAP))
    turned = f"translate(11 {_TOP + side / 2:.1f}) rotate(-90)"
    parts.append(element("text", say("layer"), class_="axis", text_anchor="middle", transform=turned))
    said = say("Layers down, heads across; in each, rows read and columns are read.")
    return drawing(parts, total, key=key, title=say("Attention patterns"), description=said)


def one(weights: Float[np.ndarray, "dest src"], name: str, tokens: Sequence[str], *, key: str, title: str) -> Markup:
    """Draw one head's weights on one prompt, with its words; a row's tooltip says what it reads most.

    Args:
        weights: shares in [0, 1]; NaN draws nothing.
        name: the head's label.
        tokens: of the prompt.
        key: unique prefix of the element ids.
        title: the accessible name.
    """
    words = [spelled(text, first=i == 0) for i, text in enumerate(tokens)]
    cell = 18.0 if len(words) <= 40 else 13.0
    longest = max(map(len, words))
    left, top = 24.0 + longest * CHARACTER, 30.0 + longest * CHARACTER * 0.72
    side = cell * len(words)
    parts = [
        element("text", say("is read"), class_="axis", x=left, y=11.0),
        element("text", say("reads"), class_="axis", x=0.0, y=top - 6),
    ]
    for i, word in enumerate(words):
        middle = (i + 0.5) * cell
        place = f"translate({left + middle:.1f} {top - 6:.1f}) rotate(-46)"
        about = attributes({"position": i})
        parts.append(element("text", word, class_="tick", transform=place, **about))
        parts.append(element("text", word, class_="tick", x=left - 7, y=top + middle + 3.8, text_anchor="end", **about))
        row = f"translate({left:.1f} {top + i * cell:.1f}) scale({cell:.1f})"
        said = f"{name}: {_reads(weights[i], words, i)}"
        parts.append(element("g", element("title", said), *_marks(weights[i : i + 1, : i + 1]), transform=row))
    total = (left + side + longest * CHARACTER * 0.72, top + side + 6)
    return drawing(parts, total, key=key, title=title, description=title)


def _reads(weights: Float[np.ndarray, " src"], words: Sequence[str], i: int) -> str:
    """What a word reads most, with the weights."""
    order = [j for j in np.argsort(-np.nan_to_num(weights))[:3] if weights[j] >= 0.01]
    return f"{words[i]} {say('reads')} " + ", ".join(f"{words[j]} {figure_number(float(weights[j]), 2)}" for j in order)


def _one(weights: Float[np.ndarray, "dest src"], name: str, tokens: Sequence[str], place: str) -> Markup:
    """One head in the grid."""
    said = element("title", _most(weights, name, tokens))
    return element("g", said, *_marks(weights), transform=place, **attributes({"head": name}))


def _marks(weights: Float[np.ndarray, "dest src"]) -> list[Markup]:
    """A rectangle, and for each colour one path of all its cells, equal neighbours in one piece."""
    paths: dict[str, list[str]] = {}
    for row, line in enumerate(weights):
        column = 0
        for step, run in groupby(SCALE.step(float(value)) for value in line):
            width = len(list(run))
            if step not in ("void", SCALE.step(0.0)):
                paths.setdefault(step, []).append(f"M{column} {row}h{width}v1h-{width}z")
            column += width
    rows, columns = weights.shape
    ground = element("rect", class_=SCALE.step(0.0), width=columns, height=rows)
    return [ground, *(element("path", class_=step, d="".join(paths[step])) for step in sorted(paths))]


def _most(weights: Float[np.ndarray, "dest src"], name: str, tokens: Sequence[str]) -> str:
    """The head, and the largest weight of a word on another one."""
    other = np.where(np.eye(*weights.shape) > 0, np.nan, weights)
    other[:, 0] = np.nan  # the first token is where a head looks that looks nowhere
    if not np.isfinite(other).any():
        return name
    dest, src = divmod(int(np.nanargmax(other)), other.shape[1])
    weight = figure_number(float(weights[dest, src]), 2)
    return f"{name}: {spelled(tokens[dest])} {say('reads')} {spelled(tokens[src])}, {weight}"
