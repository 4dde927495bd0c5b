"""What a Spanish page has left in English: texts of the code, or plainly English ones."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from interp import language

WORDS = frozenset(
    "the of and is are with which that where what from this it its for not than one by at each in".split()
)
"""Small words that Spanish has not."""
SKIPPED = ("script", "style", "code", "pre")
EMPTY = ("meta", "br", "col", "img", "input", "link", "hr")


class Reader(HTMLParser):
    """The texts of a page that are in its own language: elements in another, and code, are passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        stated = dict(attrs)
        foreign = tag != "html" and stated.get("lang") not in (None, "es")
        passed = foreign or tag in SKIPPED or "data-role" in stated or bool(self.open and self.open[-1][1])
        if tag not in EMPTY:
            self.open.append((tag, passed))
        if not passed:
            self.texts += [stated[name] or "" for name in ("aria-label", "title", "alt") if name in stated]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing opens."""

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1][1]) and data.strip():
            self.texts.append(" ".join(data.split()))


def english(page: str) -> list[str]:
    """The texts of a Spanish page that are sentences of the code, or plainly English."""
    reader = Reader()
    reader.feed(page)
    known = {text for text, other in language.catalogue("es").items() if other != text and re.search("[A-Z]", text)}
    found = []
    for text in dict.fromkeys(reader.texts):
        words = re.findall(r"[a-z]+", text.lower())
        if (
            text in known
            or sum(word in WORDS for word in words) > 1
            or ({"the", "of", "and"} & set(words) and len(words) > 1)
        ):
            found.append(text)
    return found
