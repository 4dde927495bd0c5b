"""Prompts to make a lens from, and others to read it on."""

from __future__ import annotations

import numpy as np

from interp.errors import InterpError, shown
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts


def held_out(pairs: PromptPairs, *, share: float = 0.5, seed: int = 0) -> tuple[Prompts, PromptPairs]:
    """Split pairs at random into prompts to make a lens from, and pairs that it has not seen.

    Args:
        pairs: the pairs.
        share: of the pairs that is held out, between 0 and 1.
        seed: of the draw.

    Returns:
        The clean and corrupted prompts of the other pairs, but for those that are held out too, token for token; and
        the pairs held out. What is held out is whole prompts: their words stand in other prompts too.

    Raises:
        InterpError: a share outside (0, 1), or too few different prompts.

    >>> from interp import HookedTransformer, lenses, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> texts, pairs = lenses.held_out(tasks.build("color-noun", "recall", tokenizer=model, n=8))
    >>> len(texts), len(pairs)
    (8, 4)
    """
    if not 0 < share < 1:
        raise InterpError(f"share is {shown(share)}. Give a fraction between 0 and 1.")
    n = len(pairs)
    n_held = min(max(1, round(share * n)), n - 1)
    if n_held < 1:
        raise InterpError(f"A lens needs prompts to be made from and others to be read on, but there is {n} pair.")
    order = np.random.default_rng(seed).permutation(n)
    held, rest = pairs.select(np.sort(order[:n_held])), pairs.select(np.sort(order[n_held:]))
    known = {tuple(row) for prompts in (held.clean, held.corrupted) for row in prompts.rows()}
    both = Prompts.concat([rest.clean, rest.corrupted])
    new = [i for i, row in enumerate(both.rows()) if tuple(row) not in known]
    if not new:
        raise InterpError(
            f"Of {n} pairs all prompts are alike, so that none is left to make a lens from. Use more and other prompts."
        )
    return both.select(new), held
