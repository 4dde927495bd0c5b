"""What is measured: the models, the prompts and the cells of each job.

Weights are random and saved to a temporary directory, so nothing is downloaded and everyone loads the same file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from interp import HookedTransformer, PromptPairs
from interp.mini import WEIGHTS

Cell: TypeAlias = tuple[str, int, int]
"""Site, layer, and position or head."""
Edge: TypeAlias = tuple[str, str]
"""Sender and receiver, ``("L3H2", "L5H3.q")``."""

AT_POSITIONS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
AT_HEADS = ("z", "q", "k", "v", "pattern")
SITES = (*AT_POSITIONS, *AT_HEADS)

SMALL = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}
"""The shape of GPT-2 small; its MLP has 4 * 768 = 3072 neurons."""
LARGE = {"n_layer": 48, "n_head": 25, "n_embd": 1600, "n_positions": 1024, "vocab_size": 50257}
"""The shape of GPT-2 XL."""
GROWTH = {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": 128, "vocab_size": 512}
"""The smallest shape of the growth tables."""

DIFFERS_AT = 5
"""The one position at which clean and corrupted prompts differ, so that most tokens before it need no work."""


@dataclass(frozen=True)
class Workload:
    """One model with one set of prompt pairs.

    Attributes:
        name: of the shape.
        directory: Hugging Face directory of the weights.
        model: the model as interp loads it; its ``bridge`` is what TransformerLens is measured on.
        pairs: the prompts.
        clean: [prompt, position] ids.
        corrupted: [prompt, position] ids.
        correct: [prompt] ids of the right answers.
        incorrect: [prompt] ids of the wrong answers.
    """

    name: str
    directory: Path
    model: HookedTransformer
    pairs: PromptPairs
    clean: Tensor
    corrupted: Tensor
    correct: Tensor
    incorrect: Tensor

    def cells(self, site: str, layers: tuple[int, ...]) -> list[Cell]:
        """Every cell of a site: layer x position, or layer x head with all positions at once."""
        size = self.clean.shape[1] if site in AT_POSITIONS else self.model.cfg.n_heads
        return [(site, layer, index) for layer in layers for index in range(size)]

    def mean_difference(self, logits: Tensor) -> Tensor:
        """Mean logit difference at the last position of [prompt, position, vocab] logits."""
        last = logits[:, -1]
        rows = torch.arange(last.shape[0], device=last.device)
        return (last[rows, self.correct] - last[rows, self.incorrect]).mean()


def save_random(directory: Path, shape: dict[str, int], *, seed: int = 0, device: str = "cpu") -> Path:
    """A GPT-2 of some shape with random weights, drawn on a device, as a Hugging Face directory."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    with torch.device(device):
        model = GPT2LMHeadModel(config)
    model.save_pretrained(directory)
    return directory


def random_ids(vocab: int, n_prompts: int, length: int, *, seed: int = 0) -> np.ndarray:
    """Random token ids [prompt, position]."""
    return np.random.default_rng(seed).integers(0, vocab, (n_prompts, length))


def workload(
    name: str, directory: Path, *, n_prompts: int = 8, length: int = 16, seed: int = 0, device: str = "auto"
) -> Workload:
    """Load a model and make its prompts."""
    model = HookedTransformer.from_pretrained("mini" if directory == WEIGHTS else directory, device=device)
    vocab = model.cfg.vocab
    rng = np.random.default_rng(seed)
    clean = random_ids(vocab, n_prompts, length, seed=seed)
    corrupted = clean.copy()
    corrupted[:, DIFFERS_AT] = _another(clean[:, DIFFERS_AT], vocab, rng)
    correct = rng.integers(0, vocab, n_prompts)
    incorrect = _another(correct, vocab, rng)
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=correct, incorrect=incorrect, roles={"color": DIFFERS_AT})
    return Workload(
        name,
        directory,
        model,
        pairs,
        *(torch.from_numpy(a).to(model.device) for a in (clean, corrupted, correct, incorrect)),
    )


def _another(ids: np.ndarray, vocab: int, rng: np.random.Generator) -> np.ndarray:
    """Random ids, each different from the one given."""
    return (ids + rng.integers(1, vocab, ids.shape)) % vocab


def drawn_heads(n_layers: int, n_heads: int, per_layer: int | None, *, seed: int = 0) -> list[str]:
    """Heads that send: ``per_layer`` of every layer, drawn at random; None is all of them."""
    rng = np.random.default_rng(seed)
    chosen = n_heads if per_layer is None else min(per_layer, n_heads)
    return [f"L{layer}H{h}" for layer in range(n_layers) for h in sorted(rng.permutation(n_heads)[:chosen].tolist())]


def head_edges(senders: list[str], n_layers: int, n_heads: int) -> list[Edge]:
    """Every edge from these heads into the query, key or value of a head in a later layer."""
    return [
        (sender, f"L{layer}H{head}.{part}")
        for sender in senders
        for part in "qkv"
        for layer in range(parse_head(sender)[0] + 1, n_layers)
        for head in range(n_heads)
    ]


def parse_head(label: str) -> tuple[int, int]:
    """Layer and head of a label.

    >>> parse_head("L5H3")
    (5, 3)
    """
    layer, head = label.removeprefix("L").split("H")
    return int(layer), int(head)
