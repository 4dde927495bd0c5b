"""A drawing of the page, for the cell of a notebook: markup that brings its own style and changes no other."""

from __future__ import annotations

import re
from importlib import resources

from markupsafe import Markup

from interp.report.markup import element

SCOPE = "interp-drawing"


def fragment(text: str, drawing: Markup) -> Markup:
    """Some text and a drawing, with the rules of the page's style sheet that the drawing needs.

    >>> "interp-drawing" in fragment("Yes.", Markup("<svg></svg>"))
    True
    """
    body = element("p", text), element("div", drawing, style="overflow-x:auto")
    return element("div", element("style", Markup(style())), *body, class_=SCOPE)


def style() -> str:
    """The page's colours, light and dark, and its rules for drawings, for what stands within ``SCOPE`` alone."""
    page = resources.files("interp.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root {(.*?)}", page, re.DOTALL)[:2]
    rules = [rule.strip() for line in page.splitlines() for rule in re.findall(r"\.plot[^{}]*{[^{}]*}", line)]
    inside = "\n".join(re.sub(r"\.plot", f".{SCOPE} .plot", rule, count=1) for rule in rules)
    return (
        f".{SCOPE} {{{light}}}\n@media (prefers-color-scheme: dark) {{ .{SCOPE} {{{dark}}} }}\n"
        f".{SCOPE} {{ background: var(--card); color: var(--ink); padding: 12px; }}\n{inside}"
    )
