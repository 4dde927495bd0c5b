"""Measure `mini`: `python -m interp.mini.evaluate` prints the tables of MODEL_CARD.md.

Accuracy is top-1 over the whole vocabulary at the last position. Prompts hold exactly one held-out
pair (or none, for the trained column) and the question is about it. Controls keep the prompt's
length and words: *shuffled* gives the colours of the context to other nouns, *no context* keeps the
question alone.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from interp.mini import WEIGHTS
from interp.mini.corpus import LANGUAGES, Pairing, Scene, draw_scene, family_names, ioi_document


@dataclass(frozen=True)
class Example:
    """One question. `shuffled_answer` answers `shuffled`; `colors` are those of the context."""

    prompt: str
    answer: str
    shuffled: str
    shuffled_answer: str
    question: str
    colors: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """Accuracies (fractions) of one language and family."""

    language: str
    family: str
    held_out: float
    trained: float
    shuffled_new: float
    shuffled_original: float
    no_context: float
    chance: float


def _reassigned(rng: random.Random, scene: Scene, asked: int) -> tuple[str, ...]:
    """Other colours for the nouns: those of the context moved round by one, or a new one if it has one noun."""
    if len(scene.colors) > 1:
        return (*scene.colors[1:], scene.colors[0])
    noun = scene.nouns[asked]
    others = [c for c in scene.grammar.colors if c != scene.colors[0] and not scene.grammar.is_held_out(noun, c)]
    return (rng.choice(others),)


def draw_example(
    rng: random.Random, language: str, family: str, *, pairing: Pairing, frame: str | None = None
) -> Example:
    """A question about the held-out pair of a scene, or about any pair when all are trained."""
    scene = draw_scene(rng, language, family, pairing=pairing, frame=frame)
    pairs = list(zip(scene.nouns, scene.colors, strict=True))
    if pairing == "held_out":
        asked = next(i for i, pair in enumerate(pairs) if scene.grammar.is_held_out(*pair))
    else:
        asked = rng.randrange(len(pairs))
    asks = scene.grammar.asks
    kind = rng.choice([k for k in asks.get(family, asks["default"]) if k in scene.kinds(asked)])
    question = scene.question(kind, asked)[0]
    colors = _reassigned(rng, scene, asked)
    return Example(
        prompt=f"{scene.context()} {question}",
        answer=" " + scene.colors[asked],
        shuffled=f"{scene.context(colors)} {question}",
        shuffled_answer=" " + colors[asked],
        question=question,
        colors=scene.colors,
    )


def predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, batch_size: int = 128
) -> list[str]:
    """The most likely next token after BOS and each prompt, as text."""
    rows = [[tokenizer.bos_token_id, *ids] for ids in tokenizer(list(prompts))["input_ids"]]
    found: list[str] = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        width = max(len(row) for row in part)
        # Right padding is safe: attention is causal and the answer is read before the padding.
        ids = torch.tensor([row + [tokenizer.bos_token_id] * (width - len(row)) for row in part])
        found += [str(tokenizer.decode([int(i)])) for i in _top1(model, ids, [len(row) for row in part])]
    return found


@torch.no_grad()
def _top1(model: PreTrainedModel, ids: Int[Tensor, "row position"], lengths: list[int]) -> Int[Tensor, " row"]:
    logits: Tensor = model(ids).logits
    return logits[torch.arange(len(lengths)), torch.tensor(lengths) - 1].argmax(dim=-1)


def _fraction(found: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(f == w for f, w in zip(found, wanted, strict=True)) / len(wanted)


def score_family(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    family: str,
    *,
    count: int,
    seed: int,
    only_held_out: bool = False,
) -> Score:
    """All columns of the card for one language and family, from `count` prompts each.

    `only_held_out` skips the others, which are then NaN.
    """
    rng = random.Random(f"{seed}-{language}-{family}")
    held = [draw_example(rng, language, family, pairing="held_out") for _ in range(count)]
    known = [draw_example(rng, language, family, pairing="trained") for _ in range(count)]
    answers = [e.answer for e in held]
    held_out = _fraction(predictions(model, tokenizer, [e.prompt for e in held]), answers)
    chance = sum(1 / len(e.colors) for e in held) / count
    if only_held_out:
        return Score(language, family, held_out, nan, nan, nan, nan, chance)
    shuffled = predictions(model, tokenizer, [e.shuffled for e in held])
    return Score(
        language,
        family,
        held_out=held_out,
        trained=_fraction(predictions(model, tokenizer, [e.prompt for e in known]), [e.answer for e in known]),
        shuffled_new=_fraction(shuffled, [e.shuffled_answer for e in held]),
        shuffled_original=_fraction(shuffled, answers),
        no_context=_fraction(predictions(model, tokenizer, [e.question for e in held]), answers),
        chance=chance,
    )


def ioi_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str, *, count: int, seed: int
) -> float:
    """Top-1 accuracy of the name that did not give."""
    rng = random.Random(f"{seed}-{language}-ioi")
    prompts, answers = [], []
    for _ in range(count):
        segments = ioi_document(rng, language).segments
        at = next(i for i, (_, is_answer) in enumerate(segments) if is_answer)
        prompts.append("".join(text for text, _ in segments[:at]))
        answers.append(segments[at][0])
    return _fraction(predictions(model, tokenizer, prompts), answers)


def induction_accuracy(model: PreTrainedModel, *, count: int, length: int, seed: int) -> float:
    """Accuracy on the second half of `length` random tokens said twice, the first repeat excluded."""
    generator = torch.Generator().manual_seed(seed)
    vocab = int(model.config.vocab_size)
    half = torch.stack([torch.randperm(vocab - 1, generator=generator)[:length] + 1 for _ in range(count)])
    ids = torch.cat([torch.zeros(count, 1, dtype=torch.long), half, half], dim=1)
    with torch.no_grad():
        top = model(ids).logits.argmax(dim=-1)
    return float((top[:, length + 1 : -1] == ids[:, length + 2 :]).float().mean())


def load(folder: Path = WEIGHTS) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from `folder`, without the network."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model, tokenizer


def table(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, count: int = 500, seed: int = 1) -> str:
    """The card's tables, in Markdown; percentages."""
    lines = [
        "| language | family | held-out | trained | shuffled: new | shuffled: original | no context | chance |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for language in LANGUAGES:
        for family in family_names(language):
            s = score_family(model, tokenizer, language, family, count=count, seed=seed)
            cells = (s.held_out, s.trained, s.shuffled_new, s.shuffled_original, s.no_context, s.chance)
            lines.append(f"| {language} | {family} | " + " | ".join(f"{100 * c:.1f}" for c in cells) + " |")
    lines += ["", "| other | accuracy |", "| --- | ---: |"]
    for language in LANGUAGES:
        accuracy = ioi_accuracy(model, tokenizer, language, count=count, seed=seed)
        lines.append(f"| indirect object, {language} | {100 * accuracy:.1f} |")
    induction = induction_accuracy(model, count=count // 5, length=30, seed=seed)
    lines.append(f"| 30 random tokens said twice | {100 * induction:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m interp.mini.evaluate", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="a directory as train.py writes it")
    parser.add_argument("--count", type=int, default=500, help="prompts per language, family and column")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # at this size a second thread costs more than it gives on a busy machine
    sys.stdout.write(table(*load(options.weights), count=options.count, seed=options.seed))


if __name__ == "__main__":
    main()
