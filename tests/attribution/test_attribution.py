"""Gradient estimates against exact patching, finite differences, and a transformer written out plainly."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from transformers import AutoModelForCausalLM

from interp import results, run, sites
from interp.attribution import Audit, attribution_patching, edge_attribution, gradients
from interp.errors import InterpError
from interp.interventions import Replace
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import score, sweep
from tests.combinations import combinations
from tests.tiny import (
    HEADS,
    LOGITS,
    STREAMS,
    VOCAB,
    make_gpt2,
    make_llama,
    make_mistral,
    make_opt,
    ragged_pairs,
    random_ids,
    without_blocks,
)
from tests.tolerance import allowed, close, near

NAMES = ["gpt2", "llama"]
BOTH = pytest.mark.parametrize("name", NAMES)
GPT2_AND_SLOWLY_LLAMA = combinations([("gpt2",)], name=NAMES)
DIRECTIONS = pytest.mark.parametrize("direction", ["denoising", "noising"])
MAKERS = {"gpt2": make_gpt2, "llama": make_llama}
LENGTH, COLOR = 8, 3


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return one_word_pairs()


def one_word_pairs() -> PromptPairs:
    """Three pairs of 8 tokens that differ at position 3 ("color"); "noun" is two tokens."""
    clean = random_ids(3, LENGTH)
    corrupted = clean.copy()
    corrupted[:, COLOR] = (corrupted[:, COLOR] + 1 + np.arange(3)) % VOCAB
    roles = {"color": COLOR, "noun": np.array([[5, 7]] * 3)}
    return PromptPairs.from_tokens(clean, corrupted, correct=[5, 6, 5], incorrect=9, roles=roles)


def shaped(path: Path, name: str, *, live: Sequence[str] = (), **sizes: int) -> HookedTransformer:
    """A tiny model whose norms divide by a constant, without attention scores or MLPs, except for ``live`` parts.

    With nothing live the logits are linear in every activation: attention is uniform. ``"qk0"`` and ``"mlp0"`` bring
    layer 0's scores and its MLP back.
    """
    wide = 1e10
    MAKERS[name](path, **{"layer_norm_epsilon" if name == "gpt2" else "rms_norm_eps": wide}, **sizes)
    hf = AutoModelForCausalLM.from_pretrained(path)
    for key, weight in hf.state_dict().items():
        layer = int(re.search(r"\.(\d+)\.", key).group(1)) if re.search(r"\.(\d+)\.", key) else None
        if key.endswith("weight") and ("norm" in key or "ln_" in key):
            weight.mul_(wide**0.5)
        if ("mlp.c_proj" in key or "mlp.down_proj" in key) and not (layer == 0 and "mlp0" in live):
            weight.zero_()
        if layer == 0 and "qk0" in live:
            continue
        if "c_attn" in key:
            weight[..., : weight.shape[-1] // 3].zero_()
        if "q_proj" in key:
            weight.zero_()
    hf.save_pretrained(path)
    return HookedTransformer.from_pretrained(path)


def largest_logit(model: HookedTransformer, pairs: PromptPairs) -> float:
    """What the effects of a ``shaped`` model are rounded at: its logits are far larger than their changes."""
    return float(model.forward(run.ids_of(pairs.clean)).abs().max())


def exact_effect(model: HookedTransformer, pairs: PromptPairs, site: str, direction: str = "denoising") -> np.ndarray:
    found = sweep(model, pairs, site, direction, minimum_gap=0.0)
    unpatched = found.corrupted if direction == "denoising" else found.clean
    return (found.patched - unpatched).transpose(*found.patched.dims).values


# ---- nodes ----


@BOTH
@pytest.mark.parametrize("site", [*STREAMS, *HEADS])
def test_cells_labels_and_audited_effects_are_those_of_the_sweep(
    model: HookedTransformer, pairs: PromptPairs, site: str
) -> None:
    options = {"roles": ["color", "noun"], "layers": [0, 2]} if site in ("k", "mlp_out") else {}
    exact = sweep(model, pairs, site, "noising", **options)
    audit = Audit(top_k=2, random=3)
    found = attribution_patching(model, pairs, site, "noising", audit=audit, **options)
    assert found.estimated.dims == exact.patched.dims
    assert {name: list(c.values) for name, c in found.coords.items()} == {
        name: list(c.values) for name, c in exact.coords.items()
    }
    close(found.clean, exact.clean)
    close(found.estimated - found.clean, found.estimated_effect, "arithmetic", dtype="float64", size=LOGITS)
    effect = (exact.patched - exact.clean).transpose(*exact.patched.dims).values
    audited = found.audited.values
    assert audited.sum() == found.attrs["audit_cells"] == min(5, found.attrs["audit_cells_eligible"])
    close(found.exact_effect.values[:, audited], effect[:, audited], size=LOGITS)
    assert np.isnan(found.exact_effect.values[:, ~audited]).all()
    # What takes no part in the audit has no effect by either route.
    assert found.attrs["audit_cells_eligible"] >= (np.abs(effect) > allowed("pass", size=LOGITS)).any(axis=0).sum()


@GPT2_AND_SLOWLY_LLAMA
def test_estimates_are_exact_where_the_model_is_linear(name: str, tmp_path: Path, pairs: PromptPairs) -> None:
    """Uniform attention, no MLPs, constant norms: every first-order estimate is the truth, far from 0."""
    model = shaped(tmp_path, name)
    size = largest_logit(model, pairs)
    for site in ("resid_pre", "resid_mid", "resid_post", "attn_out", "z", "v"):
        exact = exact_effect(model, pairs, site)
        assert np.abs(exact).max() > 0.1
        for method in ("gradient", "integrated", "atp*"):
            found = attribution_patching(
                model, pairs, site, method=method, steps=2, audit=Audit(minimum_agreement=0.9999)
            )
            close(found.estimated_effect, exact, size=size)
            assert (found.attrs["trusted"], found.attrs["audit_top_k_recall"], found.attrs["audit_missed"]) == (1, 1, 0)
            assert (found.attrs["audit_use"], found.attrs["audit_sign_errors"]) == ("numbers", 0)
            near(found.attrs["audit_slope"], 1, 1e-4, why="two passes and their gradient in float32")


@BOTH
def test_what_is_linear_behind_it_makes_the_qk_fix_and_the_mlp_exact(name: str, tmp_path: Path, pairs) -> None:
    """Only layer 0's softmax is not linear, and the QK fix computes it; or only its MLP, whose output is behind it."""
    model = shaped(tmp_path / "qk", name, live=["qk0"])
    size = largest_logit(model, pairs)
    for site in ("q", "k"):
        exact = exact_effect(model, pairs, site)
        found = attribution_patching(model, pairs, site, method="atp*", audit=None).estimated_effect
        plain = attribution_patching(model, pairs, site, audit=None).estimated_effect
        close(found, exact, size=size)
        assert np.abs(plain - exact).max() > 0.02 * np.abs(exact).max() > 0
    exact = exact_effect(model, pairs, "pattern")
    close(attribution_patching(model, pairs, "pattern", audit=None).estimated_effect, exact, size=size)
    model = shaped(tmp_path / "mlp", name, live=["mlp0"])
    size = largest_logit(model, pairs)
    for site in ("mlp_out", "mlp_post"):
        exact = exact_effect(model, pairs, site)
        assert np.abs(exact[:, 0]).max() > 0.1
        found = attribution_patching(model, pairs, site, audit=None).estimated_effect
        close(found, exact, size=size)


def logit_difference(logits: Tensor, pairs: PromptPairs) -> Tensor:
    rows = torch.arange(len(pairs))
    return logits[rows, torch.tensor(pairs.correct)] - logits[rows, torch.tensor(pairs.incorrect)]


class Reference:
    """A model in float64, where finite differences mean something, and its corrupted run with a change."""

    def __init__(self, model: HookedTransformer, pairs: PromptPairs) -> None:
        self.blocks, self.pairs = gradients.mapped(model.blocks, Tensor.double), pairs

    def metric(self, tap: Callable[[str, int, Tensor], Tensor], which: str = "corrupted") -> Tensor:
        stream = self.blocks.forward(run.ids_of(getattr(self.pairs, which)), tap=tap)
        return logit_difference(self.blocks.logits(stream[:, -1]), self.pairs)

    def activation(self, site: str, layer: int, which: str) -> Tensor:
        kept: list[Tensor] = []

        def keep(where: str, index: int, value: Tensor) -> Tensor:
            if (where, index) == (site, layer):
                kept.append(value.clone())
            return value

        self.metric(keep, which)
        return kept[0]

    def part_way(self, site: str, share: float, layer: int, head: int | None = None, role: str | None = None) -> Tensor:
        """The metric with one activation ``share`` of the way to the clean one, at one head and role or all."""
        base, source = (self.activation(site, layer, which) for which in ("corrupted", "clean"))
        place, mask = (site, layer), torch.from_numpy(run.token_mask(self.pairs.clean, role))
        mask = mask.reshape(*mask.shape, *(1,) * (base.ndim - 2))  # prompt position (head) one
        if sites.site(site).is_pattern:
            mask = mask.transpose(1, 2)  # prompt head dest one
        if head is not None:
            axis = 1 if sites.site(site).is_pattern else 2
            only = (torch.arange(base.shape[axis]) == head).reshape(-1, *(1,) * (3 - axis))
            mask = mask & only

        def edit(where: str, index: int, value: Tensor) -> Tensor:
            return torch.where(mask, value + share * (source - base), value) if (where, index) == place else value

        return self.metric(edit)

    def slope(
        self, site: str, layer: int, role: str | None = None, head: int | None = None, at: float = 0
    ) -> np.ndarray:
        """The derivative of ``part_way`` by central differences."""
        step = 1e-5
        ends = [self.part_way(site, at + share, layer, head, role) for share in (step, -step)]
        return ((ends[0] - ends[1]) / (2 * step)).numpy()


@BOTH
@pytest.mark.parametrize("site", [*STREAMS, *HEADS])
def test_an_estimate_is_the_derivative_along_the_patch(model: HookedTransformer, pairs: PromptPairs, site: str) -> None:
    found = attribution_patching(model, pairs, site, roles=["color", "noun"], audit=None).estimated_effect
    head = 1 if sites.site(site).has_heads else None
    for layer, role in ((0, "color"), (1, "noun")):
        mine = found.sel(layer=layer, role=role)
        mine = mine if head is None else mine.isel({mine.dims[1]: head})
        expected = Reference(model, pairs).slope(site, layer, role, head)
        close(mine, expected, "gradient", size=found)
        assert np.abs(expected).max() > 1e-4


@GPT2_AND_SLOWLY_LLAMA
def test_integrated_estimates_of_a_layer_add_up_to_replacing_all_of_it(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    reference, options = Reference(model, pairs), {"method": "integrated", "steps": 80, "audit": None}
    for site in ("resid_mid", "z", "k"):
        found = attribution_patching(model, pairs, site, layers=1, **options)
        whole = reference.part_way(site, 1.0, 1) - reference.part_way(site, 0.0, 1)
        near(found.estimated_effect.sum(found.estimated_effect.dims[1:]), whole, 1e-3, why="80 steps of an integral")
    # Layer 0 differs in one token, so that its cell is the whole path, from corrupted to clean.
    found = attribution_patching(model, pairs, "resid_pre", layers=0, **options).sel(position=COLOR, layer=0)
    near(found.estimated, found.clean, 1e-3, why="80 steps of an integral")


def test_one_step_is_the_gradient_at_the_middle(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = attribution_patching(gpt2, pairs, "resid_pre", layers=0, method="integrated", steps=1, audit=None)
    middle = Reference(gpt2, pairs).slope("resid_pre", 0, "color", at=0.5)
    close(found.estimated_effect.sel(layer=0, position=COLOR), middle, "gradient")


@BOTH
@pytest.mark.parametrize("site", ["q", "k"])
def test_the_qk_fix_is_the_new_pattern_times_its_gradient(
    model: HookedTransformer, pairs: PromptPairs, site: str
) -> None:
    """The pattern under the patch is read off the bridge, the gradient comes from a graph of our own."""
    layer, leaf = 1, {}
    found = attribution_patching(model, pairs, site, layers=layer, roles=["noun"], method="atp*", audit=None)

    def tap(where: str, index: int, value: Tensor) -> Tensor:
        if (where, index) == ("pattern", layer):
            leaf["pattern"] = value = value.detach().requires_grad_()
        return value

    (slope,) = torch.autograd.grad(Reference(model, pairs).metric(tap).sum(), leaf["pattern"])
    expected = through_pattern(model, pairs, site, layer, slope, at="noun")
    close(found.estimated_effect[:, 0, :, 0], expected, "gradient", size=slope)
    assert np.abs(expected).max() > 1e-4


def through_pattern(
    model: HookedTransformer, pairs: PromptPairs, site: str, layer: int, slope: Tensor, at: str | None = None
) -> np.ndarray:
    """Each head's change of the pattern, as the bridge computes it, times a gradient."""
    source = run.activations(model, pairs.clean, site, layers=[layer])
    old = run.activations(model, pairs.corrupted, "pattern", layers=[layer])[layer]
    columns, group = [], model.cfg.n_heads // model.n_heads_of(site)
    for head in range(model.n_heads_of(site)):
        patch = Replace(site=site, values=source, layers=[layer], heads=[head], at=at)
        new = run.activations(model, pairs.corrupted, "pattern", layers=[layer], interventions=[patch])[layer]
        columns.append(((new - old) * slope)[:, head * group : (head + 1) * group].sum(dim=(1, 2, 3)))
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("site", ["z", "resid_mid", "q"])
def test_graddrop_is_the_mean_absolute_estimate_without_each_layer(
    llama: HookedTransformer, pairs: PromptPairs, site: str
) -> None:
    """By detaching what a layer writes, one graph per layer; the layer of the cell itself does not count."""
    found = attribution_patching(llama, pairs, site, method="atp*", audit=None)
    reference, total = Reference(llama, pairs), np.zeros(found.graddrop.shape)
    for dropped in range(3):
        leaf: dict[int, Tensor] = {}

        def tap(where: str, layer: int, value: Tensor, dropped: int = dropped, leaf: dict = leaf) -> Tensor:
            if where == ("pattern" if site == "q" else site):
                leaf[layer] = torch.zeros_like(value, requires_grad=True)
                return value + leaf[layer]
            return value.detach() if layer == dropped and where in ("attn_out", "mlp_out") else value

        slopes = torch.autograd.grad(
            reference.metric(tap).sum(), list(leaf.values()), allow_unused=True, materialize_grads=True
        )
        for layer, slope in enumerate(slopes):
            if site == "q":
                effect = through_pattern(llama, pairs, site, layer, slope)
            else:
                clean, corrupted = (reference.activation(site, layer, which) for which in ("clean", "corrupted"))
                effect = ((clean - corrupted) * slope).sum(dim=(1, 3) if site == "z" else 2).numpy()
            total[:, layer] += np.abs(effect)
    close(found.graddrop, total / (3 if site == "resid_mid" else 2), "gradient")
    assert "graddrop" not in attribution_patching(llama, pairs, site, audit=None)
    without = attribution_patching(llama, pairs, site, method="atp*", graddrop=False, audit=None)
    assert "graddrop" not in without
    assert (without.estimated == found.estimated).all()


# ---- where the straight line is wrong ----


@pytest.fixture(scope="module")
def saturated(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return make_saturated(tmp_path_factory.mktemp("saturated"))


def make_saturated(path: Path) -> HookedTransformer:
    """Only layer 0's softmax is not linear, and head 5 attends to one token at a time: its slope there is 0."""
    shaped(path, "gpt2", live=["qk0"], n_head=8)
    hf = AutoModelForCausalLM.from_pretrained(path)
    head, weights = slice(20, 24), hf.state_dict()
    weights["transformer.h.0.attn.c_attn.weight"][:, head] *= 400
    weights["transformer.h.0.attn.c_attn.bias"][head] *= 400
    weights["transformer.h.0.attn.c_proj.weight"][head] *= 8
    hf.save_pretrained(path)
    return HookedTransformer.from_pretrained(path)


def test_a_saturated_head_is_missed_by_the_gradient_caught_by_the_audit_and_found_by_the_qk_fix(
    saturated: HookedTransformer, pairs: PromptPairs, caplog: pytest.LogCaptureFixture
) -> None:
    exact = np.abs(exact_effect(saturated, pairs, "q").mean(axis=0)[0])
    assert exact.argmax() == 5
    assert exact[5] > 4 * np.delete(exact, 5).max()
    audit = Audit(top_k=2, random=6)
    plain = attribution_patching(saturated, pairs, "q", audit=audit)
    estimate = np.abs(plain.estimated_effect.values.mean(axis=0)[0])
    assert estimate[5] < 0.01 * exact[5]
    assert plain.attrs["trusted"] == 0
    assert plain.attrs["reading"].startswith("Do not use these estimates: ")
    assert plain.attrs["audit_missed"] >= 1
    assert plain.attrs["audit_top_k_recall"] < 1
    assert "Estimates of q by gradient: Do not use these estimates" in caplog.text
    fixed = attribution_patching(saturated, pairs, "q", method="atp*", audit=audit)
    close(np.abs(fixed.estimated_effect.values.mean(axis=0)[0]), exact, size=largest_logit(saturated, pairs))
    assert (fixed.attrs["trusted"], fixed.attrs["audit_top_k_recall"], fixed.attrs["audit_missed"]) == (1, 1, 0)
    assert fixed.attrs["reading"].startswith("Checked against exact patching: slope 1 [")


# ---- edges ----


class Paths:
    """The same model written out plainly in float64, every reader with an input of its own."""

    def __init__(self, model: HookedTransformer, pairs: PromptPairs) -> None:
        self.model, self.pairs = model, pairs
        self.blocks = gradients.mapped(model.blocks, Tensor.double)
        self.kv = "KV" if model.cfg.grouped_query else "H"
        self.wrote = {which: self.run(which)[1] for which in ("clean", "corrupted")}
        self.changes = {name: self.wrote["clean"][name] - self.wrote["corrupted"][name] for name in self.wrote["clean"]}

    def run(
        self, which: str, added: Mapping[str, Tensor] | None = None, put: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The metric, and what each sender writes; ``added`` to receivers' inputs, ``put`` in place of senders'."""
        blocks, added, put = self.blocks, added or {}, put or {}
        tokens = run.ids_of(getattr(self.pairs, which))
        at = torch.arange(tokens.shape[1])
        d, group = blocks.d_head, blocks.n_heads // blocks.n_kv_heads
        wrote = {"embed": put.get("embed", blocks.embed(tokens))}
        stream = wrote["embed"]
        for layer, block in enumerate(blocks.layers):
            out = torch.zeros_like(stream) if block.o.bias is None else block.o.bias.expand_as(stream)
            for head in range(blocks.n_heads):
                inputs = {"q": (head, "H"), "k": (head // group, self.kv), "v": (head // group, self.kv)}
                made = {}
                for letter, (own, kind) in inputs.items():
                    x = block.ln1(stream + added.get(f"L{layer}{kind}{own}.{letter}", 0))
                    made[letter] = getattr(block, letter)(x)[..., own * d : (own + 1) * d]
                q, k = (blocks.rotate(made[x].unsqueeze(2), at, len(at)).squeeze(2) for x in ("q", "k"))
                scores = (q @ k.transpose(1, 2) * blocks.scale).masked_fill(at[:, None] < at, -torch.inf)
                z = scores.softmax(dim=-1) @ made["v"]
                name = f"L{layer}H{head}"
                wrote[name] = put.get(name, z @ block.o.weight[head * d : (head + 1) * d])
                out = out + wrote[name]
            stream = stream + out
            name = f"MLP{layer}"
            wrote[name] = put.get(name, block.mlp_out(blocks.neurons(layer, stream + added.get(name, 0))))
            stream = stream + wrote[name]
        logits = blocks.logits((stream + added.get("logits", 0))[:, -1])
        return logit_difference(logits, self.pairs), wrote

    def exact(self, sender: str, receiver: str) -> Tensor:
        """The metric's change when one sender's change reaches one receiver."""
        plain, changed = (self.run("corrupted", added)[0] for added in ({}, {receiver: self.changes[sender]}))
        return changed - plain

    def slopes(self, edges: Sequence[tuple[str, str]], put: Mapping[str, Tensor] | None = None) -> np.ndarray:
        """The gradient with respect to a mask on each edge, at mask 0. [prompt, edge]."""
        mask = torch.zeros(len(self.pairs), len(edges), dtype=torch.float64, requires_grad=True)
        added: dict[str, Tensor] = {}
        for index, (sender, receiver) in enumerate(edges):
            term = mask[:, index, None, None] * self.changes[sender]
            added[receiver] = added.get(receiver, 0) + term
        (found,) = torch.autograd.grad(self.run("corrupted", added, put)[0].sum(), mask)
        return found.numpy()

    def halfway(self, names: Sequence[str], share: float) -> dict[str, Tensor]:
        return {name: self.wrote["corrupted"][name] + share * self.changes[name] for name in names}


def edges_of(found: xr.Dataset) -> list[tuple[str, str]]:
    """The edges that exist, in the order of the array."""
    exist = np.isfinite(found.estimated_effect.values[0])
    return [(str(found.sender.values[s]), str(found.receiver.values[r])) for s, r in zip(*exist.nonzero(), strict=True)]


def values_of(found: xr.Dataset) -> np.ndarray:
    values = found.estimated_effect.values
    return values[:, np.isfinite(values[0])]


@BOTH
def test_an_edge_is_the_gradient_of_its_mask_at_zero(model: HookedTransformer, pairs: PromptPairs) -> None:
    found = edge_attribution(model, pairs, audit=None)
    edges, paths = edges_of(found), Paths(model, pairs)
    n_kv = model.cfg.n_kv_heads
    assert found.estimated_effect.shape == (3, 1 + 3 * 5, 3 * (4 + 2 * n_kv + 1) + 1)
    # embed to all; a head to its own MLP and all later layers; an MLP to all later layers.
    per_layer = 4 + 2 * n_kv + 1
    assert len(edges) == (3 * per_layer + 1) + sum(4 * (2 + per_layer * k) + 1 + per_layer * k for k in (2, 1, 0))
    expected = paths.slopes(edges)
    close(values_of(found), expected, "gradient")
    close(found.estimated - found.corrupted, found.estimated_effect, "arithmetic", dtype="float64", size=LOGITS)


@BOTH
def test_the_audit_of_edges_is_exact_path_patching(model: HookedTransformer, pairs: PromptPairs) -> None:
    found = edge_attribution(model, pairs, audit=Audit(top_k=4, random=6, seed=3))
    paths = Paths(model, pairs)
    assert found.audited.values.sum() == found.attrs["audit_cells"] == 10
    for s, r in zip(*found.audited.values.nonzero(), strict=True):
        expected = paths.exact(str(found.sender.values[s]), str(found.receiver.values[r]))
        close(found.exact_effect[:, s, r], expected, size=LOGITS)
    assert np.isnan(found.exact_effect.values[:, ~found.audited.values]).all()


@BOTH
@DIRECTIONS
def test_the_edges_of_a_sender_add_up_to_its_node(model: HookedTransformer, pairs: PromptPairs, direction: str) -> None:
    sums = edge_attribution(model, pairs, direction, audit=None).estimated_effect.sum("receiver")
    nodes = {site: attribution_patching(model, pairs, site, direction, audit=None).estimated_effect for site in
             ("z", "mlp_out", "resid_pre")}  # fmt: skip
    for layer in range(3):
        heads = sums.sel(sender=[f"L{layer}H{head}" for head in range(4)])
        close(heads, nodes["z"].sel(layer=layer), "gradient")
        mlp = nodes["mlp_out"].sel(layer=layer).sum("position")
        close(sums.sel(sender=f"MLP{layer}"), mlp, "gradient")
    close(sums.sel(sender="embed"), nodes["resid_pre"].sel(layer=0).sum("position"), "gradient")


@BOTH
def test_integrated_edges_are_mask_gradients_along_the_stated_paths(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    paths, shares = Paths(model, pairs), (0.25, 0.75)
    found = edge_attribution(model, pairs, method="eap-ig-inputs", steps=2, audit=None)
    edges = edges_of(found)
    expected = np.mean([paths.slopes(edges, paths.halfway(["embed"], share)) for share in shares], axis=0)
    close(values_of(found), expected, "gradient")
    for moved, senders in (("L1", [f"L1H{head}" for head in range(4)]), ("MLP1", ["MLP1"])):
        found = edge_attribution(model, pairs, method="eap-ig-activations", steps=2, senders=senders, audit=None)
        edges = edges_of(found)
        expected = np.mean([paths.slopes(edges, paths.halfway(senders, share)) for share in shares], axis=0)
        close(values_of(found), expected, "gradient", what=moved)


@BOTH
def test_every_edge_method_is_exact_where_the_model_is_linear(name: str, tmp_path: Path, pairs: PromptPairs) -> None:
    """With one step too: where the gradient is the same everywhere, EAP-IG is EAP."""
    model = shaped(tmp_path, name)
    eap = edge_attribution(model, pairs, audit=Audit(top_k=6, random=6))
    assert eap.attrs["trusted"] == 1
    audited, size = eap.audited.values, largest_logit(model, pairs)
    assert np.abs(eap.exact_effect.values[:, audited]).max() > 0.1
    close(eap.estimated_effect.values[:, audited], eap.exact_effect.values[:, audited], size=size)
    for method in ("eap-ig-inputs", "eap-ig-activations"):
        found = edge_attribution(model, pairs, method=method, steps=1, audit=None)
        close(found.estimated_effect, eap.estimated_effect, size=size)


# ---- the same numbers whatever the way, nothing left behind ----


def left_behind(model: HookedTransformer) -> tuple[int, int, list[bool]]:
    """Hooks and gradients on the model, and which parameters ask for gradients."""
    parameters = list(model.bridge.original_model.parameters())
    hooks = sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.bridge.hook_dict.values())
    return hooks, sum(p.grad is not None for p in parameters), [p.requires_grad for p in parameters]


@GPT2_AND_SLOWLY_LLAMA
def test_the_model_is_left_as_it_was(model: HookedTransformer, pairs: PromptPairs) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    ids = run.ids_of(pairs.clean)
    before, logits = left_behind(model), model.forward(ids)
    for progress in (None, stop):
        for call, options in (
            (attribution_patching, {"site": "q", "method": "atp*"}),
            (attribution_patching, {"site": "resid_mid", "method": "integrated"}),
            (edge_attribution, {"method": "eap-ig-inputs", "senders": ["embed"]}),
        ):
            if progress is None:
                call(model, pairs, **options)
            else:
                with pytest.raises(KeyboardInterrupt):
                    call(model, pairs, progress=progress, **options)
    assert left_behind(model) == before == (0, 0, before[2])
    assert torch.equal(model.forward(ids), logits)
    assert torch.is_grad_enabled()
    gc.collect()
    graphs = [thing for thing in gc.get_objects() if type(thing) is Tensor and thing.grad_fn is not None]
    assert not graphs


@GPT2_AND_SLOWLY_LLAMA
def test_other_architectures_go_through_the_bridges_hooks(
    model: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same models, told that their arithmetic is not known, and with parameters that ask for gradients."""
    options = {"audit": None, "layers": [0, 1]}
    known = {site: attribution_patching(model, pairs, site, **options) for site in (*STREAMS, *HEADS)}
    dropped = {
        site: attribution_patching(model, pairs, site, method="atp*", **options).graddrop
        for site in ("z", "resid_mid", "attn_out")
    }
    along = attribution_patching(model, pairs, "resid_mid", method="integrated", steps=2, **options)
    without_blocks(monkeypatch, model, "it is unheard of")
    parameters = list(model.bridge.original_model.parameters())
    before = left_behind(model)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        asking = left_behind(model)
        for site, expected in known.items():
            found = attribution_patching(model, pairs, site, **options)
            close(found.estimated_effect, expected.estimated_effect, "gradient", what=site)
        for site, expected in dropped.items():
            found = attribution_patching(model, pairs, site, method="atp*", **options)
            close(found.graddrop, expected, "gradient", what=site)
        found = attribution_patching(model, pairs, "resid_mid", method="integrated", steps=2, **options)
        close(found.estimated_effect, along.estimated_effect, "gradient")
        for call in (
            lambda: attribution_patching(model, pairs, "q", method="atp*"),
            lambda: edge_attribution(model, pairs),
        ):
            with pytest.raises(InterpError, match="method='gradient' or 'integrated' works on every model"):
                call()
        assert left_behind(model) == asking
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    assert left_behind(model) == before


def test_an_architecture_without_pieces_is_estimated_and_audited(tmp_path: Path, pairs: PromptPairs) -> None:
    model = HookedTransformer.from_pretrained(make_mistral(tmp_path / "mistral"))
    assert model.blocks is None
    found = attribution_patching(model, pairs, "resid_mid", layers=0, method="integrated", steps=80)
    # Only tokens from the colour on differ, so that these cells are all of the path from corrupted to clean.
    whole = found.estimated_effect.sum(("layer", "position"))
    near(whole, found.clean - found.corrupted, 5e-3, why="80 steps of an integral")
    assert found.attrs["audit_cells"] == LENGTH - COLOR
    exact = exact_effect(model, pairs, "resid_mid")[:, :1, COLOR:]
    close(found.exact_effect[:, :, COLOR:], exact, size=LOGITS)
    opt = HookedTransformer.from_pretrained(make_opt(tmp_path / "opt"))
    with pytest.raises(InterpError, match="can be read but not changed"):
        attribution_patching(opt, pairs, "pattern", audit=None)


def test_half_precision_weights_have_float32_gradients(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = HookedTransformer.from_pretrained(gpt2_directory, dtype="bfloat16")
    blocks = gradients.Differentiable.of(half).blocks
    assert blocks.token.dtype == blocks.final.weight.dtype == blocks.layers[0].q.weight.dtype == torch.float32
    found, known = (attribution_patching(model, pairs, "z", audit=None).estimated_effect for model in (half, gpt2))
    assert np.corrcoef(found.values.reshape(-1), known.values.reshape(-1))[0, 1] > 0.99
    without_blocks(monkeypatch, half, "it is unheard of")
    with pytest.raises(InterpError, match="Load it with dtype='float32'"):
        attribution_patching(half, pairs, "z")


def test_batches_and_neighbours_do_not_matter_and_progress_counts_every_pass(
    llama: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ragged, told = ragged_pairs(), []
    for site, options, n_passes in (
        ("k", {"method": "atp*"}, 1 + 3),
        ("mlp_post", {"method": "integrated", "steps": 2}, 3 * 2),
        ("pattern", {}, 1),
    ):
        options |= {"roles": ["color", "noun"], "audit": None}
        told.clear()
        whole = attribution_patching(llama, ragged, site, progress=lambda *at: told.append(at), **options)
        assert told[-1] == (4 * n_passes, 4 * n_passes)
        alone = [attribution_patching(llama, ragged.select([i]), site, **options).estimated_effect for i in range(4)]
        close(whole.estimated_effect, np.concatenate(alone), "gradient")
        with monkeypatch.context() as tight:
            tight.setattr(gradients, "GRAPH_BYTES", 1)
            small = attribution_patching(llama, ragged, site, **options)
        close(small.estimated_effect, whole.estimated_effect, "gradient")
    edges = edge_attribution(llama, ragged, audit=None).estimated_effect
    alone = [edge_attribution(llama, ragged.select([i]), audit=None).estimated_effect for i in range(4)]
    close(edges, np.concatenate(alone), "gradient")


def test_whole_answers_are_estimated_by_role(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    whole = replace(
        pairs,
        answer_policy="sum_logprob",
        correct_tokens=((5, 6), (6,), (5,)),
        incorrect_tokens=((9,), (9, 10, 11), (9,)),
    )
    options = {"method": "integrated", "steps": 64}
    found = attribution_patching(gpt2, whole, "resid_pre", layers=0, audit=None, **options)
    assert found.estimated.dims == ("prompt", "layer", "role")
    # Layer 0 differs at the colour alone: all of the path from the corrupted to the clean whole-answer score.
    near(found.estimated.sel(layer=0, role="color"), score(gpt2, whole), 2e-3, why="64 steps of an integral")
    heads = attribution_patching(gpt2, whole, "z", "noising")
    exact = exact_effect(gpt2, whole, "z", "noising")
    at = heads.audited.values
    close(heads.exact_effect.values[:, at], exact[:, at], size=LOGITS)
    sums = edge_attribution(gpt2, whole, "noising", audit=Audit(top_k=2, random=2))
    total = sums.estimated_effect.sel(sender=[f"L1H{head}" for head in range(4)]).sum("receiver")
    close(total, heads.estimated_effect.sel(layer=1), "gradient")
    assert sums.attrs["audit_cells"] == 4
    # Also where all answers are of one length, and positions would line up.
    level = replace(whole, correct_tokens=((5, 6),) * 3, incorrect_tokens=((9, 9),) * 3)
    assert attribution_patching(gpt2, level, "mlp_out").estimated.dims == ("prompt", "layer", "role")
    with pytest.raises(InterpError, match="estimate by role"):
        attribution_patching(gpt2, whole, "resid_pre", positions=[1])


def test_results_are_complete_and_survive_a_file(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path) -> None:
    for index, found in enumerate(
        (
            attribution_patching(gpt2, pairs, "z", method="atp*", audit=Audit(top_k=1, random=1, seed=5)),
            edge_attribution(gpt2, pairs, audit=None, senders=["L0H1", "MLP1"], receivers=["logits", "L1H0.q"]),
        )
    ):
        xr.testing.assert_identical(results.load(results.save(found, tmp_path / f"{index}.nc")), found)
        assert found.audited.dtype == bool
        assert found.attrs["weights_sha256"] == gpt2.weights_sha256
    assert found.attrs["reading"].startswith("Not checked against exact patching.")
    assert (found.attrs["trusted"], found.attrs["audit_cells"], found.audited.values.any()) == (0, 0, False)
    assert list(found.sender.values) == ["L0H1", "MLP1"]
    assert np.isnan(found.estimated_effect.sel(sender="MLP1", receiver="L1H0.q")).all()


def test_bad_requests_name_what_is_wrong(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    for call, arguments, message in [
        (attribution_patching, {"site": "z", "metric": "rank"}, "'rank' has no gradient"),
        (edge_attribution, {"metric": "rank"}, "'rank' has no gradient"),
        (attribution_patching, {"site": "z", "metric": "logit_diff"}, "Did you mean 'logit_difference'"),
        (attribution_patching, {"site": "z", "method": "atp"}, r"Did you mean 'atp\*'"),
        (edge_attribution, {"method": "gradient"}, "Choose from: eap, eap-ig-inputs"),
        (attribution_patching, {"site": "z", "method": "integrated", "steps": 0}, "at least one step"),
        (attribution_patching, {"site": "z", "direction": "forward"}, "Unknown direction 'forward'"),
        (attribution_patching, {"site": "resid"}, "Unknown site 'resid'"),
        (attribution_patching, {"site": "scores"}, "is not swept"),
        (attribution_patching, {"site": "z", "roles": ["colour"]}, "colour"),
        (edge_attribution, {"senders": ["L0H9"]}, "Unknown sender 'L0H9'"),
        (edge_attribution, {"receivers": ["L0H0"]}, "Unknown receiver 'L0H0'"),
        (edge_attribution, {"senders": ["MLP2"], "receivers": ["L1H0.v"]}, "No sender comes before"),
        (edge_attribution, {"senders": []}, "senders is empty"),
    ]:
        with pytest.raises(InterpError, match=message) as caught:
            call(gpt2, pairs, **arguments)
        assert "\n" not in str(caught.value)
