"""The sentences that a reader sees, in the reader's language.

Whatever writes a sentence for a page or a terminal writes it in English, through :func:`say`. The English text is the
key of the catalogue, one YAML file of ``interp/languages/es`` per module that speaks. Which language is spoken belongs
to the piece of work at hand (``with speaking("es"):``), as in gettext's users, and not to the process.

>>> say("after layer {layer}", layer=3)
'after layer 3'
>>> with speaking("es"):
...     say("after layer {layer}", layer=3)
'después de la capa 3'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources

from interp import _yaml
from interp.errors import InterpError, shown

LANGUAGES = ("en", "es")
"""What the page and the answers can be written in; the first is what the code is written in."""

_spoken: ContextVar[str] = ContextVar("language of the sentences", default=LANGUAGES[0])


def check(language: str) -> str:
    """The language itself, if there are words in it.

    Raises:
        InterpError: none of ``LANGUAGES``.

    >>> check("es")
    'es'
    """
    if language not in LANGUAGES:
        raise InterpError(f"{shown(language)} is no language of the page. Choose one of {', '.join(LANGUAGES)}.")
    return language


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Let :func:`say` speak a language within this block.

    Raises:
        InterpError: none of ``LANGUAGES``.

    >>> with speaking("es"):
    ...     spoken()
    'es'
    """
    token = _spoken.set(check(language))
    try:
        yield
    finally:
        _spoken.reset(token)


def spoken() -> str:
    """The language of the sentences now.

    >>> spoken()
    'en'
    """
    return _spoken.get()


def say(english: str, /, **values: object) -> str:
    """A sentence in the language spoken now, with its ``{names}`` filled in (``str.format``).

    Raises:
        LookupError: the catalogue lacks the sentence; a test holds every sentence of the code to it.

    >>> say("layer")
    'layer'
    """
    text = english if spoken() == LANGUAGES[0] else catalogue(spoken())[english]
    return text.format(**values) if values else text


def say_stored(text: str) -> str:
    """A text that a result carries, in the language spoken now where the catalogue has it; else as it stands.

    Results are written once, by analyses that may be anyone's, so that a text without a translation is no mistake.

    >>> say_stored("a title of one's own")
    "a title of one's own"
    """
    return text if spoken() == LANGUAGES[0] else catalogue(spoken()).get(text, text)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """English text -> the same in another language, from every file of the language's directory.

    >>> catalogue("es")["layer"]
    'capa'
    """
    found: dict[str, str] = {}
    for file in sorted(resources.files("interp").joinpath("languages", language).iterdir(), key=lambda each: each.name):
        if file.name.endswith(".yaml"):
            found |= _yaml.parse(file.read_text(encoding="utf-8"), file.name)
    return found
