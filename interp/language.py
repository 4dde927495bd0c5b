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

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources

from interp import _yaml
from interp.errors import InterpError, shown

LANGUAGES = ("en", "es")
"""What the page and the answers can be written in; the first is what the code is written in."""

_SEAM = "\x00"
_CONTRACTED = {"es": (re.compile(rf"\b([Aa]|[Dd]e) {_SEAM}el "), {"a": "al", "A": "Al", "de": "del", "De": "Del"})}
"""What two words become where a sentence meets the value put into it: ``de`` and ``el color`` are ``del color``."""

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
    return _filled(text, values) if values else text


def _filled(text: str, values: Mapping[str, object]) -> str:
    """The text with its values, and what the language contracts where they meet."""
    if spoken() not in _CONTRACTED:
        return text.format(**values)
    seam, joined = _CONTRACTED[spoken()]
    marked = {name: f"{_SEAM}{value}" if isinstance(value, str) else value for name, value in values.items()}
    found = seam.sub(lambda match: f"{joined[match[1]]} ", text.format(**marked))
    return found.replace(_SEAM, "")


def listed(parts: Sequence[str]) -> str:
    """Parts within a sentence.

    Args:
        parts: at least one.

    >>> listed(["L0H2", "L1H0", "2 more"])
    'L0H2, L1H0 and 2 more'
    """
    if len(parts) == 1:
        return parts[0]
    return say("{several} and {last}", several=", ".join(parts[:-1]), last=parts[-1])


def sentence(text: str) -> str:
    """The text with a capital letter.

    >>> sentence("the colour")
    'The colour'
    """
    return text[:1].upper() + text[1:]


def key(name: str, language: str) -> str:
    """What a text that stands in a result is called there, in a language.

    >>> key("answer", "en"), key("answer", "es")
    ('answer', 'answer_es')
    """
    return name if language == LANGUAGES[0] else f"{name}_{language}"


def translated(name: str) -> bool:
    """Whether a name in a result is that of a text that is said again in another language.

    >>> translated("answer_es"), translated("answer")
    (True, False)
    """
    return any(name.endswith(f"_{language}") for language in LANGUAGES[1:])


def in_each(tell: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """Texts told once in every language, each under its name in that language.

    Args:
        tell: gives texts by name, through :func:`say`.

    >>> in_each(lambda: {"axis": say("layer")})
    {'axis': 'layer', 'axis_es': 'capa'}
    """
    found: dict[str, str] = {}
    for language in LANGUAGES:
        with speaking(language):
            found |= {key(name, language): text for name, text in tell().items()}
    return found


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
