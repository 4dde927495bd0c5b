"""Projections at every site: held to the activation itself, by the bridge's own hooks and by Hugging Face's modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM

from interp import run
from interp.attribution import Audit, attribution_patching, edge_attribution
from interp.interventions import Ablate, Knockout
from interp.model import HookedTransformer
from interp.model.arithmetic import Blocks
from interp.readouts import projection
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, plan, score, sweep, sweep_sites
from tests.oracle import patched_activations
from tests.tiny import HEADS, STREAMS, ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close, near

SWEPT = (*STREAMS, *HEADS)
READ: list[tuple[str, int, int | None]] = [
    ("resid_mid", 1, None), ("resid_mid", 2, None), ("attn_out", 1, None), ("mlp_out", 1, None), ("mlp_out", 2, None),
    ("mlp_pre", 1, None), ("mlp_post", 2, None), ("q", 0, None), ("q", 1, 2), ("k", 1, 1), ("k", 2, None),
    ("v", 2, 0), ("z", 1, 3), ("z", 2, None), ("rot_q", 1, 1), ("result", 1, 2),
]  # fmt: skip
SIZE = 6.0
"""Size of the largest activations, in units of what differs between the runs."""


BLOCK = (
    "resid_pre", "q", "k", "v", "rot_q", "pattern", "z", "result", "attn_out", "resid_mid", "mlp_pre", "mlp_post",
    "mlp_out", "resid_post",
)  # fmt: skip
"""In the order in which a block computes them."""


def comes_before(changed: str, read: str) -> bool:
    """Whether one leads to the other within a block, or is it: queries, keys and values do not lead to one another."""
    if {changed, read} <= {"q", "k", "v", "rot_q"}:
        return changed == read or (changed, read) == ("q", "rot_q")
    return BLOCK.index(changed) <= BLOCK.index(read)


def named(read: tuple[str, int, int | None]) -> str:
    site, layer, head = read
    return f"{site} {layer}" + ("" if head is None else f" head {head}")


@pytest.fixture(params=["gpt2", "llama"])
def own(request: pytest.FixtureRequest) -> HookedTransformer:
    model: HookedTransformer = request.getfixturevalue(request.param)
    return model


@pytest.fixture(params=["weights", "hooks"])
def model(own: HookedTransformer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HookedTransformer:
    if request.param == "hooks":
        without_blocks(monkeypatch, own)
    return own


def restored(now: np.ndarray, clean: np.ndarray, corrupted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The share of the difference of the masked tokens' activations that is there, [..., prompt]."""
    inside = mask.reshape(*mask.shape, *(1,) * (clean.ndim - 2))
    axes = tuple(range(-clean.ndim + 1, 0))
    whole_way = np.where(inside, clean - corrupted, 0).astype(np.float64)
    return np.asarray(((now - corrupted) * whole_way).sum(axis=axes) / (whole_way**2).sum(axis=axes))


def one_head(values: np.ndarray, head: int | None) -> np.ndarray:
    return values if head is None else values[..., head, :]


def cells_of(model: HookedTransformer, site: str, roles: Sequence[str]) -> list[tuple[int, int | None, str]]:
    heads = [0, model.n_heads_of(site) - 1] if site in HEADS else [None]
    return list(product(range(model.cfg.n_layers), heads, roles))


@pytest.mark.parametrize("read", READ, ids=named)
def test_a_projection_after_every_patch_is_that_of_the_patched_run(
    read: tuple[str, int, int | None], model: HookedTransformer
) -> None:
    site, layer, head = read
    if not model.has_site(site):
        pytest.skip(f"{model.name} has no {site}")
    direction: Any = ("denoising", "noising")[READ.index(read) % 2]
    pairs = ragged_pairs() if direction == "noising" else scattered_pairs()
    at = "noun" if layer else "color"  # in layer 0 nothing else differs
    one = projection(layer, at, site=site, head=head)
    mask = run.token_mask(pairs.clean, at)
    clean, corrupted = (
        one_head(run.activations(model, prompts, site, layers=[layer])[layer].numpy(), head)
        for prompts in (pairs.clean, pairs.corrupted)
    )
    swept = [name for name in SWEPT if model.has_site(name)]
    # Both roles on GPT-2's weights; elsewhere the one that reaches everything.
    roles = ["color", "noun"] if model.cfg.architecture == "GPT2LMHeadModel" and model.blocks is not None else ["color"]
    found = sweep_sites(model, pairs, swept, direction, one, axis="role", roles=roles)
    base = {"denoising": "corrupted", "noising": "clean"}[direction]
    for name in swept:
        result, cells = found[name], cells_of(model, name, roles)
        assert result.attrs["engine"] == ("hooks" if model.blocks is None else "weights")
        close(result.clean, 1.0, size=SIZE)
        close(result.corrupted, 0.0, size=SIZE)
        asked = [([(changed, [of])], role) for changed, of, role in cells]
        now = one_head(patched_activations(model, pairs, name, direction, asked, site, layer).numpy(), head)
        expected = restored(now, clean, corrupted, mask)
        for (changed, of, role), by_hooks in zip(cells, expected, strict=True):
            where = {"layer": changed, "role": role} | ({} if of is None else {name_of(result): of})
            got = result.patched.sel(where).values
            if changed < layer or (changed == layer and comes_before(name, site)):
                close(got, by_hooks, size=SIZE, what=(name, where))
            else:
                np.testing.assert_array_equal(got, result[base].values, err_msg=f"{name} {where} comes too late")
    assert any((one.patched != one[base]).any() for one in found.values())


def name_of(result: Any) -> str:
    return "kv_head" if "kv_head" in result.dims else "head"


@pytest.mark.parametrize("read", [("z", 1, 2), ("attn_out", 2, None), ("mlp_post", 1, None), ("v", 1, 1)], ids=named)
def test_ablations_knockouts_windows_and_sets_equal_plain_interventions(
    read: tuple[str, int, int | None], model: HookedTransformer
) -> None:
    site, layer, head = read
    pairs, one = scattered_pairs(), projection(layer, "noun", site=site, head=head)

    def plain(*interventions: Any) -> np.ndarray:
        return score(model, pairs, "clean", one, interventions=interventions)

    for name, kind in product(("resid_pre", "k", "z", "mlp_post"), ("zero", "mean")):
        ablated = ablation_sweep(model, pairs, name, kind, one, roles=["color"]).ablated
        for changed in (0, layer):
            cell = ablated.sel(layer=changed, role="color")
            of = [1] if name in HEADS else None
            cell = cell if of is None else cell.isel({name_of(cell): 1})
            expected = plain(Ablate(site=name, kind=kind, layers=changed, heads=of, at="color"))
            close(cell, expected, size=SIZE, what=(name, kind, changed))
    cut = knockout_sweep(model, pairs, ["noun<-color"], one, window=3, by_head=True).cut
    expected = plain(Knockout(dest="noun", src="color", layers=[0, 1, 2], heads=[1]))
    close(cut.sel(layer=1, head=1, edge="noun<-color"), expected, size=SIZE)
    cells = [([(0, [1]), (1, [1]), (2, [1])], "color")]
    now, clean, corrupted = (
        one_head(values.numpy(), head)
        for values in (
            patched_activations(model, pairs, "v", "denoising", cells, site, layer),
            *(run.activations(model, x, site, layers=[layer])[layer] for x in (pairs.clean, pairs.corrupted)),
        )
    )
    members = {"all": [(changed, 1) for changed in range(3)]}
    found = sweep(model, pairs, "v", metric=one, sets=members, roles=["color"]).patched.sel(set="all", role="color")
    close(found, restored(now, clean, corrupted, run.token_mask(pairs.clean, "noun"))[0], size=SIZE)


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "z"])
def test_windows_that_put_in_what_is_read_equal_plain_hooks(site: str, model: HookedTransformer) -> None:
    """A stream that is read is itself put in by some windows, after an earlier one; later ones do not matter."""
    pairs = scattered_pairs()
    layer, read = {"resid_pre": (2, "resid_pre"), "resid_post": (1, "resid_post"), "z": (1, "z")}[site]
    one, mask = projection(layer, "noun", site=read), run.token_mask(pairs.clean, "noun")
    found = sweep(model, pairs, site, metric=one, roles=["color", "noun"], window=2).patched
    clean, corrupted = (
        run.activations(model, prompts, read, layers=[layer])[layer].numpy()
        for prompts in (pairs.clean, pairs.corrupted)
    )
    heads: list[int | None] = [0, 3] if site == "z" else [None]
    asked = [(centre, head, role) for centre in range(3) for head in heads for role in ("color", "noun")]
    cells = [([(at, [head]) for at in (centre, centre + 1) if at < 3], role) for centre, head, role in asked]
    now = patched_activations(model, pairs, site, "denoising", cells, read, layer).numpy()
    for (centre, head, role), expected in zip(asked, restored(now, clean, corrupted, mask), strict=True):
        where = {"layer": centre, "role": role} | ({} if head is None else {"head": head})
        close(found.sel(where), expected, size=SIZE, what=where)
    changed = [1, 2] if site == "resid_pre" else [0, 1]
    of = [1] if site == "z" else None
    both = {"both": [(at, 1) for at in changed] if site == "z" else changed}
    ablated = ablation_sweep(model, pairs, site, "zero", one, roles=["noun"], sets=both).ablated
    zero = Ablate(site=site, kind="zero", layers=changed, heads=of, at="noun")
    expected = score(model, pairs, "clean", one, interventions=[zero])
    close(ablated.sel(set="both", role="noun"), expected, size=SIZE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_patch_and_what_is_read_of_it_by_hugging_face_s_modules(name: str, request: pytest.FixtureRequest) -> None:
    """A block's output is replaced at one role, and neurons, mixed values or queries are read two blocks later."""
    model, directory = request.getfixturevalue(name), request.getfixturevalue(f"{name}_directory")
    kind = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM}[name]
    plain = kind.from_pretrained(directory).eval()
    blocks = plain.transformer.h if name == "gpt2" else plain.model.layers
    parts = {
        "gpt2": {"mlp_post": lambda block: block.mlp.c_proj, "z": lambda block: block.attn.c_proj},
        "llama": {"mlp_post": lambda block: block.mlp.down_proj, "z": lambda block: block.self_attn.o_proj},
    }[name]
    pairs = scattered_pairs()
    mask = torch.tensor(run.token_mask(pairs.clean, "color"))

    def inputs(ids: np.ndarray, module: Any, put: torch.Tensor | None = None) -> tuple[np.ndarray, torch.Tensor]:
        """What a module is given, and what block 0 writes, with another block-0 output at the role."""
        seen: dict[str, torch.Tensor] = {}

        def replace(_: Any, args: Any, out: Any) -> Any:
            stream = out[0] if isinstance(out, tuple) else out
            stream = stream if put is None else torch.where(mask[..., None], put, stream)
            seen["stream"] = stream
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        handles = [
            blocks[0].register_forward_hook(replace),
            module.register_forward_pre_hook(lambda _, args: seen.update(read=args[0].clone())),
        ]
        with torch.no_grad():
            plain(torch.tensor(ids))
        for handle in handles:
            handle.remove()
        return seen["read"].numpy(), seen["stream"]

    for site, part in parts.items():
        clean, new = inputs(pairs.clean.ids, part(blocks[2]))
        corrupted, _ = inputs(pairs.corrupted.ids, part(blocks[2]))
        now, _ = inputs(pairs.corrupted.ids, part(blocks[2]), new)
        expected = restored(now[None], clean, corrupted, run.token_mask(pairs.clean, "noun"))[0]
        found = sweep(model, pairs, "resid_post", metric=projection(2, "noun", site=site), roles=["color"])
        close(found.patched.sel(layer=0, role="color"), expected, size=SIZE, what=site)
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(("site", "runs"), [("resid_pre", 1), ("q", 2), ("mlp_out", 2), ("resid_post", 2)])
def test_nothing_is_run_after_the_block_that_is_read(
    site: str, runs: int, model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sweeps and gradients. ``runs`` blocks come before the activation, or hold it."""
    pairs, one = scattered_pairs(), projection(1, "noun", site=site)
    sweep(model, pairs, "z", metric=one)  # what the blocks are called with is recorded once, by a whole run
    seen: set[int] = set()
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: seen.add(layer))
        for layer, block in enumerate(model.bridge.blocks)
    ]
    plain = Blocks.block

    def block(self: Blocks, layer: int, *args: Any, **options: Any) -> Any:
        seen.add(layer)
        return plain(self, layer, *args, **options)

    monkeypatch.setattr(Blocks, "block", block)
    try:
        effect = sweep(model, pairs, "z", metric=one)
        attribution_patching(model, pairs, "z", metric=one, layers=[0], audit=None)
    finally:
        for handle in handles:
            handle.remove()
    assert effect.attrs["engine"] == ("hooks" if model.blocks is None else "weights")
    assert seen == set(range(runs))
    planned = plan(model, pairs, "z", metric=one)
    assert planned.flop == effect.attrs["planned_flop"]


def test_what_a_head_writes_is_read_as_its_z_on_the_weights(own: HookedTransformer) -> None:
    """``result`` is ``z @ W_O``: a direction in one is another in the other, in every kind of question."""
    pairs, vector = scattered_pairs(), torch.linspace(-1, 1, 32)
    written = projection(1, "noun", vector, site="result", head=2)
    mixed = projection(1, "noun", own.W_O(1)[2] @ vector, site="z", head=2)
    for call in (
        lambda one: sweep(own, pairs, "v", metric=one, roles=["color", "noun"]).patched,
        lambda one: ablation_sweep(own, pairs, "resid_pre", "mean", one, roles=["color"]).ablated,
        lambda one: path_patching(own, pairs, metric=one).patched,
        lambda one: attribution_patching(own, pairs, "q", metric=one, method="atp*").estimated_effect,
        lambda one: edge_attribution(own, pairs, metric=one).estimated_effect,
    ):
        close(call(written), call(mixed).values, "gradient", size=SIZE)


def test_the_last_stream_is_read_by_either_name(own: HookedTransformer) -> None:
    pairs, before, after = scattered_pairs(), projection(3, "noun"), projection(2, "noun", site="resid_post")
    assert set(score(own, pairs, "clean", before)) == {1.0}
    for call in (
        lambda one: sweep(own, pairs, "v", metric=one).patched,
        lambda one: path_patching(own, pairs, metric=one, senders=["L0H1", "MLP2"]).patched,
        lambda one: attribution_patching(own, pairs, "z", metric=one).estimated_effect,
        lambda one: edge_attribution(own, pairs, metric=one, senders=["L1H1"], audit=None).estimated_effect,
    ):
        np.testing.assert_array_equal(call(before).values, call(after).values)


def test_the_plan_stops_within_the_block_that_is_read(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    places = [(1, "resid_pre"), (1, "q"), (2, "resid_pre"), (2, "q"), (2, "resid_mid")]
    asked = [projection(layer, "noun", site=site) for layer, site in places]
    plans = [plan(gpt2, pairs, "z", metric=one) for one in (*asked, "logit_difference")]
    assert [one.flop for one in plans[:5]] == sorted(one.flop for one in plans[:5])
    assert [one.rows for one in plans] == sorted(one.rows for one in plans)
    for one, planned in zip(asked, plans, strict=False):
        found = sweep(gpt2, pairs, "z", metric=one)
        assert (found.attrs["rows_run"], found.attrs["planned_flop"]) == (planned.rows, planned.flop)


@pytest.mark.parametrize("read", [("z", 2, 1), ("resid_mid", 1, None)], ids=named)
def test_the_difference_of_means_is_one_direction_for_all_pairs(
    read: tuple[str, int, int | None], model: HookedTransformer
) -> None:
    site, layer, head = read
    pairs, one = ragged_pairs(), projection(layer, "noun", "means", site=site, head=head)
    mask = run.token_mask(pairs.clean, "noun")[..., None]

    def mean(values: np.ndarray) -> np.ndarray:
        """Over the role's tokens, [..., prompt, width]."""
        flat = one_head(values, head)
        flat = flat.reshape(*flat.shape[: -2 if head is None and site == "z" else -1], -1).astype(np.float64)
        return np.asarray((flat * mask).sum(axis=-2) / mask.sum(axis=-2))

    clean, corrupted = (
        mean(run.activations(model, prompts, site, layers=[layer])[layer].numpy())
        for prompts in (pairs.clean, pairs.corrupted)
    )
    direction = clean.mean(axis=0) - corrupted.mean(axis=0)
    along = direction / (direction @ direction)
    found = sweep(model, pairs, "resid_pre", metric=one, roles=["color"])
    close(found.clean, clean @ along, size=SIZE)
    close(found.corrupted, corrupted @ along, size=SIZE)
    close(found.clean.mean() - found.corrupted.mean(), 1.0, size=SIZE)
    cells = [([(changed, None)], "color") for changed in range(3)]
    now = mean(patched_activations(model, pairs, "resid_pre", "denoising", cells, site, layer).numpy())
    close(found.patched.sel(role="color").transpose("layer", "prompt"), now @ along, size=SIZE)
    assert found.patched.attrs["units"] == "mean differences"
    estimate = attribution_patching(model, pairs, "resid_pre", metric=one, roles=["noun"], audit=None)
    np.testing.assert_array_equal(np.isfinite(estimate.estimated_effect), True)
    close(score(model, pairs, "clean", one), clean @ along, size=SIZE)


# ---- estimates ----

LINEAR = [
    ("z", "attn_out", None), ("v", "z", None), ("z", "resid_mid", None), ("mlp_post", "mlp_out", None),
    ("attn_out", "resid_mid", None), ("q", "q", 1), ("k", "k", None), ("z", "result", 2),
    ("resid_mid", "resid_mid", None),
]  # fmt: skip
"""What is patched, and what is linear in it within one block."""


@pytest.mark.parametrize("method", ["gradient", "integrated", "atp*"])
def test_estimates_are_exact_where_what_is_read_is_linear_in_what_is_patched(
    method: Any, model: HookedTransformer
) -> None:
    pairs = scattered_pairs()
    for patched, read, head in LINEAR:
        if method == "atp*" and patched in ("q", "k") and model.blocks is None:
            continue
        one = projection(1, "noun", site=read, head=head)
        asked: dict[str, Any] = {"metric": one, "roles": ["color", "noun"]}
        found = attribution_patching(model, pairs, patched, method=method, steps=2, audit=None, **asked)
        exact = sweep(model, pairs, patched, **asked)
        close(found.estimated.sel(layer=1), exact.patched.sel(layer=1), "gradient", size=SIZE, what=(patched, read))
        assert (exact.patched.sel(layer=1) != exact.corrupted).any()
        np.testing.assert_array_equal(found.estimated_effect.sel(layer=2), 0)
        earlier = (exact.patched.sel(layer=0) != exact.corrupted).any()
        assert (found.estimated_effect.sel(layer=0) != 0).any() == earlier, (patched, read)


def test_the_softmax_is_taken_exactly_up_to_what_is_read(own: HookedTransformer) -> None:
    pairs, one = scattered_pairs(), projection(1, "noun", site="z")
    for site in ("q", "k"):
        found = attribution_patching(own, pairs, site, metric=one, roles=["color", "noun"], method="atp*")
        exact = sweep(own, pairs, site, metric=one, roles=["color", "noun"])
        close(found.estimated.sel(layer=1), exact.patched.sel(layer=1), "gradient", size=SIZE, what=site)


@pytest.mark.parametrize("read", [("z", 2, 1), ("mlp_post", 1, None), ("q", 2, 0)], ids=named)
def test_integrated_estimates_of_all_that_differs_add_up(
    read: tuple[str, int, int | None], model: HookedTransformer
) -> None:
    site, layer, head = read
    one = projection(layer, "noun", site=site, head=head)
    found = attribution_patching(
        model, scattered_pairs(), "resid_pre", metric=one, roles=["scene", "noun"], method="integrated", steps=25
    )
    near(
        found.estimated_effect.sel(layer=1).sum("role"), 1.0, 1e-2,
        why="25 steps of an integral; scene and noun hold every token that differs before the place that is read",
    )  # fmt: skip
    assert found.attrs["audit_cells"] > 0


@pytest.mark.parametrize(
    "read",
    [("resid_pre", 2, None), ("resid_post", 2, None), ("resid_mid", 1, None), ("z", 2, 1), ("q", 2, None),
     ("mlp_pre", 1, None), ("mlp_post", 1, None), ("mlp_out", 2, None)],
    ids=named,
)  # fmt: skip
def test_the_edges_of_a_sender_add_up_to_its_estimate(
    read: tuple[str, int, int | None], own: HookedTransformer
) -> None:
    """By another way: one gradient at what the sender writes, instead of one at what every receiver reads."""
    site, layer, head = read
    pairs, one = scattered_pairs(), projection(layer, "noun", site=site, head=head)
    audit = Audit(top_k=2, random=2) if site in ("resid_mid", "mlp_post") else None
    edges = edge_attribution(own, pairs, metric=one, audit=audit)
    of_heads = attribution_patching(own, pairs, "z", metric=one, audit=None).estimated_effect
    of_mlps = attribution_patching(own, pairs, "mlp_out", metric=one, audit=None, axis="position").estimated_effect
    for at in range(own.cfg.n_layers):
        for of in (0, 3):
            found = edges.estimated_effect.sel(sender=f"L{at}H{of}").sum("receiver")
            close(found, of_heads.sel(layer=at, head=of), "gradient", size=SIZE, what=(at, of))
        if (site, layer) != ("mlp_out", at):  # which is read itself, through no receiver
            found = edges.estimated_effect.sel(sender=f"MLP{at}").sum("receiver")
            close(found, of_mlps.sel(layer=at).sum("position"), "gradient", size=SIZE, what=at)
    assert (edges.estimated_effect != 0).any()
    if site.startswith("resid"):  # linear in what is written to it
        exact = path_patching(own, pairs, metric=one, receivers=[f"L{layer}.{site}"])
        effect = (exact.patched - exact.corrupted).transpose("prompt", "sender", "receiver")
        close(edges.estimated_effect.sel(receiver=[f"L{layer}.{site}"]), effect, "gradient", size=SIZE)
    if audit is not None:
        audited = edges.audited.values
        exact = path_patching(own, pairs, metric=one)
        effect = (exact.patched - exact.corrupted).transpose(*edges.exact_effect.dims).values
        assert audited.any()
        close(edges.exact_effect.values[:, audited], effect[:, audited], size=SIZE)
