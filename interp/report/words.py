"""Prompt text as words with roles, and tokens with weights."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from interp.language import of_prompts, say
from interp.report import links
from interp.report.blocks import Word
from interp.report.markup import element, figure_number, join, token, visible
from interp.report.palette import Scale

N_TONES = 8

Spans = Mapping[str, tuple[int, int]]


START = frozenset({"<|endoftext|>", "<|begin_of_text|>", "<|startoftext|>", "<s>", "<bos>", "[CLS]"})
"""Tokens that stand before a text, as tokenizers write them."""


def spelled(text: str, *, first: bool = False) -> str:
    """A token as a word that can be read aloud: its space as ␣, punctuation and the start of the text by their names.

    Args:
        text: the token.
        first: whether it is the first of its prompt, where ``START`` is called the start.

    >>> [spelled(text, first=i == 0) for i, text in enumerate(["<|endoftext|>", " negro", ".", "así", " (", ""])]
    ['start', '␣negro', 'full stop', 'así', '␣bracket', '∅']
    """
    if first and text in START:
        return say("start")
    body = text.strip(" ")
    name = punctuation().get(body)
    return token(text) if name is None else token(text.replace(body, name))


def punctuation() -> dict[str, str]:
    """Marks that stand alone as a token -> what they are called.

    >>> punctuation()[","]
    'comma'
    """
    return {
        ".": say("full stop"),
        ",": say("comma"),
        ":": say("colon"),
        ";": say("semicolon"),
        "?": say("question mark"),
        "¿": say("question mark"),
        "!": say("exclamation mark"),
        "¡": say("exclamation mark"),
        "-": say("hyphen"),
        "'": say("apostrophe"),
        '"': say("quotation mark"),
        "(": say("bracket"),
        ")": say("bracket"),
    }


def tone(role: str, roles: Sequence[str]) -> str:
    """The tone of a role, by its place among the roles of the page."""
    return f"r{list(roles).index(role) % N_TONES + 1}"


def with_roles(text: str, spans: Spans, other_text: str, other_spans: Spans, roles: Sequence[str]) -> tuple[Word, ...]:
    """Text cut at its roles; a role whose words differ in the other prompt is marked as changed.

    ``roles`` are those of the page, which every prompt shows in the same tone.

    ``spans`` are character ranges, half open; a range outside the text or overlapping an earlier one is left out.
    """
    words: list[Word] = []
    end = 0
    for role, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if not end <= start < stop <= len(text):
            continue
        if start > end:
            words.append(Word(visible(text[end:start])))
        other = other_spans.get(role)
        changed = other is not None and other_text[other[0] : other[1]] != text[start:stop]
        words.append(Word(visible(text[start:stop]), role, tone(role, roles), changed))
        end = stop
    if end < len(text):
        words.append(Word(visible(text[end:])))
    return tuple(words)


def with_changes(text: str, other: str) -> tuple[Word, ...]:
    """Text cut at the words that differ from another text."""
    mine, theirs = (re.findall(r"\s*\S+|\s+$", each) for each in (text, other))
    words = []
    for kind, start, stop, _, _ in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if start < stop:
            words.append(Word(visible("".join(mine[start:stop])), changed=kind != "equal"))
    return tuple(words)


def token_strip(
    tokens: Sequence[str], weights: Sequence[float], *, destination: int | None, interest: int | None, label: str
) -> Markup:
    """Tokens in reading order, each shaded by its weight with the weight written below it."""
    scale = Scale.rising(0.0, 1.0, units=say("share"), name=say("attention weight"))
    items = []
    for i, (text, weight) in enumerate(zip(tokens, weights, strict=True)):
        classes = "".join((" from" if i == interest else "", " to" if i == destination else ""))
        items.append(
            element(
                "li",
                element("span", spelled(text, first=i == 0), class_=f"chip {scale.step(weight)}"),
                element("span", figure_number(weight, 2), class_="weight"),
                class_=f"token{classes}",
                **links.attributes({"position": i}),
                title=say(
                    "{i}: {word}, weight {weight}",
                    i=i,
                    word=spelled(text, first=i == 0),
                    weight=figure_number(weight, 4),
                ),
            )
        )
    return element("ol", join(items), class_="strip", aria_label=label, lang=of_prompts())
