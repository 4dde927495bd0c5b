"""Metrics by hand-worked numbers."""

from __future__ import annotations

import math

import pytest
import torch

from interp import metrics
from interp.errors import InterpError
from tests.tolerance import close

LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)], [3.0, 3.0, -1.0]])
CORRECT, INCORRECT = torch.tensor([1, 0]), torch.tensor([2, 1])


def test_hand_worked_values() -> None:
    expected = {
        "logit_difference": [math.log(2 / 5), 0.0],
        "probability": [2 / 8, math.exp(3) / (2 * math.exp(3) + math.exp(-1))],
        "rank": [1.0, 1.0],  # a tie counts against the model
    }
    expected["log_probability"] = [math.log(p) for p in expected["probability"]]
    assert set(expected) == set(metrics.METRICS) == set(metrics.UNITS)
    for name, values in expected.items():
        close(metrics.metric(name)(LOGITS, CORRECT, INCORRECT), values, "arithmetic", size=LOGITS)


def test_logit_difference_ignores_a_shift_of_all_logits() -> None:
    close(
        metrics.logit_difference(LOGITS + 7, CORRECT, INCORRECT),
        metrics.logit_difference(LOGITS, CORRECT, INCORRECT),
        "arithmetic",
        size=LOGITS + 7,
    )


def test_recovered_by_hand() -> None:
    clean, corrupted = torch.tensor([4.0, 1.0]), torch.tensor([-4.0, 0.95])
    patched = torch.tensor([[4.0, -4.0, 0.0, 8.0], [1.0, 0.95, 0.0, 2.0]])
    got = metrics.recovered(patched, clean, corrupted, minimum_gap=0.1)
    close(got[0], [1, 0, 0.5, 1.5], "arithmetic")
    assert torch.isnan(got[1]).all(), "a gap of 0.05 is too small to divide by"


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(InterpError, match=r"Unknown metric 'logit_diff'\. Did you mean 'logit_difference'\?"):
        metrics.metric("logit_diff")
