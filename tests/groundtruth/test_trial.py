"""The methods on trial, the figures that are shipped, and what the page says of them."""

from __future__ import annotations

import html
from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import beta

import interp
from analyses import false_alarms, ground_truth, trial
from interp import (
    ablation_sweep,
    circuits,
    groundtruth,
    knockout_sweep,
    path_patching,
    stats,
    sweep,
    tasks,
    track_record,
)
from interp.attribution import attribution_patching, edge_attribution
from interp.errors import InterpError
from interp.language import speaking
from interp.model import HookedTransformer
from tests.groundtruth.models import built
from tests.tolerance import near

NOT_REDUNDANT = tuple(name for name in groundtruth.models() if name != "backup")


def test_a_score_counts_what_is_named_and_orders_what_is_scored() -> None:
    """Of 2 x 3 pairs of true and other, those with b first are wrong: (a, b), (d, b); d is only named."""
    found = groundtruth.score(
        {"a": 2.0, "b": 3.0, "c": 1.0, "e": 0.5, "f": float("nan"), "d": 2.5}, frozenset("bd"), frozenset("adz")
    )
    assert (found.found, found.true, found.false_alarms, found.others) == (1, 3, 1, 3)
    near(found.auroc, 4 / 6, 1e-12, why="a quotient of two counts")


@pytest.mark.parametrize(("k", "n"), [(0, 72), (3, 50), (50, 50)])
def test_the_exact_interval_is_that_of_the_beta_distribution(k: int, n: int) -> None:
    low, high = stats.exact_interval(k, n)
    near(low, beta.ppf(0.025, k, n - k + 1) if k else 0.0, 1e-6, why="a root found by steps")
    near(high, beta.ppf(0.975, k + 1, n - k) if k < n else 1.0, 1e-6, why="a root found by steps")
    with pytest.raises(InterpError, match="exact_interval needs 0 <= successes <= n, got 3 of 2"):
        stats.exact_interval(3, 2)


def test_what_is_shipped_is_what_the_methods_say_now() -> None:
    """Of the cheap methods, by what they name of one model, and by the order of their scores."""
    name = "constant"
    one = trial.Trial(built(name))
    for method in (
        "denoising", "noising", "zero_ablation", "mean_ablation", "gradient", "stream_in", "circuit, eap",
        "score paths", "explain", "claims", "positions only", "composition",
    ):  # fmt: skip
        for question, score in trial.held_to(one, method).items():
            shipped = track_record.of(method, question)
            if np.isfinite(score.auroc):
                near(score.auroc, shipped.auroc[name], 6e-4, why="shipped to three digits", what=(method, question))
            counts = shipped.by_model[name]
            assert (score.found, score.true, score.false_alarms, score.others) == tuple(counts), (method, question)


def test_exact_patching_is_right_wherever_nothing_stands_in() -> None:
    for method, question in (
        ("denoising", "carries"), ("noising", "carries"), ("verdict", "carries"), ("paths_in", "edges"),
        ("paths_out", "edges"), ("circuit, exact", "edges"), ("circuit, greedy", "edges"), ("stream_in", "used"),
        ("stream_out", "used"), ("missed", "edges"), ("das", "used"), ("interchange", "used"),
    ):  # fmt: skip
        record = track_record.of(method, question)
        assert {name: record.auroc[name] for name in NOT_REDUNDANT} == dict.fromkeys(NOT_REDUNDANT, 1.0), method
        assert record.false_alarms == 0
        if method != "verdict":  # which names no MLP
            assert all(record.by_model[name][0] == record.by_model[name][1] for name in NOT_REDUNDANT), method


def test_the_edges_that_exact_discovery_misses_are_those_of_the_reader_that_stands_in() -> None:
    """Alone neither of its two does anything: the first reader has written the answer already."""
    assert track_record.of("circuit, exact", "edges").by_model["backup"][:3] == [3, 5, 0]
    truth = built("backup")
    found = circuits.discover(truth.model, truth.pairs, "exact")
    missed = truth.edges - {(edge.sender, edge.receiver) for edge in found.edges}
    assert missed == {("L0H0", "L2H1.v"), ("L2H1", "logits")}


def test_where_attention_decides_integrated_gradients_and_patched_paths_find_what_gradients_miss() -> None:
    found = {
        method: track_record.of(method, "edges").by_model["attending"][0]
        for method in ("paths_in", "paths_out", "eap", "eap-ig-inputs", "eap-ig-activations", "circuit, exact")
    }
    assert found.pop("eap") < 3
    assert set(found.values()) == {3}
    assert track_record.of("score paths", "looks").by_model["attending"][:3] == [1, 1, 0]


def test_what_the_verdict_claims_is_true_of_every_model() -> None:
    """Heads and MLPs alike; what is needed and carries nothing is never one that only zero-ablation makes look so."""
    carries, selects = track_record.of("claims", "carries"), track_record.of("positions only", "selects")
    assert carries.found > track_record.of("verdict", "carries").found
    assert (carries.false_alarms, selects.false_alarms) == (0, 0)
    assert {name: selects.by_model[name][:2] for name in ("binding", "attending", "constant")} == {
        "binding": [2, 2], "attending": [1, 1], "constant": [0, 0]
    }  # fmt: skip


def test_the_failures_that_theory_predicts_are_failures() -> None:
    for name in groundtruth.models():
        for method in built(name).expected:
            failures = []
            for question in trial.METHODS[method].asked:
                record = track_record.of(method, question)
                found, true, alarms, _ = record.by_model[name]
                failures.append(record.auroc[name] < 1 or found < true or alarms > 0)
            assert any(failures), (name, method)


def test_the_rates_that_are_promised_are_kept() -> None:
    alarms = track_record.table()["false_alarms"]
    assert set(alarms) == set(false_alarms.CLAIMS)
    for claim, counted in alarms.items():
        count, n = counted["alarms"], counted["n"]
        assert n >= 400
        high = stats.exact_interval(count, n)[1]
        if claim == "readable":
            # It is said at a level of 5%, and so often it is met: the interval of such a rate holds 5%, and what 400
            # models can show is that it is no rate above 8%. That of the permutations alone is held in test_evidence.
            assert count / n <= 0.05, claim
            assert high <= 0.08, claim
        elif claim != "heads alone":
            assert high <= 0.05, claim


def test_random_models_are_those_that_no_rule_was_chosen_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def alarms(seed: int) -> dict[str, bool]:
        asked.append(seed)
        return {claim: seed in ((119,) if claim != "das" else (118, 120)) for claim in false_alarms.CLAIMS}

    monkeypatch.setattr(false_alarms, "_alarms", alarms)
    truth = built("plain")
    found = false_alarms.run(truth.model, truth.pairs, n_models=3)
    assert asked == [118, 119, 120]
    for claim, told in found.groupby("claim"):
        count = 2 if claim == "das" else 1
        assert (told["alarms"].item(), told["n"].item(), told["rate"].item()) == (count, 3, count / 3)
        assert told["rate_interval"].values.ravel().tolist() == list(stats.exact_interval(count, 3))


def test_random_models_are_blind_where_they_are_said_to_be() -> None:
    """Whatever the colour, the logits are the same to the last bit; where they are not blind they differ."""
    for seed in range(2):
        for blind in (True, False):
            model, pairs = groundtruth.at_random(seed, blind=blind)
            logits = [model.forward(torch.tensor(run.ids[:8]))[:, -1] for run in (pairs.clean, pairs.corrupted)]
            assert torch.equal(*logits) == blind
            shares = trial.arriving(model, pairs)
            assert shares
            assert trial.said_yes(shares) == (frozenset() if blind else frozenset(shares))


def test_an_edge_costs_what_is_lost_without_it_in_the_weights_alone() -> None:
    """By NumPy of the weights: with all but one path as in the corrupted run, the true circuit is whole."""
    truth = built("plain")
    circuit = circuits.Circuit.of(truth.model, truth.pairs, sorted(truth.edges))
    found = circuits.evaluate(
        truth.model, truth.pairs, circuit, ablations=["resample"], n_random=0, n_knockouts=0, most_edges=3
    ).isel(ablation=0)
    near(float(found["own_faithfulness"]), 1.0, 0.02, why="the noise of idle heads")
    near(found["edge_cost"].values, np.ones(3), 0.02, why="every edge of one path carries all")


def test_the_names_that_are_shipped_are_those_of_the_code() -> None:
    assert tuple(track_record.table()["models"]) == groundtruth.models()
    assert set(track_record.methods()) == set(trial.METHODS)
    assert set(track_record.questions()) == set(trial.QUESTIONS)
    asked = {f"{name}/{question}" for name, method in trial.METHODS.items() for question in method.asked}
    assert set(track_record.table()["records"]) == asked
    for methods in track_record.USED_BY.values():
        assert {f"{name}/{question}" for name, question in methods} <= asked
    with pytest.raises(InterpError, match="Unknown method and question 'lens/edges'"):
        track_record.of("lens", "edges")


def test_a_line_says_how_often_a_result_was_right() -> None:
    record = track_record.of("roles", "moves")
    assert track_record.line("head_roles") == (
        f"On {len(groundtruth.models())} models whose circuit is known: roles of heads (movers) finds {record.found} "
        f"of {record.true} heads that take the source from its own word and names 0 of {record.others} others."
    )
    with speaking("es"):
        assert str(track_record.line("verdict")).startswith("En 13 modelos cuyo circuito se conoce: con el veredicto")
    assert track_record.line("unheard_of") is None


def test_where_most_others_are_named_the_line_says_that_the_size_tells_them_apart() -> None:
    """An explanation says yes of every word, and of every true one much more arrives than of any other."""
    one = trial.Trial(built("plain"))
    shares = trial.arriving(one.model, one.pairs)
    true = one.true("arrives")
    sizes = [abs(size) for size, _ in shares.values()]
    assert trial.said_yes(shares) == set(shares) > true
    assert min(abs(shares[role][0]) for role in true) > 10 * sorted(sizes)[len(shares) - len(true) - 1]
    assert str(track_record.line("reach")).endswith(
        "and names 36 of 36 others, but its size tells them apart (AUROC 1.00)."
    )
    with speaking("es"):
        assert str(track_record.line("reach")).endswith(", pero su tamaño los distingue (AUROC 1.00).")
    said = {key for key in track_record.table()["records"] if track_record.of(*key.split("/")).tells_apart}
    assert said == {"arrival/arrives", "composition/between"}


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda model, pairs: sweep(model, pairs, "z", "noising"), "noising/carries"),
        (lambda model, pairs: sweep(model, pairs, "mlp_out", roles=["answer"]), "denoising/carries"),
        (lambda model, pairs: sweep(model, pairs, "resid_pre", "noising", roles=["answer"]), "stream_out/used"),
        (lambda model, pairs: sweep(model, pairs, "q"), ""),
        (lambda model, pairs: ablation_sweep(model, pairs, "z", "zero"), "zero_ablation/needed"),
        (lambda model, pairs: ablation_sweep(model, pairs, "z", "zero_raw"), ""),
        (lambda model, pairs: knockout_sweep(model, pairs, ["noun<-color"], by_head=True), "knockout/carries"),
        (lambda model, pairs: path_patching(model, pairs, senders=["L0H2", "L1H0"]), "paths_in/edges"),
        (lambda model, pairs: attribution_patching(model, pairs, "z", audit=None), "gradient/carries"),
        (lambda model, pairs: attribution_patching(model, pairs, "resid_pre", roles=["answer"], audit=None), ""),
        (lambda model, pairs: edge_attribution(model, pairs, method="eap", audit=None), "eap/edges"),
    ],
)  # fmt: skip
def test_a_sweep_by_itself_says_how_often_its_method_was_right(
    make: Callable[..., xr.Dataset], asked: str, mini: HookedTransformer
) -> None:
    made = make(mini, tasks.build("color-noun", "recall", tokenizer=mini, n=2))
    line = track_record.line_of(made)
    if not asked:
        assert line is None
        assert "whose circuit is known" not in interp.show(made).html
        return
    record, (method, question) = track_record.of(*asked.split("/")), asked.split("/")
    assert line is not None
    assert f"{track_record.methods()[method]} finds {record.found} of {record.true} " in line
    assert track_record.questions()[question] in line
    assert line in html.unescape(interp.show(made).html)


def test_results_become_the_file_that_is_shipped() -> None:
    truth = built("plain")
    found = ground_truth.run(truth.model, truth.pairs, known=["plain"], methods=["denoising"])
    alarms = false_alarms.run(truth.model, truth.pairs, n_models=1)
    made = ground_truth.shipped(found, alarms)
    counts = made["records"]["denoising/carries"]["by_model"]["plain"]
    assert counts == track_record.of("denoising", "carries").by_model["plain"]
    assert made["false_alarms"]["verdict"] == {"alarms": 0, "n": 1}
    with pytest.raises(InterpError, match="Unknown method on trial 'denosing'"):
        ground_truth.run(truth.model, truth.pairs, methods=["denosing"])
