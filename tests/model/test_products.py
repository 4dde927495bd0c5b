"""Every way to multiply against NumPy in float64, the choice between them, and sweeps whichever is taken."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.model import HookedTransformer, products
from interp.model import arithmetic as blocks
from interp.model.arithmetic import Blocks, Linear
from interp.model.products import ADDMM, NO_CHOICE, Choice, Way, choose, ways
from interp.sweeps import ablation_sweep, path_patching, plan, sweep
from tests.oracle import one_by_one
from tests.tiny import LOGITS, make_gpt2, ragged_pairs, scattered_pairs
from tests.tolerance import close

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])
WAYS = [ADDMM, *(Way(True, packed, fused) for packed, fused in itertools.product((False, True), repeat=2))]
EVERY_WAY = pytest.mark.parametrize("way", WAYS, ids=str)
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: x * np.vectorize(_normal)(x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}
needs_onednn = pytest.mark.skipif(not products._has_onednn(), reason="there is no oneDNN for x86 here")


def _normal(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def exists(way: Way) -> None:
    if way.onednn and not products._has_onednn():
        pytest.skip("there is no oneDNN for x86 here")


def forced(pieces: Blocks, way: Way) -> Blocks:
    """The same model with every product made in one way."""
    choice = Choice(packed=way) if way.packed else Choice(as_it_lies=way)
    return pieces._with(lambda block: {name: replace(matrix, choice=choice) for name, matrix in block.matrices.items()})


def force(model: HookedTransformer, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "blocks", forced(model.blocks, way))
    monkeypatch.setattr(Blocks, "measured", lambda pieces: pieces)  # the choice is made


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


# ---- one product ----


@EVERY_WAY
@pytest.mark.parametrize("across", [False, True], ids=["as x @ W", "as W @ x"])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize(("rows", "d_in", "d_out"), [(1, 24, 40), (37, 48, 16)])
def test_every_way_is_the_product_in_float64(
    way: Way, across: bool, activation: str | None, rows: int, d_in: int, d_out: int
) -> None:
    exists(way)
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=shape) for shape in ((rows, d_in), (d_in, d_out), (d_out,)))
    as_numbers = [torch.from_numpy(one).float() for one in (x, weight, bias)]
    lying = as_numbers[1].T.contiguous().T if across else as_numbers[1]
    applied = None if activation is None else blocks.ACTIVATIONS[activation]
    with torch.inference_mode():
        laid = products.pack(lying, rows) if way.packed else lying
        for has_bias in (True, False):
            exact = x @ weight + bias * has_bias
            found = way(as_numbers[0], laid, as_numbers[2] if has_bias else None, applied)
            close(found, exact if activation is None else ACTIVATIONS[activation](exact), "product", size=exact)


@EVERY_WAY
def test_a_product_with_a_gradient_is_addmm(way: Way) -> None:
    exists(way)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 40, generator=generator), torch.randn(40, generator=generator)
    linear = Linear(weight, bias, Choice(way, way if way.packed else None))
    linear = replace(linear, packed=products.pack(weight, 3)) if way.packed else linear
    x = torch.randn(2, 3, 24, generator=generator, requires_grad=True)
    out = linear(x, blocks.ACTIVATIONS["gelu"])
    assert torch.equal(out, torch.nn.functional.gelu(torch.addmm(bias, x.reshape(6, 24), weight)).reshape(2, 3, 40))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.abs().max() > 0


# ---- which ones there are ----


@needs_onednn
def test_ways_depend_on_the_weight_and_what_follows() -> None:
    wide = torch.zeros(512, 1024)
    assert ways(wide, activated=True) == tuple(WAYS[i] for i in (0, 1, 2, 3, 4))
    assert ways(wide.T, activated=True) == ways(wide, activated=True)
    assert ways(wide, activated=False) == (ADDMM, Way(onednn=True))
    assert ways(wide[:, :64], activated=True) == (ADDMM,)
    assert ways(torch.zeros(64, 64), activated=True) == (ADDMM, Way(True), Way(True, fused=True))
    assert ways(wide.bfloat16(), activated=True) == ways(wide.double(), activated=True) == (ADDMM,)
    assert ways(wide.to("meta"), activated=True) == (ADDMM,)


def test_without_onednn_there_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(products, "_measured", None)
    assert choose(torch.zeros(512, 1024), bias=True, activation=None) == NO_CHOICE
    assert str(NO_CHOICE) == "addmm (no choice)"


@needs_onednn
def test_another_processor_family_has_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products.platform, "machine", lambda: "aarch64")
    assert ways(torch.zeros(512, 1024), activated=True) == (ADDMM,)


def test_a_part_of_a_wider_weight_is_multiplied_by_addmm(tmp_path: Any) -> None:
    """With oneDNN it takes hundreds of times as long: GPT-2's keys as they lie in ``c_attn``, without folding."""
    model = HookedTransformer.from_pretrained(make_gpt2(tmp_path, n_embd=192), numerics="raw")
    block = model.blocks.measured().layers[0]
    assert block.k.weight.stride() == (3 * 192, 1)
    assert block.k.weight.numel() > products.FEWEST_WEIGHTS
    assert block.k.choice == NO_CHOICE


# ---- the choice ----


@needs_onednn
def test_a_choice_is_measured_once_per_shape_layout_activation_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    original = products._seconds

    def seconds(*arguments: Any) -> Any:
        measured.append(torch.get_num_threads())
        return original(*arguments)

    monkeypatch.setattr(products, "_seconds", seconds)
    products._measured.cache_clear()
    gelu, relu = blocks.ACTIVATIONS["gelu"], blocks.ACTIVATIONS["relu"]
    weight = torch.ones(160, 256)

    def runs(*arguments: Any, **options: Any) -> int:
        measured.clear()
        choose(*arguments, **options)
        return len(measured)

    assert runs(weight, bias=True, activation=gelu) == 2, "a quick look, then the measurement"
    assert runs(2 * weight, bias=True, activation=gelu) == 0
    assert runs(weight, bias=True, activation=relu) == runs(weight, bias=False, activation=gelu) == 2
    assert runs(torch.ones(256, 160).T, bias=True, activation=gelu) == 2
    assert runs(torch.ones(8, 8), bias=True, activation=gelu) == 0, "too small to matter"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert runs(weight, bias=True, activation=gelu) == 2
    finally:
        torch.set_num_threads(threads)
    assert runs(weight, bias=True, activation=gelu) == 0


@pytest.mark.parametrize(
    ("spent", "turns", "best"),
    [([2.0, 2.1], 2, 2.0), ([5.0, 2.0, 2.1], 3, 2.0), ([9.0, 7.0, 5.0, 3.0, 2.0], 4, 3.0)],
    ids=["settled", "disturbed once", "never settled"],
)
def test_a_disturbed_measurement_is_repeated(
    spent: list[float], turns: int, best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two turns where they agree to a tenth; four at most; the best of them counts."""
    clock = iter(itertools.chain.from_iterable((10.0 * i, 10.0 * i + one) for i, one in enumerate(spent)))
    monkeypatch.setattr(products.time, "perf_counter", lambda: next(clock))
    x, weight = torch.ones(2, 3), torch.ones(3, 4)
    assert products._seconds([ADDMM], x, weight, weight, None, None)[ADDMM] == best
    assert len(list(clock)) == 2 * (len(spent) - turns)


LYING, FUSED, PACKED = Way(True), Way(True, fused=True), Way(True, True, True)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({ADDMM: 1.0, LYING: 2.0, PACKED: 0.95}, (ADDMM, None, 0)),
        ({ADDMM: 1.0, LYING: 2.0, PACKED: 0.75}, (ADDMM, PACKED, 12)),
        ({ADDMM: 1.0, LYING: 0.96, FUSED: 1.1}, (ADDMM, None, 0)),
        ({ADDMM: 1.0, LYING: 0.94, FUSED: 0.5}, (FUSED, None, 0)),
        ({ADDMM: 1.0, FUSED: 0.65, PACKED: 0.6}, (FUSED, None, 0)),
        ({ADDMM: 4.0, LYING: 3.5, PACKED: 0.5}, (LYING, PACKED, 1)),
        ({ADDMM: 1.0, Way(True, packed=True): 0.48, PACKED: 0.5}, (ADDMM, PACKED, 6)),
        ({ADDMM: 1.0, Way(True, packed=True): 0.4, PACKED: 0.5}, (ADDMM, Way(True, packed=True), 5)),
    ],
)
def test_the_fastest_is_taken_where_it_gains_enough(seconds: dict[Way, float], expected: Any) -> None:
    """By hand: 5% to leave ``addmm``, 10% to hold a weight twice, which takes 3 s, so as many rows as save that.

    The activation is within where that is at most 5% slower.
    """
    choice = products._chosen(seconds, flop=6.0, packing=3.0)
    assert (choice.as_it_lies, choice.packed, choice.rows_to_pack) == expected
    assert choice.rates == tuple((way, 6.0 / seconds[way]) for way in sorted(seconds, key=seconds.__getitem__))


@needs_onednn
def test_what_is_measured_to_be_fastest_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor whose oneDNN takes five times as long, and on one whose ``addmm`` does."""
    weight = torch.ones(512, 1024)
    gelu = blocks.ACTIVATIONS["gelu"]
    for slow, expected in (
        (lambda way: way.onednn, (ADDMM, None)),
        (lambda way: not way.onednn, (FUSED, PACKED)),
        (lambda way: way.onednn and not way.packed, (ADDMM, PACKED)),
    ):
        seconds = {way: 5.0 if slow(way) else 1.0 - 0.2 * way.packed - 0.1 * way.fused for way in WAYS}
        monkeypatch.setattr(products, "_seconds", lambda found, *_, s=seconds: {way: s[way] for way in found})
        products._measured.cache_clear()
        choice = choose(weight, bias=True, activation=gelu)
        assert (choice.as_it_lies, choice.packed) == expected
    products._measured.cache_clear()


def test_a_model_says_how_its_products_are_made(gpt2: HookedTransformer) -> None:
    width = gpt2.cfg.d_model
    assert gpt2.blocks.measured().choices() == {
        f"{width} x {width} (q, k, v, o)": NO_CHOICE,
        f"{width} x {4 * width} (mlp_in)": NO_CHOICE,
        f"{4 * width} x {width} (mlp_out)": NO_CHOICE,
    }


# ---- sweeps, whichever way is taken ----


@BOTH
@EVERY_WAY
@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_post"])
def test_sweeps_equal_plain_hooks_in_every_way(
    model: HookedTransformer, way: Way, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists(way)
    pairs = scattered_pairs()
    at = [3, 5]
    masks = [np.tile(np.arange(pairs.clean.ids.shape[1]) == position, (len(pairs), 1)) for position in at]
    heads: list[int | None] = list(range(model.cfg.n_heads)) if site == "z" else [None]
    expected = one_by_one(model, pairs, site, "denoising", heads, masks)
    force(model, way, monkeypatch)
    found = sweep(model, pairs, site, positions=at)
    close(
        found.patched.transpose("prompt", "layer", ..., "position"),
        expected.squeeze(2) if site != "z" else expected,
        size=LOGITS,
    )
    assert np.array_equal(found.patched, sweep(model, pairs, site, positions=at).patched), "the same bits again"


@BOTH
@EVERY_WAY
def test_paths_and_ablations_are_the_same_in_every_way(
    model: HookedTransformer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists(way)
    pairs = ragged_pairs()
    plain = path_patching(model, pairs), ablation_sweep(model, pairs, "mlp_post", "zero")
    force(model, way, monkeypatch)
    for found, expected in zip(
        (path_patching(model, pairs), ablation_sweep(model, pairs, "mlp_post", "zero")), plain, strict=True
    ):
        name = "patched" if "patched" in found else "ablated"
        close(found[name], expected[name], size=LOGITS)


@needs_onednn
def test_packed_weights_are_planned_and_left_out_where_memory_is_short(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ragged_pairs()
    without = plan(gpt2, pairs, "z").peak_bytes
    force(gpt2, Way(True, True, True), monkeypatch)
    size = gpt2.blocks.packable_bytes
    assert size == sum(matrix.weight.nbytes for block in gpt2.blocks.layers for matrix in block.matrices.values())
    made: list[int] = []
    original = products.pack
    monkeypatch.setattr(products, "pack", lambda weight, rows: made.append(rows) or original(weight, rows))
    effect = sweep(gpt2, pairs, "z")
    assert effect.attrs["planned_peak_bytes"] - without == size
    assert len(made) == 6 * gpt2.cfg.n_layers
    sweep(gpt2, pairs, "z", memory=4 * size)
    assert len(made) == 6 * gpt2.cfg.n_layers, "too little memory to hold them twice"
