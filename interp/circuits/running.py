"""Running a circuit: every edge outside it carries an ablated output of its sender, every edge inside it a live one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run
from interp._arguments import check_pairs, check_prompts
from interp.attribution.gradients import mapped
from interp.circuits.circuit import Circuit
from interp.circuits.graph import Edge, Graph
from interp.errors import InterpError, UnaskableError, shown, unknown_name
from interp.model.arithmetic import Blocks, Linear, at_positions
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps import Meter, Progress, Reading, checked_reading, scored_parts

if TYPE_CHECKING:
    from interp.model import HookedTransformer

CircuitAblation: TypeAlias = Literal["zero", "mean", "mean_by_role", "resample"]
"""What an edge outside the circuit carries."""
CIRCUIT_ABLATIONS: tuple[CircuitAblation, ...] = get_args(CircuitAblation)

Edges: TypeAlias = "Circuit | Iterable[Edge | tuple[str, ...]]"

BATCH_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Bytes that one batch may hold of what senders write, about."""
BATCH_TOKENS = {"cpu": 1024, "cuda": 2**16}
"""Tokens of a batch. More are no faster, and circuits of one batch are run through every head that one of them has."""


def run_circuit(
    model: HookedTransformer,
    pairs: PromptPairs,
    edges: Edges,
    *,
    ablation: CircuitAblation = "resample",
    metric: AnyReadout = "logit_difference",
    references: Prompts | None = None,
) -> Float[np.ndarray, " prompt"]:
    """The metric of the clean prompts where only the edges of a circuit are left as they are.

    Every receiver (query, key and value of each head, MLP, logits) has an input of its own: the sum, over all that is
    written before it, of what the sender writes in this very pass where the edge is in the circuit, and of the
    sender's ablated output where it is not. It is summed before the norm, so the norm is part of the receiver. With
    all edges this is the clean run, with none the ablated one. A projection of the residual stream is a receiver in
    place of the logits, without a norm. Goldowsky-Dill et al. 2023 (arXiv 2304.05969), Conmy et al. 2023 (arXiv
    2304.14997).

    The ablated output of a sender is

    * ``"resample"``: what it writes in the corrupted run of the same pair, so that no edge is the corrupted run;
    * ``"mean"``: its mean over all tokens of the reference prompts;
    * ``"mean_by_role"``: its mean over the tokens that stand at the same place of the same role in the reference
      prompts; a token outside every role has the tokens that stand as far behind the same role (Wang et al. 2022, arXiv
      2211.00593);
    * ``"zero"``: nothing. The bias of the attention outputs, with the biases of the values that loading folds into it,
      is nobody's output and stays.

    Args:
        model: its arithmetic is in ``interp.model.arithmetic`` (``model.blocks`` is not None).
        pairs: clean and corrupted prompts.
        edges: a ``Circuit``, or edges. One with a role is left as it is at the tokens of the role alone.
        ablation: see above.
        metric: a name from ``interp.readouts``, or a read-out; a projection of the residual stream ends paths there.
        references: prompts that the means are taken of; None is the corrupted prompts.

    Returns:
        [prompt] in the metric's units.

    Raises:
        InterpError: an architecture without arithmetic of its own here, an edge that the model does not have, an
            unknown ablation, or a projection of anything but the residual stream.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> path = [Edge("embed", "L0H2.v"), Edge("L0H2", "L1H0.v"), Edge("L1H0", "logits")]
    >>> bool((run_circuit(model, pairs, path) > run_circuit(model, pairs, [])).all())
    True
    """
    found: np.ndarray
    (found,) = run_circuits(model, pairs, [edges], ablation=ablation, metric=metric, references=references)
    return found


def run_circuits(
    model: HookedTransformer,
    pairs: PromptPairs,
    circuits: Sequence[Edges],
    *,
    ablation: CircuitAblation = "resample",
    metric: AnyReadout = "logit_difference",
    references: Prompts | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "circuit prompt"]:
    """``run_circuit`` of several circuits, batched.

    Args:
        model: as there.
        pairs: as there.
        circuits: the edges of each; those of all circuits have roles, or those of none.
        ablation: as there.
        metric: as there.
        references: as there.
        progress: True for a bar, or called with runs done and runs in all, a run being one prompt under one circuit.

    Returns:
        [circuit, prompt] in the metric's units.

    Raises:
        InterpError: as there.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> run_circuits(model, pairs, [[("embed", "logits")], []], ablation="zero").shape
    (2, 2)
    """
    given = [[Edge(*edge) for edge in (one.edges if isinstance(one, Circuit) else one)] for one in circuits]
    with_roles = any(edge.role is not None for edges in given for edge in edges)
    graph = Graph.of(model, roles=pairs.roles if with_roles else None, metric=metric)
    runs = CircuitRuns.of(model, pairs, graph, ablation=ablation, metric=metric, references=references)
    kept = np.stack([graph.mask(edges) for edges in given]) if given else np.zeros((0, *graph.possible.shape), bool)
    return runs.values(kept, progress=progress)


@dataclass(frozen=True)
class CircuitRuns:
    """The runs of some pairs under any circuits of a graph: what ``run_circuits`` is made of.

    Attributes:
        model: the model.
        blocks: its arithmetic, in float32 or better.
        pairs: clean and corrupted prompts.
        graph: the edges that a circuit may have.
        ablation: what an edge outside the circuit carries.
        metric: a name, or a read-out.
        references: prompts that means are taken of; None is the corrupted prompts.
        parts: the readings that the metric is the sum of.
    """

    model: HookedTransformer
    blocks: Blocks
    pairs: PromptPairs
    graph: Graph
    ablation: CircuitAblation
    metric: AnyReadout
    references: Prompts | None
    parts: tuple[_Part, ...]

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        graph: Graph,
        *,
        ablation: CircuitAblation = "resample",
        metric: AnyReadout = "logit_difference",
        references: Prompts | None = None,
    ) -> CircuitRuns:
        """Check the question, and take the means that it needs.

        Raises:
            InterpError: as ``run_circuit``, or a graph that lacks some of the model's edges.
        """
        check_pairs(model, pairs)
        if ablation not in CIRCUIT_ABLATIONS:
            raise unknown_name("ablation", ablation, CIRCUIT_ABLATIONS)
        if references is not None:
            if ablation not in ("mean", "mean_by_role"):
                raise InterpError(f"References are for means: leave them out with '{ablation}'.")
            check_prompts(model, references)
        whole = Graph.of(model, roles=None, metric=metric)
        if (graph.senders, graph.receivers) != (whole.senders, whole.receivers):
            raise InterpError(
                "A circuit is run in the graph of all that leads to what is measured: make it with Graph.of(model, "
                "roles=..., metric=...)."
            )
        blocks, reason = model.own_blocks()
        if blocks is None:
            raise UnaskableError(f"A circuit is run on the model's own weights only, and {reason}.")
        if model.dtype.itemsize < 4:
            blocks = mapped(blocks, Tensor.float)
        parts = []
        for sign, part, term in scored_parts(pairs, metric):
            reading = checked_reading(model, part, term)
            blocks = reading.up_to(blocks)
            ablated = _ablated(model, blocks, part, ablation, references, len(graph.senders))
            parts.append(_Part(part, reading.with_known(model), sign, ablated))
        return cls(model, blocks, pairs, graph, ablation, metric, references, tuple(parts))

    def values(
        self, kept: Bool[np.ndarray, "circuit sender receiver *role"], *, progress: Progress | None = None
    ) -> Float[np.ndarray, "circuit prompt"]:
        """The metric of every prompt under every circuit.

        Args:
            kept: which edges each circuit has, in the order of the graph.
            progress: True for a bar, or called with runs done and runs in all.
        """
        out = np.zeros((len(self.parts), len(kept), len(self.pairs)))
        meter = Meter(progress, out.size)
        pieces = [
            _Piece(i, rows, some, kept[some[0] : some[-1] + 1])
            for i, part in enumerate(self.parts)
            for rows, circuits in self._batches(part, len(kept))
            for some in circuits
        ]
        takes = 4 * BATCH_BYTES[self.model.device.type]  # what senders write, as inputs and as outputs
        done = self.model.engine.map(self.model, self._work, pieces, here=_Runs(self), bytes_each=takes)
        for piece, scores in done:
            out[piece.part][np.ix_(piece.circuits, piece.rows)] = self.parts[piece.part].sign * scores
            meter.add(scores.size)
        return np.asarray(out.sum(axis=0))

    @cached_property
    def _work(self) -> _Work:
        """What another process needs to make the same runs."""
        return _Work(self.pairs, self.graph, self.ablation, self.metric, self.references)

    def _batches(
        self, part: _Part, n_circuits: int
    ) -> Iterator[tuple[Int[np.ndarray, " prompt"], Iterator[Int[np.ndarray, " circuit"]]]]:
        """Prompts, some at a time, and for each the circuits, some at a time."""
        length, kind = part.pairs.clean.ids.shape[1], self.model.device.type
        widest = len(self.graph.senders) + 2 * (self.blocks.n_heads + 2 * self.blocks.n_kv_heads)
        bytes_each = length * widest * self.model.cfg.d_model * self.blocks.token.element_size()
        fit = max(1, min(BATCH_BYTES[kind] // bytes_each, BATCH_TOKENS[kind] // length))
        for rows in run.chunks_of(len(part.pairs), fit):
            yield rows, run.chunks_of(n_circuits, max(1, fit // len(rows)))

    def _batch(self, part: _Part, rows: Int[np.ndarray, " prompt"]) -> _Batch:
        clean = part.pairs.clean.select(rows)
        ids = run.ids_of(clean).to(self.model.device)
        at = None
        if self.graph.roles is not None:
            masks = [run.token_mask(clean, role) for role in self.graph.roles]
            at = torch.from_numpy(np.stack(masks)).to(self.blocks.token).flatten(1)
        return _Batch(
            self.blocks, self.graph, ids, at, part.reading.rows(torch.from_numpy(rows)),
            self.blocks.embed(ids), part.ablated(rows),
        )  # fmt: skip


@dataclass(frozen=True)
class _Piece:
    """Some prompts under some circuits.

    Attributes:
        part: which reading of the metric.
        rows: [prompt] the prompts.
        circuits: [circuit] which circuits.
        kept: their edges.
    """

    part: int
    rows: Int[np.ndarray, " prompt"]
    circuits: Int[np.ndarray, " circuit"]
    kept: Bool[np.ndarray, "circuit sender receiver *role"]


@dataclass(frozen=True)
class _Work:
    """The runs of some pairs under circuits, as work (``interp.engines``); the attributes are those of CircuitRuns."""

    pairs: PromptPairs
    graph: Graph
    ablation: CircuitAblation
    metric: AnyReadout
    references: Prompts | None

    def ready(self, model: HookedTransformer) -> _Runs:
        """The means that the runs need."""
        return _Runs(
            CircuitRuns.of(
                model, self.pairs, self.graph, ablation=self.ablation, metric=self.metric, references=self.references
            )
        )

    def do(self, ready: _Runs, piece: _Piece) -> Float[np.ndarray, "circuit prompt"]:
        """The metric of every prompt under every circuit of a piece."""
        with torch.inference_mode():
            return ready.batch(piece).scores(piece.kept)


class _Runs:
    """The runs, with the last prompts that were asked for: circuits of the same prompts come one after the other."""

    def __init__(self, runs: CircuitRuns) -> None:
        self.runs = runs
        self.last: tuple[int, bytes] | None = None
        self.made: _Batch | None = None

    def batch(self, piece: _Piece) -> _Batch:
        """The prompts of a piece."""
        asked = piece.part, piece.rows.tobytes()
        if self.made is None or self.last != asked:
            self.last, self.made = asked, self.runs._batch(self.runs.parts[piece.part], piece.rows)
        return self.made


@dataclass(frozen=True)
class _Part:
    """One reading of the metric: a whole answer (``sum_logprob``) has two, its right and its wrong answer.

    Attributes:
        pairs: the pairs, continued by the answer where that is scored whole.
        reading: the metric.
        sign: with which it enters.
        ablated: of some of the prompts, what each sender writes where it is ablated.
    """

    pairs: PromptPairs
    reading: Reading
    sign: float
    ablated: Callable[[Int[np.ndarray, " prompt"]], Float[Tensor, "sender prompt position d_model"]]


@dataclass(frozen=True)
class _Batch:
    """Some prompts under any circuits. ``token`` is every position of every prompt, prompt by prompt.

    Attributes:
        blocks: the model.
        graph: the edges.
        ids: the clean prompts.
        at: [role, token] 1 where the token belongs to the role; None where edges have none.
        reading: the metric of these prompts.
        embedded: what the embedding writes.
        ablated: what each sender writes where it is ablated.
    """

    blocks: Blocks
    graph: Graph
    ids: Int[Tensor, "prompt position"]
    at: Float[Tensor, "role token"] | None
    reading: Reading
    embedded: Float[Tensor, "prompt position d_model"]
    ablated: Float[Tensor, "sender prompt position d_model"]

    def scores(self, kept: Bool[np.ndarray, "circuit sender receiver *role"]) -> Float[np.ndarray, "circuit prompt"]:
        """The metric of every prompt under some circuits."""
        blocks, (n, length) = self.blocks, self.ids.shape
        mask = torch.from_numpy(kept).to(self.embedded)
        ablated = self.ablated.flatten(1, 2)
        changes = self.embedded.new_zeros(len(kept), len(ablated), n * length, ablated.shape[-1])
        changes[:, 0] = self.embedded.flatten(0, 1) - ablated[0]
        positions = torch.arange(length, device=self.ids.device)
        causal = positions[:, None] >= positions[None, :]

        def read(
            receivers: Sequence[int], before: int, base: Tensor
        ) -> Float[Tensor, "circuit receiver token d_model"]:
            """The inputs of some receivers, from the ablated stream there."""
            return base + self._carried(mask[:, :before, list(receivers)], changes[:, :before])

        for layer, (block, places) in enumerate(zip(blocks.layers, self._layout, strict=True)):
            pre, mid = self._streams[layer]
            heads, of_heads = places.read_by_any(kept)
            if heads:
                q, k, v = (
                    self._rows(
                        _projected(linear, block.ln1(read(receivers, places.first, pre)), numbers, blocks.d_head)
                    )
                    for linear, (receivers, numbers) in zip((block.q, block.k, block.v), of_heads, strict=True)
                )
                q, k = (blocks.rotate(x, positions, length) for x in (q, k))
                z = rearrange(blocks.attend(q, k, v, causal), "(circuit p) s h x -> circuit h (p s) x", p=n)
                senders = [places.first + head for head in heads]
                written = z @ block.o.weight.reshape(blocks.n_heads, blocks.d_head, -1)[heads]
                changes[:, senders] = written - ablated[senders]
            if places.mlp is not None and kept[:, places.after].any():
                x = read([places.mlp], places.after, mid)[:, 0]
                changes[:, places.after] = block.mlp_out(blocks.neurons(layer, x)) - ablated[places.after]
        final = read([len(self.graph.receivers) - 1], len(ablated), self._streams[-1][0])[:, 0]
        stream = rearrange(final, "circuit (p s) d -> (circuit p) s d", p=n)
        reading = self.reading.rows(torch.arange(n).repeat(len(kept)))
        scored = reading.of_streams(blocks, at_positions(stream, reading.positions))
        return scored.reshape(len(kept), n).cpu().numpy()

    def _carried(
        self,
        mask: Float[Tensor, "circuit sender receiver *role"],
        changes: Float[Tensor, "circuit sender token d_model"],
    ) -> Float[Tensor, "circuit receiver token d_model"]:
        """What the circuit's edges carry beside the ablated outputs, summed at each receiver."""
        if self.at is None:
            flat: Tensor = mask.transpose(1, 2) @ changes.flatten(2)
            return flat.reshape(*flat.shape[:2], *changes.shape[2:])
        # A token may belong to several roles: an edge that is kept at any of them is kept there once.
        at_token = torch.einsum("csrg,gt->csrt", mask, self.at).clamp(max=1)
        return torch.einsum("csrt,cstd->crtd", at_token, changes)

    def _rows(self, values: Float[Tensor, "circuit head token d_head"]) -> Float[Tensor, "row position head d_head"]:
        return rearrange(values, "circuit h (p s) x -> (circuit p) s h x", p=len(self.ids))

    @cached_property
    def _streams(self) -> list[tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]]:
        """The ablated stream before the attention and before the MLP of each layer, and (twice) after the last."""
        ablated = self.ablated.flatten(1, 2)
        stream, found = ablated[0], []
        for block, places in zip(self.blocks.layers, self._layout, strict=True):
            mid = stream + ablated[places.first : places.after].sum(dim=0)
            mid = mid if block.o.bias is None else mid + block.o.bias
            found.append((stream, mid))
            stream = mid if places.mlp is None else mid + ablated[places.after]
        return [*found, (stream, stream)]

    @cached_property
    def _layout(self) -> tuple[_Places, ...]:
        """Where each layer's senders and receivers stand in the graph."""
        blocks, found = self.blocks, list[_Places]()
        sender, receiver = 1, 0  # the embedding comes before them
        for block in blocks.layers:
            # A stream that is read between attention and MLP ends the last block there.
            has_mlp = block.has_mlp and sender + blocks.n_heads < len(self.graph.senders)
            places = _Places(sender, receiver, blocks.n_heads, blocks.n_kv_heads, has_mlp)
            found.append(places)
            sender, receiver = places.after + has_mlp, places.end + has_mlp
        return tuple(found)


@dataclass(frozen=True)
class _Places:
    """Where a layer stands in the graph.

    Attributes:
        first: its first head among the senders; the others come next, then its MLP.
        reads: its first query among the receivers; then come its other queries, its keys, its values, and its MLP.
        n_heads: query heads.
        n_kv_heads: key-value heads.
        has_mlp: whether it has an MLP.
    """

    first: int
    reads: int
    n_heads: int
    n_kv_heads: int
    has_mlp: bool

    @property
    def after(self) -> int:
        """The first sender after its heads: its MLP, if it has one."""
        return self.first + self.n_heads

    @property
    def end(self) -> int:
        """The first receiver after those of its attention: its MLP, if it has one."""
        return self.reads + self.n_heads + 2 * self.n_kv_heads

    @property
    def mlp(self) -> int | None:
        """Its MLP among the receivers."""
        return self.end if self.has_mlp else None

    def read_by_any(
        self, kept: Bool[np.ndarray, "circuit sender receiver *role"]
    ) -> tuple[list[int], tuple[tuple[list[int], list[int]], ...]]:
        """The heads whose output some circuit reads, and those that share keys and values with them.

        Returns:
            The heads, and for their queries, keys and values the places among the receivers and the numbers of the
            heads or key-value heads.
        """
        group = self.n_heads // self.n_kv_heads
        read = kept[:, self.first : self.after].reshape(len(kept), self.n_kv_heads, -1).any(axis=(0, 2))
        shared = np.flatnonzero(read).tolist()
        heads = [group * one + i for one in shared for i in range(group)]
        starts = (self.reads, self.reads + self.n_heads, self.reads + self.n_heads + self.n_kv_heads)
        return heads, tuple(
            ([start + one for one in numbers], numbers)
            for start, numbers in zip(starts, (heads, shared, shared), strict=True)
        )


def _projected(
    linear: Linear, x: Float[Tensor, "circuit head token d_model"], heads: list[int], d_head: int
) -> Float[Tensor, "circuit head token d_head"]:
    """Queries, keys or values of some heads, each from an input of its own."""
    weight = linear.weight.reshape(x.shape[-1], -1, d_head)[:, heads].transpose(0, 1)
    out = x @ weight
    return out if linear.bias is None else out + linear.bias.reshape(-1, 1, d_head)[heads]


# ---- what a sender writes where it is ablated ----


def _written(blocks: Blocks, ids: Int[Tensor, "prompt position"]) -> Float[Tensor, "sender prompt position d_model"]:
    """What every sender writes in a plain run."""
    found: list[Tensor] = []

    def see(site: str, layer: int, value: Tensor) -> Tensor:
        if (site, layer) == ("resid_pre", 0) or site == "mlp_out":
            found.append(value.unsqueeze(0))
        elif site == "result":
            found.append(rearrange(value, "p s h d -> h p s d"))
        return value

    blocks.forward(ids, tap=see, fused=True, within=("result",))
    return torch.cat(found)


def _ablated(
    model: HookedTransformer,
    blocks: Blocks,
    pairs: PromptPairs,
    ablation: CircuitAblation,
    references: Prompts | None,
    n_senders: int,
) -> Callable[[Int[np.ndarray, " prompt"]], Float[Tensor, "sender prompt position d_model"]]:
    """What each of the first senders writes where it is ablated, of the prompts whose numbers are given."""
    clean = pairs.clean
    given = pairs.corrupted if references is None else references
    match ablation:
        case "resample":
            corrupted = pairs.corrupted
            return lambda rows: _written(blocks, run.ids_of(corrupted.select(rows)).to(model.device))[:n_senders]
        case "zero":
            nothing = torch.zeros(n_senders, 1, 1, model.cfg.d_model, dtype=blocks.token.dtype, device=model.device)
            return lambda rows: nothing.expand(-1, len(rows), clean.ids.shape[1], -1)
        case "mean":
            mean = _means(model, blocks, given, [[0] * int(length) for length in given.lengths])[:n_senders, None]
            return lambda rows: mean.expand(-1, len(rows), clean.ids.shape[1], -1)
        case "mean_by_role":
            number: dict[Hashable, int] = {}
            of_references = [[number.setdefault(place, len(number)) for place in row] for row in places_in(given)]
            of_clean = _numbered(places_in(clean), number)
            means = _means(model, blocks, given, of_references)[:n_senders]
            index = np.zeros(clean.ids.shape, dtype=np.int64)
            for row, places in zip(index, of_clean, strict=True):
                row[: len(places)] = places
            return lambda rows: means[:, torch.from_numpy(index[rows]).to(means.device)]


def places_in(prompts: Prompts) -> list[list[tuple[str, int, bool]]]:
    """What a token is in its prompt: how far inside a role, or how far behind one.

    Where roles hold one another the shortest counts; before the first role the prompt's beginning takes its place.

    Returns:
        Prompt by prompt and token by token: the role, tokens from its first (inside) or from its end (behind), and
        whether it is inside.

    >>> prompts = Prompts.from_ids([[5, 6, 7, 8]], roles={"noun": [(1, 2)]})
    >>> places_in(prompts)
    [[('', 0, False), ('noun', 0, True), ('noun', 0, False), ('noun', 1, False)]]
    """
    spans = {name: prompts.spans(name).tolist() for name in prompts.roles}
    found = []
    for i, length in enumerate(prompts.lengths):
        own = sorted(
            ((end - start, name, start, end) for name, rows in spans.items() for start, end in [rows[i]]),
            key=itemgetter(0),
        )
        row = []
        for token in range(int(length)):
            inside = [(name, token - start, True) for _, name, start, end in own if start <= token < end]
            behind = [(name, token - end, False) for _, name, _, end in own if end <= token]
            nearest = min(behind, key=itemgetter(1), default=("", token, False))
            row.append(inside[0] if inside else nearest)
        found.append(row)
    return found


def _numbered(places: list[list[Any]], number: dict[Hashable, int]) -> list[list[int]]:
    """The number of each token's place.

    Raises:
        InterpError: no reference has the place.
    """
    for i, row in enumerate(places):
        for token, place in enumerate(row):
            if place not in number:
                raise InterpError(
                    f"No reference prompt has a token where token {token} of prompt {i} stands ({place[1]} tokens "
                    f"{'into' if place[2] else 'behind'} {shown(place[0] or 'the beginning')}), so there is no mean by "
                    "role. Give references with the same roles, or use 'mean'."
                )
    return [[number[place] for place in row] for row in places]


def _means(
    model: HookedTransformer, blocks: Blocks, prompts: Prompts, groups: list[list[int]]
) -> Float[Tensor, "sender group d_model"]:
    """The mean of what each sender writes over the tokens of each group; ``groups``: the group of each real token."""
    n_groups = 1 + max(group for row in groups for group in row)
    count = torch.zeros(n_groups, dtype=torch.float64, device=model.device)
    total: Tensor | None = None
    width = 2 * prompts.ids.shape[1] * model.cfg.d_model * blocks.token.element_size()
    n_senders = 1 + len(blocks.layers) * (blocks.n_heads + 1)  # with MLPs, at most
    fit = max(1, BATCH_BYTES[model.device.type] // (width * n_senders))
    with torch.inference_mode():
        for rows in run.chunks_of(len(prompts), fit):
            some = prompts.select(rows)
            real = torch.from_numpy(np.arange(some.ids.shape[1]) < some.lengths[:, None]).to(model.device)
            index = torch.tensor([group for row in rows for group in groups[row]], device=model.device)
            found = _written(blocks, run.ids_of(some).to(model.device))[:, real].double()
            if total is None:
                total = found.new_zeros(len(found), n_groups, found.shape[-1])
            total.index_add_(1, index, found)
            count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
    assert total is not None
    return (total / count[:, None]).to(blocks.token.dtype)
