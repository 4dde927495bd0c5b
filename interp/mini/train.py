"""Train `mini` from a seed: `python -m interp.mini.train --out DIR` writes a Hugging Face directory.

An interrupted run goes on from its last checkpoint (DIR/checkpoint.pt) when started again with the
same arguments. The directory's model files appear only when training is done.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from interp.mini.batches import Batch, Mixture, RowMaker
from interp.mini.corpus import LANGUAGES, family_names
from interp.mini.evaluate import load, score_family, table
from interp.mini.initialise import new_model
from interp.mini.tokenizer import save_tokenizer, train_tokenizer

logger = logging.getLogger(__name__)

LOGIT_BLOCK = 256
CHECKPOINT = "checkpoint.pt"
Curve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the machine's arithmetic."""

    seed: int = 0
    total_tokens: int = 20_000_000
    n_ctx: int = 128
    n_layers: int = 4
    batch_tokens: int = 2048
    chunk_rows: int = 1024
    matrix_lr: float = 1.5e-3
    other_lr: float = 1e-3
    position_lr: float = 3e-4
    weight_decay: float = 0.01
    warmup: float = 0.005
    decay_from: float = 0.6
    # Shares over training: (fractions of the run), (values), linear between.
    drill: Curve = ((0.2, 0.7), (0.3, 0.1))
    wild: Curve = ((0.2, 0.7), (0.5, 0.2))
    # Loss weight of tokens that are not answers; low at first, so that binding is not drowned.
    context_weight: Curve = ((0.5, 0.8), (0.05, 0.2))

    def mixture(self, progress: float) -> Mixture:
        """Drills and wild words give way to plain documents as training goes on."""
        curves = (self.drill, self.wild, self.context_weight)
        return Mixture(*(float(np.interp(progress, *curve)) for curve in curves))

    def lr_factor(self, progress: float) -> float:
        """Warm-up, plateau, straight line to zero."""
        if progress < self.warmup:
            return progress / self.warmup
        return min(1.0, max(0.0, (1 - progress) / (1 - self.decay_from)))


QUICK = Recipe(total_tokens=12_000, n_layers=3, batch_tokens=512, chunk_rows=96)


def loss_of(model: GPT2LMHeadModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
    """Mean next-token loss of the kept targets, in nats."""
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


def make_optimizers(model: GPT2LMHeadModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, biases and LayerNorms."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name != "transformer.wpe.weight":
            (matrices if ".h." in name and parameter.ndim == 2 else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": [model.transformer.wpe.weight], "lr": recipe.position_lr},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(groups, lr=recipe.other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


@dataclass
class Run:
    """A training run between two chunks: all that a checkpoint holds."""

    recipe: Recipe
    model: GPT2LMHeadModel
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    tokens: int = 0
    chunk: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "position": (self.tokens, self.chunk, self.seconds),
        }
        partial = path.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe."""
        content = torch.load(path, weights_only=True)
        if content["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} is a checkpoint of another recipe. Remove it or use another --out.")
        self.model.load_state_dict(content["model"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.generator.set_state(content["generator"])
        self.tokens, self.chunk, self.seconds = content["position"]


def train_chunk(run: Run, maker: RowMaker) -> float:
    """One chunk of rows, every batch once. Returns the mean loss (nats per kept target)."""
    recipe, losses = run.recipe, []
    progress = run.tokens / recipe.total_tokens
    for batch in maker.chunk(
        f"{recipe.seed}-{run.chunk}", recipe.chunk_rows, recipe.mixture(progress), recipe.batch_tokens
    ):
        factor = recipe.lr_factor(run.tokens / recipe.total_tokens)
        loss = loss_of(run.model, batch, run.generator)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        for optimizer in run.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["full_lr"]
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        run.tokens += batch[0].numel()
    if not losses:
        raise ValueError(
            f"A chunk of {recipe.chunk_rows} rows fills no batch of {recipe.batch_tokens} tokens. Use more rows."
        )
    run.chunk += 1
    return sum(losses) / len(losses)


def held_out_line(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, *, count: int) -> str:
    """Held-out accuracy now: the mean over families, and the families below 98%."""
    scores = {}
    for language in LANGUAGES:
        for family in family_names(language):
            score = score_family(model, tokenizer, language, family, count=count, seed=0, only_held_out=True)
            scores[f"{language} {family}"] = score.held_out
    low = ", ".join(f"{name} {100 * value:.0f}" for name, value in scores.items() if value < 0.98)
    return f"held-out {100 * sum(scores.values()) / len(scores):.1f}%" + (f" (below 98: {low})" if low else "")


def train(recipe: Recipe, out: Path, *, checkpoint_every: int = 20, report_every: int = 500_000) -> None:
    """Train to the end and write model and tokenizer to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed=recipe.seed, n_ctx=recipe.n_ctx)
    model = new_model(
        vocab=len(tokenizer),
        n_ctx=recipe.n_ctx,
        n_layers=recipe.n_layers,
        end_id=int(tokenizer.bos_token_id),
        seed=recipe.seed,
    )
    model.train()
    generator = torch.Generator().manual_seed(recipe.seed)
    run = Run(recipe, model, make_optimizers(model, recipe), generator)
    path = out / CHECKPOINT
    if path.exists():
        run.restore(path)
        logger.info("resuming at %.1fM tokens", run.tokens / 1e6)
    maker = RowMaker(tokenizer, recipe.n_ctx)
    next_report = (run.tokens // report_every + 1) * report_every
    while run.tokens < recipe.total_tokens:
        started = time.monotonic()
        loss = train_chunk(run, maker)
        run.seconds += time.monotonic() - started
        speed = run.tokens / run.seconds
        left = max(0.0, recipe.total_tokens - run.tokens) / speed
        if run.chunk % 2 == 0:
            logger.info(
                "%5.2fM of %.0fM tokens, loss %.3f, %.0f tokens/s, %.0f min left",
                run.tokens / 1e6, recipe.total_tokens / 1e6, loss, speed, left / 60,
            )  # fmt: skip
        if run.tokens >= next_report:
            next_report += report_every
            logger.info("%s", held_out_line(model, tokenizer, count=50))
        if run.chunk % checkpoint_every == 0:
            run.save(path)
    logger.info("trained on %d tokens in %.1f minutes", run.tokens, run.seconds / 60)
    write(model, tokenizer, out)
    path.unlink(missing_ok=True)


def write(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Save to a folder beside `out`, then move the files, so that a reader never sees half a model."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.config.activation_function = "gelu_new"
    model.config.use_cache = True
    model.save_pretrained(partial)
    save_tokenizer(tokenizer, partial)
    (partial / "generation_config.json").unlink(missing_ok=True)
    for file in sorted(partial.iterdir()):
        file.chmod(0o644)
        os.replace(file, out / file.name)
    partial.rmdir()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, train, and print the tables of the model card."""
    parser = argparse.ArgumentParser(prog="python -m interp.mini.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("mini-weights"), help="where the model goes")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1, help="more help only where no other job wants the cores")
    parser.add_argument("--quick", action="store_true", help="a smoke test of under a minute; learns nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    base = asdict(QUICK if options.quick else Recipe())
    train(Recipe(**(base | {"seed": options.seed})), options.out)
    sys.stdout.write(table(*load(options.out), count=5 if options.quick else 500))


if __name__ == "__main__":
    main()
