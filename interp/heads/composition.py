"""How far what one head writes lies where a later head reads: composition scores, from the weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp import results
from interp._arguments import check_model
from interp.errors import InterpError, whole_number
from interp.heads.head import Head, Kind
from interp.heads.reading import head_weight
from interp.heads.turning import turns
from interp.model.frozen import vector
from interp.results import Variable
from interp.sites import head_label
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

KINDS: tuple[Kind, ...] = ("q", "k", "v")
DRAWS = 32
"""Pairs of heads with random weights that the baseline is the mean of."""


def composition(
    model: HookedTransformer, *, distance: int = 0, seed: int = 0, progress: Progress | None = None
) -> xr.Dataset:
    """Composition of every pair of heads of two layers, as Elhage et al. 2021 define it.

    A head moves what it reads by the matrix ``W_OV`` and compares two words by ``W_QK``. How much of a later head's
    query, key or value can come through an earlier head is the Frobenius norm of the product over the product of the
    norms: of ``W_OV W_QK`` (q), of ``W_OV W_QK^T`` (k), and of ``W_OV W_OV'`` (v). The weight of the later head's norm
    (and the mean that a LayerNorm takes away) is part of its matrices, and so is that of a norm behind the earlier one;
    biases and norm scales are not. It is a
    statement about weights: whether the heads act together on some words is for path patching to say.

    Rotary positions are taken at one distance: ``W_QK`` is ``W_Q R W_K^T`` with the rotation between two words so far
    apart. 0 compares contents alone; at another distance scores differ, which is what a model can use.

    Args:
        model: its heads' weights can be read. Heads that share keys and values are each taken with the shared ones.
        distance: tokens from the word that is looked at to the one that looks, where positions are rotary.
        seed: of the baseline's random weights.
        progress: True for a bar, or called with layers done and layers in all.

    Returns:
        ``composition`` (kind, writer_head, reader_head), in [0, 1], NaN where the writer does not come before the
        reader; ``baseline`` (kind): the mean of the same number for heads of these sizes with random normal weights;
        ``above_baseline``: their difference, from which on there is anything to say; ``p_value`` (kind, writer_head,
        reader_head): share of 1024 pairs of such random heads whose score is at least as high (the pair itself counted
        as one), not corrected for the number of pairs.

    Raises:
        InterpError: a distance outside the model's context, or queries that go through more than a rotation.

    >>> from interp import HookedTransformer, heads
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = heads.composition(model)
    >>> float(found.above_baseline.sel(kind="v", writer_head="L0H2", reader_head="L1H0")) > 0.05
    True
    """
    check_model(model)
    if not 0 <= whole_number(distance, "distance") < model.cfg.n_ctx:
        raise InterpError(
            f"distance is {distance}, outside the context of {model.name}: give 0 to {model.cfg.n_ctx - 1}."
        )
    cfg = model.cfg
    labels = [head_label(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
    scores = np.full((len(KINDS), len(labels), len(labels)), np.nan)
    meter = Meter(progress, cfg.n_layers)
    outputs: list[_Factors] = []
    for layer in range(cfg.n_layers):
        heads = [Head.of(model, (layer, head)) for head in range(cfg.n_heads)]
        moving = _Factors.joined([_moved(model, head) for head in heads])
        comparing = _Factors.joined([_compared(model, head, distance) for head in heads])
        here = slice(layer * cfg.n_heads, (layer + 1) * cfg.n_heads)
        for i, later in enumerate((comparing, comparing.transposed, moving)):
            for at, earlier in enumerate(outputs):
                scores[i, at * cfg.n_heads : (at + 1) * cfg.n_heads, here] = _shares(earlier, later).numpy()
        outputs.append(moving)
        meter.add(1)
    mean, random = _random(cfg.d_model, cfg.d_head, seed)
    baseline = np.array([mean] * len(KINDS))
    as_high = len(random) - np.searchsorted(random, scores)
    p_value = np.where(np.isfinite(scores), (1 + as_high) / (1 + len(random)), np.nan)
    dims = ("kind", "writer_head", "reader_head")
    return results.build(
        {
            "composition": Variable(dims, scores, "", "composition score"),
            "baseline": Variable(("kind",), baseline, "", "composition score of random weights"),
            "above_baseline": Variable(dims, scores - baseline[:, None, None], "", "composition score above random"),
            "p_value": Variable(dims, p_value, "", "share of random pairs of heads with at least that score"),
        },
        coords={"kind": list(KINDS), "writer_head": labels, "reader_head": labels},
        title="Composition of heads",
        question="Which head's output lies where a later head reads?",
        reading="0: nothing of what the earlier head writes can be read there; random weights give the baseline. "
        "Weights alone, so that a high score is a possibility and not a use.",
        source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (composition scores)",
        of=(model,),
        seed=seed,
        extra={"distance": distance, "task": "", "n_prompts": 0, "tokens_sha256": ""},
        dims={
            "kind": "what is read: queries (q), keys (k) or values (v)",
            "writer_head": "the earlier head, which writes",
            "reader_head": "the later head, which reads",
        },
    )


@dataclass(frozen=True)
class _Factors:
    """Matrices of low rank, one for each head: ``left @ right``, [d_model, d_head] and [d_head, d_model]."""

    left: Float[Tensor, "head d_model d_head"]
    right: Float[Tensor, "head d_head d_model"]

    @classmethod
    def joined(cls, parts: list[_Factors]) -> _Factors:
        return cls(torch.cat([part.left for part in parts]), torch.cat([part.right for part in parts]))

    @property
    def transposed(self) -> _Factors:
        return _Factors(self.right.transpose(1, 2), self.left.transpose(1, 2))

    @cached_property
    def first(self) -> Float[Tensor, "head d_head d_model"]:
        """What stands for the matrices on the left of a product: as long with any other matrix behind it."""
        triangle: Tensor = torch.linalg.qr(self.left, mode="r").R
        return triangle @ self.right

    @cached_property
    def second(self) -> Float[Tensor, "head d_model d_head"]:
        """What stands for them on the right of a product."""
        return self.transposed.first.transpose(1, 2)

    @cached_property
    def norm(self) -> Float[Tensor, " head"]:
        """Frobenius norm of each."""
        return self.first.square().sum((1, 2)).sqrt()


def _shares(first: _Factors, second: _Factors) -> Float[Tensor, "writer reader"]:
    """Frobenius norm of each product of two matrices over the product of their norms.

    An orthogonal matrix in front changes no norm, so that of the outer factors only the triangles of their QR
    decompositions count, and all products are blocks of one.
    """
    left, right = first.first, second.second
    blocks = left.flatten(0, 1) @ right.transpose(0, 1).flatten(1)
    norms = blocks.square_().reshape(len(left), left.shape[1], len(right), right.shape[2]).sum((1, 3)).sqrt_()
    return norms / torch.outer(first.norm, second.norm)


def _folded(model: HookedTransformer, head: Head, kind: Kind) -> Float[Tensor, "d_model d_head"]:
    """A projection together with the weight and the centring of the norm before it."""
    return _through(model, head, "ln1", head_weight(model, head, kind))


def _through(
    model: HookedTransformer, head: Head, norm: str, matrix: Float[Tensor, "d_model column"]
) -> Float[Tensor, "d_model column"]:
    """A map of what a norm of the head's block gives, as a map of what it takes; as it is where there is no norm."""
    module = getattr(model.bridge.blocks[head.layer], norm, None)
    if module is None:
        return matrix
    offset = 1.0 if getattr(module, "uses_weight_offset", False) else 0.0
    weight = vector(module, "weight", model.cfg.d_model, 1.0 - offset) + offset
    made = weight[:, None] * matrix
    return made if getattr(module, "uses_rms_norm", False) else made - made.mean(dim=0, keepdim=True)


def _moved(model: HookedTransformer, head: Head) -> _Factors:
    """``W_V W_O`` of a head, from what it reads to what it writes."""
    output = model.W_O(head.layer)[head.head].double().cpu()
    enters = _through(model, head, "ln1_post", torch.eye(model.cfg.d_model, dtype=torch.float64))
    return _Factors(_folded(model, head, "v")[None], (output @ enters)[None])


def _compared(model: HookedTransformer, head: Head, distance: int) -> _Factors:
    """``W_Q R W_K^T`` of a head at a distance."""
    query, key = (_folded(model, head, kind) for kind in ("q", "k"))
    turned = turns(model, head, ("q", "k"), distance + 1)
    for_query, for_key = turned["q"], turned["k"]
    if for_query is not None and for_key is not None:
        query, key = query @ for_query.matrix[distance], key @ for_key.matrix[0]
    return _Factors(query[None], key.T[None])


def _random(d_model: int, d_head: int, seed: int) -> tuple[float, Float[np.ndarray, " pair"]]:
    """The mean score of pairs of heads with normal weights, and the scores of many such pairs, in order.

    They depend on the sizes alone.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> _Factors:
        shape = (DRAWS, d_model, d_head)
        left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        return _Factors(left, right.transpose(1, 2))

    first, second = draw(), draw()
    scores = _shares(first, second)
    return float(scores.diagonal().mean()), np.sort(scores.numpy(), axis=None)
