"""How much of what was left open is computed: as much as is usual, or less where that takes long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.model import HookedTransformer

CPU_BUDGET = 5e12
"""Floating-point operations that one analysis spends where its settings are left open.

That is two minutes of a core that makes 4e10 of them a second. Narrow matrices are slower: 4e9 were measured of sweeps
of ``mini``, beside other work. ``python -m tests.benchmarks.budget`` says how long they take on a machine.
"""
ACCELERATOR_BUDGET = 1e15


def within_budget(model: HookedTransformer, choices: Sequence[int], flop: Callable[[int], float]) -> int:
    """The first of some choices that costs no more than one analysis may spend unasked; the last one if none does.

    Args:
        model: on a CPU or an accelerator.
        choices: from the one that is wanted to the least that makes sense.
        flop: what a choice costs.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> within_budget(model, range(20, 4, -1), lambda n: n * CPU_BUDGET / 12)
    12
    """
    budget = CPU_BUDGET if model.device.type == "cpu" else ACCELERATOR_BUDGET
    return next((one for one in choices if flop(one) <= budget), choices[-1])


def bounded(chosen: Mapping[str, tuple[int, int]]) -> str:
    """What is less than it would be on a quicker model, as the attribute ``bounded`` of a result says it.

    Args:
        chosen: setting -> what was taken, and what is taken where it is quick.

    >>> bounded({"steps": (3, 20), "n_random": (10, 10)})
    'steps: 3 of 20'
    """
    return "; ".join(f"{name}: {taken} of {usual}" for name, (taken, usual) in chosen.items() if taken < usual)
