r"""The keys of a file: declared once, checked by the parsers, and told to editors as a JSON schema.

A ``Key`` says what may stand there in the words of JSON Schema. A ``Reader`` checks plain values, as YAML and JSON have
them; every mistake is one line that names the key and the file.

>>> name = Key("name", TEXT, "A short name.", required=True)
>>> mapping([name])["properties"]
{'name': {'description': 'A short name.', 'type': 'string', 'pattern': '\\S'}}
>>> Reader("mine.yaml").keys({"nmae": "a"}, "the task", [name])
Traceback (most recent call last):
...
interp.errors.InterpError: Unknown key 'nmae' in the task of mine.yaml. Did you mean 'name'? Choose from: name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from interp import _yaml
from interp.errors import InterpError, shown, unknown_name

Holds = Mapping[str, Any]
"""What may stand somewhere, as JSON Schema says it."""

TEXT: Holds = {"type": "string", "pattern": r"\S"}
QUOTE = " Put it in quotes."
"""What to do with a number, or with braces, that YAML does not take for text."""
FLAG: Holds = {"type": "boolean"}


def one_of(options: Sequence[str]) -> Holds:
    """One of these words."""
    return {"enum": list(options)}


def whole(least: int, most: int | None = None) -> Holds:
    """A whole number within these bounds, which are included."""
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def some(item: Holds) -> Holds:
    """A list of at least one of these."""
    return {"type": "array", "items": item, "minItems": 1}


def named(item: Holds, least: int = 0) -> Holds:
    """A mapping of any names to these."""
    return {"type": "object", "additionalProperties": item, **({"minProperties": least} if least else {})}


@dataclass(frozen=True)
class Key:
    """One key of a mapping.

    Attributes:
        name: as it is written.
        holds: what may stand there.
        meaning: what it is for, in a line.
        required: whether it must be there.
    """

    name: str
    holds: Holds
    meaning: str
    required: bool = False


def mapping(keys: Sequence[Key], **also: Any) -> Holds:
    """A mapping with these keys and no other; ``also`` holds between them, as JSON Schema says it."""
    required = [key.name for key in keys if key.required]
    return {
        "type": "object",
        "properties": {key.name: {"description": key.meaning, **key.holds} for key in keys},
        "additionalProperties": False,
        **({"required": required} if required else {}),
        **also,
    }


class Reader:
    """Checks the content of one file; every message begins with its name, if it has one."""

    def __init__(self, file: str = "") -> None:
        self.file = file

    def keys(self, content: Any, where: str, keys: Sequence[Key]) -> dict[str, Any]:
        """A mapping with no other keys than these, and with all that are required."""
        found = self.mapping(content, where)
        for name in found:
            self.known(name, [key.name for key in keys], "key", where)
        for key in keys:
            if key.required and key.name not in found:
                self.fail(f"{where} has no {key.name}. Add it.")
        return found

    def known(self, name: object, options: Any, what: str, where: str) -> None:
        """One of the options."""
        if name not in options:
            raise unknown_name(what, name, options, f" in {where}{f' of {self.file}' if self.file else ''}")

    def text(self, content: Mapping[str, Any], key: str, where: str) -> str:
        """The text of a key, without space around it."""
        return self.as_written(content[key], f"{key} of {where}").strip()

    def as_written(self, value: Any, what: str) -> str:
        """A text that is not blank."""
        if not isinstance(value, str) or not value.strip() or not _yaml.is_clean(value):
            self.fail(f"{what} must be text, not {shown(value)}.{'' if isinstance(value, str) else QUOTE}")
        return value

    def texts(self, content: Any, where: str) -> dict[str, str]:
        """A mapping of names to texts."""
        found = self.mapping(content, where)
        return {key: self.as_written(value, f"{key} of {where}") for key, value in found.items()}

    def flag(self, content: Mapping[str, Any], key: str, where: str) -> bool:
        """True or false; false without the key."""
        value = content.get(key, False)
        if not isinstance(value, bool):
            self.fail(f"{key} of {where} must be true or false, not {shown(value)}.")
        return value

    def mapping(self, content: Any, where: str) -> dict[str, Any]:
        """A mapping of texts to anything."""
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            self.fail(f"{where} must be a mapping of keys to values, not {shown(content)}.")
        return content

    def names(self, content: Any, where: str) -> list[str]:
        """A list of at least one name."""
        for name in self.items(content, where):
            if not isinstance(name, str):
                self.fail(f"{where} holds {shown(name)}. Give names; quote true, false and numbers.")
        return list(content)

    def items(self, content: Any, where: str) -> list[Any]:
        """A list of at least one item."""
        if not isinstance(content, list) or not content:
            self.fail(f"{where} must be a list with at least one item.")
        return content

    def fail(self, reason: str) -> NoReturn:
        """Refuse the file.

        Raises:
            InterpError: always.
        """
        raise InterpError(f"{self.file}: {reason}" if self.file else reason)
