"""Edge scores, the circuit they give, and its faithfulness, against TransformerLens's own (``tools.analysis``).

TransformerLens scores an edge at every position, of one pair at a time, and has no integrated gradients; its sums over
positions are compared. Its ``faithfulness`` takes one pair too, and runs the model once more for each class of edges,
which cannot be left out and is part of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformer_lens.tools.analysis import EdgeAttributionConfig, Node, attribution_patch, faithfulness

from interp.attribution import edge_attribution
from interp.circuits import Edge, jaccard, run_circuits
from interp.circuits.graph import Graph
from tests.benchmarks import machine, sweeps
from tests.benchmarks.workload import Workload, parse_head

SIZE = 40
"""Edges of the circuit."""
ROUNDING = 2e-4
"""How far the numbers may lie apart, as a share of the largest: a gradient and two passes in float32."""
_READS = {"q_input": "q", "k_input": "k", "v_input": "v"}


def measure(work: Workload, repeats: int) -> dict[str, Any]:
    """Seconds of both, in turns, and how far their numbers lie apart."""
    graph = Graph.of(work.model, roles=None)
    spent: dict[str, list[float]] = {}
    kept: dict[str, Any] = {}

    def timed(name: str, call: Callable[..., Any], *given: Any) -> None:
        def run() -> None:
            kept[name] = call(*given)

        spent.setdefault(name, []).append(sweeps.lasting(run))

    for _ in range(repeats):
        timed("scores", _our_scores, work, graph)
        timed("their scores", _their_scores, work, graph)
        circuit = _best(kept["scores"], graph)
        timed("faithfulness", _our_faithfulness, work, circuit)
        timed("their faithfulness", _their_faithfulness, work, circuit)
    seconds = {name: machine.median(found) for name, found in spent.items()}
    shared = jaccard(frozenset(circuit), frozenset(_best(kept["their scores"], graph)))
    return {
        "size": SIZE,
        "pairs": len(work.pairs),
        "seconds": seconds,
        "jaccard": shared,
        "peers": {
            f"transformer-lens, {name}": _compared(kept[name], kept[f"their {name}"], seconds, name)
            for name in ("scores", "faithfulness")
        },
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """What is printed."""
    told = [
        f"  {name.partition(', ')[2]:<14}ours {1e3 * one['seconds']:8.1f} ms, theirs {1e3 * one['their_seconds']:9.1f}"
        " ms"
        + (f", {one['ratio']:6.1f} times" if one["agrees"] else "")
        + f"; largest difference {one['difference']:.1e} (limit {one['limit']:.1e})"
        for name, one in figures["peers"].items()
    ]
    return [*told, f"  best {figures['size']} edges: Jaccard index {figures['jaccard']:.2f}"]


def _compared(mine: np.ndarray, theirs: np.ndarray, seconds: dict[str, float], name: str) -> dict[str, Any]:
    known = np.isfinite(mine)
    same_cells = bool((known == np.isfinite(theirs)).all())
    difference = float(np.abs(mine - theirs)[known].max()) if same_cells else float("inf")
    limit = ROUNDING * float(np.abs(mine[known]).max())
    ours, their = seconds[name], seconds[f"their {name}"]
    return {
        "agrees": difference <= limit, "difference": difference, "limit": limit, "seconds": ours,
        "their_seconds": their, "ratio": their / ours,
    }  # fmt: skip


def _best(scores: np.ndarray, graph: Graph) -> list[Edge]:
    """The edges with the largest scores."""
    size = np.where(np.isfinite(scores), np.abs(scores), -1.0)
    order = np.argsort(-size.ravel(), kind="stable")[:SIZE]
    return [graph.edge(map(int, np.unravel_index(flat, scores.shape))) for flat in order]


# ---- ours ----


def _our_scores(work: Workload, graph: Graph) -> np.ndarray:
    found = edge_attribution(work.model, work.pairs, "denoising", method="eap", audit=None)
    return np.asarray(found.estimated_effect.mean("prompt").transpose(*graph.dims).values)


def _our_faithfulness(work: Workload, circuit: Sequence[Edge]) -> np.ndarray:
    """Per pair: how much of the gap the circuit recovers."""
    graph = Graph.of(work.model, roles=None)
    every = [graph.edge(index) for index in np.argwhere(graph.possible)]
    none, own, clean = run_circuits(work.model, work.pairs, [[], circuit, every])
    return np.asarray((own - none) / (clean - none))


# ---- theirs ----


def _their_scores(work: Workload, graph: Graph) -> np.ndarray:
    """The mean over pairs of the sums over positions."""
    total = np.where(graph.possible, 0.0, np.nan)
    for i in range(len(work.pairs)):
        with _wanting_gradients(work):
            found = attribution_patch(
                work.model.bridge, work.clean[i : i + 1], work.corrupted[i : i + 1], _metric(work, i),
                EdgeAttributionConfig(granularity="edge"),
            )  # fmt: skip
        for (sender, receiver), score in found.edge_scores.items():
            total[graph.at(Edge(_label(sender), _label(receiver)))] += score / len(work.pairs)
    return total


def _their_faithfulness(work: Workload, circuit: Sequence[Edge]) -> np.ndarray:
    positions = range(work.clean.shape[1])
    last = work.model.cfg.n_layers - 1
    edges = [
        (_node(edge.sender, at, last), _node(edge.receiver, at, last, reads=True))
        for edge in circuit
        for at in positions
    ]
    return np.array([
        faithfulness(
            work.model.bridge, work.clean[i : i + 1], work.corrupted[i : i + 1], _metric(work, i), edges
        ).recovered
        for i in range(len(work.pairs))
    ])  # fmt: skip


@contextmanager
def _wanting_gradients(work: Workload) -> Iterator[None]:
    """Their gradient needs a weight that wants one; interp's models have none."""
    parameters = list(work.model.bridge.parameters())
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)


def _metric(work: Workload, pair: int) -> Callable[[torch.Tensor], torch.Tensor]:
    right, wrong = work.correct[pair], work.incorrect[pair]
    return lambda logits: logits[0, -1, right] - logits[0, -1, wrong]


def _label(node: Node) -> str:
    if node.kind in ("embed", "logits"):
        return node.kind
    if node.kind in ("mlp_in", "mlp_out"):
        return f"MLP{node.layer}"
    return f"L{node.layer}H{node.head}" + (f".{_READS[node.kind]}" if node.kind in _READS else "")


def _node(label: str, position: int, last: int, *, reads: bool = False) -> Node:
    if label == "embed":
        return Node("embed", position)
    if label == "logits":
        return Node("logits", position, layer=last)
    if label.startswith("MLP"):
        return Node("mlp_in" if reads else "mlp_out", position, layer=int(label[3:]))
    head, _, read = label.partition(".")
    layer, number = parse_head(head)
    return Node(f"{read}_input" if reads else "attn_head_out", position, layer=layer, head=number)  # type: ignore[arg-type]
