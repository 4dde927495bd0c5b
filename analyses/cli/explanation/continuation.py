"""How the sentence goes on, and how it would with another word: greedy continuations, and what becomes of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from analyses.explaining.beginning import Beginning
from analyses.explaining.clock import Clock
from interp import results
from interp.prompts import PromptPairs
from interp.prompts.swaps import SOURCE
from interp.prompts.tokens import check_fits
from interp.results import Variable

FOR_OWN, FOR_OTHERS = 0.4, 0.5
"""Shares of the time at which the sentence's own continuation ends, and the others."""


def continued(beginning: Beginning, pairs: PromptPairs, n: int, clock: Clock) -> xr.Dataset:
    """Greedy continuations of the sentence and of every counterfactual, and the first one's probability in each.

    Args:
        beginning: what they begin with.
        pairs: the sentence and its counterfactuals.
        n: tokens that are generated; an end of the text ends a continuation earlier.
        clock: where its time is short, fewer tokens are generated.

    Raises:
        InterpError: the model reads no text that long.
    """
    model = beginning.model
    check_fits(pairs.clean, model, n)
    clean = pairs.clean.select([0])
    (own,) = beginning.greedy(clean, n, lambda: clock.left(FOR_OWN) <= 0)
    others = beginning.greedy(pairs.corrupted, len(own), lambda: clock.left(FOR_OTHERS) <= 0)
    own = own[: min((len(other) for other in others if not beginning.ends(other)), default=len(own))]
    known, given = (beginning.log_probabilities(prompts, own).numpy() for prompts in (clean, pairs.corrupted))
    alike = [_alike(own, other) for other in others]
    reader: Any = model.tokenizer
    return results.build(
        {
            "log_probability": Variable(
                ("prompt", "step"), given, "nats", "log-probability of the sentence's own continuation"
            ),
            "clean_log_probability": Variable(("step",), known[0], "nats", "log-probability in the sentence itself"),
            "alike": Variable(("prompt",), np.array(alike), "tokens", "tokens until the continuations part"),
        },
        coords={
            "step": np.arange(len(own)),
            "token": ("step", [str(reader.decode([token])) for token in own]),
            "other_word": ("prompt", [slots[SOURCE] for slots in pairs.corrupted_slots]),
            "continuation": ("prompt", [str(reader.decode(other)) for other in others]),
        },
        title="How it goes on",
        question="How does the model go on with the sentence, and with another word in it?",
        reading="Each time the likeliest token. The log-probability is that of the sentence's own continuation, token "
        "by token, where another word stands in the sentence.",
        source="",
        of=(model, pairs),
        seed=0,
        extra={"continuation": str(reader.decode(own)), "left": 0 if beginning.ends(own) else n - len(own)},
        dims={"step": "generated token, counted from 0"},
    )


def _alike(one: list[int], other: list[int]) -> int:
    """How many tokens two continuations begin with alike."""
    same = (first == second for first, second in zip(one, other, strict=False))
    return next((i for i, both in enumerate(same) if not both), len(one))
