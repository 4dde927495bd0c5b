"""The plan of whole runs: its operations against those that torch counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from interp.prompts.tokens import Prompts
from interp.sweeps import Timed, costly, passes

IDS = np.random.default_rng(0).integers(1, 60, (3, 9))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_operations_are_those_that_torch_counts(name: str, request: pytest.FixtureRequest) -> None:
    model: Any = request.getfixturevalue(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward(torch.from_numpy(IDS))
    planned = passes(model, Prompts.from_ids(IDS), unembedded=IDS.shape[1])
    assert counter.get_total_flops() == planned.flop
    assert planned.rows == 3


def test_gradients_with_respect_to_activations_cost_as_much_as_the_run(gpt2: Any) -> None:
    with FlopCounterMode(display=False) as counter:
        stream = torch.zeros(3, 9, gpt2.cfg.d_model, requires_grad=True)
        gpt2.blocks.layers[0].q.weight.requires_grad_(False)
        torch.autograd.grad((stream @ gpt2.blocks.layers[0].q.weight).sum(), stream)
    assert counter.get_flop_counts()["Global"][torch.ops.aten.mm] == 2 * 2 * 27 * gpt2.cfg.d_model**2
    prompts = Prompts.from_ids(IDS)
    forward, both = (passes(gpt2, prompts, backward=times, besides=7) for times in (0, 1))
    assert both.flop - 7 == 2 * (forward.flop - 7)
    assert both.peak_bytes > forward.peak_bytes


def test_memory_and_batches_by_hand(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.sweeps.planning.rows_per_batch", lambda model, length: 2)
    prompts, d, m, h, n_layers, vocab = Prompts.from_ids(IDS), 32, gpt2.cfg.d_mlp, 4, 3, gpt2.cfg.vocab_out
    planned = passes(gpt2, prompts, forward=1.5, unembedded=2)
    # Of each of two prompts of 9 tokens: eight streams, neurons twice, scores three times; two rows of logits.
    assert planned.peak_bytes == 4 * 2 * (9 * (8 * d + 2 * m + 3 * h * 9) + 2 * vocab)
    assert (planned.rows, planned.rows_in_all, planned.batches, planned.chunks) == (5, 5, 3, (3,))  # 4.5 runs, by two
    assert planned.tokens_per_batch == 2 * 9
    graph = n_layers * 9 * (12 * d + 4 * m + 5 * h * 9)
    assert passes(gpt2, prompts, forward=0, backward=1, unembedded=2).peak_bytes == planned.peak_bytes + 4 * graph


def test_a_run_is_costly_above_a_billion_operations_of_one_prompt(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = passes(gpt2, Prompts.from_ids(IDS[:1])).flop
    for most, expected in ((one - 1, True), (one, False)):
        monkeypatch.setattr("interp.sweeps.planning.COSTLY", most)
        assert costly(gpt2, Prompts.from_ids(IDS)) is expected


def test_what_is_timed_counts_no_operations() -> None:
    timed = Timed(rows=3, seconds=7.0)
    assert (timed.flop, timed.peak_bytes, timed.rows_in_all, timed.batches) == (0, 0, 3, 3)
