"""How what a layer's heads write enters the stream: as it is, times a number, or through a norm behind attention.

Families differ here: Granite multiplies what it adds, Gemma 2 and OLMo 2 normalise it. With the norm's scale held at
the run's value both are linear, so that what each head wrote still adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InterpError
from interp.model.frozen import FrozenNorm

if TYPE_CHECKING:
    from interp.model import HookedTransformer

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a sum of parts may be from the model's own number, as a share of the sizes: rounding in that data type."""


@dataclass(frozen=True)
class Entering:
    """The linear map that a run made of what the heads of one layer wrote at some places, in float64.

    Attributes:
        factor: what it was multiplied by.
        norm: the norm that it went through, with its scale in the run; None where it went through none.
    """

    factor: float = 1.0
    norm: FrozenNorm | None = None

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        layer: int,
        z: Float[Tensor, "*place head d_head"],
        added: Float[Tensor, "*place d_model"],
    ) -> Entering:
        """The map of a layer, from its ``z`` and from what attention added to the stream (``attn_out``).

        Raises:
            InterpError: it is none of the maps known here.

        >>> from interp import HookedTransformer, capture
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> run = capture(model, "The cat is black.", ["z", "attn_out"], at=[-1], layers=[0])
        >>> z = torch.from_numpy(run["z"].transpose("prompt", "head", "d_head", ...).values[..., 0, 0]).double()
        >>> added = torch.from_numpy(run["attn_out"].values[:, 0, 0]).double()
        >>> Entering.of(model, 0, z, added)
        Entering(factor=1.0, norm=None)
        """
        made = torch.einsum("...hx,hxd->...d", z, model.W_O(layer).double().cpu()) + model.b_O(layer).double().cpu()
        for known in cls._known(model, layer, made, added):
            if agrees(model, known(made.unsqueeze(-2)).squeeze(-2) + known.bias(made.shape[-1]), added):
                return known
        raise InterpError(
            f"What attention adds to the stream in layer {layer} of {model.name} ({model.cfg.architecture}) is no sum "
            "of what its heads write, nor such a sum times a number or through a norm. Use ablation and patching "
            "instead."
        )

    @classmethod
    def _known(cls, model: HookedTransformer, layer: int, made: Tensor, added: Tensor) -> Iterator[Entering]:
        yield cls()
        yield cls(factor=float((made * added).sum() / made.square().sum().clamp(min=1e-30)))
        behind = getattr(model.bridge.blocks[layer], "ln1_post", None)
        if behind is not None:
            yield cls(norm=FrozenNorm.of(model, behind, made))

    def __call__(self, parts: Float[Tensor, "*place part d_model"]) -> Float[Tensor, "*place part d_model"]:
        """What parts of the heads' outputs, biases among them, are when they reach the stream."""
        if self.norm is None:
            return self.factor * parts
        return self.norm.before_scale(parts) / self.norm.scale.unsqueeze(-2)

    def bias(self, size: int) -> Float[Tensor, " d_model"]:
        """What is added beside the parts."""
        return torch.zeros(size, dtype=torch.float64) if self.norm is None else self.norm.bias

    def back(self, direction: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place d_model"]:
        """The vector along which a head's output counts as ``direction`` does in the stream."""
        return self.factor * direction if self.norm is None else self.norm.read_along(direction)


def check_adds(
    model: HookedTransformer, layer: int, added: Iterable[Float[Tensor, "*place d_model"]], stream: Tensor
) -> None:
    """Refuse a layer that does more to the stream than to add to it.

    Args:
        model: the model.
        layer: for the message.
        added: the stream before, and what is added to it.
        stream: the stream after.

    Raises:
        InterpError: they do not sum to it.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> check_adds(model, 0, [torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor([3.0]))
    """
    if not agrees(model, torch.stack(list(added)).sum(dim=0), stream):
        raise InterpError(
            f"Layer {layer} of {model.name} ({model.cfg.architecture}) normalises the stream after it adds to it, so "
            "that what a head writes is no share of what is there. Use path patching or ablation instead."
        )


def agrees(model: HookedTransformer, made: Tensor, own: Tensor, size: Tensor | None = None) -> bool:
    """Whether a sum is the model's own number but for rounding; ``size`` of its parts, the number's where not given.

    >>> from interp import HookedTransformer
    >>> from interp import HookedTransformer
    >>> agrees(HookedTransformer.from_pretrained("mini"), torch.tensor([1.0]), torch.tensor([1.00001]))
    True
    """
    return off(made, own, own if size is None else size) <= TOLERANCE.get(model.dtype, 5e-2)


def off(made: Tensor, own: Tensor, size: Tensor) -> float:
    """The largest difference as a share of the largest size.

    >>> off(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([4.0]))
    0.25
    """
    return float((made - own).abs().max()) / max(float(size.abs().max()), 1e-30)
