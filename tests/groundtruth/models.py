"""The hand-made models, each built once for all tests."""

from __future__ import annotations

from functools import cache

from interp import groundtruth
from interp.groundtruth import GroundTruth


@cache
def built(name: str) -> GroundTruth:
    """The model of a name."""
    return groundtruth.build(name)
