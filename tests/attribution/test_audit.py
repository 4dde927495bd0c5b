"""The audit of estimates, on planted numbers and on a model whose gradient is wrong by a factor known by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp.attribution import Audit, attribution_patching, edge_attribution
from interp.attribution.audit import run_audit
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.stats import wilson_interval
from tests.sweeps.test_toy import ASK, BLUE, D_HEAD, FILLER, RED, A, C, F, O, feature, read
from tests.tolerance import close, near

NUMBERS, RANKING, NOTHING = "numbers", "ranking", "nothing"


def audited(
    estimated: np.ndarray, exact: np.ndarray, *, eligible: np.ndarray | None = None, **options: float
) -> dict[str, float]:
    """The figures of an audit of cells with known effects (the mean of two prompts)."""
    asked: list[int] = []

    def patch(chosen: np.ndarray) -> np.ndarray:
        asked.extend(chosen.tolist())
        return np.stack([exact[chosen] * 1.25, exact[chosen] * 0.75])

    everywhere = np.ones(len(estimated), dtype=bool) if eligible is None else eligible
    guess = np.stack([estimated * 1.25, estimated * 0.75])
    report = run_audit(Audit(**options), guess, patch, eligible=everywhere, what="z", seed=0)
    assert asked == report.cells.tolist()
    assert len(set(asked)) == len(asked)
    assert everywhere[report.cells].all()
    return {**report.figures, "cells": report.cells, "verdict": report.verdict}


def effects(n: int = 40) -> np.ndarray:
    """A few large effects of both signs among many small ones."""
    found = np.random.default_rng(1).normal(size=n) * 0.02
    found[:6] = [2.0, -1.6, 1.2, 0.9, -0.7, 0.5]
    return found


# ---- what estimates are good for ----


def test_estimates_that_are_right_are_good_as_numbers() -> None:
    exact = effects()
    found = audited(exact, exact)
    assert (found["audit_use"], found["audit_reason"], found["trusted"]) == (NUMBERS, "", 1)
    assert (found["audit_slope"], found["audit_slope_low"], found["audit_slope_high"]) == (1, 1, 1)
    assert (found["audit_median_error"], found["audit_largest_error"], found["audit_largest_effect"]) == (0, 0, 2)
    assert (found["audit_n_large"], found["audit_sign_errors"], found["audit_false_alarms"]) == (6, 0, 0)
    assert found["verdict"] == (
        "Checked against exact patching: slope 1 [1, 1], Pearson 1.00, largest error 0% of the largest effect, none of "
        "the large effects missed; 40 of 40 cells patched exactly."
    )


@pytest.mark.parametrize(("factor", "words"), [(1 / 12, "12 times too small"), (3.0, "3 times too large")])
def test_estimates_that_are_off_by_a_factor_are_a_ranking_only_though_they_correlate(factor: float, words: str) -> None:
    exact = effects()
    found = audited(exact * factor, exact)
    close(found["audit_pearson"], 1, "product", dtype="float64")
    slopes = [found["audit_slope"], found["audit_slope_low"], found["audit_slope_high"]]
    close(slopes, [factor] * 3, "product", dtype="float64")
    # What is counted apart from size finds nothing wrong.
    assert (found["audit_missed"], found["audit_false_alarms"], found["audit_sign_errors"]) == (0, 0, 0)
    assert (found["audit_use"], found["trusted"]) == (RANKING, 0)
    assert found["verdict"].startswith(
        f"Use these estimates as a ranking only: they are about {words} (slope {factor:.3g}"
    )
    # Six effects are large: their errors are |factor - 1| times 0.25 to 1 of the largest.
    close(found["audit_largest_error"], abs(factor - 1), "product", dtype="float64")
    close(
        found["audit_median_error"],
        abs(factor - 1) * np.median([1, 0.8, 0.6, 0.45, 0.35, 0.25]),
        "product",
        dtype="float64",
    )


def test_what_is_left_of_a_vanished_gradient_is_good_for_nothing() -> None:
    exact = effects()
    found = audited(exact * 1e-10, exact)
    close(found["audit_pearson"], 1, "product", dtype="float64")
    assert found["audit_use"] == NOTHING
    assert found["audit_reason"].startswith("they are about 1e+10 times too small, more than 100; ")


def test_a_large_false_edge_does_not_pass_though_the_correlation_is_high() -> None:
    """Pearson stays above 0.8 and the slope is 1; a median does not see one cell among many."""
    exact = effects()
    estimated = exact.copy()
    estimated[20] = 1.0  # where the exact effect is next to nothing
    found = audited(estimated, exact)
    assert found["audit_pearson"] > 0.8
    assert found["audit_slope"] == 1
    assert found["audit_median_error"] == 0
    assert (found["audit_false_alarms"], found["audit_n_look_large"], found["audit_use"]) == (1, 7, NOTHING)
    close(found["audit_largest_error"], abs(1 - exact[20]) / 2, "product", dtype="float64")
    assert "1 of 7 cells that look large are not" in found["audit_reason"]
    assert (found["audit_false_alarm_low"], found["audit_false_alarm_high"]) == (1 / 7, 1 / 7)  # all were patched
    drawn = audited(estimated, exact, random=20)
    looks = drawn["audit_n_look_large"]
    assert (drawn["audit_false_alarm_low"], drawn["audit_false_alarm_high"]) == wilson_interval(1, looks)
    allowed = audited(estimated, exact, maximum_wrong=0.2)
    assert allowed["audit_use"] == RANKING
    assert "the largest error is 50% of the largest effect, above 25%; 1 of 7 cells" in allowed["verdict"]


def test_wrong_signs_are_counted_among_large_effects() -> None:
    exact = effects()
    found = audited(-exact, exact)
    assert (found["audit_slope"], found["audit_sign_errors"], found["audit_use"]) == (-1, 6, NOTHING)
    assert "they do not grow with the exact effects (slope -1" in found["audit_reason"]
    one = exact.copy()
    one[5] *= -1
    found = audited(one, exact)
    assert (found["audit_sign_errors"], found["audit_n_large"], found["audit_use"]) == (1, 6, NOTHING)
    assert "1 of 6 large effects have the wrong sign" in found["audit_reason"]
    small = exact.copy()
    small[6:] *= -1
    assert audited(small, exact)["audit_use"] == NUMBERS


def test_a_saturated_cell_that_looks_like_nothing_is_missed() -> None:
    exact = effects()
    estimated = exact.copy()
    estimated[0] = 1e-6
    found = audited(estimated, exact)
    assert (found["audit_missed"], found["audit_use"]) == (1, NOTHING)
    close(found["audit_missed_share"], 1 / 6, "product", dtype="float64")
    assert "an estimated 17% of the large effects look small" in found["audit_reason"]
    # Half of all effects in one cell decides the slope.
    exact[0] = 10.0
    close(audited(estimated, exact)["audit_slope"], 1e-7, "product", dtype="float64")


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_good_for_nothing_and_its_slope_is_not_sure_to_be_above_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact, estimated = rng.normal(size=(2, 8, 60))
    report = run_audit(
        Audit(), estimated, lambda chosen: exact[:, chosen], eligible=np.ones(60, dtype=bool), what="z", seed=0
    )
    assert report.figures["audit_use"] == NOTHING
    assert report.figures["audit_slope_low"] < report.figures["audit_slope"] < report.figures["audit_slope_high"]


def test_a_slope_that_prompts_do_not_settle_is_not_enough_for_numbers() -> None:
    """Two prompts of the same mean: one is twice too large, the other nothing."""
    exact = np.stack([effects(), effects()])
    estimated = exact * np.array([[2.0], [0.0]])
    report = run_audit(
        Audit(), estimated, lambda chosen: exact[:, chosen], eligible=np.ones(40, dtype=bool), what="z", seed=0
    )
    assert report.figures["audit_slope"] == 1
    assert (report.figures["audit_slope_low"], report.figures["audit_slope_high"]) == (0, 2)
    assert report.figures["audit_use"] == NOTHING
    steady = exact * np.array([[1.4], [0.6]])
    report = run_audit(
        Audit(), steady, lambda chosen: exact[:, chosen], eligible=np.ones(40, dtype=bool), what="z", seed=0
    )
    assert report.figures["audit_use"] == RANKING
    assert report.figures["audit_reason"] == "slope 1 [0.6, 1.4] may lie outside 0.8 to 1.25"


def test_one_prompt_has_no_interval_and_is_judged_by_itself() -> None:
    exact = effects()[None]
    report = run_audit(
        Audit(), exact, lambda chosen: exact[:, chosen], eligible=np.ones(40, dtype=bool), what="z", seed=0
    )
    assert np.isnan([report.figures["audit_slope_low"], report.figures["audit_slope_high"]]).all()
    assert report.figures["audit_use"] == NUMBERS
    assert "slope 1, Pearson" in report.verdict


def test_effects_that_are_all_about_equal_have_no_order_but_their_numbers_can_be_right() -> None:
    exact = 1 + 1e-6 * np.random.default_rng(0).normal(size=20)
    estimated = 1 + 1e-6 * np.random.default_rng(1).normal(size=20)
    found = audited(estimated, exact)
    assert np.isnan([found["audit_pearson"], found["audit_spearman"], found["audit_rank_agreement"]]).all()
    assert found["audit_use"] == NUMBERS
    assert "Pearson" not in found["verdict"]
    found = audited(estimated / 12, exact)
    assert (found["audit_use"], found["audit_reason"]) == (
        NOTHING, "the exact effects are all about equal, there is nothing to rank",
    )  # fmt: skip


# ---- the figures ----


def test_the_audit_counts_what_was_missed_and_bounds_the_rate() -> None:
    """100 cells, of which ten matter; four of those look like nothing, and all that look like something are checked."""
    exact, estimated = np.zeros(100), np.linspace(-1e-3, 1e-3, 100)
    exact[:10] = np.arange(10, 0, -1)
    estimated[:6] = exact[:6]
    found = audited(estimated, exact, top_k=6, random=94)
    # Of what looks like nothing 4, 3 and 2 are at least a fifth of 10; every cell was checked, so the rate is known.
    assert (found["audit_missed"], found["audit_n_large"]) == (3, 9)
    assert found["audit_missed_rate"] == found["audit_missed_low"] == found["audit_missed_high"] == 3 / 94
    close(found["audit_missed_share"], 3 / 9, "product", dtype="float64")
    assert audited(estimated, exact, top_k=6, random=94, large=0.45)["audit_missed"] == 0
    assert found["audit_cells"] == 100
    part = audited(estimated, exact, top_k=6, random=80)
    hits = int(np.isin(part["cells"][6:], [6, 7, 8]).sum())
    assert hits
    assert part["audit_missed"] == hits
    assert (part["audit_missed_low"], part["audit_missed_high"]) == wilson_interval(hits, 80)
    # Each sampled cell stands for 94 / 80.
    close(part["audit_missed_share"], hits * 94 / 80 / (6 + hits * 94 / 80), "product", dtype="float64")
    # 9 to 5 and 10 are the six truly largest and were all found; of the eight largest, six.
    assert found["audit_top_k_recall"] == 1
    assert audited(estimated, exact, top_k=8, random=92)["audit_top_k_recall"] == 6 / 8


def test_an_effect_estimated_too_small_but_seen_is_not_missed() -> None:
    exact = np.array([5.0, 4, 3, 6, 0, 0, 0, 0])
    estimated = np.array([5.0, 4, 2.9, 2.6, 0.1, 0, 0, 0])
    assert audited(estimated, exact, top_k=2, random=6, large=0.75)["audit_missed"] == 0
    estimated[3] = 2.2
    assert audited(estimated, exact, top_k=2, random=6, large=0.75)["audit_missed"] == 1


def test_correlations_are_those_of_the_audited_cells() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=60)
    estimated = exact + 0.5 * rng.normal(size=60)
    found = audited(estimated, exact, top_k=10, random=30)
    cells = found["cells"]
    assert set(cells[:10]) == set(np.argsort(-np.abs(estimated))[:10])
    close(found["audit_pearson"], np.corrcoef(estimated[cells], exact[cells])[0, 1], "product", dtype="float64")
    for name, some in (("audit_spearman", cells), ("audit_spearman_random", cells[10:])):
        ranks = [np.argsort(np.argsort(values[some])) for values in (estimated, exact)]
        close(found[name], np.corrcoef(*ranks)[0, 1], "product", dtype="float64")
    again = audited(estimated, exact, top_k=10, random=30, seed=1)["cells"]
    assert (again[:10] == cells[:10]).all()
    assert set(again) != set(cells)


def test_noise_of_small_effects_is_not_ranked() -> None:
    """Two effects matter; the order of the rest is chance, which Spearman's correlation sees and the judgement not."""
    exact, estimated = 1e-3 * np.random.default_rng(0).normal(size=(2, 40))
    exact[:2] = estimated[:2] = 1.0, -0.5
    found = audited(estimated, exact)
    assert found["audit_spearman"] < 0.5
    assert (found["audit_rank_agreement"], found["audit_use"]) == (1, NUMBERS)


def test_every_limit_decides() -> None:
    """Estimates with a little of each error pass as they are, and fail each limit that is drawn closer."""
    exact = effects()
    estimated = exact * 1.1 + 0.05 * np.random.default_rng(2).normal(size=40)
    estimated[2] -= 0.4
    assert audited(estimated, exact)["audit_use"] == NUMBERS
    for limit, words in [
        ({"minimum_agreement": 0.999}, "Pearson 0."),
        ({"maximum_factor": 1.01}, "times too large"),
        ({"maximum_median_error": 0.001}, "the median error"),
        ({"maximum_error": 0.01}, "the largest error"),
    ]:
        found = audited(estimated, exact, **limit)
        assert found["audit_use"] != NUMBERS
        assert words in found["audit_reason"]
        ((name, value),) = limit.items()
        assert found[f"audit_limit_{name}"] == value


@pytest.mark.parametrize(
    ("estimated", "exact", "reason"),
    [
        (np.zeros(20), np.arange(20.0), "all estimated effects are equal"),
        (np.arange(20.0), np.zeros(20), "no patch of the audit changed the answer"),
        (np.zeros(20), np.zeros(20), "no patch of the audit changed the answer"),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0]), "only 2 cells could differ"),
        (np.array([1.0]), np.array([1.0]), "only 1 cells could differ"),
        (np.zeros(0), np.zeros(0), "only 0 cells could differ"),
        (np.array([*range(19), np.nan]), np.arange(20.0), "1 estimates are not finite"),
        (np.arange(20.0), np.array([*range(19), np.inf]), "exact patching gave numbers that are not finite"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_judged_says_why_and_is_not_trusted(
    estimated: np.ndarray, exact: np.ndarray, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = audited(estimated, exact)
    assert np.isnan([found["audit_pearson"], found["audit_slope"], found["audit_top_k_recall"]]).all()
    assert (found["trusted"], found["audit_use"]) == (0, NOTHING)
    assert found["audit_reason"].startswith(reason)
    assert found["verdict"].startswith(f"Do not use these estimates: {reason}")
    assert reason in caplog.text
    assert {type(value) for name, value in found.items() if name not in ("cells", "verdict")} <= {int, float, str}


def test_cells_that_cannot_matter_are_not_checked_and_top_k_stays_a_choice() -> None:
    eligible = np.arange(40) % 2 == 0
    found = audited(np.arange(40.0), np.arange(40.0), eligible=eligible, top_k=10, random=100)
    assert (found["audit_cells"], found["audit_cells_eligible"], found["audit_top_k"]) == (20, 20, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0}, {"random": -1}, {"minimum_agreement": 2}, {"large": 0.0}, {"large": 1.5}, {"maximum_factor": 0.5},
        {"maximum_factor": 1000}, {"maximum_error": -0.1}, {"maximum_median_error": 2}, {"maximum_wrong": float("nan")},
    ],
)  # fmt: skip
def test_a_limit_that_means_nothing_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InterpError) as caught:
        Audit(**options)
    assert "\n" not in str(caught.value)


# ---- a model whose gradient is wrong by a factor of 12 ----


@pytest.fixture(scope="module")
def twelfth(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    """Attention alone: a head of layer 0 carries the colour to the asking token as ``n`` of feature O, n = +-sqrt(44).

    The final norm makes of it D(n) = 4 n / sqrt(4 + n^2) (tests/sweeps/test_toy.py), which is nearly flat there:
    2 n D'(n) = 32 n / (4 + n^2)^1.5, where D changes by 8 n / sqrt(4 + n^2). The quotient is 4 / (4 + n^2) = 1 / 12.
    """
    config = GPT2Config(
        n_layer=3, n_head=2, n_embd=8, n_positions=4, vocab_size=4, bos_token_id=0, eos_token_id=0,
        layer_norm_epsilon=1e-12, tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        embedding = model.transformer.wte.weight
        embedding[RED], embedding[BLUE] = 2 * feature(C), -2 * feature(C)
        embedding[FILLER], embedding[ASK] = 2 * feature(F), 2 * feature(A)
        attention = model.transformer.h[0].attn
        attention.c_attn.weight[:, 0] = 10 * read(A)
        attention.c_attn.weight[:, 8] = -10 * read(F) - 10 * read(A)
        attention.c_attn.weight[:, 16] = read(C)
        # The norm before the head makes 2 of the colour's 2 (its root mean square is 1).
        attention.c_proj.weight[0] = feature(O) * 44**0.5 / 2
        model.lm_head.weight[RED], model.lm_head.weight[BLUE] = read(O), -read(O)
    path: Path = tmp_path_factory.mktemp("twelfth")
    model.save_pretrained(path)
    hooked = HookedTransformer.from_pretrained(path)
    assert (hooked.cfg.n_layers, hooked.cfg.d_head) == (3, D_HEAD)
    return hooked


COLOURS = PromptPairs.from_tokens(
    [[RED, FILLER, ASK]], [[BLUE, FILLER, ASK]], correct=RED, incorrect=BLUE, roles={"color": 0, "asked": 2}
)


@pytest.mark.parametrize("approximation", ["resid_pre", "edges"])
def test_a_gradient_that_is_twelve_times_too_small_is_no_number(twelfth: HookedTransformer, approximation: str) -> None:
    if approximation == "edges":
        found = edge_attribution(twelfth, COLOURS, senders=["L0H0"])
    else:
        found = attribution_patching(twelfth, COLOURS, approximation, layers=[1, 2])
    audited = found.audited.values
    exact = found.exact_effect.values[0][audited]
    near(np.abs(exact).max(), 8 * 44**0.5 / 48**0.5, 1e-4, why="8 n / sqrt(4 + n^2), in float32")
    assert (np.abs(exact) < 1e-4).any()
    near(found.attrs["audit_slope"], 1 / 12, 1e-4, why="4 / (4 + n^2), in float32")
    near(found.attrs["audit_pearson"], 1, 1e-6, why="one factor for all")
    assert (found.attrs["audit_use"], found.attrs["trusted"]) == (RANKING, 0)
    assert found.attrs["reading"].startswith(
        "Use these estimates as a ranking only: they are about 12 times too small (slope 0.0833)"
    )


def test_an_edge_that_eap_invents_is_a_false_alarm(tmp_path: Path) -> None:
    """A circuit of one edge, embed -> logits, of 2 logits. EAP finds it, and 1 logit for embed -> L0H0.q, which is 0.

    The query is 0 in the corrupted run and 24 in the clean one, so attention moves from even to all on the third token.
    Keys are 0, 1, 3, 0 and values 0, 1, 1/3, 0: the third value is the mean of all, so what is read stays 1/3. But the
    first step goes the way of the covariance of keys and values, 1/2 - 1/3; times 24 / 2 (the scale of scores), times
    what the head writes, 1/4, times 2 (right minus wrong): 1. Norms divide by a constant.
    """
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=8, n_positions=4, vocab_size=5, bos_token_id=0, eos_token_id=0,
        layer_norm_epsilon=1e10, tie_word_embeddings=False,
    )  # fmt: skip
    keys, values, (corrupted, clean) = (0, 1, 3), (0, 1, 1 / 3), (3, 4)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1e5 if "ln_" in name and name.endswith("weight") else 0.0)
        embedding, attention = model.transformer.wte.weight, model.transformer.h[0].attn
        for token, (key, value) in enumerate(zip(keys, values, strict=True)):
            embedding[token] = key * feature(C) + value * feature(F)
        embedding[clean] = 24 * feature(A) + feature(O)
        attention.c_attn.weight[:, 0], attention.c_attn.weight[:, 8] = read(A), read(C)
        attention.c_attn.weight[:, 16] = read(F)
        attention.c_proj.weight[0] = feature(O) / 4
        model.lm_head.weight[0], model.lm_head.weight[1] = read(O), -read(O)
    model.save_pretrained(tmp_path)
    pairs = PromptPairs.from_tokens([[0, 1, 2, clean]], [[0, 1, 2, corrupted]], correct=0, incorrect=1)
    found = edge_attribution(HookedTransformer.from_pretrained(tmp_path), pairs, senders=["embed"])
    of = found.isel(prompt=0, sender=0)
    for receiver, estimate, exact in (("logits", 2, 2), ("L0H0.q", 1, 0)):
        near(of.estimated_effect.sel(receiver=receiver), estimate, 1e-3, why="norms divide by a constant but for 1e-10")
        near(of.exact_effect.sel(receiver=receiver), exact, 1e-3, why="norms divide by a constant but for 1e-10")
    assert found.attrs["audit_pearson"] > 0.8
    near(found.attrs["audit_slope"], 1, 1e-3, why="one edge is right")
    assert (found.attrs["audit_false_alarms"], found.attrs["audit_use"]) == (1, NOTHING)
    assert "1 of 2 cells that look large are not" in found.attrs["reading"]
