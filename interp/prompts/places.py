"""Which tokens ``at`` means: roles, positions, or every token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from interp.errors import InterpError, whole_number
from interp.prompts.tokens import Prompts

At: TypeAlias = Sequence[str | int] | str | int | None
"""Roles (every token of the span) or positions, one or several; None is every token."""


def token_mask(prompts: Prompts, at: At) -> Bool[np.ndarray, "prompt position"]:
    """Which tokens ``at`` means: every token of each role's span, the given positions, or (None) all real tokens.

    >>> from interp.prompts.tokens import Prompts
    >>> token_mask(Prompts.from_ids([[5, 6, 7], [5, 6]]), [-1]).astype(int).tolist()
    [[0, 0, 1], [0, 1, 0]]

    Raises:
        InterpError: no place, an unknown role, or a position outside a prompt.
    """
    index = np.arange(prompts.ids.shape[1])
    real = index < prompts.lengths[:, None]
    if at is None:
        return real
    mask = np.zeros_like(real)
    for place in places_of(at):
        if isinstance(place, str):
            spans = prompts.spans(place)
            mask |= (index >= spans[:, :1]) & (index < spans[:, 1:])
        else:
            mask[np.arange(len(prompts)), positions_of(prompts, place)] = True
    return mask


def places_of(at: At) -> list[str | int]:
    """Roles and positions one by one.

    Raises:
        InterpError: there is none, or one is neither.
    """
    given = [at] if isinstance(at, str) or not isinstance(at, Iterable) else list(at)
    if not given:
        raise InterpError("at is empty: name at least one role or position, or leave it None for every token.")
    return [place if isinstance(place, str) else whole_number(place, "A position") for place in given]


def positions_of(prompts: Prompts, position: int) -> Int[np.ndarray, " prompt"]:
    """A position of each prompt, counted from its end where it is negative.

    Raises:
        InterpError: it is outside a prompt.
    """
    found = np.where(position < 0, prompts.lengths + position, position)
    outside = (found < 0) | (found >= prompts.lengths)
    if outside.any():
        i = int(outside.argmax())
        raise InterpError(f"Position {position} is outside prompt {i}, which has {prompts.lengths[i]} tokens.")
    return found
