"""Read-outs by hand-worked numbers, by Hugging Face and NumPy, and in everything that takes a ``metric``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from interp import metrics, readouts, run
from interp.attribution import attribution_patching, edge_attribution
from interp.errors import InterpError
from interp.interventions import Ablate, Knockout, Replace
from interp.model import HookedTransformer
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.readouts import Answers, Readout, cross_entropy, custom, projection, readout
from interp.sweeps import (
    Ablation,
    AttentionKnockout,
    Patching,
    PathPatching,
    ablation_sweep,
    knockout_sweep,
    path_patching,
    plan,
    score,
    sweep,
    sweep_sites,
)
from tests.oracle import patched_logits, plain_hooks
from tests.sweeps.test_attention_only import made as attention_only
from tests.tiny import LOGITS as SIZE
from tests.tiny import ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close, near

LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)], [3.0, 3.0, -1.0]])
CLEAN = torch.tensor([[0.0, math.log(4), math.log(5)], [3.0, 3.0, -1.0]])
CORRECT, INCORRECT = torch.tensor([1, 0]), torch.tensor([2, 1])

LABELS = [[3, 4, -100], [-100, 8, 9], [1, 2, 3], [7, -100, -100]]
PLACES = [[1, 4, 0], [0, 3, 5], [0, 2, 5], [3, 0, 0]]

Numbers = np.ndarray


# ---- the values ----


def test_hand_worked_values() -> None:
    now, clean, middle = np.array([1, 2, 5]) / 8, np.array([1, 4, 5]) / 10, np.array([9, 26, 45]) / 80
    expected = {
        "logit_difference": [math.log(2 / 5), 0.0],
        "probability": [2 / 8, math.exp(3) / (2 * math.exp(3) + math.exp(-1))],
        "rank": [1.0, 1.0],  # a tie counts against the model
        "kl": [(clean * np.log(clean / now)).sum(), 0.0],
        "js": [(clean * np.log(clean / middle) + now * np.log(now / middle)).sum() / 2, 0.0],
    }
    expected["log_probability"] = [math.log(p) for p in expected["probability"]]
    expected["cross_entropy"] = [-math.log(p) for p in expected["probability"]]
    assert set(expected) == set(readouts.READOUTS)
    for name, values in expected.items():
        close(readout(name)(LOGITS, CORRECT, INCORRECT, clean=CLEAN), values, "arithmetic", size=LOGITS, what=name)


def test_logit_difference_ignores_a_shift_of_all_logits() -> None:
    close(
        readout("logit_difference")(LOGITS + 7, CORRECT, INCORRECT),
        readout("logit_difference")(LOGITS, CORRECT, INCORRECT),
        "arithmetic",
        size=LOGITS + 7,
    )


def test_recovered_by_hand() -> None:
    clean, corrupted = torch.tensor([4.0, 1.0]), torch.tensor([-4.0, 0.95])
    patched = torch.tensor([[4.0, -4.0, 0.0, 8.0], [1.0, 0.95, 0.0, 2.0]])
    got = readouts.recovered(patched, clean, corrupted, minimum_gap=0.1)
    close(got[0], [1, 0, 0.5, 1.5], "arithmetic")
    assert torch.isnan(got[1]).all(), "a gap of 0.05 is too small to divide by"


@pytest.mark.parametrize("name", readouts.READOUTS)
def test_every_readout_keeps_its_range_and_its_own_direction(name: str) -> None:
    one, rng = readout(name), np.random.default_rng(0)
    logits, clean = (torch.from_numpy(rng.normal(size=(40, 7)) * 3) for _ in range(2))
    found = one(logits, torch.full((40,), 2), torch.full((40,), 3), clean=clean)
    low, high = one.range
    assert ((found >= low) & (found <= high)).all()
    assert one.better in ("more", "less")
    right = torch.zeros_like(logits)
    right[:, 2] = 20.0  # the right token for certain, in the clean run too
    best = one(right, torch.full((40,), 2), torch.full((40,), 3), clean=right)
    assert ((best >= found) if one.better == "more" else (best <= found)).all()


def test_the_earlier_module_has_the_same_values() -> None:
    assert metrics.METRICS is readouts.READOUTS
    assert metrics.metric("rank") is readout("rank")
    assert metrics.UNITS["kl"] == "nats"


# ---- plain runs, by Hugging Face ----


def log_softmax(logits: Numbers) -> Numbers:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def measured(name: str, now: Numbers, clean: Numbers, pairs: PromptPairs) -> Numbers:
    """A read-out by NumPy, from logits [..., prompt, position, vocab] of a run and of the clean run."""
    each = np.arange(len(pairs))
    now, clean = (x.astype(np.float64)[..., each, pairs.answer_position, :] for x in (now, clean))
    right, wrong = now[..., each, pairs.correct], now[..., each, pairs.incorrect]
    p, q = log_softmax(now), log_softmax(clean)
    middle = np.log((np.exp(p) + np.exp(q)) / 2)
    return np.asarray({
        "logit_difference": lambda: right - wrong,
        "log_probability": lambda: p[..., each, pairs.correct],
        "probability": lambda: np.exp(p[..., each, pairs.correct]),
        "rank": lambda: (now > right[..., None]).sum(axis=-1),
        "cross_entropy": lambda: -p[..., each, pairs.correct],
        "kl": lambda: (np.exp(q) * (q - p)).sum(axis=-1),
        "js": lambda: ((np.exp(q) * (q - middle)).sum(axis=-1) + (np.exp(p) * (p - middle)).sum(axis=-1)) / 2,
        "entropy": lambda: -(np.exp(p) * p).sum(axis=-1),
    }[name]())  # fmt: skip


def entropy(logits: torch.Tensor, answers: Answers) -> torch.Tensor:
    """A read-out that nobody foresaw."""
    p = logits[:, 0].softmax(dim=-1)
    return -(p * p.log()).sum(dim=-1)


ENTROPY = custom(entropy, units="nats", differentiable=True)
EVERY: dict[str, str | Readout] = {**{name: name for name in readouts.READOUTS}, "entropy": ENTROPY}


@pytest.fixture(scope="module")
def reference(gpt2_directory: Path) -> Callable[[Numbers], Numbers]:
    """Hugging Face's logits."""
    model = GPT2LMHeadModel.from_pretrained(gpt2_directory).eval()

    def logits(ids: Numbers) -> Numbers:
        with torch.no_grad():
            return np.asarray(model(torch.tensor(ids)).logits)

    return logits


@pytest.mark.parametrize("name", EVERY)
def test_both_runs_equal_hugging_face(
    name: str, gpt2: HookedTransformer, reference: Callable[[Numbers], Numbers]
) -> None:
    pairs = scattered_pairs()
    clean = reference(pairs.clean.ids)
    for which, now in (("clean", clean), ("corrupted", reference(pairs.corrupted.ids))):
        close(score(gpt2, pairs, which, EVERY[name]), measured(name, now, clean, pairs), size=SIZE, what=which)


@pytest.mark.parametrize("places", [None, PLACES])
def test_labels_at_several_positions_equal_hugging_face_s_loss(
    places: list[list[int]] | None, gpt2: HookedTransformer, gpt2_directory: Path
) -> None:
    pairs = ragged_pairs()
    one = cross_entropy(LABELS, places)
    at = np.array(pairs.answer_position)[:, None] + np.arange(-2, 1) if places is None else np.array(places)
    model = GPT2LMHeadModel.from_pretrained(gpt2_directory).eval()
    for which, prompts in (("clean", pairs.clean), ("corrupted", pairs.corrupted)):
        losses = []
        for i, length in enumerate(prompts.lengths):
            ids = torch.tensor(prompts.ids[i : i + 1, :length])
            labels = torch.full((1, length + 1), -100)  # Hugging Face shifts: the label of position p stands at p + 1
            for place, label in zip(at[i], LABELS[i], strict=True):
                if label != -100:
                    labels[0, place + 1] = label
            longer = torch.cat([ids, ids[:, :1]], dim=1)
            with torch.no_grad():
                losses.append(float(model(longer, labels=labels).loss))
        close(score(gpt2, pairs, which, one), losses, size=SIZE, what=which)
    found = sweep(gpt2, pairs, "resid_pre", metric=one, axis="role")
    assert (found.attrs["metric"], found.patched.attrs["units"]) == ("cross_entropy", "nats")
    close(found.clean, score(gpt2, pairs, "clean", one), size=SIZE)
    close(found.patched.sel(layer=0, role="color"), found.clean, size=SIZE)  # all that differs is put back


def test_several_answer_tokens_are_summed_and_averaged(gpt2: HookedTransformer) -> None:
    clean, corrupted = scattered_pairs().clean.ids, scattered_pairs().corrupted.ids
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9)
    longer, _ = whole(pairs).expand_answers()
    each = score(gpt2, longer, metric="log_probability")
    lengths = np.array([len(tokens) for tokens in longer.continuation])
    close(score(gpt2, longer, metric="cross_entropy"), -each / lengths, size=SIZE)
    assert (score(gpt2, longer, "corrupted", "kl") > 0).all()


def whole(pairs: PromptPairs) -> PromptPairs:
    """The same pairs with answers of two tokens."""
    n = len(pairs)
    return replace(pairs, answer_policy="sum_logprob", correct_tokens=((5, 6),) * n, incorrect_tokens=((9, 8),) * n)


# ---- sweeps, by plain interventions ----


@pytest.fixture(params=["weights", "hooks"])
def model(
    request: pytest.FixtureRequest, gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> HookedTransformer:
    if request.param == "hooks":
        without_blocks(monkeypatch, gpt2)
    return gpt2


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("name", EVERY)
def test_a_sweep_of_every_readout_equals_plain_hooks(name: str, direction: str, model: HookedTransformer) -> None:
    pairs = scattered_pairs()
    with torch.no_grad():
        clean = model.bridge(torch.tensor(pairs.clean.ids)).numpy()
    found = sweep_sites(model, pairs, ["resid_pre", "z"], direction, EVERY[name], axis="role")
    assert found["z"].attrs["engine"] == ("hooks" if model.blocks is None else "weights")
    for site, heads in (("resid_pre", [None]), ("z", list(range(4)))):
        swept = found[site].patched.transpose("prompt", "layer", ..., "role")
        places = swept.role.values
        cells = [([(layer, [head])], str(place)) for layer in range(3) for head in heads for place in places]
        logits = patched_logits(model, pairs, site, direction, cells).numpy()
        expected = measured(name, logits, clean, pairs).T.reshape(swept.shape)
        close(swept, expected, size=SIZE, what=site)
        assert np.abs(expected - expected[:, :1]).max() > 0
        assert swept.attrs["units"] == readout(EVERY[name]).units


@pytest.mark.parametrize("name", EVERY)
def test_ablations_and_knockouts_of_every_readout_equal_score(name: str, model: HookedTransformer) -> None:
    pairs, one = scattered_pairs(), EVERY[name]
    ablated = ablation_sweep(model, pairs, "z", "zero", one, which="corrupted", layers=[1])
    expected = score(model, pairs, "corrupted", one, interventions=[Ablate(site="z", kind="zero", layers=1, heads=[2])])
    close(ablated.ablated.sel(layer=1, head=2), expected, size=SIZE)
    cut = knockout_sweep(model, pairs, ["noun<-color"], one, layers=[1])
    expected = score(model, pairs, "clean", one, interventions=[Knockout(dest="noun", src="color", layers=1)])
    close(cut.cut.sel(layer=1, edge="noun<-color"), expected, size=SIZE)
    assert ("positive" if readout(one).better == "less" else "negative") in cut.attrs["reading"] or name == "entropy"


@pytest.mark.parametrize("name", EVERY)
def test_paths_of_every_readout_equal_the_logits_that_they_lead_to(name: str, gpt2: HookedTransformer) -> None:
    """A function of one's own sees every row's logits; NumPy makes the read-out of them."""
    pairs = scattered_pairs()
    with torch.no_grad():
        clean = gpt2.bridge(torch.tensor(pairs.clean.ids)).numpy()

    def by_numpy(logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        at = answers.prompt.numpy()
        rows = np.zeros((len(at), 8, logits.shape[-1]))
        rows[:, 6] = logits[:, 0].numpy()
        return torch.from_numpy(measured(name, rows, clean[at], pairs.select(at)).astype(np.float64))

    asked: dict[str, Any] = {"senders": ["embed", "L0H1", "MLP1"], "receivers": ["L2H0.q", "MLP2", "logits"]}
    found = path_patching(gpt2, pairs, metric=EVERY[name], **asked)
    close(found.patched, path_patching(gpt2, pairs, metric=custom(by_numpy), **asked).patched, size=SIZE)


# ---- projections: an activation instead of an answer ----


def streams_of(model: HookedTransformer, prompts: Any, name: str, hooks: Sequence[Any] = ()) -> Numbers:
    """A stream by the bridge's own hooks, [prompt, position, d_model]."""
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        model.bridge.run_with_hooks(
            torch.tensor(prompts.ids), fwd_hooks=[*hooks, (name, lambda value, hook: kept.append(value.clone()))]
        )
    return np.asarray(kept[0])


def restored(now: Numbers, clean: Numbers, corrupted: Numbers, mask: Numbers) -> Numbers:
    """The share of the difference of the masked tokens' activations that is there."""
    shares = []
    for i in range(len(now)):
        moved, whole_way = ((x[i] - corrupted[i])[mask[i]].ravel() for x in (now, clean))
        shares.append(moved @ whole_way / (whole_way @ whole_way) if whole_way.any() else 0.0)
    return np.array(shares)


PLACED = {
    "before the last layer": (projection(2, "noun"), "blocks.2.hook_resid_pre", 2),
    "after the last layer": (projection(2, "noun", site="resid_post"), "blocks.2.hook_resid_post", 3),
    "early": (projection(0, "color", site="resid_post"), "blocks.0.hook_resid_post", 1),
}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("what", PLACED)
def test_a_projection_after_every_patch_equals_the_activation_by_plain_hooks(
    what: str, direction: str, ragged: bool, model: HookedTransformer
) -> None:
    pairs = ragged_pairs() if ragged else scattered_pairs()
    one, name, layer = PLACED[what]
    assert one.place is not None
    mask = run.token_mask(pairs.clean, one.place.at)
    clean, corrupted = (streams_of(model, prompts, name) for prompts in (pairs.clean, pairs.corrupted))
    base, source = (pairs.corrupted, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupted)
    sites = ["resid_pre", "resid_mid", "resid_post", "attn_out", "z", "v", "mlp_post"]
    swept = sweep_sites(model, pairs, sites, direction, one, axis="role", roles=["color", "noun"])
    by_run = {id(pairs.clean): clean, id(pairs.corrupted): corrupted}
    unpatched = restored(by_run[id(base)], clean, corrupted, mask)
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(torch.tensor(source.ids))
    for site, found in swept.items():
        close(found.clean, 1.0, size=SIZE)
        close(found.corrupted, 0.0, size=SIZE)
        for at, role, head in product(range(3), ("color", "noun"), [0, 3] if site in ("z", "v") else [None]):
            inside = run.token_mask(pairs.clean, role)
            expected = unpatched
            if site == "resid_pre" and at == layer:  # the activation that is read is itself put in
                put = np.where(inside[..., None], by_run[id(source)], by_run[id(base)])
                expected = restored(put, clean, corrupted, mask)
            elif at < layer:
                edits = [(slice(0, len(base)), torch.tensor(inside), [head])]
                hooks = plain_hooks(site, at, cache, edits)
                expected = restored(streams_of(model, base, name, hooks), clean, corrupted, mask)
            cell = {"layer": at, "role": role} | ({} if head is None else {"head": head})
            close(found.patched.sel(cell), expected, size=SIZE, what=(site, cell))
    assert found.patched.attrs["units"] == "fraction"


def test_a_projection_on_a_vector_and_its_ablations(model: HookedTransformer) -> None:
    pairs = scattered_pairs()
    vector = torch.linspace(-1, 1, 32)
    one = projection(2, "noun", vector)
    mask = run.token_mask(pairs.clean, "noun")
    for which, prompts in (("clean", pairs.clean), ("corrupted", pairs.corrupted)):
        stream = streams_of(model, prompts, "blocks.2.hook_resid_pre")
        expected = ((stream @ vector.numpy()) * mask).sum(1) / mask.sum(1)
        close(score(model, pairs, which, one), expected, size=SIZE)
    alone = AnsweredPrompts.from_tokens(pairs.clean.ids, correct=5, roles={"noun": pairs.clean.spans("noun")})
    found = ablation_sweep(model, alone, "z", "zero", one)
    for layer in range(3):
        expected = score(
            model, alone, metric=one, interventions=[Ablate(site="z", kind="zero", layers=layer, heads=[1])]
        )
        close(found.ablated.sel(layer=layer, head=1), expected, size=SIZE)
    cut = knockout_sweep(model, pairs, ["noun<-color"], projection(2, "noun"), window=3)
    expected = score(
        model, pairs, metric=projection(2, "noun"), interventions=[Knockout(dest="noun", src="color", layers=[0, 1, 2])]
    )
    close(cut.cut.sel(layer=1, edge="noun<-color"), expected, size=SIZE)
    windows = sweep(model, pairs, "z", metric=projection(2, "noun"), window=3)
    heads = sweep(model, pairs, "z", metric=projection(2, "noun"), sets={"all": [(a, 1) for a in range(3)]})
    close(windows.patched.sel(layer=1, head=1), heads.patched.sel(set="all"), size=SIZE)
    assert (windows.patched.sel(layer=1) != 0).any()


def test_a_sweep_of_a_projection_stops_at_its_layer(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    early, late = (plan(gpt2, pairs, "z", metric=one) for one in (projection(1, "noun"), "logit_difference"))
    assert early.flop < late.flop / 2
    found = sweep(gpt2, pairs, "z", metric=projection(1, "noun"))
    assert found.attrs["rows_run"] <= early.rows < late.rows


def test_what_a_projection_cannot_do_is_one_line(gpt2: HookedTransformer) -> None:
    pairs, one = scattered_pairs(), projection(2, "noun")
    alone = AnsweredPrompts.from_tokens(pairs.clean.ids, correct=5, roles={"noun": 3})
    lines: dict[str, Callable[[], object]] = {
        "Unknown receiver 'logits'. Choose from": lambda: path_patching(gpt2, pairs, metric=one, receivers=["logits"]),
        "Unknown receiver 'MLP2'. Did you mean": lambda: edge_attribution(gpt2, pairs, metric=one, receivers=["MLP2"]),
        "No sender comes before a receiver": lambda: path_patching(gpt2, pairs, metric=one, senders=["L2H0"]),
        "Nothing comes before": lambda: projection(0, "noun"),
        "Site 'pattern' has no vector per layer and position. Project": lambda: projection(1, "noun", site="pattern"),
        "Unknown site 'resid_prr'. Did you mean": lambda: projection(1, "noun", site="resid_prr"),
        "Site 'mlp_out' has no heads": lambda: projection(1, "noun", site="mlp_out", head=0),
        "head 4, but there are 4 heads": lambda: sweep(
            gpt2, pairs, "z", metric=projection(1, "noun", site="z", head=4)
        ),
        "Site 'rot_q' does not exist": lambda: sweep(gpt2, pairs, "z", metric=projection(1, "noun", site="rot_q")),
        "reads mlp_out of layer 3, but the model has 3 layers": lambda: sweep(
            gpt2, pairs, "z", metric=projection(3, "noun", site="mlp_out")
        ),
        "must be one vector of finite numbers, not all 0": lambda: projection(1, "noun", [[1.0]]),
        "must be one vector of finite numbers, not 'north'": lambda: projection(1, "noun", "north"),
        "the model has 3 layers": lambda: sweep(gpt2, pairs, "z", metric=projection(4, "noun")),
        "has 32 numbers per token, but direction has 2": lambda: plan(
            gpt2, pairs, "z", metric=projection(1, "noun", [1.0, 2.0])
        ),
        "has 8 numbers per token, but direction has 32": lambda: plan(
            gpt2, pairs, "z", metric=projection(1, "noun", [1.0] * 32, site="z", head=0)
        ),
        "Unknown role 'verb'": lambda: sweep(gpt2, pairs, "z", metric=projection(1, "verb")),
        "needs a corrupted run": lambda: score(gpt2, alone, metric=one),
        "on the clean-corrupted difference needs a corrupted": lambda: score(
            gpt2, alone, metric=projection(1, "noun", "means")
        ),
        "have the same q of layer 0 at 'noun', so there is no difference of means": lambda: sweep(
            gpt2, pairs, "z", metric=projection(0, "noun", "means", site="q")
        ),
    }
    for expected, call in lines.items():
        assert expected in said(call)


# ---- gradients ----


@pytest.mark.parametrize("name", ["kl", "js", "cross_entropy", "probability", "entropy"])
def test_estimates_equal_the_change_times_the_gradient(name: str, model: HookedTransformer) -> None:
    """The gradient by a central difference of plain runs, along the change itself."""
    pairs, step = scattered_pairs(), 1e-2
    found = attribution_patching(model, pairs, "resid_pre", metric=EVERY[name], axis="role", layers=[1])
    base, source = (
        run.activations(model, prompts, "resid_pre", layers=[1])[1] for prompts in (pairs.corrupted, pairs.clean)
    )
    inside = torch.from_numpy(run.token_mask(pairs.clean, "color"))[..., None]

    def moved(share: float) -> Numbers:
        put = Replace(site="resid_pre", values={1: torch.where(inside, base + share * (source - base), base)}, layers=1)
        return score(model, pairs, "corrupted", EVERY[name], interventions=[put])

    near(
        found.estimated_effect.sel(layer=1, role="color"), (moved(step) - moved(-step)) / (2 * step), 2e-3,
        why="a difference of two float32 runs over a finite step",
    )  # fmt: skip
    assert found.attrs["metric"] == name
    assert found.attrs["audit_cells"] > 0


@pytest.mark.parametrize("site", ["resid_pre", "z"])
@pytest.mark.parametrize("method", ["gradient", "integrated", "atp*"])
def test_estimates_of_a_projection_add_up_to_its_sweep(
    method: Any, site: str, model: HookedTransformer, request: pytest.FixtureRequest
) -> None:
    pairs, one = scattered_pairs(), projection(2, "noun")
    found = attribution_patching(model, pairs, site, metric=one, axis="role", method=method, steps=25)
    exact = sweep(model, pairs, site, metric=one, axis="role")
    assert (found.estimated_effect.sel(layer=2) != 0).any() == (site == "resid_pre")
    assert (exact.patched.sel(layer=2) != exact.corrupted).any() == (site == "resid_pre")
    if site == "resid_pre":  # the activation that is read, and linear in itself
        close(found.estimated.sel(layer=2), exact.patched.sel(layer=2), "gradient", size=SIZE)
    if (method, site) == ("integrated", "resid_pre"):  # all that differs at a layer, moved along one line
        whole_way = found.estimated_effect.sel(layer=1, role=["scene", "noun"]).sum("role")
        put = sweep(model, pairs, site, metric=one, positions=list(range(8)), axis="position")
        assert put.patched.dims == ("prompt", "layer", "position")
        near(whole_way, 1.0, 5e-3, why="25 steps of an integral; scene and noun hold every token that differs")
    assert found.attrs["audit_cells"] > 0


def test_edges_of_a_divergence_are_audited(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    found = edge_attribution(gpt2, pairs, metric="kl", method="eap-ig-inputs", senders=["embed", "L0H1", "L1H2"])
    audited = found.audited.values
    exact = path_patching(gpt2, pairs, metric="kl", senders=["embed", "L0H1", "L1H2"])
    effect = (exact.patched - exact.corrupted).transpose(*found.exact_effect.dims).values
    assert audited.any()
    close(found.exact_effect.values[:, audited], effect[:, audited], size=SIZE)


# ---- what cannot be combined ----


def said(call: Callable[[], object]) -> str:
    with pytest.raises(InterpError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_metric_names_the_nearest() -> None:
    assert "Unknown metric 'logit_diff'. Did you mean 'logit_difference'?" in said(lambda: readout("logit_diff"))


CALLS: dict[str, Callable[..., object]] = {
    "score": lambda m, p, r: score(m, p, metric=r),
    "sweep": lambda m, p, r: sweep(m, p, "z", metric=r),
    "plan": lambda m, p, r: plan(m, p, "z", metric=r),
    "plan of sites": lambda m, p, r: plan(m, p, Patching(["z"], metric=r)),
    "ablation_sweep": lambda m, p, r: ablation_sweep(m, p, "z", "zero", r),
    "plan of an ablation": lambda m, p, r: plan(m, p, Ablation("z", "zero", r)),
    "knockout_sweep": lambda m, p, r: knockout_sweep(m, p, ["noun<-color"], r),
    "plan of a knockout": lambda m, p, r: plan(m, p, AttentionKnockout(["noun<-color"], r)),
    "path_patching": lambda m, p, r: path_patching(m, p, metric=r),
    "plan of paths": lambda m, p, r: plan(m, p, PathPatching(metric=r)),
    "attribution_patching": lambda m, p, r: attribution_patching(m, p, "z", metric=r),
    "edge_attribution": lambda m, p, r: edge_attribution(m, p, metric=r),
}


@pytest.mark.parametrize("call", CALLS)
def test_labels_that_do_not_fit_are_one_line(call: str, gpt2: HookedTransformer) -> None:
    asked = partial(CALLS[call], gpt2, scattered_pairs())
    assert "There are 4 prompts and 2 rows of labels" in said(lambda: asked(cross_entropy([[1], [2]])))
    assert "id of prompt 1 is 60, but the model's output vocabulary is 0 to 59" in said(
        lambda: asked(cross_entropy([[1], [60], [1], [1]]))
    )
    assert "A label of prompt 2 is at position 8, which has 8 tokens" in said(
        lambda: asked(cross_entropy([[1]] * 4, [[3], [3], [8], [3]]))
    )


@pytest.mark.parametrize("call", ["attribution_patching", "edge_attribution"])
def test_gradients_that_are_not_there_are_one_line(call: str, gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    assert "Metric 'rank' has no gradient" in said(lambda: CALLS[call](gpt2, pairs, "rank"))
    assert "Metric 'mine' has no gradient" in said(lambda: CALLS[call](gpt2, pairs, custom(entropy, name="mine")))
    noising = (
        partial(attribution_patching, gpt2, pairs, "z")
        if call.startswith("attr")
        else partial(edge_attribution, gpt2, pairs)
    )
    assert "'kl' is least at the clean run" in said(lambda: noising(direction="noising", metric="kl"))


@pytest.mark.parametrize("name", ["kl", "js", "rank", "probability", "cross_entropy", "entropy"])
def test_whole_answers_have_sums_of_log_probabilities_only(name: str, gpt2: HookedTransformer) -> None:
    assert "not defined for whole answers" in said(lambda: score(gpt2, whole(scattered_pairs()), metric=EVERY[name]))


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no name": (lambda: Readout("", "", entropy, 0.0), "name is ''"),
    "a negative gap": (lambda: Readout("a", "", entropy, -1.0), "minimum_gap of read-out 'a' is -1.0"),
    "an unknown need": (lambda: Readout("a", "", entropy, 1.0, needs="logit"), "Unknown need 'logit'"),  # type: ignore[arg-type]
    "no function": (lambda: custom("entropy"), "custom takes a function of (logits, answers), not str"),  # type: ignore[arg-type]
    "flat labels": (lambda: cross_entropy([1, 2]), "Give a row of token numbers for each prompt"),
    "ragged labels": (lambda: cross_entropy([[1, 2], [3]]), "Rows of labels differ in length"),
    "half a label": (lambda: cross_entropy([[0.5]]), "labels must be a whole number"),
    "a negative label": (lambda: cross_entropy([[-1, 5]]), "A token is 0 or more"),
    "no label": (lambda: cross_entropy([[1], [-100]]), "Prompt 1 has no label"),
    "other positions": (lambda: cross_entropy([[1, 2]], [[1]]), "Give one position for each label"),
    "a function alone": (lambda: readout(entropy), "Wrap a function of your own: readouts.custom(function)"),
    "a number": (lambda: readout(3), "A metric is a name or a read-out, not int"),
    "two with settings": (lambda: readout({"projection": {}, "kl": {}}), "A metric with settings is"),
    "settings that are none": (lambda: readout({"projection": 3}), "A metric with settings is"),
    "no means yet": (lambda: projection(2, "noun", "means")(LOGITS, CORRECT), "is measured by a sweep, of pairs"),
    "a projection of nowhere": (lambda: readout({"projection": {"layer": 3}}), "settings of projection lack 'at'"),
    "no wrong answer": (lambda: readout("logit_difference")(LOGITS, CORRECT), "compares two answers"),
    "no clean run": (lambda: readout("kl")(LOGITS, CORRECT), "compares with the clean run"),
    "a mean of all": (lambda: custom(lambda logits, _: logits.mean())(LOGITS, CORRECT), "returned shape ()"),
    "a list": (lambda: custom(lambda logits, _: [1.0, 2.0])(LOGITS, CORRECT), "returned list"),  # type: ignore[arg-type,return-value]
}


GAPS_AND_RANGES = {
    "logit_difference": (0.1, (-math.inf, math.inf)),
    "log_probability": (0.05, (-math.inf, 0.0)),
    "probability": (0.01, (0.0, 1.0)),
    "rank": (1.0, (0.0, math.inf)),
    "cross_entropy": (0.05, (0.0, math.inf)),
    "kl": (0.01, (0.0, math.inf)),
    "js": (0.01, (0.0, math.inf)),  # of several answer tokens a sum
    "custom": (1e-6, (-math.inf, math.inf)),
}


def test_the_least_gap_and_the_range_of_every_readout() -> None:
    """Results that were written earlier divide by gaps from these on."""
    every = {**readouts.READOUTS, "custom": custom(entropy, name="custom")}
    assert {name: (one.minimum_gap, one.range) for name, one in every.items()} == GAPS_AND_RANGES


def test_zeros_among_other_numbers_are_fine() -> None:
    assert cross_entropy([[0, 3]]).labels == ((0, 3),)
    place = projection(2, "noun", [0.0, 2.0]).place
    assert place is not None
    assert place.direction == (0.0, 2.0)


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_readout_is_one_line(what: str) -> None:
    call, expected = BAD[what]
    assert expected in said(call)


# ---- prompts without a pair, other vocabularies, stores, memory ----


def test_answers_alone_are_compared_with_their_own_clean_run(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    alone = AnsweredPrompts.from_tokens(pairs.clean.ids, correct=5, answer_position=6)
    close(score(gpt2, alone, metric="kl"), 0, size=SIZE)
    of_pairs = ablation_sweep(gpt2, pairs, "z", "zero", "kl")
    close(ablation_sweep(gpt2, alone, "z", "zero", "kl").ablated, of_pairs.ablated, size=SIZE)
    assert "compares two answers" in said(lambda: score(gpt2, alone))
    assert (of_pairs.ablated > 0).any()


def test_an_output_vocabulary_of_its_own() -> None:
    model = attention_only("few answers")
    pairs = scattered_pairs()
    for name in ("kl", "js", "cross_entropy", "rank", ENTROPY):
        found = sweep(model, pairs, "z", metric=name, axis="role")
        close(found.clean, score(model, pairs, "clean", name), size=SIZE)
        assert np.isfinite(found.patched).all()
    assert "output vocabulary is 0 to 10" in said(lambda: sweep(model, pairs, "z", metric=cross_entropy([[11]] * 4)))


def test_a_store_keeps_divergences_and_refuses_what_it_cannot_tell_apart(
    gpt2: HookedTransformer, tmp_path: Path
) -> None:
    pairs = scattered_pairs()
    first = sweep(gpt2, pairs, "z", metric="kl", store=tmp_path)
    again = sweep(gpt2, pairs, "z", metric="kl", store=tmp_path)
    assert (first.attrs["rows_run"] > 0, again.attrs["rows_run"]) == (True, 0)
    np.testing.assert_array_equal(again.patched, first.patched)
    assert sweep(gpt2, pairs, "z", metric="js", store=tmp_path).attrs["rows_kept"] == 0
    for labels in ([[1]] * 4, [[2]] * 4):
        assert sweep(gpt2, pairs, "z", metric=cross_entropy(labels), store=tmp_path).attrs["rows_kept"] == 0
    assert "Leave store= out" in said(lambda: sweep(gpt2, pairs, "z", metric=ENTROPY, store=tmp_path))


def test_a_plan_counts_the_clean_run_s_logits(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    plain, compared = (plan(gpt2, pairs, "z", metric=name) for name in ("log_probability", "kl"))
    assert compared.peak_bytes - plain.peak_bytes == len(pairs) * 60 * 4
    assert (compared.rows, compared.batches) == (plain.rows, plain.batches)


def test_an_exception_of_a_function_of_ones_own_names_the_read_out() -> None:
    with pytest.raises(TypeError) as caught:
        custom(lambda logits: logits[:, 0, 0], name="mine")(LOGITS, CORRECT)  # type: ignore[arg-type,misc]
    assert caught.value.__notes__ == ["Raised by read-out 'mine', a function of (logits, answers)."]
