"""How often something is found where there is nothing: models with random weights, whatever model is studied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analyses import registry, trial
from interp import groundtruth, heads, results, stats, subspaces, summary
from interp.errors import InterpError, shown
from interp.prompts.template import ANSWER
from interp.results import Variable
from interp.sweeps import Meter, Timed, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

CLAIMS = (
    "gate", "verdict", "verdict, gate opened", "claims, gate opened", "heads alone", "roles", "das", "explanation",
    "readable",
)  # fmt: skip
"""What can be claimed of a random model."""
N_MODELS = 400
"""Of so many, the interval of a claim that is made of 5 in 100 is 3.1% to 7.6%; of one never made it ends at 0.9%."""
FIRST = 118
"""The seed of the first model. On models before it the rule was chosen by which a head is given a role."""
RANK = 5
"""Directions that DAS finds: as many as tell six colours apart."""

SECONDS = 2.0
"""One random model, asked for everything, on one core."""


def check(*, n_models: int) -> None:
    """Refuse a number of models that leaves none.

    Raises:
        InterpError: below 1.
    """
    if n_models < 1:
        raise InterpError(f"n_models is {shown(n_models)}. Ask at least one.")


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    n_models: int = N_MODELS,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How often something is named in models with random weights, where nothing is to be found.

    Args:
        model: of the study; it is recorded, and not asked.
        pairs: of the study, likewise.
        n_models: how many models; their seeds begin at ``FIRST``.
        progress: True for a bar, or called with models done and models in all.

    Returns:
        ``alarms`` and ``rate`` (claim), with the exact 95% interval of the rate (``rate_interval``), of ``n`` models.
        Claims: ``gate`` (the behaviour gate lets the model through), ``verdict`` (a head is named), ``verdict, gate
        opened`` (a head is named although the gate was told to let everything through), ``claims, gate opened``
        (likewise a claim of any component), ``heads alone`` (a head would be named if nothing were known of the
        behaviour), ``roles`` (a head has a role), ``das`` (of arbitrary answers, what DAS was fitted to surely holds
        for other pairs), ``explanation`` (an explanation says yes, of any later word, where all colours are embedded
        alike), ``readable`` (a probe reads labels that were drawn at random, at any of four places).

    Raises:
        InterpError: fewer than one model.

    >>> from analyses import false_alarms
    >>> from interp import groundtruth
    >>> found = false_alarms.run(*groundtruth.at_random(0), n_models=1)
    >>> found["alarms"].sel(claim="verdict").item(), found["rate_interval"].sel(claim="verdict").values.tolist()
    (0, [0.0, 0.975])
    """
    check(n_models=n_models)
    counts = dict.fromkeys(CLAIMS, 0)
    meter = Meter(progress, n_models)
    for seed in range(FIRST, FIRST + n_models):
        for claim, raised in _alarms(seed).items():
            counts[claim] += raised
        meter.add(1)
    ends = np.array([stats.exact_interval(count, n_models) for count in counts.values()])
    rate = np.array(list(counts.values())) / n_models
    return results.build(
        {
            "rate": Variable(("claim",), rate, "share", "random models of which it is claimed"),
            "rate_interval": Variable(("claim", "ci_bound"), ends, "share", "exact 95% interval of the rate"),
            "alarms": Variable(("claim",), list(counts.values()), "models", "random models of which it is claimed"),
            "n": Variable(("claim",), [n_models] * len(counts), "models", "random models that were asked"),
        },
        coords={"claim": list(counts), "ci_bound": ["lower", "upper"]},
        title="False alarms",
        question="How often is something found in a model with random weights?",
        reading="Whatever is claimed of these models is a false alarm: they do not do the task.",
        source="Clopper and Pearson 1934 (intervals)",
        of=(model, pairs),
        seed=FIRST,
        dims={"claim": "what is claimed"},
    )


@plans_of(run)
def planned(n_models: int) -> list[Timed]:
    """What ``run`` takes: so many models, whatever model is studied. Nothing is run.

    >>> from analyses import false_alarms
    >>> [plan.rows for plan in false_alarms.planned(None, None, n_models=8)]
    [8]
    """
    return [Timed(n_models, n_models * SECONDS)]


def _alarms(seed: int) -> dict[str, bool]:
    """What is claimed of one random model."""
    model, pairs = groundtruth.at_random(seed)
    behavior = _asked("behavior", model, pairs)
    sites = [site for site in ("resid_pre", "mlp_out", "z") if model.has_site(site)]
    found = {
        "activation_patching": _asked("activation_patching", model, pairs, sites=sites, by_position=False),
        "head_attribution": _asked("head_attribution", model, pairs),
    }
    join: Callable[..., xr.Dataset] = registry.get("context_flow").function("run")
    opened = _opened(behavior)
    verdicts = {
        "verdict": join({"behavior": behavior, **found}),
        "verdict, gate opened": join({"behavior": opened, **found}),
        "heads alone": join({"behavior": opened.assign(preferred=opened["preferred"] * 0 + 1), **found}),
    }
    return {
        "gate": bool(behavior["passes"].values.any()),
        **{name: _names_heads(verdict) for name, verdict in verdicts.items()},
        "claims, gate opened": "claim" in verdicts["verdict, gate opened"].dims,
        "roles": bool(heads.roles(model, pairs)["named"].any()),
        "das": _held_out(seed, model, pairs),
        "explanation": _explained(seed),
        "readable": _readable(seed, model, pairs),
    }


def _asked(name: str, model: HookedTransformer, pairs: PromptPairs, **options: object) -> xr.Dataset:
    made: xr.Dataset = registry.get(name).function("run")(model, pairs, **options)
    return made


def _names_heads(verdict: xr.Dataset) -> bool:
    return "label" in verdict and bool((verdict["label"] != "none").any())


def _opened(behavior: xr.Dataset) -> xr.Dataset:
    """The baselines as they would be if the gate let everything through."""
    rung = str(behavior["rung"].values[0])
    return behavior.assign(passes=behavior["passes"] * 0 + 1).assign_attrs(explained_rung=rung)


def _held_out(seed: int, model: HookedTransformer, pairs: PromptPairs) -> bool:
    """Whether DAS, asked for arbitrary answers on every other pair, surely makes more than half of those of the rest.

    A coin says for each pair whether its answer is to change, so that nothing that is found can hold for other pairs.
    """
    coins = np.random.default_rng(seed).random(len(pairs)) < 1 / 2
    fit, test = np.arange(0, len(pairs), 2), np.arange(1, len(pairs), 2)
    place: dict[str, Any] = {"layer": 1, "at": str(pairs.vocabulary.source)}
    found = subspaces.das(model, pairs.select(fit), rank=RANK, wanted=coins[fit], seed=seed, **place)
    changed = subspaces.interchange(model, pairs.select(test), {"das": found}, **place)["exchanged"].values[:, 0]
    agrees = xr.DataArray((changed == coins[test]).astype(np.float64), dims="prompt")
    return float(summary.mean(agrees)["low"]) > 1 / 2


def _explained(seed: int) -> bool:
    """Whether an explanation says yes where all colours are embedded alike, so that nothing of them can arrive."""
    model, pairs = groundtruth.at_random(seed, blind=True)
    return bool(trial.said_yes(trial.arriving(model, pairs)))


def _readable(seed: int, model: HookedTransformer, pairs: PromptPairs) -> bool:
    """Whether a probe is called readable on labels that mean nothing, at the colour and at the answer position."""
    rng = np.random.default_rng(seed)
    words = [f"label {i}" for i in range(6)]
    drawn = [rng.choice(words, 2, replace=False) for _ in range(len(pairs))]
    shuffled = replace(
        pairs,
        slots=tuple({"shuffled": str(clean)} for clean, _ in drawn),
        corrupted_slots=tuple({"shuffled": str(corrupted)} for _, corrupted in drawn),
    )
    found = _asked(
        "probing", model, shuffled, target="shuffled", roles=[pairs.vocabulary.source or "", ANSWER],
        layers=[0, model.cfg.n_layers - 1], probes=[], codelength=False,
    )  # fmt: skip
    return bool((found["p_value"] <= trial.LEVEL).any())
