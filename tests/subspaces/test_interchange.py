"""Interchange against patching, and DAS where the subspace is known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import HookedTransformer, InterpError, PromptPairs, groundtruth, sweep
from interp.run import activations
from interp.sites import vector_site
from interp.subspaces import Subspace, das, interchange, placebo, random_model, random_subspace
from interp.subspaces.interchange import aligned
from interp.subspaces.runs import Runs
from interp.sweeps import score
from tests.families import FAMILIES
from tests.tiny import LOGITS, ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close, near


def whole(model: HookedTransformer, site: str) -> dict[str, Subspace]:
    width = int(np.prod(vector_site(site).shape(model.cfg.sizes)))
    return {"all": Subspace.spanned_by(np.eye(width), kind="whole space")}


@pytest.mark.parametrize(("name", "pairs"), [("gpt2", scattered_pairs()), ("llama", ragged_pairs())])
def test_interchange_of_the_whole_space_is_patching(
    name: str, pairs: PromptPairs, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: HookedTransformer = request.getfixturevalue(name)
    cases = [("resid_pre", 1, "noising"), ("mlp_out", 0, "denoising"), ("z", 2, "noising"), ("v", 1, "denoising")]
    exact = {
        (site, layer): sweep(model, pairs, site, direction, axis="role", roles=["color"], layers=[layer])  # type: ignore[arg-type]
        for site, layer, direction in cases[:2]
    }
    exact |= {
        (site, layer): sweep(
            model,
            pairs,
            site,
            direction,
            roles=["color"],
            sets={"all": [(layer, h) for h in range(model.n_heads_of(site))]},  # type: ignore[arg-type]
        )
        for site, layer, direction in cases[2:]
    }
    for through_hooks in (False, True):
        if through_hooks:
            without_blocks(monkeypatch, model)
        for site, layer, direction in cases:
            found = interchange(
                model, pairs, whole(model, site), site=site, layer=layer, at="color", direction=direction
            )  # type: ignore[arg-type]
            expected = exact[site, layer]
            close(found["patched"].values[:, 0], expected["patched"].values.reshape(len(pairs)), size=LOGITS)
            for run in ("clean", "corrupted"):
                close(found[run], expected[run], size=LOGITS)


def test_what_is_orthogonal_to_the_difference_exchanges_nothing(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    both = [activations(gpt2, run, "resid_pre", layers=[1])[1][:, 4] for run in (pairs.clean, pairs.corrupted)]
    other = np.linalg.svd((both[0] - both[1]).numpy())[2][4:]
    found = interchange(gpt2, pairs, {"other": Subspace.spanned_by(other, kind="")}, layer=1, at="color")
    close(found["patched"].values[:, 0], found["clean"], size=LOGITS)


def test_the_divergence_is_that_of_the_sweep(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    runs = Runs.of(gpt2, pairs, "clean", site="resid_pre", layer=1, at="color")
    values = activations(gpt2, pairs.corrupted, "resid_pre", layers=[1])
    item = whole(gpt2, "resid_pre")["all"].interchange(values, site="resid_pre", layer=1, at="color")
    _, apart = runs.measured(item)
    expected = sweep(gpt2, pairs, "resid_pre", "noising", "kl", roles=["color"], layers=[1])["patched"]
    close(apart, expected.values.ravel(), size=LOGITS)
    close(score(gpt2, pairs, interventions=[item]), runs.measured(item)[0], size=LOGITS)


# ---- where the subspace is known ----


def planted() -> tuple[groundtruth.GroundTruth, np.ndarray]:
    """A model whose reader takes the colour from the noun, and the directions in which it is held there."""
    truth = groundtruth.build("plain")
    noun = {
        run: activations(truth.model, prompts, "resid_pre", layers=[1])[1]
        for run, prompts in (("clean", truth.pairs.clean), ("corrupted", truth.pairs.corrupted))
    }
    at = torch.from_numpy(truth.pairs.clean.role_positions("noun"))
    rows = torch.arange(len(at))
    apart = (noun["clean"][rows, at] - noun["corrupted"][rows, at]).double().numpy()
    _, size, axes = np.linalg.svd(apart, full_matrices=False)
    return truth, axes[size > 0.5]


def test_das_finds_a_planted_subspace_also_from_random_starts_and_placebos_do_nothing() -> None:
    truth, axes = planted()
    assert len(axes) == 5  # differences of six colours
    every = np.arange(len(truth.pairs))
    pairs, test = truth.pairs.select(every[every % 4 > 0]), truth.pairs.select(every[every % 4 == 0])
    runs = Runs.of(truth.model, pairs, "clean", site="resid_pre", layer=1, at="noun")
    other = activations(truth.model, pairs.corrupted, "resid_pre", layers=[1])[1]
    metrics = [score(truth.model, pairs, which) for which in ("clean", "corrupted")]
    drawn = np.random.default_rng(0).normal(size=(5, axes.shape[1]))
    at_random = aligned(runs, other, drawn, *metrics, rank=5, wanted=None, steps=80, starts=4)
    subspaces = {
        "das": das(truth.model, pairs, layer=1, at="noun", rank=5), "at random": at_random,
        "placebo": placebo(at_random), "random": random_subspace(axes.shape[1], 5),
        "planted": Subspace.spanned_by(axes, kind=""), "elsewhere": placebo(Subspace.spanned_by(axes, kind="")),
    }  # fmt: skip
    done = interchange(truth.model, test, subspaces, layer=1, at="noun").exchanged.mean("prompt")
    assert float(done.sel(subspace="planted")) > 0.95
    assert float(done.sel(subspace="das")) >= 0.95
    assert float(done.sel(subspace="at random")) >= 0.95
    cosines = np.linalg.svd(at_random.read @ axes.T)[1]  # of the angles between what was planted and what is found
    assert cosines.min() > 0.9
    assert done.sel(subspace=["placebo", "random", "elsewhere"]).values.max() < 0.3


def test_das_fits_arbitrary_answers_only_where_it_was_fitted_and_nothing_in_a_random_model() -> None:
    truth, _ = planted()
    n = len(truth.pairs)
    fit, test = (truth.pairs.select(np.arange(start, n, 2)) for start in (0, 1))
    coins = np.random.default_rng(0).permutation(n) % 2 == 0
    arbitrary = das(truth.model, fit, layer=1, at="noun", rank=8, wanted=coins[::2], steps=40)
    held_out = interchange(truth.model, test, {"": arbitrary}, layer=1, at="noun").exchanged.values[:, 0] == coins[1::2]
    near(held_out.mean(), 0.5, 4 * 0.5 / len(held_out) ** 0.5, why="four standard errors of a coin")
    shuffled = random_model(truth.model)
    found = {"": das(shuffled, fit, layer=1, at="noun", rank=5, steps=10)}
    here = interchange(shuffled, test, found, layer=1, at="noun")
    unchanged = float((here["clean"] < 0).mean())
    near(float(here.exchanged.mean()), unchanged, 4 * 0.5 / n**0.5, why="what no interchange gives, but for chance")


def test_a_placebo_moves_as_far_and_elsewhere() -> None:
    rng = np.random.default_rng(0)
    own = Subspace(
        read=rng.normal(size=(2, 9)), written=rng.normal(size=(2, 9)), offset=np.zeros(9), kind="oblique"
    )  # fmt: skip
    other = placebo(own)
    x = rng.normal(size=(20, 9))
    moved, instead = own.erased(x) - x, other.erased(x) - x
    near(np.linalg.norm(moved, axis=1), np.linalg.norm(instead, axis=1), 1e-9, why="float64")
    near(moved @ other.written.T, 0, 1e-9, why="float64")


def test_a_placebo_is_of_the_subspace_and_not_of_its_basis() -> None:
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.normal(size=(9, 2)))[0].T
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0] @ np.diag([1.0, -1.0])
    x = rng.normal(size=(20, 9))
    for basis in (-rows, rows[::-1], turn @ rows):
        one, other = (placebo(Subspace.spanned_by(each, kind="")) for each in (rows, basis))
        near(one.erased(x), other.erased(x), 1e-9, why="float64")


@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_gradients_on_the_weights_are_those_through_hooks(
    site: str, gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = scattered_pairs()
    found = []
    for hooked in (False, True):
        if hooked:
            without_blocks(monkeypatch, gpt2)
        runs = Runs.of(gpt2, pairs, "clean", site=site, layer=1, at="scene")
        shift = torch.full((32,), 0.1, requires_grad=True)
        metric = runs.metric(
            lambda activation, rows, by=shift: activation + by.reshape(activation.shape[2:] if site == "z" else (32,))
        )
        found.append((metric.detach(), *torch.autograd.grad(metric.sum(), [shift])))
        read = das(gpt2, pairs, site=site, layer=1, at="scene", rank=2, steps=2).read
        near(read @ read.T, np.eye(2), 1e-5, why="orthonormal")
    close(found[1][0], found[0][0], size=LOGITS)
    close(found[1][1], found[0][1], "gradient", size=LOGITS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda m, p: das(m, p, layer=1, at="noun", rank=0), "rank is 0. Give 1 to 32"),
        (lambda m, p: das(m, p, layer=1, at="noun", steps=0), "steps is 0"),
        (lambda m, p: das(m, p, layer=1, at="noun", starts=0), "starts is 0"),
        (lambda m, p: das(m, p, layer=1, at="noun", wanted=np.ones(3)), "each of 4 pairs"),
        (lambda m, p: das(m, p, layer=1, at="noun", site="pattern"), "pattern"),
        (lambda m, p: das(m, p, layer=9, at="noun"), "9"),
        (lambda m, p: interchange(m, p, {}, layer=1, at="verb"), "verb"),
        (lambda m, p: interchange(m, p, {}, layer=1, at="noun", direction="up"), "Unknown direction 'up'"),
        (lambda m, p: interchange(m, p, {"x": random_subspace(5, 1)}, layer=1, at="noun"), "have 5 numbers"),
        (lambda m, p: placebo(random_subspace(5, 3)), "Take a lower rank"),
        (lambda m, p: random_model("gpt2"), "not a model"),
    ],
)
def test_what_cannot_be_exchanged_is_refused_in_one_line(wrong: Any, message: str, gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match=message):
        wrong(gpt2, scattered_pairs())


def test_a_model_is_shuffled_whatever_was_last_done_with_it(tmp_path: Path) -> None:
    """A block whose parts run side by side keeps what they made, with its gradient."""
    model = HookedTransformer.from_pretrained(FAMILIES["neox"].build(tmp_path, num_hidden_layers=2))
    pairs = scattered_pairs()
    das(model, pairs, layer=1, at="color", rank=1, steps=1)
    other = random_model(model)
    assert (score(other, pairs) != score(model, pairs)).all()
    mine, theirs = (dict(one.bridge.named_parameters()) for one in (model, other))
    for name, weight in mine.items():
        assert torch.equal(weight.flatten().sort().values, theirs[name].flatten().sort().values), name
