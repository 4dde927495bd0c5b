"""How a number is read off a run: positions, answers, metric; and the metric of plain runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import metrics, run
from interp._arguments import check_scored
from interp.errors import InterpError, shown
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.tokens import Prompts

if TYPE_CHECKING:
    from interp.blocks import Blocks
    from interp.model import HookedTransformer

AnyPairs: TypeAlias = PromptPairs | AnsweredPrompts
"""Prompts with their answers, in pairs or alone."""

LOGIT_ROWS = 64 * 2**20
"""Logits that are held at a time when a metric needs the whole vocabulary."""


@dataclass(frozen=True)
class Readout:
    """How a number is read off the logits: positions, answer ids, and the metric.

    Attributes:
        positions: [prompt, answer] positions whose logits are scored.
        correct: [prompt, answer] ids.
        incorrect: [prompt, answer] ids.
        present: which answers of a prompt count (answers may differ in length).
        metric: name; summed over a prompt's answers.
    """

    positions: Int[Tensor, "prompt answer"]
    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt answer"]
    present: Bool[Tensor, "prompt answer"]
    metric: str

    @classmethod
    def of(cls, pairs: AnyPairs, metric: str) -> Readout:
        """The readout of a set of pairs; expanded pairs are scored over their whole continuation.

        Raises:
            InterpError: an unknown metric, or one that compares two answers where there is one.
        """
        metrics.metric(metric)
        if isinstance(pairs, AnsweredPrompts) or not pairs.continuation:
            if pairs.incorrect is None and metric not in metrics.OF_THE_CORRECT_ANSWER:
                raise InterpError(
                    f"Metric {shown(metric)} compares two answers, but these prompts have no incorrect one. Give "
                    f"incorrect=, or use {' or '.join(sorted(metrics.OF_THE_CORRECT_ANSWER))}."
                )
            wrong = pairs.correct if pairs.incorrect is None else pairs.incorrect
            at, correct, incorrect = (
                torch.tensor(np.asarray(a).reshape(-1, 1), dtype=torch.long)
                for a in (pairs.answer_position, pairs.correct, wrong)
            )
            return cls(at, correct, incorrect, torch.ones_like(at, dtype=torch.bool), metric)
        longest = max(len(tokens) for tokens in pairs.continuation)
        steps = torch.arange(longest)
        lengths = torch.tensor([len(tokens) for tokens in pairs.continuation]).unsqueeze(1)
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in pairs.continuation])
        present = steps < lengths
        start = torch.tensor(np.asarray(pairs.answer_position)).unsqueeze(1)
        positions = torch.where(present, start + steps, start)
        return cls(positions, ids, ids, present, metric)

    @property
    def end(self) -> Int[Tensor, " prompt"]:
        """How many tokens of each prompt can matter: one more than its last scored position."""
        return self.positions.max(dim=1).values + 1

    def rows(self, index: Int[Tensor, " row"]) -> Readout:
        """The readout of chosen prompts."""
        return Readout(
            self.positions[index],
            self.correct[index],
            self.incorrect[index],
            self.present[index],
            self.metric,
        )

    def __call__(self, logits: Float[Tensor, "prompt answer vocab"]) -> Float[Tensor, " prompt"]:
        """The metric per prompt, on the CPU in float64."""
        n, answers, _ = logits.shape
        flat = metrics.metric(self.metric)(
            logits.reshape(n * answers, -1),
            self.correct.reshape(-1).to(logits.device),
            self.incorrect.reshape(-1).to(logits.device),
        )
        return self._sum(flat.reshape(n, answers))

    def of_streams(self, blocks: Blocks, stream: Float[Tensor, "prompt answer d_model"]) -> Float[Tensor, " prompt"]:
        """The metric per prompt from the residual stream after the last block at the scored positions.

        A logit difference needs two columns of the unembedding; other metrics need them all.
        """
        if self.metric == "logit_difference":
            normed = blocks.final(stream)
            return self._sum(
                self._logits_of(blocks, normed, self.correct) - self._logits_of(blocks, normed, self.incorrect)
            )
        vocab = blocks.unembed.weight.shape[1]
        size = max(1, LOGIT_ROWS // (vocab * stream.shape[1]))
        parts = [
            self.rows(torch.arange(start, min(start + size, len(stream))))(blocks.logits(stream[start : start + size]))
            for start in range(0, len(stream), size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def _logits_of(
        self, blocks: Blocks, normed: Float[Tensor, "prompt answer d_model"], ids: Int[Tensor, "prompt answer"]
    ) -> Float[Tensor, "prompt answer"]:
        ids = ids.to(normed.device)
        columns = blocks.unembed.weight.T[ids]
        logits = (normed * columns).sum(dim=-1)
        return logits if blocks.unembed.bias is None else logits + blocks.unembed.bias[ids]

    def _sum(self, values: Float[Tensor, "prompt answer"]) -> Float[Tensor, " prompt"]:
        return (values.cpu().double() * self.present).sum(dim=1)


def score(
    model: HookedTransformer,
    pairs: AnyPairs,
    which: Literal["clean", "corrupted"] = "clean",
    metric: str = "logit_difference",
    *,
    interventions: Sequence[Any] = (),
) -> Float[np.ndarray, " prompt"]:
    """The metric per prompt of the clean or the corrupted run, always about the *clean* prompt's answers.

    ``AnsweredPrompts`` have a clean run only.

    With the policy ``sum_logprob``, ``logit_difference`` is the difference of the summed log-probabilities of the two
    whole answers (nats), which for one-token answers equals the logit difference.
    """
    check_scored(model, pairs)
    total = np.zeros(len(pairs))
    for sign, part, name in scored_parts(pairs, metric):
        readout = Readout.of(part, name)
        logits = run.logits_at(model, run_named(part, which), readout.positions.numpy(), interventions=interventions)
        total += sign * readout(logits).numpy()
    return total


def whole_answers(pairs: AnyPairs, metric: str) -> bool:
    """Whether these pairs are scored by the summed log-probability of answers of several tokens.

    Raises:
        InterpError: a metric that is not defined for whole answers.
    """
    metrics.metric(metric)
    if isinstance(pairs, AnsweredPrompts) or pairs.answer_policy != "sum_logprob" or pairs.continuation:
        return False
    if metric not in ("logit_difference", "log_probability"):
        raise InterpError(
            f"Metric {shown(metric)} is not defined for whole answers (sum_logprob). Use 'logit_difference'."
        )
    return True


@overload
def scored_parts(pairs: PromptPairs, metric: str) -> tuple[tuple[float, PromptPairs, str], ...]: ...
@overload
def scored_parts(pairs: AnyPairs, metric: str) -> tuple[tuple[float, AnyPairs, str], ...]: ...
def scored_parts(pairs: AnyPairs, metric: str) -> tuple[tuple[float, AnyPairs, str], ...]:
    """What is read off which pairs: signs, pairs and metrics whose signed sum is the metric asked for.

    One part, but for whole answers: their difference is the log-probability of the right answer minus the wrong one's,
    each read off the pairs that its own answer continues.
    """
    if isinstance(pairs, AnsweredPrompts) or not whole_answers(pairs, metric):
        return ((1.0, pairs, metric),)
    right, wrong = pairs.expand_answers()
    parts = ((1.0, right, "log_probability"), (-1.0, wrong, "log_probability"))
    return parts if metric == "logit_difference" else parts[:1]


def described(pairs: PromptPairs, metric: str) -> tuple[str, str]:
    """What results call the metric, and its units."""
    if metric == "logit_difference" and whole_answers(pairs, metric):
        return "difference of summed log-probabilities", metrics.UNITS["log_probability"]
    return metric, metrics.UNITS[metric]


def run_named(pairs: AnyPairs, which: str) -> Prompts:
    """The prompts of the clean or the corrupted run.

    Raises:
        InterpError: another name, or the corrupted run of prompts that have none.
    """
    if which not in ("clean", "corrupted"):
        raise InterpError(f"Unknown run {shown(which)}. Choose 'clean' or 'corrupted'.")
    if which == "clean":
        return pairs.clean
    if isinstance(pairs, AnsweredPrompts):
        raise InterpError("AnsweredPrompts have no corrupted run. Use which='clean', or give PromptPairs.")
    return pairs.corrupted
