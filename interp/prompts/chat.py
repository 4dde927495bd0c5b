"""A text as a model reads it: as it stands, or a chat that the tokenizer's own template writes out.

>>> from interp import HookedTransformer
>>> model = HookedTransformer.from_pretrained("mini")
>>> Written.of(model, "The cat is black").messages
()
>>> Written.of(model, [{"role": "user", "content": "The cat is black"}])
Traceback (most recent call last):
interp.errors.InterpError: mini has no chat template, so that it reads no chat. Give a plain text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from interp import _files
from interp.errors import InterpError, shown
from interp.prompts.tokens import SupportsTokenizer

Messages: TypeAlias = Sequence[Mapping[str, str]]
"""A chat: ``{"role": "user", "content": "..."}``, and so on."""
MOST_BYTES = 2**20
"""A file with a chat is no longer."""


@dataclass(frozen=True)
class Message:
    """Where a message stands in the text: its role, and the characters of its content (half open)."""

    role: str
    place: tuple[int, int]


@dataclass(frozen=True)
class Written:
    """A text, what tokenises it, and where the messages of a chat stand in it.

    Attributes:
        text: what the model reads, but for a BOS that is added.
        reader: the model; of a chat a stand-in for it that adds no BOS, since the template writes what is needed.
        messages: of a chat, in order.
    """

    text: str
    reader: SupportsTokenizer
    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, model: Any, text: str | Messages) -> Written:
        """A plain text as it stands, a chat as the template writes it, with the beginning of the answer.

        Raises:
            InterpError: no messages with a role and a content each, or a model that has no chat template.
        """
        if isinstance(text, str) or not isinstance(text, Sequence):
            return cls(text, model)
        messages = checked(text)
        tokenizer = model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise InterpError(f"{model.name} has no chat template, so that it reads no chat. Give a plain text.")
        try:
            said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of the model's own, which refuses in ways of its own
            raise InterpError(f"The chat template of {model.name} refuses this chat: {_line(error)}.") from error
        return cls(said, _AsWritten(model), tuple(_placed(said, messages)))

    @property
    def within(self) -> tuple[tuple[int, int], ...] | None:
        """Where words are looked for: in the messages of a chat, anywhere in a plain text."""
        return tuple(message.place for message in self.messages) or None

    @property
    def said(self) -> str:
        """The text; of a chat its messages, each after its role."""
        return " ".join(f"{message.role}: {self.text[slice(*message.place)]}" for message in self.messages) or self.text

    @property
    def roles(self) -> dict[str, tuple[int, int]]:
        """Name of a role -> its characters; the second message of one role is ``"user 2"``. Empty ones have none."""
        found: dict[str, tuple[int, int]] = {}
        for message in self.messages:
            n = sum(1 for other in found if other.partition(" ")[0] == message.role) + 1
            if message.place[0] < message.place[1]:
                found[message.role if n == 1 else f"{message.role} {n}"] = message.place
        return found


def read_chat(path: Path) -> Messages:
    """The messages in a JSON file.

    Raises:
        InterpError: it cannot be read, or is no list of messages.
    """
    try:
        found = json.loads(_files.read(path, at_most=MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({_files.why(error)}).") from error
    except (ValueError, RecursionError) as error:
        raise InterpError(f"{path} is no JSON ({_line(error)}). Write a list of messages.") from error
    return checked(found)


def checked(messages: Any) -> list[dict[str, str]]:
    """The messages of a chat.

    Raises:
        InterpError: none, or one without a role or a content.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise InterpError('A chat is a list of messages: [{"role": "user", "content": "..."}].')
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise InterpError(
                f"Message {i} is {shown(message)}. Give each a role and a content: "
                '{"role": "user", "content": "..."}.'
            )
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _placed(text: str, messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """Each message's content in the text, in order; templates may take away white space round it."""
    found, cursor = [], 0
    for i, message in enumerate(messages):
        content = message["content"] if message["content"] in text[cursor:] else message["content"].strip()
        start = text.find(content, cursor)
        if start < 0:
            raise InterpError(
                f"The chat template leaves out or changes message {i}. Leave it out, or give a plain text."
            )
        cursor = start + len(content)
        found.append(Message(message["role"], (start, cursor)))
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


class _AsWritten:
    """A model whose text is taken as it is written: no BOS is added, and the text may bring its own."""

    bos_policy = "none"
    bos_token_id = None

    def __init__(self, model: Any) -> None:
        self.tokenizer: Any = model.tokenizer
        self.cfg = getattr(model, "cfg", None)
