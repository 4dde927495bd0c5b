"""A model without its weights: what is planned with it is what is planned with the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from analyses import registry
from interp import HookedTransformer, capture, tasks
from interp.errors import InterpError
from interp.model.outline import LAYERS, outlined
from interp.sweeps import Ablation, AttentionKnockout, Patching, PathPatching, plan
from tests.families import FAMILIES
from tests.tiny import scattered_pairs

STATEMENTS = (
    Patching(["resid_pre", "z"], "denoising"),
    Ablation("z", "zero"),
    AttentionKnockout(["noun<-color"]),
    PathPatching("denoising", senders=["L0H1"], receivers=["L1H0.q"]),
)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])  # two that are read piece by piece, one by hooks
def test_what_is_known_without_the_weights_is_what_loading_finds(name: str, tmp_path: Path) -> None:
    directory = FAMILIES[name].build(tmp_path / "whole")
    shutil.copytree(directory, tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    model, outline = HookedTransformer.from_pretrained(directory), outlined(tmp_path / "empty").whole
    assert model.cfg.n_layers > LAYERS
    for attribute in ("cfg", "sites", "misnamed", "read_only", "n_parameters", "config_sha256", "weight_bytes"):
        assert getattr(outline, attribute) == getattr(model, attribute), attribute
    assert (outline.blocks is None) == (model.blocks is None) == (name == "gemma2")


@pytest.mark.parametrize("asked", STATEMENTS, ids=lambda asked: type(asked).__name__)
def test_sweeps_are_planned_alike(llama: HookedTransformer, llama_directory: Path, asked: Any) -> None:
    pairs = scattered_pairs()
    assert plan(outlined(llama_directory).whole, pairs, asked) == plan(llama, pairs, asked)


@pytest.fixture(scope="module")
def outline() -> HookedTransformer:
    return outlined("mini").whole


@pytest.mark.parametrize("name", [name for name, one in registry.ordered(registry.names()).items() if one.plans])
def test_analyses_are_planned_alike(mini: HookedTransformer, outline: HookedTransformer, name: str) -> None:
    planned = registry.get(name).function("planned")
    pairs = tasks.build("color-noun-es", tokenizer=mini, n=3)
    assert planned(outline, pairs) == planned(mini, pairs)


def test_an_outline_is_never_run(outline: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="can be planned with, not run"):
        capture(outline, ["The cat"], sites=["z"])
    with pytest.raises(InterpError, match="can be planned with, not run"):
        outline.unembed(outline.W_U().T[:1])
    with pytest.raises(InterpError, match="can be planned with, not run"):
        outline.resume(outline.W_U().T[None, :2], 0)
    assert outline.blocks is not None
    assert outline.blocks.token.is_meta  # a sweep on the blocks would fail at its first step
    with pytest.raises(InterpError, match="Unknown dtype"):
        outlined("mini", dtype="int8")
