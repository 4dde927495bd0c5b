"""What a change makes of the residual stream, up to where its rows join the batch.

Only the changed tokens and heads of the changed layer are computed again, then what reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.model.arithmetic import Linear
from interp.readouts import Place
from interp.sites import Site
from interp.sites import site as find_site
from interp.sweeps.cells import Cells, Part
from interp.sweeps.exact.batch import Chunk, Reader
from interp.sweeps.exact.cache import FromRun, Source, kept_as
from interp.sweeps.exact.planner import Group, runs_of


@dataclass(frozen=True)
class Change:
    """What a sweep changes: the site, its cells, and the new values.

    Attributes:
        chunk: what the rows of some prompts share.
        site: what is changed.
        cells: every change.
        source: the new values.
        read: the activation within the last layer that is read there instead of the stream after it; None if none is.
    """

    chunk: Chunk
    site: str
    cells: Cells
    source: Source
    read: Place | None = None

    def values(self, group: Group) -> Float[Tensor, "row token d_model"]:
        """The stream of a group's rows where they join, or what is read of them within the last layer."""
        rows = _Rows.of(self, group)
        if group.general:
            return _edited(self, rows)
        layer, last = group.layer, self.chunk.n_layers - 1
        stream, enters = CHANGES[self.site](self, rows, layer), self.about.enters
        if enters == "before":
            return stream if layer > last else _from_pre(self.chunk, rows, layer, stream, self.known)
        if enters == "after":
            return stream if layer == last else _from_pre(self.chunk, rows, layer + 1, stream)
        if layer == last or group.dense:
            return stream
        post = self.chunk.gather("resid_pre", layer + 1, rows.prompt, group.start, group.end)
        post[rows.where] = self.chunk.blocks.after_mlp(layer, stream[rows.where])
        return _from_pre(self.chunk, rows, layer + 1, post)

    @cached_property
    def about(self) -> Site:
        """What the site is."""
        return find_site(self.site)

    @property
    def known(self) -> Source | None:
        """The source, where it has the queries, keys and values that its residual stream leads to."""
        return self.source if isinstance(self.source, FromRun) and self.site == "resid_pre" else None


@dataclass(frozen=True)
class _Rows:
    """The rows of one group, on the model's device.

    ``at`` [row or 1, token] are the positions that are computed: ``start`` to ``end``, or the scored ones where the
    change is in the last layer after its keys and values (``group.late``).
    """

    change: Change
    group: Group
    prompt: Int[Tensor, " row"]
    at: Int[Tensor, "row token"]

    @classmethod
    def of(cls, change: Change, group: Group) -> _Rows:
        chunk = change.chunk
        prompt = chunk.index(group.prompt)
        at = chunk.answers[prompt] if group.late else chunk.span(group.start, group.end)
        return cls(change, group, prompt, at)

    @cached_property
    def named(self) -> Bool[np.ndarray, "row position"]:
        """Which tokens of the prompt each row's cell names."""
        cells, group = self.change.cells, self.group
        return np.asarray(cells.tokens.numpy()[cells.place[group.cell], group.prompt])

    @cached_property
    def _mask(self) -> Bool[np.ndarray, "row token"]:
        group = self.group
        if not group.late:
            return self.named[:, group.start : group.end]
        return np.asarray(np.take_along_axis(self.named, self.change.chunk.scored_at[group.prompt], axis=1))

    @cached_property
    def changed(self) -> Bool[Tensor, "row token"]:
        """Which of the computed tokens the cell names."""
        return self.change.chunk.index(self._mask)

    @cached_property
    def where(self) -> tuple[Int[Tensor, " changed"], Int[Tensor, " changed"]]:
        """Of each changed token, its row, and its index among the computed tokens of that row."""
        row, token = self._mask.nonzero()
        return self.change.chunk.index(row), self.change.chunk.index(token)

    @cached_property
    def places(self) -> tuple[Int[Tensor, " changed"], Int[Tensor, " changed"]]:
        """Prompt and position of each changed token."""
        row, token = self.where
        at = self.at[row, token] if self.group.late else token + self.group.start
        return self.prompt[row], at

    def pick(self, values: Float[Tensor, "prompt position ..."]) -> Float[Tensor, "row token ..."]:
        """Stored values at the computed tokens."""
        return self.change.chunk.take(values, self.prompt, self.group)

    def base(self, site: str, layer: int) -> Tensor:
        """The unchanged run at the computed tokens."""
        return self.pick(self.change.chunk.base[site, layer])

    def new(self, layer: int, like: Tensor) -> Float[Tensor, "row token ..."]:
        """The new activation at the computed tokens."""
        change = self.change
        return self.pick(change.source.at(change.site, layer)).to(like.dtype)

    def replaced(self, site: str, layer: int) -> Float[Tensor, "row token d_model"]:
        """The unchanged activation, with the new one at the changed tokens."""
        base = self.base(site, layer)
        base[self.where] = self.change.source.at(site, layer)[self.places].to(base.dtype)
        return base

    def by_unit_count(self) -> Iterator[tuple[slice, list[tuple[tuple[int, ...] | None, int]]]]:
        """Stretches of rows that change equally many heads; and of each, which heads, in how many rows on end."""
        runs: list[tuple[tuple[int, ...] | None, int]] = []
        start = 0
        for units, part in self.by_units():
            if runs and len(units or ()) != len(runs[0][0] or ()):
                yield slice(start, part.start), runs
                start, runs = part.start, []
            runs.append((units, part.stop - part.start))
        yield slice(start, len(self.group.cell)), runs

    def by_units(self) -> Iterator[tuple[tuple[int, ...] | None, slice]]:
        """Consecutive rows that change the same heads or neurons."""
        return runs_of([self.change.cells.parts[cell][0].units for cell in self.group.cell.tolist()])


# ---- changes as changes of the stream ----


def _of_stream(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    """The stream where it is itself what is replaced."""
    return rows.replaced("resid_pre", layer)


def _of_mid(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    mid = rows.base("resid_mid", layer)
    return torch.where(rows.changed.unsqueeze(-1), rows.new(layer, mid), mid)


def _of_post(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    post = rows.base("resid_pre", layer + 1)
    return torch.where(rows.changed.unsqueeze(-1), rows.new(layer, post), post)


def _of_attn_out(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    mid = rows.base("resid_mid", layer)
    return torch.where(rows.changed.unsqueeze(-1), rows.base("resid_pre", layer) + rows.new(layer, mid), mid)


def _of_mlp_out(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    post = rows.base("resid_pre", layer + 1)
    return torch.where(rows.changed.unsqueeze(-1), rows.base("resid_mid", layer) + rows.new(layer, post), post)


def _of_neurons(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    """The stream after the MLP, to which what the changed neurons write differently is added."""
    post, new = rows.base("resid_pre", layer + 1), change.source.at("mlp_post", layer)
    weight = change.chunk.blocks.layers[layer].mlp_out.weight
    for units, part in rows.by_units():
        where = rows.changed[part].nonzero(as_tuple=True)
        picked = _sub(rows, part)
        own = picked.base("mlp_post", layer)[where]
        moved = picked.pick(new)[where].to(own.dtype) - own
        index = slice(None) if units is None else torch.tensor(units, device=own.device)
        delta = moved[:, index].to(weight.dtype) @ weight[index]
        post[part][where] += delta.to(post.dtype)
    return post


def _of_heads_output(change: Change, rows: _Rows, layer: int) -> Float[Tensor, "row token d_model"]:
    mid = rows.base("resid_mid", layer)
    _add_heads(change, rows, layer, mid)
    return mid


def _sub(rows: _Rows, part: slice) -> _Rows:
    at = rows.at[part] if len(rows.at) > 1 or rows.group.late else rows.at
    return _Rows(rows.change, rows.group.part(part), rows.prompt[part], at)


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
        if not change.about.later_tokens_read:
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
    """The values of each row's own heads, picked out of those of all heads."""
    n, tokens, _, width = values.shape
    return values.gather(2, heads[:, None, :, None].expand(n, tokens, -1, width))


def _query_heads(change: Change, units: tuple[int, ...] | None) -> list[int]:
    """The query heads whose output a change of these heads (key-value heads, at ``k`` and ``v``) reaches."""
    blocks = change.chunk.blocks
    per_kv_head = blocks.n_heads // blocks.n_kv_heads
    if units is None:
        return list(range(blocks.n_heads))
    if change.about.unit == "kv_head":
        return [head * per_kv_head + i for head in units for i in range(per_kv_head)]
    return list(units)


def _new_z(
    change: Change, rows: _Rows, layer: int, heads: Int[Tensor, "row head"]
) -> Float[Tensor, "row token head d_head"]:
    """``z`` of each row's own heads after the change."""
    return NEW_Z[change.site](change, rows, layer, heads)


_Heads: TypeAlias = Int[Tensor, "row head"]
_Z: TypeAlias = Float[Tensor, "row token head d_head"]


def _z_itself(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    return _of_heads(rows.pick(change.source.at("z", layer)), heads)


def _z_of_pattern(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    v = _values(rows, layer, heads)
    pattern = rows.pick(change.source.at("pattern", layer).transpose(1, 2))[..., : rows.group.end]
    return torch.einsum("rdhs,rshx->rdhx", _of_heads(pattern, heads).to(v.dtype), v)


def _z_of_queries(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    q, k, v, seen = _attending(rows, layer, heads)
    new = _of_heads(rows.pick(change.source.at("q", layer)), heads)
    q = torch.where(rows.changed[..., None, None], new.to(q.dtype), q)
    return change.chunk.blocks.attend(q, k, v, seen)


def _z_of_keys(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    q, k, v, seen = _attending(rows, layer, heads)
    return change.chunk.blocks.attend(q, _replaced_sources(rows, layer, heads, k), v, seen)


def _z_of_values(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    q, k, v, seen = _attending(rows, layer, heads)
    return change.chunk.blocks.attend(q, k, _replaced_sources(rows, layer, heads, v), seen)


def _z_of_cut(change: Change, rows: _Rows, layer: int, heads: _Heads) -> _Z:
    """``z`` where attention from the changed tokens to the cells' sources is cut."""
    q, k, v, seen = _attending(rows, layer, heads)
    assert change.cells.sources is not None
    places = torch.from_numpy(change.cells.place[rows.group.cell])
    cut = change.cells.sources[places, rows.prompt.cpu(), : rows.group.end].to(q.device)
    cut = rows.changed[:, None, :, None] & cut[:, None, None, :]
    return change.chunk.blocks.attend(q, k, v, ~cut if seen is None else seen & ~cut)


def _attending(rows: _Rows, layer: int, heads: _Heads) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Of the unchanged run: queries of the computed tokens, keys and values of the whole prompt, which sees which."""
    q = _of_heads(rows.base("q", layer), heads)
    return (
        q,
        _sources(rows, layer, heads, "k"),
        _values(rows, layer, heads),
        rows.change.chunk.seen(rows.at, rows.group.end),
    )


def _values(rows: _Rows, layer: int, heads: _Heads) -> Float[Tensor, "row src head d_head"]:
    return _sources(rows, layer, heads, "v")


def _sources(rows: _Rows, layer: int, heads: _Heads, site: str) -> Float[Tensor, "row src head d_head"]:
    """Keys or values of the whole prompt, unchanged, for each row's own query heads."""
    chunk = rows.change.chunk
    return _of_heads(chunk.gather(site, layer, rows.prompt, 0, rows.group.end), _shared(rows, heads))


def _replaced_sources(rows: _Rows, layer: int, heads: _Heads, old: Tensor) -> Float[Tensor, "row src head d_head"]:
    """The new keys or values at the tokens that the cells name."""
    change, end = rows.change, rows.group.end
    where = change.chunk.index(rows.named[:, :end])[..., None, None]
    new = change.source.at(change.site, layer)[:, :end].index_select(0, rows.prompt)
    return torch.where(where, _of_heads(new, _shared(rows, heads)).to(old.dtype), old)


def _shared(rows: _Rows, heads: _Heads) -> _Heads:
    """The key-value head of each query head."""
    blocks = rows.change.chunk.blocks
    return heads // (blocks.n_heads // blocks.n_kv_heads)


NEW_Z: dict[str, Callable[[Change, _Rows, int, _Heads], _Z]] = {
    "z": _z_itself,
    "pattern": _z_of_pattern,
    "scores": _z_of_cut,
    "q": _z_of_queries,
    "k": _z_of_keys,
    "v": _z_of_values,
}
"""Site of heads -> ``z`` of the changed heads after its change."""

CHANGES: dict[str, Callable[[Change, _Rows, int], Float[Tensor, "row token d_model"]]] = {
    "resid_pre": _of_stream,
    "resid_mid": _of_mid,
    "resid_post": _of_post,
    "attn_out": _of_attn_out,
    "mlp_out": _of_mlp_out,
    "mlp_post": _of_neurons,
    **dict.fromkeys(NEW_Z, _of_heads_output),
}
"""Site -> the stream, where a change of the site enters it. The planner's ``OWN_FLOP`` has the same sites."""


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
    blocks, block, group = chunk.blocks, chunk.blocks.layers[layer], rows.group
    start, end, prompt = group.start, group.end, rows.prompt
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
    chunk, blocks, group = change.chunk, change.chunk.blocks, rows.group
    stream = rows.base("resid_pre", group.layer)
    seen, length = chunk.seen(rows.at, group.end), chunk.base.length
    reader = None if change.read is None else Reader(change.read)
    parts = [{part.layer: part for part in change.cells.parts[cell]} for cell in group.cell.tolist()]

    def edit_of(layer: int) -> _Edit:
        return _Edit.of(change, rows, layer, [by_layer.get(layer) for by_layer in parts])

    for layer in range(group.layer, group.join[0]):
        edit = edit_of(layer)
        k, v = (chunk.gather(site, layer, rows.prompt, 0, group.start) for site in ("k", "v"))
        see = edit if reader is None else reader.after(edit, edit.as_read)
        within = {change.site} if change.read is None else {change.site, change.read.site}
        stream = blocks.block(layer, stream, rows.at, length, seen, see=see, within=within, before=(k, v))
    if group.join[0] < chunk.n_layers:
        return stream
    if change.read is not None and reader is not None:
        return change.read.of(chunk.at_answers(reader.value, rows.prompt, group.start))
    stream = edit_of(chunk.n_layers)("resid_pre", chunk.n_layers, stream)  # where this last stream is itself changed
    return chunk.at_answers(stream, rows.prompt, group.start)


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
            sizes = {
                "head": blocks.n_heads,
                "kv_head": blocks.n_kv_heads,
                "neuron": blocks.layers[0].mlp_in.weight.shape[1],
            }
            mask = np.zeros((len(parts), sizes[change.about.unit]), dtype=bool)
            for i, part in enumerate(parts):
                if part is not None:
                    mask[i, list(part.units) if part.units is not None else slice(None)] = True
            units = torch.from_numpy(mask).to(device)
        return cls(change, rows, layer, changed, units)

    def __call__(self, tap: str, layer: int, value: Tensor) -> Tensor:
        if kept_as(tap) != self.change.site:
            return value
        return self._made(value, self.change.source.at)

    def as_read(self, tap: str, value: Tensor) -> Tensor:
        """What a read-out has of a tap's value after the change: queries and keys are changed once they are rotated."""
        if tap != self.change.site or kept_as(tap) == tap:
            return value
        return self._made(value, self.change.source.as_read)

    def _made(self, value: Tensor, source: Callable[[str, int], Tensor]) -> Tensor:
        change, rows, site = self.change, self.rows, self.change.site
        if not bool(self.changed.any()):
            return value
        where = self.changed
        if change.about.is_pattern:
            units = self.units
            mask = where[:, None, :, None]
            mask = mask if units is None else mask & units[:, :, None, None]
            if change.cells.sources is not None:
                places = torch.from_numpy(change.cells.place[rows.group.cell])
                cut = change.cells.sources[places, rows.prompt.cpu(), : rows.group.end].to(value.device)
                return value.masked_fill(mask & cut[:, None, None, :], -torch.inf)
            new = rows.pick(source(site, self.layer).transpose(1, 2)).transpose(1, 2)
            return torch.where(mask, new[..., : rows.group.end].to(value.dtype), value)
        new = rows.pick(source(site, self.layer)).to(value.dtype)
        mask = where.reshape(*where.shape, *(1,) * (value.ndim - 2))
        if self.units is not None:
            units = self.units[:, None, :]
            mask = mask & (units.unsqueeze(-1) if value.ndim == 4 else units)
        return torch.where(mask, new, value)
