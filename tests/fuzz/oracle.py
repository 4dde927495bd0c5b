"""The other side of the differential tests: Hugging Face in float64 with hooks; each row is one changed run.

Nothing of interp or TransformerLens is used. Attention is written here, so that its scores and weights can be changed;
so are RMS norms and rotary angles, which Hugging Face computes in float32 whatever the model's dtype.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

Place: TypeAlias = tuple[str, int]
Edit: TypeAlias = Callable[[Tensor], None]
"""Changes an activation in place: [position, ...], or [head, destination, source] for pattern and scores."""


@dataclass(frozen=True)
class Layout:
    """Where a family keeps its parts; names are relative to a block, but for the first two."""

    blocks: str
    final: str
    norms: tuple[str, str]
    qkv: tuple[str, ...]
    attention: str
    out: str
    mlp: str
    up: str
    down: str


_ROTARY = Layout(
    "model.layers", "model.norm", ("input_layernorm", "post_attention_layernorm"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn", "self_attn.o_proj", "mlp",
    "mlp.gate_proj", "mlp.down_proj",
)  # fmt: skip
LAYOUTS = {
    "gpt2": Layout(
        "transformer.h", "transformer.ln_f", ("ln_1", "ln_2"), ("attn.c_attn",), "attn", "attn.c_proj", "mlp",
        "mlp.c_fc", "mlp.c_proj",
    ),
    "llama": _ROTARY,
    "mistral": _ROTARY,
    "qwen2": _ROTARY,
    "gpt_neox": Layout(
        "gpt_neox.layers", "gpt_neox.final_layer_norm", ("input_layernorm", "post_attention_layernorm"),
        ("attention.query_key_value",), "attention", "attention.dense", "mlp",
        "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
    ),
    "opt": Layout(
        "model.decoder.layers", "model.decoder.final_layer_norm", ("self_attn_layer_norm", "final_layer_norm"),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn", "self_attn.out_proj", "",
        "fc1", "fc2",
    ),
}  # fmt: skip


@dataclass
class _Run:
    """What each row of a forward pass changes, and what all keep: [row, ...] per place."""

    edits: Sequence[Mapping[Place, Edit]]
    kept: dict[Place, Tensor] = field(default_factory=dict)

    def visit(self, place: Place, activation: Tensor) -> None:
        """Keep an activation [row, ...] as it is after the rows' changes."""
        for row, edits in enumerate(self.edits):
            if place in edits:
                edits[place](activation[row])
        self.kept[place] = activation.clone()

    def changes(self, place: Place) -> bool:
        """Whether any row changes this place."""
        return any(place in edits for edits in self.edits)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **options: Any
) -> tuple[Tensor, Tensor]:
    """Causal attention, written out; within a window of tokens where the architecture says so."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ key.transpose(-1, -2) * scaling
    behind = torch.arange(scores.shape[-1])[:, None] - torch.arange(scores.shape[-1])[None, :]
    window = options.get("sliding_window") or scores.shape[-1]
    scores = scores.masked_fill((behind < 0) | (behind >= window), -torch.inf)
    run: _Run = module.differential_run
    run.visit(("scores", module.layer_idx), scores)
    pattern = scores.softmax(dim=-1)
    run.visit(("pattern", module.layer_idx), pattern)
    return (pattern @ value).transpose(1, 2), pattern


AttentionInterface.register("written_out", _attention)
AttentionMaskInterface.register("written_out", lambda *_, **__: None)


def _rms_norm(self: nn.Module, x: Tensor) -> Tensor:
    return self.weight * x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.variance_epsilon)


def _frequencies(config: Any, d_head: int) -> Tensor:
    """Radians per token of each pair of rotated features: plain, slowed evenly, or slowed by wavelength (Llama 3)."""
    rope = config.rope_parameters
    width = int(d_head * rope.get("partial_rotary_factor", 1.0))
    plain = rope["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    if rope["rope_type"] == "default":
        return plain
    if rope["rope_type"] == "linear":
        return plain / rope["factor"]
    assert rope["rope_type"] == "llama3", rope
    # Waves that fit often into the first training's length stay, those that hardly do are slowed, between in part.
    turns = rope["original_max_position_embeddings"] * plain / (2 * torch.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / rope["factor"]


class Plain:
    """A saved model, run as Hugging Face wrote it, in float64."""

    def __init__(self, directory: Path) -> None:
        self.hf = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float64, attn_implementation="written_out"
        ).eval()
        self.layout = LAYOUTS[self.hf.config.model_type]
        for module in self.hf.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = types.MethodType(_rms_norm, module)
            if type(module).__name__.endswith("RotaryEmbedding"):
                module.forward = self._angles
        self.blocks = list(self.hf.get_submodule(self.layout.blocks))
        config = self.hf.config
        self.n_heads = config.num_attention_heads
        self.d_head = getattr(config, "head_dim", None) or config.hidden_size // self.n_heads

    def _angles(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, position, rotated feature]."""
        angles = position_ids.double().unsqueeze(-1) * _frequencies(self.hf.config, self.d_head)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    def part(self, layer: int, name: str) -> nn.Module:
        """A part of a block."""
        return self.blocks[layer].get_submodule(name)

    @torch.no_grad()
    def run(self, ids: Sequence[int], edits: Sequence[Mapping[Place, Edit]]) -> Tensor:
        """Logits [row, position, vocab] of one prompt, each row with its own changes."""
        return self._forward(ids, _Run(edits))

    @torch.no_grad()
    def read(self, ids: Sequence[int], edits: Sequence[Mapping[Place, Edit]], place: Place) -> Tensor:
        """An activation [row, position, ...] of one prompt after each row's own changes."""
        run = _Run(edits)
        self._forward(ids, run)
        return run.kept[place]

    @torch.no_grad()
    def activations(self, ids: Sequence[int]) -> dict[Place, Tensor]:
        """Every activation of a prompt as it is, [position, ...] or [head, destination, source]."""
        run = _Run([{}])
        self._forward(ids, run)
        return {place: kept[0] for place, kept in run.kept.items()}

    def _forward(self, ids: Sequence[int], run: _Run) -> Tensor:
        handles = [handle for layer in range(len(self.blocks)) for handle in self._hooks(run, layer)]
        try:
            logits = self.hf(torch.tensor([list(ids)] * len(run.edits)), use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        never = {place for edits in run.edits for place in edits} - set(run.kept)
        assert not never, f"no such place: {never}"
        return logits

    def _hooks(self, run: _Run, layer: int) -> list[Any]:
        block, layout = self.blocks[layer], self.layout
        self.part(layer, layout.attention).differential_run = run

        def block_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            stream = (args[0] if args else kwargs["hidden_states"]).clone()
            run.visit(("resid_pre", layer), stream)
            return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

        def block_output(_: nn.Module, __: Any, output: Any) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            run.visit(("resid_post", layer), stream)
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        def attn_out(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            out, before = output.clone(), run.kept["resid_pre", layer]
            run.visit(("attn_out", layer), out)
            mid = out + before
            run.visit(("resid_mid", layer), mid)
            return mid - before if run.changes(("resid_mid", layer)) else out

        def z(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            flat = args[0].clone()
            run.visit(("z", layer), flat.view(*flat.shape[:2], self.n_heads, -1))
            return (flat,)

        def neurons(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            flat = args[0].clone()
            run.visit(("mlp_post", layer), flat.view(len(run.edits), -1, flat.shape[-1]))
            return (flat,)

        def before_activation(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            out = output.clone()
            run.visit(("mlp_pre", layer), out.view(len(run.edits), -1, out.shape[-1]))
            return out

        def mlp_out(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            out = output.clone()
            run.visit(("mlp_out", layer), out.view(len(run.edits), -1, out.shape[-1]))
            return out

        def projected(names: tuple[str, ...]) -> Callable[..., Tensor]:
            def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
                out = output.clone()
                for name, view in zip(names, self.heads(out, len(names)), strict=True):
                    run.visit((name, layer), view)
                return out

            return hook

        down, out = self.part(layer, layout.down), self.part(layer, layout.out)
        names = [("q", "k", "v")] if len(layout.qkv) == 1 else [("q",), ("k",), ("v",)]
        return [
            block.register_forward_pre_hook(block_input, with_kwargs=True),
            block.register_forward_hook(block_output),
            *(
                self.part(layer, module).register_forward_hook(projected(held))
                for module, held in zip(layout.qkv, names, strict=True)
            ),
            out.register_forward_pre_hook(z),
            out.register_forward_hook(attn_out),
            self.part(layer, layout.up).register_forward_hook(before_activation),
            down.register_forward_pre_hook(neurons),
            down.register_forward_hook(mlp_out),
        ]

    def heads(self, projection: Tensor, n: int) -> list[Tensor]:
        """Views [row, position, head, d_head] of what a projection made: one of them, or q, k and v together."""
        rows, length, _ = projection.shape
        if n == 1:
            return [projection.view(rows, length, -1, self.d_head)]
        if self.hf.config.model_type == "gpt_neox":  # each head's q, k and v lie side by side
            return list(projection.view(rows, length, self.n_heads, 3, self.d_head).unbind(dim=3))
        return list(projection.view(rows, length, 3, self.n_heads, self.d_head).unbind(dim=2))

    # ---- paths ----

    def written(self, sender: str, kept: Mapping[Place, Tensor]) -> Tensor:
        """What a sender adds to the stream, [position, d_model] (up to the attention's bias, which runs share)."""
        if sender == "embed":
            return kept["resid_pre", 0]
        layer, head = _numbers(sender)
        if sender.startswith("MLP"):
            return kept["mlp_out", layer]
        out = self.part(layer, self.layout.out)
        weight = out.weight if self.hf.config.model_type == "gpt2" else out.weight.T  # [head x d_head, d_model]
        return kept["z", layer][:, head] @ weight[head * self.d_head : (head + 1) * self.d_head]

    @torch.no_grad()
    def path(self, kept: Mapping[Place, Tensor], change: Tensor, receiver: str) -> dict[Place, Edit]:
        """The change of a run by which one receiver reads its stream with ``change`` added before its norm.

        Args:
            kept: activations of the run.
            change: [position, d_model].
            receiver: ``logits``, ``MLP1``, ``L1H0.q``, ``L1KV0.k``.
        """
        if receiver == "logits":
            return {("resid_post", len(self.blocks) - 1): lambda stream: stream.add_(change)}
        layer, head = _numbers(receiver)
        first, second = (self.part(layer, name) for name in self.layout.norms)
        if receiver.startswith("MLP"):
            made = self.part(layer, self.layout.mlp)(second(kept["resid_mid", layer] + change).unsqueeze(0))[0]
            return {("mlp_out", layer): lambda out: out.copy_(made)}
        which, together = "qkv".index(receiver[-1]), len(self.layout.qkv) == 1
        normed = first(kept["resid_pre", layer] + change).unsqueeze(0)
        projection = self.part(layer, self.layout.qkv[0 if together else which])(normed)
        new = self.heads(projection, 3 if together else 1)[which if together else 0][0, :, head]
        return {(receiver[-1], layer): lambda held: held[:, head].copy_(new)}


def _numbers(label: str) -> tuple[int, int]:
    """Layer and head of ``L1H0``, ``L1H0.q``, ``L1KV0.k``; layer and 0 of ``MLP1``."""
    digits = "".join(c if c.isdigit() else " " for c in label).split()
    return int(digits[0]), int(digits[1]) if len(digits) > 1 else 0
