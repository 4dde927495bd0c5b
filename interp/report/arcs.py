"""The picture of a sentence: its tokens across, layers up, and an arc for what a head takes from one word to another.

>>> arc = Arc("L1H0", 1, 1, 0.4)
>>> drawn = sentence(["The", " cat", " is"], source=(1, 2), target=(2, 3), arcs=[arc], n_layers=2, key="picture")
>>> drawn.count("<path"), "L1H0" in drawn
(1, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interp.report import links
from interp.report.heat import CHARACTER, drawing
from interp.report.markup import element, figure_number, token

THICKEST = 9.0
"""Width of the line of an effect of 1."""
TALLEST = 300.0
"""Height of all layers together, at most."""


@dataclass(frozen=True)
class Arc:
    """What one head takes from one position to the target.

    Attributes:
        head: its label.
        layer: its layer.
        position: where it takes it from.
        size: how much of the whole difference at the target it brings from there; 1 is all of it.
        tip: what its tooltip says beside head and size.
    """

    head: str
    layer: int
    position: int
    size: float
    tip: str = ""


def sentence(
    tokens: Sequence[str],
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    arcs: Sequence[Arc],
    n_layers: int,
    key: str,
    title: str = "What reaches the word",
) -> Markup:
    """Draw a sentence and the arcs into its target.

    Args:
        tokens: the sentence.
        source: positions of the word that is exchanged, half open.
        target: positions of the word that is asked about, half open.
        arcs: what is drawn; none draws one thin grey line that says so.
        n_layers: layers of the model.
        key: unique on the page.
        title: the accessible name.
    """
    words = [token(text) for text in tokens]
    widths = [max(2, len(word)) * CHARACTER + 10 for word in words]
    left = 52.0
    starts = [left + sum(widths[:i]) for i in range(len(widths))]
    middle = [start + width / 2 for start, width in zip(starts, widths, strict=True)]
    row = min(34.0, TALLEST / max(n_layers, 1))
    top, right = 34.0, left + sum(widths) + 64
    floor = top + row * n_layers
    parts: list[Markup] = []
    step = max(1, round(18 / row))
    for layer in range(n_layers):
        y = _height(layer, n_layers, row, top)
        if layer % step == 0:
            parts.append(
                element("text", f"layer {layer}", class_="tick", x=0.0, y=y + 4, **links.attributes({"layer": layer}))
            )
        parts.append(element("line", class_="grid", x1=left, x2=right - 64, y1=y, y2=y))
    for (first, last), role in ((source, "source"), (target, "target")):
        x = sum(middle[first:last]) / (last - first)
        parts.append(element("line", class_=f"column {role}", x1=x, x2=x, y1=top, y2=floor + 8))
    for i, word in enumerate(words):
        role = next((name for (a, b), name in ((source, "source"), (target, "target")) if a <= i < b), "")
        parts.append(
            element(
                "text",
                word,
                class_=f"word {role}".strip(),
                x=middle[i],
                y=floor + 24,
                text_anchor="middle",
                **links.attributes({"position": i}),
            )
        )
    end = middle[target[1] - 1]
    for arc in sorted(arcs, key=lambda one: one.size):
        parts.append(_arc(arc, middle[arc.position], end, _height(arc.layer, n_layers, row, top), row))
    if not arcs:
        start = middle[source[0]]
        parts.append(element("path", class_="arc none", d=_curve(start, end, floor, min(60.0, row * n_layers))))
        parts.append(
            element("text", "nothing", class_="tick", x=(start + end) / 2, y=floor - 40.0, text_anchor="middle")
        )
    named: dict[int, list[str]] = {}
    for arc in sorted(arcs, key=lambda one: -one.size):
        label = arc.head
        if label not in named.setdefault(arc.layer, []):
            named[arc.layer].append(label)
    for layer, labels in named.items():
        text = ", ".join(labels[:3]) + ("…" if len(labels) > 3 else "")
        y = _height(layer, n_layers, row, top)
        parts.append(element("text", text, class_="tick strong", x=end + 8, y=y + 4))
    said = "; ".join(f"{arc.head} from {words[arc.position]}: {figure_number(arc.size, 2)}" for arc in arcs)
    longest = max((len(", ".join(labels[:3])) + 1 for labels in named.values()), default=0)
    wide = max(right, end + 12 + 1.06 * CHARACTER * longest)  # names are set a little larger
    return drawing(
        parts, (wide, floor + 36), key=key, title=title, description=said or "Nothing arrives.", class_="plot sentence"
    )


def _height(layer: int, n_layers: int, row: float, top: float) -> float:
    return top + row * (n_layers - layer - 0.5)


def _arc(arc: Arc, start: float, end: float, y: float, row: float) -> Markup:
    tip = f"{arc.head}: {figure_number(arc.size, 3)}{f' ({arc.tip})' if arc.tip else ''}"
    title = element("title", tip)
    about = links.attributes({"head": arc.head, "position": arc.position})
    width = max(0.8, THICKEST * min(1.0, abs(arc.size)))
    if start == end:
        return element("circle", title, class_="arc own", cx=end, cy=y, r=max(2.5, width / 1.6), **about)
    return element(
        "path", title, class_="arc", d=_curve(start, end, y, min(26.0, row * 0.9)), stroke_width=width, **about
    )


def _curve(start: float, end: float, y: float, rise: float) -> str:
    shift, top = (end - start) / 4, f"{y - rise:.1f}"
    return f"M{start:.1f} {y:.1f}C{start + shift:.1f} {top} {end - shift:.1f} {top} {end:.1f} {y:.1f}"
