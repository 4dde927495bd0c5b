"""Three lenses side by side on held-out prompts: the logit lens, the tuned lens and the Jacobian lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from interp import lenses
from interp._arguments import check_pairs
from interp.errors import InterpError, shown, whole_number
from interp.lenses.jacobian import Targets
from interp.lenses.planning import jacobian_passes, reading_passes, tuned_passes
from interp.sweeps import Plan, Progress, bounded, listener, plans_of, within_budget

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.prompts.tokens import Prompts
    from interp.sweeps import Listener

STEPS = 20
"""Steps of training, where that is quick."""
JACOBIAN_PROMPTS = 8
"""Prompts of the mean Jacobian, where that is quick."""
PARTS = 3
"""Training one lens, averaging the other, reading all."""


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    roles: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    held_out: float = 0.5,
    steps: int | None = None,
    tokens: int = 128,
    jacobian_prompts: int | None = None,
    targets: Targets = "later",
    max_prompts: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Make a tuned lens and a Jacobian lens from some of the prompts, and read them and the logit lens on the others.

    Args:
        model: the model.
        pairs: clean and corrupted prompts with their answers. Both kinds are made use of, the clean ones are read.
        roles: where to read, each at its last token; None is every role.
        sites: states of the residual stream; None is all that the model has.
        held_out: share of the pairs that no lens is made from.
        steps: of training the tuned lens; 0 leaves its closed form. None is ``STEPS``, or fewer where they take long.
        tokens: about how many tokens such a step looks at.
        jacobian_prompts: prompts that the Jacobian is averaged over, at most; spread evenly over the others. None is
            ``JACOBIAN_PROMPTS``, or fewer where they take long.
        targets: tokens at which the Jacobian looks: ``later`` (the same and all later ones) or ``same``.
        max_prompts: use only that many pairs, spread evenly over the set; None is all.
        seed: of what is held out, and of the training.
        progress: True for a bar, or called with hundredths done and in all.

    Returns:
        What ``interp.lenses.side_by_side`` returns, with the axis ``lens`` (``logit``, ``tuned``, ``jacobian``), over
        the prompts held out. The attribute ``bounded`` names what is less than by default, to bound the time.

    Raises:
        InterpError: an unknown role, too few different prompts, or what the lenses refuse.

    After the first layer the lens that was trained is nearest to what the model says in the end:

    >>> from analyses import lenses
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> found = lenses.run(model, pairs, sites=["resid_post"], steps=0, jacobian_prompts=1)
    >>> kl = found["kl"].sel(site="resid_post", layer=0, role="answer").mean("prompt")
    >>> bool(kl.sel(lens="tuned") == kl.min())
    True
    """
    check_pairs(model, pairs)
    check(held_out=held_out, steps=steps, tokens=tokens, jacobian_prompts=jacobian_prompts)
    heard = listener(progress)
    texts, held = lenses.held_out(pairs.spread(max_prompts), share=held_out, seed=seed)
    asked = {"steps": steps, "jacobian_prompts": jacobian_prompts}
    steps, jacobian_prompts = _affordable(model, texts, steps, tokens, jacobian_prompts, sites, targets)
    few = _few(texts, jacobian_prompts)
    made = {
        "tuned": lenses.tuned_lens(
            model, texts, sites=sites, steps=steps, tokens=tokens, seed=seed, progress=_part(heard, 0)
        ),
        "jacobian": lenses.jacobian_lens(model, few, sites=sites, targets=targets, progress=_part(heard, 1)),
    }
    found = lenses.side_by_side(model, held, made, at=roles, sites=sites, progress=_part(heard, 2))
    chosen = {"steps": (steps, STEPS), "jacobian_prompts": (jacobian_prompts, min(JACOBIAN_PROMPTS, len(texts)))}
    return found.assign_attrs(
        seed=seed, steps=steps, jacobian_prompts=len(few),
        bounded=bounded({name: both for name, both in chosen.items() if asked[name] is None}),
    )  # fmt: skip


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    roles: Sequence[str] | None,
    sites: Sequence[str] | None,
    held_out: float,
    steps: int | None,
    tokens: int,
    jacobian_prompts: int | None,
    targets: Targets,
    max_prompts: int | None,
    seed: int,
) -> list[Plan]:
    """What ``run`` computes with the same options: training one lens, averaging the other, reading all. Nothing is run.

    >>> from analyses import lenses
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> [each.rows for each in lenses.planned(model, pairs, steps=0, jacobian_prompts=1)]  # 128 entries of the stream
    [8, 129, 4]
    """
    check_pairs(model, pairs)
    texts, held = lenses.held_out(pairs.spread(max_prompts), share=held_out, seed=seed)
    steps, jacobian_prompts = _affordable(model, texts, steps, tokens, jacobian_prompts, sites, targets)
    return [
        tuned_passes(model, texts, sites=sites, steps=steps, tokens=tokens),
        jacobian_passes(model, _few(texts, jacobian_prompts), sites=sites, targets=targets),
        reading_passes(model, held, roles=roles, sites=sites, n_lenses=PARTS),
    ]


def _affordable(
    model: HookedTransformer,
    texts: Prompts,
    steps: int | None,
    tokens: int,
    jacobian_prompts: int | None,
    sites: Sequence[str] | None,
    targets: Targets,
) -> tuple[int, int]:
    """Steps and prompts: those asked for, or as many of the usual ones as either lens can afford."""
    if steps is None:
        steps = within_budget(
            model, range(STEPS, -1, -1),
            lambda n: 2 * tuned_passes(model, texts, sites=sites, steps=n, tokens=tokens).flop,
        )  # fmt: skip
    if jacobian_prompts is None:
        jacobian_prompts = within_budget(
            model, range(JACOBIAN_PROMPTS, 0, -1),
            lambda n: 2 * jacobian_passes(model, _few(texts, n), sites=sites, targets=targets).flop,
        )  # fmt: skip
    return steps, jacobian_prompts


def _few(texts: Prompts, n: int) -> Prompts:
    """So many prompts at most, spread evenly."""
    return texts.select(np.unique(np.linspace(0, len(texts) - 1, min(n, len(texts))).round().astype(int)))


def check(*, held_out: float, steps: int | None, tokens: int, jacobian_prompts: int | None) -> None:
    """Refuse settings out of their range, before anything is made.

    Raises:
        InterpError: names the setting.
    """
    if not 0 < held_out < 1:
        raise InterpError(f"held_out is {shown(held_out)}. Give a fraction between 0 and 1.")
    for value, name, least in ((steps, "steps", 0), (tokens, "tokens", 1), (jacobian_prompts, "jacobian_prompts", 1)):
        if value is None:
            continue
        whole_number(value, name, least=least)


def _part(heard: Listener | None, part: int) -> Listener | None:
    """The progress of one part, in hundredths of it, as progress of the whole."""
    if heard is None:
        return None
    return lambda done, total: heard(100 * part + 100 * done // total, 100 * PARTS)
