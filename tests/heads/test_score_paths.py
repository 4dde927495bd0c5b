"""Patched paths into a head, and out of it, against the bridge run by hand; the analysis on models of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses import qk_attribution
from interp import HookedTransformer, InterpError, PromptPairs, heads, path_patching
from interp.language import speaking
from interp.report.blocks import Figure, Prose
from interp.report.inputs import Result
from interp.report.sections import qk
from interp.run import capture
from interp.sites import SITES
from tests.tiny import ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close

LAYER, HEAD, DEST, SRC = 2, 3, 6, 4


def read_of(model: HookedTransformer, stream: torch.Tensor, name: str) -> np.ndarray:
    """Queries or keys (rotated where they are) that the bridge makes of a stream before ``LAYER``."""
    site = f"rot_{name}" if model.has_site(f"rot_{name}") else name
    kept: list[torch.Tensor] = []
    hook = (SITES[site].hook_name(LAYER), lambda value: kept.append(value.clone()))
    model.resume(stream, LAYER, stop_at_layer=LAYER + 1, hooks=[hook])
    return kept[0].double().numpy()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_patched_path_changes_the_score_as_the_bridge_does(family: str, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(family)
    pairs = scattered_pairs()
    runs = [
        capture(model, prompts, ["resid_pre", "result", "mlp_out", "pattern"])
        for prompts in (pairs.clean, pairs.corrupted)
    ]
    stream = torch.from_numpy(runs[0]["resid_pre"].values[:, LAYER])
    deltas = {
        "embed": runs[1]["resid_pre"].values[:, 0] - runs[0]["resid_pre"].values[:, 0],
        "L1H2": runs[1]["result"].values[:, 1, :, 2] - runs[0]["result"].values[:, 1, :, 2],
        "MLP0": runs[1]["mlp_out"].values[:, 0] - runs[0]["mlp_out"].values[:, 0],
    }
    found = heads.score_paths(model, pairs, head=(LAYER, HEAD), dest=DEST, src=SRC, senders=list(deltas))
    assert found["side"].values.tolist() == ["query", "key"]
    kv = HEAD // (model.cfg.n_heads // model.cfg.n_kv_heads)
    q, k = (read_of(model, stream, name) for name in ("q", "k"))
    before = q[:, DEST, HEAD, None] @ k[:, :, kv].swapaxes(1, 2)
    for label, delta in deltas.items():
        changed = stream + torch.from_numpy(delta)
        new_q, new_k = (read_of(model, changed, name) for name in ("q", "k"))
        for side, after in (
            ("query", new_q[:, DEST, HEAD, None] @ k[:, :, kv].swapaxes(1, 2)),
            ("key", q[:, DEST, HEAD, None] @ new_k[:, :, kv].swapaxes(1, 2)),
        ):
            scores = [row[:, 0, : DEST + 1] * 8**-0.5 for row in (before, after)]
            weights = [np.exp(row - row.max(1, keepdims=True)) for row in scores]
            weights = [row / row.sum(1, keepdims=True) for row in weights]
            here = found.sel(sender=label, side=side)
            close(here["score_change"], (scores[1] - scores[0])[:, SRC], size=float(np.abs(scores).max()))
            close(here["weight_change"], (weights[1] - weights[0])[:, SRC], size=1.0)
    exact = path_patching(model, pairs, direction="noising", senders=["L1H2"], receivers=["L2H3.q"])
    expected = (exact["patched"].isel(sender=0, receiver=0) - exact["clean"]).values
    close(found["metric_change"].sel(sender="L1H2", side="query"), expected, size=10.0)


def test_what_the_parts_predict_is_the_change_with_the_norm_as_it_was(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    runs = [capture(gpt2, prompts, ["resid_pre", "mlp_out", "q", "k"]) for prompts in (pairs.clean, pairs.corrupted)]
    x = runs[0]["resid_pre"].values[:, LAYER, DEST].astype(np.float64)
    delta = (runs[1]["mlp_out"].values - runs[0]["mlp_out"].values)[:, 1, DEST].astype(np.float64)
    attn = gpt2.bridge.blocks[LAYER].attn
    read = (delta - delta.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    q_change = read @ attn.W_Q[HEAD].detach().double().numpy()  # the norm's weight is folded into it
    expected = (q_change * runs[0]["k"].values[:, LAYER, SRC, HEAD]).sum(1) / np.sqrt(8)
    found = heads.score_paths(gpt2, pairs, head=(LAYER, HEAD), dest=DEST, src=SRC, senders=["MLP1"])
    close(found["predicted_change"].sel(sender="MLP1", side="query"), expected, size=5.0)


def test_writers_are_chosen_on_prompts_that_are_then_left_out(gpt2: HookedTransformer) -> None:
    found = heads.score_paths(gpt2, scattered_pairs(), head=(1, 0), dest="noun", src="color", top=2)
    assert (found.attrs["n_chosen_on"], found.sizes["sender"]) == (2, 2)
    assert np.isnan(found["score_change"][[0, 2]]).all()
    assert np.isfinite(found["score_change"][[1, 3]]).all()
    split = heads.score_attribution(gpt2, scattered_pairs().select([0, 2]), head=(1, 0), dest="noun", src="color")
    sizes = abs(split["term_change"]).mean("prompt").to_series()
    top = [name for name in sizes.idxmax() if name.startswith(("embed", "L0", "MLP"))]
    assert set(top) <= set(found["sender"].values.tolist())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_written_from_one_word_is_weight_times_value_times_output(
    family: str, request: pytest.FixtureRequest
) -> None:
    model: HookedTransformer = request.getfixturevalue(family)
    pairs = ragged_pairs()
    dest, src = (pairs.clean.role_positions(role) for role in ("noun", "color"))
    rows, kv = np.arange(4), HEAD // (model.cfg.n_heads // model.cfg.n_kv_heads)
    clean, corrupted = (
        capture(model, one, ["pattern", "v", "result", "resid_mid"], layers=[LAYER])
        for one in (pairs.clean, pairs.corrupted)
    )
    stream = (clean["resid_mid"] - corrupted["resid_mid"]).values[rows, 0, dest].astype(np.float64)
    size = np.linalg.norm(stream, axis=1)
    w_o = model.W_O(LAYER)[HEAD].double().numpy()
    moved = [
        run["pattern"].values[rows, 0, HEAD, dest, src, None] * run["v"].values[rows, 0, src, kv] @ w_o
        for run in (clean, corrupted)
    ]
    found = heads.writes(model, pairs, head=(LAYER, HEAD), dest="noun", src="color")
    along = [(one * stream).sum(1) / size for one in moved]
    close(found["written"].sum("value_writer"), along[0], size=10.0)
    close(found["written_change"].sum("value_writer"), along[0] - along[1], size=10.0)
    close(found["share"], (along[0] - along[1]) / size, size=10.0)
    close(found["length"], np.linalg.norm(moved[0], axis=1), size=10.0)
    result = (clean["result"] - corrupted["result"]).values[rows, 0, dest, HEAD]
    close(found["head_share"], (result * stream).sum(1) / size**2, size=10.0)


def test_readers_are_those_of_path_patching_in_order(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    found = heads.readers(gpt2, pairs, head=(1, 0))
    exact = path_patching(gpt2, pairs, direction="noising", senders=["L1H0"]).isel(sender=0)
    assert set(found["reader"].values) == {
        "MLP1",
        *(f"L2H{h}.{kind}" for h in range(4) for kind in "qkv"),
        "MLP2",
        "logits",
    }
    change = (exact["patched"] - exact["clean"]).sel(receiver=found["reader"].values).transpose("prompt", "receiver")
    close(found["metric_change"], change, size=10.0)
    sizes = abs(found["metric_change"].mean("prompt").values)
    assert (np.diff(sizes) <= 1e-9).all()
    some = heads.readers(gpt2, pairs, head=(1, 0), top=3)
    assert (some.sizes["reader"], some.attrs["n_chosen_on"]) == (3, 2)
    assert np.isnan(some["metric_change"][[0, 2]]).all()


def test_what_cannot_be_patched_is_refused(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = scattered_pairs()
    with pytest.raises(InterpError, match="L0H1 reads the embedding alone"):
        heads.score_paths(gpt2, pairs, head=(0, 1), dest="noun", src="color")
    with pytest.raises(InterpError, match="MLP1 does not write before L1H0 reads"):
        heads.score_paths(gpt2, pairs, head=(1, 0), dest="noun", src="color", senders=["MLP1"])
    without_blocks(monkeypatch, gpt2)
    with pytest.raises(InterpError, match="own weights only, and asked by the test"):
        heads.score_paths(gpt2, pairs, head=(1, 0), dest="noun", src="color")


# --- the analysis ---


def no_vocabulary() -> PromptPairs:
    return scattered_pairs()


def test_the_analysis_joins_them(llama: HookedTransformer) -> None:
    told: list[tuple[int, int]] = []
    found = qk_attribution.run(
        llama, no_vocabulary(), layer=2, src="color", writers=3, progress=lambda done, total: told.append((done, total))
    )
    assert dict(found.sizes) | {"prompt": 4, "query_writer": 4, "key_writer": 4, "sender": 4, "side": 2} == found.sizes
    assert found["query_writer"].values[-1] == found["value_writer"].values[-1] == "others"
    whole = heads.writes(llama, no_vocabulary(), head=(2, found.attrs["head"]), dest=found.attrs["dest"], src="color")
    close(found["written_change"].sum("value_writer"), whole["written_change"].sum("value_writer"), size=10.0)
    close(found["term"].sum(["query_writer", "key_writer"]), found["score"], size=20.0)
    assert found.attrs["left_out"] == ""
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (400, 400)
    label, dest = (found.attrs[name] for name in ("head_label", "dest"))
    means = found["term"].mean("prompt")
    query, key = (
        str(means.where(means == means.max(), drop=True)[f"{side}_writer"].item()) for side in ("query", "key")
    )
    weight, score, term = (float(value) for value in (found["weight"].mean(), found["score"].mean(), means.max()))
    first_in = {
        "en": f"{label} gives color {weight:.0%} of the attention of {dest}: its score there is {score:.2f}, a sum of "
        f"parts. The largest is what {query} wrote at {dest} against what {key} wrote at color: {term:.2f}.",
        "es": f"{label} dedica a color el ",
    }
    for spoken, start in first_in.items():
        with speaking(spoken):
            made = qk.section(Result("qk_attribution", found))
        first = made.blocks[0]
        assert isinstance(first, Prose)
        assert first.paragraphs[0].replace("−", "-").startswith(start)
        figures = [block for block in made.blocks if isinstance(block, Figure)]
        assert [figure.key for figure in figures] == ["qk-parts", "qk-paths", "qk-written", "qk-readers"]
        assert "NaN" not in "".join(str(panel.body) for figure in figures for panel in figure.panels)


def test_the_analysis_says_what_it_leaves_out(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = qk_attribution.run(gpt2, no_vocabulary(), layer=0, src="color")
    assert "reads the embedding alone" in found.attrs["left_out"]
    assert {"reader_change", "written_change"} <= set(found.data_vars)
    without_blocks(monkeypatch, gpt2)
    found = qk_attribution.run(gpt2, no_vocabulary(), src="color")
    assert found.attrs["left_out"].count("own weights only") == 2
    assert "written_change" in found
    assert "score_change" not in found
