"""The planner: which tokens of which rows are computed again, in which batches, within which memory, at what cost.

A *row* is one prompt with one cell changed. Only what a change can reach is computed again, and exactly so:

* nothing before the changed layer, and nothing before the first changed token (attention looks back): a row is the
  tokens ``start`` to ``end``, which read the unchanged keys and values of the tokens before them;
* at the changed layer only the changed tokens and heads, then everything that reads them;
* in the last layer keys and values of the row's tokens, but queries, MLP and unembedding of the scored positions only;
* nothing for a row whose new activation equals the old one: its effect is 0.

Rows that enter at one layer with the same tokens form a *group*. Groups are taken through the layers together, in a
batch that grows at each layer where one joins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from interp.model.arithmetic import Blocks
from interp.sites import Site
from interp.sites import site as find_site
from interp.sweeps.cells import Cells

if TYPE_CHECKING:
    from interp.sweeps.reading import Reading

Key = TypeVar("Key")
Join: TypeAlias = tuple[int, Literal["pre", "mid"]]
"""Where rows join the batch: before attention or before the MLP of a layer; (n_layers, "pre") is the final stream."""

GROUP_FLOP = 5e7
"""One more group costs a CPU as much time, in small steps, as this many operations: a third of a millisecond."""
MOST_PADDED = 2.5
"""Rows of different starts enter together only if that makes them hold at most this many times their own tokens."""


@dataclass(frozen=True)
class Sizes:
    """What the cost of a model is made of.

    Attributes:
        products: operations per token of each matrix product of a block.
        n_layers: layers.
        d_model: width of the stream.
        d_kv: width of the keys, and of the values, of all heads together.
        d_q: width of the queries of all heads together.
        d_head: width of one head.
        d_mlp: neurons of a layer.
        gated: whether the MLP has a gate.
        vocab: rows of the unembedding that a read-out needs: all of them, or two.
        itemsize: bytes of one number of the stream.
        known: bytes, per prompt, of what a read-out needs of other runs.
        read: the site within the last layer that is read; empty where whole layers are run.
    """

    products: dict[str, float]
    n_layers: int
    d_model: int
    d_kv: int
    d_q: int
    d_head: int
    d_mlp: int
    gated: bool
    vocab: int
    itemsize: int
    known: int = 0
    read: str = ""

    @classmethod
    def of(cls, blocks: Blocks, reading: Reading) -> Sizes:
        """Sizes of a model, for what is read of its runs."""
        block, vocab = blocks.layers[0], blocks.unembed.weight.shape[1]
        sizes = cls(
            products=blocks.flop_per_token(),
            n_layers=len(blocks.layers),
            d_model=block.q.weight.shape[0],
            d_kv=block.k.weight.shape[1],
            d_q=block.q.weight.shape[1],
            d_head=blocks.d_head,
            d_mlp=block.mlp_in.weight.shape[1],
            gated=block.gate is not None,
            vocab={"answers": 2, "activation": 0}.get(reading.readout.needs, vocab),
            itemsize=blocks.token.element_size(),
            read="" if reading.inside is None else reading.inside.site,
        )
        return replace(sizes, known=reading.known_bytes(vocab, sizes.axes))

    @property
    def axes(self) -> dict[str, int]:
        """Length of every axis of a site that is the same for all prompts."""
        return {
            "head": self.d_q // self.d_head,
            "kv_head": self.d_kv // self.d_head,
            "d_model": self.d_model,
            "d_head": self.d_head,
            "neuron": self.d_mlp,
        }

    # ---- operations ----

    @property
    def qkv(self) -> float:
        """Operations per token of queries, keys and values."""
        return self.products["q"] + self.products["k"] + self.products["v"]

    @property
    def mlp(self) -> float:
        """Operations per token of the MLP."""
        return self.products["mlp_in"] + self.products["mlp_out"]

    def attention(self, start: int, end: int) -> float:
        """Scores and mixing of the tokens ``start`` to ``end``, each over itself and all before."""
        return 4.0 * self.d_q * (end * (end + 1) - start * (start + 1)) / 2

    def layer(self, layer: int, start: int, end: int, answers: int) -> float:
        """Attention of one layer for one row, with its matrix products."""
        tokens = end - start
        if layer < self.n_layers - 1:
            return (self.qkv + self.products["o"]) * tokens + self.attention(start, end)
        kv = (self.products["k"] + self.products["v"]) * tokens
        return kv + (self.products["q"] + self.products["o"] + 4.0 * self.d_q * end) * answers

    def row_flop(self, join: Join, start: int, end: int, answers: int) -> float:
        """Everything from where a row joins to its number."""
        first, stage = join
        total = 2.0 * self.d_model * self.vocab * answers
        for layer in range(first, self.n_layers):
            if layer == self.n_layers - 1 and self.read and find_site(self.read).precedes("attention"):
                return total + self.qkv * answers
            if layer > first or stage == "pre":
                total += self.layer(layer, start, end, answers)
            total += self.mlp * (answers if layer == self.n_layers - 1 else end - start)
        return total

    def trace(self, n_prompts: int, length: int) -> float:
        """One whole pass without the unembedding."""
        return (
            n_prompts
            * self.n_layers
            * ((self.qkv + self.products["o"] + self.mlp) * length + self.attention(0, length))
        )

    # ---- bytes ----

    def row_bytes(self, length: int) -> int:
        """What one row holds beside its tokens: the keys and values it reads, once gathered and once laid out."""
        return self.itemsize * length * 2 * (2 * self.d_kv + self.d_q)

    def token_bytes(self, length: int) -> int:
        """What one token of a batch holds at the widest moment of a layer, entering included."""
        hidden = (3 if self.gated else 2) * self.d_mlp
        scores = 3 * length * self.d_q // self.d_head
        return self.itemsize * (8 * self.d_model + 3 * self.d_q + max(hidden, scores))

    def batch_bytes(self, rows: int, tokens: int, length: int) -> int:
        """What a batch holds."""
        return tokens * self.token_bytes(length) + rows * self.row_bytes(length)

    def tracing_bytes(self, n_prompts: int, length: int) -> int:
        """What both runs of some prompts in one pass hold beside what they keep."""
        return 2 * n_prompts * length * self.token_bytes(length)

    @staticmethod
    def kept_bytes(rows: int) -> int:
        """The number of each row, and which cell of which prompt from which token it is, twice while it is sorted."""
        return 72 * rows

    def cache_bytes(self, length: int, *, site_width: int) -> int:
        """What one prompt's two traces keep: base streams, queries, keys, values, head outputs; the source's site."""
        per_layer = 2 * self.d_model + 2 * self.d_q + 2 * self.d_kv + 2 * site_width
        read = 2 * find_site(self.read).width(self.axes, length) if self.read else 0
        return self.itemsize * length * (self.n_layers * per_layer + self.d_model + read) + self.known


@dataclass(frozen=True)
class Group:
    """Rows that enter at one layer.

    Attributes:
        layer: first changed layer.
        start: first token that any of them computes again.
        end: one after the last.
        dense: whether every token from a row's first on changes at once, or is held as if it did.
        general: whether every layer from the first changed to the last is run whole: the cells change several, what
            their change does is not worked out more sparingly (``OWN_FLOP``), or it enters a layer within which
            something is read.
        cell: [row] which cell.
        prompt: [row] which prompt of the chunk.
        starts: [row] the first token that the row itself computes again; and all after it.
        join: where the rows join the batch.
        answers: scored positions of a row.
        late: whether only the scored positions are computed, the change coming after the last keys and values.
        last: layers of the model, less one.
        sweep: which of the sweeps that are run together.
    """

    layer: int
    start: int
    end: int
    dense: bool
    general: bool
    cell: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]
    starts: Int[np.ndarray, " row"]
    join: Join
    answers: int
    late: bool
    last: int
    sweep: int = 0

    @property
    def held(self) -> int:
        """Tokens of a row that are held while it enters."""
        return self.answers if self.late else self.end - self.start

    @property
    def order(self) -> int:
        """When it joins."""
        return 2 * self.join[0] + (self.join[1] == "mid")

    @property
    def scored(self) -> bool:
        """Whether only the scored positions join, the others' keys and values having been read."""
        return self.order > 2 * self.last

    @property
    def uniform(self) -> bool:
        """Whether all rows start at the same token."""
        return bool((self.starts == self.start).all())

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.cell)

    @property
    def tokens(self) -> int:
        """Tokens that its rows hold while they enter."""
        return len(self.cell) * self.held

    def part(self, rows: slice) -> Group:
        """Some of its rows."""
        return replace(self, cell=self.cell[rows], prompt=self.prompt[rows], starts=self.starts[rows])


@dataclass(frozen=True)
class Plan:
    """What a sweep will compute.

    Attributes:
        site: what is changed.
        rows_in_all: cells times prompts.
        rows: how many of them are computed; the others cannot change the number, or were kept.
        chunks: prompts per chunk; activations of one chunk are stored at a time.
        batches: how many batches run.
        flop: floating-point operations of every matrix product that is made, a multiplication and an addition each.
        peak_bytes: memory that the sweep takes beside the model, from above.
        tokens_per_batch: how many tokens a batch may hold.
        engine: ``weights`` (on the model's own weights) or ``hooks``, with the reason.
        kept: rows whose numbers a store had.
        undivided: operations that no number of workers divides: of every chunk the unchanged runs, which workers make
            again after this process where there are several batches, and the largest batch.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import plan
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> print(plan(model, pairs, "resid_pre", layers=[0]))
    resid_pre: ... of ... rows are computed (... cannot change the number), in ... batches of up to ... tokens over ...
    """

    site: str
    rows_in_all: int
    rows: int
    chunks: tuple[int, ...]
    batches: int
    flop: float
    peak_bytes: int
    tokens_per_batch: int
    engine: str = "weights"
    kept: int = 0
    undivided: float = 0.0

    def __str__(self) -> str:
        """What will be recomputed, in which batches, within which memory, and the floor in operations."""
        share = 1 - self.rows / max(self.rows_in_all, 1)
        return (
            f"{self.site}: {self.rows} of {self.rows_in_all} rows are computed ({share:.0%} cannot change the number), "
            f"in {self.batches} batches of up to {self.tokens_per_batch} tokens over {len(self.chunks)} "
            f"{'chunk' if len(self.chunks) == 1 else 'chunks'} of prompts; {self.flop:.3g} floating-point operations "
            f"at least, {self.peak_bytes / 2**20:.0f} MiB at most"
            f"{'' if self.engine == 'weights' else f'; through hooks ({self.engine})'}."
        )


def joined(plans: Sequence[Plan]) -> Plan:
    """Several sweeps, run one after the other, as one plan; the numbers of each are kept until all are done."""
    if len(plans) == 1:
        return plans[0]
    kept = 8 * sum(plan.rows_in_all for plan in plans)
    return replace(
        plans[0],
        rows_in_all=sum(plan.rows_in_all for plan in plans),
        rows=sum(plan.rows for plan in plans),
        kept=sum(plan.kept for plan in plans),
        chunks=tuple(size for plan in plans for size in plan.chunks),
        batches=sum(plan.batches for plan in plans),
        flop=sum(plan.flop for plan in plans),
        undivided=sum(plan.undivided for plan in plans),
        peak_bytes=max(plan.peak_bytes for plan in plans) + kept,
        tokens_per_batch=max(plan.tokens_per_batch for plan in plans),
    )


@dataclass(frozen=True)
class Rows:
    """The rows of a chunk: which cell of which prompt, from which token.

    Attributes:
        cell: [row].
        prompt: [row].
        start: [row] first changed token, or first scored position if that comes before.
        dense: [row] whether every token from there on is changed.
    """

    cell: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]
    start: Int[np.ndarray, " row"]
    dense: Bool[np.ndarray, " row"]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.cell)

    def where(self, keep: Bool[np.ndarray, " row"]) -> Rows:
        """Only these rows."""
        return Rows(self.cell[keep], self.prompt[keep], self.start[keep], self.dense[keep])


def find_rows(
    cells: Cells,
    site: str,
    n_layers: int,
    *,
    answers: Int[np.ndarray, "prompt answer"],
    differs: Bool[np.ndarray, "prompt position"] | None,
) -> Rows:
    """The rows whose change can reach the number.

    Args:
        cells: what is changed.
        site: where.
        n_layers: layers of the model.
        answers: scored positions.
        differs: where the two prompts differ; None where every token may change (ablations, knockouts).
    """
    masks, about = cells.tokens.numpy(), find_site(site)
    _, n, length = masks.shape
    positions = np.arange(length)
    end = answers.max(axis=1) + 1
    possible = masks & (positions < end[:, None])
    if cells.sources is not None:
        first_source = np.where(cells.sources.any(dim=2), cells.sources.int().argmax(dim=2), length)
        possible = possible & (positions >= first_source[:, :, None])
    if differs is not None:
        first = np.where(differs.any(axis=1), differs.argmax(axis=1), length)
        possible = possible & (positions >= first[:, None])
    scored = np.zeros((n, length), dtype=bool)
    scored[np.arange(n)[:, None], answers] = True
    in_first = np.array([len(parts) == 1 and parts[0].layer == 0 for parts in cells.parts])
    in_last = np.array([parts[0].layer >= n_layers - 1 for parts in cells.parts])
    final = np.array([parts[0].layer == n_layers for parts in cells.parts])  # the stream after the last block
    narrow_first = differs is not None and about.of_own_token
    narrow_last = not about.later_tokens_read
    found: list[Rows] = []
    narrowed = np.stack([in_first & narrow_first, final | (in_last & narrow_last)], axis=1)
    for to_differing, to_scored in ((False, False), (False, True), (True, False), (True, True)):
        chosen = np.flatnonzero((narrowed == (to_differing, to_scored)).all(axis=1))
        if not len(chosen):
            continue
        mask = possible
        if to_differing and differs is not None:
            mask = mask & differs
        if to_scored:
            mask = mask & scored
        found.append(_rows(chosen, cells.place, mask, about, answers))
    return Rows(
        *(np.concatenate(parts) for parts in zip(*((r.cell, r.prompt, r.start, r.dense) for r in found), strict=True))
    )


def _rows(
    cells: Int[np.ndarray, " cell"],
    place: Int[np.ndarray, " cell"],
    mask: Bool[np.ndarray, "place prompt position"],
    site: Site,
    answers: Int[np.ndarray, "prompt answer"],
) -> Rows:
    some = np.asarray(mask.any(axis=2))
    # A row holds every scored position, also one before its change (answers of several tokens, swept by position).
    start = np.minimum(mask.argmax(axis=2), answers.min(axis=1))
    n_tokens = mask.sum(axis=2)
    dense = np.asarray((n_tokens == answers.max(axis=1) + 1 - start) & (n_tokens > 1))
    if site.enters != "between":
        dense = np.zeros_like(some)  # such rows join at the same place, dense or not
    elif site.later_tokens_read:
        dense = some  # every later token may attend to it
    which, prompt = np.nonzero(some[place[cells]])
    cell = cells[which]
    return Rows(cell, prompt, start[place[cell], prompt], dense[place[cell], prompt])


def find_groups(
    rows: Rows, cells: Cells, site: str, sizes: Sizes, *, answers: Int[np.ndarray, "prompt answer"]
) -> list[Group]:
    """Rows in groups that enter at one layer.

    Rows that start at different tokens enter together, those that start late a few tokens longer, where that costs
    less time than the small steps of one more group (``GROUP_FLOP``).
    """
    about = find_site(site)
    layer = np.array([parts[0].layer for parts in cells.parts])[rows.cell]
    last_layer = np.array([parts[-1].layer for parts in cells.parts])[rows.cell]
    whole = site not in OWN_FLOP
    general = np.array([whole or len(parts) > 1 for parts in cells.parts])[rows.cell]
    dense = rows.dense
    if sizes.read:  # rows join before the layer within which something is read
        within = sizes.n_layers - 1
        general = general | (layer >= (within - 1 if about.enters == "after" else within))
        dense = dense | (layer == within - 1)
    end = answers.max(axis=1)[rows.prompt] + 1
    alike = np.stack([layer, general, last_layer, dense, end], axis=1)
    order = np.lexsort((rows.prompt, rows.cell, rows.start, *alike.T[::-1]))
    groups = []
    for part in _split(order, alike):
        i = part[0]
        at_once, many = bool(dense[i]), bool(general[i])
        join = _join(about, int(last_layer[i]), sizes.n_layers, dense=at_once, general=many)
        before_attention = about.enters == "before" and layer[i] < sizes.n_layers
        late = bool(not many and layer[i] >= sizes.n_layers - 1 and not before_attention)
        for own in _together(part, rows.start, int(end[i]), sizes, late=late):
            own = own[np.lexsort((rows.prompt[own], rows.cell[own]))]
            start = int(rows.start[own].min())
            groups.append(
                Group(
                    layer=int(layer[i]),
                    start=start,
                    end=int(end[i]),
                    dense=at_once,
                    general=many,
                    cell=rows.cell[own],
                    prompt=rows.prompt[own],
                    starts=rows.start[own],
                    join=join,
                    answers=answers.shape[1],
                    late=late,
                    last=sizes.n_layers - 1,
                )
            )
    return groups


def _split(order: Int[np.ndarray, " row"], keys: Int[np.ndarray, "row ..."]) -> list[Int[np.ndarray, " row"]]:
    """Sorted rows cut wherever their keys change."""
    if not len(order):
        return []
    sorted_keys = keys[order].reshape(len(order), -1)
    cuts = np.flatnonzero((sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)) + 1
    return np.split(order, cuts)


def _together(
    part: Int[np.ndarray, " row"], start: Int[np.ndarray, " row"], end: int, sizes: Sizes, *, late: bool
) -> Iterator[Int[np.ndarray, " row"]]:
    """Groups of rows: of one start, or of several where that is cheaper.

    Where only the scored positions are computed (``late``), all rows are one group, whatever their starts.
    """
    if late:
        yield part
        return
    held: list[Int[np.ndarray, " row"]] = []
    first, own_tokens, n_rows = 0, 0, 0
    for own in _split(part, start):
        at = int(start[own[0]])
        tokens = own_tokens + len(own) * (end - at)
        padded = (n_rows + len(own)) * (end - first)
        extra = (padded - tokens) * (sizes.products["o"] + 4.0 * sizes.d_q * end)
        if held and (extra > GROUP_FLOP or padded > MOST_PADDED * tokens):
            yield np.concatenate(held)
            held = []
        if not held:
            first, own_tokens, n_rows = at, 0, 0
        held.append(own)
        own_tokens += len(own) * (end - at)
        n_rows += len(own)
    if held:
        yield np.concatenate(held)


def _join(site: Site, layer: int, n_layers: int, *, dense: bool, general: bool) -> Join:
    if general:
        return min(layer + 1, n_layers), "pre"
    if site.enters == "before":
        return (layer, "mid") if layer < n_layers else (n_layers, "pre")
    if site.enters == "after":
        return (layer + 1, "mid") if layer < n_layers - 1 else (n_layers, "pre")
    return (layer, "mid") if dense or layer == n_layers - 1 else (layer + 1, "mid")


def runs_of(keys: Sequence[Key]) -> Iterator[tuple[Key, slice]]:
    """Consecutive equal keys, and where they stand."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[start]:
            yield keys[start], slice(start, i)
            start = i


def into_batches(groups: Sequence[Group], budget: int) -> Iterator[tuple[Group, ...]]:
    """Groups in batches of at most ``budget`` tokens (at least one row)."""
    batch: list[Group] = []
    held = 0
    for whole in groups:
        at = 0
        while at < len(whole.cell):
            room = (budget - held) // whole.held
            if room < 1 and batch:
                yield tuple(batch)
                batch, held = [], 0
                continue
            taken = min(max(room, 1), len(whole.cell) - at)
            batch.append(whole.part(slice(at, at + taken)))
            held += taken * whole.held
            at += taken
    if batch:
        yield tuple(batch)


OwnFlop: TypeAlias = Callable[[Sizes, Group, int | None, float], float]
"""Operations per row up to the stream, from how many heads or neurons change (None: all) at how many tokens."""


def _no_flop(sizes: Sizes, group: Group, units: int | None, changed: float) -> float:
    return 0.0


def _of_output(sizes: Sizes, group: Group, heads: int | None, changed: float) -> float:
    """Through ``W_O``."""
    heads = sizes.d_q // sizes.d_head if heads is None else heads
    return 2.0 * sizes.d_head * sizes.d_model * heads * _queries(group)


def _of_attention(sizes: Sizes, group: Group, heads: int | None, changed: float) -> float:
    """Scores and mixing of some heads, and what they write."""
    own = sizes.d_q // sizes.d_head if heads is None else heads
    mixed = 4.0 * sizes.d_head * own * _queries(group) * (group.start + group.end) / 2
    return mixed + _of_output(sizes, group, own, changed)


def _of_shared(sizes: Sizes, group: Group, kv_heads: int | None, changed: float) -> float:
    """The same of the heads that share some keys and values."""
    own = sizes.d_kv // sizes.d_head if kv_heads is None else kv_heads
    return _of_attention(sizes, group, own * (sizes.d_q // sizes.d_kv), changed)


def _of_neurons(sizes: Sizes, group: Group, neurons: int | None, changed: float) -> float:
    return 2.0 * (sizes.d_mlp if neurons is None else neurons) * sizes.d_model * changed


def _queries(group: Group) -> int:
    return group.answers if group.layer == group.last else group.end - group.start


OWN_FLOP: dict[str, OwnFlop] = {
    **dict.fromkeys(("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"), _no_flop),
    **dict.fromkeys(("q", "scores", "pattern"), _of_attention),
    **dict.fromkeys(("k", "v"), _of_shared),
    "z": _of_output,
    "mlp_post": _of_neurons,
}
"""Sites whose change is worked out from the changed tokens and heads alone (``interp.sweeps.exact.change``), and what
that costs. Of any other site the changed layer is run whole, from its first changed token on."""


def flop_before_batch(sizes: Sizes, site: str, group: Group, changed: float, cells: Cells, *, from_run: bool) -> float:
    """Operations of one group before its rows join the batch; ``changed`` tokens per row on average."""
    n, start, end = group.rows, group.start, group.end
    last = sizes.n_layers - 1
    if group.general:
        whole = (sizes.qkv + sizes.products["o"] + sizes.mlp) * (end - start) + sizes.attention(start, end)
        return n * whole * (group.join[0] - group.layer)
    units = cells.parts[int(group.cell[0])][0].units
    enters = find_site(site).enters
    own = OWN_FLOP[site](sizes, group, None if units is None else len(units), changed)
    layer = group.layer + (enters == "after")
    if layer > last or (layer == last and enters == "between"):
        return n * own
    if enters == "between":
        if group.dense:
            return n * own
        own += sizes.mlp * changed
        layer += 1
    known = enters == "before" and from_run
    if layer < last:
        own += (0.0 if known else sizes.qkv * changed) + sizes.products["o"] * (end - start)
        own += sizes.attention(start, end)
    else:
        query = 0.0 if known else sizes.products["q"]
        own += 0.0 if known else (sizes.products["k"] + sizes.products["v"]) * changed
        own += (query + sizes.products["o"] + 4.0 * sizes.d_q * end) * group.answers
    return n * own


def flop(sizes: Sizes, site: str, groups: Sequence[Group], cells: Cells, *, from_run: bool) -> float:
    """Operations of all groups to the end; ``from_run``: the changes are another run's activations."""
    masks = cells.tokens.numpy()
    total = 0.0
    for group in groups:
        picked = masks[cells.place[group.cell], group.prompt, group.start : group.end]
        total += flop_before_batch(sizes, site, group, float(picked.sum(axis=1).mean()), cells, from_run=from_run)
        total += rows_flop(sizes, group)
    return total


def rows_flop(sizes: Sizes, group: Group) -> float:
    """Operations of a group's rows from where they join."""
    starts, counts = np.unique(group.starts, return_counts=True)
    each = (sizes.row_flop(group.join, start, group.end, group.answers) for start in starts.tolist())
    return float(sum(count * one for count, one in zip(counts.tolist(), each, strict=True)))
