"""Every new analysis says what it costs; what is left open is taken by cost, and the result says so."""

from __future__ import annotations

from typing import Any

import pytest

from analyses import circuit_evaluation, lenses, places
from analyses.bundled import BUNDLED
from interp import tasks
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import budget
from interp.sweeps.planning import Plan, Timed
from tests.tiny import scattered_pairs

PLANNED = [name for name, analysis in BUNDLED.items() if analysis.plans]


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=8)


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_grows_with_the_prompts_and_holds_for_other_models(
    name: str, mini: HookedTransformer, llama: HookedTransformer, pairs: PromptPairs
) -> None:
    planned = BUNDLED[name].function("planned")
    few, all_of_them = (sum(_cost(plan) for plan in planned(mini, some)) for some in (pairs.spread(4), pairs))
    assert 0 < few <= all_of_them
    for plan in planned(llama, scattered_pairs()):
        assert plan.rows_in_all >= plan.rows >= 0
        assert _cost(plan) > 0
        assert plan.peak_bytes >= 0


def _cost(plan: Plan | Timed) -> float:
    """Operations, or seconds where the time of the work was measured instead. One plan has one of the two."""
    return plan.seconds if isinstance(plan, Timed) else plan.flop


def test_the_usual_numbers_are_taken_where_they_are_quick(
    mini: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, _ = lenses.lenses.held_out(pairs)
    open_: Any = {"steps": None, "tokens": 128, "jacobian_prompts": None, "sites": None, "targets": "later"}
    assert lenses._affordable(mini, texts, **open_) == (lenses.STEPS, lenses.JACOBIAN_PROMPTS)
    assert circuit_evaluation._affordable(mini, pairs, ["zero"], None, 6, 12) == circuit_evaluation.N_RANDOM
    some, steps, less = places._affordable(mini, pairs, "resid_pre", None, None, None, True, None)
    assert (len(some), steps, less) == (8, places.STEPS, "")
    monkeypatch.setattr(budget, "CPU_BUDGET", 1.0)
    assert lenses._affordable(mini, texts, **open_) == (0, 1)
    assert lenses._affordable(mini, texts, **{**open_, "steps": 3, "jacobian_prompts": 2}) == (3, 2)
    assert circuit_evaluation._affordable(mini, pairs, ["zero"], None, 6, 12) == circuit_evaluation.FEWEST
    some, steps, less = places._affordable(mini, pairs, "resid_pre", None, None, None, True, None)
    assert (len(some), steps, less) == (6, 6, "max_prompts: 6 of 8; steps: 6 of 20")
