"""Rows riding through the layers in one growing batch, from where each joins to its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.blocks import Blocks, at_positions
from interp.sweep.plan import Entry
from interp.sweep.readout import Readout
from interp.sweep.stored import Stored

Values = Callable[[Entry], Float[Tensor, "row token d_model"]]
"""What an entry's rows bring: their stream where they join (the scored positions alone, once only those matter)."""


@dataclass(frozen=True)
class Chunk:
    """What the rows of a chunk of prompts share.

    Attributes:
        blocks: the model.
        base: the run that is changed.
        answers: [prompt, answer] scored positions.
    """

    blocks: Blocks
    base: Stored
    answers: Int[Tensor, "prompt answer"]

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

    def take(self, values: Tensor, prompt: Int[Tensor, " row"], entry: Entry, *, scored: bool) -> Tensor:
        """Stored values at the tokens of an entry's rows, or at their scored positions alone."""
        if scored:
            return values[prompt.unsqueeze(1), self.answers[prompt]]
        return values[:, entry.start : entry.end].index_select(0, prompt)

    def keys_and_values(
        self, layer: int, prompt: Int[Tensor, " row"], start: int, k: Tensor, v: Tensor
    ) -> tuple[Float[Tensor, "row src kv_head d_head"], Float[Tensor, "row src kv_head d_head"]]:
        """Unchanged keys and values of the tokens before ``start``, then the rows' own."""
        if start == 0:
            return k, v
        before = (self.gather(site, layer, prompt, 0, start) for site in ("k", "v"))
        k, v = (torch.cat((old, new), dim=1) for old, new in zip(before, (k, v), strict=True))
        return k, v

    def seen(self, at: Int[Tensor, "row dest"], end: int) -> Tensor | None:
        """Who sees whom [row, 1, dest, src]; None where every query sees every key."""
        if bool((at == end - 1).all()):
            return None
        return (at.unsqueeze(-1) >= torch.arange(end, device=at.device)).unsqueeze(1)

    def span(self, start: int, end: int) -> Int[Tensor, "row dest"]:
        """The positions ``start`` to ``end``, the same for every row."""
        return torch.arange(start, end, device=self.answers.device).unsqueeze(0)


@dataclass
class Group:
    """Rows of one entry in a batch."""

    entry: Entry
    prompt: Int[Tensor, " row"]

    @property
    def tokens(self) -> int:
        """Tokens of a row."""
        return self.entry.end - self.entry.start


def ride(chunk: Chunk, entries: Sequence[Entry], values: Values, readout: Readout) -> list[Float[Tensor, " row"]]:
    """The metric of every row of every entry (entries in the order in which they join)."""
    last = chunk.n_layers - 1
    groups: list[Group] = []
    stream: Tensor | None = None  # every token of every group, [token, d_model]
    waiting = list(entries)

    def board(order: int) -> None:
        nonlocal stream
        parts = [] if stream is None else [stream]
        while waiting and waiting[0].order == order:
            entry = waiting.pop(0)
            groups.append(Group(entry, chunk.index(entry.prompt)))
            parts.append(values(entry).flatten(0, 1))
        if len(parts) > (stream is not None):
            stream = torch.cat(parts) if len(parts) > 1 else parts[0]

    for layer in range(entries[0].join[0], chunk.n_layers):
        board(2 * layer)
        if stream is not None:
            stream = _attention(chunk, layer, groups, stream)
        board(2 * layer + 1)
        if stream is not None:
            stream = chunk.blocks.after_mlp(layer, stream)
    board(2 * last + 2)
    assert stream is not None
    return _read(chunk, groups, stream, readout)


def _attention(
    chunk: Chunk, layer: int, groups: Sequence[Group], stream: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token d_model"]:
    """``resid_mid`` of every token; in the last layer of the scored positions only."""
    blocks, block = chunk.blocks, chunk.blocks.layers[layer]
    last = layer == chunk.n_layers - 1
    sizes = [len(group.prompt) * group.tokens for group in groups]
    x = block.ln1(stream)
    if last:
        own = [_rows(part, group) for part, group in zip(torch.split(stream, sizes), groups, strict=True)]
        stream = torch.cat([_answers(chunk, part, group) for part, group in zip(own, groups, strict=True)])
        queries = [
            block.q(block.ln1(part)) for part in torch.split(stream, [g.entry.answers * len(g.prompt) for g in groups])
        ]
    else:
        queries = list(torch.split(block.q(x), sizes))
    keys, mixed = torch.split(block.k(x), sizes), torch.split(block.v(x), sizes)
    out = []
    for group, q, k, v in zip(groups, queries, keys, mixed, strict=True):
        n, start, end = len(group.prompt), group.entry.start, group.entry.end
        own_at = chunk.span(start, end)
        at = chunk.answers[group.prompt] if last else own_at
        q, k, v = (blocks.heads(part.reshape(n, -1, part.shape[-1])) for part in (q, k, v))
        q = blocks.rotate(q, at, chunk.base.length)
        k = blocks.rotate(k, own_at, chunk.base.length)
        k, v = chunk.keys_and_values(layer, group.prompt, start, k, v)
        out.append(blocks.attend(q, k, v, chunk.seen(at, end)).flatten(2).flatten(0, 1))
    return stream + block.o(torch.cat(out) if len(out) > 1 else out[0])


def _rows(tokens: Float[Tensor, "token d_model"], group: Group) -> Float[Tensor, "row token d_model"]:
    return tokens.reshape(len(group.prompt), group.tokens, -1)


def _answers(chunk: Chunk, rows: Float[Tensor, "row token d_model"], group: Group) -> Float[Tensor, "token d_model"]:
    return chunk.at_answers(rows, group.prompt, group.entry.start).flatten(0, 1)


def _read(
    chunk: Chunk, groups: Sequence[Group], stream: Float[Tensor, "token d_model"], readout: Readout
) -> list[Float[Tensor, " row"]]:
    prompt = torch.cat([group.prompt for group in groups]).cpu()
    scored = readout.rows(prompt).of_streams(chunk.blocks, stream.reshape(len(prompt), -1, stream.shape[-1]))
    return list(torch.split(scored, [len(group.prompt) for group in groups]))
