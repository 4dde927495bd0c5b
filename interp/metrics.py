"""Metrics: logits and answer ids in, one number per prompt out. Pure functions, no averaging."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InterpError, unknown_name

Metric: TypeAlias = Callable[
    [Float[Tensor, "prompt vocab"], Int[Tensor, " prompt"], Int[Tensor, " prompt"]], Float[Tensor, " prompt"]
]


def _pick(values: Float[Tensor, "prompt vocab"], ids: Int[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    return values.gather(1, ids.unsqueeze(1)).squeeze(1)


def logit_difference(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """logit(correct) - logit(incorrect) at the answer position, in logits, per prompt. Unbounded; 0 is indifference."""
    return _pick(logits, correct) - _pick(logits, incorrect)


def log_probability(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """Log P(correct) over the whole vocabulary, in nats, at most 0. ``incorrect`` is not used."""
    return _pick(logits.log_softmax(dim=-1), correct)


def probability(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """P(correct) over the whole vocabulary, in [0, 1]. ``incorrect`` is not used.

    Saturates, so it can hide components that work against the answer (Zhang and Nanda 2023, arXiv 2309.16042):
    prefer ``logit_difference`` for patching.
    """
    return log_probability(logits, correct, incorrect).exp()


def rank(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """How many tokens have a larger logit than the correct one: 0 is top-1. ``incorrect`` is not used.

    Ties count against the model, so a constant output never looks right.
    """
    return (logits >= _pick(logits, correct).unsqueeze(1)).sum(dim=1).to(logits.dtype) - 1


METRICS: dict[str, Metric] = {
    "logit_difference": logit_difference,
    "log_probability": log_probability,
    "probability": probability,
    "rank": rank,
}
UNITS: dict[str, str] = {
    "logit_difference": "logits",
    "log_probability": "nats",
    "probability": "",
    "rank": "tokens",
}


MINIMUM_GAP: dict[str, float] = {"logit_difference": 0.1, "log_probability": 0.05, "probability": 0.01, "rank": 1.0}
"""Smallest clean-corrupted gap, in the metric's units, that is worth normalising by."""
OF_THE_CORRECT_ANSWER = frozenset({"log_probability", "probability", "rank"})
"""Metrics that do not look at the incorrect answer."""
DIFFERENTIABLE = frozenset({"logit_difference", "log_probability", "probability"})
"""Metrics that have a gradient."""


def metric(name: str) -> Metric:
    """Look up a metric by name.

    Raises:
        InterpError: the name is unknown, or the metric's units or smallest gap are not stated.
    """
    if not isinstance(name, str):
        raise InterpError(
            f"A metric is named by a word, not by {type(name).__name__}. Choose from: {', '.join(METRICS)}."
        )
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    for what, table in (("units", UNITS), ("smallest gap", MINIMUM_GAP)):
        if name not in table:
            raise InterpError(f"Metric {name!r} has no {what}. State it in interp.metrics beside the others'.")
    return METRICS[name]


def recovered(
    patched: Float[Tensor, "prompt ..."],
    clean: Float[Tensor, " prompt"],
    corrupted: Float[Tensor, " prompt"],
    *,
    minimum_gap: float,
) -> Float[Tensor, "prompt ..."]:
    """Fraction of the clean-corrupted gap present after a patch: ``(patched - corrupted) / (clean - corrupted)``.

    0 is corrupted behaviour and 1 is clean, in both directions; values outside [0, 1] are real and kept.
    NaN for a prompt with ``abs(clean - corrupted) < minimum_gap``: there is nothing to recover.
    """
    gap = clean - corrupted
    gap = torch.where(gap.abs() < minimum_gap, torch.full_like(gap, torch.nan), gap)
    shape = (-1,) + (1,) * (patched.ndim - 1)
    return (patched - corrupted.reshape(shape)) / gap.reshape(shape)
