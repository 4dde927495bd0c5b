"""The page: sections in order, one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interp.language import spoken
from interp.report import data, head, packed, palette, parts, tables, verdict
from interp.report.blocks import Block, Script, Section
from interp.report.bundle import Bundle
from interp.report.head import Head
from interp.report.inputs import RunInputs
from interp.report.markup import embedded_json
from interp.report.templating import asset, environment
from interp.report.verdict import Verdict

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
"""The page forbids itself every request, so a mistake cannot make one."""
SCRIPTS = ("base", "tips", "tables", "contents", "scrolls", "brush", "attention", "patterns", "lesson", "circuitsvis")
"""The page's scripts, in the order in which they run; each may use what those before it define."""


@dataclass(frozen=True)
class Drawn:
    """What stands on the page of a run, drawn once for the page and for its figures as files.

    Attributes:
        run: the run.
        found: what it concluded.
        bundle: the script that draws patterns, if any.
        head: the first screen.
        sections: all that follows.
    """

    run: RunInputs
    found: Verdict
    bundle: Bundle | None
    head: Head
    sections: tuple[Section, ...]

    @classmethod
    def of(cls, run: RunInputs, bundle: Bundle | None = None) -> Drawn:
        """Draw every part, in the language spoken now."""
        found = verdict.of(run)
        sections = parts.sections(parts.Context(run, found, bundle))
        return cls(run, found, bundle, head.of(run, found), tuple(sections))


def html(drawn: Drawn) -> str:
    """The whole page. Pure: the same inputs give the same text."""
    run, bundle = drawn.run, drawn.bundle
    interactive = any(isinstance(block, Script) for section in drawn.sections for block in section.blocks)
    template = environment(explained=True).get_template("page.html")
    return template.render(
        language=spoken(),
        title=drawn.head.title,
        head=drawn.head,
        made=run.first_attr("created_at"),
        sections=drawn.sections,
        policy=POLICY,
        css=Markup(asset("page.css") + asset("living.css") + tables.stylesheet() + palette.stylesheet()),
        js=Markup(script(SCRIPTS)),
        bundle=packed.text(bundle.code.encode()) if bundle and interactive else None,
        data=embedded_json(data.block(run, drawn.found)),
    )


def script(names: Sequence[str]) -> str:
    """Scripts of a page as one, so that what they share is no global."""
    parts = "\n".join(asset(f"scripts/{name}.js") for name in names)
    return f'"use strict";\n(function () {{\n{parts}}})();\n'


def block(block: Block, *, numbers: bool = True) -> Markup:
    """The markup of one block, as on the page; of a figure without the tables behind it where ``numbers`` is False."""
    template = environment(explained=False).get_template(f"blocks/{block.template}.html")
    return Markup(template.render(block=block, numbers=numbers))
