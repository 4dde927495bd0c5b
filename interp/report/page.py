"""The page: sections in order, one self-contained HTML file."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from interp.report import head, links, palette, parts, verdict
from interp.report.blocks import Script
from interp.report.bundle import Bundle
from interp.report.inputs import RunInputs
from interp.report.markup import embedded_json, shown

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
"""The page forbids itself every request, so a mistake cannot make one."""


def html(run: RunInputs, bundle: Bundle | None) -> str:
    """The whole page. Pure: the same inputs give the same text."""
    found = verdict.of(run)
    sections = parts.sections(parts.Context(run, found, bundle))
    scripts = [block for section in sections for block in section.blocks if isinstance(block, Script)]
    data = {block.key: {"component": block.component, "props": block.data} for block in scripts}
    template = _environment().get_template("page.html")
    return template.render(
        head=head.of(run, found),
        made=run.first_attr("created_at"),
        sections=sections,
        policy=POLICY,
        css=Markup(_asset("page.css") + palette.stylesheet()),
        js=Markup(_asset("page.js")),
        bundle=bundle.code if bundle and scripts else None,
        data=embedded_json(data),
    )


def _asset(name: str) -> str:
    return resources.files("interp.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("interp.report", "templates"),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["heads"] = links.heads_in
    return environment
