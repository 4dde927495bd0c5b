"""Discovery finds circuits that are known, and each method is what its scores say it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from interp import HookedTransformer, InterpError, PromptPairs, circuits, path_patching, sweep
from interp.attribution import Audit, attribution_patching, edge_attribution
from interp.circuits import Edge, discover, split
from interp.circuits.graph import Graph
from interp.circuits.greedy import prune
from interp.circuits.planning import METHODS
from interp.circuits.running import CircuitAblation, CircuitRuns, run_circuit
from interp.readouts import projection
from interp.sites import head_label
from tests.circuits.planted import DECOY, MOVED, MOVER, N_HEADS, UNREAD, feature, path, planted, planted_pairs
from tests.tiny import make_gpt2, random_ids, scattered_pairs, without_blocks
from tests.tolerance import close, near


@pytest.fixture(scope="module", params=[N_HEADS, 2])
def known(request: pytest.FixtureRequest) -> tuple[HookedTransformer, set[Edge]]:
    return planted(request.param), {Edge(*edge) for edge in path(request.param)}


@pytest.fixture(scope="module")
def gpt2_2(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    path = make_gpt2(tmp_path_factory.mktemp("gpt2"), n_layer=2, n_head=2)
    return HookedTransformer.from_pretrained(path)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_exact_discovery_finds_the_circuit_that_was_built(
    known: tuple[HookedTransformer, set[Edge]], direction: str
) -> None:
    model, edges = known
    found = discover(model, planted_pairs(), "exact", direction=direction)  # type: ignore[arg-type]
    assert found.edges == edges
    assert found.data.attrs["n_unconnected"] == 0
    assert all(score > 0 for _, score in found.ranked())
    # every edge of the chain carries all there is: without it the answer is the other one
    if direction == "noising":
        near(found.ranked()[-1][1], found.data.attrs["gap"], 1e-4, why="the answer turns into its opposite")


@pytest.mark.parametrize("method", ["eap", "eap-ig-inputs", "eap-ig-activations"])
def test_estimates_rank_the_circuit_that_was_built_first(
    known: tuple[HookedTransformer, set[Edge]], method: str
) -> None:
    model, edges = known
    found = discover(model, planted_pairs(), method, size=3)  # type: ignore[arg-type]
    assert found.edges == edges
    assert found.data.attrs["audit_use"] in ("numbers", "ranking")


def test_estimates_that_are_good_for_nothing_say_so() -> None:
    """Without the constant a norm turns what little the decoy writes into an edge, by its gradient."""
    found = discover(planted(constant=0.0), planted_pairs(), "eap", size=3)
    assert found.edges != {Edge(*edge) for edge in path()}
    assert found.data.attrs["audit_use"] == "nothing"
    assert "do not use this circuit" in found.data.attrs["reading"]
    assert discover(planted(constant=0.0), planted_pairs(), "exact").edges == {Edge(*edge) for edge in path()}


def test_exact_discovery_is_path_patching_with_a_threshold(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    effect = path_patching(gpt2, pairs, direction="noising")
    lost = (effect["clean"] - effect["patched"]).mean("prompt")
    gap = float((effect["clean"] - effect["corrupted"]).mean())
    found = discover(gpt2, pairs, "exact", threshold=0.05)
    close(found.scores, lost * np.sign(gap), size=float(np.abs(effect["clean"]).max()))
    assert found.data.attrs["gap"] == gap
    score = found.scores.values
    wanted = {found.graph.edge(index) for index in np.argwhere(np.nan_to_num(np.abs(score)) >= 0.05 * abs(gap))}
    assert found.edges == found.keeping(wanted).connected().edges
    assert len(wanted) == len(found) + found.data.attrs["n_unconnected"]
    low, high = found.data["score_interval"].values
    known = np.isfinite(score)
    assert (low[known] <= score[known]).all()
    assert (score[known] <= high[known]).all()


def test_estimates_are_those_of_edge_attribution_and_carry_their_audit(llama: HookedTransformer) -> None:
    pairs = scattered_pairs()
    audit = Audit(top_k=2, random=4)
    found = discover(llama, pairs, "eap-ig-inputs", direction="denoising", steps=2, audit=audit, size=20)
    estimated = edge_attribution(llama, pairs, "denoising", method="eap-ig-inputs", steps=2, audit=audit)
    mean = estimated["estimated_effect"].mean("prompt")
    close(found.scores, mean * np.sign(found.data.attrs["gap"]))
    for name in ("audit_use", "audit_reason", "audit_cells", "trusted"):
        assert found.data.attrs[name] == estimated.attrs[name]
    assert discover(llama, pairs, "eap", audit=None, size=1).data.attrs["audit_use"] == "nothing"


def test_eap_is_the_exact_effect_where_the_change_is_small() -> None:
    """A finite difference: blue is red, moved by a thousandth."""
    model = planted(blue=0.999)
    exact, estimated = (discover(model, planted_pairs(), method, audit=None, size=3) for method in ("exact", "eap"))
    assert exact.edges == estimated.edges == {Edge(*edge) for edge in path()}
    size = float(exact.scores.max())
    near(estimated.scores.fillna(0) / size, exact.scores.fillna(0) / size, 0.01, why="float32 and the second order")


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_greedy_removal_leaves_the_circuit_that_was_built(
    known: tuple[HookedTransformer, set[Edge]], ablation: CircuitAblation
) -> None:
    model, edges = known
    found = discover(model, planted_pairs(), "greedy", ablation=ablation)
    assert {edge for edge in found.edges if edge.receiver[-1] not in "qk"} == edges
    if ablation == "resample":
        assert found.edges == edges


@pytest.mark.parametrize("metric", ["logit_difference", "kl"])
def test_greedy_removal_is_the_plain_loop(gpt2_2: HookedTransformer, metric: str) -> None:
    """One edge after the other, and none skipped."""
    gpt2, pairs = gpt2_2, scattered_pairs().select([0, 1])
    graph = Graph.of(gpt2, roles=None)
    all_edges = [graph.edge(at) for at in np.argwhere(graph.possible)]
    order = sorted(all_edges, key=lambda edge: graph.at(edge)[::-1], reverse=True)
    whole, nothing = (run_circuit(gpt2, pairs, edges, metric=metric) for edges in (all_edges, []))
    least = 0.1 * abs((whole - nothing).mean())
    kept, current = set(all_edges), whole
    for edge in order:
        values = run_circuit(gpt2, pairs, kept - {edge}, metric=metric)
        change = (values - current).mean()
        if (change if metric == "kl" else abs(change)) < least:
            kept, current = kept - {edge}, values
    runs = CircuitRuns.of(gpt2, pairs, graph, metric=metric)
    for at_once in (1, 7):
        found = prune(runs, 0.1, signed=metric == "kl", at_once=at_once)
        assert {graph.edge(at) for at in np.argwhere(found.kept)} == kept
    assert discover(gpt2, pairs, "greedy", metric=metric, threshold=0.1).edges <= kept


def test_nodes_give_every_edge_among_them(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    found = discover(gpt2, pairs, "atp*", audit=None, threshold=0.1)
    heads, mlps = (
        attribution_patching(gpt2, pairs, site, "noising", method="atp*", audit=None) for site in ("z", "mlp_out")
    )
    z = heads["estimated_effect"].mean("prompt").values
    mlp = mlps["estimated_effect"].sum("position").mean("prompt").values
    worth = {head_label(*at): abs(float(z[at])) for at in np.ndindex(*z.shape)}
    worth |= {f"MLP{layer}": abs(float(value)) for layer, value in enumerate(mlp)}
    worth["embed"] = abs(found.data.attrs["gap"])
    for sender, receiver, reader in (("embed", "L1H2.k", "L1H2"), ("L0H3", "MLP2", "MLP2"), ("L0H1", "L2H0.v", "L2H0")):
        close(float(found.scores.sel(sender=sender, receiver=receiver)), min(worth[sender], worth[reader]))
    close(float(found.scores.sel(sender="L2H1", receiver="logits")), worth["L2H1"])
    chosen = {name for name, value in worth.items() if value >= 0.1 * worth["embed"]}
    assert found.nodes == chosen | {"logits"}


def test_a_model_without_arithmetic_is_searched_by_nodes(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = scattered_pairs()
    expected = discover(gpt2, pairs, "atp*", audit=None)
    without_blocks(monkeypatch, gpt2)
    found = discover(gpt2, pairs, audit=None)
    assert found.data.attrs["method"] == "atp*"
    assert found.edges == expected.edges
    with pytest.raises(InterpError, match=r"own weights only, and .* Use method='atp\*'"):
        discover(gpt2, pairs, "eap")


def test_the_method_is_chosen_by_the_plan(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = scattered_pairs()
    planned = circuits.plan(gpt2, pairs)
    assert (planned.method, planned.n_edges) == ("exact", 262)
    assert planned.flop > 0
    assert planned.peak_bytes > 0
    monkeypatch.setattr("interp.circuits.planning.CHEAP", 0.0)
    assert "would take longer" in str(circuits.plan(gpt2, pairs))
    assert discover(gpt2, pairs, audit=None, size=3).data.attrs["method"] == "eap-ig-inputs"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"method": "greedy", "direction": "denoising"}, "removes edges of the whole model"),
        ({"method": "eap", "ablation": "zero"}, "patches with the corrupted run"),
        ({"threshold": -1}, "threshold is -1"),
        ({"method": "eap", "metric": "rank"}, "has no gradient"),
        ({"method": "eap", "metric": "kl"}, "least at the clean run"),
        ({"method": "eap", "audit": None, "size": 10_000}, "size is 10000"),
    ],
)
def test_what_cannot_be_is_refused(gpt2: HookedTransformer, options: dict[str, object], why: str) -> None:
    with pytest.raises(InterpError, match=why):
        discover(gpt2, scattered_pairs(), **options)  # type: ignore[arg-type]


def test_halves_share_no_prompt_and_are_drawn() -> None:
    clean = random_ids(12, 5, seed=4)
    corrupted = np.concatenate([clean[1:2], clean[0:1], random_ids(10, 5, seed=5)])  # the first two are turned round
    clean[7] = clean[6]
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=1, incorrect=2)
    drawn = set()
    for seed in range(4):
        halves = split(pairs, seed)
        assert [len(half) for half in halves] == [6, 6]
        seen = [{tuple(ids) for ids in [*half.clean.ids.tolist(), *half.corrupted.ids.tolist()]} for half in halves]
        assert not seen[0] & seen[1]
        drawn.add(tuple(map(tuple, halves[0].clean.ids.tolist())))
    assert len(drawn) > 1
    with pytest.raises(InterpError, match="cannot be parted"):
        split(pairs.select([0, 1]))


@pytest.mark.parametrize("method", ["exact", "greedy", "eap-ig-inputs"])
def test_edges_are_found_at_their_words(known: tuple[HookedTransformer, set[Edge]], method: str) -> None:
    """The colour is read at its own word; the head that moves it writes to every later one, and all of them are read.

    The asked word is where the answer is given, so that the last edge is there alone.
    """
    model, edges = known
    pairs = planted_pairs()
    found = discover(model, pairs, method, roles=["color", "answer"], threshold=0.05)  # type: ignore[arg-type]
    first, last = (next(edge for edge in edges if edge[i] == end) for i, end in ((0, "embed"), (1, "logits")))
    assert first._replace(role="color") in found.edges
    assert last._replace(role="answer") in found.edges
    assert {edge._replace(role=None) for edge in found.edges} == edges
    assert not any(edge[:2] == first[:2] and edge.role == "answer" for edge in found.edges)
    assert found.scores.dims == ("sender", "receiver", "role")
    assert 0.5 < found.data.attrs["held_by_roles"] < 0.99  # the filler is read too
    every = discover(model, pairs, "eap", roles=["color", "filler", "answer"], audit=None)
    near(every.data.attrs["held_by_roles"], 1.0, 1e-4, why="these words are the whole prompt")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("read", "head"), [(MOVED, MOVER), (UNREAD, DECOY)])
def test_what_reaches_the_stream_is_found_there(
    known: tuple[HookedTransformer, set[Edge]], method: Any, read: int, head: int
) -> None:
    """Each head of the first layer writes the colour to a place of its own; no logit sees the decoy's."""
    model, edges = known
    kind, group = ("H", 1) if "L0H1.v" in {edge.receiver for edge in edges} else ("KV", N_HEADS // 2)
    pairs = planted_pairs().select([0, 2])  # both are red, so that the colour has one sign
    metric = projection(0, "answer", feature(read), site="resid_post")
    found = discover(model, pairs, method, metric=metric, threshold=0.05)
    if method == "atp*":  # which has every edge among the nodes that are worth something
        assert found.nodes - {f"L0KV{head // group}"} == {"embed", f"L0H{head}", "L0.resid_post"}
    else:
        assert found.edges == {Edge("embed", f"L0{kind}{head // group}.v"), Edge(f"L0H{head}", "L0.resid_post")}
    assert found.data["receiver_layer"].values.tolist()[-1] == 1
    assert "L1H0" not in found.graph.senders
    again = circuits.evaluate(
        model, pairs, found, metric=metric, ablations=["resample"], n_random=2, n_knockouts=2, fractions=[0.05, 1.0]
    )
    near(again["own_faithfulness"], 1.0, 1e-4, why="nothing else leads there")
    near(again["complement"], 0.0, 1e-4, why="nothing else leads there")
    assert set(again["node_cost"].node.values) == {f"L0H{head}", f"L0{kind}{head // group}"}


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_nodes_at_roles_are_worth_their_exact_effects(
    known: tuple[HookedTransformer, set[Edge]], direction: Any
) -> None:
    """A finite difference, so that gradients are right: what each head is worth at each word is patched exactly."""
    n_kv_heads = N_HEADS if "L0H1.v" in {edge.receiver for edge in known[1]} else 2
    model, pairs, roles = planted(n_kv_heads, blue=0.999), planted_pairs(), ["color", "filler", "answer"]
    found = discover(model, pairs, "atp*", direction=direction, roles=roles, audit=None, size=4)
    exact = sweep(model, pairs, "z", direction, roles=roles)
    unpatched = exact["clean" if direction == "noising" else "corrupted"]
    worth = np.abs((exact["patched"] - unpatched).mean("prompt")).transpose("layer", "head", "role").values
    gap, graph = abs(found.data.attrs["gap"]), found.graph
    expected = np.full(graph.possible.shape, np.nan)
    for s, r, at in np.argwhere(graph.possible):
        sender, receiver = graph.senders[s], graph.receivers[r]
        ends = [gap * (roles[at] == "color")] if sender == "embed" else [worth[int(sender[1]), int(sender[3]), at]]
        if receiver == "logits":
            ends.append(np.inf if roles[at] == "answer" else 0.0)
        else:
            heads = worth[int(receiver[1]), [int(head[3]) for head in graph.writers(receiver)]]
            ends.append(heads.max() if receiver[-1] in "kv" else heads[:, at].max())
        expected[s, r, at] = min(ends)
    near(found.scores.values / gap, expected / gap, 0.01, why="float32 and the second order")
    assert float(found.scores.sel(sender=f"L0H{MOVER}", role="color").max()) > 0.1 * gap
