"""Which sets of edges an evaluation runs, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from interp.circuits.circuit import Circuit
from interp.circuits.graph import START, Edge, Graph, node_of, on_paths
from interp.circuits.random import DRAW, Null

NULLS: tuple[Null, ...] = ("edges", "heads")


@dataclass
class Sets:
    """Sets of edges that are to be run, each once."""

    graph: Graph
    masks: list[Bool[np.ndarray, "sender receiver *role"]] = field(default_factory=list)
    number: dict[bytes, int] = field(default_factory=dict)

    def add(self, edges: Iterable[Edge]) -> int:
        """The number of the set of those edges that lie on a path."""
        mask = self.graph.mask(on_paths(edges, self.graph))
        found = self.number.setdefault(np.packbits(mask).tobytes(), len(self.masks))
        if found == len(self.masks):
            self.masks.append(mask)
        return found

    def every(self) -> frozenset[Edge]:
        """All edges."""
        return frozenset(self.graph.edge(index) for index in np.argwhere(self.graph.possible))

    def edges(self, number: int) -> frozenset[Edge]:
        """Those of a set."""
        return frozenset(self.graph.edge(index) for index in np.argwhere(self.masks[number]))


@dataclass(frozen=True)
class Asked:
    """Which sets of edges are run, by their numbers.

    Attributes:
        none: no edge.
        every: all edges.
        taken: [size] edges of the circuit of each size.
        connected: [size] those of them on a path.
        sizes: [size] the circuit's best edges.
        random: [size, draw] other edges, as many.
        own: the circuit itself.
        others: all edges but the circuit's.
        own_random: [null, draw] random circuits like the circuit itself.
        knocked: [knockout, two] the circuit and the whole model without some of the circuit's parts.
        nodes: the circuit's heads and MLPs.
        without_node: [node] the circuit without each.
        edges: the circuit's best edges.
        without_edge: [circuit_edge] the circuit without each.
        n_edges: edges of the circuit itself that are on a path.
    """

    none: int
    every: int
    taken: list[int]
    connected: list[int]
    sizes: Int[np.ndarray, " size"]
    random: Int[np.ndarray, "size draw"]
    own: int
    others: int
    own_random: Int[np.ndarray, "null draw"]
    knocked: Int[np.ndarray, "knockout two"]
    nodes: list[str]
    without_node: Int[np.ndarray, " node"]
    edges: list[Edge]
    without_edge: Int[np.ndarray, " circuit_edge"]
    n_edges: int

    @classmethod
    def of(
        cls,
        sets: Sets,
        circuit: Circuit,
        fractions: Sequence[float],
        n_random: int,
        n_knockouts: int,
        most_edges: int,
        seed: int,
    ) -> Asked:
        """The sets that an evaluation needs, put in ``sets``; its parameters are those of ``evaluate``.

        Every draw has a generator of its own, so that it is the same however many others there are.
        """
        every = sets.every()
        none, whole = sets.add([]), sets.add(every)
        taken = [int(fraction * circuit.n_possible) for fraction in fractions]
        of_size = [circuit.at(n).edges for n in taken]
        sizes = [sets.add(edges) for edges in of_size]

        def drawn(edges: Collection[Edge], null: Null, size: int) -> list[int]:
            rngs = (np.random.default_rng([seed, NULLS.index(null), size, draw]) for draw in range(n_random))
            return [sets.add(DRAW[null](edges, sets.graph, rng)) for rng in rngs]

        own = sets.add(circuit.edges)
        edges = sets.edges(own)
        nodes = _parts(edges, sets.graph)
        knocked = []
        for draw in range(n_knockouts):
            rng = np.random.default_rng([seed, len(NULLS), draw])
            out = {node for node in nodes if rng.random() < 0.5}
            knocked.append([sets.add(_without(one, out)) for one in (edges, every)])
        best = [edge for edge, _ in circuit.ranked() if edge in edges][:most_edges]
        return cls(
            none=none,
            every=whole,
            taken=taken,
            connected=[int(sets.masks[i].sum()) for i in sizes],
            sizes=np.array(sizes),
            random=np.array([drawn(one, "edges", n) for n, one in zip(taken, of_size, strict=True)], dtype=int).reshape(
                len(sizes), n_random
            ),
            own=own,
            others=sets.add(every - edges),
            own_random=np.array([drawn(edges, null, len(edges)) for null in NULLS], dtype=int).reshape(
                len(NULLS), n_random
            ),
            knocked=np.array(knocked, dtype=int).reshape(n_knockouts, 2),
            nodes=nodes,
            without_node=np.array([sets.add(_without(edges, {node})) for node in nodes], dtype=int),
            edges=best,
            without_edge=np.array([sets.add(edges - {edge}) for edge in best], dtype=int),
            n_edges=len(edges),
        )


def _parts(edges: Collection[Edge], graph: Graph) -> list[str]:
    """The heads and MLPs at the ends of edges, as they write; shared keys come with their first head."""
    place = {name: i for i, name in enumerate(graph.senders)}
    ends = {edge.sender for edge in edges} | {node_of(edge.receiver) for edge in edges}

    def order(node: str) -> tuple[int, str]:
        return place[node] if node in place else place[graph.writers(f"{node}.k")[0]], node

    return sorted(ends - {START, graph.receivers[-1]}, key=order)


def _without(edges: Collection[Edge], nodes: Collection[str]) -> set[Edge]:
    return {edge for edge in edges if edge.sender not in nodes and node_of(edge.receiver) not in nodes}
