"""What was killed, whenever, goes on with the same command to the same results."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def kill(python: Python, **how_many: int) -> Counter[str]:
    """How often each kind of job was killed in a campaign, in which nothing may be wrong."""
    options = [text for name, number in how_many.items() for text in (f"--{name}", str(number))]
    done = python("-m", "tests.kills.harness", *options)
    assert done.stdout, done.stderr
    outcomes: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome for outcome in outcomes if outcome["code"] or outcome["wrong"]] == []
    assert done.returncode == 0, done.stderr
    assert Counter(outcome["job"] for outcome in outcomes) == Counter(how_many)
    killed = Counter[str]()
    for outcome in outcomes:
        killed[outcome["job"]] += outcome["killed"]
    return killed


@pytest.mark.slow
def test_a_sample_of_kills(python: Python) -> None:
    killed = kill(python, runs=4, stores=8, captures=8)
    assert min(killed[name] for name in ("runs", "stores", "captures")) >= 4


@pytest.mark.kills
def test_a_thousand_kills(python: Python) -> None:
    workers = {"drivers": 20, "workers": 30} if importlib.util.find_spec("ray") else {}
    assert kill(python, runs=100, stores=450, captures=450, **workers).total() >= 1000
