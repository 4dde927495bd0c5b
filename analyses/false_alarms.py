"""How often something is found where there is nothing: models with random weights, whatever model is studied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analyses import registry
from interp import groundtruth, results, stats
from interp.errors import InterpError, shown
from interp.prompts.template import ANSWER
from interp.results import Variable
from interp.sweeps import Meter, Timed, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

CLAIMS = ("gate", "verdict", "verdict, gate opened", "heads alone", "readable")
"""What can be claimed of a random model."""
LEVEL = 0.05
"""Chance, at most, that a probe is called readable anywhere where nothing can be read."""

SECONDS = 1.5
"""One random model, its share of the probes included, on one core."""


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
    n_models: int = 200,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How often something is named in models with random weights, where nothing is to be found.

    Args:
        model: of the study; it is recorded, and not asked.
        pairs: of the study, likewise.
        n_models: how many models.
        progress: True for a bar, or called with models done and models in all.

    Returns:
        ``alarms`` and ``rate`` (claim), with the exact 95% interval of the rate (``rate_interval``), of ``n`` models.
        Claims: ``gate`` (the behaviour gate lets the model through), ``verdict`` (a head is named), ``verdict, gate
        opened`` (a head is named although the gate was told to let everything through), ``heads alone`` (a head would
        be named if nothing were known of the behaviour), ``readable`` (a probe reads labels that were drawn at random,
        at any of four places; asked of a quarter of the models).

    Raises:
        InterpError: fewer than one model.

    >>> from analyses import false_alarms
    >>> from interp import groundtruth
    >>> found = false_alarms.run(*groundtruth.at_random(0), n_models=1)
    >>> found["alarms"].sel(claim="verdict").item(), found["rate_interval"].sel(claim="verdict").values.tolist()
    (0, [0.0, 0.975])
    """
    check(n_models=n_models)
    counts, asked = (dict.fromkeys(CLAIMS, 0) for _ in range(2))
    meter = Meter(progress, n_models)
    for seed in range(n_models):
        found = _alarms(seed)
        if seed < max(1, n_models // 4):  # it takes much longer
            found["readable"] = readable(seed)
        for claim, raised in found.items():
            counts[claim] += raised
            asked[claim] += 1
        meter.add(1)
    n = np.array(list(asked.values()))
    ends = np.array([stats.exact_interval(counts[claim], asked[claim]) for claim in CLAIMS])
    rate = np.array(list(counts.values())) / n
    return results.build(
        {
            "rate": Variable(("claim",), rate, "share", "random models of which it is claimed"),
            "rate_interval": Variable(("claim", "ci_bound"), ends, "share", "exact 95% interval of the rate"),
            "alarms": Variable(("claim",), list(counts.values()), "models", "random models of which it is claimed"),
            "n": Variable(("claim",), n, "models", "random models that were asked"),
        },
        coords={"claim": list(counts), "ci_bound": ["lower", "upper"]},
        title="False alarms",
        question="How often is something found in a model with random weights?",
        reading="Whatever is claimed of these models is a false alarm: they do not do the task.",
        source="Clopper and Pearson 1934 (intervals)",
        of=(model, pairs),
        seed=0,
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

    def of(name: str, **options: object) -> xr.Dataset:
        made: xr.Dataset = registry.get(name).function("run")(model, pairs, **options)
        return made

    behavior = of("behavior")
    found = {
        "activation_patching": of("activation_patching", sites=["resid_pre", "z"], by_position=False),
        "head_attribution": of("head_attribution", ablations=[]),
    }
    join: Callable[..., xr.Dataset] = registry.get("context_flow").function("run")
    opened = _opened(behavior)
    sure = opened.assign(preferred=opened["preferred"] * 0 + 1)

    def names_heads(stated: xr.Dataset) -> bool:
        verdict = join({"behavior": stated, **found})
        return "label" in verdict and bool((verdict["label"] != "none").any())

    return {
        "gate": bool(behavior["passes"].values.any()),
        "verdict": names_heads(behavior),
        "verdict, gate opened": names_heads(opened),
        "heads alone": names_heads(sure),
    }


def _opened(behavior: xr.Dataset) -> xr.Dataset:
    """The baselines as they would be if the gate let everything through."""
    rung = str(behavior["rung"].values[0])
    return behavior.assign(passes=behavior["passes"] * 0 + 1).assign_attrs(explained_rung=rung)


def readable(seed: int) -> bool:
    """Whether a probe is called readable on labels that mean nothing, at the colour and at the answer position."""
    model, pairs = groundtruth.at_random(seed)
    rng = np.random.default_rng(seed)
    words = [f"label {i}" for i in range(6)]
    drawn = [rng.choice(words, 2, replace=False) for _ in range(len(pairs))]
    shuffled = replace(
        pairs,
        slots=tuple({"shuffled": str(clean)} for clean, _ in drawn),
        corrupted_slots=tuple({"shuffled": str(corrupted)} for _, corrupted in drawn),
    )
    found: xr.Dataset = registry.get("probing").function("run")(
        model, shuffled, target="shuffled", roles=[pairs.vocabulary.source or "", ANSWER],
        layers=[0, model.cfg.n_layers - 1], codelength=False,
    )  # fmt: skip
    return bool((found["p_value"] <= LEVEL).any())
