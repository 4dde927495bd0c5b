"""Capture and interventions, against plain hooks and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import run, sites
from interp.ablation import resample_donors
from interp.errors import InterpError
from interp.interventions import Ablate, AddNoise, Erase, Knockout, Replace, Steer
from interp.model import HookedTransformer
from interp.prompts.tokens import Prompts
from tests.tiny import random_ids
from tests.tolerance import close

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])
ROLES = {"color": 2, "noun": np.array([[5, 7]] * 4)}


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture
def prompts() -> Prompts:
    return Prompts.from_ids(random_ids(4, 11), ROLES)


def through_transformer_lens(model: HookedTransformer, ids: np.ndarray, hooks: list) -> np.ndarray:
    """Last-token logits by the bridge's own hook interface."""
    with torch.inference_mode():
        return model.bridge.run_with_hooks(torch.tensor(ids), fwd_hooks=hooks)[:, -1].numpy()


# ---- capture ----


@BOTH
def test_every_site_equals_transformer_lens_cache(model: HookedTransformer) -> None:
    ids = random_ids(2, 9)
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(torch.tensor(ids))
    acts = run.capture(model, ids, list(model.sites))
    for name in model.sites:
        if name == "result":
            continue
        for layer in range(model.cfg.n_layers if sites.SITES[name].per_layer else 1):
            got = acts[name].values[:, layer] if sites.SITES[name].per_layer else acts[name].values
            want = cache[sites.SITES[name].hook_name(layer)].numpy()
            np.testing.assert_array_equal(got, np.broadcast_to(want, got.shape), err_msg=name)


@BOTH
def test_batched_equals_single_for_prompts_of_unequal_length(model: HookedTransformer) -> None:
    rows = [random_ids(1, length, seed=length)[0].tolist() for length in (4, 11, 7)]
    together = run.capture(model, rows, ["resid_post", "pattern", "q"])
    for i, row in enumerate(rows):
        alone = run.capture(model, [row], ["resid_post", "pattern", "q"])
        n = len(row)
        # Three rows take other kernels than one; padding that is not masked shows at the values' own size.
        close(together.resid_post[i, :, :n], alone.resid_post[0])
        close(together.pattern[i, :, :, :n, :n], alone.pattern[0])
        assert np.isnan(together.resid_post[i, :, n:]).all()
        assert np.isnan(together.pattern[i, :, :, n:]).all()
        assert np.isnan(together.pattern[i, :, :, :, n:]).all()
    last = run.logits_at(model, run.as_prompts(model, rows))
    for i, row in enumerate(rows):
        close(last[i], run.logits_at(model, run.as_prompts(model, [row]))[0])


def test_batches_do_not_change_the_numbers(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_ids(7, 11)
    changes = [AddNoise(scale=0.3, seed=5), Ablate(site="z", kind="resample", layers=[1], seed=2)]
    whole = run.capture(gpt2, ids, ["resid_post", "pattern"], interventions=changes)
    monkeypatch.setattr(run, "ROW_BYTES", 1)
    assert [len(rows) for rows in run.batches(gpt2, run.as_prompts(gpt2, ids))] == [1] * 7
    apart = run.capture(gpt2, ids, ["resid_post", "pattern"], interventions=changes)
    close(whole.resid_post, apart.resid_post)
    close(whole.pattern, apart.pattern)


def test_roles_read_the_last_token_of_their_span(gpt2: HookedTransformer, prompts: Prompts) -> None:
    everything = run.capture(gpt2, prompts, ["resid_pre", "pattern"])
    by_role = run.capture(gpt2, prompts, ["resid_pre", "pattern"], at=["noun", "color"])
    assert by_role.resid_pre.dims == ("prompt", "layer", "role", "d_model")
    assert by_role.pattern.dims == ("prompt", "layer", "head", "role", "src_position")
    assert list(by_role.role.values) == ["noun", "color"]
    np.testing.assert_array_equal(by_role.resid_pre.sel(role="noun"), everything.resid_pre.sel(position=6))
    np.testing.assert_array_equal(by_role.resid_pre.sel(role="color"), everything.resid_pre.sel(position=2))
    np.testing.assert_array_equal(by_role.pattern.sel(role="noun"), everything.pattern.sel(dest_position=6))


def test_positions_layers_and_negative_positions(gpt2: HookedTransformer, prompts: Prompts) -> None:
    everything = run.capture(gpt2, prompts, "q")
    some = run.capture(gpt2, prompts, "q", at=[-1, 3], layers=[-1, 0])
    assert list(some.layer.values) == [0, 2]
    np.testing.assert_array_equal(some.q[:, :, 0], everything.q.sel(layer=[0, 2], position=10))
    np.testing.assert_array_equal(some.q[:, :, 1], everything.q.sel(layer=[0, 2], position=3))


def test_only_the_layers_needed_are_run(gpt2: HookedTransformer, prompts: Prompts) -> None:
    fired = []
    handle = gpt2.bridge.blocks[2].attn.register_forward_pre_hook(lambda *_: fired.append(2))
    try:
        run.capture(gpt2, prompts, ["z", "resid_post"], layers=[0, 1])
        assert fired == []
        run.capture(gpt2, prompts, "z", layers=[2])
        assert fired == [2]
    finally:
        handle.remove()


def test_capture_leaves_no_hook_behind(gpt2: HookedTransformer, prompts: Prompts) -> None:
    def hooks() -> int:
        return sum(len(point._forward_hooks) for point in gpt2.bridge.hook_dict.values())

    before = hooks()
    run.capture(gpt2, prompts, list(gpt2.sites))
    with pytest.raises(InterpError):
        run.capture(gpt2, prompts, "z", at="nuon")
    assert hooks() == before


def test_capture_too_large_for_memory_is_refused_before_running(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "free_memory", lambda: 1000)
    with pytest.raises(InterpError, match=r"Capturing resid_pre needs .* GiB.*roles with at="):
        run.capture(gpt2, random_ids(4, 11), "resid_pre")


def test_bad_requests_name_what_is_wrong(gpt2: HookedTransformer, prompts: Prompts) -> None:
    for arguments, message in [
        ({"sites": "patern"}, "Did you mean 'pattern'"),
        ({"sites": []}, "No site was asked for"),
        ({"sites": "z", "at": "nuon"}, "nuon"),
        ({"sites": "z", "at": [11]}, "Position 11 is outside prompt 0, which has 11 tokens"),
        ({"sites": "z", "at": []}, "at is empty"),
        ({"sites": "z", "at": ["noun", 3]}, "mixes roles and positions"),
        ({"sites": "z", "layers": [3]}, r"Layer 3 is out of range: the model has 3 layers \(0 to 2\)"),
    ]:
        with pytest.raises(InterpError, match=message):
            run.capture(gpt2, prompts, **arguments)
    with pytest.raises(InterpError):
        run.capture(gpt2, [], "z")
    with pytest.raises(InterpError, match="no tokenizer"):
        run.capture(gpt2, "text", "z")


# ---- interventions ----


@BOTH
@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "resid_post", "z", "q", "k", "v", "pattern"])
def test_replacing_a_site_by_its_own_values_changes_nothing(
    model: HookedTransformer, site: str, prompts: Prompts
) -> None:
    own = run.activations(model, prompts, site)
    before = run.logits_at(model, prompts)
    assert torch.equal(run.logits_at(model, prompts, interventions=[Replace(site=site, values=own)]), before)


@BOTH
def test_editing_resid_mid_reaches_the_skip_connection_too(model: HookedTransformer, prompts: Prompts) -> None:
    """The bridge's own hook_resid_mid sits on the MLP's branch: scaling there is lost in the next norm."""
    ids = prompts.ids
    values = {1: torch.randn(4, 11, 32, generator=torch.Generator().manual_seed(3))}
    got = run.capture(
        model,
        prompts,
        ["resid_mid", "resid_post", "mlp_out"],
        interventions=[Replace(site="resid_mid", values=values, layers=[1])],
    )
    close(got.resid_mid[:, 1], values[1], "arithmetic", size=got.resid_post)
    close(got.resid_post[:, 1] - got.mlp_out[:, 1], values[1], "arithmetic", size=got.resid_post)
    doubled = through_transformer_lens(model, ids, [("blocks.1.hook_resid_mid", lambda t, hook: 2 * t)])
    plain = through_transformer_lens(model, ids, [])
    assert np.abs(doubled - plain).max() < 1e-3, "the bridge now edits the stream itself: simplify run.edit_hooks"


@BOTH
def test_editing_result_equals_editing_z(model: HookedTransformer, prompts: Prompts) -> None:
    by_z = run.logits_at(model, prompts, interventions=[Ablate(site="z", kind="zero", layers=[1], heads=[2])])
    by_result = run.logits_at(model, prompts, interventions=[Ablate(site="result", kind="zero", layers=[1], heads=[2])])
    close(by_result, by_z)
    assert float((by_z - run.logits_at(model, prompts)).abs().max()) > 1e-3


@BOTH
def test_zero_ablation_equals_a_plain_hook(model: HookedTransformer, prompts: Prompts) -> None:
    def zero(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        out = tensor.clone()
        out[:, 5:7, 1] = 0
        return out

    want = through_transformer_lens(model, prompts.ids, [("blocks.1.attn.hook_v", zero)])
    got = run.logits_at(model, prompts, interventions=[Ablate(site="v", kind="zero", layers=[1], heads=[1], at="noun")])
    close(got, want)


@BOTH
def test_mean_and_resample_ablation_equal_plain_hooks(model: HookedTransformer, prompts: Prompts) -> None:
    donors = resample_donors(prompts, seed=4)
    assert sorted(donors) == [0, 1, 2, 3]
    assert not (donors == np.arange(4)).any()

    def mean(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        out = tensor.clone()
        out[:, :, 3] = tensor[:, :, 3].mean(0)
        return out

    def resample(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        out = tensor.clone()
        out[:, :, 3] = tensor[torch.tensor(donors), :, 3]
        return out

    for kind, hook in (("mean", mean), ("resample", resample)):
        want = through_transformer_lens(model, prompts.ids, [("blocks.0.attn.hook_z", hook)])
        change = Ablate(site="z", kind=kind, layers=[0], heads=[3], seed=4)
        close(run.logits_at(model, prompts, interventions=[change]), want, what=kind)


def test_mean_over_prompts_of_unequal_length_leaves_padding_out(gpt2: HookedTransformer) -> None:
    rows = [random_ids(1, length, seed=length)[0].tolist() for length in (4, 9)]
    prompts = run.as_prompts(gpt2, rows)
    own = run.activations(gpt2, prompts, "mlp_out", layers=[1])[1]
    expected = torch.cat([own[0, :4], own[1, :9]]).mean(0)
    got = run.capture(
        gpt2, prompts, "mlp_out", layers=[1], interventions=[Ablate(site="mlp_out", kind="mean", layers=[1])]
    )
    close(got.mlp_out[1, 0, 8], expected, "product")
    with pytest.raises(InterpError, match="Prompt 0 is the only one of 4 tokens"):
        run.logits_at(gpt2, prompts, interventions=[Ablate(site="z", kind="resample")])


@BOTH
def test_knockout_cuts_the_edge_and_the_rest_still_sums_to_one(model: HookedTransformer, prompts: Prompts) -> None:
    cut = Knockout(dest="noun", src="color", layers=[1], heads=[0, 2])
    before = run.capture(model, prompts, "pattern").pattern.values
    after = run.capture(model, prompts, "pattern", interventions=[cut]).pattern.values
    assert (before[:, 1, [0, 2]][:, :, 5:7, 2] > 0).all()
    assert (after[:, 1, [0, 2]][:, :, 5:7, 2] == 0).all()
    close(after.sum(-1), 1, "product")
    # What is left keeps its proportions: the softmax of the scores that remain.
    kept = np.delete(before[:, 1, 0, 6, :7], 2, axis=-1)
    close(np.delete(after[:, 1, 0, 6, :7], 2, -1), kept / kept.sum(-1, keepdims=True), "product")
    np.testing.assert_array_equal(after[:, 1, 1], before[:, 1, 1])
    with pytest.raises(InterpError, match="nothing to attend to"):
        run.capture(model, prompts, "pattern", interventions=[Knockout(dest=[1], src=[0, 1])])


@BOTH
def test_steer_erase_and_noise_do_what_they_say(model: HookedTransformer, prompts: Prompts) -> None:
    vector = torch.arange(32.0)
    before = run.capture(model, prompts, "resid_post", layers=[0]).resid_post.values[:, 0]
    steered = run.capture(
        model, prompts, "resid_post", layers=[0],
        interventions=[Steer(site="resid_post", vector=vector, scale=0.5, layers=[0], at="color")],
    ).resid_post.values[:, 0]  # fmt: skip
    close(steered[:, 2] - before[:, 2], np.tile(0.5 * vector, (4, 1)), "arithmetic", size=steered)
    np.testing.assert_array_equal(np.delete(steered, 2, axis=1), np.delete(before, 2, axis=1))

    directions = torch.stack([vector, torch.ones(32)])
    erased = run.capture(
        model, prompts, "resid_post", layers=[0],
        interventions=[Erase(site="resid_post", directions=directions, layers=[0])],
    ).resid_post.values[:, 0]  # fmt: skip
    close(erased @ directions.numpy().T, 0, "product", size=before @ directions.numpy().T)
    orthogonal = np.linalg.svd(directions.numpy())[2][2:]
    close(erased @ orthogonal.T, before @ orthogonal.T, "product")

    noisy = [
        run.capture(model, prompts, "embed", interventions=[AddNoise(scale=0.1, seed=seed, at="color")]).embed.values
        for seed in (1, 1, 2)
    ]
    clean = run.capture(model, prompts, "embed").embed.values
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy[0] - noisy[2])[:, 2].min() > 0
    assert 0.07 < (noisy[0] - clean)[:, 2].std() < 0.13
    np.testing.assert_array_equal(np.delete(noisy[0], 2, 1), np.delete(clean, 2, 1))


def test_bad_interventions_are_refused(gpt2: HookedTransformer, prompts: Prompts) -> None:
    own = run.activations(gpt2, prompts, "z")
    for change, message in [
        (Ablate(site="z", kind="zero", heads=[4]), "Head 4 does not exist at 'z'"),
        (Ablate(site="mlp_out", kind="zero", heads=[0]), "Site 'mlp_out' has no heads"),
        (Ablate(site="zz", kind="zero"), "Unknown site 'zz'"),
        (Replace(site="z", values={0: own[0][:2]}, layers=[0]), "."),
    ]:
        with pytest.raises((InterpError, IndexError), match=message):
            run.logits_at(gpt2, prompts, interventions=[change])
    with pytest.raises(InterpError, match="Unknown ablation 'none'"):
        Ablate(site="z", kind="none")  # type: ignore[arg-type]


def test_logits_that_are_not_finite_are_an_error(gpt2: HookedTransformer, prompts: Prompts) -> None:
    change = Steer(site="resid_post", vector=torch.full((32,), torch.nan), layers=[2])
    with pytest.raises(InterpError, match="Logits of prompt 0 are not finite"):
        run.logits_at(gpt2, prompts, interventions=[change])
