"""Prompts that begin alike: what they share is run once, and every number stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from interp import HookedTransformer, capture, explain, readouts, sweep
from interp.model import reading
from interp.model.arithmetic import Blocks
from interp.prompts import PromptPairs
from tests.tiny import make_llama
from tests.tolerance import close

LONG = 90
TEXT = "The cat is black. " * 20 + "Me encanta el color negro y tengo un gato"


@pytest.fixture
def run_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass brings into the first layer's attention."""
    plain, counted = Blocks.projected, []

    def count(self: Blocks, layer: int, stream: object, *more: object) -> object:
        if layer == 0:
            counted.append(int(np.prod(stream.shape[:-1])))  # type: ignore[attr-defined]
        return plain(self, layer, stream, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Blocks, "projected", count)
    return counted


def long_pairs(mini: HookedTransformer, n: int) -> PromptPairs:
    """Pairs of prompts that all begin with the same ``LONG`` tokens."""
    rng = np.random.default_rng(0)
    begun = rng.integers(2, 1000, LONG).tolist()
    ends = rng.integers(2, 1000, (2, n, 8))
    ends[1, :, 1:] = ends[0, :, 1:]
    clean, corrupted = ([[*begun, *end] for end in side.tolist()] for side in ends)
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"word": LONG, "end": LONG + 6})


def shares(mini: HookedTransformer, pairs: PromptPairs) -> float:
    """How long a stream is beside the difference of which a projection is a share."""
    clean, other = (
        capture(mini, side, "resid_post", ["end"], layers=[3])["resid_post"].values[:, 0, 0]
        for side in (pairs.clean, pairs.corrupted)
    )
    return float((np.linalg.norm(clean, axis=-1) / np.linalg.norm(clean - other, axis=-1)).max())


@pytest.mark.parametrize("site", ["z", "resid_pre", "mlp_out"])
@pytest.mark.parametrize("projected", [False, True])
def test_a_sweep_of_them_has_the_same_numbers(
    site: str, projected: bool, mini: HookedTransformer, run_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = long_pairs(mini, 4)
    metric = readouts.projection(3, "end", site="resid_post") if projected else "logit_difference"
    found = sweep(mini, pairs, site, "denoising", metric, roles=["word", "end"])
    apart = sum(run_tokens)
    run_tokens.clear()
    monkeypatch.setattr(reading, "SHARED", 10**6)
    expected = sweep(mini, pairs, site, "denoising", metric, roles=["word", "end"])
    for name in ("patched", "clean", "corrupted"):
        close(found[name], expected[name], size=shares(mini, pairs) if projected else 30.0, what=name)
    assert sum(run_tokens) - apart >= 3 * LONG  # whole runs of the bridge are not counted


def test_another_counterfactual_does_not_run_the_beginning_again(
    mini: HookedTransformer, run_tokens: list[int]
) -> None:
    tokens = []
    for n in (2, 4):
        run_tokens.clear()
        found = explain(mini, TEXT, "negro", "gato", n=n, continuation=3)
        tokens.append(sum(run_tokens))
    start, length = int(found.pairs.clean.spans("source")[0, 0]), int(found.pairs.clean.lengths[0])
    assert start > 90
    per_word = (tokens[1] - tokens[0]) / 2
    assert per_word < 30 * (length - start)  # some passes over its own few tokens; one over all of them is as much
    assert per_word < 2 * length


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_that_begin_alike_share_one_copy_of_what_is_kept(
    family: str, mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = mini if family == "gpt2" else HookedTransformer.from_pretrained(str(make_llama(tmp_path)))
    blocks, _ = model.own_blocks()
    assert blocks is not None
    begun, more = torch.arange(3, 23)[None], torch.arange(30, 38).reshape(4, 2)
    whole = blocks.forward(torch.cat((begun.expand(4, -1), more), dim=1), fused=False)
    _, memory = reading.Memory.empty(blocks).read(begun)
    rows: list[int] = []
    spread = Blocks.spread

    def count(self: Blocks, x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x) if x.shape[1] == 20 else 0)
        return spread(self, x)

    monkeypatch.setattr(Blocks, "spread", count)
    found = memory.run(more, within=("scores",))
    assert max(rows) == 1
    close(found, whole[:, 20:], size=float(whole.abs().max()))
    fused = memory.run(more)
    close(fused, whole[:, 20:], size=float(whole.abs().max()))
