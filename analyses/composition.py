"""Which heads can read what earlier heads write, by the weights alone: composition scores beside random weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import xarray as xr

from interp import heads
from interp._arguments import check_pairs
from interp.errors import whole_number
from interp.heads.composition import KINDS
from interp.sweeps import Plan, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress


def check(*, distance: int) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: a distance below 0.
    """
    whole_number(distance, "distance", least=0)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    distance: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Score every pair of heads of two layers; nothing is run on the prompts.

    Args:
        model: the model.
        pairs: the prompts of the study, which are not read.
        distance: tokens between the two words, where positions are rotary.
        seed: of the random weights.
        progress: True for a bar, or called with layers done and layers in all.

    Returns:
        What ``interp.heads.composition`` returns: ``composition``, ``above_baseline`` and ``p_value`` (kind,
        writer_head, reader_head), and ``baseline`` (kind).

    Raises:
        InterpError: a distance outside the model's context.

    >>> from analyses import composition
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = composition.run(model, pairs)
    >>> float(found.p_value.sel(kind="v", writer_head="L0H2", reader_head="L1H0")) < 0.01
    True
    """
    check_pairs(model, pairs)
    check(distance=distance)
    return heads.composition(model, distance=distance, seed=seed, progress=progress)


@plans_of(run)
def planned(model: HookedTransformer) -> list[Plan]:
    """What ``run`` computes: products of the weights of every two heads, in float64. Nothing is computed.

    An operation of float64 is counted as two, since it takes about as long as two of float32.

    >>> from analyses import composition
    >>> from interp import HookedTransformer
    >>> [plan.rows for plan in composition.planned(HookedTransformer.from_pretrained("mini"), [])]  # 6 pairs of layers
    [288]
    """
    cfg = model.cfg
    scores = len(KINDS) * cfg.n_heads**2 * math.comb(cfg.n_layers, 2)
    flop = 2 * 2.0 * cfg.d_head**2 * cfg.d_model
    kept = 3 * 8 * cfg.n_layers * cfg.n_heads * cfg.d_head * cfg.d_model
    widest = 8 * cfg.n_heads**2 * cfg.d_head**2
    return [Plan("weights", scores, scores, (), cfg.n_layers, scores * flop, kept + widest, cfg.n_heads)]
