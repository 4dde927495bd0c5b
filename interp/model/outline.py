"""A model without its weights: what a plan needs of it, from its configuration and its tokenizer alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from interp.errors import InterpError, shown
from interp.model import load
from interp.model.bridged import BridgedModel
from interp.model.hooked import Capabilities, HookedTransformer, Identity
from interp.model.running import resolve_device
from interp.model.source import DTYPES, shallow

LAYERS = 2
"""Layers that are made: what one of them has, all have; two, since some families alternate."""


class Outline(HookedTransformer):
    """A model that can be planned with and not run: its sizes, its sites, and how its products are made."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InterpError(f"Of {self.name} only the shapes are known here: it can be planned with, not run. Load it.")

    forward = resume = unembed = _refuse

    @property
    def weight_bytes(self) -> int:
        """What the weights take once they are loaded: those of the first layers, and as many again for each further."""
        made = self.bridge.blocks
        last = sum(weight.numel() * weight.element_size() for weight in made[-1].parameters())
        return super().weight_bytes + (self.cfg.n_layers - len(made)) * int(last)


@dataclass(frozen=True)
class Outlined:
    """What is known of a model before its weights are read.

    Attributes:
        whole: the model to plan with.
        sample: its first layers with weights drawn at random, which can be run, to see how fast this machine is.
    """

    whole: HookedTransformer
    sample: HookedTransformer


@torch.inference_mode(False)
def outlined(
    source: str | os.PathLike[str] = "mini", *, device: str = "auto", dtype: str = "float32", bos: load.Bos = "auto"
) -> Outlined:
    """What a model is, from its configuration and its tokenizer: no weight is read.

    Args:
        source: as for ``HookedTransformer.from_pretrained``.
        device: likewise.
        dtype: likewise.
        bos: likewise.

    Returns:
        The model to plan with, and its first layers. The fingerprint of the weights is empty.

    Raises:
        InterpError: what ``from_pretrained`` refuses of a configuration and a tokenizer, and a family that cannot be
            made from a configuration.

    A plan is the same with it as with the model:

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import plan
    >>> outline, model = outlined("mini").whole, HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> plan(outline, pairs, "z") == plan(model, pairs, "z")
    True
    """
    if dtype not in DTYPES:
        raise InterpError(f"Unknown dtype {shown(dtype)}. Choose one of {', '.join(DTYPES)}.")
    found = shallow(source, layers=LAYERS, dtype=DTYPES[dtype], device=resolve_device(device))
    sample = load.of_source(found.source, resolve_device(device), bos, "compatibility")
    return Outlined(_deepened(sample, found.n_layers, found.n_parameters, found.config_sha256), sample)


def _deepened(sample: HookedTransformer, n_layers: int, n_parameters: int, config_sha256: str) -> HookedTransformer:
    """The whole model, every further layer like the last one that was made; tokens are embedded nowhere."""
    blocks = sample.blocks
    if blocks is not None:
        further = blocks.layers[-1:] * (n_layers - len(blocks.layers))
        token = torch.empty(blocks.token.shape, device="meta", dtype=blocks.token.dtype)
        blocks = replace(blocks, layers=(*blocks.layers, *further), token=token)
    return Outline(
        BridgedModel(sample.bridge, name=sample.name, cfg=replace(sample.cfg, n_layers=n_layers)),
        identity=Identity("", config_sha256, sample.numerics, n_parameters),
        capabilities=Capabilities(
            sites=sample.sites,
            misnamed=sample.misnamed,
            read_only=sample.read_only,
            checks={},
            blocks=blocks,
            why_no_blocks=sample.why_no_blocks,
            folded_values=None,
            d_mlp=sample.cfg.d_mlp,
        ),
        tokenizer=sample.tokenizer,
        bos_policy=sample.bos_policy,
    )
