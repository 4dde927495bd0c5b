"""Path patching against TransformerLens's direct path patching, and against one edge at a time by hand.

TransformerLens patches edges from heads to queries, keys and values (queries only where key-value heads are shared).
For every other edge the receiver's reading is made again here by the bridge's own modules and put in by its hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens import patching
from transformers import GPT2LMHeadModel

from interp import run, sites
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.readouts import Place, projection
from interp.sweeps import Node, PathPatching, path_patching, plan, receivers_of, score, senders_of
from interp.sweeps.exact import cost as limits
from tests.combinations import combinations
from tests.sweeps.test_sweep import hooks_left
from tests.tiny import LOGITS, ragged_pairs, scattered_pairs
from tests.tolerance import allowed, close

BOTH = pytest.mark.parametrize("name", ["loud", "llama"])
BOTH_WAYS = ["denoising", "noising"]
DIRECTIONS = pytest.mark.parametrize("direction", BOTH_WAYS)


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture(scope="module")
def loud(gpt2_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    """The tiny GPT-2 with three times its attention weights, so that one edge is worth far more than rounding."""
    path = tmp_path_factory.mktemp("loud")
    changed = GPT2LMHeadModel.from_pretrained(gpt2_directory)
    for name, parameter in changed.named_parameters():
        if name.endswith(("attn.c_attn.weight", "attn.c_proj.weight")):
            parameter.data *= 3
    changed.save_pretrained(path)
    return HookedTransformer.from_pretrained(path)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return scattered_pairs()


@pytest.fixture(scope="module")
def ragged() -> PromptPairs:
    return ragged_pairs()


@pytest.fixture(autouse=True)
def _no_hook_is_left_behind(loud: HookedTransformer, llama: HookedTransformer) -> Iterator[None]:
    before = hooks_left(loud), hooks_left(llama)
    yield
    assert (hooks_left(loud), hooks_left(llama)) == before


def gap(logits: torch.Tensor, pairs: PromptPairs) -> torch.Tensor:
    """Logit difference [prompt] at each prompt's answer position."""
    each = torch.arange(len(pairs))
    at, right, wrong = (torch.tensor(a) for a in (pairs.answer_position, pairs.correct, pairs.incorrect))
    return logits[each, at, right] - logits[each, at, wrong]


def ids_of(pairs: PromptPairs, direction: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the run that is changed, and of the run that the change comes from."""
    clean, corrupted = torch.tensor(pairs.clean.ids), torch.tensor(pairs.corrupted.ids)
    return (corrupted, clean) if direction == "denoising" else (clean, corrupted)


# ---- heads to queries, keys and values: TransformerLens ----


@pytest.mark.parametrize(("name", "component"), [("loud", "q"), ("loud", "k"), ("loud", "v"), ("llama", "q")])
@DIRECTIONS
def test_edges_between_heads_equal_transformer_lens(
    model: HookedTransformer, pairs: PromptPairs, component: Any, direction: str
) -> None:
    base, source = ids_of(pairs, direction)
    with torch.inference_mode():
        caches = [model.bridge.run_with_cache(ids)[1] for ids in (source, base)]
        expected = patching.get_act_patch_direct_path_all_sources(
            model.bridge, base, *caches, lambda logits: gap(logits, pairs).mean(), component, verbose=False
        ).numpy()
    effect = path_patching(model, pairs, direction=direction)
    heads = [[f"L{layer}H{head}" for head in range(4)] for layer in range(3)]
    found = 0
    for sender_layer in range(3):
        for layer in range(sender_layer + 1, 3):
            reading = [f"{label}.{component}" for label in heads[layer]]
            ours = effect.patched.sel(sender=heads[sender_layer], receiver=reading).mean("prompt")
            theirs = expected[sender_layer, :, layer]
            close(ours, theirs, size=LOGITS)
            found += theirs.size
            assert np.ptp(theirs) > 30 * allowed("pass", size=LOGITS)
    assert found == 3 * 16


# ---- every edge, by hand ----


class ByHand:
    """One edge at a time: what the receiver reads is made by the bridge's modules, and put in by its hooks."""

    def __init__(self, model: HookedTransformer, pairs: PromptPairs, direction: str) -> None:
        self.model, self.pairs = model, pairs
        self.base_ids, source_ids = ids_of(pairs, direction)
        with torch.inference_mode():
            _, self.base = model.bridge.run_with_cache(self.base_ids)
            _, self.source = model.bridge.run_with_cache(source_ids)

    def written(self, node: Node, cache: Any) -> torch.Tensor:
        """What a sender writes, [prompt, position, d_model] (a head without the bias that all of them share)."""
        if node.kind == "embed":
            return cache["blocks.0.hook_resid_pre"]
        if node.kind == "mlp":
            return cache[f"blocks.{node.layer}.hook_mlp_out"]
        z = torch.zeros_like(cache[f"blocks.{node.layer}.attn.hook_z"])
        z[:, :, node.head] = cache[f"blocks.{node.layer}.attn.hook_z"][:, :, node.head]
        return self.model.bridge.blocks[node.layer].attn.o(z.flatten(2))

    def __call__(self, sender: Node, receiver: Node) -> np.ndarray:
        """The metric [prompt] with this edge patched."""
        with torch.inference_mode():
            delta = self.written(sender, self.source) - self.written(sender, self.base)
            if receiver.kind == "logits":
                stream = self.base[f"blocks.{receiver.layer - 1}.hook_resid_post"] + delta
                logits = self.model.bridge.unembed(self.model.bridge.ln_final(stream))
            else:
                logits = self.run(delta, receiver, [])
            return gap(logits, self.pairs).double().numpy()

    def read(self, sender: Node, receiver: Node, place: Place) -> torch.Tensor:
        """An activation [prompt, position, ...] with this edge patched; the stream that is read is a receiver too."""
        name = sites.site(place.site).hook_name(place.layer)
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            kept.append(tensor.clone())

        with torch.inference_mode():
            delta = self.written(sender, self.source) - self.written(sender, self.base)
            if receiver.kind in ("stream", "mid"):
                return torch.as_tensor(self.base[name] + delta)
            self.run(delta, receiver, [(name, keep)])
        own = receiver.kind == "mlp" and receiver.layer == place.layer and place.site in ("mlp_pre", "mlp_post")
        return kept[0 if own else -1]  # of an MLP that is itself the receiver, neurons are those of its own call

    def run(self, delta: torch.Tensor, receiver: Node, then: list[Any]) -> torch.Tensor:
        """Logits with a receiver's input changed; ``then`` are further hooks, which an MLP's own call meets too."""
        bridge, layer = self.model.bridge, receiver.layer
        with bridge.hooks(fwd_hooks=then if receiver.kind == "mlp" else []):
            block, stream = bridge.blocks[layer], self.base[f"blocks.{layer}.hook_resid_pre"] + delta
            if receiver.kind == "mlp":
                new = block.mlp(block.ln2(stream + self.base[f"blocks.{layer}.hook_attn_out"]))
                hook = f"blocks.{layer}.hook_mlp_out", lambda tensor, hook: new
            else:
                read = getattr(block.attn, receiver.kind)(block.ln1(stream))
                name = f"blocks.{layer}.attn.hook_{receiver.kind}"
                read = read.reshape(self.base[name].shape)

                def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
                    changed = tensor.clone()
                    changed[:, :, receiver.head] = read[:, :, receiver.head]
                    return changed

                hook = name, put
        return torch.as_tensor(bridge.run_with_hooks(self.base_ids, fwd_hooks=[hook, *then]))


@combinations([("loud", "denoising")], name=["loud", "llama"], direction=BOTH_WAYS)
def test_every_edge_equals_patching_it_by_hand(model: HookedTransformer, ragged: PromptPairs, direction: str) -> None:
    """Embedding, heads and MLPs to queries, (shared) keys and values, MLPs and logits."""
    effect = path_patching(model, ragged, direction=direction)
    base = effect["corrupted" if direction == "denoising" else "clean"]
    by_hand = ByHand(model, ragged, direction)
    writing, reading = senders_of(model), receivers_of(model)
    assert list(effect.sender.values) == [node.label for node in writing]
    assert list(effect.receiver.values) == [node.label for node in reading]
    kinds = {kind: 0.0 for kind in ("q", "k", "v", "mlp", "logits")}
    edges = 0
    for i, sender in enumerate(writing):
        for j, receiver in enumerate(reading):
            found = effect.patched[:, i, j]
            same_block = sender.kind == "head" and receiver.kind == "mlp" and sender.layer == receiver.layer
            if not (sender.layer < receiver.layer or same_block):
                assert np.isnan(found).all(), f"{sender.label} does not precede {receiver.label}"
                continue
            close(found, by_hand(sender, receiver), size=LOGITS, what=f"{sender.label} -> {receiver.label}")
            kinds[receiver.kind] = max(kinds[receiver.kind], float(np.abs(found - base).max()))
            edges += 1
    assert edges * len(ragged) == effect.attrs["rows_in_all"]
    assert all(moved > 30 * allowed("pass", size=LOGITS) for moved in kinds.values())


# ---- to an activation instead of the logits ----

READ = [
    ("resid_pre", 2, None), ("resid_post", 2, None), ("resid_mid", 1, None), ("attn_out", 1, None), ("z", 2, 1),
    ("q", 1, 2), ("k", 2, None), ("v", 1, 0), ("mlp_pre", 1, None), ("mlp_post", 2, None), ("mlp_out", 1, None),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("site", "layer", "head"), READ)
def test_every_edge_to_an_activation_equals_patching_it_by_hand(
    model: HookedTransformer, ragged: PromptPairs, site: str, layer: int, head: int | None
) -> None:
    direction: Any = BOTH_WAYS[layer % 2]
    by_hand = ByHand(model, ragged, direction)
    name, mask = sites.site(site).hook_name(layer), torch.tensor(run.token_mask(ragged.clean, "noun"))
    place = Place(site, layer, "noun", head)
    size = float(by_hand.base[name].abs().max())
    width = place.width(model.cfg.sizes)
    vector = torch.linspace(-1, 1, width)
    effect = path_patching(
        model, ragged, direction=direction, metric=projection(layer, "noun", vector, site=site, head=head),
        senders=["embed", "L0H1", "MLP0", "L1H3", "MLP1", "L2H0"],
    )  # fmt: skip

    def along(values: torch.Tensor) -> np.ndarray:
        values = (values if head is None else values[:, :, head]).flatten(2)
        return np.asarray(((values @ vector) * mask).sum(dim=1) / mask.sum(dim=1))

    base = effect["corrupted" if direction == "denoising" else "clean"]
    close(base, along(by_hand.base[name]), size=size * width**0.5)
    writing, reading = senders_of(model, effect.sender.values.tolist()), receivers_of(model, read=place)
    assert [node.label for node in reading] == list(effect.receiver.values)
    assert (f"L{layer}.{site}" in effect.receiver.values) == site.startswith("resid")
    moved = 0.0
    for i, sender in enumerate(writing):
        for j, receiver in enumerate(reading):
            found = effect.patched[:, i, j]
            if not sender.reaches(receiver):
                assert np.isnan(found).all()
                continue
            expected = along(by_hand.read(sender, receiver, place))
            close(found, expected, size=size * width**0.5, what=f"{sender.label} -> {receiver.label}")
            moved = max(moved, float(np.abs(found - base).max()))
    assert moved > 30 * allowed("pass", size=size)


@BOTH
def test_what_comes_after_the_activation_is_no_receiver(model: HookedTransformer, pairs: PromptPairs) -> None:
    every = {node.label for node in receivers_of(model)}
    for site, layer, last in (("q", 1, "L1H3.q"), ("z", 1, "v"), ("mlp_out", 1, "MLP1"), ("attn_out", 0, "v")):
        reading = receivers_of(model, read=Place(site, layer, "noun"))
        assert {node.label for node in reading} < every
        assert all(node.layer <= layer for node in reading)
        assert reading[-1].label.endswith(last)
    with pytest.raises(InterpError, match=r"Unknown receiver 'logits'\. Choose from: L0H0.q"):
        path_patching(model, pairs, metric=projection(1, "noun"), receivers=["logits"])


@BOTH
def test_without_a_difference_every_edge_is_exactly_the_plain_run(model: HookedTransformer, pairs: PromptPairs) -> None:
    effect = path_patching(model, replace(pairs, corrupted=pairs.clean))
    known = ~np.isnan(effect.patched.values)
    assert effect.attrs["rows_run"] == 0
    assert (effect.patched.values == np.broadcast_to(effect.clean.values[:, None, None], known.shape))[known].all()


@BOTH
@DIRECTIONS
def test_edges_into_the_logits_add_up_before_the_last_norm(
    model: HookedTransformer, pairs: PromptPairs, direction: str
) -> None:
    """Every sender's difference together turns one run's last stream into the other's: no sender is missing."""
    by_hand = ByHand(model, pairs, direction)
    with torch.inference_mode():
        moved = sum(
            by_hand.written(node, by_hand.source) - by_hand.written(node, by_hand.base) for node in senders_of(model)
        )
        last = [cache["blocks.2.hook_resid_post"] for cache in (by_hand.base, by_hand.source)]
        close(last[0] + moved, last[1])


# ---- asking for less, and how it runs ----


@BOTH
def test_some_edges_have_the_numbers_of_all(model: HookedTransformer, ragged: PromptPairs) -> None:
    every = path_patching(model, ragged)
    key = "L1KV1.k" if model.cfg.grouped_query else "L1H1.k"
    asked = {"senders": ["MLP0", "embed", "L0H2"], "receivers": ["logits", key, "L2H3.q", "MLP1"]}
    some = path_patching(model, ragged, **asked)
    assert some.patched.dims == ("prompt", "sender", "receiver")
    assert list(some.sender.values), list(some.receiver.values) == (asked["senders"], asked["receivers"])
    close(some.patched, every.patched.sel(sender=asked["senders"], receiver=asked["receivers"]), size=LOGITS)
    assert some.attrs["planned_flop"] < every.attrs["planned_flop"]


@BOTH
@pytest.mark.parametrize("roles", [None, ["color", "noun"]])
def test_named_edges_have_the_numbers_of_all_and_no_other_is_run(
    model: HookedTransformer, ragged: PromptPairs, roles: list[str] | None
) -> None:
    key = "L1KV1.k" if model.cfg.grouped_query else "L1H1.k"
    named = [("L0H2", key), ("MLP0", "logits"), ("embed", "L2H3.q"), ("L0H2", "logits"), ("MLP0", "logits")]
    every, some = path_patching(model, ragged, roles=roles), path_patching(model, ragged, roles=roles, edges=named)
    assert list(some.sender.values) == ["L0H2", "MLP0", "embed"]
    assert list(some.receiver.values) == [key, "logits", "L2H3.q"]
    for sender, receiver in named:
        at = {"sender": sender, "receiver": receiver}
        close(some.patched.sel(at), every.patched.sel(at), size=LOGITS)
    of_each = 1 if roles is None else len(roles)
    assert int(some.patched.notnull().sum()) == 4 * of_each * len(ragged) == some.attrs["rows_in_all"]
    asked = PathPatching(edges=named, roles=roles)
    assert plan(model, ragged, asked).rows_in_all == 4 * of_each * len(ragged)


@BOTH
@pytest.mark.parametrize(("setting", "small"), [("CACHE_BYTES", 1), ("TOKENS_PER_BATCH", {"cpu": 1})])
def test_small_chunks_and_batches_give_the_same_edges(
    model: HookedTransformer, ragged: PromptPairs, setting: str, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"senders": ["embed", "L0H2", "MLP1"], "receivers": ["L2H3.q", "MLP2", "MLP1", "logits"]}
    before = path_patching(model, ragged, **asked)
    monkeypatch.setattr(limits, setting, small)
    monkeypatch.setattr(limits, "BATCH_BYTES", {"cpu": 0})
    after = path_patching(model, ragged, **asked)
    assert after.attrs["batches"] > before.attrs["batches"]
    close(after.patched, before.patched, size=LOGITS)


@BOTH
def test_baselines_metrics_and_recovered(model: HookedTransformer, ragged: PromptPairs) -> None:
    for direction in ("denoising", "noising"):
        effect = path_patching(model, ragged, direction=direction, receivers=["logits", "MLP2"], minimum_gap=0.0)
        close(effect.clean, score(model, ragged, "clean"), size=LOGITS)
        close(effect.corrupted, score(model, ragged, "corrupted"), size=LOGITS)
        gaps = effect.clean - effect.corrupted
        close(effect.recovered, (effect.patched - effect.corrupted) / gaps, "arithmetic", dtype="float64")
    logs = path_patching(model, ragged, metric="log_probability", senders=["embed"], receivers=["logits"])
    by_hand = ByHand(model, ragged, "denoising")
    with torch.inference_mode():
        stream = by_hand.base["blocks.2.hook_resid_post"]
        stream = stream + by_hand.source["blocks.0.hook_resid_pre"] - by_hand.base["blocks.0.hook_resid_pre"]
        log_p = model.bridge.unembed(model.bridge.ln_final(stream)).log_softmax(-1)
    expected = log_p[torch.arange(4), torch.tensor(ragged.answer_position), torch.tensor(ragged.correct)]
    close(logs.patched[:, 0, 0], expected)


@BOTH
def test_the_plan_is_what_is_reported_and_progress_reaches_its_total(
    model: HookedTransformer, ragged: PromptPairs
) -> None:
    seen: list[tuple[int, int]] = []
    effect = path_patching(model, ragged, progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (effect.attrs["rows_in_all"],) * 2
    planned = plan(model, ragged, PathPatching())
    assert planned.rows_in_all == effect.attrs["rows_in_all"]
    assert planned.rows == effect.attrs["rows_run"]
    assert planned.flop == effect.attrs["planned_flop"]
    assert planned.batches == effect.attrs["batches"]
    assert "\n" not in str(planned)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"senders": ["L9H0"]}, "(?i)unknown sender 'L9H0'"),
        ({"receivers": ["L1H0"]}, "(?i)unknown receiver 'L1H0'"),
        ({"senders": ["MLP2"], "receivers": ["L1H0.q"]}, "No sender comes before a receiver"),
        ({"edges": [("embed", "logits"), ("MLP2", "L1H0.q")]}, r"MLP2 does not come before L1H0\.q"),
        ({"edges": [("L9H0", "logits")]}, "(?i)unknown sender 'L9H0'"),
        ({"edges": [("embed", "logits")], "senders": ["embed"]}, "Leave out senders= and receivers="),
        ({"edges": "L0H2->logits"}, r"edges holds \(sender, receiver\).*not 'L0H2->logits'"),
        ({"edges": [("embed", "L1H0.q", "logits")]}, r"edges holds \(sender, receiver\)"),
        ({"edges": 3}, r"edges holds \(sender, receiver\).*not 3"),
        ({"edges": []}, "edges is empty"),
        ({"direction": "forward"}, "Unknown direction 'forward'"),
        ({"metric": "loss"}, "(?i)unknown metric 'loss'"),
        ({"memory": 10}, "Give memory="),
    ],
)
def test_what_is_wrong_is_said(
    gpt2: HookedTransformer, pairs: PromptPairs, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError, match=message):
        path_patching(gpt2, pairs, **arguments)
    memory = {name: arguments.pop(name) for name in ["memory"] if name in arguments}
    with pytest.raises(InterpError, match=message):
        plan(gpt2, pairs, PathPatching(**arguments), **memory)


def test_the_labels_of_shared_heads_are_theirs_alone(llama: HookedTransformer, pairs: PromptPairs) -> None:
    labels = [node.label for node in receivers_of(llama)]
    assert [label for label in labels if label.startswith("L1")] == [
        "L1H0.q", "L1H1.q", "L1H2.q", "L1H3.q", "L1KV0.k", "L1KV1.k", "L1KV0.v", "L1KV1.v",
    ]  # fmt: skip
    with pytest.raises(InterpError, match=r"L1H0\.k"):
        path_patching(llama, pairs, receivers=["L1H0.k"])
