"""A circuit as a value: sizes, paths, comparison and files, worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from interp import HookedTransformer, InterpError, PromptPairs, results
from interp.circuits import Circuit, Edge
from tests.tiny import scattered_pairs

PATH = [Edge("embed", "L0H1.v"), Edge("L0H1", "L2H0.q"), Edge("L2H0", "logits")]
DEAD_END = Edge("embed", "MLP1")
FROM_NOWHERE = Edge("MLP0", "L1H3.k")


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return scattered_pairs()


@pytest.fixture
def circuit(gpt2: HookedTransformer, pairs: PromptPairs) -> Circuit:
    scores = {PATH[0]: 3.0, PATH[1]: -5.0, PATH[2]: 4.0, DEAD_END: 2.0, FROM_NOWHERE: 1.0}
    return Circuit.of(gpt2, pairs, scores, scores=scores)


def test_its_edges_and_nodes_are_those_given(circuit: Circuit) -> None:
    assert circuit.edges == {*PATH, DEAD_END, FROM_NOWHERE}
    assert circuit.nodes == {"embed", "L0H1", "L2H0", "logits", "MLP1", "MLP0", "L1H3"}
    # 3 layers of 12 head inputs and an MLP, and the logits: what writes before each of them
    attention, mlps, logits = 12 * (1 + 6 + 11), 5 + 10 + 15, 16
    assert circuit.n_possible == attention + mlps + logits
    assert circuit.share == 5 / circuit.n_possible


def test_the_best_edges_are_chosen_by_the_rank_that_is_stated(circuit: Circuit) -> None:
    assert circuit.at(2).edges == {PATH[1], PATH[2]}
    assert circuit.at(2 / circuit.n_possible).edges == circuit.at(2).edges
    signed = Circuit(circuit.data.assign_attrs(rank="signed"))
    assert signed.at(2).edges == {PATH[2], PATH[0]}
    assert [edge for edge, _ in circuit.ranked()][:3] == [PATH[1], PATH[2], PATH[0]]
    assert len(circuit.at(0)) == 0
    assert len(circuit.at(1.0)) == circuit.n_possible


@pytest.mark.parametrize("size", [-1, 100_000, 1.5, "3", True])
def test_a_size_that_there_is_not_is_refused(circuit: Circuit, size: object) -> None:
    with pytest.raises(InterpError, match=r"size is .* Give a whole number of edges from 0 to"):
        circuit.at(size)  # type: ignore[arg-type]


def test_edges_on_no_path_are_left_out_and_counted(circuit: Circuit) -> None:
    found = circuit.connected()
    assert found.edges == set(PATH)
    assert found.data.attrs["n_unconnected"] == 2
    assert found.connected().data.attrs["n_unconnected"] == 0
    assert "n_unconnected" not in found.at(3).data.attrs


def test_a_path_through_a_shared_key_goes_on_in_each_head_of_its_group(
    llama: HookedTransformer, pairs: PromptPairs
) -> None:
    into = Edge("embed", "L1KV1.k")
    for head, goes_on in enumerate([False, False, True, True]):
        found = Circuit.of(llama, pairs, [into, Edge(f"L1H{head}", "logits")]).connected()
        assert len(found) == (2 if goes_on else 0)
    assert "L1KV1" in Circuit.of(llama, pairs, [into]).nodes


def test_a_path_changes_its_word_only_through_keys_and_values(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    goes_on = Edge("L0H1", "logits", "answer")
    for reads, number in (("v", 2), ("k", 2), ("q", 0)):
        first = Edge("embed", f"L0H1.{reads}", "noun")
        assert len(Circuit.of(gpt2, pairs, [first, goes_on], roles=["noun", "answer"]).connected()) == number
    assert len(Circuit.of(gpt2, pairs, [Edge("embed", "L0H1.q", "answer"), goes_on]).connected()) == 2


def test_two_circuits_are_compared_by_hand(circuit: Circuit) -> None:
    other = circuit.keeping([PATH[0], Edge("L0H1", "logits")])
    found = circuit.compare(other)
    assert found.edges == 1 / 6
    assert found.nodes == 3 / 7  # embed, L0H1 and logits of seven
    assert found.shared == {PATH[0]}
    assert found.only_second == {Edge("L0H1", "logits")}
    assert len(found.only_first) == 4
    assert circuit.compare(circuit).edges == 1
    assert circuit.at(0).compare(circuit.at(0)).nodes == 1


@pytest.mark.parametrize("roles", [None, ["noun", "answer"]])
def test_what_is_saved_is_loaded(
    gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path, roles: list[str] | None
) -> None:
    edges = PATH if roles is None else [edge._replace(role="noun") for edge in PATH]
    made = Circuit.of(gpt2, pairs, edges, roles=roles)
    found = Circuit.load(made.save(tmp_path / "circuit.nc"))
    xr.testing.assert_identical(found.data, made.data)
    assert found.edges == set(edges)
    assert found.graph.roles == (None if roles is None else tuple(roles))


def test_what_is_no_circuit_is_refused(circuit: Circuit, tmp_path: Path) -> None:
    data = circuit.data
    keeps_none = data["kept"].copy(data=np.ones(data["kept"].shape, dtype=bool))
    units = {"units": "", "long_name": ""}
    for broken, why in (
        (data.drop_vars("kept").assign(other=("sender", np.zeros(data.sizes["sender"]), units)), "no variable 'kept'"),
        (data.assign(kept=keeps_none), "an edge that has no score"),
        (data.assign_attrs(rank="best"), "'rank' is 'best'"),
        (data.drop_attrs().assign_attrs({k: v for k, v in data.attrs.items() if k != "n_heads"}), "'n_heads' is None"),
        (data.transpose().assign(kept=data["kept"]), "have the axes"),
        (data.assign(score=data["score"].astype(str)), "are no numbers"),
        (data.assign_coords(sender=["embed"] * data.sizes["sender"]), "a sender twice"),
    ):
        path = tmp_path / "circuit.nc"
        if "units" not in broken["score"].attrs:
            broken = broken.assign({name: broken[name].assign_attrs(units) for name in broken.data_vars})
        results.save(broken, path)
        with pytest.raises(InterpError, match="holds no circuit: .*" + why):
            Circuit.load(path)
    content = path.read_bytes()
    path.write_bytes(content[:200] + b"x" + content[201:])
    with pytest.raises(InterpError, match="not a readable result"):
        Circuit.load(path)


@pytest.mark.parametrize(
    ("edge", "why"),
    [
        (("L9H0", "logits"), "Unknown sender 'L9H0'"),
        (("L0H0", "L1H0"), "Unknown receiver 'L1H0'"),
        (("L1H0", "L1H1.q"), "does not come before"),
        (("L0H0", "logits", "noun"), "has a role, unlike"),
    ],
)
def test_an_edge_that_there_is_not_is_refused(circuit: Circuit, edge: tuple[str, ...], why: str) -> None:
    with pytest.raises(InterpError, match=why):
        circuit.keeping([Edge(*edge)])
