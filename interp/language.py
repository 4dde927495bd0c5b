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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from typing import Self

from interp.errors import InterpError, shown

LANGUAGES = ("en", "es")
"""What the page and the answers can be written in; the first is what the code is written in."""

STORED = "results.yaml"
"""The file of a language with the texts that results carry."""
SAID = "what"
"""The place of such a text that holds words; the others hold numbers and names."""

_PERCENT = {"es": (re.compile(r"(?<=\d)%"), "\u00a0%")}
_SEAM = "\x00"
_CONTRACTED = {"es": (re.compile(rf"\b([Aa]|[Dd]e) {_SEAM}el "), {"a": "al", "A": "Al", "de": "del", "De": "Del"})}
"""What two words become where a sentence meets the value put into it: ``de`` and ``el color`` are ``del color``."""

_spoken: ContextVar[str] = ContextVar("language of the sentences", default=LANGUAGES[0])
_prompts: ContextVar[str] = ContextVar("language of the prompts", default="")
_own: ContextVar[frozenset[str]] = ContextVar("names that someone gave", default=frozenset())
_SPANISH = frozenset("a el la los las un una que de del y en es con por para me mi su se al como pero más".split())
_ENGLISH = frozenset("the a an of and in is are with for my his her to that it he she you on was but as".split())


class Foreign(str):
    """A text that is not in the language spoken.

    Attributes:
        language: the code of its own language.

    >>> text = Foreign("the cat", "en")
    >>> text, text.language
    ('the cat', 'en')
    """

    language: str

    def __new__(cls, text: str, language: str) -> Self:
        """A text as it stands."""
        made = super().__new__(cls, text)
        made.language = language
        return made


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


def chosen(asked: str | None, prompts: str) -> str:
    """The language of a page or an answer: the one asked for, else that of the prompts where it has words.

    Raises:
        InterpError: the one asked for has none.

    >>> chosen(None, "es"), chosen("en", "es"), chosen(None, "fr")
    ('es', 'en', 'en')
    """
    if asked is not None:
        return check(asked)
    return prompts if prompts in LANGUAGES else LANGUAGES[0]


def is_spanish(text: str) -> bool:
    """Whether a text is plainly Spanish: letters that English lacks, or more of its small words.

    >>> is_spanish("tengo un gato en la casa"), is_spanish("a cat is in the house"), is_spanish("Ana va a casa y a ver")
    (True, False, True)
    """
    words = re.findall(r"\w+", text.lower())
    spanish, english = (sum(word in known for word in words) for known in (_SPANISH, _ENGLISH))
    return spanish > english or (spanish == english and bool(re.search("[ñáéíóú¿¡]", text.lower())))


@contextmanager
def speaking(language: str, prompts: str = "", own: Collection[str] = ()) -> Iterator[None]:
    """Let :func:`say` speak a language within this block.

    Args:
        language: one of ``LANGUAGES``.
        prompts: the language of the prompts that are shown; empty where that is not known.
        own: names of roles that a user gave, which stay as they are.

    Raises:
        InterpError: none of ``LANGUAGES``.

    >>> with speaking("es"):
    ...     spoken()
    'es'
    """
    token, other, names = _spoken.set(check(language)), _prompts.set(prompts), _own.set(frozenset(own))
    try:
        yield
    finally:
        _spoken.reset(token)
        _prompts.reset(other)
        _own.reset(names)


def spoken() -> str:
    """The language of the sentences now.

    >>> spoken()
    'en'
    """
    return _spoken.get()


def of_prompts() -> str | None:
    """The ``lang`` attribute of a prompt's words; None where they need none.

    >>> with speaking("en", prompts="es"):
    ...     of_prompts()
    'es'
    """
    found = _prompts.get()
    return None if found in ("", "none", spoken()) else found


def of_text(text: str) -> str | None:
    """The ``lang`` attribute of a text; None where it is in the language spoken.

    >>> of_text("the colour"), of_text(Foreign("el color", "es"))
    (None, 'es')
    """
    return text.language if isinstance(text, Foreign) and text.language != spoken() else None


def say(english: str, /, **values: object) -> str:
    """A sentence in the language spoken now, with its ``{names}`` filled in (``str.format``).

    Raises:
        LookupError: the catalogue lacks the sentence; a test holds every sentence of the code to it.

    >>> say("layer")
    'layer'
    """
    text = english if spoken() == LANGUAGES[0] else catalogue(spoken())[english]
    return _filled(text, values)


def called(kind: str, name: str) -> str:
    """The name of a role, a rung or an ablation as a reader sees it: in words of the language, where it has them.

    A name that is in no catalogue stays as it is, and so does one that a user gave.

    >>> called("role", "after_noun")
    'after_noun'
    >>> with speaking("es", own=["noun"]):
    ...     called("role", "after_noun"), called("role", "my_own"), called("role", "noun")
    ('después del sustantivo', 'my_own', 'noun')
    """
    if spoken() == LANGUAGES[0] or (kind == "role" and name in _own.get()):
        return name
    return catalogue(spoken()).get(f"{kind} {name}", name)


def edge(name: str) -> str:
    """An edge of attention (``noun<-color``) as a reader sees it.

    >>> edge("noun<-color")
    'noun ← color'
    """
    return " ← ".join(called("role", part) for part in name.split("<-"))


def path(name: str) -> str:
    """What leads from one thing to another (``L0H2 -> L1H0.v at color``) as a reader sees it.

    >>> path("L0H2 -> L1H0.v at color"), path("color-noun/two -> color-noun-es/two")
    ('L0H2 → L1H0.v at color', 'color-noun/two → color-noun-es/two')
    """
    ends, at, role = name.replace(" -> ", " → ").partition(" at ")
    return say("{what} at {role}", what=ends, role=called("role", role)) if at else ends


def _filled(text: str, values: Mapping[str, object]) -> str:
    """The text with its values, as the language writes what meets there."""
    if spoken() not in _CONTRACTED:
        return text.format(**values) if values else text
    seam, joined = _CONTRACTED[spoken()]
    marked = {name: f"{_SEAM}{value}" if isinstance(value, str) else value for name, value in values.items()}
    found = seam.sub(lambda match: f"{joined[match[1]]} ", text.format(**marked) if values else text)
    percent, apart = _PERCENT[spoken()]
    return percent.sub(apart, found.replace(_SEAM, ""))


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
    if spoken() == LANGUAGES[0] or not text:
        return text
    return catalogue(spoken()).get(text) or _like(text) or Foreign(text, LANGUAGES[0])


def say_reasons(text: str) -> str:
    """Several texts that a result carries as one, parted by semicolons, each said in turn.

    >>> say_reasons("all estimated effects are equal; only 3 cells could differ, too few to judge by")
    'all estimated effects are equal; only 3 cells could differ, too few to judge by'
    """
    return "; ".join(say_stored(one) for one in text.split("; "))


def _like(text: str) -> str | None:
    """A stored text of which the catalogue has the pattern; of its places ``what`` is said in turn, roles are named."""
    if not _any_pattern(spoken()).fullmatch(text):  # most texts that are in no catalogue are like none
        return None
    for pattern, other in patterns(spoken()).items():
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            return _filled(other, {name: _part(name, part) for name, part in parts.items()})
    return None


def _part(name: str, text: str) -> str:
    """What stands in a place of a stored text, by the name of the place."""
    if name == SAID:
        return str(say_stored(text))
    if name == "edge":
        return edge(text)
    return called("role", text) if name in ("role", "dest", "src") else text


@cache
def patterns(language: str) -> Mapping[re.Pattern[str], str]:
    """The stored texts with places to fill in, as patterns -> the same in another language.

    >>> [other for pattern, other in patterns("es").items() if pattern.fullmatch("layer 2 at noun")]
    ['capa {layer} en {role}']
    """
    found: dict[re.Pattern[str], str] = {}
    for text, other in _read(language, STORED).items():
        if "{" in text:
            parts = re.split(r"\{(\w+)\}", text)
            fixed, names = map(re.escape, parts[::2]), parts[1::2]
            pattern = next(fixed) + "".join(f"(?P<{name}>.+){after}" for name, after in zip(names, fixed, strict=True))
            found[re.compile(pattern)] = other
    return found


@cache
def _any_pattern(language: str) -> re.Pattern[str]:
    """What matches any of the patterns, whose places have names that would stand twice in one expression."""
    return re.compile("|".join(re.sub(r"\(\?P<\w+>", "(?:", pattern.pattern) for pattern in patterns(language)))


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """English text -> the same in another language, from every file of the language's directory.

    >>> catalogue("es")["layer"]
    'capa'
    """
    found: dict[str, str] = {}
    for name in sorted(each.name for each in resources.files("interp").joinpath("languages", language).iterdir()):
        if name.endswith(".yaml"):
            found |= _read(language, name)
    return found


def _read(language: str, name: str) -> dict[str, str]:
    from interp import _yaml  # the command's arguments name the languages, and are read before anything heavy is loaded

    text = resources.files("interp").joinpath("languages", language, name).read_text(encoding="utf-8")
    return dict(_yaml.parse(text, name))
