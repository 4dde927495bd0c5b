"""The options of an analysis: the keyword-only parameters of its ``run``, checked before a model is loaded.

What the annotation of a parameter says is checked here: kinds, and words of a fixed list. What only the analysis knows,
such as a range, its own function ``check`` says, if it has one; ``run`` calls it too.
"""

from __future__ import annotations

import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from interp.errors import InterpError, shown

_SETTLED = ("seed", "progress", "main", "not_asked")
"""What the study's own keys and the run settle."""


def names(runner: Callable[..., Any]) -> list[str]:
    """The options that a study may set."""
    parameters = inspect.signature(runner).parameters.items()
    return [name for name, kind in parameters if kind.kind is kind.KEYWORD_ONLY and name not in _SETTLED]


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered values that a function takes."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in parameters}


def default(runner: Callable[..., Any], name: str) -> Any:
    """The value of an option that is not given."""
    return inspect.signature(runner).parameters[name].default


def expected(runner: Callable[..., Any], name: str) -> Any:
    """The annotation of an option."""
    text = str(inspect.signature(runner).parameters[name].annotation)
    return eval(text, vars(sys.modules[runner.__module__]))  # the text of our own source


def check(runner: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Refuse a value that is wrong whatever the model and the prompts.

    Args:
        runner: the analysis.
        given: option -> value, as the study has them; every option is one of ``names``.
        where: where they stand, for the message.

    Raises:
        InterpError: names the option and what it must be.
    """
    for name, value in given.items():
        kind = expected(runner, name)
        if not fits(value, kind):
            raise InterpError(f"'{name}' in {where} must be {words(kind)}, not {shown(value)}.")
    own = getattr(sys.modules[runner.__module__], "check", None)
    if own is not None:
        defaults = {name: default(runner, name) for name in names(runner)}
        try:
            own(**accepted(own, {**defaults, **given}))
        except InterpError as error:
            raise InterpError(f"In {where}: {error}") from error


def fits(value: object, kind: Any) -> bool:
    """Whether a value from a YAML file is of the kind that an annotation says.

    Raises:
        TypeError: an annotation that is none of those that options have.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is Sequence:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if kind is type(None):
        return value is None
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    raise TypeError(f"an option of an analysis is annotated {kind}, which cannot be checked")


_WORDS = {bool: "true or false", str: "text", int: "a whole number", float: "a number", type(None): "null"}


def words(kind: Any) -> str:
    """An annotation in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(words(one) for one in inner)
    if origin is Literal:
        return "one of " + ", ".join(inner)
    if origin is Sequence:
        return f"a list, each item {words(inner[0])}"
    if origin is Mapping:
        return f"a mapping of {words(inner[0])} to {words(inner[1])}"
    return _WORDS[kind]
