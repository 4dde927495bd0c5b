"""YAML of studies and tasks, read strictly and within bounds.

What versions of YAML read differently, or what is rarely meant, is refused with the line it stands in: a key that is
given twice or is no text, ``yes`` and ``no`` without quotes, dates, octal and base-60 numbers, control characters, and
numbers that are not finite or need more than 64 bits. Merge keys (``<<``) may be overridden, as they are meant to be.
Size, depth and what aliases come to are bounded, so that any file is answered within seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from interp import _files
from interp.errors import InterpError, shown

MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
"""Values and keys in a file, where an alias counts as all that it stands for."""
MOST_DEPTH = 32
MOST_CHARACTERS = 2 * MOST_BYTES
"""Characters of all values and keys together, where an alias counts as all that it stands for."""
LARGEST = 2**63 - 1
"""Whole numbers beyond this do not fit a file of results."""

_TAG = "tag:yaml.org,2002:"

# What a value without quotes is: the first whose pattern fits, else text. Those in _REASONS are refused.
_PLAIN = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "merge": r"<<",
    "int": r"[-+]?(?:0|[1-9][0-9_]*)",
    "float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "yes or no": r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF",
    "date": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:.*)?",
    "base": r"[-+]?0[0-9_]+|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[bB][01_]+|0o[0-7]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?",
}
_PATTERNS = {tag: re.compile(pattern) for tag, pattern in _PLAIN.items()}
_REASONS = {
    "yes or no": "without quotes is a word in some versions of YAML and true or false in others. Write true or false, "
    "or put the word in quotes",
    "date": "without quotes is a date in YAML. Put it in quotes",
    "base": "without quotes is a number in base 2, 8, 16 or 60 in YAML. Write a decimal number, or put it in quotes",
}
_NO_COLON = "could not find expected ':'"
_QUOTES = "Put a text that holds a colon, braces, brackets or quotes in quotes, and close every quote"
_ADVICE = {
    "'\\t'": "Indent with spaces, not with tabs",
    "found '<block mapping start>'": "Indent it like the lines beside it",
    "found '<block sequence start>'": "Indent it like the lines beside it",
    "found '<scalar>'": _QUOTES,
    "got '<scalar>'": _QUOTES,
    "found '{'": _QUOTES,
    "found '['": _QUOTES,
    "mapping values are not allowed here": _QUOTES,
    "while scanning a quoted scalar": _QUOTES,
    "while parsing a flow": _QUOTES,
}
"""What to do, by what the parser says."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def read(path: Path, where: str) -> Any:
    """What a YAML file holds: mappings with text keys, lists, text, numbers, true, false and null.

    Args:
        path: the file.
        where: names it in messages.

    Raises:
        InterpError: it is no plain file, too long, not UTF-8, or not such YAML; one line with the reason and the line.
    """
    try:
        content = _files.read(path, at_most=MOST_BYTES)
    except OSError as error:
        raise InterpError(f"Cannot read {path}: {_files.why(error)}.") from error
    return parse(content, where)


def parse(content: bytes | str, where: str) -> Any:
    """What YAML text holds, by the rules of ``read``.

    Raises:
        InterpError: it is too long, or not such YAML.
    """
    if len(content) > MOST_BYTES:
        raise InterpError(f"{where} is not valid YAML: it is longer than {MOST_BYTES:,} bytes.")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return _Loader(text).value()
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8. Save it as UTF-8"
    except yaml.MarkedYAMLError as error:
        reason = _reason(error)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"line {line}: it holds the control character U+{error.character:04X}. Remove it"
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as an escape that names no character
        reason = str(error)
    raise InterpError(f"{where} is not valid YAML: {reason}.")


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Where the text breaks off, why, and what to do about it where that is known."""
    if error.problem == _NO_COLON and error.context_mark:  # the key's own line; the problem is seen on a later one
        return f"line {error.context_mark.line + 1}: a key has no colon. Write it like title: My question"
    mark = error.problem_mark or error.context_mark
    found = ", ".join(filter(None, (error.context, error.problem)))
    advice = next((f". {what}" for sign, what in _ADVICE.items() if sign in found), "")
    return (f"line {mark.line + 1}: {found}" if mark else found) + advice


def dump(value: object) -> str:
    """A value as YAML that ``parse`` reads back to an equal one."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def plain(value: object, where: str) -> Any:
    """A value as a file that holds it would be read: within the same bounds, and of the same kinds.

    Raises:
        InterpError: it cannot be written down, or would be refused in a file.
    """
    try:
        text = dump(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise InterpError(
            f"{where} holds what YAML cannot ({type(error).__name__}). "
            "Give mappings, lists, text, whole numbers, numbers, true and false."
        ) from error
    return parse(text, where)


def is_clean(text: str) -> bool:
    """Whether a text is free of control characters (a NUL, an escape) and of halves of characters."""
    return not _CONTROL.search(text)


def _resolved(kind: type[yaml.Node], value: Any, implicit: tuple[bool, bool]) -> str:
    """The tag of a value that states none; for text without quotes (``implicit[0]``) its pattern decides."""
    if kind is yaml.ScalarNode and implicit[0]:
        return _TAG + next((tag for tag, pattern in _PATTERNS.items() if pattern.fullmatch(value)), "str")
    return _TAG + {yaml.ScalarNode: "str", yaml.SequenceNode: "seq", yaml.MappingNode: "map"}[kind]


class _Dumper(yaml.SafeDumper):
    """Puts quotes around whatever would not be read back as text without them."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        return _resolved(kind, value, implicit)

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """Composes one document and makes plain values of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.written = self.nodes = self.characters = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        return _resolved(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Stop before the recursion is too deep or too long."""
        self.depth, self.written = self.depth + 1, self.written + 1
        try:
            self._bound(self.depth, self.written, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def value(self) -> Any:
        """The value of the only document; None if there is none."""
        node = self.get_single_node()
        return None if node is None else self._value(node, 1)

    def _value(self, node: yaml.Node, depth: int) -> Any:
        self.nodes += 1
        self._bound(depth, self.nodes, node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise _refused(node.start_mark, f"the tag {shown(node.tag)} is not known here. Remove it")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge" and merged is None:
                merged = self._merged(value_node, depth + 1)
                continue
            key = self._key(key_node, depth + 1)
            if key in own or key_node.tag == _TAG + "merge":
                raise _refused(key_node.start_mark, f"the key {shown(key)} is given twice. Remove one")
            own[key] = self._value(value_node, depth + 1)
        return {**(merged or {}), **own}

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """The keys that ``<<`` brings in; of several mappings the first that has a key."""
        given = self._value(node, depth)
        mappings = given if isinstance(given, list) else [given]
        if not all(isinstance(mapping, dict) for mapping in mappings):
            raise _refused(node.start_mark, "<< takes a mapping, or a list of mappings")
        return {key: value for mapping in reversed(mappings) for key, value in mapping.items()}

    def _key(self, node: yaml.Node, depth: int) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _refused(node.start_mark, "a key must be text, not a mapping or a list")
        if node.tag not in (_TAG + "str", _TAG + "merge"):
            raise _refused(node.start_mark, f"the key {shown(node.value)} is not text without quotes. Put it in quotes")
        return str(self._value(node, depth))

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        self.characters += len(node.value)
        if self.characters > MOST_CHARACTERS:
            raise _refused(
                node.start_mark, f"it comes to more than {MOST_CHARACTERS:,} characters, each alias written out"
            )
        tag = node.tag.removeprefix(_TAG)
        if tag in _REASONS:
            raise _refused(node.start_mark, f"{shown(node.value)} {_REASONS[tag]}")
        if tag not in _SCALARS:
            raise _refused(node.start_mark, f"the tag {shown(node.tag)} is not known here. Remove it")
        try:
            return _SCALARS[tag](node.value)
        except ValueError as error:
            raise _refused(node.start_mark, f"{shown(node.value)} {error}") from error

    def _bound(self, depth: int, count: int, mark: yaml.Mark) -> None:
        if depth > MOST_DEPTH:
            raise _refused(mark, f"it is nested more than {MOST_DEPTH} deep, or holds itself")
        if count > MOST_NODES:
            raise _refused(mark, f"it comes to more than {MOST_NODES:,} values, each alias written out")


def _refused(mark: yaml.Mark, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=mark)


def _text(value: str) -> str:
    if not is_clean(value):
        raise ValueError("holds a control character. Remove it")
    return value


def _whole(value: str) -> int:
    digits = value.replace("_", "")
    if len(digits.lstrip("+-")) > len(str(LARGEST)) or not -LARGEST <= int(digits) <= LARGEST:
        raise ValueError("does not fit in 64 bits. Give a smaller number, or put it in quotes")
    return int(digits)


def _real(value: str) -> float:
    try:
        number = float(value.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise ValueError("is no number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number. Give one")
    return number


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return value.lower() == "true"


def _null(value: str) -> None:
    return None


_SCALARS: dict[str, Callable[[str], str | int | float | bool | None]] = {
    "str": _text,
    "merge": _text,
    "int": _whole,
    "float": _real,
    "bool": _flag,
    "null": _null,
}
