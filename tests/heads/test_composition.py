"""Composition scores: by hand on matrices of two by two, and against whole matrices in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import HookedTransformer, InterpError, heads
from interp.heads.composition import _Factors, _shares
from tests.heads.test_roles import native
from tests.tolerance import close


def factors(left: list[list[float]], right: list[list[float]]) -> _Factors:
    return _Factors(*(torch.tensor([one], dtype=torch.float64) for one in (left, right)))


def test_by_hand_on_matrices_of_two_by_two() -> None:
    first = factors([[1, 0], [0, 0]], [[1, 0], [0, 1]])  # moves the first entry to the first
    keeps = factors([[1, 0], [0, 1]], [[3, 0], [0, 4]])  # reads both, with norm 5
    other = factors([[0, 0], [0, 1]], [[1, 0], [0, 1]])  # reads the second entry alone
    close(_shares(first, first), [[1.0]], dtype="float64")
    close(_shares(first, keeps), [[3 / 5]], dtype="float64")  # ||[[3, 0], [0, 0]]|| / (1 * 5)
    close(_shares(first, other), [[0.0]], dtype="float64", size=1.0)


def test_by_hand_in_a_model_of_two_layers() -> None:
    """L0H0 moves entry 0 to entry 2, which L1H0 looks for in keys, L1H1 passes on, and nothing asks for as a query."""
    model = native(2, 2, 4, 2, 5, 6)
    for layer, head, parts in (
        (0, 0, {"v": (0, 0), "o": (0, 2)}),
        (1, 0, {"q": (3, 0), "k": (2, 0)}),
        (1, 1, {"v": (2, 1), "o": (1, 3)}),
    ):
        attn = model.bridge.blocks[layer].attn
        for name, (one, other) in parts.items():
            weight = getattr(attn, name).original_component.weight
            at = (other, 2 * head + one) if name == "o" else (2 * head + other, one)
            weight.data[at] = 1.0
    found = heads.composition(HookedTransformer.from_bridge(model.bridge, name="by hand"))["composition"]
    # LayerNorm takes the mean away: an entry e_i is read through e_i - 1/4, whose share along e_i is (3/4) / sqrt(3/4).
    share = 0.75**0.5
    for kind, reader, expected in (("k", "L1H0", share), ("v", "L1H1", share), ("q", "L1H0", (1 / 12) ** 0.5)):
        close(found.sel(kind=kind, writer_head="L0H0", reader_head=reader), expected, size=1.0)


def test_a_p_value_is_a_share_of_random_pairs(gpt2: HookedTransformer) -> None:
    """Random heads are below 5% as often as they should be, whatever the model's sizes."""
    p_values = heads.composition(gpt2)["p_value"].values
    p_values = p_values[np.isfinite(p_values)]
    assert ((p_values > 0) & (p_values <= 1)).all()
    assert 0.01 < (p_values <= 0.05).mean() < 0.12


def whole(model: HookedTransformer, layer: int, head: int, kind: str) -> np.ndarray:
    attn = model.bridge.blocks[layer].attn
    index = head if kind == "Q" else head // (model.cfg.n_heads // model.cfg.n_kv_heads)
    weight = getattr(attn, f"W_{kind}")[index].detach().double().numpy()
    norm = model.bridge.blocks[layer].ln1
    gamma = norm.weight.detach().double().numpy()[:, None]
    folded = gamma * weight
    return folded if norm.uses_rms_norm else folded - folded.mean(axis=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_they_are_norms_of_whole_matrices(family: str, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(family)
    w_o = [model.W_O(layer).double().numpy() for layer in range(3)]
    found = heads.composition(model)
    for writer, reader in (((0, 1), (1, 3)), ((1, 2), (2, 0))):
        moved = whole(model, *writer, "V") @ w_o[writer[0]][writer[1]]
        compared = whole(model, *reader, "Q") @ whole(model, *reader, "K").T
        carried = whole(model, *reader, "V") @ w_o[reader[0]][reader[1]]
        at = {"writer_head": "L{}H{}".format(*writer), "reader_head": "L{}H{}".format(*reader)}
        for kind, later in (("q", compared), ("k", compared.T), ("v", carried)):
            norms = [np.linalg.norm(one) for one in (moved @ later, moved, later)]
            close(found["composition"].sel(kind=kind, **at), norms[0] / (norms[1] * norms[2]), size=1.0)
    assert np.isnan(found["composition"].sel(writer_head="L1H0", reader_head=["L0H0", "L1H1"])).all()


def test_rotary_scores_are_those_of_the_rotation_between_two_words(llama: HookedTransformer) -> None:
    model = llama
    angles = 3 * 10000.0 ** (-np.arange(4) / 4)
    cos, sin = np.diag(np.cos(angles)), np.diag(np.sin(angles))
    turn = np.block([[cos, sin], [-sin, cos]])  # of row vectors, by three tokens
    moved = whole(model, 0, 1, "V") @ model.W_O(0)[1].double().numpy()
    compared = whole(model, 1, 2, "Q") @ turn @ whole(model, 1, 2, "K").T
    expected = np.linalg.norm(moved @ compared) / (np.linalg.norm(moved) * np.linalg.norm(compared))
    at = {"kind": "q", "writer_head": "L0H1", "reader_head": "L1H2"}
    found = heads.composition(model, distance=3)["composition"].sel(at)
    close(found, expected, size=1.0)
    assert abs(float(found - heads.composition(model)["composition"].sel(at))) > 1e-3


def test_random_heads_are_at_the_baseline(gpt2: HookedTransformer) -> None:
    found = heads.composition(gpt2)
    assert abs(float(found["above_baseline"].mean())) < 0.15 * float(found["baseline"][0])


def test_a_distance_outside_the_context_is_refused(gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match=r"distance is 24, outside the context of .*: give 0 to 23"):
        heads.composition(gpt2, distance=24)
