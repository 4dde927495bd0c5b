"""Takes rows through the layers in one batch, to the metric of each. The batch grows at each layer where rows join."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import sites
from interp.model.arithmetic import Blocks, Tap, at_positions
from interp.readouts import Place
from interp.sweeps.exact.cache import Cache
from interp.sweeps.exact.planner import Group
from interp.sweeps.reading import Reading

Values = Callable[[Group], Float[Tensor, "row token d_model"]]
"""Gives the stream of a group's rows where they join the batch: the tokens from the group's start on, or the scored
positions alone if the group is ``scored``."""


@dataclass(frozen=True)
class Chunk:
    """What the rows of a chunk of prompts share.

    Attributes:
        blocks: the model.
        base: the run that is changed.
        answers: [prompt, answer] scored positions.
    """

    blocks: Blocks
    base: Cache
    answers: Int[Tensor, "prompt answer"]

    @cached_property
    def scored_at(self) -> Int[np.ndarray, "prompt answer"]:
        """The scored positions as a NumPy array."""
        return self.answers.cpu().numpy()

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.blocks.layers)

    def index(self, rows: object) -> Int[Tensor, " row"]:
        """Row numbers on the model's device."""
        return torch.as_tensor(rows, device=self.answers.device)

    def gather(self, site: str, layer: int, prompt: Int[Tensor, " row"], start: int, end: int) -> Tensor:
        """Tokens ``start`` to ``end`` of the unchanged run, for each row."""
        return self.base[site, layer][:, start:end].index_select(0, prompt)

    def at_answers(self, tokens: Float[Tensor, "row token ..."], prompt: Int[Tensor, " row"], start: int) -> Tensor:
        """The scored positions of rows whose tokens begin at ``start``."""
        return at_positions(tokens, self.answers[prompt] - start)

    def take(self, values: Tensor, prompt: Int[Tensor, " row"], group: Group) -> Tensor:
        """Stored values at the tokens of a group's rows, or (``late``) at their scored positions alone."""
        if group.late:
            return values[prompt.unsqueeze(1), self.answers[prompt]]
        return values[:, group.start : group.end].index_select(0, prompt)

    def seen(self, at: Int[Tensor, "row dest"], end: int) -> Tensor | None:
        """Which query sees which key [row, 1, dest, src]; None where every query sees every key."""
        if bool((at == end - 1).all()):
            return None
        return (at.unsqueeze(-1) >= torch.arange(end, device=at.device)).unsqueeze(1)

    def span(self, start: int, end: int) -> Int[Tensor, "row dest"]:
        """The positions ``start`` to ``end``, the same for every row."""
        return torch.arange(start, end, device=self.answers.device).unsqueeze(0)


class Reader:
    """A tap that keeps the activation that is read, and leaves it as it is."""

    def __init__(self, place: Place) -> None:
        """Read this activation, which is within a block."""
        self.place = place
        self._at = place.site, place.layer
        self._kept: Tensor | None = None

    def __call__(self, site: str, layer: int, value: Tensor) -> Tensor:
        """Keep the value if it is the activation that is read."""
        if (site, layer) == self._at:
            self._kept = value
        return value

    def after(self, edit: Tap, as_read: Callable[[str, Tensor], Tensor]) -> Tap:
        """The same edit, with this reader keeping what comes of it; ``as_read`` says how that looks to the read-out."""

        def see(site: str, layer: int, value: Tensor) -> Tensor:
            changed = edit(site, layer, value)
            if (site, layer) == self._at:
                self._kept = as_read(site, changed)
            return changed

        return see

    @property
    def value(self) -> Tensor:
        """The activation of the whole site."""
        assert self._kept is not None
        return self._kept


@dataclass(frozen=True)
class Member:
    """The rows of one group in a batch. Their tokens lie one row after the other, each row's from its own start on.

    Attributes:
        chunk: what the rows share.
        group: the rows.
        prompt: [row] their prompts.
    """

    chunk: Chunk
    group: Group
    prompt: Int[Tensor, " row"]

    @cached_property
    def sizes(self) -> Int[np.ndarray, " row"]:
        """Tokens of each row."""
        return self.group.end - self.group.starts

    @cached_property
    def n_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.sizes.sum())

    @cached_property
    def own(self) -> Bool[np.ndarray, "row token"] | None:
        """Which tokens from the group's start on each row computes itself; None where it computes all of them."""
        if self.group.uniform:
            return None
        return np.arange(self.group.start, self.group.end) >= self.group.starts[:, None]

    @cached_property
    def positions(self) -> Int[Tensor, "#row token"]:
        """Positions of the tokens: one row of them where all rows have the same, else token by token."""
        if self.own is None:
            return self.chunk.span(self.group.start, self.group.end)
        return self.chunk.index(self.own.nonzero()[1] + self.group.start)

    def _places(self, first: int) -> Int[Tensor, " token"]:
        """The index of each token in rows that lie one after the other, all from token ``first`` on."""
        assert self.own is not None
        row, token = self.own.nonzero()
        return self.chunk.index(row * (self.group.end - first) + token + self.group.start - first)

    @cached_property
    def in_padded(self) -> Int[Tensor, " token"]:
        """The index of each token in rows that all lie from the group's start on."""
        return self._places(self.group.start)

    @cached_property
    def in_whole(self) -> Int[Tensor, " token"]:
        """The index of each token in whole prompts that lie one after the other."""
        return self._places(0)

    @cached_property
    def scored(self) -> Int[Tensor, " answer"]:
        """Which tokens are scored positions."""
        before = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]) - self.group.starts
        return (self.chunk.answers[self.prompt] + self.chunk.index(before).unsqueeze(1)).flatten()

    def kept(self, rows: Float[Tensor, "row token ..."]) -> Float[Tensor, "token ..."]:
        """Each row's own tokens, picked out of rows that all lie from the group's start on."""
        flat = rows.flatten(0, 1)
        return flat if self.own is None else flat.index_select(0, self.in_padded)

    def padded(self, tokens: Float[Tensor, "token head d_head"]) -> Float[Tensor, "row token head d_head"]:
        """Rows that all lie from the group's start on, with 0 in place of tokens that a row does not compute itself."""
        shape = (self.group.rows, self.group.end - self.group.start, *tokens.shape[1:])
        if self.own is None:
            return tokens.reshape(shape)
        out = tokens.new_zeros(shape)
        out.flatten(0, 1).index_copy_(0, self.in_padded, tokens)
        return out

    def whole(
        self, site: str, layer: int, tokens: Float[Tensor, "token kv_head d_head"]
    ) -> Float[Tensor, "row src kv_head d_head"]:
        """Keys or values of whole prompts: the unchanged run's before a row's start, then the row's own."""
        start, end = self.group.start, self.group.end
        if self.own is None and start == 0:
            return self.padded(tokens)
        out = self.chunk.gather(site, layer, self.prompt, 0, end)
        if self.own is None:
            out[:, start:] = self.padded(tokens)
        else:
            out.flatten(0, 1).index_copy_(0, self.in_whole, tokens)
        return out


def run_batch(chunk: Chunk, groups: Sequence[Group], values: Values, reading: Reading) -> list[Float[Tensor, " row"]]:
    """The metric of every row of every group (groups in the order in which they join)."""
    last = chunk.n_layers - 1
    members: list[Member] = []
    stream: Tensor | None = None  # every token of every member, [token, d_model]
    waiting = deque(groups)

    def join_at(order: int) -> None:
        nonlocal stream
        parts = [] if stream is None else [stream]
        while waiting and waiting[0].order == order:
            group = waiting.popleft()
            member = Member(chunk, group, chunk.index(group.prompt))
            members.append(member)
            new = values(group)
            parts.append(new.flatten(0, 1) if group.scored else member.kept(new))
        if len(parts) > (stream is not None):
            stream = torch.cat(parts) if len(parts) > 1 else parts[0]

    for layer in range(groups[0].join[0], chunk.n_layers if reading.inside is None else last):
        join_at(2 * layer)
        if stream is not None:
            stream = _attention(chunk, layer, members, stream)
        join_at(2 * layer + 1)
        if stream is not None:
            stream = chunk.blocks.after_mlp(layer, stream)
    if reading.inside is not None:
        join_at(2 * last)
        if stream is not None:
            stream = _read_within(chunk, members, stream, reading.inside)
    join_at(2 * last + 2)
    assert stream is not None
    return _read(chunk, members, stream, reading)


def _attention(
    chunk: Chunk, layer: int, members: Sequence[Member], stream: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token d_model"]:
    """``resid_mid`` of every token; in the last layer of the scored positions only."""
    stream, z = _mixed(chunk, layer, members, stream)
    return stream + chunk.blocks.layers[layer].o(z)


def _mixed(
    chunk: Chunk, layer: int, members: Sequence[Member], stream: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, "token width"]]:
    """``resid_pre`` and ``z`` of every token; in the last layer of the scored positions only."""
    blocks, block = chunk.blocks, chunk.blocks.layers[layer]
    last = layer == chunk.n_layers - 1
    sizes = [member.n_tokens for member in members]
    x = block.ln1(stream)
    k, v = (blocks.heads(linear(x)) for linear in (block.k, block.v))
    if last:
        picked = _scored(members)
        stream, x = stream.index_select(0, picked), x.index_select(0, picked)
    q = blocks.heads(block.q(x))
    queries = torch.split(q, [member.group.answers * member.group.rows for member in members] if last else sizes)
    out = []
    for member, own_q, own_k, own_v in zip(members, queries, torch.split(k, sizes), torch.split(v, sizes), strict=True):
        out.append(_attended(member, layer, own_q, own_k, own_v, last=last))
    return stream, torch.cat(out) if len(out) > 1 else out[0]


def _scored(members: Sequence[Member]) -> Int[Tensor, " answer"]:
    """Which of the members' tokens are scored positions."""
    offsets = np.cumsum([0, *(member.n_tokens for member in members[:-1])]).tolist()
    scored = [member.scored + offset for member, offset in zip(members, offsets, strict=True)]
    return torch.cat(scored) if len(scored) > 1 else scored[0]


def _read_within(
    chunk: Chunk, members: Sequence[Member], stream: Float[Tensor, "token d_model"], place: Place
) -> Float[Tensor, "answer width"]:
    """What is read within the last layer, at the scored positions, from the stream before it."""
    blocks, reader, layer = chunk.blocks, Reader(place), place.layer
    if sites.site(place.site).precedes("attention"):
        at = torch.cat([chunk.answers[member.prompt].flatten() for member in members])
        blocks.projected(layer, stream.index_select(0, _scored(members)), at, chunk.base.length, reader)
    else:
        stream, z = _mixed(chunk, layer, members, stream)
        blocks.after_attention(layer, stream, blocks.heads(z), reader, (place.site,))
    return place.of(reader.value.unsqueeze(1)).squeeze(1)


def _attended(
    member: Member,
    layer: int,
    q: Float[Tensor, "dest head d_head"],
    k: Float[Tensor, "token kv_head d_head"],
    v: Float[Tensor, "token kv_head d_head"],
    *,
    last: bool,
) -> Float[Tensor, "dest width"]:
    """``z`` of a member's tokens, or of its scored positions alone."""
    chunk, group, length = member.chunk, member.group, member.chunk.base.length
    blocks = chunk.blocks
    keys = member.whole("k", layer, _rotated(member, k))
    values = member.whole("v", layer, v)
    if last:
        at = chunk.answers[member.prompt]
        q = blocks.rotate(q.reshape(group.rows, -1, *q.shape[1:]), at, length)
        return blocks.attend(q, keys, values, chunk.seen(at, group.end)).flatten(2).flatten(0, 1)
    q = member.padded(_rotated(member, q))
    z = blocks.attend(q, keys, values, chunk.seen(chunk.span(group.start, group.end), group.end))
    return member.kept(z.flatten(2))


def _rotated(member: Member, tokens: Float[Tensor, "token head d_head"]) -> Float[Tensor, "token head d_head"]:
    blocks, length = member.chunk.blocks, member.chunk.base.length
    if blocks.angles is None:
        return tokens
    if member.own is None:
        return blocks.rotate(member.padded(tokens), member.positions, length).flatten(0, 1)
    return blocks.rotate(tokens, member.positions, length)


def _read(
    chunk: Chunk, members: Sequence[Member], stream: Float[Tensor, "token d_model"], reading: Reading
) -> list[Float[Tensor, " row"]]:
    prompt = torch.cat([member.prompt for member in members]).cpu()
    scored = reading.rows(prompt).of_streams(chunk.blocks, stream.reshape(len(prompt), -1, stream.shape[-1]))
    return list(torch.split(scored, [member.group.rows for member in members]))
