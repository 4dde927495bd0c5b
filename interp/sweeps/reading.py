"""How a read-out is taken of given prompts: positions, answers, the clean run; and the read-outs of plain runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import readouts, run
from interp._arguments import check_answers, check_scored
from interp.errors import InterpError, shown
from interp.model.arithmetic import at_positions
from interp.model.reading import Memory, shared_length
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import Answers, AnyReadout, Place, Readout

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.model.arithmetic import Blocks

AnyPairs: TypeAlias = PromptPairs | AnsweredPrompts
"""Prompts with their answers, in pairs or alone."""

Which: TypeAlias = Literal["clean", "corrupted"]
"""The run of which something is asked."""

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
        compared: the runs that the read-out compares with: none, the clean one, or the clean and the corrupted one.
        known: what is read of each of them [row, answer, width]; empty until ``with_known`` has read it.
        known_row: [prompt] the row of ``known`` that is each prompt's.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> reading = Reading.of(pairs, "logit_difference")
    >>> reading.positions.tolist(), reading.correct.tolist()
    ([[2]], [[9]])
    >>> logits = torch.zeros(1, 1, 20)  # prompt answer vocab
    >>> logits[0, 0, 9] = 3.0
    >>> reading(logits).tolist()
    [3.0]
    """

    positions: Int[Tensor, "prompt answer"]
    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt answer"]
    present: Bool[Tensor, "prompt answer"]
    readout: Readout
    prompt: Int[Tensor, " prompt"]
    compared: tuple[Prompts, ...] = ()
    known: tuple[Float[Tensor, "row answer width"], ...] = ()
    known_row: Int[Tensor, " prompt"] | None = None

    @classmethod
    def of(cls, pairs: AnyPairs, metric: AnyReadout) -> Reading:
        """What is read of a set of pairs; expanded pairs are scored over their whole continuation.

        Raises:
            InterpError: an unknown metric, one that compares two answers where there is one, or labels that do not fit.
        """
        readout = readouts.readout(metric)
        if readout.place is not None:
            at, present = _tokens_of(pairs, readout.place.at)
            correct = incorrect = torch.zeros_like(at)
        elif readout.labels is not None:
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
        return cls(at, correct, incorrect, present, readout, torch.arange(len(at)), _compared(pairs, readout))

    @property
    def end(self) -> Int[Tensor, " prompt"]:
        """How many tokens of each prompt can matter: one more than its last scored position."""
        return self.positions.max(dim=1).values + 1

    def rows(self, index: Int[Tensor, " row"]) -> Reading:
        """The reading of chosen prompts."""
        # Once ``known`` is there the other runs are not needed. It is shared, and not copied for every row.
        compared = () if self.known else tuple(prompts.select(index.numpy()) for prompts in self.compared)
        return Reading(
            self.positions[index],
            self.correct[index],
            self.incorrect[index],
            self.present[index],
            self.readout,
            self.prompt[index],
            compared,
            self.known,
            None if self.known_row is None else self.known_row[index],
        )

    def with_known(self, model: HookedTransformer) -> Reading:
        """The reading with ``known``, for which the runs that it compares with are run where they have not been."""
        if not self.compared or self.known:
            return self
        known = self._begun_alike(model, self.compared)
        if known is None:
            known = tuple(self.read(model, prompts) for prompts in self.compared)
        return replace(self, known=known, known_row=torch.arange(len(self.positions)))

    def read(
        self, model: HookedTransformer, prompts: Prompts, interventions: Sequence[Any] = ()
    ) -> Float[Tensor, "prompt answer width"]:
        """What is looked at in a plain run, on the CPU: logits, or the activation."""
        place = self.readout.place
        if place is None:
            return run.logits_at(model, prompts, self.positions.numpy(), interventions=interventions)
        changed = bool(interventions) or not model.has_site("resid_post")
        site, layer = place.read_at(model.cfg.n_layers, changed=changed)
        found = run.activations(model, prompts, site, layers=[layer], interventions=interventions)[layer]
        return place.of(at_positions(found, self.positions)).cpu()

    def _begun_alike(
        self, model: HookedTransformer, runs: Sequence[Prompts]
    ) -> tuple[Float[Tensor, "prompt answer width"], ...] | None:
        """``read`` of a stream in runs that all begin alike, where what they share is run once; None elsewhere."""
        place, (blocks, _) = self.readout.place, model.own_blocks()
        if blocks is None or place is None or not place.is_stream:
            return None
        ids = torch.cat([run.ids_of(prompts) for prompts in runs]).to(model.device)
        positions = self.positions.repeat(len(runs), 1)
        shared = shared_length(ids)
        if not shared or int(positions.min()) < shared:
            return None
        found = []
        with torch.inference_mode():
            _, memory = Memory.empty(self.up_to(blocks)).read(ids[:1, :shared])
            for rows in run.chunks_of(len(ids), run.rows_per_batch(model, ids.shape[1])):
                stream = memory.run(ids[rows, shared:])
                found.append(place.of(at_positions(stream, positions[rows] - shared)).cpu())
        return torch.split(torch.cat(found), len(self.positions))

    @property
    def inside(self) -> Place | None:
        """The activation that is read, where it is one within a block."""
        place = self.readout.place
        return None if place is None or place.is_stream else place

    def up_to(self, blocks: Blocks) -> Blocks:
        """The part of a model that is run: the blocks that come before the activation that is read, or hold it."""
        place = self.readout.place
        return blocks if place is None else replace(blocks, layers=blocks.layers[: place.n_blocks])

    def known_bytes(self, vocab: int, lengths: Mapping[str, int]) -> int:
        """What is held, per prompt, of the runs that the read-out compares with; ``lengths``: axis -> length."""
        place = self.readout.place
        width = vocab if place is None else place.width(lengths)
        return 4 * width * self.positions.shape[1] * len(self.compared)

    def identity(self) -> tuple[object, ...]:
        """Everything that the number depends on beside the run.

        Raises:
            InterpError: it depends on a function of the caller's, which cannot be told from another.
        """
        if self.readout.own:
            raise InterpError(
                f"A store cannot tell whether the function of read-out {shown(self.readout.name)} is still the same. "
                "Leave store= out."
            )
        place = () if self.readout.place is None else (self.readout.place,)
        compared = (prompts.sha256() for prompts in self.compared)
        return (self.positions, self.correct, self.incorrect, self.present, self.readout.name, *place, *compared)

    def __call__(self, logits: Float[Tensor, "prompt answer vocab"]) -> Float[Tensor, " prompt"]:
        """The number of each prompt, on the CPU in float64."""
        return self.readout.of(logits, self._answers)

    @property
    def _answers(self) -> Answers:
        known = (values[self.known_row] for values in self.known)
        return Answers(self.correct, self.incorrect, self.present, self.prompt, *known)

    def of_streams(self, blocks: Blocks, stream: Float[Tensor, "prompt answer width"]) -> Float[Tensor, " prompt"]:
        """The number of each prompt from the residual stream after the last block, or what is read in its stead.

        A logit difference needs two columns of the unembedding; other read-outs need them all.
        """
        if self.readout.needs == "activation":
            return self(stream)
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
                "interp.sweeps.reading."
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


def _compared(pairs: AnyPairs, readout: Readout) -> tuple[Prompts, ...]:
    """The runs that a read-out compares with.

    Raises:
        InterpError: there is no corrupted run.
    """
    if readout.needs == "clean logits":
        return (pairs.clean,)
    if readout.place is None or readout.place.direction is not None:
        return ()
    if isinstance(pairs, AnsweredPrompts):
        raise InterpError(
            "A projection on the clean-corrupted difference needs a corrupted run, which AnsweredPrompts lack. Give "
            "direction=, or PromptPairs."
        )
    return (pairs.clean, pairs.corrupted)


def _tokens_of(pairs: AnyPairs, at: str | int) -> tuple[Int[Tensor, "prompt token"], Bool[Tensor, "prompt token"]]:
    """The positions of a role's tokens, the first again where a prompt has fewer, and which of them count."""
    mask = torch.from_numpy(run.token_mask(pairs.clean, at))
    counts = mask.sum(dim=1, keepdim=True)
    first_to_last = torch.argsort(~mask, dim=1, stable=True)[:, : int(counts.max())]
    present = torch.arange(first_to_last.shape[1]) < counts
    return torch.where(present, first_to_last, first_to_last[:, :1]), present


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
    which: Which = "clean",
    metric: AnyReadout = "logit_difference",
    *,
    interventions: Sequence[Any] = (),
) -> Float[np.ndarray, " prompt"]:
    """The read-out of the clean or the corrupted run per prompt, always about the *clean* prompt's answers.

    ``AnsweredPrompts`` have a clean run only.

    With the policy ``sum_logprob``, ``logit_difference`` is the difference of the summed log-probabilities of the two
    whole answers (nats), which for one-token answers equals the logit difference.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> bool((score(model, pairs) > 0).all()), bool((score(model, pairs, "corrupted") < 0).all())
    (True, True)
    """
    check_scored(model, pairs)
    total = np.zeros(len(pairs))
    for sign, part, term in scored_parts(pairs, metric):
        reading = checked_reading(model, part, term)
        read = reading.read(model, run_named(part, which), interventions)
        total += sign * reading.with_known(model)(read).numpy()
    return total


def checked_reading(model: HookedTransformer, pairs: AnyPairs, metric: AnyReadout) -> Reading:
    """``Reading.of``, where its labels and its place are checked against the model too.

    Raises:
        InterpError: what ``Reading.of`` refuses, a label that has no logit, or a place that the model has not.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> checked_reading(model, pairs, readouts.projection(9, 2))
    Traceback (most recent call last):
    interp.errors.InterpError: The projection reads resid_pre of layer 9, but the model has 4 layers. ...
    """
    readout = readouts.readout(metric)
    if readout.place is not None:
        _check_place(model, readout.place)
        readout = _with_direction(model, pairs, readout, readout.place)
    reading = Reading.of(pairs, readout)
    if reading.readout.labels is not None:
        check_answers(model, {}, [reading.correct.tolist()])
    return reading


def _with_direction(model: HookedTransformer, pairs: AnyPairs, readout: Readout, place: Place) -> Readout:
    """A projection on the difference of the means of these pairs, in units of it; any other is as it is.

    Raises:
        InterpError: there is no corrupted run, or no difference.
    """
    if place.direction != "means":
        return readout
    own = Reading.of(pairs, replace(readout, place=replace(place, direction=None)))
    weight = own.present.double() / own.present.sum(dim=1, keepdim=True)
    clean, corrupted = (
        torch.einsum("ptd,pt->pd", known.double(), weight).mean(dim=0) for known in own.with_known(model).known
    )
    difference = clean - corrupted
    if not difference.any():
        raise InterpError(
            f"Clean and corrupted have the same {place.site} of layer {place.layer} at {shown(place.at)}, so there is "
            "no difference of means. Project where they differ."
        )
    return readouts.along(readout, difference / (difference @ difference))


def _check_place(model: HookedTransformer, place: Place) -> None:
    """Refuse an activation that this model does not have.

    Raises:
        InterpError: a site, layer or head that it has not, or a direction of another width.
    """
    model.check_site(place.site)
    n_layers, what = model.cfg.n_layers, f"The projection reads {place.site} of layer {place.layer}"
    if place.layer >= n_layers + (place.site == "resid_pre"):
        raise InterpError(f"{what}, but the model has {n_layers} layers. Give an earlier one.")
    if place.head is not None and place.head >= model.n_heads_of(place.site):
        raise InterpError(
            f"{what}, head {place.head}, but there are {model.n_heads_of(place.site)} heads. Give another."
        )
    width = place.width(model.cfg.sizes)
    if isinstance(place.direction, tuple) and len(place.direction) != width:
        raise InterpError(f"{what}, which has {width} numbers per token, but direction has {len(place.direction)}.")


def whole_answers(pairs: AnyPairs, metric: AnyReadout) -> bool:
    """Whether these pairs are scored by the summed log-probability of answers of several tokens.

    Raises:
        InterpError: a metric that is not defined for whole answers.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> whole_answers(pairs, "logit_difference")  # answers of one token
    False
    """
    readout = readouts.readout(metric)
    if isinstance(pairs, AnsweredPrompts) or pairs.answer_policy != "sum_logprob" or pairs.continuation:
        return False
    if readout.name not in ("logit_difference", "log_probability") or readout.own:
        raise InterpError(
            f"Metric {shown(readout.name)} is not defined for whole answers (sum_logprob). Use 'logit_difference'."
        )
    return True


def check_one_part(pairs: AnyPairs, metric: AnyReadout) -> None:
    """Refuse whole answers, where a sweep scores one set of tokens.

    Raises:
        InterpError: says what to use instead.
    """
    if whole_answers(pairs, metric):
        raise InterpError(
            "Ablation and knockout sweeps score one set of tokens: use the parts of expand_answers() with "
            "metric='log_probability', or pairs with one-token answers."
        )


@overload
def scored_parts(pairs: PromptPairs, metric: AnyReadout) -> tuple[tuple[float, PromptPairs, Readout], ...]: ...
@overload
def scored_parts(pairs: AnyPairs, metric: AnyReadout) -> tuple[tuple[float, AnyPairs, Readout], ...]: ...
def scored_parts(pairs: AnyPairs, metric: AnyReadout) -> tuple[tuple[float, AnyPairs, Readout], ...]:
    """What is read off which pairs: signs, pairs and read-outs whose signed sum is the metric asked for.

    One part, but for whole answers: their difference is the log-probability of the right answer minus the wrong one's,
    each read off the pairs that its own answer continues.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> [(sign, readout.name) for sign, _, readout in scored_parts(pairs, "logit_difference")]
    [(1.0, 'logit_difference')]
    """
    if isinstance(pairs, AnsweredPrompts) or not whole_answers(pairs, metric):
        return ((1.0, pairs, readouts.readout(metric)),)
    right, wrong = pairs.expand_answers()
    each = readouts.READOUTS["log_probability"]
    parts = ((1.0, right, each), (-1.0, wrong, each))
    return parts if readouts.readout(metric).compares else parts[:1]


def described(pairs: PromptPairs, metric: AnyReadout) -> tuple[str, str]:
    """What results call the metric, and its units.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> described(pairs, "kl")
    ('kl', 'nats')
    """
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
