"""What heads do: six roles, each named only where the head beats its null from shuffled prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from interp import heads
from interp._arguments import check_pairs
from interp.errors import whole_number
from interp.heads.choice import ends
from interp.interventions import AblationKind, parse_edge
from interp.sweeps import Ablation, Plan, passes, plan, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress


def check(*, n: int, repaired: int) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: fewer than two sequences, or no head to ablate.
    """
    whole_number(n, "n", least=2)
    whole_number(repaired, "repaired", least=1)


def check_askable(pairs: PromptPairs, *, edge: str | None = None) -> None:
    """Refuse words that these pairs do not have or that cannot be seen, whatever the model.

    Raises:
        UnaskableError: the destination comes before the source, or no word is there to be read by default.
        InterpError: an unknown role.
    """
    dest, src = (None, pairs.vocabulary.source) if edge is None else parse_edge(edge)
    ends(pairs, dest, src)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    edge: str | None = None,
    n: int = 24,
    repaired: int = 8,
    ablation: AblationKind = "mean",
    max_prompts: int | None = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure what every head does on random tokens that repeat and on these pairs, and name its roles.

    Args:
        model: the model.
        pairs: clean and corrupted prompts with their answers.
        edge: destination<-source of the mover, such as ``"noun<-color"``; None is the vocabulary's source and the word
            from which one head looks at it most.
        n: sequences of random tokens.
        repaired: how many heads are ablated to look for self-repair.
        ablation: what an ablated head's output is replaced by.
        max_prompts: use only that many prompts, spread evenly over the set; None is all.
        seed: of everything random.
        progress: True for a bar, or called with steps done and steps in all.

    Returns:
        What ``interp.heads.roles`` returns: ``measured``, ``null`` and ``excess`` (prompt, measure, layer, head),
        ``p_value`` (measure, layer, head) and ``named`` (head_role, layer, head).

    Raises:
        InterpError: an unknown role, or a vocabulary too small for random tokens that repeat.

    Heads that look back were put into ``mini`` on purpose:

    >>> from analyses import head_roles
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=12)
    >>> found = head_roles.run(model, pairs, n=12)
    >>> bool(found.named.sel(head_role="previous token", layer=0, head=0))
    True
    """
    check_pairs(model, pairs)
    check(n=n, repaired=repaired)
    chosen = pairs.spread(max_prompts)
    return heads.roles(
        model, chosen, edge=edge, n=n, repaired=repaired, ablation=ablation, seed=seed, progress=progress
    )


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    edge: str | None,
    n: int,
    repaired: int,
    ablation: AblationKind,
    max_prompts: int | None,
    seed: int,
) -> list[Plan]:
    """What ``run`` computes with the same options. Nothing is run.

    >>> from analyses import head_roles
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=12)
    >>> [each.rows_in_all for each in head_roles.planned(model, pairs)[1:]]  # 12 prompts, 16 heads
    [192, 192]
    """
    check_pairs(model, pairs)
    chosen = pairs.spread(max_prompts)
    dest, src = (None, pairs.vocabulary.source) if edge is None else parse_edge(edge)
    (first, *_), _ = ends(pairs, dest, src)
    # Random tokens are about as long as prompts, and run four times; heads that are taken out, once each.
    whole = passes(model, chosen.clean, forward=4 * n / len(chosen) + 6 + repaired)
    if chosen.answer_policy == "sum_logprob" or chosen.continuation:
        return [whole]
    return [
        whole,
        plan(model, chosen, "z", "denoising", roles=[first.name]),
        plan(model, chosen, Ablation("z", ablation, seed=seed)),
    ]
