"""Claims on components: which are made, and how the other methods vote on them, on planted results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses import context_flow
from interp import results
from interp.report.inputs import Result
from interp.report.sections import certainty
from interp.results import Variable
from tests.analyses.test_context_flow import (
    HEADS,
    LAYERS,
    MOVER,
    READER,
    Made,
    N,
    agreeing,
    attribution,
    balanced,
    behavior,
    patching,
    probing,
)
from tests.tolerance import near


def planted(**instead: xr.Dataset) -> dict[str, xr.Dataset]:
    """L1H2 brings the colour to the noun and L2H1 reads it, and every method says so but what is given instead."""
    found = {
        "behavior": behavior(),
        "activation_patching": patching({(*MOVER, "noun"): (0.6, 0.5), (*READER, "answer"): (0.8, 0.7)}),
        "head_attribution": attribution(
            attention={(*MOVER, "noun<-color"): 0.87, (*READER, "answer<-noun"): 0.75},
            direct={READER: 4.2},
            ablated={MOVER: (-3.0, -2.5, -2.0), READER: (-4.0, -3.5, -3.0)},
        ),
    }
    return found | instead


def with_mlps(patched: xr.Dataset, effects: Mapping[tuple[int, str], float]) -> xr.Dataset:
    """The same patching, and of every MLP: (layer, role) -> what denoising recovers and noising loses there."""
    roles = [str(role) for role in patched["role"].values]
    values = np.random.default_rng(5).normal(size=(2, N, LAYERS, len(roles))) * 0.005
    values[1] += 1
    for (layer, role), effect in effects.items():
        values[0, :, layer, roles.index(role)] = effect + balanced(spread=0.05)
        values[1, :, layer, roles.index(role)] = 1 - effect - balanced(spread=0.05, seed=2)
    dims = ("direction", "prompt", "layer", "role")
    made = patched.assign(recovered_mlp_out=(dims, values))
    made["recovered_mlp_out"].attrs = {"units": "fraction", "long_name": "an MLP"}
    return agreeing(made)


def claims(results: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Each claim by its name."""
    found = context_flow.run(results)
    return {str(name): found.sel(claim=name) for name in found["claim"].values} if "claim" in found.dims else {}


def votes(claim: xr.Dataset) -> dict[str, float]:
    """The votes that were cast."""
    cast = zip(map(str, claim["voter"].values), claim["vote"].values, strict=True)
    return {voter: float(vote) for voter, vote in cast if np.isfinite(vote)}


def test_a_planted_mover_and_reader_are_claimed_and_supported_by_all() -> None:
    found = claims(planted())
    assert list(found) == ["L1H2 moves", "L2H1 reads out"]
    moves, reads = found.values()
    ablations = {"zero ablation", "mean ablation", "resample ablation"}
    assert set(votes(moves)) == {"denoising", "noising", "attention", *ablations}
    assert set(votes(reads)) == {"denoising", "noising", "attention", "direct contribution", *ablations}
    for one in found.values():
        assert set(votes(one).values()) == {1.0}
        assert str(one["claim_grade"].values) == "supported by all"
    assert str(moves["claim_role"].values) == "noun"
    near(moves["vote_size"].sel(voter="denoising"), 0.6, 0.01, why="the mean of what was planted with noise")


def test_a_method_contradicts_only_where_its_whole_interval_says_otherwise() -> None:
    unneeded = attribution(
        attention={(*READER, "answer<-noun"): 0.75},
        direct={READER: 4.2},
        ablated={MOVER: (-3.0, -0.3, 0.0), READER: (-4.0, -3.5, -3.0)},  # 1 logit is the least that counts
    )
    one_way = patching({(*MOVER, "noun"): (0.6, 0.0), (*READER, "answer"): (0.8, 0.7)})
    moves = claims(planted(head_attribution=unneeded, activation_patching=one_way))["L1H2 moves"]
    cast = votes(moves)
    assert cast["denoising"] == 1.0
    assert cast["noising"] == -1.0  # surely less than the least that counts
    assert cast["attention"] == -1.0  # surely less than an even spread
    assert cast["zero ablation"] == 1.0
    assert cast["resample ablation"] == -1.0
    assert str(moves["claim_grade"].values) == "contradicted"
    said, dicho = (str(moves[name].values) for name in ("claim_said", "claim_said_es"))
    assert said.startswith("L1H2 moves the colour to the noun: supported by denoising, zero ablation")
    assert "contradicted by noising 0.0" in said
    assert dicho.startswith("L1H2 lleva el color al sustantivo: lo apoyan: denoising, ablación con ceros y")


def test_attention_or_writing_alone_claims_nothing() -> None:
    decoy = attribution(attention={(1, 1, "noun<-color"): 0.99}, direct={(2, 2): 6.0})
    nothing = patching({})
    assert claims(planted(head_attribution=decoy, activation_patching=nothing)) == {}


def test_a_head_that_is_needed_and_carries_nothing_is_said_to_hold_positions() -> None:
    needed = attribution(ablated={(0, 3): (-4.0, -3.0, -2.0)})
    found = claims(planted(head_attribution=needed, activation_patching=patching({})))
    assert list(found) == ["L0H3 positions only"]
    assert set(votes(found["L0H3 positions only"]).values()) == {1.0}


def test_a_head_against_the_answer_inhibits() -> None:
    against = patching({(2, 3, "answer"): (-0.4, -0.4)})
    writes = attribution(direct={(2, 3): -3.0}, ablated={(2, 3): (2.0, 2.0, -0.5)})
    (claim,) = claims(planted(activation_patching=against, head_attribution=writes)).values()
    assert str(claim["claim"].values) == "L2H3 inhibits"
    cast = votes(claim)
    assert (cast["direct contribution"], cast["zero ablation"], cast["resample ablation"]) == (1.0, 1.0, -1.0)


def test_an_mlp_stores_at_the_source_and_reads_out_at_the_answer() -> None:
    mlps = with_mlps(patching({}), {(0, "color"): 0.5, (2, "answer"): 0.7, (1, "answer"): -0.5})
    found = claims(planted(activation_patching=mlps, head_attribution=attribution()))
    assert [str(one["claim_job"].values) for one in found.values()] == ["stores", "reads out", "inhibits"]
    assert list(found) == ["MLP0 stores", "MLP2 reads out", "MLP1 inhibits"]
    probed = claims(planted(activation_patching=mlps, head_attribution=attribution(), probing=probing()))["MLP0 stores"]
    assert votes(probed)["probe"] == 1.0  # the stream after layer 0, whose accuracy is above chance and control


def test_noise_makes_no_claim_of_an_mlp() -> None:
    assert claims(planted(activation_patching=with_mlps(patching({}), {}), head_attribution=attribution())) == {}


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        (0.0, "no single head stands out, and no other word measurably carries it."),
        (0.7, "no single head stands out, though the residual stream at the asked noun carries it."),
    ],
)
def test_where_no_head_stands_out_the_short_answer_names_the_words_or_says_nowhere(elsewhere: float, said: str) -> None:
    quiet = patching({})
    roles = [str(role) for role in quiet["role"].values]
    values = np.random.default_rng(3).normal(size=(2, N, LAYERS, len(roles))) * 0.001
    values[0, :, 2, roles.index("asked")] += elsewhere
    values[1, :, 2, roles.index("asked")] -= elsewhere
    values[1] += 1
    quiet = quiet.assign(recovered_resid_pre=(("direction", "prompt", "layer", "role"), values))
    quiet["recovered_resid_pre"].attrs = {"units": "fraction", "long_name": "the stream"}
    found = context_flow.run(planted(activation_patching=agreeing(quiet), head_attribution=attribution()))
    assert found.attrs["answer_short"] == f"No: the colour does not pass through the noun; {said}"


def test_the_page_lists_every_claim_and_every_vote() -> None:
    found = context_flow.run(planted())
    table, words, every = certainty.claims(Result("verdict", found))
    assert [row[:3] for row in table.tables[0].rows] == [
        ("L1H2", "moves", "noun"),
        ("L2H1", "reads out", "answer"),
    ]
    assert [row[4] for row in table.tables[0].rows] == ["6 of 6", "7 of 7"]
    assert len(words.items) == 2
    assert len(every.tables[0].rows) == 13
    assert certainty.claims(None) == []


def place(lost: Mapping[str, float], exchanged: Mapping[str, float], *, layer: int) -> xr.Dataset:
    """One place behind the mover: what is lost of the gap when the colour is erased there, and when it is exchanged."""
    variables: dict[str, Variable] = {}
    coords: dict[str, Any] = {"layer": [layer], "role": ["noun"]}
    for name, axis, each in (("erasure", "eraser", lost), ("interchange", "subspace", exchanged)):
        values = np.stack([1 - share - balanced(spread=0.02) for share in each.values()], axis=-1)[:, None, None]
        dims = ("prompt", "layer", "role", axis)
        variables[f"recovered_{name}"] = Variable(dims, values, "fraction", name)
        variables[f"patched_{name}"] = Variable(dims, 10 * values - 5, "logits", name)
        coords[axis] = list(each)
    ends = (("clean", 5.0), ("corrupted", -5.0))
    variables |= {name: Variable(("prompt",), np.full(N, value), "logits", name) for name, value in ends}
    words = dict.fromkeys(("title", "question", "reading", "source"), "made by hand")
    axes = {"eraser": "what erases", "subspace": "what is exchanged"}
    more = {"site": "resid_pre", "minimum_gap": 0.5}
    return results.build(variables, coords=coords, of=[Made()], seed=0, extra=more, dims=axes, **words)


@pytest.mark.parametrize(
    ("lost", "layer", "votes_of"),
    [
        ({"leace": 0.5, "shuffled": 0.05}, 2, {"erasure": 1.0, "interchange": 1.0}),
        ({"leace": 0.5, "shuffled": 0.6}, 2, {"erasure": 0.0, "interchange": 1.0}),  # shuffled words would cost as much
        ({"leace": 0.5, "shuffled": 0.05}, 1, {}),  # before layer 1 the mover of layer 1 has not written yet
    ],
)
def test_what_is_erased_or_exchanged_behind_a_mover_votes_and_never_contradicts(
    lost: Mapping[str, float], layer: int, votes_of: Mapping[str, float]
) -> None:
    found = claims(planted(places=place(lost, {"means": 0.6, "random": 0.0}, layer=layer)))
    cast = votes(found["L1H2 moves"])
    assert {name: cast[name] for name in ("erasure", "interchange") if name in cast} == votes_of


def circuit(kept: Mapping[str, bool], *, trusted: int = 1) -> xr.Dataset:
    """One edge from each component to the logits, kept or not."""
    score = np.array([[4.0 if one else 0.1] for one in kept.values()])
    dims = ("sender", "receiver")
    variables = {
        "score": Variable(dims, score, "logits", "score"),
        "kept": Variable(dims, np.array([[one] for one in kept.values()]), "", "kept"),
        "score_interval": Variable(("ci_bound", *dims), np.stack([score - 0.05, score + 0.05]), "logits", "interval"),
    }
    words = dict.fromkeys(("title", "question", "reading", "source"), "made by hand")
    coords = {"sender": list(kept), "receiver": ["logits"], "ci_bound": ["low", "high"]}
    return results.build(variables, coords=coords, of=[Made()], seed=0, extra={"trusted": trusted}, **words)


def test_a_circuit_votes_for_what_it_keeps_unless_its_audit_failed() -> None:
    kept = {"L1H2": True, "L2H1": False, "L0H3": False}
    needed = planted()["head_attribution"].copy(deep=True)
    needed["ablation_effect"][:, :, 0, 3] -= 4.0
    results_of = planted(circuit=circuit(kept), head_attribution=needed)
    cast = {name: votes(one).get("circuit") for name, one in claims(results_of).items()}
    assert cast == {"L1H2 moves": 1.0, "L2H1 reads out": -1.0, "L0H3 positions only": 1.0}
    untrusted = claims(planted(circuit=circuit(kept, trusted=0)))
    assert all("circuit" not in votes(one) for one in untrusted.values())


# ---- head roles, paths into query and key, composition ----


def by_hand(variables: Mapping[str, Variable], coords: Mapping[str, Any], **extra: Any) -> xr.Dataset:
    words = dict.fromkeys(("title", "question", "reading", "source"), "made by hand")
    dims = {name: meaning for name, meaning in MEANINGS.items() if name in coords}
    return results.build(variables, coords=coords, of=[Made()], seed=0, extra=extra, dims=dims, **words)


MEANINGS = {
    "measure": "what is measured", "head_role": "a role", "query_writer": "wrote the query", "side": "query or key",
    "key_writer": "wrote the key", "writer_head": "writes", "reader_head": "reads", "kind": "what is read",
}  # fmt: skip


def measured(excess: Mapping[tuple[str, tuple[int, int]], float], named: Mapping[str, tuple[int, int]]) -> xr.Dataset:
    """What heads do beyond their null, and the one head of each role."""
    back = ["previous token", "duplicate token", "induction"]
    measures, roles = [*back, "carrying", "writing against"], [*back, "mover", "inhibition"]
    values = np.random.default_rng(4).normal(size=(N, len(measures), LAYERS, HEADS)) * 0.001
    for (measure, at), mean in excess.items():
        values[(slice(None), measures.index(measure), *at)] = mean + balanced(spread=0.02)
    grid = np.zeros((len(roles), LAYERS, HEADS), np.int8)
    for role, at in named.items():
        grid[(roles.index(role), *at)] = 1
    variables = {
        "excess": Variable(("prompt", "measure", "layer", "head"), values, "", "above its null"),
        "named": Variable(("head_role", "layer", "head"), grid, "", "has the role"),
        "least": Variable(("measure",), [0.1, 0.1, 0.1, 0.05, 0.05], "", "least that counts"),
    }
    units = ("measure", ["share"] * 3 + ["fraction"] * 2)
    coords = {"measure": measures, "head_role": roles, "measure_units": units}
    return by_hand(variables, coords, edge="noun<-color")


@pytest.mark.parametrize(
    ("carried", "mover", "vote"),
    [(0.6, MOVER, 1.0), (0.0, (0, 0), -1.0), (0.5, (0, 0), 0.0)],  # named; surely nothing carried; carried, not named
)
def test_a_mover_by_measurement_votes_on_what_moves(carried: float, mover: tuple[int, int], vote: float) -> None:
    roles = measured({("carrying", MOVER): carried}, {"mover": mover})
    found = claims(planted(head_roles=roles))
    assert votes(found["L1H2 moves"])["head role"] == vote
    assert "head role" not in votes(found["L2H1 reads out"])
    elsewhere = claims(planted(head_roles=roles.assign_attrs(edge="answer<-asked")))
    assert "head role" not in votes(elsewhere["L1H2 moves"])


def test_a_head_that_looks_back_holds_positions_and_one_that_writes_against_inhibits() -> None:
    needed = attribution(ablated={(0, 3): (-4.0, -3.0, -2.0), (0, 2): (-4.0, -3.0, -2.0)})
    roles = measured({("previous token", (0, 3)): 0.9}, {"previous token": (0, 3)})
    found = claims(planted(head_attribution=needed, activation_patching=patching({}), head_roles=roles))
    assert {name: votes(one)["head role"] for name, one in found.items()} == {
        "L0H2 positions only": 0.0,
        "L0H3 positions only": 1.0,
    }
    against = patching({(2, 3, "answer"): (-0.4, -0.4)})
    roles = measured({("writing against", (2, 3)): 0.3}, {"inhibition": (2, 3)})
    (claim,) = claims(planted(activation_patching=against, head_attribution=attribution(), head_roles=roles)).values()
    assert votes(claim)["head role"] == 1.0


def looked(change: float, *, head: str = "L2H1") -> xr.Dataset:
    """The reader looks from the answer at the noun for what the mover writes, as far as a path there changes it."""
    noise = np.random.default_rng(6).normal(size=(N, 2, 2)) * 0.001
    moved = noise + [[0.0, 0.0], [0.0, change]] + (balanced(spread=0.02)[:, None, None] * (change != 0))
    coords = {
        "query_writer": ["embed", "others"], "key_writer": ["L1H2", "others"], "sender": ["embed", "L1H2"],
        "side": ["query", "key"],
    }  # fmt: skip
    dims = ("prompt", "sender", "side")
    term = np.tile([[4.0, 0.5], [0.2, 0.3]], (N, 1, 1))
    variables = {
        "term": Variable(("prompt", "query_writer", "key_writer"), term, "", "part of the score"),
        "score": Variable(("prompt",), term.sum((1, 2)), "", "score"),
        "score_change": Variable(dims, 10 * moved, "", "change of the score"),
        "weight_change": Variable(dims, moved, "share", "change of the weight"),
    }
    return by_hand(variables, coords, head_label=head, dest="answer", src="noun")


def test_the_verdict_says_why_a_named_head_looks_and_a_path_that_changes_it_votes() -> None:
    sure = planted(qk_attribution=looked(-0.3))
    cast = {name: votes(one).get("paths into query and key") for name, one in claims(sure).items()}
    assert cast == {"L1H2 moves": None, "L2H1 reads out": 1.0}
    told = context_flow.run(sure).attrs
    assert told["answer"].endswith(
        "L2H1 looks from the answer position to the noun for what L1H2 writes into its key: with that of the other "
        "prompt alone its attention changes by -0.30 [-0.30, -0.30]."
    )
    assert "L2H1 mira desde la posición de la respuesta a" in told["answer_es"]
    same = context_flow.run(planted(qk_attribution=looked(0.0)))
    assert "paths into query and key" not in same["voter"].values
    assert same.attrs["answer"].endswith(
        "Of the parts of L2H1's score from the answer position to the noun, the largest is what embed wrote at the "
        "answer position against what L1H2 wrote at the noun: 4.0, where all sum to 5.0; no path that was patched "
        "surely changes it."
    )
    unpatched = context_flow.run(planted(qk_attribution=looked(0.0).drop_vars(["score_change", "weight_change"])))
    assert unpatched.attrs["answer"].endswith(
        "Of the parts of L2H1's score from the answer position to the noun, the largest is what embed wrote at the "
        "answer position against what L1H2 wrote at the noun: 4.0, where all sum to 5.0."
    )
    unnamed = context_flow.run(planted(qk_attribution=looked(-0.3, head="L2H2")))
    assert "L2H2 looks" not in unnamed.attrs["answer"]


@pytest.mark.parametrize(("p_value", "vote"), [(0.001, 1.0), (0.04, 0.0)])  # of one mover, keys and values: twice p
def test_weights_that_let_a_reader_read_a_mover_vote_and_never_contradict(p_value: float, vote: float) -> None:
    heads = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(HEADS)]
    dims, shape = ("kind", "writer_head", "reader_head"), (3, len(heads), len(heads))
    chance = np.full(shape, 0.5)
    chance[1, heads.index("L1H2"), heads.index("L2H1")] = p_value
    variables = {
        "p_value": Variable(dims, chance, "", "p"),
        "above_baseline": Variable(dims, np.where(chance < 0.5, 0.3, 0.0), "", "above random weights"),
    }
    coords = {"kind": ["q", "k", "v"], "writer_head": heads, "reader_head": heads}
    weights = by_hand(variables, coords).assign_attrs(task="")
    found = claims(planted(composition=weights))
    assert votes(found["L2H1 reads out"])["composition"] == vote
    assert "composition" not in votes(found["L1H2 moves"])
