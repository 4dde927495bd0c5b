"""Circuits in MIB's format: written, read back, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.circuits import Circuit, discover, load_mib, save_mib
from interp.circuits.graph import Graph
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.readouts import projection
from tests.tiny import scattered_pairs
from tests.tolerance import close


def scored(model: HookedTransformer) -> Circuit:
    """A circuit of a third of the edges, every edge with a score of its own."""
    graph, rng = Graph.of(model, roles=None), np.random.default_rng(0)
    edges = [graph.edge(index) for index in np.argwhere(graph.possible)]
    scores = {edge: float(rng.normal()) for edge in edges}
    return Circuit.of(model, scattered_pairs(), [edge for edge in edges if rng.random() < 0.3], scores=scores)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    circuit = scored(model)
    back = load_mib(model, scattered_pairs(), save_mib(model, circuit, tmp_path / "importances.json"))
    assert back.edges == circuit.edges
    close(back.scores, circuit.scores, "arithmetic", dtype="float64")


def test_the_file_has_the_names_and_numbers_of_their_graph(llama: HookedTransformer, tmp_path: Path) -> None:
    """By the rules of their ``Graph.from_model``: every head has a key and a value of its own, the MLP comes last."""
    told = json.loads(save_mib(llama, scored(llama), tmp_path / "a.json").read_text())
    assert told["cfg"] == {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 32}
    stream, edges = ["input"], []
    for layer in range(3):
        heads = [f"a{layer}.h{head}" for head in range(4)]
        edges += [f"{one}->{head}<{letter}>" for one in stream for head in heads for letter in "qkv"]
        stream += heads
        edges += [f"{one}->m{layer}" for one in stream]
        stream.append(f"m{layer}")
    edges += [f"{one}->logits" for one in stream]
    assert set(told["nodes"]) == {*stream, "logits"}
    assert set(told["edges"]) == set(edges)
    shared = [told["edges"][f"input->a0.h{head}<k>"] for head in (0, 1)]
    assert shared[0] == shared[1]
    for name, node in told["nodes"].items():
        touching = [
            edge["in_graph"] for key, edge in told["edges"].items() if name in key.replace("<", "->").split("->")
        ]
        assert node["in_graph"] == any(touching), name


def test_a_circuit_that_ends_after_the_last_block_ends_at_their_logits(
    llama: HookedTransformer, tmp_path: Path
) -> None:
    """Their ``LogitNode`` reads ``blocks.2.hook_resid_post`` of a model of three blocks."""
    last = projection(2, "noun", list(range(1, 33)), site="resid_post")
    found = discover(llama, scattered_pairs(), "eap", metric=last, size=20, audit=None)
    assert found.graph.receivers[-1] == "L2.resid_post"
    told = json.loads(save_mib(llama, found, tmp_path / "a.json").read_text())
    close(told["edges"]["m2->logits"]["score"], found.scores.sel(sender="MLP2", receiver="L2.resid_post"))
    back = load_mib(llama, scattered_pairs(), tmp_path / "a.json")
    assert {
        edge._replace(receiver=edge.receiver.replace("L2.resid_post", "logits")) for edge in found.edges
    } == back.edges
    assert any(edge.receiver == "logits" for edge in back.edges)
    assert len(told["edges"]) == len(
        json.loads(save_mib(llama, scored(llama), tmp_path / "b.json").read_text())["edges"]
    )


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_a_circuit_that_ends_in_an_earlier_stream_is_refused(
    site: str, llama: HookedTransformer, tmp_path: Path
) -> None:
    circuit = Circuit.of(llama, scattered_pairs(), [], metric=projection(1, "noun", site=site))
    with pytest.raises(InterpError, match=f"ends in L1.{site}, and MIB's circuits end at the logits"):
        save_mib(llama, circuit, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def added(edge: str, score: object = 1.0) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["edges"].update({edge: {"score": score, "in_graph": True}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.pop("nodes"), "has cfg, nodes and edges"),
        (lambda told: told["cfg"].update(n_layers=12), "cfg has n_layers 12, but .* has 3"),
        (added("input->a0.h0"), "Unknown receiver 'L0H0'"),
        (added("first->m0"), "no name of MIB's"),
        (added("m2->m0"), "no edge from 'MLP2' to 'MLP0'"),
        (added("input->m0", "high"), "Give it a score"),
    ],
)  # fmt: skip
def test_what_is_no_circuit_of_the_model_is_refused(
    change: Any, message: str, gpt2: HookedTransformer, tmp_path: Path
) -> None:
    path = save_mib(gpt2, scored(gpt2), tmp_path / "a.json")
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(InterpError, match=message):
        load_mib(gpt2, scattered_pairs(), path)


def test_bad_places_and_roles_are_refused(gpt2: HookedTransformer, tmp_path: Path) -> None:
    pairs = scattered_pairs()
    with pytest.raises(InterpError, match="cannot be read as JSON"):
        load_mib(gpt2, pairs, tmp_path / "none.json")
    with pytest.raises(InterpError, match="cannot be written"):
        save_mib(gpt2, scored(gpt2), tmp_path / "none" / "a.json")
    with pytest.raises(InterpError, match="have no roles"):
        save_mib(gpt2, Circuit.of(gpt2, pairs, [("embed", "logits", "color")]), tmp_path / "a.json")
