"""The methods on trial: what each says of a model whose circuit is known, as scores and as what it names.

Each method is asked at its own threshold: an effect of at least a tenth of the gap whose 95% interval excludes 0 (the
verdict's), attention above an even spread, a probe that is called readable. Effects are shares of the mean gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from analyses import registry
from analyses.explaining.beginning import Beginning
from analyses.explaining.carriers import carried, head_effects
from analyses.explaining.clock import Clock
from analyses.explaining.measuring import arrival, arrived, reaches
from interp import circuits, groundtruth, heads, lenses, subspaces, summary
from interp.attribution import attribution_patching, edge_attribution
from interp.circuits.planning import METHODS as DISCOVERIES
from interp.circuits.planning import Method as Discovery
from interp.circuits.running import CircuitAblation
from interp.groundtruth import GroundTruth
from interp.groundtruth.prompts import WORDS
from interp.heads.head import Head
from interp.heads.roles import ROLES
from interp.interventions import Intervention
from interp.prompts import PromptPairs
from interp.prompts.swaps import SOURCE, TARGET
from interp.prompts.template import ANSWER
from interp.run import activations
from interp.sites import head_label
from interp.subspaces.places import source_words
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, score

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Question: TypeAlias = Literal[
    "carries", "needed", "moves", "selects", "edges", "between", "looks", "held", "used", "arrives"
]
"""What is asked of a model. Components: which carry the source, which the answer needs, which heads take it from
its own word, which decide where others look and hold nothing of it. Edges: on which does it go, also of those between
heads alone, and on which does it decide where a head looks. Places in the stream: which hold the source, and from which
is it still used. Words of one prompt: at which does it arrive."""

QUESTIONS: tuple[Question, ...] = get_args(Question)
LEAST = 0.1
"""Share of the gap from which an effect counts, as in the verdict."""


LEVEL = 0.05
"""Chance, at most, that a probe is called readable anywhere where nothing can be read."""


@dataclass(frozen=True)
class Findings:
    """What a method says: a score of everything it scores, and what it names."""

    scores: Mapping[str, float]
    named: frozenset[str]


class Trial:
    """One model with a known circuit, and what several methods share of its runs."""

    def __init__(self, truth: GroundTruth) -> None:
        self.truth, self.model, self.pairs = truth, truth.model, truth.pairs

    def true(self, question: Question) -> frozenset[str]:
        """The names of what is true."""
        truth = self.truth
        match question:
            case "carries":
                return truth.carrying
            case "needed":
                return truth.needed
            case "moves":
                return frozenset(
                    name
                    for name in truth.carrying
                    if name.startswith("L") and ("embed", self.reading(name)) in truth.edges
                )
            case "selects":
                return truth.needed - truth.carrying
            case "edges":
                return frozenset(f"{sender}->{receiver}" for sender, receiver in truth.edges)
            case "between":
                return frozenset(
                    f"{sender}->{receiver}"
                    for sender, receiver in truth.edges
                    if sender.startswith("L") and receiver.startswith("L")
                )
            case "looks":
                return frozenset(
                    f"{sender}->{receiver}" for sender, receiver in truth.edges if receiver.endswith((".q", ".k"))
                )
            case "held":
                return frozenset(_place(*place) for place in truth.held)
            case "used":
                return frozenset(_place(*place) for place in truth.used)
            case "arrives":
                there = {ANSWER, *(role for _, role in truth.held)}
                return frozenset(role for role in behind_source(self.pairs) if role in there)

    def reading(self, head: str) -> str:
        """The receiver by which a head takes values: its own, or that of the key-value head that it shares."""
        layer, number = (int(part) for part in head.removeprefix("L").split("H"))
        return Head.of(self.model, (layer, number)).receiver("v", self.model.cfg.grouped_query)

    def through(self, component: str) -> list[circuits.Edge]:
        """The path from the embedding through a head's values or an MLP straight to the logits."""
        receiver = self.reading(component) if component.startswith("L") else component
        return [circuits.Edge("embed", receiver), circuits.Edge(component, "logits")]

    # ---- what several methods share ----

    def analysis(self, name: str, **options: Any) -> xr.Dataset:
        """The result of one of the bundled analyses on this model."""
        found: xr.Dataset = registry.get(name).function("run")(self.model, self.pairs, **options)
        return found

    @cached_property
    def behavior(self) -> xr.Dataset:
        """The baselines."""
        return self.analysis("behavior")

    @cached_property
    def attribution(self) -> xr.Dataset:
        """Attention, direct contributions and ablations."""
        return self.analysis("head_attribution")

    @cached_property
    def patching(self) -> xr.Dataset:
        """Patching in both directions."""
        sites = [site for site in ("resid_pre", "mlp_out", "z") if self.model.has_site(site)]
        return self.analysis("activation_patching", sites=sites, by_position=False)

    @cached_property
    def verdict(self) -> xr.Dataset:
        """What joins the three."""
        join: Callable[..., xr.Dataset] = registry.get("context_flow").function("run")
        return join({
            "behavior": self.behavior, "activation_patching": self.patching, "head_attribution": self.attribution
        })  # fmt: skip

    @cached_property
    def lenses(self) -> xr.Dataset:
        """The three lenses after each layer, on pairs held out."""
        return self.analysis("lenses", sites=["resid_post"])

    @cached_property
    def places(self) -> xr.Dataset:
        """The table of places, before every layer and at every role."""
        layers = range(self.model.cfg.n_layers)
        return self.analysis("places", layers=layers, roles=list(self.pairs.roles), controls=False)

    @cached_property
    def gap(self) -> float:
        """Mean of clean - corrupted, in logits."""
        return float((self.patching["clean"] - self.patching["corrupted"]).mean())

    def effects(self, parts: Iterable[xr.DataArray], label: Callable[..., str]) -> Findings:
        """Effects per prompt, in logits, as findings. Further dims than those of the label: the largest counts.

        Args:
            parts: arrays with ``prompt`` and the dims of what is labelled.
            label: the name of a cell, from its coordinates by name.
        """
        scores: dict[str, float] = {}
        named = set()
        for part in parts:
            found = summary.mean(part)
            for index in np.ndindex(*found["mean"].shape):
                cell = {str(dim): found[dim].values[i] for dim, i in zip(found["mean"].dims, index, strict=True)}
                mean, low, high = (float(found[name].values[index]) for name in ("mean", "low", "high"))
                if not np.isfinite(mean):
                    continue
                name = label(**cell)
                scores[name] = max(scores.get(name, 0.0), abs(mean) / self.gap)
                if abs(mean) >= LEAST * self.gap and (low > 0 or high < 0):
                    named.add(name)
        return Findings(scores, frozenset(named))


def _place(layer: int, role: str) -> str:
    return f"L{layer} {role}"


def _component(layer: int, head: int | None = None, **_: Any) -> str:
    """A head; an MLP where there is none."""
    return f"MLP{layer}" if head is None else head_label(int(layer), int(head))


def _edge(sender: str, receiver: str, **_: Any) -> str:
    return f"{sender}->{receiver}"


def _at(layer: int, role: str, **_: Any) -> str:
    return _place(int(layer), str(role))


# ---- the methods ----


def _attention(trial: Trial) -> Findings:
    """The largest weight between the words of the question, beside an even spread."""
    found = trial.attribution
    weights, places = summary.mean(found["attention"]), found["role_position"]
    scores: dict[str, float] = {}
    named = set()
    for edge in map(str, found["edge"].values):
        even = float((1 / (places.sel(role=edge.partition("<-")[0]) + 1)).mean())
        one = weights.sel(edge=edge)
        for layer, head in np.ndindex(*one["mean"].shape):
            name = head_label(layer, head)
            scores[name] = max(scores.get(name, 0.0), float(one["mean"].values[layer, head]))
            if float(one["low"].values[layer, head]) > even:
                named.add(name)
    return Findings(scores, frozenset(named))


def _direct(trial: Trial) -> Findings:
    """What each component adds to the logit difference by the direct path."""
    found = trial.attribution["contribution"]
    kinds = trial.attribution["component_kind"].values
    kept = found.isel(component=np.flatnonzero(np.isin(kinds, ("head", "mlp"))))
    kept = kept.drop_vars([name for name in kept.coords if name not in kept.dims])
    return trial.effects([kept], lambda component: str(component))


def _ablated(kind: str) -> Callable[[Trial], Findings]:
    def find(trial: Trial) -> Findings:
        parts = [trial.attribution["ablation_effect"].sel(ablation=kind, drop=True)]
        if trial.model.has_site("mlp_out"):
            parts.append(ablation_sweep(trial.model, trial.pairs, "mlp_out", kind)["ablation_effect"])  # type: ignore[arg-type]
        return trial.effects(parts, _component)

    return find


def _moved(trial: Trial, name: str, direction: str) -> xr.DataArray:
    patched = trial.patching[f"patched_{name}"].sel(direction=direction, drop=True)
    return summary.moved(patched, trial.patching["clean"], trial.patching["corrupted"], direction)


def _patched(direction: str) -> Callable[[Trial], Findings]:
    def find(trial: Trial) -> Findings:
        names = [name for name in ("z", "mlp_out") if f"patched_{name}" in trial.patching]
        return trial.effects([_moved(trial, name, direction) for name in names], _component)

    return find


def _patched_stream(direction: str) -> Callable[[Trial], Findings]:
    return lambda trial: trial.effects([_moved(trial, "resid_pre", direction)], _at)


def _knocked_out(trial: Trial) -> Findings:
    edges = [str(edge) for edge in trial.attribution["edge"].values]
    cut = knockout_sweep(trial.model, trial.pairs, edges, by_head=True)["cut_effect"]
    return trial.effects([cut], _component)


def _attributed(method: str) -> Callable[[Trial], Findings]:
    def find(trial: Trial) -> Findings:
        sites = [site for site in ("z", "mlp_out") if trial.model.has_site(site)]
        return trial.effects(
            [
                attribution_patching(trial.model, trial.pairs, site, method=method, audit=None,  # type: ignore[arg-type]
                                     axis=None if site == "z" else "role")["estimated_effect"]
                for site in sites
            ],
            _component,
        )  # fmt: skip

    return find


def _paths(direction: str) -> Callable[[Trial], Findings]:
    def find(trial: Trial) -> Findings:
        found = path_patching(trial.model, trial.pairs, direction=direction)  # type: ignore[arg-type]
        moved = summary.moved(found["patched"], found["clean"], found["corrupted"], direction)
        return trial.effects([moved], _edge)

    return find


def _edges(method: str) -> Callable[[Trial], Findings]:
    def find(trial: Trial) -> Findings:
        found = edge_attribution(trial.model, trial.pairs, method=method, audit=None)  # type: ignore[arg-type]
        return trial.effects([found["estimated_effect"]], _edge)

    return find


def _verdict(trial: Trial) -> Findings:
    """The heads that the verdict calls movers and readers; its score is the largest effect at one word."""
    found = trial.verdict
    effects = [
        found[name] if direction == "denoising" else 1 - found[name]
        for name in map(str, found.data_vars)
        if name.startswith("recovered_z_") and not name.endswith("_interval")
        for direction in ("denoising", "noising")
    ]
    ways = [
        one.sel(direction=direction, drop=True)
        for one, direction in zip(effects, ("denoising", "noising") * (len(effects) // 2), strict=True)
    ]
    size = xr.concat(ways, "cell").max("cell")
    labels = found["head_label"].values
    scores = {str(name): float(value) for name, value in zip(labels, size.values, strict=True)}
    named = {str(name) for name, label in zip(labels, found["label"].values, strict=True) if label != "none"}
    return Findings(scores, frozenset(named))


def _claimed(jobs: Sequence[str], voters: Sequence[str]) -> Callable[[Trial], Findings]:
    """The heads and MLPs of which the verdict claims one of some jobs; the score is the largest that a voter measured.

    What is not claimed has the score 0.
    """

    def find(trial: Trial) -> Findings:
        scores, found = dict.fromkeys(trial.truth.components, 0.0), trial.verdict
        named = set()
        for claim in range(found.sizes.get("claim", 0)):
            one = found.isel(claim=claim)
            if str(one["claim_job"].values) in jobs:
                name = str(one["claim_component"].values)
                scores[name] = max(scores[name], float(np.abs(one["vote_size"].sel(voter=list(voters))).max()))
                named.add(name)
        return Findings(scores, frozenset(named))

    return find


def _probed(trial: Trial) -> Findings:
    """How far a probe's accuracy at a place lies above chance; readable is where its corrected p-value is small."""
    n_layers = trial.model.cfg.n_layers
    found = trial.analysis("probing", layers=range(n_layers), codelength=False).isel(site=0)
    above = (found["accuracy"] - found["chance"]).mean("fold")
    scores, named = {}, set()
    for role in map(str, found["role"].values):
        for layer in range(n_layers):
            name, at = _place(layer, role), {"role": role, "layer": layer}
            scores[name] = float(above.sel(at))
            if float(found["p_value"].sel(at)) <= LEVEL and scores[name] > 0:
                named.add(name)
    return Findings(scores, frozenset(named))


def _lens(trial: Trial) -> Findings:
    """How far the lens puts the right answer before the other one, after each layer but the last."""
    return _read_by(trial, lenses.logit_lens(trial.model, trial.pairs, sites=["resid_post"]))


def _trained_lens(name: str) -> Callable[[Trial], Findings]:
    return lambda trial: _read_by(trial, trial.lenses.sel(lens=name, drop=True))


def _read_by(trial: Trial, lens: xr.Dataset) -> Findings:
    found = lens["log_probability"].isel(site=0, drop=True)
    ahead = summary.mean(found.sel(answer="correct") - found.sel(answer="incorrect"))
    scores, named = {}, set()
    for role in map(str, found["role"].values):
        for layer in range(trial.model.cfg.n_layers - 1):
            name, at = _place(layer + 1, role), {"role": role, "layer": layer}
            scores[name] = float(ahead["mean"].sel(at))
            if float(ahead["low"].sel(at)) > LEAST * trial.gap:
                named.add(name)
    return Findings(scores, frozenset(named))


def _discovered(method: Discovery) -> Callable[[Trial], Findings]:
    """The edges of the circuit; their scores are those that they were chosen by."""

    def find(trial: Trial) -> Findings:
        found = circuits.discover(trial.model, trial.pairs, method, audit=None)
        scores = found.data["score"].transpose("sender", "receiver")
        senders, receivers = (found.data[name].values.tolist() for name in ("sender", "receiver"))
        sizes = {
            _edge(sender, receiver): abs(float(scores.values[s, r]))
            for s, sender in enumerate(senders)
            for r, receiver in enumerate(receivers)
        }
        return Findings(sizes, frozenset(_edge(edge.sender, edge.receiver) for edge in found.edges))

    return find


def _roles(trial: Trial) -> Findings:
    """The heads that are called movers; the score is the smallest of their measures, in units of what counts."""
    found = heads.roles(trial.model, trial.pairs)
    measures = list(ROLES["mover"])
    sizes = (found["excess"].mean("prompt") / found["least"]).sel(measure=measures).min("measure")
    named = found["named"].sel(head_role="mover", drop=True)
    cells = [(int(layer), int(head)) for layer in found["layer"].values for head in found["head"].values]
    scores = {head_label(*cell): float(sizes.values[cell]) for cell in cells}
    return Findings(scores, frozenset(head_label(*cell) for cell in cells if named.values[cell]))


def _looking(trial: Trial) -> Findings:
    """What writers send into the queries and keys of every later head, by what patching it alone does to the answer."""
    model, shared = trial.model, trial.model.cfg.grouped_query
    vocabulary = trial.pairs.vocabulary
    src = str(vocabulary.source if vocabulary.target == ANSWER else vocabulary.target)
    before: list[str] = ["embed"]
    scores: dict[str, float] = {}
    named: set[str] = set()
    for layer in range(1, model.cfg.n_layers):
        before += [head_label(layer - 1, head) for head in range(model.cfg.n_heads)]
        before += [f"MLP{layer - 1}"] if model.has_site("mlp_out") else []
        for head in range(model.cfg.n_heads):
            one = Head.of(model, (layer, head))
            into = {"query": one.receiver("q", shared), "key": one.receiver("k", shared)}
            found = heads.score_paths(
                model, trial.pairs, head=(layer, head), dest=ANSWER, src=src, senders=before
            )  # fmt: skip
            part = trial.effects([found["metric_change"].assign_coords(side=list(into.values()))], _sent)
            scores |= part.scores
            named |= part.named
    return Findings(scores, frozenset(named))


def _composed(trial: Trial) -> Findings:
    """What heads can read of earlier heads, by their weights; named where few random heads could read as much."""
    found, model = heads.composition(trial.model), trial.model
    scores: dict[str, float] = {}
    named = set()
    for kind in map(str, found["kind"].values):
        for layer, head in np.ndindex(model.cfg.n_layers, model.cfg.n_heads):
            receiver = Head.of(model, (layer, head)).receiver(kind, model.cfg.grouped_query)  # type: ignore[arg-type]
            at = found.sel(kind=kind, reader_head=head_label(layer, head))
            for writer, size, p_value in zip(
                map(str, at["writer_head"].values), at["composition"].values, at["p_value"].values, strict=True
            ):
                if np.isfinite(size):
                    name = _edge(writer, receiver)
                    scores[name] = max(scores.get(name, 0.0), float(size))
                    named |= {name} if p_value <= LEVEL else set()
    return Findings(scores, frozenset(named))


def _sent(sender: str, side: str, **_: Any) -> str:
    return _edge(sender, side)


@dataclass(frozen=True)
class _Half:
    """One half of the pairs at one place, whose edit is fitted on the other half.

    Attributes:
        site: of the edit, like ``layer`` and ``at``.
        x: activations of the other half, of both runs.
        fitted: their words.
        words: of this half's clean prompts.
        corrupted: this half's corrupted run, whole.
    """

    site: str
    layer: int
    at: str
    x: Float[np.ndarray, "row d_model"]
    fitted: Shaped[np.ndarray, " row"]
    words: Shaped[np.ndarray, " prompt"]
    corrupted: Float[Tensor, "prompt position d_model"]

    @property
    def place(self) -> dict[str, Any]:
        """Where it is edited."""
        return {"site": self.site, "layer": self.layer, "at": self.at}


def _edited(edit: Callable[[_Half], Intervention]) -> Callable[[Trial], Findings]:
    """What the answer loses at each place where the clean run is edited; fitted on one half, asked of the other."""

    def find(trial: Trial) -> Findings:
        pairs, site = trial.pairs, "resid_pre"
        halves = [np.arange(start, len(pairs), 2) for start in (0, 1)]
        words = source_words(pairs)
        clean = score(trial.model, pairs, "clean")
        lost = np.full((len(pairs), trial.model.cfg.n_layers, len(pairs.roles)), np.nan)
        for layer in range(trial.model.cfg.n_layers):
            runs = [
                activations(trial.model, one, site, layers=[layer])[layer] for one in (pairs.clean, pairs.corrupted)
            ]
            for column, role in enumerate(pairs.roles):
                at = pairs.clean.role_positions(role)
                for fit, held_out in (halves, halves[::-1]):
                    x = np.concatenate([one[fit, at[fit]].double().numpy() for one in runs])
                    fitted = words[:, fit].reshape(-1)
                    test = held_out[np.isin(words[0, held_out], fitted)]  # of other words nothing was fitted
                    item = edit(_Half(site, layer, role, x, fitted, words[0, test], runs[1][test]))
                    after = score(trial.model, pairs.select(test), interventions=[item])
                    lost[test, layer, column] = clean[test] - after
        found = xr.DataArray(
            lost, dims=("prompt", "layer", "role"),
            coords={"layer": range(trial.model.cfg.n_layers), "role": list(pairs.roles)},
        )  # fmt: skip
        return trial.effects([found], _at)

    return find


def _without_inlp(half: _Half) -> Intervention:
    """INLP erases the source's words."""
    return subspaces.INLP().fit(half.x, half.fitted).subspace_.erase(**half.place)


def _without_what_is_said(half: _Half) -> Intervention:
    """The oracle of LEACE takes away what each prompt's own word says of the activation."""
    return subspaces.LEACE(oracle=True).fit(half.x, half.fitted).shift(half.words, **half.place)


def _exchanged_along_one(half: _Half) -> Intervention:
    """The corrupted run's part along the one direction in which the words' means differ most."""
    spread = subspaces.MeanProjection().fit(half.x, half.fitted).subspace_
    one = replace(spread, read=spread.read[:1], written=spread.written[:1])
    return one.interchange({half.layer: half.corrupted}, **half.place)


def _lost_beyond(variable: str, axis: str, asked: str, control: str) -> Callable[[Trial], Findings]:
    """What an edit of the table of places costs; named where that is surely more than its control costs."""

    def find(trial: Trial) -> Findings:
        lost = summary.effect(summary.of(trial.places, variable), "noising")
        scores, named = {}, set()
        for layer, role in _cells(trial.places):
            one, by_chance = (lost.sel({"layer": layer, "role": role, axis: name}) for name in (asked, control))
            name, mean = _place(layer, role), float(one["mean"])
            scores[name] = mean
            if float(one["low"]) > max(0.0, float(by_chance["high"])) and mean >= LEAST:
                named.add(name)
        return Findings(scores, frozenset(named))

    return find


def _cells(places: xr.Dataset) -> list[tuple[int, str]]:
    return [(int(layer), str(role)) for layer in places["layer"].values for role in places["role"].values]


def _readable_in_table(trial: Trial) -> Findings:
    """Where the table of places says that the source can be read: above guessing, and above its control."""
    found = trial.places
    decoded, above = (summary.mean(found[name]) for name in ("decoded", "selectivity"))
    scores, named = {}, set()
    for layer, role in _cells(found):
        name, at = _place(layer, role), {"layer": layer, "role": role}
        scores[name] = float(above["mean"].sel(at))
        if float(decoded["low"].sel(at)) > float(found["majority"]) and float(above["low"].sel(at)) > 0:
            named.add(name)
    return Findings(scores, frozenset(named))


def _used_in_table(trial: Trial) -> Findings:
    """Where patching, erasing and exchanging all cost the answer; the score is the least of the three."""
    all_of = [_lost_beyond(*asked)(trial) for asked in (_TABLE["leace"], _TABLE["interchange"])]
    all_of.append(_whole_exchanged(trial))
    scores = {name: min(one.scores[name] for one in all_of) for name in all_of[0].scores}
    return Findings(scores, frozenset.intersection(*(one.named for one in all_of)))


def _whole_exchanged(trial: Trial) -> Findings:
    lost = summary.effect(summary.of(trial.places, "recovered"), "noising")
    scores = {_place(*cell): float(lost["mean"].sel(layer=cell[0], role=cell[1])) for cell in _cells(trial.places)}
    sure = {
        _place(*cell) for cell in _cells(trial.places) if float(lost["low"].sel(layer=cell[0], role=cell[1])) > LEAST
    }
    return Findings(scores, frozenset(sure))


_TABLE: Mapping[str, tuple[str, str, str, str]] = {
    "leace": ("recovered_erasure", "eraser", "leace", "shuffled"),
    "class means": ("recovered_erasure", "eraser", "means", "shuffled"),
    "interchange": ("recovered_interchange", "subspace", "means", "random"),
    "das": ("recovered_interchange", "subspace", "das", "placebo"),
}
"""Method -> where the table of places has it: the variable, its axis, the entry and that of its control."""


def _missed(trial: Trial) -> Findings:
    """What each edge is worth by ``circuits.evaluate``, in a circuit of the true edges and those past what is idle.

    The latter go from the embedding to each head (its values) or MLP that carries nothing, and on to the logits. All
    that is outside the circuit carries what it does in the corrupted run: what the two runs share is no part of a
    circuit on which the source goes, and any other ablation would take it away.
    """
    ablation: CircuitAblation = "resample"
    true = [circuits.Edge(*edge) for edge in sorted(trial.truth.edges)]
    beside = [
        edge for name in sorted(set(trial.truth.components) - trial.truth.carrying) for edge in trial.through(name)
    ]
    circuit = circuits.Circuit.of(trial.model, trial.pairs, dict.fromkeys((*true, *beside)))
    found = circuits.evaluate(
        trial.model, trial.pairs, circuit, ablations=[ablation], n_random=0, n_knockouts=0, most_edges=len(circuit)
    ).sel(ablation=ablation)
    cost, ends = found["edge_cost"].values, found["edge_cost_interval"].values
    edges = [str(name).replace(" -> ", "->") for name in found["circuit_edge"].values]
    sure = (np.abs(cost) >= LEAST) & ((ends[:, 0] > 0) | (ends[:, 1] < 0))
    named = frozenset(name for name, one in zip(edges, sure, strict=True) if one)
    return Findings({name: abs(float(one)) for name, one in zip(edges, cost, strict=True)}, named)


def _arriving(trial: Trial) -> Findings:
    """At which later words of one prompt an explanation says yes; the score is how much it says arrives there."""
    shares = arriving(trial.model, trial.pairs)
    return Findings({role: share for role, (share, _) in shares.items()}, said_yes(shares))


def _explained(trial: Trial) -> Findings:
    """The head that the explanation of one prompt names, at the word next to the source and at the answer position."""
    scores: dict[str, float] = {}
    named: set[str] = set()

    def places(role: str) -> int:
        return int(trial.pairs.clean.role_positions(role)[0])

    for target in sorted({str(trial.pairs.vocabulary.target), ANSWER}):
        if places(target) <= places(str(trial.pairs.vocabulary.source)):
            continue  # the word stands before the source, so that nothing can reach it
        enough, needed = head_effects(explained(trial.model, trial.pairs, target))
        for cell, size in zip(enough["cell"].values, enough["mean"].values, strict=True):
            if np.isfinite(size):
                scores[str(cell)] = max(scores.get(str(cell), 0.0), float(size))
        head = named_head(enough, needed)
        named |= set() if head is None else {head}
    return Findings(scores, frozenset(named))


def explained(model: HookedTransformer, pairs: PromptPairs, target: str) -> xr.Dataset:
    """What ``interp.explain`` finds of heads in the first prompt, with the pairs' other source words in its place."""
    swapped = in_one_prompt(pairs, target)
    _, sources = arrival(Beginning.of(model, swapped), swapped)
    *_, last = carried(model, swapped, np.abs(sources["written"].mean("prompt").values), Clock(None))
    return last.heads


def arriving(model: HookedTransformer, pairs: PromptPairs) -> dict[str, tuple[float, bool]]:
    """How much of the source arrives at each later word of the first prompt, and whether an explanation says yes."""
    swapped = in_one_prompt(pairs, ANSWER)
    reach, _ = arrival(Beginning.of(model, swapped), swapped)
    at = {role: int(pairs.clean.role_positions(role)[0]) for role in behind_source(pairs)}
    return {role: (float(arrived(reach, place)["mean"]), reaches(reach, place)) for role, place in at.items()}


def said_yes(shares: Mapping[str, tuple[float, bool]]) -> frozenset[str]:
    """The words of which an explanation says yes."""
    return frozenset(role for role, (_, yes) in shares.items() if yes)


def behind_source(pairs: PromptPairs) -> list[str]:
    """The roles that stand behind the source in the first prompt."""
    first = {role: int(pairs.clean.role_positions(role)[0]) for role in pairs.roles}
    return [role for role, at in first.items() if at > first[str(pairs.vocabulary.source)]]


def in_one_prompt(pairs: PromptPairs, target: str) -> PromptPairs:
    """The first prompt against itself with each of the other source words, as ``interp.explain`` lines them up.

    These models have no tokenizer, so that words are given by their tokens.
    """
    source = str(pairs.vocabulary.source)
    row = [int(token) for token in pairs.clean.rows()[0]]
    at, to = (int(pairs.clean.role_positions(name)[0]) for name in (source, target))
    there = {int(word) for word in pairs.clean.ids[np.arange(len(pairs)), pairs.clean.role_positions(source)]}
    words = sorted(there - {row[at]})
    swapped = PromptPairs.from_tokens(
        [row] * len(words), [[*row[:at], word, *row[at + 1 :]] for word in words],
        correct=[row[at]] * len(words), incorrect=words,
        roles={SOURCE: [at] * len(words), TARGET: [to] * len(words)},
    )  # fmt: skip
    texts = tuple(tuple(WORDS[int(token)] for token in prompt) for prompt in swapped.clean.rows())
    return replace(swapped, clean=replace(swapped.clean, tokens=texts))


def named_head(enough: xr.Dataset, needed: xr.Dataset) -> str | None:
    """The head that the answer names, if any: of those that are surely sufficient and needed, the most sufficient."""
    sure = np.flatnonzero((enough["low"].values > 0) & (needed["low"].values > 0))
    return str(enough["cell"].values[sure[0]]) if len(sure) else None


@dataclass(frozen=True)
class Method:
    """A method on trial.

    Attributes:
        find: what it says of a model.
        asked: the questions it is held to.
    """

    find: Callable[[Trial], Findings]
    asked: Sequence[Question]


_COMPONENTS: tuple[Question, ...] = ("carries", "needed")
_ABLATIONS = ("zero ablation", "mean ablation", "resample ablation")
_PLACES: tuple[Question, ...] = ("held", "used")

METHODS: Mapping[str, Method] = {
    "verdict": Method(_verdict, ("carries",)),
    "claims": Method(_claimed(("moves", "stores", "reads out"), ("denoising", "noising")), ("carries",)),
    "positions only": Method(_claimed(("positions only",), _ABLATIONS), ("selects",)),
    "denoising": Method(_patched("denoising"), _COMPONENTS),
    "noising": Method(_patched("noising"), _COMPONENTS),
    "knockout": Method(_knocked_out, _COMPONENTS),
    "resample_ablation": Method(_ablated("resample"), _COMPONENTS),
    "mean_ablation": Method(_ablated("mean"), _COMPONENTS),
    "zero_ablation": Method(_ablated("zero"), _COMPONENTS),
    "attention": Method(_attention, _COMPONENTS),
    "direct_effect": Method(_direct, _COMPONENTS),
    "gradient": Method(_attributed("gradient"), _COMPONENTS),
    "integrated": Method(_attributed("integrated"), _COMPONENTS),
    "atp*": Method(_attributed("atp*"), _COMPONENTS),
    "paths_in": Method(_paths("denoising"), ("edges",)),
    "paths_out": Method(_paths("noising"), ("edges",)),
    "eap": Method(_edges("eap"), ("edges",)),
    "eap-ig-inputs": Method(_edges("eap-ig-inputs"), ("edges",)),
    "eap-ig-activations": Method(_edges("eap-ig-activations"), ("edges",)),
    "stream_in": Method(_patched_stream("denoising"), ("used",)),
    "stream_out": Method(_patched_stream("noising"), ("used",)),
    "probe": Method(_probed, _PLACES),
    "lens": Method(_lens, _PLACES),
    "tuned lens": Method(_trained_lens("tuned"), _PLACES),
    "jacobian lens": Method(_trained_lens("jacobian"), _PLACES),
    "roles": Method(_roles, ("moves",)),
    "explain": Method(_explained, ("carries",)),
    "score paths": Method(_looking, ("looks",)),
    "composition": Method(_composed, ("between",)),
    **{f"circuit, {name}": Method(_discovered(name), ("edges",)) for name in DISCOVERIES},
    "inlp": Method(_edited(_without_inlp), ("used",)),
    "leace, oracle": Method(_edited(_without_what_is_said), ("used",)),
    **{name: Method(_lost_beyond(*there), ("used",)) for name, there in _TABLE.items()},
    "one direction": Method(_edited(_exchanged_along_one), ("used",)),
    "table, readable": Method(_readable_in_table, _PLACES),
    "table, used": Method(_used_in_table, ("used",)),
    "missed": Method(_missed, ("edges",)),
    "arrival": Method(_arriving, ("arrives",)),
}
"""Every method on trial, by name; ``interp.track_record`` says them in words."""


def held_to(trial: Trial, name: str) -> dict[Question, groundtruth.Score]:
    """What came of a method on one model, by question."""
    method = METHODS[name]
    found = method.find(trial)
    return {asked: groundtruth.score(found.scores, found.named, trial.true(asked)) for asked in method.asked}
