"""The entropy of what the model says at the answer position, at several temperatures."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from interp import HookedTransformer, PromptPairs, results
from interp.results import Variable
from interp.run import logits_at


def run(model: HookedTransformer, pairs: PromptPairs, *, temperatures: Sequence[float] = (0.5, 1.0, 2.0)) -> xr.Dataset:
    """Entropy in nats, dims (prompt, temperature)."""
    logits = logits_at(model, pairs.clean, pairs.answer_position)
    said = torch.stack([(logits / temperature).log_softmax(dim=-1) for temperature in temperatures], dim=1)
    entropy = -(said.exp() * said).sum(dim=-1)
    return results.build(
        {"entropy": Variable(("prompt", "temperature"), entropy.numpy(), "nats", "entropy of what the model says")},
        coords={"temperature": np.array(temperatures)},
        title="Entropy",
        question="How sure is the model of its answer?",
        reading="0: it is sure; the logarithm of the vocabulary's size: it says anything alike.",
        source="Shannon 1948",
        of=(model, pairs),
        seed=0,
        dims={"temperature": "what the logits are divided by"},
    )
