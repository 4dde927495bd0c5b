"""A run that was killed, whenever, goes on with the same command to the same results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def kill(python: Python, **how_many: int) -> list[dict[str, Any]]:
    """What came of a campaign of kills."""
    options = [text for name, number in how_many.items() for text in (f"--{name}", str(number))]
    done = python("-m", "tests.kills.harness", *options)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome for outcome in outcomes if outcome["code"] or outcome["wrong"]] == []


@pytest.mark.slow
def test_a_sample_of_kills(python: Python) -> None:
    outcomes = kill(python, events=3, times=1, terms=1)
    check(outcomes)
    assert sum(outcome["killed"] for outcome in outcomes) >= 3


@pytest.mark.kills
def test_a_kill_at_every_event_and_at_random_times(python: Python) -> None:
    outcomes = kill(python, events=1000, times=15, terms=10)
    check(outcomes)
    assert sum(outcome["killed"] for outcome in outcomes) >= 50
