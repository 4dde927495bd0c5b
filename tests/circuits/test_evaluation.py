"""What a circuit is worth, against worked examples, circuits known by construction, and a simulation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp import groundtruth, stats
from interp.circuits import Circuit, Edge, areas, evaluate, run_circuits
from interp.circuits.evaluation import FRACTIONS, label
from interp.circuits.graph import Graph, on_paths
from interp.circuits.random import DRAW, Null
from interp.errors import InterpError
from interp.groundtruth import GroundTruth
from interp.model import HookedTransformer
from tests.tolerance import close, near

SUPERFLUOUS = [Edge("embed", "L1H1.v"), Edge("L1H1", "logits")]
NOISE = "the other heads of these models write a little noise"


def known(name: str) -> GroundTruth:
    return groundtruth.build(name)


def test_cpr_and_cmd_of_a_worked_example() -> None:
    sizes, faithfulness = [0.1, 0.2, 0.5, 1.0], np.array([0.2, 1.2, 0.8, 1.0])
    cpr, cmd = areas(sizes, faithfulness)
    close(
        [cpr, cmd],
        [0.1 * 0.7 + 0.3 * 1.0 + 0.5 * 0.9, 0.1 * 0.5 + 0.3 * 0.2 + 0.5 * 0.1],
        "arithmetic",
        dtype="float64",
    )
    cpr, cmd = areas([0.01, 0.1, 1.0], np.array([-1.0, 1.0, 2.0]), log_scale=True)
    close([cpr, cmd], [np.log(10) * 1.5, np.log(10) * 1.5], "arithmetic", dtype="float64")


def test_the_sizes_are_those_of_mib() -> None:
    assert FRACTIONS == (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


@pytest.fixture(scope="module")
def plain() -> GroundTruth:
    return known("plain")


def test_a_known_circuit_is_faithful_complete_and_minimal(plain: GroundTruth) -> None:
    pairs = plain.pairs.select(range(8))
    circuit = Circuit.of(plain.model, pairs, [*plain.edges, *SUPERFLUOUS])
    found = evaluate(plain.model, pairs, circuit, n_random=4, n_knockouts=4).sel(ablation="resample")
    near(found.own_faithfulness, 1, 0.02, why=NOISE)
    near(found.complement, 0, 0.02, why=NOISE)
    near(found.incompleteness, 0, 0.02, why=NOISE)
    cost = {str(edge): float(found.edge_cost.sel(circuit_edge=edge)) for edge in found.circuit_edge.values}
    assert set(cost) == {label(Edge(*edge)) for edge in [*plain.edges, *SUPERFLUOUS]}
    for edge in SUPERFLUOUS:
        near(cost[label(edge)], 0, 0.02, why=NOISE)
    for edge in plain.edges:
        near(cost[label(Edge(*edge))], 1, 0.02, why=NOISE)
    assert found.node.values.tolist() == ["L0H0", "L1H0", "L1H1"]
    near(found.node_cost, [1, 1, 0], 0.02, why=NOISE)
    assert found.own_p.sel(null="edges") == 1 / 5
    assert (found.own_random.sel(null="edges") < 0.1).all()
    assert float(found.own_faithfulness_interval[0]) <= float(found.own_faithfulness) <= 1.05


def test_half_a_circuit_is_not_complete() -> None:
    """Of two paths that carry the answer together, one alone: the model without it still answers, the circuit not."""
    truth = known("parallel")
    pairs = truth.pairs.select(range(8))
    alone = [edge for edge in truth.edges if "L1H3" not in f"{edge}"]
    found = evaluate(
        truth.model, pairs, Circuit.of(truth.model, pairs, alone), ablations=["resample"], n_random=0, n_knockouts=6
    )
    assert found.incompleteness.item() > 0.1
    whole = evaluate(
        truth.model, pairs, Circuit.of(truth.model, pairs, truth.edges), ablations=["resample"], n_random=0
    )
    near(whole.incompleteness.item(), 0, 0.02, why=NOISE)
    assert "own_p" not in whole
    assert "random_faithfulness" not in whole


def test_faithfulness_is_the_ratio_of_means_of_the_runs_and_nothing_is_clamped(plain: GroundTruth) -> None:
    pairs = plain.pairs.select(range(6))
    scores = {Edge(*edge): 3.0 for edge in plain.edges} | dict.fromkeys(SUPERFLUOUS, 1.0)
    circuit = Circuit.of(plain.model, pairs, plain.edges, scores=scores)
    n = circuit.n_possible
    sizes = [3 / n + 1e-9, 5 / n + 1e-9, 1.0]
    found = evaluate(plain.model, pairs, circuit, fractions=sizes, n_random=0, n_knockouts=0, most_edges=0)
    assert found.n_edges.values.tolist() == [3, 5, n]
    for ablation in found.ablation.values:
        sets = [[], list(plain.edges), [*plain.edges, *SUPERFLUOUS], all_edges(plain.model)]
        none, three, five, every = run_circuits(plain.model, pairs, sets, ablation=ablation)
        expected = [(value.mean() - none.mean()) / (every.mean() - none.mean()) for value in (three, five, every)]
        # Means of logits near 8, divided by a gap that is as large.
        close(found.faithfulness.sel(ablation=ablation), expected, size=8)
        close(found.circuit.sel(ablation=ablation)[:, 0], three, size=8)
    slopes = found.faithfulness.sel(ablation="zero")
    close(found.cpr.sel(ablation="zero"), np.trapezoid(slopes, sizes), "arithmetic", dtype="float64")


def all_edges(model: HookedTransformer) -> list[Edge]:
    graph = Graph.of(model, roles=None)
    return [graph.edge(index) for index in np.argwhere(graph.possible)]


@pytest.mark.parametrize("null", DRAW)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_random_circuits_are_matched(null: Null, name: str, request: pytest.FixtureRequest) -> None:
    graph = Graph.of(request.getfixturevalue(name), roles=None)
    rng = np.random.default_rng(0)
    edges = frozenset(graph.edge(index) for index in np.argwhere(graph.possible) if rng.random() < 0.15)

    def kinds(found: frozenset[Edge]) -> Counter[tuple[str, str]]:
        return Counter((edge.receiver[:2] + edge.receiver[2:4] * edge.receiver.startswith("MLP"), edge.receiver[-1:]
                        if "." in edge.receiver else "") for edge in found)  # fmt: skip

    drawn = [DRAW[null](edges, graph, rng) for _ in range(5)]
    assert len({*drawn, edges}) == 6
    for one in drawn:
        assert len(one) == len(edges)
        assert kinds(one) == kinds(edges)
        assert graph.mask(one).sum() == len(edges)  # all of them are edges of the model
        if null == "heads":
            assert len(on_paths(one, graph)) == len(on_paths(edges, graph))
    # A set's order is another one in every process: the draw must not follow it.
    listed = sorted(edges, key=str)
    assert DRAW[null](listed, graph, np.random.default_rng(1)) == DRAW[null](
        listed[::-1], graph, np.random.default_rng(1)
    )


@pytest.mark.slow
def test_intervals_of_cmd_hold_the_truth() -> None:
    """Prompts of one distribution: nearly 95% of the intervals hold the CMD that many prompts would give."""
    rng, sizes = np.random.default_rng(0), [0.1, 0.5, 1.0]
    truth = float(areas(sizes, np.array([0.3, 0.8, 1.0]))[1])
    held = 0
    for draw in range(200):
        gap = rng.normal(4.0, 1.0, (40, 1))
        above = gap * [0.3, 0.8, 1.0] + rng.normal(0.0, 0.8, (40, 3)) * [1, 1, 0]
        low, high = stats.ratio_statistic_interval(
            above, gap, lambda ratios: areas(sizes, ratios)[1], n_resamples=400, seed=draw
        )
        held += bool(low <= truth <= high)
    assert 0.89 < held / 200 < 0.99


def test_a_statistic_of_ratios_is_drawn_with_the_same_rows_as_the_ratio() -> None:
    rng = np.random.default_rng(1)
    top, bottom = rng.normal(2, 1, (12, 3)), rng.normal(5, 1, (12, 1))
    own = stats.ratio_statistic_interval(top, bottom, lambda ratios: ratios)
    close(own, stats.ratio_interval(top, np.broadcast_to(bottom, top.shape)), "arithmetic", dtype="float64")
    alone = stats.ratio_statistic_interval(top[:1], bottom[:1], lambda ratios: ratios.sum(axis=1))
    assert np.isnan(alone).all()


def test_bad_questions_are_refused_in_one_line(plain: GroundTruth) -> None:
    circuit = Circuit.of(plain.model, plain.pairs, plain.edges)
    with pytest.raises(InterpError, match="Unknown ablation 'median'"):
        evaluate(plain.model, plain.pairs, circuit, ablations=["median"])  # type: ignore[list-item]
    for bad in ([0.5], [0.5, 0.1], [0.5, 1.5]):
        with pytest.raises(InterpError, match="at least two shares between 0 and 1, rising"):
            evaluate(plain.model, plain.pairs, circuit, fractions=bad)
    with pytest.raises(InterpError, match="n_random is -1"):
        evaluate(plain.model, plain.pairs, circuit, n_random=-1)
