"""A circuit as a value: the edges that a behaviour runs along, with their scores and where they come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from interp import _cells, results, stats
from interp.circuits.graph import SIZES, START, Edge, Graph, node_of, on_paths
from interp.errors import InterpError, shown
from interp.results import Variable

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.readouts import AnyReadout

Rank: TypeAlias = Literal["absolute", "signed"]
"""By what the best edges are chosen: the size of their scores, or the scores themselves (what helps comes first)."""

READING = (
    "score: how far the edge moves the answer towards the clean run; kept: whether it is part of the circuit; "
    "NaN: the sender does not come before the receiver."
)
WITH_INTERVALS = 4096
"""Edges, the strongest ones, whose scores have an interval."""

_DIMS = {"sender", "receiver", "role"}


@dataclass(frozen=True)
class Comparison:
    """What two circuits have in common.

    Attributes:
        edges: Jaccard index of the edges: those in both over those in either; 1 where neither has any.
        nodes: the same of the nodes.
        shared: edges in both.
        only_first: edges that the first alone has.
        only_second: edges that the second alone has.

    >>> from interp.circuits import Edge
    >>> both = frozenset({Edge("embed", "logits")})
    >>> Comparison(edges=1.0, nodes=1.0, shared=both, only_first=frozenset(), only_second=frozenset()).edges
    1.0
    """

    edges: float
    nodes: float
    shared: frozenset[Edge]
    only_first: frozenset[Edge]
    only_second: frozenset[Edge]


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some edges of a model's graph, each edge's score, and how they were found.

    Attributes:
        data: a result of ``interp.results``: ``score`` (sender, receiver and, where edges have one, role), NaN where
            there is no edge, positive where the edge moves the answer towards the clean run; ``kept``, which edges are
            the circuit's; ``score_interval`` of the strongest. Its attributes are the provenance.

    Raises:
        InterpError: the data is no circuit: says what it lacks.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> path = [Edge("embed", "L0H2.v"), Edge("L0H2", "L1H0.v"), Edge("L1H0", "logits"), Edge("embed", "MLP3")]
    >>> circuit = Circuit.of(model, pairs, path)
    >>> len(circuit), sorted(circuit.connected().nodes)  # the MLP's output is read by nothing in the circuit
    (4, ['L0H2', 'L1H0', 'embed', 'logits'])
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        check(self.data)

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        edges: Iterable[Edge | tuple[str, ...]],
        *,
        scores: Mapping[Edge, float] | None = None,
        roles: Sequence[str] | None = None,
        metric: AnyReadout = "logit_difference",
        title: str = "A circuit",
        source: str = "",
    ) -> Circuit:
        """A circuit from a list of edges, such as one that a paper reports.

        Args:
            model: whose graph it is part of.
            pairs: the prompts it is about.
            edges: each an ``Edge``, or a tuple of a sender, a receiver and, if edges have one, a role.
            scores: of edges, also of those outside the circuit; None gives 1 to the circuit's edges and 0 to others.
            roles: the roles that edges can have, where they have one; None is those that are named.
            metric: what is measured at its end: a projection of the residual stream, or any read-out of the logits.
            title: what it is.
            source: where it comes from.

        Raises:
            InterpError: an edge that the model does not have, or edges with and without a role.

        >>> from interp import HookedTransformer, tasks
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
        >>> Circuit.of(model, pairs, [("L3H0", "L1H0.v")])
        Traceback (most recent call last):
        interp.errors.InterpError: There is no edge from 'L3H0' to 'L1H0.v': the sender does not come before ...
        """
        graph = Graph.of(model, roles=None, metric=metric)
        chosen = [Edge(*edge) for edge in edges]
        named = list(dict.fromkeys(edge.role for edge in chosen if edge.role is not None))
        if roles is not None or named:
            graph = Graph.of(model, roles=named if roles is None else roles, metric=metric)
        kept = graph.mask(chosen)
        score = np.where(graph.possible, kept.astype(float), np.nan)
        if scores is not None:
            score = np.where(graph.possible, 0.0, np.nan)
            for edge, value in scores.items():
                score[graph.at(Edge(*edge))] = value
        return cls.found(
            model, pairs, graph, score, kept,
            title=title, source=source, units="", seed=0, extra={"method": "given"},
        )  # fmt: skip

    @classmethod
    def found(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        graph: Graph,
        score: Float[np.ndarray, "*edges"],
        kept: Bool[np.ndarray, "*edges"],
        *,
        title: str,
        source: str,
        units: str,
        seed: int,
        extra: Mapping[str, str | int | float],
        each: Float[np.ndarray, "prompt ..."] | None = None,
        verdict: str = "",
        rank: Rank = "absolute",
    ) -> Circuit:
        """A circuit from scores of all edges and those that are kept.

        Args:
            model: the model.
            pairs: the prompts it was found on.
            graph: what the axes of the arrays are.
            score: per edge; NaN where there is none.
            kept: the circuit's edges.
            title: what it is.
            source: the paper of the method.
            units: of the scores.
            seed: of everything random in it.
            extra: further attributes.
            each: scores prompt by prompt, from which intervals are drawn.
            verdict: what the scores are good for, in a sentence, if they are estimates.
            rank: by what ``at`` chooses.
        """
        dims = graph.dims
        variables = {
            "score": Variable(dims, score, units, "score of the edge, positive if it moves the answer to clean"),
            "kept": Variable(dims, kept, "", "whether the edge is part of the circuit"),
        }
        coords: dict[str, Any] = {**graph.coords}
        if each is not None:
            variables["score_interval"] = Variable(
                ("ci_bound", *dims), _intervals(score, each), units, "interval of the score over prompts"
            )
            coords["ci_bound"] = ["low", "high"]
        data = results.build(
            variables,
            coords=coords,
            title=title,
            question="Along which edges does the answer come about?",
            reading=f"{verdict} {READING}".strip(),
            source=source,
            of=(model, pairs),
            seed=seed,
            extra={"rank": rank, **graph.sizes, **extra},
        )
        return cls(data)

    # ---- what it holds ----

    @property
    def scores(self) -> xr.DataArray:
        """(sender, receiver[, role]) the score of every edge of the model, NaN where there is none."""
        return self.data["score"]

    @property
    def kept(self) -> Bool[np.ndarray, "*edges"]:
        """Which edges are the circuit's, in the order of ``scores``."""
        return np.asarray(self.data["kept"].values, dtype=bool)

    @cached_property
    def edges(self) -> frozenset[Edge]:
        """The circuit's edges."""
        return frozenset(self._edge(index) for index in np.argwhere(self.kept))

    @cached_property
    def nodes(self) -> frozenset[str]:
        """Every part of the model at an end of an edge: ``embed``, ``L3H2``, ``MLP3``, ``logits``.

        An input of a key-value head that several heads share is one of ``L3KV1``, a node of its own.
        """
        return frozenset(node for edge in self.edges for node in (edge.sender, node_of(edge.receiver)))

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def n_possible(self) -> int:
        """Edges of the model's graph that have a score."""
        return int(np.isfinite(self.scores.values).sum())

    @property
    def share(self) -> float:
        """The circuit's edges as a share of all, in [0, 1]."""
        return len(self) / self.n_possible

    def ranked(self) -> list[tuple[Edge, float]]:
        """The circuit's edges with their scores, the best first; equal ones in the order of the model."""
        values = self.scores.values
        order = [flat for flat in self._order() if self.kept.flat[flat]]
        found = [np.unravel_index(flat, values.shape) for flat in order]
        return [(self._edge(np.array(index)), float(values[index])) for index in found]

    # ---- other circuits ----

    def at(self, size: int | float) -> Circuit:
        """The circuit of the best edges of the whole model, by the rank that the data states.

        Args:
            size: how many edges; a fraction between 0 and 1 (a ``float``) is that share of all edges, rounded.

        Raises:
            InterpError: a number of edges that the model does not have.

        >>> from interp import HookedTransformer, tasks
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
        >>> scores = {Edge("embed", "L0H2.v"): 2.0, Edge("embed", "logits"): -3.0, Edge("L0H2", "L1H0.v"): 1.0}
        >>> circuit = Circuit.of(model, pairs, [], scores=scores)
        >>> [edge.receiver for edge, _ in circuit.at(2).ranked()]  # by the size of the score
        ['logits', 'L0H2.v']
        """
        n = self._count(size)
        kept = np.zeros(self.kept.size, dtype=bool)
        kept[self._order()[:n]] = True
        return self.keeping(kept.reshape(self.kept.shape))

    def keeping(self, edges: Bool[np.ndarray, "*edges"] | Collection[Edge]) -> Circuit:
        """The circuit of other edges with the same scores: a mask in the order of ``scores``, or edges.

        Raises:
            InterpError: an edge that the model does not have.
        """
        if isinstance(edges, np.ndarray):
            kept = edges.astype(bool)
            if kept.shape != self.kept.shape or (kept & ~np.isfinite(self.scores.values)).any():
                raise InterpError(
                    "The mask does not fit the scores. Give one of their shape, False where they are NaN."
                )
        else:
            kept = self.graph.mask(edges)
        of_scores = [name for name in ("score", "score_interval") if name in self.data]  # the rest is of these edges
        data = self.data[of_scores].assign(kept=(self.data["kept"].dims, kept, self.data["kept"].attrs))
        data.attrs.pop("n_unconnected", None)
        return Circuit(data)

    def connected(self) -> Circuit:
        """The circuit without edges that lie on no path from ``embed`` to the end.

        How many were left out is the attribute ``n_unconnected`` of its data.

        Raises:
            InterpError: the embedding is none of the senders that have scores.
        """
        if START not in self.graph.senders:
            raise InterpError(f"The circuit's senders lack '{START}', where every path starts. Score its edges too.")
        kept = self.graph.mask(on_paths(self.edges, self.graph))
        found = self.keeping(kept)
        return Circuit(found.data.assign_attrs(n_unconnected=len(self) - int(kept.sum())))

    def compare(self, other: Circuit) -> Comparison:
        """What this circuit and another have in common, and what only one of them has.

        >>> from interp import HookedTransformer, tasks
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
        >>> one = Circuit.of(model, pairs, [("embed", "L0H2.v"), ("L0H2", "logits")])
        >>> other = Circuit.of(model, pairs, [("embed", "logits"), ("L0H2", "logits")])
        >>> found = one.compare(other)
        >>> round(found.edges, 3), round(found.nodes, 3), found.only_second  # of 3 edges one; of 3 nodes all
        (0.333, 1.0, frozenset({Edge(sender='embed', receiver='logits', role=None)}))
        """
        return Comparison(
            edges=jaccard(self.edges, other.edges),
            nodes=jaccard(self.nodes, other.nodes),
            shared=self.edges & other.edges,
            only_first=self.edges - other.edges,
            only_second=other.edges - self.edges,
        )

    # ---- to and from a file, and a cell ----

    def save(self, path: str | Path) -> Path:
        """Write it as NetCDF with a checksum at its end.

        Raises:
            InterpError: the directory cannot be written.
        """
        return results.save(self.data, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InterpError: the file is absent, damaged, or holds no circuit.
        """
        data = results.load(path)
        try:
            return cls(data)
        except InterpError as error:
            raise InterpError(f"{path} holds no circuit: {error}") from error

    def __repr__(self) -> str:
        method = self.data.attrs.get("method", "")
        return f"Circuit({len(self)} of {self.n_possible} edges, {len(self.nodes)} nodes, {method})"

    def _repr_html_(self) -> str:
        return _cells.html(self.data)

    # ---- inside ----

    @cached_property
    def graph(self) -> Graph:
        """The model's graph, as far as its edges have scores."""
        sizes = {name: int(self.data.attrs[name]) for name in SIZES}
        senders, receivers = (tuple(map(str, self.data[name].values)) for name in ("sender", "receiver"))
        roles = tuple(map(str, self.data["role"].values)) if "role" in self.scores.dims else None
        return Graph(senders, receivers, roles, np.isfinite(self.scores.values), **sizes)

    def _edge(self, index: Int[np.ndarray, " axis"]) -> Edge:
        return self.graph.edge(index)

    def _order(self) -> Int[np.ndarray, " edge"]:
        """Flat indices of all edges, the best first."""
        values = self.scores.values.ravel()
        known = np.flatnonzero(np.isfinite(values))
        key = np.abs(values) if self.data.attrs["rank"] == "absolute" else values
        return known[np.argsort(-key[known], kind="stable")]

    def _count(self, size: int | float) -> int:
        check_size(size)
        n = round(float(size) * self.n_possible) if isinstance(size, float | np.floating) else int(size)
        if n > self.n_possible:
            raise InterpError(f"size is {n}. Give a whole number of edges from 0 to {self.n_possible}.")
        return n


def check_size(size: object) -> None:
    """Refuse what is neither a number of edges nor a share of them.

    Raises:
        InterpError: says what a size is.
    """
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool) and size >= 0
    if not whole and not (isinstance(size, float | np.floating) and 0 <= size <= 1):
        raise InterpError(
            f"size is {shown(size)}. Give a whole number of edges from 0 to all of them, or a fraction of them between "
            "0.0 and 1.0."
        )


def jaccard(first: frozenset[Edge] | frozenset[str], second: frozenset[Edge] | frozenset[str]) -> float:
    """Those in both over those in either, in [0, 1]; 1 where there are none.

    >>> jaccard(frozenset("ab"), frozenset("bcd"))
    0.25
    """
    either = first | second
    return len(first & second) / len(either) if either else 1.0


def check(data: xr.Dataset) -> xr.Dataset:
    """The data, if it is a circuit's.

    Raises:
        InterpError: says what is missing or wrong.
    """
    results.validate(data)
    for name in ("score", "kept"):
        if name not in data.data_vars:
            raise InterpError(f"it has no variable '{name}'. Make it with interp.circuits.discover or Circuit.of.")
    score, kept = data["score"], data["kept"]
    if score.dims != kept.dims or not {"sender", "receiver"} <= set(score.dims) <= _DIMS:
        raise InterpError(f"its scores have the axes {score.dims}, not sender, receiver and, if any, role.")
    for name in SIZES:
        if not isinstance(data.attrs.get(name), int | np.integer) or data.attrs[name] < 1:
            raise InterpError(f"its attribute '{name}' is {shown(data.attrs.get(name))}, not the number of heads.")
    if data.attrs.get("rank") not in get_args(Rank):
        raise InterpError(f"its attribute 'rank' is {shown(data.attrs.get('rank'))}, none of {get_args(Rank)}.")
    if kept.dtype.kind not in "bui" or score.dtype.kind != "f":
        raise InterpError("its scores are no numbers, or what it keeps is neither yes nor no.")
    if (kept.values.astype(bool) & ~np.isfinite(score.values)).any():
        raise InterpError("it keeps an edge that has no score.")
    for name in map(str, score.dims):
        if len(set(data[name].values.tolist())) != data.sizes[name]:
            raise InterpError(f"it names a {name} twice.")
    return data


def _intervals(
    score: Float[np.ndarray, "*edges"], each: Float[np.ndarray, "prompt ..."]
) -> Float[np.ndarray, "ci_bound ..."]:
    """Bootstrap intervals over prompts of the strongest edges; NaN for the others."""
    flat = np.abs(score).ravel()
    known = np.flatnonzero(np.isfinite(flat))
    strongest = known[np.argsort(-flat[known], kind="stable")[:WITH_INTERVALS]]
    out = np.full((2, flat.size), np.nan)
    if len(strongest):
        out[:, strongest] = stats.bootstrap_interval(each.reshape(len(each), -1)[:, strongest])
    return out.reshape(2, *score.shape)
