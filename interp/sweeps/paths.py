"""Path patching: the exact effect of every edge from what writes to the residual stream to what reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import results, run, sites
from interp._arguments import check_pairs
from interp.errors import InterpError
from interp.errors import names as checked_names
from interp.model.arithmetic import Blocks
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout, Place
from interp.store import Journal, Store
from interp.sweeps.exact.batch import Chunk, Reader
from interp.sweeps.exact.cache import BASE_SITES, Cache, trace_both
from interp.sweeps.exact.cost import Limits, packed
from interp.sweeps.exact.execute import RowsOfRuns, own_blocks, plan_of, planned_bytes, read_cache
from interp.sweeps.exact.planner import Group, Join, Plan, Sizes, into_batches, rows_flop, runs_of
from interp.sweeps.graph import Node, receivers_of, senders_at, senders_of
from interp.sweeps.labels import About, patch_attributes, patch_variables
from interp.sweeps.options import RESOURCES, Resources, completed, shows
from interp.sweeps.patching import Direction, base_and_source, check_direction
from interp.sweeps.progress import Meter, Progress
from interp.sweeps.reading import Reading, checked_reading, whole_answers
from interp.sweeps.resume import Finished, digest, facts_of
from interp.sweeps.statement import Done

if TYPE_CHECKING:
    from interp.model import HookedTransformer


@shows(Resources)
def path_patching(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    edges: Sequence[tuple[str, str]] | None = None,
    minimum_gap: float | None = None,
    **resources: Unpack[Resources],
) -> xr.Dataset:
    """Patch every edge from a sender to a receiver, with everything else frozen.

    What the sender writes in the other run, minus what it writes in this one, is added at every position, or at the
    tokens of one role, to the receiver's own input, before its norm; every other reader still sees this run. From the
    receiver on, the model runs as usual. Wang et al. 2022 (arXiv 2211.00593); the same intervention as
    TransformerLens's direct path patching.

    A ``projection`` is the end of all paths in place of the logits: receivers are what leads to it, and the stream
    itself where that is read. Nothing is run that comes after it.

    Args:
        model: its arithmetic is in ``interp.model.arithmetic`` (``model.blocks`` is not None).
        pairs: clean and corrupted prompts.
        direction: ``"denoising"`` adds clean minus corrupted to the corrupted run, ``"noising"`` the reverse.
        metric: a name from ``interp.readouts``, or a read-out.
        senders: labels of the senders; None is ``embed``, every head (``L3H2``) and every MLP (``MLP3``).
        receivers: labels of the receivers; None is every head's query, key and value input (``L5H3.q``; shared
            key-value heads are ``L5KV1.k``), every MLP (``MLP5``) and ``logits``; of a projection those before it,
            and ``L5.resid_pre`` where that stream is read.
        roles: at whose tokens the receiver reads the other run, one role at a time; None is every position at once.
        edges: (sender, receiver) of each edge to patch, in place of ``senders`` and ``receivers``; None is every edge
            from one of these to one of those.
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        resources: ``memory store progress``, as in ``sweep``; see ``interp.sweeps.Resources``.

    Returns:
        ``patched`` (prompt, sender, receiver and, with ``roles``, role) in the metric's units, NaN where the sender
        does not come before the receiver and at what ``edges`` leaves out; ``recovered`` = (patched - corrupted) /
        (clean - corrupted); ``clean`` and ``corrupted`` (prompt).

    Raises:
        InterpError: an architecture without arithmetic of its own here, an unknown label, an edge from a sender that
            does not come before its receiver, edges beside senders or receivers, or no edge at all.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> effect = path_patching(model, pairs, senders=["L0H2"], receivers=["L1H0.q", "L1H0.v"])
    >>> (effect.recovered.mean("prompt") > 0.5).values.tolist()  # its output is read as a value, not as a query
    [[False, True]]
    >>> two = path_patching(model, pairs, edges=[("L0H2", "L1H0.v"), ("L1H0", "logits")])
    >>> two.recovered.mean("prompt").notnull().values.tolist()  # senders across receivers: the other two are not run
    [[True, False], [False, True]]
    """
    asked = PathPatching(direction, metric, senders, receivers, minimum_gap, roles, edges)
    return asked.run(model, pairs, **resources)


@dataclass(frozen=True)
class PathPatching:
    """The statement of path patching: what ``path_patching`` is asked, of any model and any pairs.

    Attributes:
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts``, or a read-out.
        senders: labels of the senders; None is all.
        receivers: labels of the receivers; None is all.
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        roles: at which receivers read the other run, one at a time; None is every position at once.
        edges: (sender, receiver) of each edge, in place of ``senders`` and ``receivers``; None is all between these.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import PathPatching, plan
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> asked = PathPatching(senders=["L0H2"], receivers=["L1H0.v", "logits"])
    >>> plan(model, pairs, asked).rows_in_all  # 2 prompts, 2 edges
    4
    >>> (asked.run(model, pairs).recovered.mean("prompt") > 0.5).values.tolist()  # it acts through L1H0 alone
    [[True, False]]
    """

    direction: Direction = "denoising"
    metric: AnyReadout = "logit_difference"
    senders: Sequence[str] | None = None
    receivers: Sequence[str] | None = None
    minimum_gap: float | None = None
    roles: Sequence[str] | None = None
    edges: Sequence[tuple[str, str]] | None = None

    def plan(self, model: HookedTransformer, pairs: PromptPairs, *, memory: int | None = None) -> Plan:
        """What ``run`` would compute; senders that turn out to write the same in both runs save more."""
        blocks, wanted = self._resolved(model, pairs)
        sizes = Sizes.of(blocks, wanted.reading)
        n, length = wanted.base.ids.shape
        limits = _limits(model, blocks, sizes, wanted, memory)
        done = []
        for rows in run.chunks_of(n, limits.prompts):
            part = wanted.of_prompts(rows)
            every = np.ones((len(wanted.senders), len(rows)), dtype=bool)
            done.append((len(rows), _groups(part, every, sizes.n_layers)))
        return _plan(wanted, sizes, limits, done, length)

    def run(self, model: HookedTransformer, pairs: PromptPairs, **resources: Unpack[Resources]) -> xr.Dataset:
        """What ``path_patching`` returns."""
        given = completed(resources, RESOURCES)
        (blocks, wanted), store = self._resolved(model, pairs), given["store"]
        journal = None if store is None else Store.at(store).journal(wanted.identity(model))
        about = About.of(pairs, self.direction, self.metric, self.minimum_gap)
        found = _execute(model, blocks, wanted, given["memory"], journal, given["progress"])
        return _labelled(model, pairs, wanted, found, about)

    def _resolved(self, model: HookedTransformer, pairs: PromptPairs) -> tuple[Blocks, _Wanted]:
        """The pieces that path patching runs on, and the edges of these runs.

        Raises:
            InterpError: an architecture without arithmetic of its own here, or a read-out that is not of one token.
        """
        check_pairs(model, pairs)
        check_direction(self.direction)
        if whole_answers(pairs, self.metric):
            raise InterpError(
                "Path patching scores one token: give the pairs an answer of one token, or expand_answers()."
            )
        reading = checked_reading(model, pairs, self.metric)
        blocks, reason = model.own_blocks(() if reading.inside is None else [reading.inside.site])
        if blocks is None:
            raise InterpError(f"Path patching runs on the model's own weights only, and {reason}.")
        if self.edges is None:
            return reading.up_to(blocks), _Wanted.of(
                model, pairs, self.direction, reading, self.senders, self.receivers, self.roles
            )
        if self.senders is not None or self.receivers is not None:
            raise InterpError("edges= names senders and receivers itself. Leave out senders= and receivers=.")
        named = _named_edges(self.edges)
        sending, receiving = ([*dict.fromkeys(end)] for end in zip(*named, strict=True))
        wanted = _Wanted.of(model, pairs, self.direction, reading, sending, receiving, self.roles).only(named)
        return reading.up_to(blocks), wanted


@dataclass(frozen=True)
class _Wanted:
    """Which edges of which runs: ``edges`` [edge, 2] index ``senders`` (with ``roles``, at each) and ``receivers``."""

    base: Prompts
    source: Prompts
    reading: Reading
    direction: str
    senders: tuple[Node, ...]
    receivers: tuple[Node, ...]
    edges: Int[np.ndarray, "edge two"]
    roles: tuple[str, ...] | None

    @classmethod
    def of(
        cls, model: HookedTransformer, pairs: PromptPairs, direction: str, reading: Reading,
        sender_names: Sequence[str] | None, receiver_names: Sequence[str] | None, roles: Sequence[str] | None,
    ) -> _Wanted:  # fmt: skip
        at = None if roles is None else checked_names(roles, "roles")
        for role in at or ():
            pairs.clean.spans(role)  # refuses one that there is not
        senders = senders_at(senders_of(model, sender_names), at)
        receivers = receivers_of(model, receiver_names, read=reading.readout.place)
        edges = [
            (s, r)
            for r, receiver in enumerate(receivers)
            for s, sender in enumerate(senders)
            if sender.reaches(receiver)
        ]
        if not edges:
            raise InterpError("No sender comes before a receiver: name senders of earlier layers.")
        base, source = base_and_source(pairs, direction)
        return cls(base, source, reading, direction, senders, receivers, np.array(edges), at)

    def only(self, named: Sequence[tuple[str, str]]) -> _Wanted:
        """The edges that are named, at each role.

        Raises:
            InterpError: one that runs backwards.
        """
        labels = [(self.senders[s].label.partition("@")[0], self.receivers[r].label) for s, r in self.edges.tolist()]
        wanted, there = set(named), set(labels)
        for sender, receiver in named:
            if (sender, receiver) not in there:
                raise InterpError(f"{sender} does not come before {receiver}. Name a sender of an earlier layer.")
        return replace(self, edges=self.edges[[label in wanted for label in labels]])

    def identity(self, model: HookedTransformer) -> dict[str, str]:
        """Everything that the numbers depend on, but for rounding."""
        return {
            "site": "edges",
            "edges": digest([node.label for node in (*self.senders, *self.receivers)], self.edges),
            **facts_of(model, self.base, self.source.sha256(), self.reading),
        }

    def of_prompts(self, rows: Int[np.ndarray, " prompt"]) -> _Wanted:
        index = torch.from_numpy(rows)
        return _Wanted(
            self.base.select(rows), self.source.select(rows), self.reading.rows(index), self.direction,
            self.senders, self.receivers, self.edges, self.roles,
        )  # fmt: skip


def _named_edges(edges: object) -> list[tuple[str, str]]:
    """The argument ``edges`` as pairs of labels.

    Raises:
        InterpError: anything else, or none at all.
    """
    listed = list(edges) if isinstance(edges, Iterable) and not isinstance(edges, str) else [edges]
    found = []
    for edge in listed:
        ends = tuple(edge) if isinstance(edge, Iterable) and not isinstance(edge, str) else ()
        if len(ends) != 2 or not all(isinstance(end, str) for end in ends):
            raise InterpError(f"edges holds (sender, receiver), such as ('L0H2', 'L1H0.v'), not {edge!r}.")
        found.append(ends)
    if not found:
        raise InterpError("edges is empty. Name at least one, or leave it out.")
    return found


def _execute(
    model: HookedTransformer,
    blocks: Blocks,
    wanted: _Wanted,
    memory: int | None,
    journal: Journal | None,
    progress: Progress | None,
) -> Done:
    sizes = Sizes.of(blocks, wanted.reading)
    n, length = wanted.base.ids.shape
    limits = _limits(model, blocks, sizes, wanted, memory)
    patched, base_score, source_score = np.empty((n, len(wanted.edges))), np.empty(n), np.empty(n)
    meter = Meter(progress, patched.size)
    finished = None if journal is None else Finished.of(journal, patched.shape)
    done: list[tuple[int, list[Group]]] = []
    with torch.inference_mode():
        for rows in run.chunks_of(n, limits.prompts):
            part = wanted.of_prompts(rows)
            reading = part.reading.with_known(model)
            base, source = _both_runs(blocks, part, reading)
            base_score[rows], source_score[rows] = (read_cache(blocks, run_, reading) for run_ in (base, source))
            patched[rows] = base_score[rows, None]
            has = None
            if finished is not None:
                has = finished.fill(patched, rows, (base_score[rows], source_score[rows]))
            differ = _Written(Chunk(blocks, base, part.reading.positions.to(model.device)), source, part).differ()
            groups = _groups(part, differ, sizes.n_layers, has)
            was_packed = blocks.is_packed
            blocks = packed(blocks, limits, groups, -(-n // limits.prompts))
            done.append((len(rows), groups))
            meter.add(len(rows) * len(wanted.edges) - sum(len(group.cell) for group in groups))
            batches = list(into_batches(groups, limits.tokens))
            work = _Batches(part, blocks.dtype, limits.tokens, was_packed, blocks.is_packed)
            here = work.of_runs(blocks, reading, base, source)
            takes = limits.held + planned_bytes(sizes, [batches], len(rows), length, _width(sizes))
            for _, scored in model.engine.map(model, work, batches, here=here, bytes_each=takes):
                for group, scores in scored:
                    patched[rows[group.prompt], group.cell] = scores
                    if journal is not None:
                        journal.append(group.cell, rows[group.prompt], scores)
                    meter.add(len(group.cell))
    plan = _plan(wanted, sizes, limits, done, length)
    return Done(patched, base_score, source_score, replace(plan, kept=0 if finished is None else finished.n_rows))


def _both_runs(blocks: Blocks, part: _Wanted, reading: Reading) -> tuple[Cache, Cache]:
    """The unchanged run, and the other one with what its senders write."""
    base, source = (run.ids_of(prompts).to(blocks.token.device) for prompts in (part.base, part.source))
    written = {"resid_pre", "z", "mlp_out"}
    return trace_both(blocks, base, source, BASE_SITES | written, written, read=reading.inside)


@dataclass(frozen=True)
class _Batches:
    """The batches of some prompts, as work (``interp.engines``).

    Attributes:
        part: what is asked of these prompts.
        dtype: of the products.
        tokens: of a batch.
        traced_packed: whether the unchanged runs are made with packed weights.
        packed: whether the rows are.
    """

    part: _Wanted
    dtype: torch.dtype
    tokens: int
    traced_packed: bool
    packed: bool

    def ready(self, model: HookedTransformer) -> RowsOfRuns:
        """Run the prompts unchanged."""
        blocks = own_blocks(model, self.part.reading, self.dtype)
        blocks = blocks.pack(self.tokens) if self.traced_packed else blocks
        with torch.inference_mode():
            reading = self.part.reading.with_known(model)
            base, source = _both_runs(blocks, self.part, reading)
            blocks = blocks.pack(self.tokens) if self.packed and not self.traced_packed else blocks
            return self.of_runs(blocks, reading, base, source)

    def of_runs(self, blocks: Blocks, reading: Reading, base: Cache, source: Cache) -> RowsOfRuns:
        """The same of unchanged runs that are there."""
        chunk = Chunk(blocks, base, self.part.reading.positions.to(blocks.token.device))
        return RowsOfRuns(chunk, _Written(chunk, source, self.part).values, reading, self.tokens)

    def do(self, ready: RowsOfRuns, piece: Sequence[Group]) -> list[tuple[Group, Float[np.ndarray, " row"]]]:
        """One batch."""
        return ready.scores(piece)


def _groups(
    part: _Wanted,
    differ: Bool[np.ndarray, "sender prompt"],
    n_layers: int,
    finished: Bool[np.ndarray, "prompt edge"] | None = None,
) -> list[Group]:
    """Rows by where they join and which tokens they compute, ordered so that neighbours share a sender's work."""
    differs = (part.base.ids != part.source.ids) & (np.arange(part.base.ids.shape[1]) < part.base.lengths[:, None])
    end = part.reading.end.numpy()
    scored = part.reading.positions.numpy().min(axis=1)
    start = np.where(differs.any(axis=1), np.minimum(differs.argmax(axis=1), scored), part.base.ids.shape[1])
    groups: list[Group] = []
    reading = [_reading(node) for node in part.receivers]
    for layer, kind in sorted(set(reading)):
        chosen = np.flatnonzero([reading[r] == (layer, kind) for r in part.edges[:, 1]])
        chosen = chosen[np.lexsort((part.edges[chosen, 1], part.edges[chosen, 0]))]
        for first, last in sorted({(int(s), int(e)) for s, e in zip(start, end, strict=True) if s < e}):
            prompts = np.flatnonzero((start == first) & (end == last))
            live = differ[part.edges[chosen, 0]][:, prompts]
            if finished is not None:
                live = live & ~finished[np.ix_(prompts, chosen)].T
            edge, prompt = np.nonzero(live)
            if len(edge):
                answers = part.reading.positions.shape[1]
                groups.append(
                    Group(
                        layer=layer, start=first, end=last, dense=True, general=False, cell=chosen[edge],
                        prompt=prompts[prompt], starts=np.full(len(edge), first),
                        join=_join(layer, kind, n_layers, part.reading.inside), answers=answers,
                        late=layer >= n_layers - 1, last=n_layers - 1,
                    )
                )  # fmt: skip
    return sorted(groups, key=lambda group: (group.order, group.start))


def _reading(node: Node) -> tuple[int, str]:
    kinds = {**dict.fromkeys(("q", "k", "v"), "attention"), "mlp": "mlp", "mid": "mid"}
    return node.layer, {**kinds, **dict.fromkeys(("stream", "logits"), "stream")}[node.kind]


def _join(layer: int, kind: str, n_layers: int, read: Place | None) -> Join:
    if read is not None and layer == read.layer:
        return n_layers, "pre"  # the group brings the activation that is read, so no layer is left to run
    joins: dict[str, Join] = {"attention": (layer, "mid"), "mlp": (layer + 1, "pre"), "stream": (n_layers, "pre")}
    return joins[kind]


@dataclass(frozen=True)
class _Written:
    """What each sender writes differently in the other run, and what a receiver makes of it."""

    chunk: Chunk
    source: Cache
    wanted: _Wanted

    def differ(self) -> Bool[np.ndarray, "sender prompt"]:
        """Whether a sender writes anything different for a prompt; False for a sender that reaches no receiver."""
        out = np.zeros((len(self.wanted.senders), len(self.wanted.base)), dtype=bool)
        for i in np.unique(self.wanted.edges[:, 0]):
            node = self.wanted.senders[i]
            site, layer = node.written
            new, old = self.source[site, layer], self.chunk.base[site, layer]
            moved = new != old if node.head < 0 else new[:, :, node.head] != old[:, :, node.head]
            moved = moved if not node.role else moved & self._tokens(node.role).unsqueeze(-1)
            out[i] = moved.flatten(1).any(dim=1).cpu().numpy()
        return out

    def delta(
        self, node: Node, prompt: Int[Tensor, " row"], start: int, end: int
    ) -> Float[Tensor, "row token d_model"]:
        """What the sender writes in the other run minus what it writes in this one."""
        site, layer = node.written
        new, old = (kept[site, layer][:, start:end].index_select(0, prompt) for kept in (self.source, self.chunk.base))
        if node.head < 0:
            change = new - old
        else:
            blocks = self.chunk.blocks
            weight = blocks.layers[layer].o.weight[node.head * blocks.d_head : (node.head + 1) * blocks.d_head]
            change = (new[:, :, node.head] - old[:, :, node.head]) @ weight.to(new.dtype)
        if not node.role:
            return change
        return change * self._tokens(node.role)[:, start:end].index_select(0, prompt).unsqueeze(-1)

    def _tokens(self, role: str) -> Bool[Tensor, "prompt token"]:
        """Which tokens belong to a role."""
        return torch.from_numpy(run.token_mask(self.wanted.base, role)).to(self.chunk.answers.device)

    def values(self, group: Group) -> Float[Tensor, "row token d_model"]:
        """The stream of a group's rows where they join, or what is read of them within the last layer."""
        edges = self.wanted.edges[group.cell]
        prompt = self.chunk.index(group.prompt)
        _, kind = _reading(self.wanted.receivers[edges[0, 1]])
        parts = []
        for sender, rows in runs_of(edges[:, 0].tolist()):
            node = self.wanted.senders[sender]
            reading = [self.wanted.receivers[r] for r in edges[rows, 1].tolist()]
            part = group.part(rows)
            if kind == "attention":
                parts.append(self._heads(node, reading, part, prompt[rows]))
            else:
                parts.append(self._one_input(node, kind, part, prompt[rows]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _read_in(self, layer: int) -> Place | None:
        """The activation that is read within a layer; None if none is."""
        read = self.wanted.reading.inside
        return read if read is not None and read.layer == layer else None

    def _one_input(
        self, node: Node, kind: str, group: Group, prompt: Int[Tensor, " row"]
    ) -> Float[Tensor, "row token d_model"]:
        """The stream after an MLP that reads it, or the stream that is itself read."""
        chunk, layer = self.chunk, group.layer
        site = {"mlp": "resid_mid", "mid": "resid_mid", "stream": "resid_pre"}[kind]
        once, which = torch.unique(prompt, return_inverse=True)
        delta = self.delta(node, once, group.start, group.end)
        delta = chunk.at_answers(delta, once, group.start) if group.late else delta
        old = chunk.take(chunk.base[site, layer], prompt, group)
        new = old + delta[which]
        if kind != "mlp":
            return new
        read = self._read_in(layer)
        if read is not None:
            reader = Reader(read)
            chunk.blocks.mlp(layer, new, reader, (read.site,))
            return read.of(reader.value)
        return old + chunk.blocks.layers[layer].mlp_out(chunk.blocks.neurons(layer, new))

    def _heads(
        self, node: Node, reading: Sequence[Node], group: Group, prompt: Int[Tensor, " row"]
    ) -> Float[Tensor, "row token d_model"]:
        """``resid_mid``, or what is read of the layer, after heads whose query, key or value input was changed.

        One sender changes the input of one head, or of the heads that share a key-value head.
        """
        chunk, blocks, layer = self.chunk, self.chunk.blocks, group.layer
        read = self._read_in(layer)
        if read is not None and sites.site(read.site).precedes("attention"):
            return self._projected(node, reading, group, prompt, read)
        if read is not None:
            z = chunk.take(chunk.base["z", layer], prompt, group)
            for rows, heads, new in self._new_heads(node, reading, group, prompt):
                z[rows, :, heads] = new
            reader = Reader(read)
            blocks.after_attention(
                layer, chunk.take(chunk.base["resid_pre", layer], prompt, group), z, reader, (read.site,)
            )
            return read.of(reader.value)
        mid = chunk.take(chunk.base["resid_mid", layer], prompt, group)
        weight = blocks.layers[layer].o.weight.reshape(blocks.n_heads, blocks.d_head, -1)
        for rows, heads, new in self._new_heads(node, reading, group, prompt):
            old = chunk.take(chunk.base["z", layer], prompt[rows], group.part(rows))[:, :, heads]
            written = weight[heads].flatten(0, 1)
            mid[rows] += ((new - old).flatten(2).to(written.dtype) @ written).to(mid.dtype)
        return mid

    def _projected(
        self, node: Node, reading: Sequence[Node], group: Group, prompt: Int[Tensor, " row"], read: Place
    ) -> Float[Tensor, "row answer width"]:
        """Queries, keys or values that are read, where one head's input was changed by a sender."""
        chunk, layer = self.chunk, group.layer
        at, start, end = chunk.answers[prompt], group.start, group.end
        changed = chunk.gather("resid_pre", layer, prompt, start, end) + self.delta(node, prompt, start, end)
        reader = Reader(read)
        chunk.blocks.projected(layer, chunk.at_answers(changed, prompt, start), at, chunk.base.length, reader)
        assert chunk.base.read is not None
        value = chunk.take(chunk.base.read, prompt, group)
        row, head = torch.arange(len(prompt)), torch.tensor([receiver.head for receiver in reading])
        value[row, :, head] = reader.value[row, :, head]
        return read.of(value)

    def _new_heads(
        self, node: Node, reading: Sequence[Node], group: Group, prompt: Int[Tensor, " row"]
    ) -> Iterator[tuple[slice, slice, Float[Tensor, "row token head d_head"]]]:
        """Rows, the heads whose input one sender changed in them, and their new ``z``."""
        chunk, blocks, layer = self.chunk, self.chunk.blocks, group.layer
        block = blocks.layers[layer]
        start, end = group.start, group.end
        once, which = torch.unique(prompt, return_inverse=True)
        x = block.ln1(chunk.gather("resid_pre", layer, once, start, end) + self.delta(node, once, start, end))
        own_at = chunk.span(start, end)
        at = chunk.answers[prompt] if group.late else own_at
        length = chunk.base.length
        new: dict[str, Tensor] = {}
        for kind in {node.kind for node in reading}:
            linear = {"q": block.q, "k": block.k, "v": block.v}[kind]
            value = blocks.heads(linear(x))
            new[kind] = value if kind == "v" else blocks.rotate(value, own_at, length)
        per_kv_head = blocks.n_heads // blocks.n_kv_heads
        order = [(node.kind, node.head) for node in reading]
        for (kind, head), rows in runs_of(order):
            mine = prompt[rows]
            heads = range(head, head + 1) if kind == "q" else range(head * per_kv_head, (head + 1) * per_kv_head)
            shared = head // per_kv_head if kind == "q" else head
            own = group.part(rows)
            q = chunk.take(chunk.base["q", layer], mine, own)[:, :, heads.start : heads.stop]
            k, v = (chunk.gather(site, layer, mine, 0, end)[:, :, shared : shared + 1] for site in ("k", "v"))
            fresh = new[kind][which[rows]][:, :, head : head + 1]
            if kind == "q":
                q = chunk.at_answers(fresh, mine, start) if group.late else fresh
            elif kind == "k":
                k[:, start:] = fresh
            else:
                v[:, start:] = fresh
            seen = chunk.seen(at[rows] if len(at) > 1 or group.late else at, end)
            yield rows, slice(heads.start, heads.stop), blocks.attend(q, k, v, seen)


def _end(wanted: _Wanted) -> str:
    """What paths lead to, in words."""
    place = wanted.reading.readout.place
    return "the answer" if place is None else f"{place.site} of layer {place.layer}"


# ---- what it cost, and the result ----


def _plan(wanted: _Wanted, sizes: Sizes, limits: Limits, done: Sequence[tuple[int, list[Group]]], length: int) -> Plan:
    flop = 2 * sizes.trace(len(wanted.base), length)
    for _, groups in done:
        flop += sum(_rows_flop(wanted, sizes, group) for group in groups)
    return plan_of(
        "edges",
        (len(wanted.base), len(wanted.edges)),
        sizes,
        limits,
        [count for count, _ in done],
        [groups for _, groups in done],
        length=length,
        width=_width(sizes),
        flop=flop,
    )


def _limits(model: HookedTransformer, blocks: Blocks, sizes: Sizes, wanted: _Wanted, memory: int | None) -> Limits:
    n, length = wanted.base.ids.shape
    shape = (n, len(wanted.edges))
    return Limits.of(model, blocks, sizes, shape, length=length, width=_width(sizes), held=0, memory=memory)


def _width(sizes: Sizes) -> int:
    """Numbers per token and layer that are kept of what the senders write."""
    return sizes.d_q + sizes.d_model


def _rows_flop(wanted: _Wanted, sizes: Sizes, group: Group) -> float:
    edges = wanted.edges[group.cell]
    tokens, rows = group.end - group.start, len(group.cell)
    total = rows_flop(sizes, group)
    _, kind = _reading(wanted.receivers[edges[0, 1]])
    computed, read = group.held, wanted.reading.inside
    if kind in ("stream", "mid"):
        return total
    if kind == "mlp":
        return total + rows * sizes.mlp * computed
    within = read is not None and read.layer == group.layer
    if within and sites.site(sizes.read).precedes("attention"):
        return total + rows * sizes.qkv * computed
    once = len({(sender, prompt) for sender, prompt in zip(edges[:, 0].tolist(), group.prompt.tolist(), strict=True)})
    kinds = {wanted.receivers[r].kind for r in set(edges[:, 1].tolist())}
    total += once * tokens * sum(sizes.products[kind] for kind in kinds)
    per_kv_head = sizes.d_q // sizes.d_kv
    heads = sum(1 if wanted.receivers[r].kind == "q" else per_kv_head for r in edges[:, 1].tolist())
    per_head = 0.0 if within else 2.0 * sizes.d_head * sizes.d_model * computed
    total += rows * (sizes.products["o"] + sizes.mlp) * computed if within else 0.0
    seen = 4.0 * sizes.d_head * (computed * group.end if group.late else tokens * (group.start + group.end) / 2)
    return total + heads * (per_head + seen)


def _labelled(model: HookedTransformer, pairs: PromptPairs, wanted: _Wanted, found: Done, about: About) -> xr.Dataset:
    patched: Float[np.ndarray, "prompt ..."]
    patched = np.full((len(pairs), len(wanted.senders), len(wanted.receivers)), np.nan)
    patched[:, wanted.edges[:, 0], wanted.edges[:, 1]] = found.changed
    dims: tuple[str, ...] = ("prompt", "sender", "receiver")
    senders, roles = wanted.senders, wanted.roles
    if roles is not None:
        dims, senders = (*dims, "role"), senders[:: len(roles)]
        patched = patched.reshape(len(pairs), len(senders), len(roles), -1).swapaxes(2, 3)
    return results.build(
        patch_variables(found, patched, dims, about),
        coords={
            "prompt": np.arange(len(pairs)),
            "sender": [node.label.partition("@")[0] for node in senders],
            "sender_layer": ("sender", [node.layer for node in senders]),
            "receiver": [node.label for node in wanted.receivers],
            "receiver_layer": ("receiver", [node.layer for node in wanted.receivers]),
            **({} if roles is None else {"role": list(roles)}),
        },
        title=f"{about.direction} path patching",
        question=f"Which component's output reaches {_end(wanted)} through which reader?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean, after changing what one receiver reads of one "
        "sender; NaN: the sender does not come before the receiver, or the gap is too small.",
        source="Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969",
        of=(model, pairs),
        seed=0,
        extra=patch_attributes(found, about),
    )
