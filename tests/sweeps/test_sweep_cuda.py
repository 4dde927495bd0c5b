"""Sweeps on a GPU give the numbers of the CPU. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.attribution import attribution_patching, edge_attribution
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.readouts import projection
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, sweep, sweep_sites
from tests.tiny import LOGITS, VOCAB, make_gpt2, random_ids
from tests.tolerance import allowed, close

pytestmark = pytest.mark.cuda
SITES = (
    "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_post", "z", "q", "k", "v", "pattern",
)  # fmt: skip


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def both(request: pytest.FixtureRequest, gpu: str) -> tuple[HookedTransformer, HookedTransformer]:
    """The same model on the CPU and on the GPU."""
    directory: Path = request.getfixturevalue(f"{request.param}_directory")
    here = request.getfixturevalue(request.param)
    assert here.device.type == "cpu"
    return here, HookedTransformer.from_pretrained(directory, device=gpu)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    clean = random_ids(4, 8)
    corrupted = clean.copy()
    corrupted[:, 3] = (corrupted[:, 3] + 1 + np.arange(4)) % VOCAB
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 3, "noun": 5})


def _same(both: tuple[HookedTransformer, HookedTransformer], run: Any, name: str, **options: Any) -> None:
    here, there = (run(model, **options) for model in both)
    close(there[name], here[name], size=LOGITS)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("options", [{}, {"window": 2}, {"roles": ["color", "noun"]}], ids=str)
def test_sweeps(both: Any, pairs: PromptPairs, site: str, options: dict[str, Any]) -> None:
    _same(both, lambda model: sweep(model, pairs, site, "denoising", **options), "patched")


def test_sites_together(both: Any, pairs: PromptPairs) -> None:
    for site in SITES:
        _same(both, lambda model, site=site: sweep_sites(model, pairs, SITES)[site], "patched")


def test_paths_ablations_and_knockouts(both: Any, pairs: PromptPairs) -> None:
    _same(both, lambda model: path_patching(model, pairs), "patched")
    for kind in ("zero", "mean", "resample"):
        _same(both, lambda model, kind=kind: ablation_sweep(model, pairs, "z", kind), "ablated")
    _same(both, lambda model: knockout_sweep(model, pairs, ["noun<-color"], window=2), "cut")


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "mlp_post", "q", "k", "z", "result"])
def test_projections(both: Any, pairs: PromptPairs, site: str) -> None:
    for one in (projection(1, "noun", site=site), projection(1, "noun", "means", site=site)):
        for swept in ("resid_pre", "v", "mlp_pre"):
            _same(
                both, lambda model, s=swept, m=one: sweep(model, pairs, s, metric=m, roles=["color", "noun"]), "patched"
            )
        _same(both, lambda model, m=one: path_patching(model, pairs, metric=m), "patched")
        _same(both, lambda model, m=one: edge_attribution(model, pairs, metric=m, audit=None), "estimated")
        _same(both, lambda model, m=one: attribution_patching(model, pairs, "z", metric=m, audit=None), "estimated")


def test_screening(both: Any, pairs: PromptPairs) -> None:
    exact, screened = (sweep(both[1], pairs, "z", precision=p) for p in ("float32", "bfloat16"))
    error = np.abs(exact.patched.values - screened.patched.values).max()
    assert screened.attrs["screening_max_error"] <= error + allowed("pass", size=LOGITS)
    assert error < 0.1 * np.ptp(exact.patched.values)


def test_batches_are_halved_where_memory_runs_out(gpu: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if gpu != "cuda":
        pytest.skip("a CPU has no limit of its own to run into")
    model = HookedTransformer.from_pretrained(make_gpt2(tmp_path, n_embd=256, n_positions=64), device=gpu)
    clean = random_ids(48, 64)
    corrupted = clean.copy()
    corrupted[:, 0] = (corrupted[:, 0] + 1) % VOCAB
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9)
    free = sweep(model, pairs, "resid_pre")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 300 * 2**20) / total)
    try:
        tight = sweep(model, pairs, "resid_pre")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory" in caplog.text
    close(tight.patched, free.patched, size=LOGITS)
