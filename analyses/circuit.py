"""The circuit: along which edges of the model the answer comes about, found on half of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import circuits, results
from interp._arguments import check_pairs
from interp.circuits.discovery import check as check_options
from interp.errors import whole_number
from interp.sweeps import plans_of

if TYPE_CHECKING:
    from interp.circuits.planning import Method
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.readouts import AnyReadout
    from interp.sweeps import Direction, Progress


N_RESAMPLES = 20
"""Bootstrap samples of the prompts, where their circuits cost nothing."""


def check(*, size: int | float | None, threshold: float, steps: int, n_resamples: int | None) -> None:
    """Refuse options that are wrong whatever the model and the prompts.

    Raises:
        InterpError: what ``discover`` refuses of its options, or a number below 0.
    """
    check_options(size=size, threshold=threshold, steps=steps)
    if n_resamples is not None:
        whole_number(n_resamples, "n_resamples", least=0)


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
    n_resamples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find the circuit on one half of the pairs, drawn by ``interp.circuits.split``; the other half is for its test.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        method: how edges are scored, as in ``interp.circuits.discover``; None lets the plan choose.
        direction: ``"noising"`` or ``"denoising"``.
        metric: a name from ``interp.readouts``, a read-out, or a projection of the residual stream (by its settings).
        roles: words at which edges are told apart; None is every position at once.
        size: how many edges, or (a fraction) which share of all; None takes those that reach the threshold.
        threshold: least size of a score, as a share of the gap between the clean and the corrupted prompts.
        steps: of the integrals of EAP-IG.
        max_prompts: use only that many prompts, spread evenly over the set, of which half is for the test; None is all.
        n_resamples: bootstrap samples of the prompts on which the circuit is found again; 0 for none. None is
            ``N_RESAMPLES`` where scores are means over prompts, so that nothing is run again, and none elsewhere.
        seed: of the halves, the audit and the samples.
        progress: True for a bar, or called with steps done and in all.

    Returns:
        The data of a ``Circuit``: ``score`` and ``kept`` (sender, receiver), ``score_interval`` of the strongest; and
        what ``interp.circuits.stability`` returns.

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
    found = circuits.finder(
        model, found_on, method, direction=direction, metric=metric, roles=roles, size=size, threshold=threshold,
        steps=steps, seed=seed, progress=progress,
    )  # fmt: skip
    data = found.circuit.data
    resamples = (N_RESAMPLES if found.for_nothing else 0) if n_resamples is None else n_resamples
    if not resamples:
        return data
    again = circuits.stability(model, found_on, found, n_resamples=resamples, seed=seed)
    variables = {name: again[name].drop_vars("ci_bound", errors="ignore").variable.copy() for name in again.data_vars}
    coords = {str(name): again[name] for name in again.dims if name != "ci_bound"}
    whole = data.assign(variables).assign_coords(coords)
    return results.validate(whole if "ci_bound" in data.dims else whole.assign_coords(ci_bound=["low", "high"]))


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    method: Method | None,
    direction: Direction,
    metric: AnyReadout,
    roles: Sequence[str] | None,
    steps: int,
    max_prompts: int | None,
    n_resamples: int | None,
    seed: int,
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
    once = circuits.plan(model, found_on, method, direction=direction, metric=metric, roles=roles, steps=steps)
    return [once] * (1 + (n_resamples or 0) * (once.method in ("greedy", "atp*")))
