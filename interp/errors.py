"""The one family of errors a user can cause and mend, and how they show what a user gave."""

from __future__ import annotations

import contextlib
import difflib
import operator
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST_MESSAGE = 2000
"""Characters of a message: it stays short enough to read, whatever it quotes."""

LONGEST_VALUE = 300
"""Characters of one value in a message."""

LONGEST_NAME = 100
"""Characters of a name for which the nearest match is looked up: the search takes the square of it."""


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys, or that turn the text around."""


class InterpError(ValueError):
    """Bad input: says what was wrong, where, and what to do, on one line.

    The command line prints it and exits with 2; in a notebook it is an ordinary ``ValueError``.

    >>> from interp import sites
    >>> try:
    ...     sites.site("resid_pree")
    ... except InterpError as error:
    ...     print(error)
    Unknown site 'resid_pree'. Did you mean 'resid_pre'? ...
    """

    def __init__(self, message: str) -> None:
        super().__init__(_cut(_UNSEEN.sub(_escaped, " ".join(message.splitlines())), LONGEST_MESSAGE))


class UnaskableError(InterpError):
    """A question that these prompts leave no room for, or a model whose arithmetic is not written here.

    A run goes on without it and says why, unless its study itself has asked for it: then it is refused.

    Attributes:
        by: the options that make the question.

    >>> error = UnaskableError("These prompts have one colour only.", by=["target"])
    >>> error.by
    ('target',)
    """

    def __init__(self, message: str, *, by: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.by = tuple(by)


def shown(value: object) -> str:
    """A value as a message quotes it: like ``repr``, on one line and cut to a length that can be read.

    >>> shown("black"), shown(["a"] * 10)
    ("'black'", "['a', 'a', 'a', 'a', 'a', 'a', ...]")
    """
    return _cut(" ".join(_SHORT.repr(value).split()), LONGEST_VALUE)


class UnusableModelError(InterpError):
    """A model that was read whole and cannot be used: its bridge fails, or fails a check.

    It is an ``InterpError`` like any other, so that one ``except`` is enough:

    >>> issubclass(UnusableModelError, InterpError)
    True
    """


def unknown_name(what: str, name: object, options: Iterable[str], where: str = "") -> InterpError:
    """The error for a name that is not one of ``options``: lists them and the nearest match.

    >>> print(unknown_name("site", "zz", ["z", "q"]))
    Unknown site 'zz'. Did you mean 'z'? Choose from: z, q.
    """
    options = list(options)
    known = ", ".join(options) or "none"
    return InterpError(f"Unknown {what} {shown(name)}{where}.{nearest(name, options)} Choose from: {known}.")


def nearest(name: object, options: Iterable[str]) -> str:
    """`` Did you mean 'option'?`` for the option that is most like a name, or begins with it; empty if none is.

    >>> nearest("patern", ["z", "pattern"])
    " Did you mean 'pattern'?"
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return ""
    options = list(options)
    near = difflib.get_close_matches(name, options, n=1) or [option for option in options if option.startswith(name)]
    return f" Did you mean {near[0]!r}?" if near else ""


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 128:  # Python itself refuses to write out the longest ones
            return f"a whole number of {int(x.bit_length() * 0.30103) + 1:,} digits or so"
        return repr(x)

    def repr_instance(self, x: object, level: int) -> str:
        shape, item = getattr(x, "shape", None), getattr(x, "item", None)
        if shape == () and callable(item):
            return self.repr1(item(), level)
        if shape:
            return f"{type(x).__name__} of shape {tuple(shape)}"
        return _cut(repr(x), self.maxother)


_SHORT = _Short()


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def _cut(text: str, longest: int) -> str:
    """A text with its middle left out if it is longer than that."""
    if len(text) <= longest:
        return text
    half = (longest - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def whole_number(value: Any, what: str, *, least: int | None = None) -> int:
    """The argument ``what`` as a whole number, which may be NumPy's. A boolean, a fraction or a text is refused.

    Raises:
        InterpError: it is not a whole number, or below ``least``.

    >>> whole_number(4, "n")
    4
    >>> whole_number(0, "n", least=1)
    Traceback (most recent call last):
    interp.errors.InterpError: n is 0. Give 1 or more.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise InterpError(f"{what} must be a whole number, not {type(value).__name__}.")
    if least is not None and number < least:
        raise InterpError(f"{what} is {shown(number)}. Give {least} or more.")
    return number


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """The argument ``what`` as whole numbers: one, or several.

    Raises:
        InterpError: something else, or none at all.

    >>> whole_numbers(3, "layers"), whole_numbers([0, 2], "layers")
    ((3,), (0, 2))
    """
    if isinstance(values, str) or not (isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0):
        return (whole_number(values, what),)
    numbers = tuple(whole_number(value, what) for value in values)
    if not numbers:
        raise InterpError(f"{what} is empty. Name at least one, or leave it out.")
    return numbers


def names(values: Any, what: str) -> tuple[str, ...]:
    """The argument ``what`` as names, each once: one text, or several.

    Raises:
        InterpError: something else, or none at all.

    >>> names("color", "roles"), names(["color", "noun", "color"], "roles")
    (('color',), ('color', 'noun'))
    """
    found = (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    for name in found:
        if not isinstance(name, str):
            raise InterpError(f"{what} must be names, not {type(name).__name__}.")
    if not found:
        raise InterpError(f"{what} is empty. Name at least one, or leave it out.")
    return tuple(dict.fromkeys(found))


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever someone else's code raises within becomes one line: ``what``, and the error's first line.

    Raises:
        UnusableModelError: in place of any other exception, which it has as its cause.

    >>> with told("The tokenizer could not be read"):
    ...     raise KeyError("vocab")
    Traceback (most recent call last):
    interp.errors.UnusableModelError: The tokenizer could not be read (KeyError: 'vocab').
    """
    try:
        yield
    except InterpError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        cause = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
        raise UnusableModelError(f"{what} ({cause}).") from error
