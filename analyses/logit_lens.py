"""The logit lens: at which place of the stream, and at which word, the answer could be said already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import lenses
from interp._arguments import check_pairs
from interp.lenses.planning import reading_passes
from interp.sweeps import Plan, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    roles: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    max_prompts: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Read the stream at every place by the final norm and unembedding, at roles of the clean prompts.

    Args:
        model: the model.
        pairs: clean and corrupted prompts with their answers; the clean ones are read.
        roles: where to read, each at its last token; None is every role.
        sites: states of the residual stream to read; None is all that the model has.
        max_prompts: use only that many prompts, spread evenly over the set; None is all.
        progress: True for a bar, or called with places read and places in all.

    Returns:
        What ``interp.lenses.logit_lens`` returns: ``rank``, ``probability`` and ``log_probability`` of both answers,
        the divergence ``kl`` to the model's own output, the layer at which the answer appears, and calibration.

    Raises:
        InterpError: an unknown role, a site that is no state of the stream, or fewer than one prompt.

    After its first layer the model would not yet say the answer; after each later one it would:

    >>> from analyses import logit_lens
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> lens = logit_lens.run(model, pairs, roles=["answer"])
    >>> rank = lens["rank"].sel(site="resid_post", answer="correct", role="answer")
    >>> (rank == 0).mean("prompt").values.tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    check_pairs(model, pairs)
    return lenses.logit_lens(model, pairs.spread(max_prompts), at=roles, sites=sites, progress=progress)


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    roles: Sequence[str] | None,
    sites: Sequence[str] | None,
    max_prompts: int | None,
) -> list[Plan]:
    """What ``run`` computes with the same options. Nothing is run.

    >>> from analyses import logit_lens
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [each.rows for each in logit_lens.planned(model, pairs)]
    [2]
    """
    check_pairs(model, pairs)
    return [reading_passes(model, pairs.spread(max_prompts), roles=roles, sites=sites)]
