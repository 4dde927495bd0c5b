"""A tiny GPT-2 that does one bundled task, trained on the task's own prompts in seconds, and a tokenizer of its words.

What it has learnt is the answer to these prompts and nothing else: it says what a page looks like where the gate
passes, and nothing about language.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from interp import tasks
from interp.tasks import Rung, Task
from tests.tiny_tokenizers import pieces, stand_in

MOST_STEPS = 2000
ROWS = 96
GOOD = 0.02
"""Nats: the mean loss at which every answer is the top token by far."""


def save_model_that_does(task: str, directory: Path, *, n: int = 48) -> Path:
    """Train on clean and corrupted prompts of every rung, each with its own answer, and write model and tokenizer."""
    content = tasks.load(task)
    tokenizer = _words(content)
    rows: list[tuple[list[int], int]] = []
    for rung in content.rungs:
        pairs = tasks.build(content, rung.name, tokenizer=stand_in(tokenizer), n=n)
        for prompts, answers in ((pairs.clean, pairs.correct), (pairs.corrupted, pairs.incorrect)):
            rows += [(list(ids), int(answer)) for ids, answer in zip(prompts.rows(), answers, strict=True)]
    _trained(rows, len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _words(task: Task) -> PreTrainedTokenizerFast:
    """Every word is a token, with the space before it, and so are a stop and two digits of a year."""
    texts = [f"{before}{word}" for words in task.lexicon.values() for word in words for before in ("", " ")]
    texts += [text for rung in task.rungs for text in _filled(task, rung)]
    return pieces(*dict.fromkeys(piece for text in texts for piece in re.findall(r" ?\d\d| ?[^\W\d]+|[^\w\s]", text)))


def _filled(task: Task, rung: Rung) -> list[str]:
    """One prompt of each template, with its answer."""
    first = {slot: words[0] for slot, words in task.lexicon.items()}
    slots = {**first, **{slot: first[source] for slot, source in rung.same.items()}}
    made = [t.render({slot: slots[slot] for slot in t.slots}) for t in rung.templates.values()]
    return [one.text + one.answer for one in made]


def _trained(rows: list[tuple[list[int], int]], vocab: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    size = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": vocab}
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(**size, **off, bos_token_id=0, eos_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row, _ in rows], batch_first=True)
    last, answers = torch.tensor([len(row) - 1 for row, _ in rows]), torch.tensor([answer for _, answer in rows])
    for _ in range(MOST_STEPS // (len(rows) // ROWS)):
        losses = []
        for batch in torch.randperm(len(rows)).split(ROWS):
            hidden = model.transformer(ids[batch]).last_hidden_state[torch.arange(len(batch)), last[batch]]
            loss = F.cross_entropy(model.lm_head(hidden), answers[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        if max(losses) < GOOD:
            return model.eval()
    raise AssertionError(f"The model has not learnt its prompts: a loss of {max(losses):.3f}.")
