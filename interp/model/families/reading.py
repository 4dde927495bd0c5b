"""Reading weights off the components of a bridge; all are views, never copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.model.arithmetic import ACTIVATIONS, Block, Linear, Norm, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.products import Activation


def original(component: Any) -> Any:
    """The module that a component of the bridge stands for."""
    found = getattr(component, "original_component", None)
    return component if found is None else found


def bias(found: Tensor | None) -> Tensor | None:
    """A bias, where there is one."""
    return None if found is None else found.detach()


def linear(component: Any) -> Linear:
    """A linear map as ``x @ weight``: Conv1D keeps its weight that way, ``nn.Linear`` the other way round."""
    module = original(component)
    weight = module.weight.detach()
    return Linear(weight.T if isinstance(module, torch.nn.Linear) else weight, bias(module.bias))


def layer_norm(component: Any) -> Norm:
    """A LayerNorm."""
    module = original(component)
    if not isinstance(module, torch.nn.LayerNorm):
        raise UnsupportedModelError(f"{type(module).__name__} is no LayerNorm")
    return Norm(module.weight.detach(), bias(module.bias), float(module.eps), centred=True)


def rms_norm(component: Any) -> Norm:
    """An RMSNorm."""
    module = original(component)
    if not hasattr(module, "variance_epsilon"):
        raise UnsupportedModelError(f"{type(module).__name__} is no RMSNorm")
    return Norm(module.weight.detach(), None, float(module.variance_epsilon), centred=False)


def attention(block: Any) -> dict[str, Any]:
    """The four maps of attention, by their names in a ``Block``."""
    return {name: linear(getattr(block.attn, name)) for name in ("q", "k", "v", "o")}


def plain_mlp(block: Any) -> dict[str, Any]:
    """The maps of an MLP without a gate."""
    return {"mlp_in": linear(getattr(block.mlp, "in")), "gate": None, "mlp_out": linear(block.mlp.out)}


def no_mlp(d_model: int, like: Tensor) -> dict[str, Any]:
    """An MLP of no neurons, for a block of attention alone."""
    empty = Linear(like.new_empty(d_model, 0), None), Linear(like.new_empty(0, d_model), None)
    return {"mlp_in": empty[0], "gate": None, "mlp_out": empty[1]}


def activation(model: BridgedModel) -> Activation:
    """The MLP's nonlinearity.

    Raises:
        UnsupportedModelError: one that is not written here.
    """
    name = str(model.bridge.cfg.act_fn)
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(f"the activation {name} is not written here")
    return ACTIVATIONS[name]


def around(model: BridgedModel, layers: tuple[Block, ...]) -> dict[str, Any]:
    """What every model has around its blocks, by the names of ``Blocks``: embedding, unembedding, sizes, scale."""
    bridge, cfg = model.bridge, model.cfg
    scale = getattr(original(bridge.blocks[0].attn), "scaling", None)
    return {
        "layers": layers,
        "token": original(bridge.embed).weight.detach(),
        "unembed": Linear(bridge.unembed.W_U.detach(), bias(bridge.unembed.b_U)),
        "n_heads": cfg.n_heads,
        "n_kv_heads": cfg.n_kv_heads,
        "d_head": cfg.d_head,
        "scale": float(cfg.d_head**-0.5 if scale is None else scale),
        "activation": activation(model),
    }
