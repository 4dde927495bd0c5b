"""Pairs of random token ids in which a block repeats, for any vocabulary."""

from __future__ import annotations

import random

from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.prompts.pairing import shortfall
from interp.prompts.tokens import SupportsTokenizer, bos_ids, check_fits, usable_ids
from interp.tasks.schema import Rung, Task

_TRIES = 100  # if so many draws in a row repeat earlier blocks, there are no new blocks left


def build(task: Task, rung: Rung, model: SupportsTokenizer, *, n: int, seed: int) -> PromptPairs:
    """``n`` pairs of ``rung``: a block of different tokens, then its first half again.

    The answer is the token that followed in the block. Corrupted has another token there, which is the incorrect
    answer and is nowhere else in the prompt.
    """
    vocabulary = usable_ids(model)
    if len(vocabulary) <= rung.block:
        raise InterpError(
            f"Rung {rung.name!r} of task {task.name!r} needs {rung.block + 1} different tokens, but the vocabulary "
            f"has {len(vocabulary)} that are not special. Choose a rung with a shorter block."
        )
    rng = random.Random(f"{task.name}/{rung.name}/{seed}")
    lead, half = bos_ids(model), rung.block // 2
    blocks: dict[tuple[int, ...], int] = {}
    for _ in range(n):
        for _ in range(_TRIES):
            *block, other = rng.sample(vocabulary, rung.block + 1)
            if tuple(block) not in blocks:
                blocks[tuple(block)] = other
                break
        else:
            break
    clean = [[*lead, *block, *block[:half]] for block in blocks]
    corrupted = [[*row] for row in clean]
    copied = len(lead) + half
    for row, other in zip(corrupted, blocks.values(), strict=True):
        row[copied] = other
    drops = () if len(blocks) == n else (shortfall(n, len(blocks)),)
    pairs = PromptPairs.from_tokens(
        clean,
        corrupted,
        correct=[block[half] for block in blocks],
        incorrect=list(blocks.values()),
        roles={"copied": copied, "previous": copied - 1},
        tokenizer=model,
        bos="prepended" if lead else "none",
        task=task.name,
        name=rung.name,
        drops=drops,
        vocabulary=task.vocabulary,
    )
    check_fits(pairs.clean, model)
    return pairs
