"""What the page draws, for the cell of a notebook: markup that brings its own style and changes no other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from interp import _files
from interp.errors import InterpError
from interp.language import say
from interp.report import figures, page, sheet
from interp.report.blocks import Block
from interp.report.markup import element, join

SCOPE = "interp-drawing"
"""The class of what stands in a cell; no rule of its style applies outside."""

_OWN = """
:root { color: var(--ink); background: var(--card); font: 14px/1.5 var(--sans); padding: 10px 12px; }
p { margin: 0 0 8px; max-width: 90ch; }
.more { color: var(--soft); font-size: 12px; }
.card { border: 0; padding: 0; margin: 0 0 10px; }
"""
"""Rules of a cell alone."""
_DARK = ('[data-jp-theme-light="false"]', ".vscode-dark", "[theme=dark]")
"""What JupyterLab, VS Code and Colab say of a dark window, whatever the system prefers."""


@dataclass(frozen=True, repr=False)
class Shown:
    """Something drawn: a notebook shows it by itself, and it can be kept as a file.

    Attributes:
        title: what it is, in a few words.
        body: its markup, without the style.
        drawing: the figure that ``svg`` and ``save`` give; None for what is words alone.
        names: the names of what could be drawn instead.
        language: of its words.

    >>> from interp.report.blocks import Prose
    >>> one = of_blocks("A word", [Prose(("Yes.",))])
    >>> one, "Yes." in one.html
    (Shown('A word'), True)
    """

    title: str
    body: Markup
    drawing: Markup | None = None
    names: tuple[str, ...] = ()
    language: str = "en"

    @property
    def html(self) -> str:
        """The markup with the style it needs, light and dark. No script, and nothing is fetched."""
        return str(_scoped(self.body, lang=self.language))

    @property
    def svg(self) -> str:
        """The figure as an SVG document that stands by itself, light.

        Raises:
            InterpError: there is no figure.
        """
        return figures.standalone(self._figure())

    def save(self, path: str | Path) -> Path:
        """Write it to a file, as the ending says: ``.svg`` or ``.png`` (the figure) or ``.html`` (all of it).

        Raises:
            InterpError: another ending, no figure, no font for a PNG, or a place that cannot be written.

        >>> import tempfile
        >>> from interp.report.blocks import Prose
        >>> with tempfile.TemporaryDirectory() as place:
        ...     of_blocks("A word", [Prose(("Yes.",))]).save(f"{place}/word.html").name
        'word.html'
        """
        where = Path(path)
        if where.suffix != ".html":
            return figures.write(self._figure(), where)
        document = f'<!doctype html>\n<html lang="{self.language}"><meta charset="utf-8">{self.html}</html>\n'
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            _files.write(where, document.encode("utf-8"))
        except OSError as error:
            why = _files.why(error)
            raise InterpError(f"Cannot write {where} ({why}). Give a place that can be written.") from error
        return where

    def _figure(self) -> Markup:
        if self.drawing is None:
            raise InterpError(f"{self.title} is shown in words, without a figure. Save it as .html.")
        return self.drawing

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        also = f", also: {', '.join(self.names)}" if self.names else ""
        return f"Shown({self.title!r}{also})"


def of_blocks(
    title: str,
    blocks: Sequence[Block],
    *,
    drawing: Markup | None = None,
    names: Sequence[str] = (),
    language: str = "en",
) -> Shown:
    """Blocks of the page for a cell, without the tables behind its figures.

    >>> from interp.report.blocks import Prose
    >>> of_blocks("A word", [Prose(("Yes.",))]).body.strip()
    Markup('<p class="prose">Yes.</p>')
    """
    body = join([page.block(one, numbers=False) for one in blocks])
    if names:
        body += element("p", say("also: show(..., name={names})", names=", ".join(map(repr, names))), class_="more")
    return Shown(title, _with_own_ids(body), drawing, tuple(names), language)


def spoken(text: str, drawing: Markup) -> Markup:
    """The body of a cell that is a sentence and a drawing.

    >>> spoken("Yes.", Markup("<svg></svg>"))
    Markup('<p>Yes.</p><div class="scroll" tabindex="0" role="group" aria-label="Yes."><svg></svg></div>')
    """
    scrolling = element("div", drawing, class_="scroll", tabindex=0, role="group", aria_label=text)
    return _with_own_ids(element("p", text) + scrolling)


def _scoped(body: Markup, lang: str | None = None) -> Markup:
    return element("div", element("style", Markup(style(body))), body, class_=SCOPE, lang=lang)


def _with_own_ids(body: Markup) -> Markup:
    """The same with ids that no other cell has: a notebook holds many drawings, and all names are escaped text."""
    own = f"i{hashlib.sha256(body.encode()).hexdigest()[:8]}-"

    def renamed(found: re.Match[str]) -> str:
        return f' {found[1]}="{" ".join(own + name for name in found[2].split())}"'

    plain = re.sub(r' data-[\w-]+="[^"]*"|<button\b.*?</button>', "", body)  # what only a script has a use for
    return Markup(re.sub(r' (id|aria-labelledby|aria-describedby)="([^"]*)"', renamed, plain))


# --- the style sheet of the page, for what stands in the cell alone ---


def style(body: Markup) -> str:
    """Those rules of the page's style sheet that may apply to some markup, within ``SCOPE`` alone, light and dark.

    >>> style(Markup('<p class="prose">Yes.</p>')).count("--card:")  # light, dark, and what the notebook itself says
    4
    """
    classes = {name for words in re.findall(r' class="([^"]*)"', body) for name in words.split()}
    names = {*re.findall(r"<([a-zA-Z0-9]+)", body)}
    light, dark, found = _sheet()
    rules = [
        f"{','.join(_inside(one) for one in kept)}{{{declarations}}}"
        for selectors, declarations in found
        if (kept := [one for one in selectors if _may_apply(one, classes, names)])
    ]
    used = _used("".join(rules), light)
    day, night = (";".join(f"{name}:{colours[name]}" for name in used if name in colours) for colours in (light, dark))
    scope = f".{SCOPE}"
    return "\n".join(
        (
            f"{scope}{{{day}}}",
            f"@media (prefers-color-scheme:dark){{{scope}{{{night}}}}}",
            f'[data-jp-theme-light="true"] {scope}{{{day}}}',
            f"{','.join(f'{window} {scope}' for window in _DARK)}{{{night}}}",
            *rules,
        )
    )


@cache
def _sheet() -> tuple[dict[str, str], dict[str, str], tuple[tuple[tuple[str, ...], str], ...]]:
    """The page's variables in light and in dark, and its rules that hold at any width: selectors and declarations."""
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    rules = []
    for selector, body in sheet.of_page():
        if selector == ":root":
            light |= sheet.variables(body)
        elif selector.startswith("@media") and "prefers-color-scheme" in selector and "dark" in selector:
            for inner, declarations in sheet.blocks(body):
                dark |= sheet.variables(declarations) if inner == ":root" else {}
        elif not selector.startswith("@"):
            rules.append((_selectors(selector), body.strip()))
    rules += [(_selectors(selector), body.strip()) for selector, body in sheet.blocks(_OWN)]
    return light, dark, tuple(rules)


def _selectors(text: str) -> tuple[str, ...]:
    return tuple(" ".join(one.split()) for one in text.split(","))


def _used(rules: str, variables: Iterable[str]) -> list[str]:
    wanted = {*re.findall(r"var\((--[\w-]+)\)", rules)}
    return [name for name in variables if name in wanted]


def _inside(selector: str) -> str:
    return f".{SCOPE}" if selector == ":root" else f".{SCOPE} {selector}"


def _may_apply(selector: str, classes: set[str], names: set[str]) -> bool:
    """Whether a selector's classes and elements are all there. What is said of a whole window is left out."""
    plain = re.sub(r"::?[\w-]+(\([^)]*\))?|\[[^]]*\]", "", selector)
    words = re.findall(r"([.#]?)([\w-]+)", plain)
    if not words:
        return selector == ":root"
    return all(word in (classes if mark == "." else names) and mark != "#" for mark, word in words)
