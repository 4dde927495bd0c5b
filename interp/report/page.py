"""The page: sections in order, one self-contained HTML file."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from interp.language import of_prompts, of_text, say, spoken
from interp.report import data, head, links, packed, palette, parts, tables, terms, verdict
from interp.report.blocks import Block, Script
from interp.report.bundle import Bundle
from interp.report.inputs import RunInputs
from interp.report.markup import embedded_json, shown

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
"""The page forbids itself every request, so a mistake cannot make one."""
SCRIPTS = ("base", "tips", "tables", "contents", "scrolls", "brush", "attention", "patterns", "lesson", "circuitsvis")
"""The page's scripts, in the order in which they run; each may use what those before it define."""


def html(run: RunInputs, bundle: Bundle | None) -> str:
    """The whole page. Pure: the same inputs give the same text."""
    found = verdict.of(run)
    sections = parts.sections(parts.Context(run, found, bundle))
    interactive = any(isinstance(block, Script) for section in sections for block in section.blocks)
    template = _environment().get_template("page.html")
    return template.render(
        language=spoken(),
        head=head.of(run, found),
        made=run.first_attr("created_at"),
        sections=sections,
        policy=POLICY,
        css=Markup(_asset("page.css") + _asset("living.css") + tables.stylesheet() + palette.stylesheet()),
        js=Markup(_script()),
        bundle=packed.text(bundle.code.encode()) if bundle and interactive else None,
        data=embedded_json(data.block(run, found)),
    )


def _script() -> str:
    """The page's own scripts as one, so that what they share is no global."""
    parts = "\n".join(_asset(f"scripts/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(function () {{\n{parts}}})();\n'


def block(block: Block, *, numbers: bool = True) -> Markup:
    """The markup of one block, as on the page; of a figure without the tables behind it where ``numbers`` is False."""
    environment = _environment(explained=False)
    return Markup(environment.get_template(f"blocks/{block.template}.html").render(block=block, numbers=numbers))


def _asset(name: str) -> str:
    return resources.files("interp.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment(*, explained: bool = True) -> jinja2.Environment:
    """What draws templates; ``explained``: terms lead to their meaning at the foot of the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("interp.report", "templates"),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    seen: set[str] = set()
    environment.filters["heads"] = links.heads_in
    environment.filters["told"] = (lambda text: terms.marked(str(text), seen)) if explained else links.heads_in
    environment.filters["lang"] = _lang
    environment.globals |= {"glossary": lambda: [term for term in terms.terms() if term.key in seen]}
    environment.globals |= {"say": say, "lang_of_prompts": lambda: _attribute(of_prompts())}
    return environment


def _lang(text: object) -> Markup:
    """The ``lang`` attribute of an element that holds a text, if it needs one."""
    return _attribute(of_text(text) if isinstance(text, str) else None)


def _attribute(language: str | None) -> Markup:
    return Markup("") if language is None else Markup(' lang="{}"').format(language)
