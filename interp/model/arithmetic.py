"""The arithmetic of a GPT-2, Llama or native model, piece by piece, on the bridge's own weights.

TransformerLens runs a whole block or nothing. What an exact sweep and a gradient need is less: the queries of some
tokens, the attention of one head, the MLP of the tokens that changed. The pieces are here, for the two families that
most of the field's models belong to: GPT-2 (LayerNorm, learned positions, plain MLP; Radford et al. 2019) and Llama
(RMSNorm, rotary positions, gated MLP, grouped-query attention; Touvron et al. 2023, arXiv 2302.13971); and for toy
models of TransformerLens's own making, with an MLP or of attention alone. Weights are views of the bridge's, never
copies, and loading a model compares the whole with the bridge (``interp.model.checks``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.model import products
from interp.model.products import ADDMM, NO_CHOICE, Activation, Choice


def at_positions(
    stream: Float[Tensor, "row position ..."], positions: Int[Tensor, "row ..."]
) -> Float[Tensor, "row answer ..."]:
    """The stream at each row's own positions; one position per row counts as one answer."""
    at = positions.to(stream.device).reshape(stream.shape[0], -1)
    rows = torch.arange(stream.shape[0], device=stream.device).unsqueeze(1)
    return stream[rows, at]


TANH_GELU = Activation(lambda x: F.gelu(x, approximate="tanh"), ("gelu", "tanh"))
ACTIVATIONS = {
    "gelu_new": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "gelu": Activation(F.gelu, ("gelu", "none")),
    "silu": Activation(F.silu, ("swish", "")),
    "relu": Activation(F.relu, ("relu", "")),
}
"""The nonlinearities that are written here, by the names that configurations give them."""

Tap: TypeAlias = Callable[[str, int, Tensor], Tensor]
"""Called with site, layer and activation; what it returns is used from there on."""

WITHIN_ATTENTION = frozenset({"scores", "pattern"})
"""Sites that are not seen where attention is computed in one step."""
WITHIN_MLP = frozenset({"mlp_pre"})
"""Sites that are not seen where the activation is part of a matrix product."""
TAPS = (
    "resid_pre", "q", "k", "v", "rot_q", "rot_k", "scores", "pattern", "z", "attn_out", "resid_mid", "mlp_pre",
    "mlp_post", "mlp_out", "resid_post",
)  # fmt: skip
"""Every site that ``Blocks.block`` shows to a tap, in that order."""
SHOWN = (*TAPS, "result")
"""Those, and what a tap sees only where it is asked for (``within``); nothing reads it, so it cannot be changed."""


class UnsupportedModelError(Exception):
    """Why a model's arithmetic is not written here; its sweeps run through hooks instead."""


@dataclass(frozen=True)
class Norm:
    """LayerNorm (``centred``) or RMSNorm."""

    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"] | None
    eps: float
    centred: bool

    def __call__(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Normalise the last axis."""
        if self.centred:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class Linear:
    """``x @ weight + bias``, computed in the weight's data type and returned in that of ``x``.

    Where no gradient is wanted, the product is made by the way that was measured to be fastest (``choice``). Where one
    is wanted, it is PyTorch's own. ``packed`` is a copy of the weight in the layout that the fastest way takes.
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"] | None
    choice: Choice = NO_CHOICE
    packed: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "... d_in"], activation: Activation | None = None
    ) -> Float[Tensor, "... d_out"]:
        """Apply to the last axis, then the activation if there is one."""
        flat = x.reshape(-1, x.shape[-1]).to(self.weight.dtype)
        way, weight = self.choice.as_it_lies, self.weight
        if torch.is_grad_enabled():
            way = ADDMM
        elif self.packed is not None and self.choice.packed is not None:
            way, weight = self.choice.packed, self.packed
        out = way(flat, weight, self.bias, activation)
        return out.to(x.dtype).reshape(*x.shape[:-1], -1)

    def measured(self, activation: Activation | None) -> Linear:
        """The same map by the product that is fastest on this machine; ``activation`` is what comes after the map."""
        choice = products.choose(self.weight, bias=self.bias is not None, activation=activation)
        return replace(self, choice=choice, packed=None)

    def cast(self, dtype: torch.dtype) -> Linear:
        """The same map in another data type."""
        return Linear(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

    def pack(self, rows: int) -> Linear:
        """The same map, its weight laid out for products of about ``rows`` rows, where that makes it faster."""
        return self if self.choice.packed is None else replace(self, packed=products.pack(self.weight, rows))


@dataclass(frozen=True)
class Block:
    """The weights of one layer.

    ``gate`` is None where the MLP is not gated. A block of attention alone has an MLP of no neurons.
    """

    ln1: Norm
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    ln2: Norm
    mlp_in: Linear
    gate: Linear | None
    mlp_out: Linear

    @property
    def has_mlp(self) -> bool:
        """Whether there is more than attention."""
        return self.mlp_in.weight.shape[1] > 0

    @property
    def activated(self) -> str:
        """Name of the map whose output goes through the activation."""
        return "mlp_in" if self.gate is None else "gate"

    @property
    def matrices(self) -> dict[str, Linear]:
        """Its linear maps by name."""
        names = ("q", "k", "v", "o", "mlp_in", "gate", "mlp_out")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Blocks:
    """A whole model as its pieces.

    Attributes:
        layers: the blocks.
        token: [vocab, d_model] token embedding.
        place: [n_ctx, d_model] learned positions, or None.
        final: the final norm.
        unembed: the unembedding.
        n_heads: query heads.
        n_kv_heads: key-value heads; each serves ``n_heads / n_kv_heads`` query heads.
        d_head: width of a head.
        scale: what scores are multiplied by.
        activation: the MLP's nonlinearity.
        angles: cos and sin of the rotary angles for a prompt length, each [position, d_head]; None without rotation.
    """

    layers: tuple[Block, ...]
    token: Float[Tensor, "vocab d_model"]
    place: Float[Tensor, "n_ctx d_model"] | None
    final: Norm
    unembed: Linear
    n_heads: int
    n_kv_heads: int
    d_head: int
    scale: float
    activation: Activation
    angles: Callable[[int], tuple[Tensor, Tensor]] | None

    def cast(self, dtype: torch.dtype) -> Blocks:
        """The same model with its matrix products in another data type; norms and streams stay as they are."""
        return self._with(lambda block: {name: matrix.cast(dtype) for name, matrix in block.matrices.items()})

    def measured(self) -> Blocks:
        """The same model, each product by the fastest way for its weight (``interp.model.products``)."""
        return self._with(
            lambda block: {
                name: matrix.measured(self.activation if name == block.activated else None)
                for name, matrix in block.matrices.items()
            }
        )

    def choices(self) -> dict[str, Choice]:
        """How the products of a block are made, by their shapes and the names of the maps."""
        named: dict[tuple[tuple[int, ...], Choice], list[str]] = {}
        for block in self.layers:
            for name, matrix in block.matrices.items():
                names = named.setdefault((tuple(matrix.weight.shape), matrix.choice), [])
                names += [] if name in names else [name]
        return {
            f"{' x '.join(map(str, shape))} ({', '.join(names)})": choice for (shape, choice), names in named.items()
        }

    @property
    def dtype(self) -> torch.dtype:
        """Of its matrix products."""
        return next((matrix.weight.dtype for matrix in self._matrices), self.token.dtype)

    @property
    def packable_bytes(self) -> int:
        """Bytes that ``pack`` takes beside the model's own; 0 where packing makes nothing faster."""
        return sum(matrix.weight.nbytes for matrix in self._matrices if matrix.choice.packed is not None)

    @property
    def rows_to_pack(self) -> float:
        """Rows of each product from which packing costs less than it saves."""
        return max((matrix.choice.rows_to_pack for matrix in self._matrices), default=0.0)

    @property
    def is_packed(self) -> bool:
        """Whether any weight is packed."""
        return any(matrix.packed is not None for matrix in self._matrices)

    @property
    def _matrices(self) -> list[Linear]:
        return [matrix for block in self.layers for matrix in block.matrices.values()]

    def pack(self, rows: int) -> Blocks:
        """The same model with every matrix packed that is faster so, for batches of about ``rows`` tokens."""
        return self._with(lambda block: {name: matrix.pack(rows) for name, matrix in block.matrices.items()})

    def _with(self, new: Callable[[Block], dict[str, Any]]) -> Blocks:
        """The same model with some of each block's maps replaced."""
        return replace(self, layers=tuple(replace(block, **new(block)) for block in self.layers))

    # ---- pieces ----

    def embed(self, ids: Int[Tensor, "prompt position"]) -> Float[Tensor, "prompt position d_model"]:
        """The residual stream before layer 0."""
        stream = self.token[ids]
        return stream if self.place is None else stream + self.place[: ids.shape[1]]

    def heads(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... head d_head"]:
        """Split the last axis into heads."""
        return x.reshape(*x.shape[:-1], -1, self.d_head)

    def rotate(
        self, x: Float[Tensor, "... head d_head"], positions: Int[Tensor, "..."], length: int
    ) -> Float[Tensor, "... head d_head"]:
        """Rotate queries or keys that stand at ``positions`` (as they are where positions are not rotary)."""
        if self.angles is None:
            return x
        cos, sin = (angle[positions].unsqueeze(-2) for angle in self.angles(length))
        left, right = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-right, left), dim=-1) * sin

    def scores(
        self, q: Float[Tensor, "row dest head d_head"], k: Float[Tensor, "#row src kv_head d_head"]
    ) -> Float[Tensor, "row head dest src"]:
        """QK^T times the scale, of rotated queries and keys, not masked; keys of one row are those of every row."""
        keys = self.spread(k)
        if len(keys) < len(q):
            return torch.einsum("rdhx,shx->rhds", q, keys[0]) * self.scale
        return torch.einsum("rdhx,rshx->rhds", q, keys) * self.scale

    def mix(
        self, pattern: Float[Tensor, "row head dest src"], v: Float[Tensor, "#row src kv_head d_head"]
    ) -> Float[Tensor, "row dest head d_head"]:
        """Attention-weighted values, ``z``; values of one row are those of every row."""
        values = self.spread(v)
        if len(values) < len(pattern):
            return torch.einsum("rhds,shx->rdhx", pattern, values[0])
        return torch.einsum("rhds,rshx->rdhx", pattern, values)

    def spread(self, x: Float[Tensor, "row src kv_head d_head"]) -> Float[Tensor, "row src head d_head"]:
        """Repeat key-value heads for the query heads that share them."""
        return _repeated(x, self.n_heads)

    def attend(
        self,
        q: Float[Tensor, "row dest head d_head"],
        k: Float[Tensor, "row src kv_head d_head"],
        v: Float[Tensor, "row src kv_head d_head"],
        seen: Tensor | None,
    ) -> Float[Tensor, "row dest head d_head"]:
        """``z`` from rotated queries and keys; ``seen`` (broadcast to [row, head, dest, src]) says who sees whom.

        The heads may be some of the model's, as long as each key-value head comes with equally many query heads.
        """
        z = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            _repeated(k, q.shape[2]).transpose(1, 2),
            _repeated(v, q.shape[2]).transpose(1, 2),
            attn_mask=seen,
            scale=self.scale,
        )
        return z.transpose(1, 2)

    def neurons(
        self, layer: int, resid_mid: Float[Tensor, "... d_model"], see: Tap | None = None
    ) -> Float[Tensor, "... neuron"]:
        """``mlp_post``: the MLP's neurons after the activation (and the gate); ``see`` is shown ``mlp_pre``."""
        block = self.layers[layer]
        x = block.ln2(resid_mid)
        activated = block.mlp_in if block.gate is None else block.gate
        post = activated(x, self.activation) if see is None else self.activation(see("mlp_pre", layer, activated(x)))
        return post if block.gate is None else post * block.mlp_in(x)

    def after_mlp(self, layer: int, resid_mid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """``resid_post`` from ``resid_mid``."""
        if not self.layers[layer].has_mlp:
            return resid_mid
        return resid_mid + self.layers[layer].mlp_out(self.neurons(layer, resid_mid))

    def logits(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Final norm and unembedding."""
        return self.unembed(self.final(stream))

    # ---- all of it ----

    def forward(
        self,
        ids: Int[Tensor, "prompt position"],
        *,
        tap: Tap | None = None,
        fused: bool | None = None,
        within: Collection[str] = (),
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "prompt position d_model"]:
        """The residual stream after the last block (or before block ``stop_at_layer``).

        Args:
            ids: token ids, padded on the right.
            tap: sees and may change every activation of each layer, as in ``block``.
            fused: compute in one step what can be: attention, in which ``scores`` and ``pattern`` are then not seen,
                and the activation, before which ``mlp_pre`` is. None is where there is no ``tap``.
            within: sites that ``tap`` has to be shown all the same.
            stop_at_layer: stop before this block.
        """
        length = ids.shape[1]
        positions = torch.arange(length, device=ids.device)
        causal = positions[:, None] >= positions[None, :]
        within = within if (tap is None if fused is None else fused) else (*TAPS, *within)
        stream = self.embed(ids)
        for layer in range(len(self.layers[:stop_at_layer])):
            stream = self.block(layer, stream, positions, length, causal, see=tap, within=within)
        return stream

    def block(
        self,
        layer: int,
        stream: Float[Tensor, "row token d_model"],
        positions: Int[Tensor, "... token"],
        length: int,
        seen: Tensor | None,
        *,
        see: Tap | None = None,
        within: Collection[str] = (),
        before: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "row token d_model"]:
        """The residual stream after a layer, from that before it, of some of the tokens.

        Args:
            layer: which.
            stream: of these tokens.
            positions: where they stand.
            length: tokens of the longest prompt, which rotary angles may depend on.
            seen: who sees whom [..., token, src]; None where every token sees every source.
            see: sees and may change the activations ``TAPS`` in that order, shapes as in ``interp.sites``; ``scores``
                are masked. Changing ``resid_mid`` changes the skip connection too.
            within: sites that ``see`` has to be shown although steps are slower where they are.
            before: keys (rotated) and values of the tokens before, which these tokens attend to: of each row, or of
                one row that all rows begin with.
        """
        see = see or _as_it_is
        stream = see("resid_pre", layer, stream)
        q, k, v = self.projected(layer, stream, positions, length, see)
        if WITHIN_ATTENTION.isdisjoint(within):
            if before is not None:
                k, v = (
                    torch.cat((old.expand(len(own), -1, -1, -1), own), dim=1)
                    for old, own in zip(before, (k, v), strict=True)
                )
            z = self.attend(q, k, v, seen)
        else:
            # Keys and values that all rows share are not repeated for each row, which would be most of the time.
            parts = [(k, v)] if before is None else [before, (k, v)]
            scores = torch.cat([self.scores(q, keys) for keys, _ in parts], dim=-1)
            scores = see("scores", layer, scores if seen is None else scores.masked_fill(~seen, -torch.inf))
            pattern = see("pattern", layer, scores.softmax(dim=-1))
            weights = torch.split(pattern, [keys.shape[1] for keys, _ in parts], dim=-1)
            mixed = [self.mix(weight, values) for weight, (_, values) in zip(weights, parts, strict=True)]
            z = mixed[0] if len(mixed) == 1 else mixed[0] + mixed[1]
        return self.after_attention(layer, stream, z, see, within)

    def projected(
        self,
        layer: int,
        resid_pre: Float[Tensor, "... d_model"],
        positions: Int[Tensor, "..."],
        length: int,
        see: Tap,
    ) -> tuple[
        Float[Tensor, "... head d_head"], Float[Tensor, "... kv_head d_head"], Float[Tensor, "... kv_head d_head"]
    ]:
        """Rotated queries and keys, and values; ``see`` is shown each, the first two before and after rotation."""
        block = self.layers[layer]
        x = block.ln1(resid_pre)
        q = see("q", layer, self.heads(block.q(x)))
        k = see("k", layer, self.heads(block.k(x)))
        v = see("v", layer, self.heads(block.v(x)))
        q = see("rot_q", layer, self.rotate(q, positions, length))
        return q, see("rot_k", layer, self.rotate(k, positions, length)), v

    def after_attention(
        self,
        layer: int,
        resid_pre: Float[Tensor, "... d_model"],
        z: Float[Tensor, "... head d_head"],
        see: Tap,
        within: Collection[str] = (),
    ) -> Float[Tensor, "... d_model"]:
        """``resid_post`` from ``resid_pre`` and ``z``; ``see`` is shown ``z`` and what comes after it."""
        z = see("z", layer, z)
        if "result" in within:
            see("result", layer, self.results(layer, z))
        stream = resid_pre + see("attn_out", layer, self.layers[layer].o(z.flatten(-2)))
        stream = see("resid_mid", layer, stream)
        if self.layers[layer].has_mlp:
            stream = stream + self.mlp(layer, stream, see, within)
        return see("resid_post", layer, stream)

    def results(self, layer: int, z: Float[Tensor, "... head d_head"]) -> Float[Tensor, "... head d_model"]:
        """What each head writes."""
        weight = self.layers[layer].o.weight.reshape(self.n_heads, self.d_head, -1)
        return torch.einsum("...hx,hxd->...hd", z.to(weight.dtype), weight).to(z.dtype)

    def mlp(
        self, layer: int, resid_mid: Float[Tensor, "... d_model"], see: Tap, within: Collection[str] = ()
    ) -> Float[Tensor, "... d_model"]:
        """``mlp_out`` from ``resid_mid``; ``see`` is shown what is computed on the way."""
        post = self.neurons(layer, resid_mid, None if WITHIN_MLP.isdisjoint(within) else see)
        post = see("mlp_post", layer, post)
        return see("mlp_out", layer, self.layers[layer].mlp_out(post))

    # ---- counting ----

    def flop_per_token(self) -> dict[str, float]:
        """Floating-point operations per token of each matrix product of a block (two per weight)."""
        count = {name: 2.0 * matrix.weight.numel() for name, matrix in self.layers[0].matrices.items()}
        count["mlp_in"] += count.pop("gate", 0.0)
        return count


def _as_it_is(site: str, layer: int, value: Tensor) -> Tensor:
    return value


def _repeated(x: Float[Tensor, "row src kv_head d_head"], n_heads: int) -> Float[Tensor, "row src head d_head"]:
    group = n_heads // x.shape[2]
    return x if group == 1 else x.repeat_interleave(group, dim=2)
