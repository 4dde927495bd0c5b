"""Finding a circuit: the edges that matter, by exact patching or by gradients that are held to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from interp import readouts, run
from interp._arguments import check_pairs
from interp.attribution import Audit, attribution_patching, edge_attribution
from interp.attribution.audit import DEFAULT
from interp.circuits.circuit import Circuit, check_size
from interp.circuits.graph import START, Graph
from interp.circuits.greedy import prune
from interp.circuits.planning import INTEGRATED, Method, plan
from interp.circuits.running import CircuitAblation, CircuitRuns
from interp.errors import InterpError, shown, whole_number
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.sites import head_label
from interp.sweeps import Direction, Progress, checked_reading, described, path_patching, score, scored_parts

if TYPE_CHECKING:
    from interp.model import HookedTransformer

THRESHOLD = 0.02
"""Share of the gap between the clean and the corrupted run that an edge must be worth."""

_WORTH = {"numbers": 2, "ranking": 1, "nothing": 0}
_VERDICTS = {
    "numbers": "",
    "ranking": "The scores are estimates, good as a ranking only: {reason}.",
    "nothing": "The scores are estimates that are good for nothing, so do not use this circuit: {reason}.",
}
_NAMES: Mapping[Method, str] = {
    "exact": "exact patching of every edge",
    "greedy": "greedy removal of edges",
    "eap": "EAP",
    "eap-ig-inputs": "EAP-IG (inputs)",
    "eap-ig-activations": "EAP-IG (activations)",
    "atp*": "AtP* of heads and MLPs",
}


def discover(
    model: HookedTransformer,
    pairs: PromptPairs,
    method: Method | None = None,
    *,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    size: int | float | None = None,
    threshold: float = THRESHOLD,
    ablation: CircuitAblation = "resample",
    steps: int = 5,
    audit: Audit | None = DEFAULT,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Circuit:
    """Find the circuit of a behaviour.

    Every edge gets a score: how far it moves the metric towards the clean run. In the direction ``"noising"`` that is
    what the metric loses when the edge alone carries what its sender writes in the corrupted run; in ``"denoising"``
    what it gains when the edge alone carries the clean one.

    * ``"exact"``: each edge is patched (``path_patching``; Wang et al. 2022, arXiv 2211.00593).
    * ``"greedy"``: from the whole model, edges are removed one after the other, from the end back, if that moves
      the mean metric by less than the threshold (Conmy et al. 2023, arXiv 2304.14997). What is removed carries an
      ablated output from then on, as in ``run_circuit``, so that a score is what the edge is worth given the rest. (The
      code published with it goes by a growth of the metric; here this holds of divergences, and elsewhere a change in
      either direction counts.)
    * ``"eap"``, ``"eap-ig-inputs"``, ``"eap-ig-activations"``: estimated from gradients (``edge_attribution``).
    * ``"atp*"``: heads and MLPs are estimated (``attribution_patching``; Kramár et al. 2024, arXiv 2403.00745), at each
      role, or all positions together (of MLPs all roles, where prompts do not line up). The circuit has every edge
      among those that are chosen: an edge's score, never negative, is the smaller one of the sizes of its two ends. The
      embedding is worth the whole gap where the prompts' tokens differ, and the end has no limit where something is
      measured; at other roles both are worth nothing. A key or value at a role leads to its head at the role where that
      is worth most.

    The circuit has the best edges by the size of their scores, without those on no path from the embedding to the
    end (their number is the attribute ``n_unconnected``). Estimates carry their audit: ``audit_use`` says whether
    they are good as numbers, as a ranking or for nothing.

    Args:
        model: the model.
        pairs: clean and corrupted prompts, those that the circuit is found on. What it is worth is measured on others:
            ``split``.
        method: see above; None takes ``"exact"`` where that is cheap and ``"eap-ig-inputs"`` elsewhere
            (``"atp*"`` for an architecture without arithmetic of its own); ``plan`` says which and why.
        direction: ``"noising"`` or ``"denoising"``.
        metric: a name from ``interp.readouts``, or a read-out. A projection of the residual stream is where the circuit
            ends, in place of the logits.
        roles: words at which edges are told apart; None is every position at once. An edge at a role carries what its
            sender writes at the tokens of the role to a receiver that reads there. The edges that cross from one word
            to another are those into keys and values: the role is the word that is looked at (as in Haklay et al.
            2025, arXiv 2502.04577, but for the word that looks, which all share). A token of no role has no edge; what
            all edges at the roles hold of the gap is the attribute ``held_by_roles``.
        size: how many edges, or (a ``float``) which share of all; None takes those that reach the threshold.
        threshold: least size of a score, as a share of the mean gap between the clean and the corrupted run (the
            ablated one, if greedy).
        ablation: what a removed edge carries, as in ``run_circuit``; but for ``"greedy"`` it is the corrupted run's.
        steps: of the integrals of EAP-IG.
        audit: what is patched exactly to check estimates; None checks nothing.
        seed: of the audit's random sample.
        memory: bytes that exact patching may use beside the model; None is half of what is free.
        progress: True for a bar, or called with steps done and steps in all.

    Returns:
        A ``Circuit``. Its data has the attributes ``method``, ``direction``, ``metric`` and ``metric_sha256`` (names
        are shared), ``threshold`` or ``size``, and those of the audit.

    Raises:
        InterpError: an unknown method, what the method refuses, or runs too close for a threshold.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.circuits import Edge
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> circuit = discover(model, pairs, "eap", size=10, audit=None)
    >>> Edge("L0H2", "L1H0.v") in circuit.edges
    True
    """
    return finder(
        model, pairs, method, direction=direction, metric=metric, roles=roles, size=size, threshold=threshold,
        ablation=ablation, steps=steps, audit=audit, seed=seed, memory=memory, progress=progress,
    ).circuit  # fmt: skip


@dataclass(frozen=True)
class Finder:
    """A circuit, and how others are found in the same way: ``stability`` takes it in place of a function.

    Attributes:
        circuit: that of all pairs.
        again: finds that of some of the pairs, by their numbers. Where scores are means over prompts nothing is run.
        for_nothing: whether nothing is run.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> len(finder(model, pairs, "eap", size=10, audit=None).again(np.array([0, 1])).edges) <= 10
    True
    """

    circuit: Circuit
    again: Callable[[Int[np.ndarray, " prompt"]], Circuit]
    for_nothing: bool


def finder(
    model: HookedTransformer,
    pairs: PromptPairs,
    method: Method | None = None,
    *,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    size: int | float | None = None,
    threshold: float = THRESHOLD,
    ablation: CircuitAblation = "resample",
    steps: int = 5,
    audit: Audit | None = DEFAULT,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Finder:
    """``discover``, with what finds the circuits of some of the prompts too. The arguments are those of ``discover``.

    Raises:
        InterpError: as ``discover``.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = finder(model, pairs, "eap", size=10, audit=None)
    >>> len(found.again(np.array([0, 1])).edges ^ found.circuit.edges), found.for_nothing
    (0, True)
    """
    check_pairs(model, pairs)
    check(size, threshold, steps)
    planned = plan(model, pairs, method, direction=direction, metric=metric, roles=roles, steps=steps, memory=memory)
    question = _Question(
        model,
        pairs,
        planned.method,
        direction,
        metric,
        roles,
        threshold,
        ablation,
        steps,
        audit,
        seed,
        memory,
        progress,
    )
    if planned.method == "greedy":
        found = _greedy_scores(question)
    elif ablation != "resample":
        raise InterpError(
            f"Method '{planned.method}' patches with the corrupted run, and ablation is {shown(ablation)}. Leave it "
            "out, or choose method='greedy'."
        )
    else:
        found = _node_scores(question) if planned.method == "atp*" else _edge_scores(question)
    gap = float(found.gap.mean())
    _, units = described(pairs, metric)
    measured = readouts.readout(metric)
    chosen: dict[str, str | int | float] = {"size": size} if size is not None else {"threshold": threshold}
    circuit = Circuit.found(
        model,
        pairs,
        found.graph,
        found.score,
        np.zeros(found.graph.possible.shape, dtype=bool)
        if size is not None
        else _reaching(found.score, threshold, gap),
        title=f"Circuit by {_NAMES[planned.method]}",
        source=found.source,
        units=units,
        seed=seed,
        extra={
            "method": planned.method,
            "method_reason": planned.reason,
            "direction": direction,
            "ablation": ablation,
            "metric": measured.name,
            "metric_sha256": measured.sha256(),
            "gap": gap,
            **({"steps": steps} if planned.method in INTEGRATED else {}),
            **chosen,
            **_held_by_roles(question),
            **found.attributes,
        },
        each=found.each,
        verdict=found.verdict,
    )
    whole = (circuit if size is None else circuit.at(size)).connected()

    def of_scores(rows: Int[np.ndarray, " prompt"]) -> Circuit:
        assert found.each is not None
        score = found.each[rows].mean(axis=0)
        scored = Circuit(circuit.data.assign(score=(circuit.scores.dims, score, circuit.scores.attrs)))
        if size is None:
            return scored.keeping(_reaching(score, threshold, float(found.gap[rows].mean()))).connected()
        return scored.at(size).connected()

    def of_runs(rows: Int[np.ndarray, " prompt"]) -> Circuit:
        return discover(
            model, pairs.select(rows), planned.method, direction=direction, metric=metric, roles=roles, size=size,
            threshold=threshold, ablation=ablation, steps=steps, audit=None, seed=seed, memory=memory,
        )  # fmt: skip

    means = found.each is not None and planned.method != "greedy"  # whose choice is no threshold on the means
    return Finder(whole, of_scores if means else of_runs, means)


def check(size: int | float | None, threshold: float, steps: int) -> None:
    """Refuse options of ``discover`` that are wrong whatever the model and the prompts.

    Raises:
        InterpError: names the option and what it must be.
    """
    if size is not None:
        check_size(size)
    if not 0 <= threshold < np.inf:
        raise InterpError(f"threshold is {shown(threshold)}. Give a share of the gap, 0 or more.")
    whole_number(steps, "steps", least=1)


@dataclass(frozen=True)
class _Question:
    """What is asked of a method."""

    model: HookedTransformer
    pairs: PromptPairs
    method: Method
    direction: Direction
    metric: AnyReadout
    roles: Sequence[str] | None
    threshold: float
    ablation: CircuitAblation
    steps: int
    audit: Audit | None
    seed: int
    memory: int | None
    progress: Progress | None

    @cached_property
    def graph(self) -> Graph:
        """The edges that get a score."""
        return Graph.of(self.model, roles=self.roles, metric=self.metric)


@dataclass(frozen=True)
class _Found:
    """The scores of all edges.

    Attributes:
        graph: the edges.
        score: [*edges] NaN where there is none.
        each: [prompt, *edges] the same per prompt; None where they are no means over prompts.
        gap: [prompt] clean minus corrupted metric.
        source: the paper.
        attributes: of the audit.
        kept: the edges that the method chooses; None leaves that to the threshold.
    """

    graph: Graph
    score: Float[np.ndarray, "*edges"]
    each: Float[np.ndarray, "prompt ..."] | None
    gap: Float[np.ndarray, " prompt"]
    source: str
    attributes: Mapping[str, str | int | float]
    kept: Bool[np.ndarray, "*edges"] | None = None

    @property
    def verdict(self) -> str:
        """What the scores are good for; empty where that is as numbers."""
        return _VERDICTS[str(self.attributes.get("audit_use", "numbers"))].format(
            reason=self.attributes.get("audit_reason", "")
        )


def _edge_scores(asked: _Question) -> _Found:
    """Exact effects of all edges, or estimates."""
    graph = asked.graph
    if asked.method == "exact":
        data = path_patching(
            asked.model, asked.pairs, direction=asked.direction, metric=asked.metric, roles=asked.roles,
            senders=graph.senders, minimum_gap=0.0, memory=asked.memory, progress=asked.progress,
        )  # fmt: skip
        effect = data["patched"] - data["clean" if asked.direction == "noising" else "corrupted"]
    else:
        data = edge_attribution(
            asked.model, asked.pairs, asked.direction, asked.metric, method=asked.method,  # type: ignore[arg-type]
            senders=graph.senders, roles=asked.roles, steps=asked.steps, audit=asked.audit, seed=asked.seed,
            progress=asked.progress,
        )  # fmt: skip
        effect = data["estimated_effect"]
    each = _towards_clean(effect.transpose("prompt", *graph.dims), data, asked.direction)
    return _Found(graph, each.mean(axis=0), each, _gap(data), data.attrs["source"], _audit(asked, data))


def _greedy_scores(asked: _Question) -> _Found:
    """What each edge was worth when its turn came to be removed.

    Raises:
        InterpError: the direction is not that of a removal.
    """
    if asked.direction != "noising":
        raise InterpError("Greedy discovery removes edges of the whole model. Leave direction out: it is 'noising'.")
    graph = asked.graph
    runs = CircuitRuns.of(asked.model, asked.pairs, graph, ablation=asked.ablation, metric=asked.metric)
    divergence = readouts.readout(asked.metric).least_at_clean
    pruned = prune(runs, asked.threshold, signed=divergence, progress=asked.progress)
    gap = pruned.whole - pruned.nothing
    each = -_orientation(gap) * pruned.change
    source = "Conmy et al. 2023, arXiv 2304.14997"
    return _Found(graph, each.mean(axis=0), each, gap, source, _audit(asked, xr.Dataset()), pruned.kept)


def _held_by_roles(asked: _Question) -> dict[str, float]:
    """How much of the gap all edges at the roles hold together: what tokens of no role carry is missing from it."""
    if asked.roles is None or asked.model.own_blocks()[0] is None:
        return {}
    graph = asked.graph
    runs = CircuitRuns.of(asked.model, asked.pairs, graph, metric=asked.metric)
    every, whole, nothing = (
        runs.values(graph.possible[None])[0],
        *(score(asked.model, asked.pairs, which, asked.metric) for which in ("clean", "corrupted")),
    )
    gap = float((whole - nothing).mean())
    return {"held_by_roles": float((every - nothing).mean()) / gap if gap else float("nan")}


def _node_scores(asked: _Question) -> _Found:
    """Estimates of heads and MLPs, at each role where there are any, as scores of the edges among them."""
    graph, roles = asked.graph, asked.roles
    n_places = 1 if roles is None else len(roles)
    worth: dict[str, Float[np.ndarray, " place"]] = {}
    found = []
    for site in ("z", "mlp_out"):
        if not asked.model.has_site(site):
            continue
        data = attribution_patching(
            asked.model, asked.pairs, site, asked.direction, asked.metric, method="atp*", roles=roles,
            audit=asked.audit, seed=asked.seed, progress=asked.progress,
        )  # fmt: skip
        effect = data["estimated_effect"]
        dims = [name for name in ("prompt", "layer", "head") if name in effect.dims]
        if roles is None:
            effect = effect.sum([name for name in effect.dims if name not in dims]).expand_dims(role=1, axis=-1)
        mean = np.abs(_towards_clean(effect.transpose(*dims, "role"), data, asked.direction).mean(axis=0))
        for i, layer in enumerate(data["layer"].values.tolist()):
            if site == "z":
                worth |= {head_label(layer, head): values for head, values in enumerate(mean[i])}
            else:
                worth[f"MLP{layer}"] = mean[i]
        found.append(data)
    gap = _gap(found[0])
    worth[START] = abs(float(gap.mean())) * _differing(asked)

    def reader(receiver: str) -> Float[np.ndarray, " place"]:
        """What those are worth that go on from a receiver. From a key or a value a head goes on to every token."""
        heads = graph.writers(receiver)
        if not heads:
            return np.where(_measured(asked), np.inf, 0.0)
        most: np.ndarray = np.max([worth[head] for head in heads], axis=0)
        return np.full(n_places, most.max()) if receiver.endswith((".k", ".v")) else most

    senders, receivers = (np.stack(of) for of in ([worth[x] for x in graph.senders], [*map(reader, graph.receivers)]))
    ends = np.minimum(senders[:, None], receivers[None])  # sender receiver place
    score = np.where(graph.possible, ends[..., 0] if roles is None else ends, np.nan)
    worst = min(found, key=lambda data: _WORTH[data.attrs["audit_use"]])
    attributes = {**_audit(asked, worst), "audit_cells": sum(int(data.attrs["audit_cells"]) for data in found)}
    return _Found(graph, score, None, gap, worst.attrs["source"], attributes)


def _differing(asked: _Question) -> Bool[np.ndarray, " place"]:
    """At which roles the clean and the corrupted prompts have other tokens: there alone the embedding differs."""
    clean, corrupted = asked.pairs.clean, asked.pairs.corrupted
    other = clean.ids != corrupted.ids
    return np.array([(other & run.token_mask(clean, role)).any() for role in asked.roles or (None,)])


def _measured(asked: _Question) -> Bool[np.ndarray, " place"]:
    """Which roles have a token at which something is measured: there alone the end reads."""
    at: Bool[np.ndarray, "prompt position"] = np.zeros(asked.pairs.clean.ids.shape, dtype=bool)
    for _, part, metric in scored_parts(asked.pairs, asked.metric):
        positions = checked_reading(asked.model, part, metric).positions.numpy()
        at |= np.stack([np.isin(np.arange(at.shape[1]), row) for row in positions])
    return np.array([(at & run.token_mask(asked.pairs.clean, role)).any() for role in asked.roles or (None,)])


def _towards_clean(effect: xr.DataArray, data: xr.Dataset, direction: Direction) -> Float[np.ndarray, "prompt ..."]:
    """Changes of the metric, positive where the edge (not its loss) moves it towards the clean run."""
    orientation = _orientation(_gap(data))
    sign = orientation if direction == "denoising" else -orientation
    return sign * np.asarray(effect.values, dtype=np.float64)


def _orientation(gap: Float[np.ndarray, " prompt"]) -> float:
    """1 where the clean run has more of the metric, -1 where it has less."""
    return -1.0 if gap.mean() < 0 else 1.0


def _gap(data: xr.Dataset) -> Float[np.ndarray, " prompt"]:
    return np.asarray((data["clean"] - data["corrupted"]).values, dtype=np.float64)


def _audit(asked: _Question, data: xr.Dataset) -> dict[str, str | int | float]:
    """What the audit found, or that nothing was estimated."""
    if asked.method in ("exact", "greedy"):
        return {"trusted": 1}
    return {str(name): value for name, value in data.attrs.items() if name == "trusted" or name.startswith("audit_")}


def _reaching(score: Float[np.ndarray, "*edges"], threshold: float, gap: float) -> Bool[np.ndarray, "*edges"]:
    """Edges whose score has the size of a share of the gap.

    Raises:
        InterpError: there is no gap to take a share of.
    """
    if not abs(gap) > 0:
        raise InterpError(
            "The metric is the same in the clean and the corrupted runs, so that no edge can matter. Choose another "
            "metric, or prompts that differ."
        )
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(score) >= threshold * abs(gap))
