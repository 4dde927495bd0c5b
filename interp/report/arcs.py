"""The picture of a sentence: its tokens across, layers up, and an arc for what a head takes from one word to another.

>>> arc = Arc("L1H0", 1, 1, 2, 0.4)
>>> drawn = flow([Word("The"), Word(" cat", "source"), Word(" is", "target")], [arc], n_layers=2, key="picture")
>>> drawn.count("<path"), "L1H0" in drawn
(1, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from interp.language import called, of_prompts, say
from interp.report import links
from interp.report.heat import CHARACTER, drawing
from interp.report.markup import element, figure_number, token

THICKEST = 9.0
"""Width of the line of an effect of 1."""
WHOLE, NEAR = 32, 6
"""A sentence of more tokens is drawn only where an arc, the source or the target is within so many of them."""
TALLEST = 300.0
"""Height of all layers together, at most."""
_LINE = 12.0
"""Names beside one word stand at least so far below one another."""
_NAMED = 3
"""So many heads of one layer are named beside their end; dots stand for the rest."""


@dataclass(frozen=True)
class Word:
    """One word or token of the picture.

    Attributes:
        text: as it stands in the sentence.
        kind: ``source`` or ``target`` (marked by colour and a line upwards), or empty.
        role: stands below it.
        position: of its token in the prompt, where it is one.
    """

    text: str
    kind: str = ""
    role: str = ""
    position: int | None = None


@dataclass(frozen=True)
class Arc:
    """What one head takes from one position to another.

    Attributes:
        head: its label.
        layer: its layer.
        start: where it takes it from.
        end: where it brings it.
        size: how much of the whole difference it brings; 1 is all of it. The line is as thick.
        tip: what its tooltip says beside head and size.
        note: what stands behind its name in the picture, such as a number.
    """

    head: str
    layer: int
    start: int
    end: int
    size: float
    tip: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """Its name in the picture."""
        return f"{self.head} {self.note}".rstrip()


@dataclass(frozen=True)
class Faint:
    """A way on which little or nothing goes: one thin grey line with its number or word."""

    start: int
    end: int
    text: str


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
    """Draw a sentence and the arcs into its target; without arcs, one thin line that says that nothing arrives.

    Args:
        tokens: the sentence.
        source: positions of the word that is exchanged, half open.
        target: positions of the word that is asked about, half open.
        arcs: what is drawn.
        n_layers: layers of the model.
        key: unique on the page.
        title: the accessible name.
    """
    kinds = dict.fromkeys(range(*target), "target") | dict.fromkeys(range(*source), "source")
    places = _near(len(tokens), [*kinds, *(end for arc in arcs for end in (arc.start, arc.end))])
    words = [Word("…") if i is None else Word(tokens[i], kinds.get(i, ""), position=i) for i in places]
    at = {i: place for place, i in enumerate(places) if i is not None}
    nothing = () if arcs else (Faint(at[source[0]], at[target[1] - 1], say("nothing")),)
    drawn = [replace(arc, start=at[arc.start], end=at[arc.end]) for arc in arcs]
    return flow(words, drawn, faint=nothing, n_layers=n_layers, key=key, title=title)


def _near(n: int, marked: Iterable[int]) -> list[int | None]:
    """The tokens that are drawn; None in the place of those that are left out.

    >>> _near(4, [0]), _near(100, [0, 99])[5:10]
    ([0, 1, 2, 3], [5, 6, None, 93, 94])
    """
    if n <= WHOLE:
        return list(range(n))
    kept = sorted({i for at in marked for i in range(max(0, at - NEAR), min(n, at + NEAR + 1))})
    places: list[int | None] = []
    for before, i in zip([-1, *kept], [*kept, n], strict=True):
        places += [None] * (i > before + 1)
        places += [i] * (i < n)
    return places


@dataclass(frozen=True)
class _Plane:
    """Where words and layers lie."""

    middle: tuple[float, ...]
    n_layers: int
    row: float
    left: float
    right: float
    top: float = 22.0

    @classmethod
    def of(cls, words: Sequence[Word], n_layers: int) -> _Plane:
        left, middle = 52.0, []
        right = left
        for word in words:
            width = max(2, len(token(word.text)), len(word.role)) * CHARACTER + 10
            middle.append(right + width / 2)
            right += width
        return cls(tuple(middle), n_layers, min(34.0, TALLEST / max(n_layers, 1)), left, right)

    @property
    def floor(self) -> float:
        return self.top + self.row * self.n_layers

    def height(self, layer: int) -> float:
        return self.top + self.row * (self.n_layers - layer - 0.5)


def flow(
    words: Sequence[Word],
    arcs: Sequence[Arc],
    *,
    faint: Sequence[Faint] = (),
    n_layers: int,
    key: str,
    title: str = "What reaches the word",
) -> Markup:
    """Draw words and what heads take from one to another.

    Args:
        words: in reading order.
        arcs: what is drawn, at the head's layer.
        faint: ways on which nothing goes, drawn thin, grey and dashed.
        n_layers: layers of the model.
        key: unique on the page.
        title: the accessible name.
    """
    plane = _Plane.of(words, n_layers)
    parts = [*_layers(plane), *_words(words, plane)]
    parts += [_faint(one, plane) for one in faint]
    parts += [_arc(arc, plane, words) for arc in sorted(arcs, key=lambda one: one.size)]
    wide = plane.right + 8
    free: dict[int, float] = {}
    for (end, layer), labels in sorted(_labels(arcs).items(), key=lambda one: -one[0][1]):
        text = ", ".join(labels[:_NAMED]) + ("…" if len(labels) > _NAMED else "")
        x, y = plane.middle[end] + 8, max(plane.height(layer) + 4, free.get(end, 0.0))
        free[end] = y + _LINE
        parts.append(element("text", text, class_="tick strong halo", x=x, y=y))
        wide = max(wide, x + 4 + 1.06 * CHARACTER * len(text))  # names are set a little larger
    named = any(word.role for word in words)
    texts = [token(word.text) for word in words]
    said = [f"{arc.head}: {texts[arc.start]} → {texts[arc.end]}, {figure_number(arc.size, 2)}" for arc in arcs]
    said += [f"{texts[one.start]} → {texts[one.end]}: {one.text}" for one in faint]
    size = (wide, plane.floor + (52 if named else 36))
    return drawing(parts, size, key=key, title=title, description="; ".join(said), class_="plot sentence")


def _layers(plane: _Plane) -> list[Markup]:
    parts, step = [], max(1, round(18 / plane.row))
    for layer in range(plane.n_layers):
        y = plane.height(layer)
        if layer % step == 0:
            text = say("layer {layer}", layer=layer)
            parts.append(element("text", text, class_="tick", x=0.0, y=y + 4, **links.attributes({"layer": layer})))
        parts.append(element("line", class_="grid", x1=plane.left, x2=plane.right, y1=y, y2=y))
    return parts


def _words(words: Sequence[Word], plane: _Plane) -> list[Markup]:
    parts = []
    for word, x in zip(words, plane.middle, strict=True):
        if word.kind:
            parts.append(element("line", class_=f"column {word.kind}", x1=x, x2=x, y1=plane.top, y2=plane.floor + 8))
        about = links.attributes({"position": word.position, "role": word.role or None})
        if word.role:
            role = element(
                "text", called("role", word.role), class_="role", x=x, y=plane.floor + 40, text_anchor="middle", **about
            )
            parts.append(role)
        class_ = f"word {word.kind}".strip()
        parts.append(
            element(
                "text",
                token(word.text),
                class_=class_,
                x=x,
                y=plane.floor + 24,
                text_anchor="middle",
                lang=of_prompts(),
                **about,
            )
        )
    return parts


def _labels(arcs: Sequence[Arc]) -> dict[tuple[int, int], list[str]]:
    """Names by the word and the layer where the arcs end, the larger first."""
    found: dict[tuple[int, int], list[str]] = {}
    for arc in sorted(arcs, key=lambda one: -one.size):
        labels = found.setdefault((arc.end, arc.layer), [])
        if arc.label not in labels:
            labels.append(arc.label)
    return found


def _faint(one: Faint, plane: _Plane) -> Markup:
    start, end, low = plane.middle[one.start], plane.middle[one.end], plane.floor + 4
    line = element("path", class_="arc none", d=_curve(start, end, low, 14.0))
    return line + element("text", one.text, class_="tick halo", x=end + 6, y=low)


def _arc(arc: Arc, plane: _Plane, words: Sequence[Word]) -> Markup:
    tip = f"{arc.head}: {figure_number(arc.size, 3)}{f' ({arc.tip})' if arc.tip else ''}"
    title = element("title", tip)
    width = max(0.8, THICKEST * min(1.0, abs(arc.size)))
    start, end, y = plane.middle[arc.start], plane.middle[arc.end], plane.height(arc.layer)
    about = links.attributes({"head": arc.head, "position": words[arc.start].position})
    if start == end:
        return element("circle", title, class_="arc own", cx=end, cy=y, r=max(2.5, width / 1.6), **about)
    rise = min(26.0, plane.row * 0.9)
    return element("path", title, class_="arc", d=_curve(start, end, y, rise), stroke_width=width, **about)


def _curve(start: float, end: float, y: float, rise: float) -> str:
    shift, top = (end - start) / 4, f"{y - rise:.1f}"
    return f"M{start:.1f} {y:.1f}C{start + shift:.1f} {top} {end - shift:.1f} {top} {end:.1f} {y:.1f}"
