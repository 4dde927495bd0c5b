"""The tools that the sweeps are measured against, each used as its own documentation does."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from tests.benchmarks.workload import Workload

NAMES = {"transformer-lens": "lens", "nnsight": "sight", "pyvene": "vene"}
"""Name of the distribution -> module beside this file."""


class Peer(Protocol):
    """One tool with one workload loaded.

    Attributes:
        name: of the distribution, and how it is used where that is not as its documentation says.
        absent: sites that it cannot patch as asked, with the reason.
        unit: how many cells it runs at once: ``"cell"``, ``"layer"`` (every cell of one site and layer) or ``"sender"``
            (every edge out of one head into queries, keys or values).
    """

    name: str
    absent: dict[str, str]
    unit: str

    def prepare(self, sites: Sequence[str]) -> None:
        """What is done once for a whole sweep: read the clean activations."""

    def run(self, groups: Sequence[Sequence[Any]]) -> list[float]:
        """Mean metric after each patch, group after group."""


def load(name: str, work: Workload) -> list[Peer]:
    """The peer of that name on the same weights and prompts, in each way it is measured.

    Raises:
        ImportError: it is not installed.
    """
    module = importlib.import_module(f"tests.benchmarks.peers.{NAMES[name]}")
    found: list[Peer] = module.load(work)
    return found
