"""Runs of the same prompts from one place on, again and again under other edits of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run
from interp.attribution.gradients import Differentiable
from interp.interventions import Intervention
from interp.model.arithmetic import Blocks, at_positions
from interp.prompts import PromptPairs
from interp.prompts.places import At, token_mask
from interp.sweeps import Reading, checked_reading, scored_parts
from interp.sweeps.reading import run_named

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Edit: TypeAlias = Callable[[Tensor, Int[np.ndarray, " row"]], Tensor]
"""The new activation of some prompts, from what it is [row, position, *site dims] and their numbers among all."""


@dataclass(frozen=True)
class _Begun:
    """What is known of a batch before its edit: nothing before its first token that matters is run again.

    Attributes:
        first: the first token that is edited or scored.
        stream: the stream before the edited layer, from that token on.
        before: layer -> rotated keys, and values, of the tokens before it, from the edited layer on.
    """

    first: int
    stream: Float[Tensor, "row token d_model"]
    before: Mapping[int, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, blocks: Blocks, ids: Int[Tensor, "row position"], layer: int, first: int) -> _Begun:
        """By one plain run."""
        keys: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}
        streams: list[Tensor] = []

        def see(site: str, at: int, value: Tensor) -> Tensor:
            if site == "rot_k" and at >= layer:
                keys[at] = value[:, :first].clone()
            elif site == "v" and at >= layer:
                values[at] = value[:, :first].clone()
            elif site == "resid_pre" and at == layer:
                streams.append(value[:, first:].clone())
            return value

        with torch.no_grad():
            blocks.forward(ids, tap=see, fused=True)
        return cls(first, streams[0], {at: (keys[at], values[at]) for at in keys})


@dataclass(frozen=True)
class _Batch:
    """Some prompts of one scored part: their rows among all, what is read of them, and which tokens are edited.

    ``begun`` is None where the run goes through hooks, from its beginning.
    """

    sign: float
    rows: Int[np.ndarray, " row"]
    ids: Int[Tensor, "row position"]
    reading: Reading
    tokens: Bool[Tensor, "row position"]
    begun: _Begun | None


@dataclass(frozen=True)
class Runs:
    """One of the two runs of some pairs, which is edited at one place.

    Attributes:
        model: the model; gradients can be taken through it.
        pairs: the pairs.
        site: where the run is edited.
        layer: where the run is edited.
        batches: the prompts.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> runs = Runs.of(model, pairs, "clean", site="resid_pre", layer=2, at="answer")
    >>> bool((runs.metric(lambda activation, rows: activation) > 0).all())  # the right answers, unedited
    True
    """

    model: Differentiable
    pairs: PromptPairs
    site: str
    layer: int
    batches: tuple[_Batch, ...]

    @classmethod
    def of(cls, model: HookedTransformer, pairs: PromptPairs, which: str, *, site: str, layer: int, at: At) -> Runs:
        """The ``"clean"`` or ``"corrupted"`` run of the pairs, read by the logit difference of their answers.

        Raises:
            InterpError: a site, layer or role that is not there, or a site that cannot be changed.
        """
        model.check_editable(site)
        through = Differentiable.of(model, site)
        found: list[_Batch] = []
        for sign, part, metric in scored_parts(pairs, "logit_difference"):
            prompts, reading = run_named(part, which), checked_reading(model, part, metric)
            tokens = token_mask(prompts, at)
            for rows in through.batches(prompts):
                ids = run.ids_of(prompts.select(rows)).to(model.device)
                here = tokens[rows][:, : ids.shape[1]]
                own, begun = reading.rows(torch.from_numpy(rows)), None
                if through.blocks is not None:
                    first = min(int(here.any(axis=0).argmax()), int(own.positions.min()))
                    begun = _Begun.of(through.blocks, ids, layer, first)
                mask = torch.from_numpy(here).to(model.device)
                found.append(_Batch(sign, rows, ids, own, mask, begun))
        return cls(through, pairs, site, layer, tuple(found))

    def metric(self, edit: Edit) -> Float[Tensor, " prompt"]:
        """The logit difference of each prompt, differentiable where ``edit`` is; of whole answers their log-ratio."""
        total = torch.zeros(len(self.pairs), dtype=torch.float64)
        for batch in self.batches:
            if batch.begun is None:
                logits = self.model.read(batch.ids, batch.reading, {(self.site, self.layer): self._edit(batch, edit)})
                scores = batch.reading(logits)
            else:
                assert self.model.blocks is not None
                scores = batch.reading.of_streams(self.model.blocks, self._answers(batch, edit))
            total = total.index_add(0, torch.from_numpy(batch.rows), batch.sign * scores)
        return total

    def measured(self, item: Intervention) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """The logit difference under an intervention, and KL(this run unedited || edited) in nats.

        The divergence is at the scored positions; NaN for whole answers, which have two sets of them.
        """

        def edit(activation: Tensor, rows: Int[np.ndarray, " row"]) -> Tensor:
            return item.edit(activation, self.layer, rows)

        with torch.no_grad():
            scores = self.metric(edit).numpy()
            apart = np.full(len(self.pairs), np.nan)
            if len({batch.sign for batch in self.batches}) == 1:
                for batch, plain in zip(self.batches, self._plain, strict=True):
                    now = self._said(batch, edit)
                    divergence = (plain.exp() * (plain - now)).sum(dim=-1).cpu() * batch.reading.present
                    apart[batch.rows] = divergence.sum(dim=1).numpy()
        return scores, apart

    @cached_property
    def _plain(self) -> tuple[Float[Tensor, "row answer vocab"], ...]:
        """Log-probabilities of the run unedited, by batch."""
        return tuple(self._said(batch, _as_it_is) for batch in self.batches)

    def _said(self, batch: _Batch, edit: Edit) -> Float[Tensor, "row answer vocab"]:
        """Log-probabilities at the scored positions."""
        if batch.begun is None:
            logits = self.model.read(batch.ids, batch.reading, {(self.site, self.layer): self._edit(batch, edit)})
        else:
            assert self.model.blocks is not None
            logits = self.model.blocks.logits(self._answers(batch, edit))
        return logits.double().log_softmax(dim=-1)

    def _answers(self, batch: _Batch, edit: Edit) -> Float[Tensor, "row answer d_model"]:
        """The last stream at the scored positions, run from the edited layer on."""
        blocks, begun = self.model.blocks, batch.begun
        assert blocks is not None
        assert begun is not None
        stream, length = begun.stream, batch.ids.shape[1]
        positions = torch.arange(length, device=stream.device)
        causal = positions[begun.first :, None] >= positions[None, :]
        change = self._edit(batch, edit)

        def see(site: str, layer: int, value: Tensor) -> Tensor:
            return change(value) if (site, layer) == (self.site, self.layer) else value

        for layer in range(self.layer, len(blocks.layers)):
            stream = blocks.block(
                layer, stream, positions[begun.first :], length, causal,
                see=see, within=(self.site,), before=begun.before[layer],
            )  # fmt: skip
        return at_positions(stream, batch.reading.positions - begun.first)

    def _edit(self, batch: _Batch, edit: Edit) -> Callable[[Tensor], Tensor]:
        first = 0 if batch.begun is None else batch.begun.first
        tokens = batch.tokens[:, first:]

        def change(value: Tensor) -> Tensor:
            mask = tokens.reshape(*tokens.shape, *(1,) * (value.ndim - 2))
            whole = torch.nn.functional.pad(value, (*(0, 0) * (value.ndim - 2), first, 0))  # as edits count tokens
            return torch.where(mask, edit(whole, batch.rows)[:, first:].to(value.dtype), value)

        return change


def _as_it_is(activation: Tensor, rows: Int[np.ndarray, " row"]) -> Tensor:
    return activation
