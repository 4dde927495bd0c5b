"""Tables of every combination of some values, most of them slow."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import pytest


def combinations(usual: Collection[tuple[Any, ...]], **axes: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by every combination of the axes' values; those that are not ``usual`` are slow."""
    every = list(itertools.product(*axes.values()))
    strangers = [one for one in usual if one not in every]
    if strangers:
        raise ValueError(f"No such combination: {strangers}.")
    cases = [pytest.param(*one, marks=() if one in usual else pytest.mark.slow) for one in every]
    return pytest.mark.parametrize(",".join(axes), cases)
