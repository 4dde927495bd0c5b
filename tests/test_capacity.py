"""The capacity model: published sizes, hand-worked bills, and a real plan that scales as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp import HookedTransformer, InterpError, capacity, tasks
from interp.capacity import SHAPES, Bill, Device, Shape, Work, bill
from interp.prompts import PromptPairs
from interp.sweeps import plan
from interp.sweeps.exact.planner import joined
from interp.sweeps.planning import passes
from tests.tiny import make_gpt2
from tests.tolerance import near


@pytest.mark.parametrize(
    ("name", "billions"), [("gpt2", 0.124), ("gpt2-xl", 1.557), ("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.55)]
)
def test_shapes_have_the_published_numbers_of_parameters(name: str, billions: float) -> None:
    near(SHAPES[name].n_parameters / 1e9, billions, 0.005 * billions, why="published to three digits")


def test_a_bill_by_hand() -> None:
    work = Work(rows=7, flop=6e12, peak_bytes=1_000, weight_bytes=4_000)
    gpu, cpu = Device("gpu", 2e12, 6_000, "extrapolated"), Device("cpu", 1e12, 6_000, "measured", shared=True)
    assert bill(work, gpu) == Bill("gpu", 1, 5_000, True, 3.0, "extrapolated")
    assert bill(work, gpu, 3) == Bill("gpu", 3, 5_000, True, 1.0, "extrapolated")
    assert bill(work, cpu) == Bill("cpu", 1, 5_000, True, 6.0, "measured")
    assert bill(work, cpu, 2) == Bill("cpu", 2, 5_000, False, 6.0, "measured")
    assert bill(work, Device("x", 1.0, None, "measured")).fits is None
    with pytest.raises(InterpError, match="workers"):
        bill(work, cpu, 0)
    with pytest.raises(InterpError, match="Rows depend on the numbers of layers and heads"):
        work.scaled(SHAPES["gpt2"], SHAPES["gpt2-xl"], length=10)


def test_every_gpu_is_labelled_with_its_source() -> None:
    sources = {"extrapolated": "data sheet", "measured": "tests/benchmarks/gpu.py"}
    assert all(sources[one.how] in one.source for one in capacity.GPUS)


def test_the_guessed_share_of_a_peak_is_what_the_measured_gpu_reached() -> None:
    measured = [one for one in capacity.GPUS if one.how == "measured"]
    assert [one.name for one in measured] == ["H200"]
    near(measured[0].rate / 67e12, capacity.UTILISATION, 0.01, why="a share of two digits; 67e12 is NVIDIA's peak")


@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_a_plan_of_a_wider_model_is_the_scaled_plan_of_a_narrow_one(site: str, tmp_path: Path) -> None:
    """Two real models of as many layers and heads: the rows are equal, and the operations scale with the matrices."""
    pairs = PromptPairs.from_tokens(
        [[1, 2, 3, 4, 5, 6, 7, 8]] * 2, [[1, 2, 9, 4, 5, 6, 7, 8], [1, 2, 8, 4, 5, 6, 7, 8]], correct=3, incorrect=4
    )
    found = {}
    for width in (32, 128):
        model = HookedTransformer.from_pretrained(make_gpt2(tmp_path / str(width), n_embd=width))
        found[width] = plan(model, pairs, site)
    shapes = {width: Shape(3, width, 4, 4, width // 4, 4 * width, False, 60, True, 24) for width in found}
    narrow = Work(found[32].rows, found[32].flop, found[32].peak_bytes, 0)
    wide = narrow.scaled(shapes[32], shapes[128], length=8)
    assert wide.rows == found[128].rows
    near(wide.flop, found[128].flop, 0.1 * found[128].flop, why="extrapolated from another width")
    assert wide.how == "extrapolated"


def test_several_workers_take_no_less_than_what_they_cannot_divide() -> None:
    work = Work(rows=7, flop=6e12, peak_bytes=0, weight_bytes=0, undivided=4e12)
    gpu, cpu = Device("gpu", 2e12, None, "extrapolated"), Device("cpu", 1e12, None, "measured", shared=True)
    assert [bill(work, gpu, n).seconds for n in (1, 2, 3)] == [3.0, 2.0, 2.0]
    assert [bill(work, cpu, n).seconds for n in (1, 2)] == [6.0, 6.0]


def test_workers_divide_neither_the_unchanged_runs_nor_the_largest_batch(mini: HookedTransformer) -> None:
    """Two rows of a prompt, in one batch and in two; for two batches the runs are made here and by each worker."""
    pairs = tasks.build("color-noun", tokenizer=mini, n=1)
    together = plan(mini, pairs, "resid_pre", layers=[0])
    apart = plan(mini, pairs, "resid_pre", layers=[0], memory=4 << 20)
    assert (together.rows, together.batches, apart.batches) == (2, 1, 2)
    near(together.undivided, together.flop, 0.03 * together.flop, why="all but what rows do before their batch")
    runs = passes(mini, pairs.clean, forward=2).flop  # without logits
    by_hand = 2 * runs + (together.flop - runs) / 2
    near(apart.undivided, by_hand, 0.05 * by_hand, why="by hand without logits of the runs")
    assert joined([apart, apart]).undivided == 2 * apart.undivided
