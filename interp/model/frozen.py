"""A norm with the scale that it had in a run: then it is a linear map, and what is read of a sum is a sum.

The norm is ``weight * (x - mean(x)) / scale + bias`` (LayerNorm) or ``weight * x / scale`` (RMSNorm). The scale is read
off what the model's own norm returns for a stream, so no epsilon or variance formula is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.bridged import BridgedModel
from interp.model.running import in_one_dtype


@dataclass(frozen=True)
class FrozenNorm:
    """A norm as it acted on some vectors, in float64 on the CPU.

    Attributes:
        weight: what each entry is multiplied by.
        bias: what is added in the end; zeros where there is none.
        centred: whether the mean is taken away first.
        scale: what each of the vectors was divided by.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> norm, x = model.bridge.blocks[1].ln1, torch.randn(3, model.cfg.d_model)
    >>> frozen = FrozenNorm.of(model, norm, x)
    >>> bool((frozen(x.double()) + frozen.bias - norm(x)).abs().max() < 1e-5)
    True
    """

    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool
    scale: Float[Tensor, "*vector 1"]

    @classmethod
    def of(cls, model: BridgedModel, norm: Any, stream: Float[Tensor, "*vector d_model"]) -> FrozenNorm:
        """The norm of a bridge as it acts on a stream."""
        d_model = model.cfg.d_model
        offset = 1.0 if getattr(norm, "uses_weight_offset", False) else 0.0
        weight = vector(norm, "weight", d_model, 1.0 - offset) + offset
        bias = vector(norm, "bias", d_model, 0.0)
        centred = not getattr(norm, "uses_rms_norm", False)
        x = stream.double().cpu()
        unscaled = weight * (x - x.mean(-1, keepdim=True) if centred else x)
        with torch.inference_mode(), in_one_dtype(model.dtype):
            normed = norm(stream.to(model.device, model.dtype)).double().cpu() - bias
        scale = unscaled.square().sum(-1, keepdim=True) / (unscaled * normed).sum(-1, keepdim=True)
        return cls(weight, bias, centred, scale)

    def __call__(self, parts: Float[Tensor, "*vector d_model"]) -> Float[Tensor, "*vector d_model"]:
        """What the norm makes of parts of the vectors, its bias aside."""
        return self.before_scale(parts) / self.scale

    def before_scale(self, parts: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The same before it is divided by the scale."""
        return self.weight * (parts - parts.mean(-1, keepdim=True) if self.centred else parts)

    def read_along(self, direction: Float[Tensor, "*vector d_model"]) -> Float[Tensor, "*vector d_model"]:
        """The vector whose dot product with a part is that of ``direction`` with what the norm makes of the part."""
        along = direction * self.weight / self.scale
        return along - along.mean(-1, keepdim=True) if self.centred else along


def vector(module: Any, name: str, size: int, default: float) -> Float[Tensor, " size"]:
    """A parameter of a component in float64; where it has none, a vector of ``default``.

    >>> vector(torch.nn.Linear(2, 3, bias=False), "bias", 3, 0.0).tolist()
    [0.0, 0.0, 0.0]
    """
    value = getattr(module, name, None)
    return torch.full((size,), default, dtype=torch.float64) if value is None else value.detach().double().cpu()
