"""The store: what is finished is not run again, and nothing of other runs is taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.store import ROW, Store
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, sweep, sweep_sites
from interp.sweeps import through_hooks as hooks
from interp.sweeps.exact import cost as limits
from interp.sweeps.exact import execute
from tests.tiny import LOGITS, make_gpt2, ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close

Sweep = Callable[..., xr.Dataset]

KINDS: dict[str, Sweep] = {
    "sweep": lambda m, p, **more: sweep(m, p, "z", roles=["color", "noun"], **more),
    "positions": lambda m, p, **more: sweep(m, p, "resid_mid", roles=["color", "noun"], **more),
    "window": lambda m, p, **more: sweep(m, p, "resid_pre", "noising", window=2, roles=["color"], **more),
    "mean": lambda m, p, **more: ablation_sweep(m, p, "mlp_out", "mean", roles=["noun", "color"], **more),
    "cut": lambda m, p, **more: knockout_sweep(m, p, ["noun<-color"], by_head=True, **more),
    "paths": path_patching,
}


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs()


def numbers(effect: xr.Dataset) -> np.ndarray:
    return np.asarray(effect[next(name for name in ("patched", "ablated", "cut") if name in effect)])


def interrupted_after(n: int, original: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > n:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    return call


@pytest.mark.parametrize("engine", ["weights", "hooks"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_sweep_goes_on_where_it_stopped(
    gpt2: HookedTransformer, pairs: PromptPairs, kind: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (kind, engine) == ("paths", "hooks"):
        pytest.skip("paths run on the weights only")
    if engine == "hooks":
        without_blocks(monkeypatch, gpt2)
    run = KINDS[kind]
    plain = run(gpt2, pairs)
    with monkeypatch.context() as small:
        small.setattr(limits, "TOKENS_PER_BATCH", {"cpu": 12})
        small.setattr(limits, "BATCH_BYTES", {"cpu": 0})
        small.setattr(hooks.run, "rows_per_batch", lambda model, length: 3)
        small.setattr(execute, "run_batch", interrupted_after(2, execute.run_batch))
        if engine == "hooks":
            small.setattr(gpt2, "resume", interrupted_after(2, gpt2.resume))
        with pytest.raises(KeyboardInterrupt):
            run(gpt2, pairs, store=tmp_path)
    seen: list[tuple[int, int]] = []
    rest = run(gpt2, pairs, store=tmp_path, progress=lambda *counts: seen.append(counts))
    assert 0 < rest.attrs["rows_kept"] < plain.attrs["rows_run"]
    assert rest.attrs["rows_run"] == plain.attrs["rows_run"] - rest.attrs["rows_kept"]
    close(numbers(rest), numbers(plain), size=LOGITS)
    assert seen[-1][0] == seen[-1][1]
    again = run(gpt2, pairs, store=Store.at(tmp_path))
    assert (again.attrs["rows_run"], again.attrs["rows_kept"]) == (0, plain.attrs["rows_run"])
    np.testing.assert_array_equal(numbers(again), numbers(rest))
    assert "rows_kept" in plain.attrs
    assert plain.attrs["rows_kept"] == 0


def test_sites_and_whole_answers_are_kept_too(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path) -> None:
    first = sweep_sites(gpt2, pairs, ["z", "resid_mid", "resid_post"], store=tmp_path)
    again = sweep_sites(gpt2, pairs, ["z", "resid_mid", "resid_post"], store=tmp_path)
    for site, effect in again.items():
        assert effect.attrs["rows_run"] == 0
        np.testing.assert_array_equal(effect.patched, first[site].patched)
    alone = sweep(gpt2, pairs, "z", store=tmp_path)
    assert alone.attrs["rows_run"] == 0, "one site of several is the sweep of that site"


def test_whatever_changes_the_numbers_makes_another_journal(
    gpt2: HookedTransformer, llama: HookedTransformer, pairs: PromptPairs, tmp_path: Path
) -> None:
    other = scattered_pairs()
    calls: list[Callable[[], xr.Dataset]] = [
        lambda: sweep(gpt2, pairs, "z", store=tmp_path),
        lambda: sweep(llama, pairs, "z", store=tmp_path),
        lambda: sweep(gpt2, other, "z", store=tmp_path),
        lambda: sweep(gpt2, pairs, "v", store=tmp_path),
        lambda: sweep(gpt2, pairs, "z", "noising", store=tmp_path),
        lambda: sweep(gpt2, pairs, "z", metric="log_probability", store=tmp_path),
        lambda: sweep(gpt2, pairs, "z", layers=[0], store=tmp_path),
        lambda: sweep(gpt2, pairs, "z", roles=["color"], store=tmp_path),
        lambda: sweep(gpt2, pairs, "z", precision="bfloat16", store=tmp_path),
        lambda: ablation_sweep(gpt2, pairs, "z", "zero", store=tmp_path),
        lambda: ablation_sweep(gpt2, pairs, "z", "mean", store=tmp_path),
        lambda: ablation_sweep(gpt2, pairs, "z", "resample", store=tmp_path),
        lambda: knockout_sweep(gpt2, pairs, ["noun<-color"], store=tmp_path),
        lambda: knockout_sweep(gpt2, pairs, ["answer<-color"], store=tmp_path),
        lambda: path_patching(gpt2, pairs, store=tmp_path),
        lambda: path_patching(gpt2, pairs, senders=["embed"], store=tmp_path),
    ]
    for i, call in enumerate(calls):
        assert call().attrs["rows_kept"] == 0, i
        assert len(list(tmp_path.iterdir())) == i + 1
    assert all(call().attrs["rows_run"] == 0 for call in calls)


def test_a_row_that_was_cut_short_is_run_again(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path) -> None:
    plain = sweep(gpt2, pairs, "z", store=tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for cut in (5, ROW.itemsize * 3 + 1):
        file.write_bytes(content[:-cut])
        again = sweep(gpt2, pairs, "z", store=tmp_path)
        assert again.attrs["rows_run"] == cut // ROW.itemsize + 1
        close(again.patched, plain.patched, size=LOGITS)
        assert len(file.read_bytes()) == len(content), "the next row is written over it"


@pytest.mark.parametrize("kind", ["sweep", "paths"])
def test_a_damaged_journal_gives_the_numbers_of_a_fresh_one(
    gpt2: HookedTransformer, pairs: PromptPairs, kind: str, tmp_path: Path
) -> None:
    plain = numbers(KINDS[kind](gpt2, pairs, store=tmp_path))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    half = len(whole) // 2
    for spoilt in (
        whole + bytes(1024),
        whole[:half] + bytes(len(whole) - half),
        whole[:20],
        bytes([whole[0] ^ 1]) + whole[1:],
        whole[: -ROW.itemsize // 2] + bytes([whole[-ROW.itemsize // 2] ^ 64]) + whole[-ROW.itemsize // 2 + 1 :],
    ):
        file.write_bytes(spoilt)
        close(numbers(KINDS[kind](gpt2, pairs, store=tmp_path)), plain, size=LOGITS)


def test_weights_that_were_changed_after_loading_are_noticed(pairs: PromptPairs, tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(make_gpt2(tmp_path / "model"))
    for run in (KINDS["sweep"], KINDS["paths"]):
        run(model, pairs, store=tmp_path / "store")
    model.bridge.blocks[2].mlp.out.original_component.weight.data *= 1.5
    for run in (KINDS["sweep"], KINDS["paths"]):
        with pytest.raises(InterpError, match="written with other weights") as caught:
            run(model, pairs, store=tmp_path / "store")
        assert "\n" not in str(caught.value)


def test_what_is_no_store_is_refused(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=r"store is float\. Give the path of a directory"):
        sweep(gpt2, pairs, "z", store=0.5)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("text")
    with pytest.raises(InterpError, match=r"is a file\. Name a directory"):
        sweep(gpt2, pairs, "z", store=tmp_path / "file")
    sweep(gpt2, pairs, "z", store=tmp_path / "store")
    (file,) = (tmp_path / "store").iterdir()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InterpError, match=r"cannot be read \(it is a named pipe, not a file\)\. Remove it"):
        sweep(gpt2, pairs, "z", store=tmp_path / "store")
    with pytest.raises(InterpError, match=r"Name a directory|cannot"):
        sweep(gpt2, pairs, "z", store=tmp_path / "file" / "inside")
