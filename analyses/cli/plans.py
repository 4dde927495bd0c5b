"""What the sweeps of a study come to, before any is made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyses import registry
from analyses.cli.study import Study
from analyses.registry import Analysis

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Plan

PLANNED = "planned"
"""The function of an analysis's module that gives the plans of its sweeps."""


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of one analysis, all together."""

    rows_in_all: int
    rows: int
    batches: int
    flop: float
    peak_bytes: int

    @classmethod
    def together(cls, parts: Collection[Plan | Sweeps]) -> Sweeps:
        """Several, which run one after the other: their rows and operations, and the memory of the widest."""
        return cls(
            sum(part.rows_in_all for part in parts),
            sum(part.rows for part in parts),
            sum(part.batches for part in parts),
            sum(part.flop for part in parts),
            max((part.peak_bytes for part in parts), default=0),
        )


def planned(
    study: Study, model: HookedTransformer, pairs: PromptPairs, *, without: Collection[str] = ()
) -> dict[str, Sweeps]:
    """Of every analysis of a study that makes sweeps, what they are; ``without`` names those that are left out."""
    return {
        name: Sweeps.together(analysis.function(PLANNED)(model, pairs, **_options(study, analysis)))
        for name, analysis in registry.ordered(study.analyses).items()
        if analysis.plans and name not in without
    }


def _options(study: Study, analysis: Analysis) -> dict[str, Any]:
    settled = {"seed": study.seed} if "seed" in analysis.settled else {}
    return {**study.options(analysis.name), **settled}
