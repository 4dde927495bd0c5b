"""The circuit: along which edges of the model the answer comes about, found on half of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import circuits
from interp._arguments import check_pairs
from interp.circuits.discovery import check as check_options

if TYPE_CHECKING:
    from interp.circuits.planning import Method
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.readouts import AnyReadout
    from interp.sweeps import Direction, Progress


check = check_options
"""Refuses options that are wrong whatever the model and the prompts."""


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    method: Method | None = None,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    size: int | float | None = None,
    threshold: float = circuits.THRESHOLD,
    steps: int = 5,
    max_prompts: int | None = 48,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find the circuit on one half of the pairs, drawn by ``interp.circuits.split``; the other half is for its test.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        method: how edges are scored, as in ``interp.circuits.discover``; None lets the plan choose.
        direction: ``"noising"`` or ``"denoising"``.
        metric: a name from ``interp.readouts``, or a read-out of the logits.
        roles: words at which edges are told apart; None is every position at once.
        size: how many edges, or (a fraction) which share of all; None takes those that reach the threshold.
        threshold: least size of a score, as a share of the gap between the clean and the corrupted prompts.
        steps: of the integrals of EAP-IG.
        max_prompts: use only that many prompts, spread evenly over the set, of which half is for the test; None is all.
        seed: of the halves and the audit.
        progress: True for a bar, or called with steps done and in all.

    Returns:
        The data of a ``Circuit``: ``score`` and ``kept`` (sender, receiver), ``score_interval`` of the strongest.

    Raises:
        InterpError: what ``discover`` and ``split`` refuse.

    >>> from analyses import circuit
    >>> from interp import HookedTransformer, tasks
    >>> from interp.circuits import Circuit, Edge
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = circuit.run(model, pairs, method="eap", size=10)
    >>> Edge("L0H2", "L1H0.v") in Circuit(found).edges
    True
    """
    check_pairs(model, pairs)
    found_on, _ = circuits.split(pairs.spread(max_prompts), seed)
    found = circuits.discover(
        model, found_on, method, direction=direction, metric=metric, roles=roles, size=size, threshold=threshold,
        steps=steps, seed=seed, progress=progress,
    )  # fmt: skip
    return found.data


def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    method: Method | None = None,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    size: int | float | None = None,
    threshold: float = circuits.THRESHOLD,
    steps: int = 5,
    max_prompts: int | None = 48,
    seed: int = 0,
) -> list[circuits.DiscoveryPlan]:
    """What ``run`` computes with the same options. Nothing is run.

    >>> from analyses import circuit
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> [each.method for each in circuit.planned(model, pairs)]
    ['exact']
    """
    check_pairs(model, pairs)
    found_on, _ = circuits.split(pairs.spread(max_prompts), seed)
    return [circuits.plan(model, found_on, method, direction=direction, metric=metric, roles=roles, steps=steps)]
