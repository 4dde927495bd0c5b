"""Random circuits that are like a given one: what it has to be better than."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeAlias

import numpy as np

from interp.circuits.graph import Edge, Graph
from interp.sites import head_label

Null: TypeAlias = Literal["edges", "heads"]
"""How random circuits are drawn."""

_HEAD = re.compile(r"L(\d+)(H|KV)(\d+)(?:\.([qkv]))?")


def other_edges(edges: Collection[Edge], graph: Graph, rng: np.random.Generator) -> frozenset[Edge]:
    """As many edges, drawn at random: of each layer as many into queries, into keys, into values, and into the MLP.

    >>> from interp import HookedTransformer
    >>> graph = Graph.of(HookedTransformer.from_pretrained("mini"), roles=None)
    >>> drawn = other_edges([Edge("embed", "L0H2.v"), Edge("L0H2", "L1H0.v")], graph, np.random.default_rng(0))
    >>> sorted((edge.receiver[:2], edge.receiver[-1]) for edge in drawn)
    [('L0', 'v'), ('L1', 'v')]
    """
    # In an order of their own: a set's order is another one in every process, and the draws follow it.
    count = dict(sorted(Counter(map(_kind, edges)).items()))
    candidates: dict[tuple[str, ...], list[Edge]] = {kind: [] for kind in count}
    for index in np.argwhere(graph.possible):
        edge = graph.edge(index)
        if _kind(edge) in candidates:
            candidates[_kind(edge)].append(edge)
    return frozenset(
        candidates[kind][i] for kind, n in count.items() for i in rng.choice(len(candidates[kind]), n, replace=False)
    )


def other_heads(edges: Collection[Edge], graph: Graph, rng: np.random.Generator) -> frozenset[Edge]:
    """The same wiring through other heads of the same layers: the heads of each layer change places at random.

    Embedding, MLPs and logits stay. Key-value heads that are shared change places with all that share them.

    >>> from interp import HookedTransformer
    >>> graph = Graph.of(HookedTransformer.from_pretrained("mini"), roles=None)
    >>> path = [Edge("embed", "L0H2.v"), Edge("L0H2", "L1H0.v"), Edge("L1H0", "logits")]
    >>> drawn = sorted(other_heads(path, graph, np.random.default_rng(0)))
    >>> [(edge.sender[:2], edge.receiver[:2]) for edge in drawn]
    [('L0', 'L1'), ('L1', 'lo'), ('em', 'L0')]
    """
    group = graph.n_heads // graph.n_kv_heads
    layers = sorted({int(found[1]) for label in graph.senders if (found := _HEAD.fullmatch(label))})
    place: dict[str, str] = {}
    for layer in layers:
        shared = rng.permutation(graph.n_kv_heads)
        for one, other in enumerate(shared):
            place[f"L{layer}KV{one}"] = f"L{layer}KV{other}"
            for i, j in enumerate(rng.permutation(group)):
                place[head_label(layer, group * one + i)] = head_label(layer, int(group * other + j))
    return frozenset(Edge(_moved(sender, place), _moved(receiver, place), role) for sender, receiver, role in edges)


DRAW: Mapping[Null, Callable[[Collection[Edge], Graph, np.random.Generator], frozenset[Edge]]] = {
    "edges": other_edges,
    "heads": other_heads,
}


def _kind(edge: Edge) -> tuple[str, ...]:
    """Layer and kind of the receiver, and the role."""
    found = _HEAD.fullmatch(edge.receiver)
    return (edge.receiver if found is None else f"{found[1]}.{found[4]}", str(edge.role))


def _moved(label: str, place: Mapping[str, str]) -> str:
    node, dot, read = label.partition(".")
    return place.get(node, node) + dot + read
