"""Readable and used: of some places, what can be read there, what erasing it costs, what exchanging it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import subspaces
from interp._arguments import check_pairs
from interp.errors import whole_number
from interp.subspaces.places import STEPS
from interp.subspaces.places import check_askable as _check_pairs

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

MAX_PROMPTS = 32
"""Pairs that are used where no number is given."""


def check(*, rank: int | None = None, steps: int = STEPS) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: fewer than one direction, or no steps.
    """
    if rank is not None:
        whole_number(rank, "rank", least=1)
    whole_number(steps, "steps", least=1)


def check_askable(pairs: PromptPairs, *, roles: Sequence[str] | None = None) -> None:
    """Refuse a question that these pairs leave no room for, whatever the model; ``roles`` as for ``run``.

    Raises:
        UnaskableError: as ``run``.
    """
    _check_pairs(pairs)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    site: str = "resid_pre",
    layers: Sequence[int] | None = None,
    roles: Sequence[str] | None = None,
    rank: int | None = None,
    steps: int = STEPS,
    controls: bool = True,
    max_prompts: int | None = MAX_PROMPTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Read, erase, exchange and patch the source word at some places, all on prompts that no fit has seen.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        site: a site with a vector per token.
        layers: where; None is a quarter and three quarters of the way up.
        roles: where; None is the vocabulary's source and target, and the answer.
        rank: directions that DAS finds; None is one fewer than there are words.
        steps: of DAS.
        controls: whether DAS is also asked for arbitrary answers, and in a model of shuffled weights.
        max_prompts: use only that many pairs, spread evenly over the set; None is all.
        seed: of halves, controls and random directions.
        progress: True for a bar, or called with fits of DAS done and in all.

    Returns:
        What ``interp.subspaces.places`` returns.

    Raises:
        UnaskableError: no source word, one word only, or one clean prompt only.
        InterpError: an unknown site, layer or role, or fewer than one prompt.

    >>> from analyses import places
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> found = places.run(model, pairs, layers=[3], roles=["answer"], steps=2, controls=False)
    >>> found["recovered_erasure"].dims
    ('prompt', 'layer', 'role', 'eraser')
    """
    check_pairs(model, pairs)
    check(rank=rank, steps=steps)
    return subspaces.places(
        model, pairs.spread(max_prompts), site=site, layers=layers, roles=roles, rank=rank, steps=steps,
        controls=controls, seed=seed, progress=progress,
    )  # fmt: skip
