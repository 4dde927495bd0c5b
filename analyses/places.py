"""Readable and used: of some places, what can be read there, what erasing it costs, what exchanging it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import subspaces
from interp._arguments import check_pairs
from interp.errors import whole_number
from interp.subspaces.places import STEPS, places_passes
from interp.subspaces.places import check_askable as _check_pairs
from interp.sweeps import Plan, bounded, plans_of, within_budget

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

MAX_PROMPTS = 32
"""Pairs that are used where no number is given and that is quick."""
FEWEST = 6
"""Pairs and steps below which nothing is saved."""


def check(*, rank: int | None = None, steps: int | None = STEPS) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: fewer than one direction, or no steps.
    """
    if rank is not None:
        whole_number(rank, "rank", least=1)
    if steps is not None:
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
    steps: int | None = None,
    controls: bool = True,
    max_prompts: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Read, erase, exchange and patch the source word at some places, all on prompts that no fit has seen.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        site: a site with a vector per token.
        layers: where; None is a quarter and three quarters of the way up.
        roles: where; None is the vocabulary's source and target, the last place where they can meet, and the answer.
        rank: directions that DAS finds; None is one fewer than there are words.
        steps: of DAS. None is ``STEPS``, or fewer where they take long.
        controls: whether DAS is also asked for arbitrary answers, and in a model of shuffled weights.
        max_prompts: use only that many pairs, spread evenly over the set; None is ``MAX_PROMPTS``, or fewer where they
            take long.
        seed: of halves, controls and random directions.
        progress: True for a bar, or called with fits of DAS done and in all.

    Returns:
        What ``interp.subspaces.places`` returns. The attribute ``bounded`` names what is less than by default, to bound
        the time.

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
    some, chosen, less = _affordable(model, pairs, site, layers, roles, steps, controls, max_prompts)
    found = subspaces.places(
        model, some, site=site, layers=layers, roles=roles, rank=rank, steps=chosen, controls=controls, seed=seed,
        progress=progress,
    )  # fmt: skip
    return found.assign_attrs(bounded=less)


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    layers: Sequence[int] | None,
    roles: Sequence[str] | None,
    steps: int | None,
    controls: bool,
    max_prompts: int | None,
) -> list[Plan]:
    """What ``run`` computes with the same options. Nothing is run.

    >>> from analyses import places
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> few, more = (places.planned(model, pairs, steps=n)[0].flop for n in (10, 20))
    >>> few < more < 2 * few
    True
    """
    check_pairs(model, pairs)
    some, chosen, _ = _affordable(model, pairs, site, layers, roles, steps, controls, max_prompts)
    return [places_passes(model, some, site=site, layers=layers, roles=roles, steps=chosen, controls=controls)]


def _affordable(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    layers: Sequence[int] | None,
    roles: Sequence[str] | None,
    steps: int | None,
    controls: bool,
    max_prompts: int | None,
) -> tuple[PromptPairs, int, str]:
    """The pairs and the steps of DAS: those asked for, or as many of the usual ones as are within the budget.

    Pairs go first, down to ``FEWEST``, then steps. Also says what is less than usual.
    """

    def flop(n: int, n_steps: int) -> float:
        return places_passes(
            model, pairs.spread(n), site=site, layers=layers, roles=roles, steps=n_steps, controls=controls
        ).flop

    usual, chosen = min(MAX_PROMPTS, len(pairs)), STEPS if steps is None else steps
    n = max_prompts
    if n is None:
        few = min(FEWEST, usual)
        n = within_budget(model, range(usual, few - 1, -1), lambda one: flop(one, chosen))
    if steps is None:
        chosen = within_budget(model, range(STEPS, FEWEST - 1, -1), lambda one: flop(n, one))
    less = {"max_prompts": (n, usual)} if max_prompts is None else {}
    less |= {"steps": (chosen, STEPS)} if steps is None else {}
    return pairs.spread(n), chosen, bounded(less)
