"""Weights set by hand: heads and MLPs written in named features of the stream, and the model that runs them.

The stream has one direction for each feature: token identities, positions, and slots that heads write into. Each
direction is a pair of coordinates (a, -a), so that the mean of a stream is 0. One feature, the anchor, is large and the
same at every token. So the norm divides by nearly the same number everywhere, and its weight undoes that: what a head
reads is the stream itself, to within some thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model import HookedTransformer

ANCHOR = 32.0
"""Size of the anchor; the other features of a stream have sizes near 1."""
SHARP = 16.0
"""A difference of scores that leaves the others less than a millionth of the attention."""
LOGITS = 8.0
"""Logit of an answer that is written once."""
ANCHORED = 0
"""The feature that is the anchor."""
TURNING = (0, 1)
"""The planes of a rotary head that turn fast enough to tell tokens apart; by them alone it looks back."""
STILL = 4
"""From this plane on a rotary head turns by less than a hundredth over a prompt: there it seeks features."""
ROTARY_BASE = 1e10
"""Base of the rotary angles."""
TURN = 36.0
"""Score in each turning plane of the token that is looked back at: its neighbours have a score lower by ``SHARP``."""
NOISE = 0.04
"""Standard deviation of the weights of what is idle."""


@dataclass(frozen=True)
class Slots:
    """Named groups of features, in order.

    Attributes:
        sizes: group -> how many features it has.
    """

    sizes: Mapping[str, int]

    def __getitem__(self, name: str) -> list[int]:
        """The features of a group."""
        start = 0
        for group, size in self.sizes.items():
            if group == name:
                return list(range(start, start + size))
            start += size
        raise KeyError(name)

    @property
    def width(self) -> int:
        """How many features there are."""
        return sum(self.sizes.values())

    def basis(self) -> Float[Tensor, "feature d_model"]:
        """The direction of each feature: unit vectors at right angles, each with mean 0."""
        pairs = torch.zeros(self.width, 2 * self.width)
        rows = torch.arange(self.width)
        pairs[rows, 2 * rows], pairs[rows, 2 * rows + 1] = 0.5**0.5, -(0.5**0.5)
        return pairs


class Head:
    """One head in features: what it seeks, and what it moves. All start at zero.

    Attributes:
        back: so many tokens back it looks by the rotation of queries and keys alone; None is where it does not.
    """

    def __init__(self, width: int, d_head: int) -> None:
        self.q, self.k, self.v = (torch.zeros(width, d_head) for _ in range(3))
        self.q_bias = torch.zeros(d_head)
        self.o = torch.zeros(d_head, width)
        self.back: int | None = None
        self._sought = self._moved = 0

    def seek(self, asking: Sequence[int], offered: Sequence[int], score: float = SHARP) -> Head:
        """Add ``score`` where the asking token has a feature and the offered one the feature that goes with it."""
        for ask, offer in zip(asking, offered, strict=True):
            self.q[ask, self._sought] = score
            self.k[offer, self._sought] = 1.0
            self._sought += 1
        return self

    def prefer(
        self, offered: Sequence[int], score: float = SHARP, *, when: int | None = None, unless: int | None = None
    ) -> Head:
        """Add ``score`` for every offered feature: whoever asks, or where the asker has one and lacks another."""
        if when is None:
            self.q_bias[self._sought] = score
        else:
            self.q[when, self._sought] = score
        if unless is not None:
            self.q[unless, self._sought] = -score
        self.k[list(offered), self._sought] = 1.0
        self._sought += 1
        return self

    def look_back(self, by: int) -> Head:
        """Attend to the token ``by`` places back; of rotary models, which have no features of positions to seek."""
        self.back = by
        return self

    def move(self, source: Sequence[int], target: Sequence[int], size: float = 1.0) -> Head:
        """Write each source feature that is attended to as the target feature that goes with it."""
        for here, there in zip(source, target, strict=True):
            self.v[here, self._moved] = 1.0
            self.o[self._moved, there] = size
            self._moved += 1
        return self

    def gather(self, source: Sequence[int], target: int, size: float = 1.0) -> Head:
        """Write how much there is of all source features together as one target feature."""
        self.v[list(source), self._moved] = 1.0
        self.o[self._moved, target] = size
        self._moved += 1
        return self

    def noise(self, generator: torch.Generator, size: float = NOISE, *, seeks: bool = True) -> Head:
        """Fill what it moves, and what it seeks, with small random numbers."""
        for weight in (self.q, self.k, self.v, self.o) if seeks else (self.v, self.o):
            weight += _noise(weight.shape, generator, size)
        # Of the anchor nothing is read: it would make every noise a large constant.
        for weight in (self.q, self.k, self.v):
            weight[ANCHORED] = 0
        return self


@dataclass(frozen=True)
class Mlp:
    """An MLP in features: ``relu(x @ read + bias) @ write``."""

    read: Float[Tensor, "feature neuron"]
    bias: Float[Tensor, " neuron"]
    write: Float[Tensor, "neuron feature"]

    @classmethod
    def converting(cls, width: int, d_mlp: int, source: Sequence[int], target: Sequence[int]) -> Mlp:
        """Write each source feature of size 1 as the target feature that goes with it; below one half, nothing."""
        read, bias, write = torch.zeros(width, d_mlp), torch.zeros(d_mlp), torch.zeros(d_mlp, width)
        for neuron, (here, there) in enumerate(zip(source, target, strict=True)):
            read[here, neuron], bias[neuron], write[neuron, there] = 2.0, -1.0, 1.0
        return cls(read, bias, write)

    @classmethod
    def idle(cls, width: int, d_mlp: int, generator: torch.Generator) -> Mlp:
        """Small random numbers."""
        read, write = (_noise(shape, generator, NOISE) for shape in ((width, d_mlp), (d_mlp, width)))
        read[ANCHORED] = 0
        return cls(read, torch.zeros(d_mlp), write)


def _noise(shape: Sequence[int], generator: torch.Generator, size: float) -> Tensor:
    return size * torch.randn(tuple(shape), generator=generator)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model: ``n_kv_heads`` below ``n_heads`` is grouped-query attention."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    vocab: int


@torch.no_grad()
def assemble_rotary(
    name: str,
    sizes: Sizes,
    slots: Slots,
    *,
    token: Float[Tensor, "token feature"],
    unembed: Float[Tensor, "feature token"],
    heads: Mapping[tuple[int, int], Head],
    generator: torch.Generator,
) -> HookedTransformer:
    """A Llama of these heads, as Hugging Face runs it: RMSNorm, rotary positions, no biases, gated MLPs of noise.

    What a head adds to its query as a bias it reads from the anchor, which is the same at every token.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import LlamaConfig, LlamaForCausalLM

    basis = slots.basis()
    # A Llama is as wide as a multiple of its heads; what is added stays 0.
    basis = torch.nn.functional.pad(basis, (0, -basis.shape[1] % sizes.n_heads))
    width, d_model = basis.shape
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes.vocab, hidden_size=d_model, intermediate_size=sizes.d_mlp,
            num_hidden_layers=sizes.n_layers, num_attention_heads=sizes.n_heads,
            num_key_value_heads=sizes.n_kv_heads, head_dim=sizes.d_head, max_position_embeddings=sizes.n_ctx,
            rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE}, tie_word_embeddings=False,
        )
    )  # fmt: skip
    weights = dict(model.named_parameters())
    for key, weight in weights.items():
        weight.fill_(ANCHOR / d_model**0.5 if key.endswith("norm.weight") else 0.0)
    anchored = token.clone()
    anchored[:, ANCHORED] = ANCHOR
    weights["model.embed_tokens.weight"].copy_(anchored @ basis)
    weights["lm_head.weight"].copy_((basis.T @ unembed).T)
    for (layer, head), drawn in heads.items():
        attn = f"model.layers.{layer}.self_attn"
        mine = slice(head * sizes.d_head, (head + 1) * sizes.d_head)
        q, k = _turned(drawn, sizes.d_head)
        weights[f"{attn}.q_proj.weight"][mine] = sizes.d_head**0.5 * (basis.T @ q).T
        weights[f"{attn}.k_proj.weight"][mine] = (basis.T @ k).T
        weights[f"{attn}.v_proj.weight"][mine] = (basis.T @ drawn.v).T
        weights[f"{attn}.o_proj.weight"][:, mine] = (drawn.o @ basis).T
    for layer in range(sizes.n_layers):
        for part, shape in (
            ("gate", (width, sizes.d_mlp)),
            ("up", (width, sizes.d_mlp)),
            ("down", (sizes.d_mlp, width)),
        ):
            drawn_at_random = _noise(shape, generator, NOISE)
            weight = weights[f"model.layers.{layer}.mlp.{part}_proj.weight"]
            if part == "down":
                weight.copy_((drawn_at_random @ basis).T)
            else:
                drawn_at_random[ANCHORED] = 0
                weight.copy_((basis.T @ drawn_at_random).T)
    bridge = build_bridge_from_module(model, "LlamaForCausalLM", hf_config=model.config, model_name=name)
    bridge.eval()
    return HookedTransformer.from_bridge(bridge, name=f"ground truth: {name}")


def _turned(drawn: Head, d_head: int) -> tuple[Float[Tensor, "feature d_head"], Float[Tensor, "feature d_head"]]:
    """What a rotary head reads as query and key: plane p is coordinates p and p + d_head / 2 (Su et al. 2021)."""
    half = d_head // 2
    still = [*range(STILL, half), *range(half + STILL, d_head)]
    q, k = torch.zeros(2, len(drawn.q), d_head)
    q[:, still], k[:, still] = drawn.q[:, : len(still)], drawn.k[:, : len(still)]
    q[ANCHORED, still] += drawn.q_bias[: len(still)] / ANCHOR
    if drawn.back is not None:
        for plane in TURNING:
            angle = torch.tensor(-drawn.back * ROTARY_BASE ** (-plane / half))
            q[ANCHORED, plane], q[ANCHORED, half + plane] = TURN * angle.cos() / ANCHOR, TURN * angle.sin() / ANCHOR
            k[ANCHORED, plane] = 1 / ANCHOR
    return q, k


@torch.no_grad()
def assemble(
    name: str,
    sizes: Sizes,
    slots: Slots,
    *,
    token: Float[Tensor, "token feature"],
    position: Float[Tensor, "position feature"],
    unembed: Float[Tensor, "feature token"],
    heads: Mapping[tuple[int, int], Head],
    mlps: Mapping[int, Mlp],
) -> HookedTransformer:
    """The model of these parts; with no MLPs it is one of attention alone.

    Heads that share a key-value head must seek by the same keys and move the same values; those of the first of them
    are used.
    """
    from transformer_lens.model_bridge.sources import boot_native

    basis = slots.basis()
    config: dict[str, Any] = {
        "n_layers": sizes.n_layers, "d_model": basis.shape[1], "n_ctx": sizes.n_ctx, "d_head": sizes.d_head,
        "n_heads": sizes.n_heads, "n_key_value_heads": sizes.n_kv_heads, "d_vocab": sizes.vocab, "d_mlp": sizes.d_mlp,
        "attn_only": not mlps, "act_fn": "relu", "normalization_type": "LN",
    }  # fmt: skip
    bridge = boot_native(config, model_name=name)
    weights = {
        key.replace("._original_component", ""): value for key, value in bridge.original_model.named_parameters()
    }
    for weight in weights.values():
        weight.zero_()
    norm = ANCHOR / basis.shape[1] ** 0.5
    for key, weight in weights.items():
        if key.endswith(("ln1.weight", "ln2.weight", "ln_out.weight")):
            weight.fill_(norm)
    anchored = token.clone()
    anchored[:, ANCHORED] = ANCHOR
    weights["tok_embed.weight"].copy_(anchored @ basis)
    weights["pos.weight"].copy_(position @ basis)
    weights["head.weight"].copy_((basis.T @ unembed).T)
    shared = sizes.n_heads // sizes.n_kv_heads
    for (layer, head), drawn in heads.items():
        attn = f"layers.{layer}.attn"
        mine = slice(head * sizes.d_head, (head + 1) * sizes.d_head)
        scale = sizes.d_head**0.5  # which the scores are divided by
        weights[f"{attn}.q.weight"][mine] = scale * (basis.T @ drawn.q).T
        weights[f"{attn}.q.bias"][mine] = scale * drawn.q_bias
        weights[f"{attn}.o.weight"][:, mine] = (drawn.o @ basis).T
        if head % shared == 0:
            group = slice(head // shared * sizes.d_head, (head // shared + 1) * sizes.d_head)
            weights[f"{attn}.k.weight"][group] = (basis.T @ drawn.k).T
            weights[f"{attn}.v.weight"][group] = (basis.T @ drawn.v).T
    for layer, mlp in mlps.items():
        weights[f"layers.{layer}.mlp.fc_in.weight"].copy_((basis.T @ mlp.read).T)
        weights[f"layers.{layer}.mlp.fc_in.bias"].copy_(mlp.bias)
        weights[f"layers.{layer}.mlp.fc_out.weight"].copy_((mlp.write @ basis).T)
    return HookedTransformer.from_bridge(bridge, name=f"ground truth: {name}")
