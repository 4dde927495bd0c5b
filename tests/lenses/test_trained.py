"""Lenses that are made for a model: translators known by construction, plain Hugging Face, files, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens.model_bridge.sources import boot_native
from transformers import AutoModelForCausalLM

from interp import AnsweredPrompts, HookedTransformer, InterpError, PromptPairs, lenses, tasks
from interp.run import logits_at
from tests.tiny import VOCAB, random_ids
from tests.tolerance import close, near

WIDTH, LAYERS = 8, 3
Make = Callable[..., lenses.TrainedLens]
MADE: dict[str, Make] = {
    "tuned": lambda model, ids, **more: lenses.tuned_lens(model, ids, **{"steps": 2, **more}),
    "jacobian": lenses.jacobian_lens,
}


@pytest.fixture
def pairs() -> PromptPairs:
    clean = random_ids(6, 5, seed=4)
    return PromptPairs.from_tokens(clean, (clean + 1) % VOCAB, correct=5, incorrect=9, roles={"noun": 1})


# ---- a model whose translators are known ----


def rotation(seed: int) -> Tensor:
    found, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)))
    return found


@pytest.fixture(scope="module")
def turning() -> HookedTransformer:
    """Block k rotates the stream of a prompt's only token by ``rotation(k)`` and adds k to it: no norm, no MLP."""
    sizes = {
        "n_layers": LAYERS, "d_model": WIDTH, "n_ctx": 4, "d_head": 4, "n_heads": 2, "d_vocab": 50,
        "attn_only": True, "act_fn": "relu", "normalization_type": None,
    }  # fmt: skip
    bridge = boot_native(sizes)
    for name, weight in bridge.original_model.named_parameters():
        parts = name.replace("_original_component.", "").split(".")
        match parts:
            case ["layers", k, "attn", "v", "weight"]:
                weight.data = rotation(int(k)) - torch.eye(WIDTH)  # the token attends to itself alone
            case ["layers", k, "attn", "o", "weight"]:
                weight.data = torch.eye(WIDTH)
            case ["layers", k, "attn", "o", "bias"]:
                weight.data = torch.full((WIDTH,), float(k))
            case ["layers", _, "attn", _, "bias"]:
                weight.data = torch.zeros(WIDTH)
            case _:
                weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    model = HookedTransformer.from_bridge(bridge, name="turning")
    assert model.blocks is None  # so that all of this goes through hooks
    return model


def right(layer: int) -> tuple[Tensor, Tensor]:
    """What the blocks after a layer make of its stream: a matrix and an offset."""
    matrix, offset = torch.eye(WIDTH), torch.zeros(WIDTH)
    for k in range(layer + 1, LAYERS):
        matrix, offset = rotation(k) @ matrix, rotation(k) @ offset + k
    return matrix, offset


ONE_TOKEN = np.arange(50)[:, None]


def test_the_jacobian_lens_finds_the_rotations(turning: HookedTransformer) -> None:
    lens = lenses.jacobian_lens(turning, ONE_TOKEN, skip_first=0)
    assert set(lens.matrices) == {("resid_pre", layer) for layer in range(LAYERS)}
    for layer in range(-1, LAYERS - 1):
        close(lens.matrices["resid_pre", layer + 1], right(layer)[0], "gradient", size=1.0)
        assert not lens.offsets["resid_pre", layer + 1].any()


def test_the_tuned_lens_finds_the_rotations_and_the_offsets(turning: HookedTransformer) -> None:
    lens = lenses.tuned_lens(turning, ONE_TOKEN, skip_first=0, ridge=1e-6, steps=0)
    for layer in range(-1, LAYERS - 1):
        for found, known in zip((lens.matrices, lens.offsets), right(layer), strict=True):
            near(found["resid_pre", layer + 1], known, 1e-3, why="the ridge is small, not 0")
    trained = lenses.tuned_lens(turning, ONE_TOKEN, skip_first=0, ridge=1.0, steps=60, tokens=50, learning_rate=0.03)
    before = lenses.tuned_lens(turning, ONE_TOKEN, skip_first=0, ridge=1.0, steps=0)
    said = AnsweredPrompts.from_tokens(ONE_TOKEN, correct=3)
    first = {"site": "resid_pre", "layer": 0, "role": "answer"}
    kl = [float(one.read(turning, said)["kl"].sel(first).mean()) for one in (before, trained, lens)]
    assert kl[0] > 10 * kl[1]  # the steps make up for a start that the ridge spoils
    near(kl[2], 0.0, 1e-4, why="the ridge is small, not 0")


# ---- a plain model ----


@pytest.mark.parametrize("targets", ["later", "same"])
def test_the_jacobian_is_that_of_the_plain_model(targets: str, gpt2_directory: Path) -> None:
    hf = AutoModelForCausalLM.from_pretrained(gpt2_directory, attn_implementation="eager").eval()
    ids = random_ids(2, 4, seed=8)
    raw = HookedTransformer.from_pretrained(gpt2_directory, device="cpu", numerics="raw")
    lens = lenses.jacobian_lens(raw, ids, targets=targets, sites=["resid_post"])  # type: ignore[arg-type]

    def after_the_first(stream: Tensor) -> Tensor:
        mask = torch.triu(torch.full((4, 4), -torch.inf), 1)[None, None]
        for block in hf.transformer.h[1:]:
            out = block(stream, attention_mask=mask)
            stream = out[0] if isinstance(out, tuple) else out
        return stream

    expected = torch.zeros(32, 32)
    with torch.no_grad():
        streams = hf(torch.tensor(ids), output_hidden_states=True).hidden_states[1]
    for stream in streams:
        jacobian = torch.autograd.functional.jacobian(after_the_first, stream[None])[0, :, :, 0]
        for source in (1, 2, 3):
            reached = range(source, 4) if targets == "later" else (source,)
            expected += sum(jacobian[target, :, source] for target in reached) / 6
    close(lens.matrices["resid_pre", 1], expected, "gradient", size=5.0)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_after_the_last_layer_a_lens_is_the_models_own_output(
    kind: str, family: str, pairs: PromptPairs, request: pytest.FixtureRequest
) -> None:
    model: HookedTransformer = request.getfixturevalue(family)
    found = MADE[kind](model, pairs.corrupted).read(model, pairs).sel(site="resid_post", role="answer")
    own = logits_at(model, pairs.clean).double().log_softmax(dim=-1)
    close(found["log_probability"].isel(layer=-1), own[:, [5, 9]])
    assert (found["kl"].isel(layer=-1) == 0).all()
    assert (found["kl"].isel(layer=0) > 0).all()


# ---- the bundled model ----


def test_on_held_out_prompts_both_are_nearer_to_the_model_than_the_logit_lens(mini: HookedTransformer) -> None:
    train, held = lenses.held_out(tasks.build("color-noun", "two", tokenizer=mini, n=16))
    made = {
        "tuned": lenses.tuned_lens(mini, train, sites=["resid_post"], steps=10),
        "jacobian": lenses.jacobian_lens(mini, train.select(range(4)), sites=["resid_post"]),
    }
    kl = lenses.side_by_side(mini, held, made)["kl"].mean(("prompt", "role")).isel(site=0)
    for layer in range(3):
        logit, tuned, jacobian = kl.sel(layer=layer).values
        assert tuned < jacobian < logit
    assert (kl.isel(layer=3) == 0).all()


def test_what_is_held_out_is_in_no_prompt_of_the_others(mini: HookedTransformer) -> None:
    pairs = tasks.build("color-noun", "recall", tokenizer=mini, n=12)
    train, held = lenses.held_out(pairs, share=0.25, seed=1)
    rows = {tuple(row) for row in train.rows()}
    assert len(held) == 3
    assert not rows & {tuple(row) for part in (held.clean, held.corrupted) for row in part.rows()}
    assert rows <= {tuple(row) for part in (pairs.clean, pairs.corrupted) for row in part.rows()}
    with pytest.raises(InterpError, match="there is 1 pair"):
        lenses.held_out(pairs.select([0]))
    with pytest.raises(InterpError, match="all prompts are alike"):
        lenses.held_out(pairs.select([0, 0, 0]))
    with pytest.raises(InterpError, match=r"share is 1\.5"):
        lenses.held_out(pairs, share=1.5)


# ---- through hooks, in batches, in files ----


def test_through_hooks_it_is_the_same(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch, pairs: PromptPairs
) -> None:
    found = [make(gpt2, pairs.clean) for make in MADE.values()]
    monkeypatch.setattr(gpt2, "blocks", None)
    for one, make in zip(found, MADE.values(), strict=True):
        hooked = make(gpt2, pairs.clean)
        for point, matrix in one.matrices.items():
            close(hooked.matrices[point], matrix, "gradient", size=5.0)


def test_prompts_of_different_lengths_count_their_own_tokens(gpt2: HookedTransformer) -> None:
    long, short = random_ids(1, 6, seed=1)[0].tolist(), random_ids(1, 3, seed=2)[0].tolist()
    both, *alone = (lenses.jacobian_lens(gpt2, ids) for ids in ([long, short], [long], [short]))
    for point, matrix in both.matrices.items():
        close(matrix, (alone[0].matrices[point] + alone[1].matrices[point]) / 2, "gradient", size=5.0)
    assert lenses.tuned_lens(gpt2, [long, short], steps=1).made["n_tokens"] == 7


@pytest.mark.parametrize("kind", MADE)
def test_a_lens_comes_back_from_its_file_for_its_model_alone(
    kind: str, gpt2: HookedTransformer, llama: HookedTransformer, pairs: PromptPairs, tmp_path: Path
) -> None:
    lens = MADE[kind](gpt2, pairs.clean, sites=["resid_post"])
    file = lens.save(tmp_path / "new" / "lens.safetensors")
    again = type(lens).load(file, gpt2)
    assert (again.sites, again.made, again.model) == (lens.sites, lens.made, lens.model)
    xr_one, xr_other = (one.read(gpt2, pairs) for one in (lens, again))
    assert xr_one["log_probability"].equals(xr_other["log_probability"])
    with pytest.raises(InterpError, match=r"was made for .*whose weights_sha256 and config_sha256 differ"):
        type(lens).load(file, llama)
    with pytest.raises(InterpError, match="was made for"):
        lens.read(llama, pairs)
    with pytest.raises(InterpError, match=r"no translator for site 'resid_mid': it was made for resid_post"):
        lens.read(gpt2, pairs, sites=["resid_mid"])
    other = lenses.JacobianLens if kind == "tuned" else lenses.TunedLens
    with pytest.raises(InterpError, match=f"its kind is '{kind}'"):
        other.load(file, gpt2)


def test_a_file_that_holds_no_lens_is_refused_in_one_line(gpt2: HookedTransformer, tmp_path: Path) -> None:
    with pytest.raises(InterpError, match="Cannot read the lens"):
        lenses.TunedLens.load(tmp_path / "none", gpt2)
    (tmp_path / "text").write_text("no tensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "tensors")
    for name in ("text", "tensors"):
        with pytest.raises(InterpError, match=r"is not a lens that TunedLens.save wrote") as told:
            lenses.TunedLens.load(tmp_path / name, gpt2)
        assert "\n" not in str(told.value)


def test_what_cannot_be_made_is_refused(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make, more, said in (
        (lenses.tuned_lens, {"steps": -1}, "steps"),
        (lenses.tuned_lens, {"ridge": 0}, "ridge is 0"),
        (lenses.tuned_lens, {"weight_decay": -1}, "weight_decay is -1"),
        (lenses.tuned_lens, {"skip_first": 5}, "No token is left"),
        (lenses.jacobian_lens, {"targets": "all"}, "value of targets 'all'"),
        (lenses.jacobian_lens, {"sites": ["q"]}, "no state of the residual stream"),
    ):
        with pytest.raises(InterpError, match=said):
            make(gpt2, pairs.clean, **more)  # type: ignore[operator]
    lens = lenses.jacobian_lens(gpt2, pairs.clean, sites=["resid_post"])
    with pytest.raises(InterpError, match="The name 'logit'"):
        lenses.side_by_side(gpt2, pairs, {"logit": lens})
    monkeypatch.setattr("interp.lenses.streams.free_memory", lambda: 1000)
    with pytest.raises(InterpError, match=r"A Jacobian lens of .* needs .* Ask for fewer sites"):
        lenses.jacobian_lens(gpt2, pairs.clean)
