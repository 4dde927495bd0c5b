"""Two halves of the prompts: a circuit is found on one and tested on the other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from interp.errors import InterpError
from interp.prompts import PromptPairs


def split(pairs: PromptPairs, seed: int = 0) -> tuple[PromptPairs, PromptPairs]:
    """Two halves of the pairs, drawn at random, that share no prompt.

    Pairs that have a prompt in common, as clean or as corrupted one, stay on the same side. Where prompts come from
    several templates, each half has as many pairs of each, as far as that is possible. (Words are shared: the halves
    are other prompts, not other words.)

    Args:
        pairs: at least two that share no prompt.
        seed: of the draw.

    Returns:
        Those to find a circuit on, and those to test it on, each in the order of ``pairs``.

    Raises:
        InterpError: there is nothing to part.

    >>> from interp import HookedTransformer, tasks
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=HookedTransformer.from_pretrained("mini"), n=8)
    >>> found_on, tested_on = split(pairs)
    >>> len(found_on), len(tested_on)
    (4, 4)
    """
    group = _groups(pairs)
    names, first, counts = np.unique(group, return_index=True, return_counts=True)
    if len(names) < 2:
        raise InterpError(
            f"{len(pairs)} pairs cannot be parted into two halves that share no prompt. Give more, or different ones."
        )
    turn = np.random.default_rng(seed).permutation(len(names))
    turn = turn[np.argsort([pairs.variants[first[i]] for i in turn], kind="stable")]
    side = np.zeros(len(names), dtype=int)
    sizes = [0, 0]
    for i in turn:
        side[i] = int(sizes[1] < sizes[0])
        sizes[side[i]] += int(counts[i])
    sides = side[np.searchsorted(names, group)]
    one, other = (pairs.select(np.flatnonzero(sides == which)) for which in (0, 1))
    return one, other


def _groups(pairs: PromptPairs) -> Int[np.ndarray, " prompt"]:
    """Per pair the first pair that it shares a prompt with, directly or through others."""
    group = np.arange(len(pairs))
    seen: dict[bytes, int] = {}
    for prompts in (pairs.clean, pairs.corrupted):
        for i, (ids, length) in enumerate(zip(prompts.ids, prompts.lengths, strict=True)):
            other = seen.setdefault(np.ascontiguousarray(ids[:length]).tobytes(), i)
            low, high = sorted((group[i], group[other]))
            group[group == high] = low
    return group
