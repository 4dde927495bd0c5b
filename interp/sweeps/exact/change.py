"""What a change makes of the residual stream, up to where its rows join the batch.

Only the changed tokens and heads of the changed layer are computed again, then what reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import sites
from interp.errors import InterpError
from interp.model.arithmetic import Linear
from interp.sweeps.cells import Cells, Part
from interp.sweeps.exact.batch import Chunk
from interp.sweeps.exact.cache import FromRun, Source
from interp.sweeps.exact.planner import AFTER_MLP, Entry, check_known, runs_of


@dataclass(frozen=True)
class Change:
    """What a sweep changes: the site, its cells, and the new values."""

    chunk: Chunk
    site: str
    cells: Cells
    source: Source

    def values(self, entry: Entry) -> Float[Tensor, "row token d_model"]:
        """The stream of an entry's rows where they join."""
        rows = _Rows.of(self, entry)
        if entry.general:
            return _edited(self, rows)
        layer, last = entry.layer, self.chunk.n_layers - 1
        if self.site == "resid_pre":
            new = rows.replaced("resid_pre", layer)
            return new if layer > last else _from_pre(self.chunk, rows, layer, new, self.known)
        check_known(self.site)
        if self.site in AFTER_MLP:
            post = _after_mlp(self, rows, layer)
            return post if layer == last else _from_pre(self.chunk, rows, layer + 1, post)
        mid = _mid(self, rows, layer)
        if layer == last or entry.dense:
            return mid
        post = self.chunk.gather("resid_pre", layer + 1, rows.prompt, entry.start, entry.end)
        post[rows.where] = self.chunk.blocks.after_mlp(layer, mid[rows.where])
        return _from_pre(self.chunk, rows, layer + 1, post)

    @property
    def known(self) -> Source | None:
        """The source, where it has the queries, keys and values that its residual stream leads to."""
        return self.source if isinstance(self.source, FromRun) and self.site == "resid_pre" else None


@dataclass(frozen=True)
class _Rows:
    """The rows of one entry, on the model's device.

    ``at`` [row or 1, token] are the positions that are computed: ``start`` to ``end``, or the scored ones where the
    change is in the last layer after its keys and values (``entry.late``).
    """

    change: Change
    entry: Entry
    prompt: Int[Tensor, " row"]
    at: Int[Tensor, "row token"]

    @classmethod
    def of(cls, change: Change, entry: Entry) -> _Rows:
        chunk = change.chunk
        prompt = chunk.index(entry.prompt)
        at = chunk.answers[prompt] if entry.late else chunk.span(entry.start, entry.end)
        return cls(change, entry, prompt, at)

    @cached_property
    def named(self) -> Bool[np.ndarray, "row position"]:
        """Which tokens of the prompt each row's cell names."""
        cells, entry = self.change.cells, self.entry
        return np.asarray(cells.tokens.numpy()[cells.place[entry.cell], entry.prompt])

    @cached_property
    def _mask(self) -> Bool[np.ndarray, "row token"]:
        entry = self.entry
        if not entry.late:
            return self.named[:, entry.start : entry.end]
        return np.asarray(np.take_along_axis(self.named, self.change.chunk.scored_at[entry.prompt], axis=1))

    @cached_property
    def changed(self) -> Bool[Tensor, "row token"]:
        """Which of the computed tokens the cell names."""
        return self.change.chunk.index(self._mask)

    @cached_property
    def where(self) -> tuple[Int[Tensor, " changed"], Int[Tensor, " changed"]]:
        """Row, and number among the computed tokens, of each changed token."""
        row, token = self._mask.nonzero()
        return self.change.chunk.index(row), self.change.chunk.index(token)

    @cached_property
    def places(self) -> tuple[Int[Tensor, " changed"], Int[Tensor, " changed"]]:
        """Prompt and position of each changed token."""
        row, token = self.where
        at = self.at[row, token] if self.entry.late else token + self.entry.start
        return self.prompt[row], at

    def pick(self, values: Float[Tensor, "prompt position ..."]) -> Float[Tensor, "row token ..."]:
        """Stored values at the computed tokens."""
        return self.change.chunk.take(values, self.prompt, self.entry)

    def base(self, site: str, layer: int) -> Tensor:
        """The unchanged run at the computed tokens."""
        return self.pick(self.change.chunk.base[site, layer])

    def replaced(self, site: str, layer: int) -> Float[Tensor, "row token d_model"]:
        """The unchanged activation, with the new one at the changed tokens."""
        base = self.base(site, layer)
        base[self.where] = self.change.source.at(site, layer)[self.places].to(base.dtype)
        return base

    def by_unit_count(self) -> Iterator[tuple[slice, list[tuple[tuple[int, ...] | None, int]]]]:
        """Consecutive rows that change equally many heads; within them, which heads how many rows change."""
        runs: list[tuple[tuple[int, ...] | None, int]] = []
        start = 0
        for units, part in self.by_units():
            if runs and len(units or ()) != len(runs[0][0] or ()):
                yield slice(start, part.start), runs
                start, runs = part.start, []
            runs.append((units, part.stop - part.start))
        yield slice(start, len(self.entry.cell)), runs

    def by_units(self) -> Iterator[tuple[tuple[int, ...] | None, slice]]:
        """Consecutive rows that change the same heads or neurons."""
        return runs_of([self.change.cells.parts[cell][0].units for cell in self.entry.cell.tolist()])


# ---- changes after attention ----


def _mid(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    """``resid_mid`` at the computed tokens."""
    mid = rows.base("resid_mid", layer)
    if sites.site(change.site).has_heads:
        _add_heads(change, rows, layer, mid)
        return mid
    new = rows.pick(change.source.at(change.site, layer)).to(mid.dtype)
    match change.site:
        case "attn_out":
            new = rows.base("resid_pre", layer) + new
        case "resid_mid":
            pass
        case _:
            raise _unwritten(change.site)
    return torch.where(rows.changed.unsqueeze(-1), new, mid)


def _unwritten(site: str) -> InterpError:
    return InterpError(
        f"What a change of site '{site}' makes of the stream is not written in interp.sweeps.exact.change."
    )


def _after_mlp(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    """``resid_post`` at the computed tokens."""
    base = rows.base("resid_pre", layer + 1)
    changed = rows.changed
    new = change.source.at(change.site, layer)
    if change.site == "mlp_post":
        weight = change.chunk.blocks.layers[layer].mlp_out.weight
        for units, part in rows.by_units():
            where = changed[part].nonzero(as_tuple=True)
            picked = _sub(rows, part)
            own = picked.base("mlp_post", layer)[where]
            moved = picked.pick(new)[where].to(own.dtype) - own
            index = slice(None) if units is None else torch.tensor(units, device=own.device)
            delta = moved[:, index].to(weight.dtype) @ weight[index]
            base[part][where] += delta.to(base.dtype)
        return base
    value = rows.pick(new).to(base.dtype)
    match change.site:
        case "mlp_out":
            value = rows.base("resid_mid", layer) + value
        case "resid_post":
            pass
        case _:
            raise _unwritten(change.site)
    return torch.where(changed.unsqueeze(-1), value, base)


def _sub(rows: _Rows, part: slice) -> _Rows:
    at = rows.at[part] if len(rows.at) > 1 or rows.entry.late else rows.at
    return _Rows(rows.change, rows.entry.part(part), rows.prompt[part], at)


def _add_heads(change: Change, rows: _Rows, layer: int, mid: Float[Tensor, "row token d_model"]) -> None:
    """Add to ``mid`` what the changed heads write differently."""
    blocks = change.chunk.blocks
    weight = blocks.layers[layer].o.weight.reshape(blocks.n_heads, blocks.d_head, -1)  # head d_head d_model
    for part, runs in rows.by_unit_count():
        sub = _sub(rows, part)
        named = [_query_heads(change, units) for units, _ in runs]
        lengths = [length for _, length in runs]
        index = torch.tensor(named, device=mid.device)  # run head
        heads = index.repeat_interleave(torch.tensor(lengths, device=mid.device), dim=0)
        old = _of_heads(sub.base("z", layer), heads)
        moved = _new_z(change, sub, layer, heads).to(old.dtype) - old
        if change.site not in sites.KV_SITES:
            moved = torch.where(sub.changed[..., None, None], moved, 0)
        flat = moved.flatten(2).to(weight.dtype)
        if len(set(lengths)) == 1:
            n, tokens, width = flat.shape
            written = flat.reshape(len(runs), -1, width) @ weight[index].flatten(1, 2)
            mid[part] += written.reshape(n, tokens, -1).to(mid.dtype)
            continue
        done = part.start
        for own, chosen in zip(torch.split(flat, lengths), index, strict=True):
            mid[done : done + len(own)] += (own @ weight[chosen].flatten(0, 1)).to(mid.dtype)
            done += len(own)


def _of_heads(
    values: Float[Tensor, "row token head d_head"], heads: Int[Tensor, "row own"]
) -> Float[Tensor, "row token own d_head"]:
    """Each row's own heads."""
    n, tokens, _, width = values.shape
    return values.gather(2, heads[:, None, :, None].expand(n, tokens, -1, width))


def _query_heads(change: Change, units: tuple[int, ...] | None) -> list[int]:
    """The query heads whose output a change of these heads (key-value heads, at ``k`` and ``v``) reaches."""
    blocks = change.chunk.blocks
    group = blocks.n_heads // blocks.n_kv_heads
    if units is None:
        return list(range(blocks.n_heads))
    if change.site in sites.KV_SITES:
        return [head * group + i for head in units for i in range(group)]
    return list(units)


def _new_z(
    change: Change, rows: _Rows, layer: int, heads: Int[Tensor, "row head"]
) -> Float[Tensor, "row token head d_head"]:
    """``z`` of each row's own heads after the change."""
    chunk, blocks, entry = change.chunk, change.chunk.blocks, rows.entry
    if change.site == "z":
        return _of_heads(rows.pick(change.source.at("z", layer)), heads)
    shared = heads // (blocks.n_heads // blocks.n_kv_heads)  # the key-value head of each query head
    v = _of_heads(chunk.gather("v", layer, rows.prompt, 0, entry.end), shared)
    if change.site == "pattern":
        pattern = rows.pick(change.source.at("pattern", layer).transpose(1, 2))[..., : entry.end]
        return torch.einsum("rdhs,rshx->rdhx", _of_heads(pattern, heads).to(v.dtype), v)
    q = _of_heads(rows.base("q", layer), heads)
    k = _of_heads(chunk.gather("k", layer, rows.prompt, 0, entry.end), shared)
    seen = chunk.seen(rows.at, entry.end)
    if change.site == "scores":
        assert change.cells.sources is not None
        places = torch.from_numpy(change.cells.place[entry.cell])
        cut = change.cells.sources[places, rows.prompt.cpu(), : entry.end].to(q.device)
        cut = rows.changed[:, None, :, None] & cut[:, None, None, :]
        seen = ~cut if seen is None else seen & ~cut
    elif change.site == "q":
        new = _of_heads(rows.pick(change.source.at("q", layer)), heads)
        q = torch.where(rows.changed[..., None, None], new.to(q.dtype), q)
    elif change.site not in ("k", "v"):
        raise _unwritten(change.site)
    else:
        where = chunk.index(rows.named[:, : entry.end])[..., None, None]
        value = change.source.at(change.site, layer)[:, : entry.end].index_select(0, rows.prompt)
        value = _of_heads(value, shared).to(v.dtype)
        k, v = (torch.where(where, value, k), v) if change.site == "k" else (k, torch.where(where, value, v))
    return blocks.attend(q, k, v, seen)


# ---- changes before attention ----


def _from_pre(
    chunk: Chunk,
    rows: _Rows,
    layer: int,
    stream: Float[Tensor, "row token d_model"],
    known: Source | None = None,
) -> Float[Tensor, "row token d_model"]:
    """``resid_mid`` of a layer whose ``resid_pre`` is changed at some tokens: only their q, k and v are new.

    ``known`` has them, where the stream there is another run's.
    """
    blocks, block, entry = chunk.blocks, chunk.blocks.layers[layer], rows.entry
    start, end, prompt = entry.start, entry.end, rows.prompt
    last = layer == chunk.n_layers - 1
    own_at = chunk.span(start, end)
    length = chunk.base.length
    x = stream if known is not None else block.ln1(stream[rows.where])

    def fresh(site: str, linear: Linear) -> Tensor:
        """Queries from ``start`` on, or keys or values of the whole prompt."""
        first = start if site == "q" else 0
        out = chunk.gather(site, layer, prompt, first, end)
        if known is not None:
            new = known.at(site, layer)[rows.places].to(out.dtype)
        else:
            new = blocks.heads(linear(x))
            new = new if site == "v" else blocks.rotate(new, rows.places[1], length)
        out[:, start - first :][rows.where] = new
        return out

    k, v = fresh("k", block.k), fresh("v", block.v)
    if not last:
        z = blocks.attend(fresh("q", block.q), k, v, chunk.seen(own_at, end))
        return stream + block.o(z.flatten(-2))
    at = chunk.answers[prompt]
    picked = chunk.at_answers(stream, prompt, start)
    if known is not None:
        moved = rows.changed.gather(1, at - start)[..., None, None]
        base, new = (values[prompt.unsqueeze(1), at] for values in (chunk.base["q", layer], known.at("q", layer)))
        q = torch.where(moved, new.to(base.dtype), base)
    else:
        q = blocks.rotate(blocks.heads(block.q(block.ln1(picked))), at, length)
    return picked + block.o(blocks.attend(q, k, v, chunk.seen(at, end)).flatten(-2))


# ---- changes in several layers ----


def _edited(change: Change, rows: _Rows) -> Float[Tensor, "row token d_model"]:
    """The stream after the last changed layer, every layer from the first run with its changes made in place."""
    chunk, blocks, entry = change.chunk, change.chunk.blocks, rows.entry
    stream = rows.base("resid_pre", entry.layer)
    own_at, end = rows.at, entry.end
    length = chunk.base.length
    parts = [{part.layer: part for part in change.cells.parts[cell]} for cell in entry.cell.tolist()]
    for layer in range(entry.layer, entry.join[0]):
        edit = _Edit.of(change, rows, layer, [by_layer.get(layer) for by_layer in parts])
        block = blocks.layers[layer]
        stream = edit("resid_pre", stream)
        x = block.ln1(stream)
        q, k = (blocks.rotate(blocks.heads(linear(x)), own_at, length) for linear in (block.q, block.k))
        q, k, v = edit("q", q), edit("k", k), edit("v", blocks.heads(block.v(x)))
        before = (chunk.gather(site, layer, rows.prompt, 0, entry.start) for site in ("k", "v"))
        k, v = (torch.cat((old, own), dim=1) for old, own in zip(before, (k, v), strict=True))
        if change.site in ("scores", "pattern"):
            scores = blocks.scores(q, k)
            seen = chunk.seen(own_at, end)
            scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
            pattern = edit("pattern", edit("scores", scores).softmax(dim=-1))
            z = blocks.mix(pattern, v)
        else:
            z = edit("z", blocks.attend(q, k, v, chunk.seen(own_at, end)))
        stream = edit("resid_mid", stream + edit("attn_out", block.o(z.flatten(-2))))
        post = edit("mlp_post", blocks.neurons(layer, stream))
        stream = edit("resid_post", stream + edit("mlp_out", block.mlp_out(post)))
    if entry.join[0] == chunk.n_layers:
        return chunk.at_answers(stream, rows.prompt, entry.start)
    return stream


@dataclass(frozen=True)
class _Edit:
    """The changes of one layer, as a function on each site's activation."""

    change: Change
    rows: _Rows
    layer: int
    changed: Bool[Tensor, "row token"]
    units: Bool[Tensor, "row unit"] | None

    @classmethod
    def of(cls, change: Change, rows: _Rows, layer: int, parts: Sequence[Part | None]) -> _Edit:
        device = rows.prompt.device
        active = torch.tensor([part is not None for part in parts], device=device)
        changed = rows.changed & active.unsqueeze(1)
        units: Tensor | None = None
        if any(part is not None and part.units is not None for part in parts):
            blocks = change.chunk.blocks
            width = {
                "k": blocks.n_kv_heads,
                "v": blocks.n_kv_heads,
                "mlp_post": blocks.layers[0].mlp_in.weight.shape[1],
            }
            mask = np.zeros((len(parts), width.get(change.site, blocks.n_heads)), dtype=bool)
            for i, part in enumerate(parts):
                if part is not None:
                    mask[i, list(part.units) if part.units is not None else slice(None)] = True
            units = torch.from_numpy(mask).to(device)
        return cls(change, rows, layer, changed, units)

    def __call__(self, site: str, value: Tensor) -> Tensor:
        change, rows = self.change, self.rows
        if site != change.site or not bool(self.changed.any()):
            return value
        where = self.changed
        if site in ("scores", "pattern"):
            units = self.units
            mask = where[:, None, :, None]
            mask = mask if units is None else mask & units[:, :, None, None]
            if site == "scores":
                assert change.cells.sources is not None
                places = torch.from_numpy(change.cells.place[rows.entry.cell])
                cut = change.cells.sources[places, rows.prompt.cpu(), : rows.entry.end].to(value.device)
                return value.masked_fill(mask & cut[:, None, None, :], -torch.inf)
            new = rows.pick(change.source.at(site, self.layer).transpose(1, 2)).transpose(1, 2)
            return torch.where(mask, new[..., : rows.entry.end].to(value.dtype), value)
        new = rows.pick(change.source.at(site, self.layer)).to(value.dtype)
        mask = where.reshape(*where.shape, *(1,) * (value.ndim - 2))
        if self.units is not None:
            units = self.units[:, None, :]
            mask = mask & (units.unsqueeze(-1) if value.ndim == 4 else units)
        return torch.where(mask, new, value)
