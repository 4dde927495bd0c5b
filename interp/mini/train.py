"""Train `mini` from a seed: `python -m interp.mini.train --out DIR`."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from interp.mini.batches import Batch, Mixture, RowMaker

D_HEAD = 32
LOGIT_BLOCK = 256


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the machine's arithmetic."""

    seed: int = 0
    total_tokens: int = 30_000_000
    n_ctx: int = 128
    n_layers: int = 4
    d_model: int = 128
    batch_tokens: int = 4096
    chunk_rows: int = 2048
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.01
    decay_from: float = 0.6
    drill: tuple[float, float] = (0.5, 0.1)
    wild: tuple[float, float] = (0.6, 0.2)
    anneal: tuple[float, float] = (0.2, 0.7)
    context_weight: float = 0.25
    muon: bool = True
    init: float = 0.02
    qk: float = 0.0
    vo: float = 0.7
    lookback: float = 0.0
    embed_lr: float = 2e-3
    pos: float = 0.7
    emb: float = 0.5
    final_gain: float = 0.15
    pos_lr: float = 0.3

    def mixture(self, progress: float) -> Mixture:
        """Drills and wild words give way to plain documents as training goes on."""
        start, end = self.anneal
        gone = min(1.0, max(0.0, (progress - start) / (end - start)))
        return Mixture(
            drill=self.drill[0] + gone * (self.drill[1] - self.drill[0]),
            wild=self.wild[0] + gone * (self.wild[1] - self.wild[0]),
            context_weight=self.context_weight,
        )

    def lr_factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        if progress > self.decay_from:
            return max(0.0, (1 - progress) / (1 - self.decay_from))
        return 1.0


def sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "position d_model"]:
    """Sines and cosines of evenly spaced frequencies, as a start for the learned position table."""
    rate = torch.linspace(0.02, 2.6, d_model // 2)
    angle = torch.arange(n_ctx)[:, None] * rate
    table = torch.zeros(n_ctx, d_model)
    table[:, 0::2], table[:, 1::2] = torch.sin(angle), torch.cos(angle)
    return table


def mimetic(model: GPT2LMHeadModel, recipe: Recipe) -> None:
    d, nh = recipe.d_model, recipe.d_model // D_HEAD
    perm = torch.randperm(d // 2)
    rate = torch.linspace(0.02, 2.6, d // 2)
    with torch.no_grad():
        for l, block in enumerate(model.transformer.h):
            w = block.attn.c_attn.weight  # [d, 3d]
            wo = block.attn.c_proj.weight  # [d, d]
            v, _ = torch.linalg.qr(torch.randn(d, d))
            w[:, 2 * d :] = recipe.vo * v
            wo.copy_(recipe.vo * v.T)
            for h in range(nh):
                cols = slice(h * D_HEAD, (h + 1) * D_HEAD)
                if l == 0 and recipe.lookback:
                    q = torch.zeros(d, D_HEAD); k = torch.zeros(d, D_HEAD)
                    for j, i in enumerate(perm[h * D_HEAD // 2 : (h + 1) * D_HEAD // 2].tolist()):
                        c, s_ = math.cos((h + 1) * rate[i]), math.sin((h + 1) * rate[i])
                        k[2 * i, 2 * j] = 1; k[2 * i + 1, 2 * j + 1] = 1
                        q[2 * i, 2 * j] = c; q[2 * i + 1, 2 * j] = -s_
                        q[2 * i + 1, 2 * j + 1] = c; q[2 * i, 2 * j + 1] = s_
                    w[:, cols] = recipe.lookback * q
                    w[:, d + h * D_HEAD : d + (h + 1) * D_HEAD] = recipe.lookback * k
                else:
                    m = torch.randn(d, D_HEAD) * recipe.qk
                    w[:, cols] = m
                    w[:, d + h * D_HEAD : d + (h + 1) * D_HEAD] = m


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=recipe.n_ctx,
        n_embd=recipe.d_model,
        n_layer=recipe.n_layers,
        n_head=recipe.d_model // D_HEAD,
        # The same function as gelu_new in one fused kernel; the saved config says gelu_new.
        initializer_range=recipe.init,
        activation_function="gelu_pytorch_tanh",
        attn_implementation="eager",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
    )
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(recipe.pos * sinusoids(recipe.n_ctx, recipe.d_model))
        model.transformer.wte.weight.normal_(0, recipe.emb)
        model.transformer.ln_f.weight.fill_(recipe.final_gain)
    if recipe.qk:
        mimetic(model, recipe)
    return model


def loss_of(model: GPT2LMHeadModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
    ids, weights = batch
    weights = weights[:, 1:]
    # A token of weight w < 1 is kept with probability w: the same gradient on average, fewer logits to compute.
    kept = (torch.rand(weights.shape, generator=generator) < weights).flatten().nonzero()[:, 0]
    targets = ids[:, 1:].flatten()[kept]
    # Whole blocks of logits, because the CPU kernels are prepared anew for every shape.
    extra = -len(kept) % LOGIT_BLOCK
    kept, targets = F.pad(kept, (0, extra)), F.pad(targets, (0, extra), value=-100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.transformer(ids).last_hidden_state[:, :-1].flatten(0, 1)
        logits = model.lm_head(hidden[kept])
    return F.cross_entropy(logits.float(), targets, ignore_index=-100)


def optimizers(model: GPT2LMHeadModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, biases and LayerNorms."""
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    rest = [p for n, p in model.named_parameters() if not (".h." in n and p.ndim == 2)]
    if not recipe.muon:
        return [torch.optim.AdamW(matrices + rest, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True)]
    return [
        torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": [p for p in rest if p is not model.transformer.wpe.weight]}, {"params": [model.transformer.wpe.weight], "lr": recipe.embed_lr * recipe.pos_lr}], lr=recipe.embed_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
