"""The methods on trial: what each says of a model whose circuit is known, as scores and as what it names.

Each method is asked at its own threshold: an effect of at least a tenth of the gap whose 95% interval excludes 0 (the
verdict's), attention above an even spread, a probe that is called readable. Effects are shares of the mean gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from analyses import registry
from interp import groundtruth, lenses, summary
from interp.attribution import attribution_patching, edge_attribution
from interp.groundtruth import GroundTruth
from interp.sites import head_label
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching

Question: TypeAlias = Literal["carries", "needed", "edges", "held", "used"]
"""What is asked of a model. Components: which carry the source, which the answer needs. Edges: on which does it go.
Places in the stream: which hold the source, and from which is it still used."""

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
            case "edges":
                return frozenset(f"{sender}->{receiver}" for sender, receiver in truth.edges)
            case "held":
                return frozenset(_place(*place) for place in truth.held)
            case "used":
                return frozenset(_place(*place) for place in truth.used)

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
    results = {
        "behavior": trial.behavior, "activation_patching": trial.patching, "head_attribution": trial.attribution
    }  # fmt: skip
    found = registry.get("context_flow").function("run")(results)
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
    found = lenses.logit_lens(trial.model, trial.pairs, sites=["resid_post"])["log_probability"].isel(site=0, drop=True)
    ahead = summary.mean(found.sel(answer="correct") - found.sel(answer="incorrect"))
    scores, named = {}, set()
    for role in map(str, found["role"].values):
        for layer in range(trial.model.cfg.n_layers - 1):
            name, at = _place(layer + 1, role), {"role": role, "layer": layer}
            scores[name] = float(ahead["mean"].sel(at))
            if float(ahead["low"].sel(at)) > LEAST * trial.gap:
                named.add(name)
    return Findings(scores, frozenset(named))


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
_PLACES: tuple[Question, ...] = ("held", "used")

METHODS: Mapping[str, Method] = {
    "verdict": Method(_verdict, ("carries",)),
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
}
"""Every method on trial, by name; ``interp.track_record`` says them in words."""


def held_to(trial: Trial, name: str) -> dict[Question, groundtruth.Score]:
    """What came of a method on one model, by question."""
    method = METHODS[name]
    found = method.find(trial)
    return {asked: groundtruth.score(found.scores, found.named, trial.true(asked)) for asked in method.asked}
