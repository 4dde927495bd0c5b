"""The figures of a page as files of their own: SVG that any program draws alike, and PNG made from it.

A drawing on the page takes its colours and fonts from the page's style sheet. Here each gets the rules that it needs,
light and with their variables filled in, so that it stands by itself in a paper or on a slide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

from interp import _files
from interp.errors import InterpError, shown
from interp.report import sheet
from interp.report.blocks import Figure, Panel
from interp.report.markup import element, join
from interp.report.page import Drawn

FOLDER = "figures"
"""Where the figures of a run lie, in its directory."""
ZOOM = 2
"""Pixels of a PNG per unit of the drawing."""
_FAMILIES = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans", "Noto Sans", "FreeSans", "Open Sans", "Ubuntu")
NO_FONT = (
    "This machine has no font that a PNG could be drawn with, so there is SVG alone. Install DejaVu or Liberation."
)

_WIDTH = 900.0
"""Panels stand beside each other up to this width; a wider one has a row to itself."""
_MARGIN, _GAP = 14.0, 26.0
_LETTER = 0.56
"""Width of a letter of a title over its size, on average: enough to leave room for it."""
_WORDS = """
.figure-name { font: 600 14px var(--sans); fill: var(--ink); }
.panel-name { font: 600 12px var(--sans); fill: var(--ink); }
.panel-detail { font: 11px var(--sans); fill: var(--soft); }
.background { fill: var(--card); }
.plot .badge { font-family: "DejaVu Sans", var(--sans); }
"""
"""Rules of these files alone. A badge begins with a check mark, which few fonts have: one that has it draws it all."""
_SIZES = {"figure-name": 14.0, "panel-name": 12.0, "panel-detail": 11.0}
_TITLES = ("panel-name", "panel-detail")


def write_all(drawn: Drawn, directory: Path) -> None:
    """Write every figure of a page to ``DIR/figures``, as SVG and, where there is a font, PNG under the figure's key.

    Raises:
        InterpError: a directory that cannot be written.

    >>> import tempfile
    >>> import xarray as xr
    >>> from interp.report import inputs
    >>> made = xr.Dataset({"effect": (("prompt", "layer"), [[1.0, 3.0]], {"units": "logits", "long_name": "effect"})})
    >>> drawn = Drawn.of(inputs.RunInputs({"effect": inputs.Result("effect", made)}, {}, {}, ""))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_all(drawn, Path(place))
    ...     (Path(place) / FOLDER / "result-effect-0.svg").is_file()
    True
    """
    endings = (".svg", ".png") if can_draw_text() else (".svg",)
    for key, drawing in of_page(drawn).items():
        for ending in endings:
            write(drawing, directory / FOLDER / f"{key}{ending}")


def write(drawing: Markup, path: str | Path) -> Path:
    """Write one drawing to a file, as its ending says: ``.svg`` or ``.png``.

    Args:
        drawing: an ``<svg>`` of this package.
        path: the file; its directory is made if need be.

    Raises:
        InterpError: another ending, no font for a PNG, or a place that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write(Markup('<svg width="9" height="9"></svg>'), f"{place}/one.svg").name
    'one.svg'
    """
    where = Path(path)
    document = standalone(drawing)
    if where.suffix == ".svg":
        content = document.encode("utf-8")
    elif where.suffix == ".png":
        content = png(document)
    else:
        raise InterpError(
            f"A figure is written as .svg or .png, not as {shown(where.name)}. Give one of these endings."
        )
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        _files.write(where, content)
    except OSError as error:
        raise InterpError(f"Cannot write {where} ({_files.why(error)}). Give a place that can be written.") from error
    return where


def of_page(drawn: Drawn) -> dict[str, Markup]:
    """Every figure of the page of a run that is a drawing, by its key.

    >>> import xarray as xr
    >>> from interp.report import inputs
    >>> made = xr.Dataset({"effect": (("prompt", "layer"), [[1.0, 3.0]], {"units": "logits", "long_name": "effect"})})
    >>> list(of_page(Drawn.of(inputs.RunInputs({"effect": inputs.Result("effect", made)}, {}, {}, ""))))
    ['result-effect-0']
    """
    first = drawn.head.picture
    pictures = {} if first is None else {"picture": first}
    blocks = [block for section in drawn.sections for block in section.blocks if isinstance(block, Figure)]
    others = ((_file_name(block.key), whole(block)) for block in blocks)
    return pictures | {key: drawing for key, drawing in others if drawing is not None}


def whole(figure: Figure) -> Markup | None:
    """The panels of a figure with their titles and legends, as one drawing; None if none of them is a drawing.

    >>> panel = Panel("left", Markup('<svg width="20" height="10" viewBox="0 0 20 10"></svg>'))
    >>> from interp.report.tables import Table
    >>> "left" in whole(Figure("one", "One", "", (panel,), (Table("", (), ()),)))
    True
    """
    panels = [panel for panel in figure.panels if _is_drawing(panel.body)]
    if not panels:
        return None
    placed = list(_rows([piece for panel in panels for piece in _stacks(panel)]))
    pieces = [_Piece.words(figure.title, "figure-name")]
    head = pieces[0].height + 8
    width = max(pieces[0].width, *(x + each.width for x, _, each in placed))
    height = head + max(y + each.height for _, y, each in placed)
    body = [pieces[0].at(0.0, 0.0), *(each.at(x, head + y) for x, y, each in placed)]
    if figure.legend is not None and _is_drawing(figure.legend):
        legend = _Piece.drawing(figure.legend)
        body.append(legend.at(0.0, height + 10))
        width, height = max(width, legend.width), height + 10 + legend.height
    return _root(body, width, height)


def standalone(drawing: Markup) -> str:
    """A drawing as an SVG document: its name space, a background, and the rules of the page that it needs.

    >>> text = standalone(Markup('<svg class="plot" width="9" height="9"><text class="tick">1</text></svg>'))
    >>> 'xmlns="http://www.w3.org/2000/svg"' in text, "var(" in text, ".plot .tick" in text
    (True, False, True)
    """
    piece = _Piece.drawing(drawing)
    width, height = piece.width + 2 * _MARGIN, piece.height + 2 * _MARGIN
    body = element("rect", class_="background", width="100%", height="100%") + piece.at(_MARGIN, _MARGIN)
    style = element("style", rules(body))
    attributes = {"xmlns": "http://www.w3.org/2000/svg", **_size(width, height)}
    return str(element("svg", style, body, **attributes)) + "\n"


def png(document: str) -> bytes:
    """An SVG document as a PNG of twice its size.

    Raises:
        InterpError: the machine has no font to draw its text with.

    >>> png(standalone(Markup('<svg width="9" height="9"></svg>')))[1:4]
    b'PNG'
    """
    if "<text" in document and not can_draw_text():
        raise InterpError(NO_FONT)
    return _rasterized(document, _sans_serif(), ZOOM)


def can_draw_text() -> bool:
    """Whether this machine has a font that text in a PNG is drawn with.

    >>> can_draw_text() in (True, False)
    True
    """
    return _sans_serif() is not None


@cache
def _sans_serif() -> str | None:
    """The family that ``sans-serif`` is drawn with: the first of a few that this machine has.

    The renderer takes no family by itself where its own default (Arial) is not installed.
    """

    def drawn(text: str, family: str) -> bytes:
        words = _root([_Piece.words(text, "panel-name").at(0, 0)], 40, 16)
        return _rasterized(standalone(words), family, zoom=1)

    return next((family for family in _FAMILIES if drawn("M", family) != drawn(" ", family)), None)


def _rasterized(document: str, sans_serif: str | None, zoom: int) -> bytes:
    import resvg_py  # a library of its own weight: loaded where a PNG is asked for

    return bytes(resvg_py.svg_to_bytes(svg_string=document, zoom=zoom, sans_serif_family=sans_serif))


# --- laying out ---


@dataclass(frozen=True)
class _Piece:
    """Something to place: its markup at the origin, and its size."""

    body: Markup
    width: float
    height: float
    own_row: bool = False

    @classmethod
    def drawing(cls, drawing: Markup) -> _Piece:
        root = ElementTree.fromstring(str(drawing))
        width, height = (float(root.get(side, "nan")) for side in ("width", "height"))
        return cls(drawing, width, height)

    @classmethod
    def words(cls, text: str, kind: str) -> _Piece:
        size = _SIZES[kind]
        return cls(element("text", text, class_=kind, x=0.0, y=size), len(text) * size * _LETTER, size * 1.35)

    def at(self, x: float, y: float) -> Markup:
        """The piece at a place: a group, which any program moves as a whole."""
        return element("g", self.body, transform=f"translate({x:.1f} {y:.1f})")


def _stacks(panel: Panel) -> Iterator[_Piece]:
    """The heading of the panels that begin here, if any; then a panel's titles, drawing and legend in one piece."""
    if panel.group:
        yield replace(_Piece.words(panel.group, "panel-name"), own_row=True)
    pieces = [
        _Piece.words(text, kind) for text, kind in zip((panel.title, panel.subtitle), _TITLES, strict=True) if text
    ]
    pieces.append(_Piece.drawing(panel.body))
    if panel.legend is not None and _is_drawing(panel.legend):
        pieces.append(_Piece.drawing(panel.legend))
    y, body = 0.0, []
    for piece in pieces:
        body.append(piece.at(0.0, y))
        y += piece.height + 3
    yield _Piece(join(body), max(piece.width for piece in pieces), y, own_row=panel.wide)


def _rows(pieces: Sequence[_Piece]) -> Iterator[tuple[float, float, _Piece]]:
    """Each piece with its place: beside the last one, as far as there is room."""
    x = y = tallest = 0.0
    for piece in pieces:
        if x and (piece.own_row or x + piece.width > _WIDTH):
            x, y, tallest = 0.0, y + tallest + _GAP / 2, 0.0
        yield x, y, piece
        x, tallest = (_WIDTH if piece.own_row else x + piece.width + _GAP), max(tallest, piece.height)


def _root(body: Sequence[Markup], width: float, height: float) -> Markup:
    return element("svg", join(list(body)), **_size(width, height))


def _size(width: float, height: float) -> dict[str, str]:
    return {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewbox": f"0 0 {width:.0f} {height:.0f}"}


def _is_drawing(body: Markup) -> bool:
    return str(body).startswith("<svg")


def _file_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", key)


# --- the rules of the page that a drawing needs ---


def rules(drawing: Markup) -> str:
    """The rules of the page's style sheet that apply to a drawing, light, without a variable left.

    >>> rules(Markup('<svg class="plot"><line class="zero"></line></svg>')).splitlines()[-1]
    '.plot .zero{stroke:#59626d; stroke-width:1}'
    """
    root = ElementTree.fromstring(f"<g>{drawing}</g>")
    classes = {name for node in root.iter() for name in node.get("class", "").split()}
    names = {node.tag for node in root.iter()}
    variables, found = _sheet()
    kept = []
    for selector, body in found:
        wanted = [each for each in selector.split(",") if _applies(each, classes, names)]
        if wanted:
            kept.append(f"{','.join(each.strip() for each in wanted)}{{{_filled(body, variables)}}}")
    return "\n".join(kept)


def _applies(selector: str, classes: set[str], names: set[str]) -> bool:
    """Whether a plain selector of classes and elements may match; pseudo-classes and the like are left out."""
    if re.search(r"[^\w\s.-]", selector):
        return False
    words = re.findall(r"(\.?)([\w-]+)", selector)
    return all(word in (classes if dot else names) for dot, word in words)


@cache
def _sheet() -> tuple[Mapping[str, str], Sequence[tuple[str, str]]]:
    """The light variables of the page, and its rules outside of media queries, in order."""
    variables: dict[str, str] = {}
    found = []
    for selector, body in (*sheet.of_page(), *sheet.blocks(_WORDS)):
        if selector == ":root":
            variables |= sheet.variables(body)
        elif not selector.startswith("@"):
            found.append((selector, re.sub(r"\s*:\s*", ":", body.strip().rstrip(";"))))
    return variables, found


def _filled(body: str, variables: Mapping[str, str]) -> str:
    """Declarations with each ``var(--name)`` replaced by its value."""
    return re.sub(r"var\((--[\w-]+)\)", lambda found: _filled(variables[found[1]], variables), body)
