"""What a vector in the stream adds to a difference of logits by the direct path, with the final norm's scale frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UnaskableError
from interp.model.frozen import FrozenNorm, vector

if TYPE_CHECKING:
    from interp.model import HookedTransformer


def logit_direction(
    model: HookedTransformer,
    stream: Float[Tensor, "prompt d_model"],
    correct: Int[Tensor, " prompt"],
    incorrect: Int[Tensor, " prompt"],
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, " prompt"]]:
    """Final norm (scale frozen) and unembedding as one linear map: logit difference = stream . direction + constant.

    Args:
        model: the model.
        stream: after its last layer, where the answer is read.
        correct: token ids.
        incorrect: token ids.

    Returns:
        The direction and the constant (what the biases add), in float64 on the CPU, logits.

    Raises:
        UnaskableError: the model has no final norm.

    >>> from interp import HookedTransformer, capture
    >>> from interp.run import logits_at, as_prompts
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> said = as_prompts(model, "The cat is black.")
    >>> stream = torch.from_numpy(capture(model, said, "resid_post", at=[-1], layers=[3])["resid_post"].values[:, 0, 0])
    >>> direction, constant = logit_direction(model, stream, torch.tensor([5]), torch.tensor([6]))
    >>> logits = logits_at(model, said)[0].double()
    >>> bool(((stream.double() * direction).sum() + constant[0] - (logits[5] - logits[6])).abs() < 1e-3)
    True
    """
    norm = final_norm(model)
    weights = model.W_U().detach()
    answer = (weights[:, correct.to(weights.device)] - weights[:, incorrect.to(weights.device)]).T.double().cpu()
    frozen = FrozenNorm.of(model, norm, stream)
    unembed_bias = vector(model.bridge.unembed, "b_U", model.cfg.vocab_out, 0.0)
    return frozen.read_along(answer), answer @ frozen.bias + unembed_bias[correct] - unembed_bias[incorrect]


def final_norm(model: HookedTransformer) -> torch.nn.Module:
    """The norm before the unembedding.

    Raises:
        UnaskableError: the model has none.

    >>> from interp import HookedTransformer
    >>> final_norm(HookedTransformer.from_pretrained("mini")).uses_rms_norm
    False
    """
    norm: torch.nn.Module | None = getattr(model.bridge, "ln_final", None)
    if norm is None:
        raise UnaskableError(
            f"{model.cfg.architecture} has no final norm: its blocks normalise the stream itself, so that logits are "
            "no sum of parts. Use ablation and patching instead."
        )
    return norm
