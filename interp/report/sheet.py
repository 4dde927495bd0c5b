"""The page's style sheet, read: for drawings that stand elsewhere and bring the rules that they need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from interp.report import palette
from interp.report.templating import asset


def of_page() -> list[tuple[str, str]]:
    """The blocks of the style sheet of the page and of its colours, in order.

    >>> of_page()[0][0]
    ':root'
    """
    return list(blocks(asset("page.css") + palette.stylesheet()))


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of a style sheet, each with what stands before its brace; comments are left out.

    >>> list(blocks("a { x: 1 } /* no more */ @media print { b { y: 2 } }"))
    [('a', ' x: 1 '), ('@media print', ' b { y: 2 } ')]
    """
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    depth = start = opened = 0
    for at, character in enumerate(text):
        if character == "{":
            depth += 1
            opened = at if depth == 1 else opened
        elif character == "}":
            depth -= 1
            if depth == 0:
                yield text[start:opened].strip(), text[opened + 1 : at]
                start = at + 1


def variables(declarations: str) -> dict[str, str]:
    """The variables that a block sets, by name.

    >>> variables("--ink: #111; color: red; --paper:white")
    {'--ink': '#111', '--paper': 'white'}
    """
    return {name: value.strip() for name, value in re.findall(r"(--[\w-]+)\s*:\s*([^;]+)", declarations)}
