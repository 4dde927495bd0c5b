"""What a section of the page is made of. Each block names the template that draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from markupsafe import Markup

from interp.report import heat
from interp.report.inputs import Result
from interp.report.tables import Table


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure, with its own small title; ``group`` heads the panels that begin here."""

    title: str
    body: Markup
    subtitle: str = ""
    legend: Markup | None = None
    wide: bool = False
    group: str = ""

    @property
    def hint(self) -> Markup:
        """What says that the drawing goes on to the side, where it has too little room."""
        return heat.going_on(self.body)


@dataclass(frozen=True)
class Figure:
    """Drawings, a legend with units, how to read them, and the numbers behind them.

    Attributes:
        key: the anchor; unique on the page.
        title: what is shown.
        reading: how to read one cell or mark.
        panels: the drawings.
        tables: the numbers; never empty.
        legend: colour or line legend common to the panels.
        source: the paper or definition.
        file: the result file the numbers come from.
        open: whether the numbers show from the start.
    """

    template: ClassVar[str] = "figure"

    key: str
    title: str
    reading: str
    panels: tuple[Panel, ...]
    tables: tuple[Table, ...]
    legend: Markup | None = None
    source: str = ""
    file: str = ""
    open: bool = False

    def __post_init__(self) -> None:
        """Refuse a figure that hides its numbers."""
        assert self.tables, self.key

    @classmethod
    def of(cls, result: Result, key: str, title: str, reading: str, **more: Any) -> Figure:
        """A figure of one result, which names its source and file."""
        return cls(key, title, reading, source=result.said("source"), file=result.file, **more)


@dataclass(frozen=True)
class Prose:
    """Paragraphs; ``key``: their anchor, if they have one."""

    template: ClassVar[str] = "prose"

    paragraphs: tuple[str, ...]
    key: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of short statements, each with an optional lead-in in bold."""

    template: ClassVar[str] = "facts"

    items: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True)
class Steps:
    """A calculation in order: per step a name, the formula with its numbers, and what it means.

    ``key``: its anchor.
    """

    template: ClassVar[str] = "steps"

    title: str
    items: tuple[tuple[str, str, str], ...]
    key: str


@dataclass(frozen=True)
class Notice:
    """A banner: ``stop`` (nothing below explains this), ``warn`` or ``note``."""

    template: ClassVar[str] = "notice"

    level: str
    title: str
    text: str


@dataclass(frozen=True)
class Word:
    """A stretch of prompt text; ``role`` and ``tone`` are empty outside roles."""

    text: str
    role: str = ""
    tone: str = ""
    changed: bool = False


@dataclass(frozen=True)
class PromptExample:
    """A clean and a corrupted prompt side by side, and what the model answered."""

    clean: tuple[Word, ...]
    corrupted: tuple[Word, ...]
    answer: str
    other: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PromptRung:
    """The examples of one rung."""

    name: str
    description: str
    examples: tuple[PromptExample, ...]


@dataclass(frozen=True)
class Prompts:
    """Example prompts by rung, with the legend of their roles."""

    template: ClassVar[str] = "prompts"

    rungs: tuple[PromptRung, ...]
    roles: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Details:
    """Tables of their own, folded or open, with a line on how to read them."""

    template: ClassVar[str] = "details"

    title: str
    tables: tuple[Table, ...]
    open: bool = False
    reading: str = ""


@dataclass(frozen=True)
class Code:
    """Text to copy: a command or a file."""

    template: ClassVar[str] = "code"

    title: str
    text: str


@dataclass(frozen=True)
class Script:
    """A view that another library's script draws when it is asked for."""

    template: ClassVar[str] = "script"

    key: str
    title: str
    reading: str


@dataclass(frozen=True)
class Living:
    """A part that the page's scripts draw, from the block of data, if they run; what stands without them stays.

    Attributes:
        key: the anchor, by which the script knows it.
        title: the heading.
        reading: how to use it.
        without: what is said where scripts do not run.
        instead: the anchors of what it makes superfluous, which is then folded away.
    """

    template: ClassVar[str] = "living"

    key: str
    title: str
    reading: str
    without: str
    instead: tuple[str, ...]


Block = Figure | Prose | Facts | Steps | Notice | Prompts | Details | Code | Script | Living


@dataclass(frozen=True)
class Section:
    """One numbered part of the page.

    Attributes:
        key: the anchor.
        title: the heading.
        lead: the sentence under the heading.
        blocks: the content, in order.
        short: the heading in the table of contents.
    """

    key: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    short: str = ""
