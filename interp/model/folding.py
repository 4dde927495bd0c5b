"""What folding takes out of the values of a head.

Folding a LayerNorm moves its bias into the biases of the maps after it. The biases of the values are then moved on into
the output bias of attention: attention weights sum to 1, so these biases add the same at every token. So the values of
a folded model lack a constant per head, and so does ``z``. What attention adds to the stream is the same. A head whose
``z`` is set to zero in a folded model still writes what that constant wrote.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.live_sites import allowed, share


@torch.inference_mode()
def values(bridge: Any, *, of_nothing: bool) -> Float[Tensor, "layer token width"] | None:
    """The values of every layer on a few tokens, heads side by side; None if some layer lacks the hook.

    Args:
        bridge: before or after its weights are folded.
        of_nothing: put a stream of zeros before every layer, of which a norm leaves its bias: the values are then what
            the biases alone make.
    """
    kept: list[Tensor] = []

    def read(tensor: Tensor, hook: Any) -> None:
        kept.append(tensor[0].flatten(1).clone())

    def clear(tensor: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(tensor)

    n_layers = len(bridge.blocks)
    hooks: list[Any] = [(f"blocks.{layer}.attn.hook_v", read) for layer in range(n_layers)]
    if any(name not in bridge.hook_dict for name, _ in hooks):
        return None
    if of_nothing:
        hooks += [(f"blocks.{layer}.hook_resid_pre", clear) for layer in range(n_layers)]
    ids = torch.arange(min(4, int(bridge.cfg.n_ctx))).reshape(1, -1) % int(bridge.cfg.d_vocab)
    bridge.run_with_hooks(ids.to(next(bridge.original_model.parameters()).device), fwd_hooks=hooks)
    shapes = {tuple(one.shape) for one in kept}
    return torch.stack(kept) if len(kept) == n_layers and len(shapes) == 1 else None


class Unfolded:
    """Measures, before the weights of a bridge are folded, what ``taken_out`` compares with afterwards."""

    def __init__(self, bridge: Any) -> None:
        """Read the values while they are raw."""
        self.bridge = bridge
        self.raw = [values(bridge, of_nothing=nothing) for nothing in (True, False)]

    def taken_out(self, n_kv_heads: int) -> Float[Tensor, "layer kv_head d_head"] | None:
        """What folding took out of each head's values; None where that is no constant that these runs can show."""
        pairs = [(raw, values(self.bridge, of_nothing=of)) for raw, of in zip(self.raw, (True, False), strict=True)]
        missing = [raw - now for raw, now in pairs if raw is not None and now is not None and raw.shape == now.shape]
        if len(missing) < 2:
            return None
        constant, everywhere = missing[0][:, :1], missing[1]
        raw = self.raw[1]
        assert raw is not None
        if not share(everywhere - constant, raw) <= allowed(raw.dtype):
            return None
        return constant.reshape(len(constant), n_kv_heads, -1)
