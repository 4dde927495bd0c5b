"""What a circuit is worth on prompts that it was not found on: faithful, complete, minimal, better than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xarray as xr

from interp import _kept, circuits, readouts
from interp._arguments import check_pairs
from interp.circuits import Circuit
from interp.circuits.discovery import check as check_discovery
from interp.circuits.evaluation import check_counts, evaluation_passes
from interp.sweeps import Plan, bounded, listener, plans_of, within_budget

if TYPE_CHECKING:
    from interp.circuits.planning import Method
    from interp.circuits.running import CircuitAblation
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.readouts import AnyReadout
    from interp.sweeps import Direction, Progress


N_RANDOM = 10
"""Random circuits of each kind and size, where that is quick."""
FEWEST = 3
"""Random circuits below which nothing is saved."""


def check(
    *, size: int | float | None, threshold: float, steps: int, n_random: int | None, n_knockouts: int, most_edges: int
) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: what ``discover`` refuses of its options, or a number below 0.
    """
    check_discovery(size=size, threshold=threshold, steps=steps)
    check_counts(N_RANDOM if n_random is None else n_random, n_knockouts, most_edges)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    ablations: Sequence[CircuitAblation] = circuits.CIRCUIT_ABLATIONS,
    method: Method | None = None,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    size: int | float | None = None,
    threshold: float = circuits.THRESHOLD,
    steps: int = 5,
    n_random: int | None = None,
    n_knockouts: int = 6,
    most_edges: int = 12,
    max_prompts: int | None = 48,
    seed: int = 0,
    found: Mapping[str, xr.Dataset] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find a circuit on one half of the pairs (``interp.circuits.split``) and evaluate it on the other half.

    A circuit that the analysis ``circuit`` found on the same half in the same way is not looked for again.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        ablations: what edges outside the circuit carry; see ``interp.circuits.run_circuit``.
        method: how the circuit is found, as in ``interp.circuits.discover``; None lets the plan choose.
        direction: of the discovery.
        metric: a name from ``interp.readouts``, a read-out, or a projection of the residual stream (by its settings).
        roles: words at which edges are told apart; None is every position at once.
        size: edges of the circuit, or (a fraction) share of all; None takes those that reach the threshold.
        threshold: least size of a score, as a share of the gap between the clean and the corrupted prompts.
        steps: of the integrals of EAP-IG.
        n_random: random circuits of each kind and size. None is ``N_RANDOM``, or fewer where they take long.
        n_knockouts: random parts that are taken out of circuit and model.
        most_edges: edges that are taken out one by one.
        max_prompts: use only that many prompts, spread evenly over the set, half of them for the test; None is all.
        seed: of everything random.
        found: ``circuit``, what the analysis of that name found, if it was asked.
        progress: True for a bar, or called with runs done and runs in all, of the evaluation.

    Returns:
        What ``interp.circuits.evaluate`` returns. The attribute ``bounded`` names what is less than by default, to
        bound the time.

    Raises:
        InterpError: what ``split``, ``discover`` and ``evaluate`` refuse.

    >>> from analyses import circuit_evaluation
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = circuit_evaluation.run(model, pairs, ablations=["resample"], size=20, n_random=1, most_edges=1)
    >>> bool(found.own_faithfulness > 0.5)
    True
    """
    check_pairs(model, pairs)
    found_on, tested_on = circuits.split(pairs.spread(max_prompts), seed)
    circuit = None if found is None or "circuit" not in found else Circuit(found["circuit"])
    if circuit is None or not _is_asked(
        circuit, model, found_on, method, direction=direction, metric=metric, roles=roles, size=size,
        threshold=threshold, steps=steps,
    ):  # fmt: skip
        circuit = circuits.discover(
            model, found_on, method, direction=direction, metric=metric, roles=roles, size=size, threshold=threshold,
            steps=steps, audit=None, seed=seed,
        )  # fmt: skip
    drawn = _affordable(model, tested_on, ablations, n_random, n_knockouts, most_edges)
    measured = circuits.evaluate(
        model, tested_on, circuit, ablations=ablations, metric=metric, n_random=drawn, n_knockouts=n_knockouts,
        most_edges=most_edges, seed=seed, progress=listener(progress),
    )  # fmt: skip
    return measured.assign_attrs(bounded="" if n_random is not None else bounded({"n_random": (drawn, N_RANDOM)}))


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    ablations: Sequence[CircuitAblation],
    n_random: int | None,
    n_knockouts: int,
    most_edges: int,
    max_prompts: int | None,
    seed: int,
) -> list[Plan]:
    """What ``run`` computes with the same options, given the circuit. Nothing is run.

    >>> from analyses import circuit_evaluation
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> few, more = (circuit_evaluation.planned(model, pairs, n_random=n)[0].flop for n in (1, 2))
    >>> few < more
    True
    """
    check_pairs(model, pairs)
    _, tested_on = circuits.split(pairs.spread(max_prompts), seed)
    drawn = _affordable(model, tested_on, ablations, n_random, n_knockouts, most_edges)
    return [
        evaluation_passes(
            model, tested_on, n_ablations=len(ablations), n_random=drawn, n_knockouts=n_knockouts,
            most_edges=most_edges,
        )
    ]  # fmt: skip


def _affordable(
    model: HookedTransformer,
    pairs: PromptPairs,
    ablations: Sequence[CircuitAblation],
    n_random: int | None,
    n_knockouts: int,
    most_edges: int,
) -> int:
    """Random circuits: as many as were asked for, or as many of the usual ones as are within the budget."""
    if n_random is not None:
        return n_random
    return within_budget(
        model, range(N_RANDOM, FEWEST - 1, -1),
        lambda n: evaluation_passes(
            model, pairs, n_ablations=len(ablations), n_random=n, n_knockouts=n_knockouts, most_edges=most_edges
        ).flop,
    )  # fmt: skip


def _is_asked(
    circuit: Circuit,
    model: HookedTransformer,
    pairs: PromptPairs,
    method: Method | None,
    *,
    direction: Direction,
    metric: AnyReadout,
    roles: Sequence[str] | None,
    size: int | float | None,
    threshold: float,
    steps: int,
) -> bool:
    """Whether a circuit is the one that discovery would find in this model on these pairs."""
    known = circuit.data.attrs
    asked: dict[str, object] = {"direction": direction, "metric_sha256": readouts.readout(metric).sha256()}
    asked |= {"tokens_sha256": pairs.sha256()} | ({"threshold": threshold} if size is None else {"size": size})
    asked |= {"steps": steps} if "steps" in known else {}
    chosen = bool(known.get("method_reason")) if method is None else known.get("method") == method
    return (
        chosen
        and asked["metric_sha256"] != ""
        and not _kept.differing(model, known)
        and circuit.graph.roles == (None if roles is None else tuple(roles))
        and all(name in known and known[name] == value for name, value in asked.items())
    )
