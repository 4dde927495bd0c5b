"""Which words of the context matter to a word, or to a token that is generated: three ways of asking, side by side.

Attention from the target to a word is cut (Geva et al. 2023), another word is put in its place, and gradients are
taken (``interp.attribution.input_attribution``). What comes after the target cannot matter to it and is not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cli.explanation.words import goes_on, language_of, of_lists, pieces, word_ends
from analyses.cli.sentence import NEXT
from analyses.explaining.beginning import Beginning
from analyses.explaining.clock import Clock, LateError, watched
from analyses.explaining.measuring import ROUNDING
from interp import results, stats
from interp.attribution import input_attribution
from interp.errors import InterpError, shown
from interp.interventions import Knockout
from interp.prompts import AnsweredPrompts, swaps
from interp.prompts.chat import Written
from interp.prompts.ids import token_texts
from interp.prompts.swaps import TARGET
from interp.prompts.tokens import Prompts, bos_ids, check_fits, encode, encode_plain
from interp.report.sections.influences import METHODS, mean
from interp.results import Variable
from interp.run import activations, ids_of, logits_at
from interp.sweeps import Meter

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.sweeps import Progress

MOST = 12
"""So many words, at most, are exchanged for others: those that the quicker ways call the largest."""
RANKED = 5
"""Of fewer words no correlation of ranks is told: of three, one in six orders is the same by chance."""
OTHERS = 3
"""So many other words, at most, are put in the place of each."""
LOOKED_AT, BEGUN = 200, 12
"""Of so many likely tokens, so many of the word's form, at most, are read to see whether they are whole words."""
STEPS = (16, 8, 4)
"""Steps of integrated gradients: as many of these as there is time for, or no gradient at all."""
PER_GRADIENT = 4.0
"""One differentiated run takes about as long as so many runs, from above."""
FOR_GRADIENTS = 0.5
"""Share of the time that may be spent when the gradients are there."""
_WORD = "word"


@dataclass(frozen=True)
class Unit:
    """A word of the context: its text and its tokens, half open."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Setting:
    """What is asked about.

    Attributes:
        model: the model.
        ids: [position] the tokens up to the target's last one.
        start: the target's first token.
        units: the words that come before, in order; of a generated token also the last word itself.
        chars: of each unit, the characters of the text that it is; None for what was generated.
        written: the text.
        n_text: its tokens; what follows was generated.
        says: the token that is predicted after the target's last token.
        generated: whether the question is of that token, and not of a word.
    """

    model: HookedTransformer
    ids: Int[np.ndarray, " position"]
    start: int
    units: tuple[Unit, ...]
    chars: tuple[tuple[int, int] | None, ...]
    written: Written
    n_text: int
    says: int
    generated: bool

    @property
    def at(self) -> int:
        """The target's last token."""
        return len(self.ids) - 1

    @property
    def answered(self) -> AnsweredPrompts:
        """The tokens with the one that is predicted."""
        return AnsweredPrompts.from_tokens([self.ids.tolist()], correct=self.says)

    @cached_property
    def pieces(self) -> list[str]:
        """What each token of the vocabulary adds to a text."""
        return pieces(self.model.tokenizer, int(self.ids[-1]))

    @property
    def names(self) -> list[str]:
        """The words before it, as ``--from`` takes them: of those that are alike the second is ``un@2``."""
        text, within = self.written.text, self.written.within
        named = zip(self.units, self.chars, strict=True)
        return [unit.text if chars is None else swaps.name(text, chars, within) for unit, chars in named]

    def prompts(self, rows: Sequence[Sequence[int]]) -> Prompts:
        """Token ids as prompts with the role of the target."""
        return Prompts.from_ids(rows, {TARGET: np.tile((self.start, self.at + 1), (len(rows), 1))}, self.model)


def setting(model: HookedTransformer, written: Written, target: str) -> Setting:
    """Find the target and the words before it.

    Raises:
        InterpError: a target that is not there, has nothing before it, or is generated beyond what the model reads.
    """
    wanted = re.fullmatch(re.escape(NEXT) + r"(\d*)", target) if isinstance(target, str) else None
    span = None if wanted else swaps.find(written.text, target, written.within)
    prompts = encode(written.reader, written.text, None if span is None else [{TARGET: span}])
    ((_, offsets),) = encode_plain(written.reader, [written.text])
    shift = int(prompts.lengths[0]) - len(offsets)
    ids = prompts.ids[0]
    if wanted is not None:
        nth = int(wanted[1] or 1)
        if nth < 1:
            raise InterpError(f"The target is {shown(target)}. {NEXT} is the token generated next, {NEXT}2 the second.")
        check_fits(prompts, model, nth)
        (new,) = Beginning.empty(model).greedy(prompts, nth)
        if len(new) < nth:
            raise InterpError(f"The model ends the text after {len(new)} tokens, so there is no {shown(target)}.")
        ids = np.concatenate((ids, new[:-1])).astype(ids.dtype)
        start, says = len(ids) - 1, new[-1]
    else:
        start, stop = prompts.spans(TARGET)[0].tolist()
        ids, says = ids[:stop], -1
    found: list[tuple[Unit, tuple[int, int] | None]] = list(_units(written, offsets, shift))
    later = range(shift + len(offsets), len(ids))
    found += [(Unit(token_texts(model.tokenizer, [int(ids[i])])[0].strip(), i, i + 1), None) for i in later]
    end = len(ids) if wanted is not None else start
    kept = [(unit, chars) for unit, chars in found if unit.stop <= end]
    if not kept:
        raise InterpError(
            f"Nothing stands before {shown(target)}. Name a later word, or give a text with words before it."
        )
    units, chars = zip(*kept, strict=True)
    asked = Setting(model, ids, start, units, chars, written, shift + len(offsets), says, wanted is not None)
    if says < 0:
        last = Beginning.empty(model).logits(asked.prompts([ids.tolist()]), np.array([asked.at]))[0, 0]
        asked = replace(asked, says=int(last.argmax()))
    return asked


def _units(written: Written, offsets: Sequence[tuple[int, int]], shift: int) -> Iterator[tuple[Unit, tuple[int, int]]]:
    """Words and signs of a text, of a chat's messages, each with its tokens; a token of two belongs to the first."""
    taken = 0
    for match in re.finditer(r"\w+|[^\w\s]", written.text):
        first, last = match.span()
        if written.within is not None and not any(a <= first and last <= b for a, b in written.within):
            continue
        tokens = [i for i, (a, b) in enumerate(offsets) if a < last and b > first and i >= taken]
        if tokens:
            taken = tokens[-1] + 1
            yield Unit(match[0], tokens[0] + shift, taken + shift), (first, last)


# ---- what is measured ----


@dataclass(frozen=True)
class _Read:
    """Of some runs: the stream after the last layer at the target's last token, and what is predicted there."""

    stream: Float[Tensor, "row d_model"]
    predicted: Float[Tensor, "row vocab"]  # log-probabilities

    @classmethod
    def of(cls, stream: Tensor, logits: Tensor) -> _Read:
        return cls(stream.cpu().double(), logits.cpu().double().log_softmax(dim=-1))

    def against(self, base: _Read, says: int) -> dict[str, Float[np.ndarray, " row"]]:
        """How far these runs are from the sentence's own."""
        apart = (self.stream - base.stream).norm(dim=-1) / base.stream.norm(dim=-1)
        kl = (base.predicted.exp() * (base.predicted - self.predicted)).sum(dim=-1)
        change = self.predicted[:, says] - base.predicted[:, says]
        return {"stream": apart.numpy(), "kl": kl.numpy(), "log_probability": change.numpy()}


def measured(asked: Setting, clock: Clock, *, progress: Progress | None = None) -> xr.Dataset:
    """Every way of asking, for every word of the context.

    Args:
        asked: what is asked about.
        clock: gradients take as many steps as there is time for, and no word is exchanged for which there is none.
        progress: called with steps done and steps in all.
    """
    n = len(asked.units)
    meter = Meter(progress, 2 + min(MOST, n))
    begun = clock.spent
    whole = Beginning.with_read(asked.model, asked.ids)
    read_until = clock.spent
    base, cut = _knocked_out(asked, whole)
    meter.add(1)
    # Where the arithmetic is not written nothing was read, and every word that was cut took a run.
    a_run = read_until - begun if whole.memory is not None else (clock.spent - read_until) / (1 + n)
    steps = next((steps for steps in STEPS if clock.left(FOR_GRADIENTS) > (steps + 2) * PER_GRADIENT * a_run), 0)
    gradients, steps = _gradients(asked, steps, clock)
    meter.add(1)
    swapped = {name: np.full((n, OTHERS), np.nan) for name in ("stream", "kl", "log_probability")}
    words = np.full((n, OTHERS), "", dtype=object)
    largest, longest = _largest([cut["log_probability"], *gradients.values()]), 0.0
    for index in largest:
        before = clock.spent
        others = _others(asked, index, whole) if clock.left() > longest else []
        words[index, : len(others)] = [word for word, _ in others]
        if others:
            read = _run(asked, [ids for _, ids in others], whole.first(asked.units[index].start))
            for name, values in read.against(base, asked.says).items():
                swapped[name][index, : len(others)] = values
        longest = max(longest, clock.spent - before)
        meter.add(1)
    return _labelled(asked, cut, swapped, words, gradients, steps, base)


def _largest(ways: Sequence[Float[np.ndarray, " word"]]) -> list[int]:
    """The words of which any of the ways makes most, ranked by the best rank that one gives them."""
    asked = [way for way in ways if np.isfinite(way).any()] or ways[:1]
    ranks = np.stack([np.argsort(np.argsort(-np.nan_to_num(np.abs(way)))) for way in asked])
    return [int(i) for i in np.argsort(ranks.min(axis=0), kind="stable")[:MOST]]


def _run(asked: Setting, rows: Sequence[Sequence[int]], beginning: Beginning) -> _Read:
    """Runs that begin with tokens which were read."""
    model, prompts = asked.model, asked.prompts(rows)
    if beginning.memory is None:
        last = model.cfg.n_layers - 1
        stream = activations(model, prompts, "resid_post", layers=[last])[last][:, asked.at]
        return _Read.of(stream, logits_at(model, prompts, np.full(len(rows), asked.at)))
    with torch.inference_mode():
        ends = beginning.run(ids_of(prompts))[:, -1]
        return _Read.of(ends, beginning.memory.blocks.logits(ends))


def _knocked_out(asked: Setting, whole: Beginning) -> tuple[_Read, dict[str, Float[np.ndarray, " word"]]]:
    """The sentence, and how far from it the target is that may not look at one word, in any layer or head.

    A generated token comes after its last word, which always looks at itself: for that word there is no number.
    """
    cuttable = [i for i, unit in enumerate(asked.units) if unit.stop <= asked.start]
    spans = np.array([(asked.units[i].start, asked.units[i].stop) for i in cuttable]).reshape(-1, 2)
    run = _cut_through_hooks if whole.memory is None else _cut
    base, cut = run(asked, spans, whole.first(asked.start))
    effects = cut.against(base, asked.says)
    found = {name: np.full(len(asked.units), np.nan) for name in effects}
    for name, values in effects.items():
        found[name][cuttable] = values
    return base, found


def _cut(asked: Setting, spans: Int[np.ndarray, "row two"], beginning: Beginning) -> tuple[_Read, _Read]:
    """Only the target's own tokens are run, in a row that looks at everything and one for each word."""
    assert beginning.memory is not None
    rows = asked.prompts([asked.ids.tolist()] * (1 + len(spans)))
    hidden = torch.zeros(len(rows), 1, 1, len(asked.ids), dtype=torch.bool, device=asked.model.device)
    for row, (start, stop) in enumerate(spans.tolist(), start=1):
        hidden[row, :, :, start:stop] = True
    streams = []
    with torch.inference_mode():
        for part in beginning.rows(rows, keeps=False):

            def hide(site: str, layer: int, value: Tensor, hidden: Tensor = hidden[part]) -> Tensor:
                return value.masked_fill(hidden, -torch.inf) if site == "scores" else value

            streams.append(beginning.run(ids_of(rows)[part], tap=hide, within=("scores",))[:, -1])
        stream = torch.cat(streams)
        both = _Read.of(stream, beginning.memory.blocks.logits(stream))
    return _Read(both.stream[:1], both.predicted[:1]), _Read(both.stream[1:], both.predicted[1:])


def _cut_through_hooks(asked: Setting, spans: Int[np.ndarray, "row two"], beginning: Beginning) -> tuple[_Read, _Read]:
    """Whole runs, one for each word."""
    model, last = asked.model, asked.model.cfg.n_layers - 1
    base = _run(asked, [asked.ids.tolist()], beginning)
    if not len(spans):
        return base, _Read(base.stream[:0], base.predicted[:0])
    rows = asked.prompts([asked.ids.tolist()] * len(spans))
    rows = rows.with_roles({TARGET: rows.spans(TARGET), _WORD: spans})
    edits = [Knockout(dest=[TARGET], src=[_WORD])]
    stream = activations(model, rows, "resid_post", layers=[last], interventions=edits)[last][:, asked.at]
    return base, _Read.of(stream, logits_at(model, rows, np.full(len(spans), asked.at), interventions=edits))


def _gradients(asked: Setting, steps: int, clock: Clock) -> tuple[dict[str, Float[np.ndarray, " word"]], int]:
    """Attributions of the predicted token's log-probability, summed over the tokens of each word; and their steps.

    They are NaN, of no step, where none is asked for or the time is up before they are there.
    """
    if steps:
        with suppress(LateError):
            found = input_attribution(asked.model, asked.answered, steps=steps, progress=watched(clock))
            sums = {
                name: np.array([float(found[name][0, unit.start : unit.stop].sum()) for unit in asked.units])
                for name in METHODS[2:]
            }
            return sums, steps
    return {name: np.full(len(asked.units), np.nan) for name in METHODS[2:]}, 0


def _others(asked: Setting, index: int, whole: Beginning) -> list[tuple[str, list[int]]]:
    """Other words in the place of one, of as many tokens: of a list, else such as the model expects there."""
    unit, chars, own = asked.units[index], asked.chars[index], asked.ids.tolist()
    listed = () if chars is None else of_lists(unit.text, language_of(asked.written.text))
    words = [word for word in dict.fromkeys(listed) if word != unit.text]
    found = []
    if words and chars is not None:
        texts = [swaps.with_word(asked.written.text, chars, word) for word in words]
        for word, (ids, _) in zip(words, encode_plain(asked.written.reader, texts), strict=True):
            row = [*bos_ids(asked.written.reader), *ids, *own[asked.n_text :]]
            if len(row) == max(asked.n_text, len(own)):
                row = row[: len(own)]
                if row[: unit.start] == own[: unit.start] and row[unit.stop :] == own[unit.stop :]:
                    found.append((word, row))
    if not found and unit.start > 0 and unit.stop - unit.start == 1:
        found = [(word, [*own[: unit.start], new, *own[unit.stop :]]) for word, new in _expected(asked, unit, whole)]
    return found[:OTHERS]


def _expected(asked: Setting, unit: Unit, whole: Beginning) -> Iterator[tuple[str, int]]:
    """Tokens that the model expects in the place of one, as it begins: with a space, a letter, a small one."""
    reader: Any = asked.model.tokenizer
    before, last = asked.ids[: unit.start].tolist(), unit.start - 1
    logits = whole.first(last).logits(Prompts.from_ids([before]), np.array([last]))[0, 0, : len(reader)]

    def kind(text: str) -> tuple[bool, bool, bool]:
        return text[:1].isspace(), goes_on(text.strip()), text.strip().islower()

    own = int(asked.ids[unit.start])
    form = kind(str(reader.decode([own])))
    likely = [
        (text.strip(), token)
        for token in logits.topk(min(LOOKED_AT, len(reader))).indices.tolist()
        if token != own and (text := str(reader.decode([token]))).strip() and kind(text) == form
    ][:BEGUN]
    if not likely:
        return
    rows = Prompts.from_ids([[*before, token] for _, token in likely])
    after = whole.first(unit.start).logits(rows, np.array([unit.start]))[:, 0, : len(reader)]
    letter = likely[0][0][-1:]
    for one, ends in zip(likely, word_ends(after.log_softmax(dim=-1), asked.pieces, letter), strict=True):
        if ends or not goes_on(one[0]):
            yield one


def _labelled(
    asked: Setting,
    cut: dict[str, Float[np.ndarray, " word"]],
    swapped: dict[str, Float[np.ndarray, "word other"]],
    words: np.ndarray,
    gradients: dict[str, Float[np.ndarray, " word"]],
    steps: int,
    base: _Read,
) -> xr.Dataset:
    reader: Any = asked.model.tokenizer
    names = {
        "stream": ("fraction", "change of the target's own stream, as a share of its length"),
        "kl": ("nats", "change of what is predicted, KL(sentence || changed)"),
        "log_probability": ("nats", "change of the predicted token's log-probability"),
    }
    variables = {
        f"knockout_{name}": Variable((_WORD,), cut[name], units, f"{said}, attention to the word cut")
        for name, (units, said) in names.items()
    }
    variables |= {
        f"swap_{name}": Variable((_WORD, "other"), swapped[name], units, f"{said}, another word in the word's place")
        for name, (units, said) in names.items()
    }
    long = {"input_x_gradient": "input times gradient", "integrated_gradients": "integrated gradients"}
    for name, values in gradients.items():
        variables[name] = Variable(
            (_WORD,), values, "nats" if name in long else "nats per unit length", long.get(name, name)
        )
    swap = mean(np.abs(swapped["log_probability"]))
    ways = np.stack([swap, cut["log_probability"], *(gradients[name] for name in METHODS[2:])])
    agreement = np.array([[_agreement(one, other) for other in ways] for one in ways])
    variables["agreement"] = Variable(("way", "other_way"), agreement, "", "Spearman correlation of absolute sizes")
    return results.build(
        variables,
        coords={
            "word": [f"{unit.text}@{unit.start}" for unit in asked.units],
            "text": (_WORD, asked.names),
            "first_token": (_WORD, [unit.start for unit in asked.units]),
            "other": np.arange(OTHERS),
            "other_word": ((_WORD, "other"), words.astype(str)),
            "way": list(METHODS),
            "other_way": list(METHODS),
        },
        title="Which words matter",
        question="Which words of the context matter to the target?",
        reading="Another word: one stands in the word's place. Attention cut: the target may not look at the word, in "
        "any layer; of both a negative number says that the word helps. Gradients: of the predicted token's "
        "log-probability; a positive number says that the word helps. Ranks are of absolute sizes.",
        source="Geva et al. 2023, arXiv 2304.14767; Sarti et al. 2023, arXiv 2302.13942",
        of=(asked.model, asked.answered),
        seed=0,
        extra={
            "task": "explain",
            "says": str(reader.decode([asked.says])),
            "probability": float(base.predicted[0, asked.says].exp()),
            "generated": int(asked.generated),
            "steps": steps,
            "rounding": ROUNDING * torch.finfo(asked.model.dtype).eps,
        },
        dims={
            "word": "word of the context, with its first token",
            "other": "other word that was put in the place of one",
            "way": "way of asking",
            "other_way": "way of asking that it is compared with",
        },
    )  # fmt: skip


def _agreement(one: Float[np.ndarray, " word"], other: Float[np.ndarray, " word"]) -> float:
    """Spearman correlation of absolute sizes over the words that both have a number of, ``RANKED`` at least."""
    both = np.isfinite(one) & np.isfinite(other)
    return stats.spearman(np.abs(one[both]), np.abs(other[both])) if both.sum() >= RANKED else float("nan")
