"""The templates of the pages, and what they may call."""

from __future__ import annotations

from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from interp.language import called, of_prompts, of_text, say
from interp.report import links, packed, terms
from interp.report.markup import shown

LONGEST = 40
"""Rows of a table that fits on a sheet: it is printed though it is folded away, as the style sheet says."""


@cache
def asset(name: str) -> str:
    """A file of the templates' directory, as text.

    >>> ":root" in asset("page.css")
    True
    """
    return resources.files("interp.report").joinpath("templates", name).read_text(encoding="utf-8")


def environment(*, explained: bool) -> jinja2.Environment:
    """What draws templates; ``explained``: terms lead to their meaning at the foot of the page.

    Such a page has scripts too: of a long table that is folded away, it holds the rows compressed.

    >>> environment(explained=False).from_string("{{ text }}").render(text="<b>")
    '&lt;b&gt;'
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("interp.report", "templates"),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    seen: set[str] = set()
    made.filters["heads"] = links.heads_in
    made.filters["told"] = (lambda text: terms.marked(str(text), seen)) if explained else links.heads_in
    made.filters["lang"] = _lang
    made.globals |= {"glossary": lambda: [term for term in terms.terms() if term.key in seen]}
    made.filters["packed"] = lambda text: packed.text(text.encode("utf-8"))
    made.globals |= {"packs": explained, "longest": LONGEST}
    made.globals |= {"say": say, "called": called, "lang_of_prompts": lambda: _attribute(of_prompts())}
    return made


def _lang(text: object) -> Markup:
    """The ``lang`` attribute of an element that holds a text, if it needs one."""
    return _attribute(of_text(text) if isinstance(text, str) else None)


def _attribute(language: str | None) -> Markup:
    return Markup("") if language is None else Markup(' lang="{}"').format(language)
