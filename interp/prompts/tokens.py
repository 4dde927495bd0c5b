"""Text to token ids, and roles to token spans.

Text is tokenised without the tokenizer's own special tokens; the beginning-of-sequence token (BOS) is then added by
the model's stated policy, so there is exactly one or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import Int

from interp.errors import InterpError, shown, unknown_name
from interp.prompts.ids import (
    Prompts,
    RoleSpec,
    Span,
    decode,
    excerpt,
    marked,
    numbers,
    padded,
    row_texts,
    token_texts,
    unknown_id,
)

__all__ = [
    "CharSpans",
    "Prompts",
    "RoleSpec",
    "Span",
    "SupportsTokenizer",
    "bos_ids",
    "check_fits",
    "encode",
    "encode_marked",
    "encode_plain",
    "excerpt",
    "extend",
    "marked",
    "numbers",
    "token_span",
    "token_texts",
    "unknown_id",
    "unknown_word",
    "usable_ids",
]

AT_ONCE = 4096
"""Texts that a tokenizer is given at a time: the characters of each token take far more memory than its id."""

CharSpans = Mapping[str, tuple[int, int]]  # role -> characters, half open


BosPolicy: TypeAlias = Literal["prepend", "none"]
"""Exactly one BOS before each text, or none."""


def bos_policy_of(asked: str, tokenizer: Any | None) -> BosPolicy:
    """The policy of a model with this tokenizer; ``"auto"`` prepends a BOS where the tokenizer has one.

    Raises:
        InterpError: an unknown policy, or a BOS is asked for that the tokenizer has not.
    """
    if asked not in ("auto", "prepend", "none"):
        raise InterpError(f"Unknown bos policy {shown(asked)}. Choose 'auto', 'prepend' or 'none'.")
    has_bos = tokenizer is not None and tokenizer.bos_token_id is not None
    if asked == "prepend" and not has_bos:
        raise InterpError(
            "bos='prepend' was asked for, but the tokenizer has no beginning-of-sequence token. Use bos='none'."
        )
    if asked == "auto":
        return "prepend" if has_bos else "none"
    return "prepend" if asked == "prepend" else "none"


class SupportsTokenizer(Protocol):
    """What tokenising needs of a model; ``HookedTransformer`` has it. ``cfg.n_ctx`` is used where present."""

    @property
    def tokenizer(self) -> Any:
        """A fast Hugging Face tokenizer, or None for a model that only reads ids."""

    @property
    def bos_policy(self) -> str:
        """``"prepend"`` (exactly one BOS before each text) or ``"none"``."""

    @property
    def bos_token_id(self) -> int | None:
        """The id of the BOS, or None if the vocabulary has none."""


def encode(
    model: SupportsTokenizer,
    texts: str | Sequence[str],
    roles_char_spans: Sequence[CharSpans] | None = None,
) -> Prompts:
    """Tokenise texts with exactly the BOS that the model's policy states.

    The span of a role is every token that shares a character with it. Where the bytes of one letter are spread over
    several tokens, all of these belong to it. A token that is only the space before the word does not.

    Args:
        model: anything with ``tokenizer``, ``bos_policy`` and ``bos_token_id``.
        texts: one text, or several.
        roles_char_spans: for each text, role -> (first, one past last) character; the same roles in each.

    Raises:
        InterpError: no texts, an empty text, a text that brings its own BOS, a word that the tokenizer does not know, a
            model without a fast tokenizer, or a prompt longer than ``model.cfg.n_ctx``.
    """
    prompts, unknown = encode_marked(model, texts, roles_char_spans)
    for i, words in enumerate(unknown):
        if words:
            raise InterpError(f"Prompt {i}{_named(prompts, i)} holds {words}. Choose words that it knows.")
    return prompts


def encode_marked(
    model: SupportsTokenizer,
    texts: str | Sequence[str],
    roles_char_spans: Sequence[CharSpans] | None = None,
) -> tuple[Prompts, list[str]]:
    """Like ``encode``; also says, for each text, which words the tokenizer does not know (empty where it knows all)."""
    texts = _text_list(texts)
    lead, roles = bos_ids(model), tuple(roles_char_spans[0] if roles_char_spans else ())
    rows: list[np.ndarray] = []
    spans: dict[str, list[tuple[int, int]]] = {role: [] for role in roles}
    unknown: list[str] = []
    for start in range(0, len(texts), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        chars = roles_char_spans[part] if roles_char_spans else [{}] * len(texts[part])
        encoded = encode_plain(model, texts[part], first=start)
        for text, (ids, offsets), at in zip(texts[part], encoded, chars, strict=True):
            rows.append(np.array([*lead, *ids], dtype=np.int32))
            for role in roles:
                span = token_span(offsets, at[role], role=role, text=text, shift=len(lead))
                spans[role].append((span.start, span.stop))
            unknown.append(unknown_word(model.tokenizer, text, ids, offsets, at))
    prompts = Prompts(
        ids=padded(rows),
        lengths=np.array([len(row) for row in rows]),
        roles={role: np.array(found) for role, found in spans.items()},
        texts=tuple(texts),
        tokens=row_texts(model.tokenizer, rows),
        bos="prepended" if lead else "none",
    )
    check_fits(prompts, model)
    return prompts, unknown


def unknown_word(
    tokenizer: Any, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], roles: CharSpans
) -> str:
    """What to say of the first word of a text that its tokenizer does not know; empty where it knows all."""
    mark = unknown_id(tokenizer)
    for token, (start, stop) in zip(ids, offsets, strict=True):
        if token == mark:
            role = next((name for name, (first, last) in roles.items() if start < last and stop > first), None)
            word = text[slice(*roles[role])] if role is not None else text[start:stop].strip()
            where = "" if role is None else f" (role {role})"
            return f'"{excerpt(word)}"{where}, which the tokenizer does not know and reads as {tokenizer.unk_token}'
    return ""


def check_fits(prompts: Prompts, model: Any, extra: Int[np.ndarray, " prompt"] | int = 0) -> None:
    """Refuse prompts that the model cannot read: too long for it or for one batch, or ids outside its vocabulary.

    Args:
        prompts: what is to be run.
        model: looked at for ``cfg.n_ctx`` and ``cfg.vocab``; what it does not state is not checked.
        extra: tokens that will still be appended to each prompt.
    """
    cfg = getattr(model, "cfg", None)
    n_ctx, vocab = getattr(cfg, "n_ctx", None), getattr(cfg, "vocab", None)
    lengths = prompts.lengths + extra
    if n_ctx is not None and lengths.max() > n_ctx:
        i = int(lengths.argmax())
        raise InterpError(
            f"Prompt {i}{_named(prompts, i)} has {lengths[i]} tokens, but the model reads at most {n_ctx} "
            "(n_ctx). Shorten it, or choose a model with a longer context."
        )
    boundary = getattr(cfg, "length_boundary", None)
    if boundary is not None and lengths.min() != lengths.max() and lengths.min() <= boundary < lengths.max():
        i, j = int(lengths.argmin()), int(lengths.argmax())
        raise InterpError(
            f"Prompts {i} and {j} have {lengths[i]} and {lengths[j]} tokens, but above {boundary} the model turns a "
            "whole batch by other rotary angles. Run the shorter and the longer prompts apart."
        )
    if vocab is not None and prompts.ids.max() >= vocab:
        i = int(prompts.ids.max(axis=1).argmax())
        raise InterpError(
            f"Prompt {i} holds token id {prompts.ids[i].max()}, but the model's vocabulary ends at "
            f"{vocab - 1}. Use ids of this model's own tokenizer."
        )


def extend(prompts: Prompts, continuations: Sequence[Sequence[int]], tokenizer: Any = None) -> Prompts:
    """Append given tokens to each prompt; roles stay where they are, texts and tokens grow alike."""
    rows = [[*row, *more] for row, more in zip(prompts.rows(), continuations, strict=True)]
    reader = getattr(tokenizer, "tokenizer", tokenizer)
    texts, tokens = prompts.texts, prompts.tokens
    if any(continuations) and reader is not None:
        if texts is not None:
            texts = tuple(text + decode(reader, more) for text, more in zip(texts, continuations, strict=True))
        if tokens is not None:
            tokens = tuple((*row, *token_texts(reader, more)) for row, more in zip(tokens, continuations, strict=True))
    elif any(continuations):
        texts, tokens = None, None
    return replace(prompts, ids=padded(rows), lengths=np.array([len(r) for r in rows]), texts=texts, tokens=tokens)


def usable_ids(model: SupportsTokenizer) -> list[int]:
    """Every id of the vocabulary but special ones, for prompts made of random tokens."""
    reader, cfg = getattr(model, "tokenizer", None), getattr(model, "cfg", None)
    sizes = [size for size in (getattr(cfg, "vocab", None), None if reader is None else len(reader)) if size]
    if not sizes:
        raise InterpError("The size of the vocabulary is unknown. Give a model with cfg.vocab or a tokenizer.")
    special = {model.bos_token_id, *(reader.all_special_ids if reader is not None else ())}
    return [token for token in range(min(sizes)) if token not in special]


def bos_ids(model: SupportsTokenizer) -> tuple[int, ...]:
    """The BOS that goes before each prompt: one id, or none if the policy is ``"none"``."""
    if not hasattr(model, "bos_policy"):
        raise InterpError(
            f"{shown(model)} is no loaded model, whose tokenizer and BOS are asked for. Give one, as in "
            "tokenizer=HookedTransformer.from_pretrained('mini')."
        )
    if model.bos_policy == "none":
        return ()
    if model.bos_policy != "prepend":
        raise unknown_name("bos_policy", model.bos_policy, ("prepend", "none"))
    if model.bos_token_id is None:
        raise InterpError('bos_policy is "prepend", but the model has no bos_token_id. Use bos_policy="none".')
    return (int(model.bos_token_id),)


def encode_plain(
    model: SupportsTokenizer, texts: Sequence[str], *, first: int = 0
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Ids and character offsets of each text, without any special token; messages count texts from ``first``."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise InterpError("This model has no tokenizer. Give token ids: Prompts.from_ids or PromptPairs.from_tokens.")
    if not getattr(tokenizer, "is_fast", False):
        raise InterpError("Roles need character offsets, which only fast tokenizers give. Load one with use_fast=True.")
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    bos = model.bos_token_id
    mark = None if bos is None else tokenizer.convert_ids_to_tokens(bos)
    for i, (text, ids) in enumerate(zip(texts, batch["input_ids"], strict=True), first):
        if bos is not None and (bos in ids or (mark and text.startswith(mark))):
            raise InterpError(
                f'Prompt {i} ("{excerpt(text)}") writes the BOS {mark} itself. Remove it: the BOS is added '
                f'by bos_policy="{model.bos_policy}".'
            )
    return list(zip(batch["input_ids"], batch["offset_mapping"], strict=True))


def token_span(offsets: Sequence[tuple[int, int]], chars: tuple[int, int], *, role: str, text: str, shift: int) -> Span:
    """The tokens that share a character with a role, with ``shift`` tokens before the text.

    Raises:
        InterpError: there is none.
    """
    hit = [i for i, (start, stop) in enumerate(offsets) if start < chars[1] and stop > chars[0]]
    if not hit:
        word = text[slice(*chars)]
        raise InterpError(
            f'No token of "{excerpt(text)}" covers {word!r} of role {role!r}. Use a tokenizer whose offsets '
            "cover every letter."
        )
    return Span(hit[0] + shift, hit[-1] + 1 + shift)


def _named(prompts: Prompts, i: int) -> str:
    return "" if prompts.texts is None else f' ("{excerpt(prompts.texts[i])}")'


def _text_list(texts: str | Sequence[str]) -> list[str]:
    found = [texts] if isinstance(texts, str) else list(texts)
    if not found:
        raise InterpError("There are no prompts: the list of texts is empty. Give at least one.")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InterpError(f"Prompt {i} is {type(text).__name__}, not text. Give a list of strings.")
        if not text:
            raise InterpError(f"Prompt {i} is empty. Give it at least one word.")
    return found
