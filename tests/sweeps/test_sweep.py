"""The sweep against patching with plain TransformerLens hooks (tests.oracle), and against algebra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import xarray as xr

from interp import results, run, sites
from interp.errors import InterpError
from interp.interventions import Replace
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import score, sweep
from tests.oracle import one_by_one
from tests.tiny import LOGITS, VOCAB, random_ids
from tests.tolerance import close

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])
DIRECTIONS = pytest.mark.parametrize("direction", ["denoising", "noising"])
CORRECT, INCORRECT = 5, 9


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    """Four pairs of 8 tokens that differ at position 3 ("color"); "noun" is two tokens."""
    clean = random_ids(4, 8)
    corrupted = clean.copy()
    corrupted[:, 3] = (corrupted[:, 3] + 1 + np.arange(4)) % VOCAB
    roles = {"color": 3, "noun": np.array([[5, 7]] * 4)}
    return PromptPairs.from_tokens(clean, corrupted, correct=CORRECT, incorrect=INCORRECT, roles=roles)


@pytest.fixture(scope="module")
def ragged() -> PromptPairs:
    """Pairs of 6 to 9 tokens, the colour at another place in each."""
    clean = [random_ids(1, length, seed=length)[0].tolist() for length in (9, 6, 8)]
    color = [4, 2, 3]
    corrupted = [list(row) for row in clean]
    for row, at in zip(corrupted, color, strict=True):
        row[at] = (row[at] + 7) % VOCAB
    return PromptPairs.from_tokens(
        clean, corrupted, correct=CORRECT, incorrect=[9, 11, 13], roles={"color": color, "noun": [6, 4, 5]}
    )


def metric(logits: torch.Tensor) -> np.ndarray:
    return (logits[:, CORRECT] - logits[:, INCORRECT]).double().numpy()


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out", "mlp_pre", "mlp_post"])
def test_stream_and_block_sites_equal_plain_hooks(
    model: HookedTransformer, pairs: PromptPairs, site: str, direction: str
) -> None:
    effect = sweep(model, pairs, site, direction)
    assert effect.patched.dims == ("prompt", "layer", "position")
    masks = [np.tile(np.arange(8) == position, (4, 1)) for position in range(8)]
    expected = one_by_one(model, pairs, site, direction, [None], masks)[:, :, 0]
    close(effect.patched, expected, size=LOGITS)
    assert effect.attrs["rows_run"] < effect.attrs["rows_in_all"]


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", ["z", "q", "k", "v", "pattern"])
def test_head_sites_equal_plain_hooks(model: HookedTransformer, pairs: PromptPairs, site: str, direction: str) -> None:
    effect = sweep(model, pairs, site, direction)
    dim = "kv_head" if model.cfg.grouped_query and site in ("k", "v") else "head"
    assert effect.patched.dims == ("prompt", "layer", dim)
    everywhere = [np.ones((4, 8), dtype=bool)]
    expected = one_by_one(model, pairs, site, direction, range(model.n_heads_of(site)), everywhere)[..., 0]
    close(effect.patched, expected, size=LOGITS)


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", ["z", "resid_pre", "pattern", "k", "v", "mlp_out"])
def test_ragged_roles_equal_plain_hooks(
    model: HookedTransformer, ragged: PromptPairs, site: str, direction: str
) -> None:
    roles = ["color", "noun", "answer"]
    effect = sweep(model, ragged, site, direction, roles=roles)
    masks = [run.token_mask(ragged.clean, role) for role in roles]
    heads = list(range(model.n_heads_of(site))) if sites.site(site).has_heads else [None]
    expected = one_by_one(model, ragged, site, direction, heads, masks)
    got = effect.patched.values if len(heads) > 1 else effect.patched.values[:, :, None]
    close(got, expected, size=LOGITS)


@BOTH
def test_resid_mid_equals_replacing_the_stream_by_hand(model: HookedTransformer, pairs: PromptPairs) -> None:
    """resid_mid has no usable hook in the bridge: compare with attn_out moved by the same amount at one token."""
    effect = sweep(model, pairs, "resid_mid", "denoising", positions=[3, 6])
    clean = run.activations(model, pairs.clean, "resid_mid")
    for layer in range(3):
        for i, position in enumerate((3, 6)):
            change = Replace(site="resid_mid", values=clean, layers=[layer], at=[position])
            close(effect.patched[:, layer, i], score(model, pairs, "corrupted", interventions=[change]), size=LOGITS)


@BOTH
def test_denoising_everything_at_layer_0_recovers_the_clean_run(model: HookedTransformer, pairs: PromptPairs) -> None:
    at_color = sweep(model, pairs, "resid_pre", "denoising", roles=["color"], layers=0, minimum_gap=1e-6)
    size = LOGITS / np.abs(at_color.clean - at_color.corrupted).min()
    close(at_color.recovered, 1, size=size)
    noised = sweep(model, pairs, "resid_pre", "noising", roles=["color"], layers=0, minimum_gap=1e-6)
    close(noised.recovered, 0, size=size)


@BOTH
def test_clean_and_corrupted_are_the_unpatched_metric(model: HookedTransformer, pairs: PromptPairs) -> None:
    effect = sweep(model, pairs, "z", "denoising", layers=[0])
    with torch.inference_mode():
        close(effect.clean, metric(model.bridge(torch.tensor(pairs.clean.ids))[:, -1]), size=LOGITS)
        close(effect.corrupted, metric(model.bridge(torch.tensor(pairs.corrupted.ids))[:, -1]), size=LOGITS)


def test_recovered_is_the_stated_formula_in_both_directions(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    for direction in ("denoising", "noising"):
        e = sweep(gpt2, pairs, "attn_out", direction, minimum_gap=0.0)
        close(e.recovered, (e.patched - e.corrupted) / (e.clean - e.corrupted), "arithmetic", dtype="float64")


def test_nothing_before_the_first_difference_is_run_and_its_effect_is_exactly_zero(
    gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    effect = sweep(gpt2, pairs, "resid_pre", "denoising", minimum_gap=0.0)
    before = effect.sel(position=[0, 1, 2])
    assert (before.patched == before.corrupted).all()
    assert (before.recovered == 0).all()
    # Layer 0: only the token that differs; later layers: it and the four after it.
    assert effect.attrs["rows_run"] == 4 * (1 + 5 + 5)


def test_identical_activations_are_flagged_not_reported_as_a_finding(
    gpt2: HookedTransformer, pairs: PromptPairs, caplog: pytest.LogCaptureFixture
) -> None:
    effect = sweep(gpt2, pairs, "z", "denoising", positions=[0, 1])
    assert effect.attrs["changed_something"] == 0
    assert effect.attrs["rows_run"] == 0
    assert "changed the metric" in caplog.text


def test_a_small_gap_gives_nan_and_is_counted(
    gpt2: HookedTransformer, pairs: PromptPairs, caplog: pytest.LogCaptureFixture
) -> None:
    gap = np.abs(score(gpt2, pairs) - score(gpt2, pairs, "corrupted"))
    between = float(np.sort(gap)[1:3].mean())
    effect = sweep(gpt2, pairs, "z", "denoising", minimum_gap=between)
    assert effect.attrs["n_small_gap"] == 2
    assert np.isnan(effect.recovered.values).reshape(4, -1).all(1).tolist() == (gap < between).tolist()
    assert np.isfinite(effect.patched.values).all()
    assert "2 of 4 prompts" in caplog.text


def test_the_result_is_complete_and_survives_a_file(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path) -> None:
    effect = sweep(gpt2, pairs, "z", "noising", roles=["color", "noun"])
    assert effect.patched.dims == ("prompt", "layer", "head", "role")
    assert effect.attrs["weights_sha256"] == gpt2.weights_sha256
    assert effect.attrs["tokens_sha256"] == pairs.sha256()
    xr.testing.assert_identical(results.load(results.save(effect, tmp_path / "a.nc")), effect)


def test_batches_do_not_change_the_numbers(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(gpt2, pairs, "q", "denoising")
    monkeypatch.setattr(run, "ROW_BYTES", 1)
    apart = sweep(gpt2, pairs, "q", "denoising")
    close(whole.patched, apart.patched)


def test_progress_reaches_its_total_and_never_goes_back(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    seen: list[tuple[int, int]] = []
    sweep(gpt2, pairs, "resid_pre", "denoising", progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (4 * 3 * 8, 4 * 3 * 8)


def test_the_model_is_untouched_after_an_exception(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    before = run.logits_at(gpt2, pairs.clean)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(gpt2, pairs, "z", "denoising", progress=interrupt)
    assert torch.equal(run.logits_at(gpt2, pairs.clean), before)


def hooks_left(model: HookedTransformer) -> int:
    return sum(len(point._forward_hooks) for point in model.bridge.hook_dict.values())


@pytest.fixture(autouse=True)
def _no_hook_is_left_behind(gpt2: HookedTransformer, llama: HookedTransformer) -> Iterator[None]:
    before = hooks_left(gpt2), hooks_left(llama)
    yield
    assert (hooks_left(gpt2), hooks_left(llama)) == before


def test_bad_requests_name_what_is_wrong(gpt2: HookedTransformer, pairs: PromptPairs, ragged: PromptPairs) -> None:
    for arguments, message in [
        ({"site": "resid"}, "Unknown site 'resid'"),
        ({"site": "z", "direction": "forward"}, "Unknown direction 'forward'"),
        ({"site": "z", "metric": "logit_diff"}, "Did you mean 'logit_difference'"),
        ({"site": "z", "roles": ["colour"]}, "colour"),
        ({"site": "z", "roles": ["color"], "positions": [1]}, "not both"),
        ({"site": "resid_pre", "axis": "token"}, "Unknown axis 'token'"),
        ({"site": "resid_pre", "positions": [8]}, "Position 8 is outside"),
        *(({"site": site}, "is not swept") for site in ("embed", "scores", "result")),
    ]:
        with pytest.raises(InterpError, match=message):
            sweep(gpt2, pairs, **arguments)
    assert sweep(gpt2, ragged, "resid_pre", layers=0).patched.dims == ("prompt", "layer", "role")
    with pytest.raises(InterpError, match="prompts 0 and 1 differ in length"):
        sweep(gpt2, ragged, "resid_pre", axis="position")
    assert all(sites.site(site.instead).swept for site in sites.SITES.values() if not site.swept)


# ---- whole answers ----


def test_whole_answers_are_scored_by_the_sum_of_their_log_probabilities(gpt2: HookedTransformer) -> None:
    base = random_ids(2, 7)
    other = base.copy()
    other[:, 2] = (other[:, 2] + 3) % VOCAB
    from dataclasses import replace

    pairs = replace(
        PromptPairs.from_tokens(base, other, correct=5, incorrect=9, roles={"color": 2}),
        answer_policy="sum_logprob",
        correct_tokens=((5, 6), (5,)),
        incorrect_tokens=((9,), (9, 10, 11)),
    )

    def log_p(ids: np.ndarray, answer: tuple[int, ...]) -> float:
        total = 0.0
        row = ids.tolist()
        for token in answer:
            with torch.inference_mode():
                total += float(gpt2.bridge(torch.tensor([row]))[0, -1].log_softmax(-1)[token])
            row.append(token)
        return total

    for which, ids in (("clean", base), ("corrupted", other)):
        expected = [
            log_p(row, right) - log_p(row, wrong)
            for row, right, wrong in zip(ids, pairs.correct_tokens, pairs.incorrect_tokens, strict=True)
        ]
        close(score(gpt2, pairs, which), expected)
    effect = sweep(gpt2, pairs, "resid_pre", "denoising", roles=["color"], layers=[0], minimum_gap=1e-6)
    close(effect.recovered, 1, size=LOGITS / np.abs(effect.clean - effect.corrupted).min())
    heads = sweep(gpt2, pairs, "z", "noising")
    close(heads.clean, score(gpt2, pairs, "clean"))
    assert heads.patched.dims == ("prompt", "layer", "head")
    with pytest.raises(InterpError, match="not defined for whole answers"):
        score(gpt2, pairs, metric="probability")
