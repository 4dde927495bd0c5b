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
from interp.sweeps import Progress, listener

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Listener

PARTS = 3
"""Training one lens, averaging the other, reading all."""


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    roles: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    held_out: float = 0.5,
    steps: int = 20,
    tokens: int = 128,
    jacobian_prompts: int = 8,
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
        steps: of training the tuned lens; 0 leaves its closed form.
        tokens: about how many tokens such a step looks at.
        jacobian_prompts: prompts that the Jacobian is averaged over, at most; spread evenly over the others.
        targets: tokens at which the Jacobian looks: ``later`` (the same and all later ones) or ``same``.
        max_prompts: use only that many pairs, spread evenly over the set; None is all.
        seed: of what is held out, and of the training.
        progress: True for a bar, or called with hundredths done and in all.

    Returns:
        What ``interp.lenses.side_by_side`` returns, with the axis ``lens`` (``logit``, ``tuned``, ``jacobian``), over
        the prompts held out.

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
    few = texts.select(np.unique(np.linspace(0, len(texts) - 1, min(jacobian_prompts, len(texts))).round().astype(int)))
    made = {
        "tuned": lenses.tuned_lens(
            model, texts, sites=sites, steps=steps, tokens=tokens, seed=seed, progress=_part(heard, 0)
        ),
        "jacobian": lenses.jacobian_lens(model, few, sites=sites, targets=targets, progress=_part(heard, 1)),
    }
    found = lenses.side_by_side(model, held, made, at=roles, sites=sites, progress=_part(heard, 2))
    return found.assign_attrs(seed=seed)


def check(*, held_out: float, steps: int, tokens: int, jacobian_prompts: int) -> None:
    """Refuse settings out of their range, before anything is made.

    Raises:
        InterpError: names the setting.
    """
    if not 0 < held_out < 1:
        raise InterpError(f"held_out is {shown(held_out)}. Give a fraction between 0 and 1.")
    for value, name, least in ((steps, "steps", 0), (tokens, "tokens", 1), (jacobian_prompts, "jacobian_prompts", 1)):
        whole_number(value, name, least=least)


def _part(heard: Listener | None, part: int) -> Listener | None:
    """The progress of one part, in hundredths of it, as progress of the whole."""
    if heard is None:
        return None
    return lambda done, total: heard(100 * part + 100 * done // total, 100 * PARTS)
