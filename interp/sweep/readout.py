"""How a read-out is taken of given prompts: positions, answers, the clean run; and the read-outs of plain runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import readouts, run
from interp._arguments import check_answers, check_scored
from interp.errors import InterpError, shown
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.readouts import Answers, AnyReadout, Readout
from interp.tokens import Prompts

if TYPE_CHECKING:
    from interp.blocks import Blocks
    from interp.model import HookedTransformer

AnyPairs: TypeAlias = PromptPairs | AnsweredPrompts
"""Prompts with their answers, in pairs or alone."""

LOGIT_ROWS = 64 * 2**20
"""Logits that are held at a time when a metric needs the whole vocabulary."""


@dataclass(frozen=True)
class Reading:
    """A read-out of given prompts: positions, answer ids, and what is measured there.

    Attributes:
        positions: [prompt, answer] positions whose logits are scored.
        correct: [prompt, answer] ids.
        incorrect: [prompt, answer] ids.
        present: which answers of a prompt count (answers may differ in length).
        readout: what is measured.
        prompt: [prompt] which of the prompts that were given these are.
        clean: the clean run's prompts, where the read-out compares with it; else None.
        clean_logits: [row, answer, vocab] its logits, once they are known (``with_clean_run``).
        clean_row: [prompt] which of their rows is whose.
    """

    positions: Int[Tensor, "prompt answer"]
    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt answer"]
    present: Bool[Tensor, "prompt answer"]
    readout: Readout
    prompt: Int[Tensor, " prompt"]
    clean: Prompts | None = None
    clean_logits: Float[Tensor, "row answer vocab"] | None = None
    clean_row: Int[Tensor, " prompt"] | None = None

    @classmethod
    def of(cls, pairs: AnyPairs, metric: AnyReadout) -> Reading:
        """What is read of a set of pairs; expanded pairs are scored over their whole continuation.

        Raises:
            InterpError: an unknown metric, one that compares two answers where there is one, or labels that do not fit.
        """
        readout = readouts.readout(metric)
        if readout.labels is not None:
            at, correct, present = _labelled_places(pairs, readout)
            incorrect = correct
        elif isinstance(pairs, AnsweredPrompts) or not pairs.continuation:
            if pairs.incorrect is None and readout.compares:
                others = sorted(name for name, one in readouts.READOUTS.items() if not one.compares)
                raise InterpError(
                    f"Metric {shown(readout.name)} compares two answers, but these prompts have no incorrect one. Give "
                    f"incorrect=, or use {', '.join(others[:-1])} or {others[-1]}."
                )
            wrong = pairs.correct if pairs.incorrect is None else pairs.incorrect
            at, correct, incorrect = (
                torch.tensor(np.asarray(a).reshape(-1, 1), dtype=torch.long)
                for a in (pairs.answer_position, pairs.correct, wrong)
            )
            present = torch.ones_like(at, dtype=torch.bool)
        else:
            longest = max(len(tokens) for tokens in pairs.continuation)
            steps = torch.arange(longest)
            lengths = torch.tensor([len(tokens) for tokens in pairs.continuation]).unsqueeze(1)
            correct = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in pairs.continuation])
            incorrect, present = correct, steps < lengths
            start = torch.tensor(np.asarray(pairs.answer_position)).unsqueeze(1)
            at = torch.where(present, start + steps, start)
        clean = pairs.clean if readout.needs == "clean logits" else None
        return cls(at, correct, incorrect, present, readout, torch.arange(len(at)), clean)

    @property
    def end(self) -> Int[Tensor, " prompt"]:
        """How many tokens of each prompt can matter: one more than its last scored position."""
        return self.positions.max(dim=1).values + 1

    def rows(self, index: Int[Tensor, " row"]) -> Reading:
        """The reading of chosen prompts."""
        clean = None
        if self.clean is not None and self.clean_logits is None:  # once the logits are known, the prompts are not used
            clean = self.clean.select(index.numpy())
        return Reading(
            self.positions[index],
            self.correct[index],
            self.incorrect[index],
            self.present[index],
            self.readout,
            self.prompt[index],
            clean,
            self.clean_logits,  # of a whole vocabulary: not copied for every row
            None if self.clean_row is None else self.clean_row[index],
        )

    def with_clean_run(self, model: HookedTransformer) -> Reading:
        """With the logits of the clean run, where the read-out compares with it and they are not known yet."""
        if self.clean is None or self.clean_logits is not None:
            return self
        logits = run.logits_at(model, self.clean, self.positions.numpy())
        return replace(self, clean_logits=logits, clean_row=torch.arange(len(logits)))

    def clean_bytes(self, vocab: int) -> int:
        """What the clean run's logits of one prompt take, where the read-out compares with it."""
        return 4 * vocab * self.positions.shape[1] if self.readout.needs == "clean logits" else 0

    def facts(self) -> tuple[object, ...]:
        """Everything that the number depends on beside the run.

        Raises:
            InterpError: it depends on a function of the caller's, which cannot be told from another.
        """
        if self.readout.own:
            raise InterpError(
                f"A store cannot tell whether the function of read-out {shown(self.readout.name)} is still the same. "
                "Leave store= out."
            )
        clean = () if self.clean is None else (self.clean.sha256(),)
        return (self.positions, self.correct, self.incorrect, self.present, self.readout.name, *clean)

    def __call__(self, logits: Float[Tensor, "prompt answer vocab"]) -> Float[Tensor, " prompt"]:
        """The number of each prompt, on the CPU in float64."""
        return self.readout.of(logits, self._answers)

    @property
    def _answers(self) -> Answers:
        clean = None if self.clean_logits is None else self.clean_logits[self.clean_row]
        return Answers(self.correct, self.incorrect, self.present, self.prompt, clean)

    def of_streams(self, blocks: Blocks, stream: Float[Tensor, "prompt answer d_model"]) -> Float[Tensor, " prompt"]:
        """The number of each prompt from the residual stream after the last block at the scored positions.

        A logit difference needs two columns of the unembedding; other read-outs need them all.
        """
        if self.readout.needs == "answers":
            return self._of_answers(blocks, blocks.final(stream))
        vocab = blocks.unembed.weight.shape[1]
        size = max(1, LOGIT_ROWS // (vocab * stream.shape[1]))
        parts = [
            self.rows(torch.arange(start, min(start + size, len(stream))))(blocks.logits(stream[start : start + size]))
            for start in range(0, len(stream), size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def _of_answers(self, blocks: Blocks, normed: Float[Tensor, "prompt answer d_model"]) -> Float[Tensor, " prompt"]:
        if self.readout is not readouts.READOUTS["logit_difference"]:
            raise InterpError(
                f"What read-out {shown(self.readout.name)} makes of the answers' logits is not written in "
                "interp.sweep.readout."
            )
        right, wrong = (self._logits_of(blocks, normed, ids) for ids in (self.correct, self.incorrect))
        return self._answers.total(right - wrong)

    def _logits_of(
        self, blocks: Blocks, normed: Float[Tensor, "prompt answer d_model"], ids: Int[Tensor, "prompt answer"]
    ) -> Float[Tensor, "prompt answer"]:
        ids = ids.to(normed.device)
        columns = blocks.unembed.weight.T[ids]
        logits = (normed * columns).sum(dim=-1)
        return logits if blocks.unembed.bias is None else logits + blocks.unembed.bias[ids]


def _labelled_places(
    pairs: AnyPairs, readout: Readout
) -> tuple[Int[Tensor, "prompt answer"], Int[Tensor, "prompt answer"], Bool[Tensor, "prompt answer"]]:
    """Positions, labels, and which of them count.

    Raises:
        InterpError: not one row for each prompt, or a position outside its prompt.
    """
    labels = torch.tensor(readout.labels)
    n, width = labels.shape
    if n != len(pairs):
        raise InterpError(f"There are {len(pairs)} prompts and {n} rows of labels. Give a row for each.")
    last = torch.tensor(np.asarray(pairs.answer_position)).unsqueeze(1)
    at = last + torch.arange(1 - width, 1) if readout.label_positions is None else torch.tensor(readout.label_positions)
    present = labels != readouts.IGNORED
    lengths = torch.tensor(np.asarray(pairs.clean.lengths)).unsqueeze(1)
    outside = present & ((at < 0) | (at >= lengths))
    if outside.any():
        i, j = outside.nonzero()[0].tolist()
        raise InterpError(
            f"A label of prompt {i} is at position {int(at[i, j])}, which has {int(lengths[i])} tokens. Give positions "
            f"inside the prompt, or the label {readouts.IGNORED}."
        )
    return torch.where(present, at, last), torch.where(present, labels, 0), present


def score(
    model: HookedTransformer,
    pairs: AnyPairs,
    which: Literal["clean", "corrupted"] = "clean",
    metric: AnyReadout = "logit_difference",
    *,
    interventions: Sequence[Any] = (),
) -> Float[np.ndarray, " prompt"]:
    """The read-out of the clean or the corrupted run per prompt, always about the *clean* prompt's answers.

    ``AnsweredPrompts`` have a clean run only.

    With the policy ``sum_logprob``, ``logit_difference`` is the difference of the summed log-probabilities of the two
    whole answers (nats), which for one-token answers equals the logit difference.
    """
    check_scored(model, pairs)
    total = np.zeros(len(pairs))
    for sign, part, term in scored_parts(pairs, metric):
        reading = checked_reading(model, part, term)
        logits = run.logits_at(model, run_named(part, which), reading.positions.numpy(), interventions=interventions)
        total += sign * reading.with_clean_run(model)(logits).numpy()
    return total


def checked_reading(model: HookedTransformer, pairs: AnyPairs, metric: AnyReadout) -> Reading:
    """``Reading.of``, its labels held to the model's output vocabulary.

    Raises:
        InterpError: what ``Reading.of`` refuses, or a label that has no logit.
    """
    reading = Reading.of(pairs, metric)
    if reading.readout.labels is not None:
        check_answers(model, {}, [reading.correct.tolist()])
    return reading


def whole_answers(pairs: AnyPairs, metric: AnyReadout) -> bool:
    """Whether these pairs are scored by the summed log-probability of answers of several tokens.

    Raises:
        InterpError: a metric that is not defined for whole answers.
    """
    readout = readouts.readout(metric)
    if isinstance(pairs, AnsweredPrompts) or pairs.answer_policy != "sum_logprob" or pairs.continuation:
        return False
    if readout.name not in ("logit_difference", "log_probability") or readout.own:
        raise InterpError(
            f"Metric {shown(readout.name)} is not defined for whole answers (sum_logprob). Use 'logit_difference'."
        )
    return True


@overload
def scored_parts(pairs: PromptPairs, metric: AnyReadout) -> tuple[tuple[float, PromptPairs, Readout], ...]: ...
@overload
def scored_parts(pairs: AnyPairs, metric: AnyReadout) -> tuple[tuple[float, AnyPairs, Readout], ...]: ...
def scored_parts(pairs: AnyPairs, metric: AnyReadout) -> tuple[tuple[float, AnyPairs, Readout], ...]:
    """What is read off which pairs: signs, pairs and read-outs whose signed sum is the metric asked for.

    One part, but for whole answers: their difference is the log-probability of the right answer minus the wrong one's,
    each read off the pairs that its own answer continues.
    """
    if isinstance(pairs, AnsweredPrompts) or not whole_answers(pairs, metric):
        return ((1.0, pairs, readouts.readout(metric)),)
    right, wrong = pairs.expand_answers()
    each = readouts.READOUTS["log_probability"]
    parts = ((1.0, right, each), (-1.0, wrong, each))
    return parts if readouts.readout(metric).compares else parts[:1]


def described(pairs: PromptPairs, metric: AnyReadout) -> tuple[str, str]:
    """What results call the metric, and its units."""
    readout = readouts.readout(metric)
    if readout.compares and whole_answers(pairs, readout):
        return "difference of summed log-probabilities", readouts.READOUTS["log_probability"].units
    return readout.name, readout.units


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
