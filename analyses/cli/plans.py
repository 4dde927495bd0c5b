"""What the sweeps of a study come to, before any is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyses import registry
from analyses.cli.study import Study
from analyses.registry import Analysis

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Plan, Timed

PLANNED = "planned"
"""The function of an analysis's module that gives the plans of its sweeps."""


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of one analysis, all together; ``seconds`` are those of work that is timed and not counted."""

    rows_in_all: int = 0
    rows: int = 0
    batches: int = 0
    flop: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0
    undivided: float = 0.0

    @classmethod
    def together(cls, parts: Collection[Plan | Timed | Sweeps]) -> Sweeps:
        """Several, which run one after the other: their rows and operations, and the memory of the widest."""
        return cls(
            sum(part.rows_in_all for part in parts),
            sum(part.rows for part in parts),
            sum(part.batches for part in parts),
            sum(part.flop for part in parts),
            max((part.peak_bytes for part in parts), default=0),
            sum(getattr(part, "seconds", 0.0) for part in parts),  # most work is counted, not timed
            sum(getattr(part, "undivided", 0.0) for part in parts),  # known of sweeps on the model's own weights
        )

    def takes(self, rate: float) -> float:
        """Seconds, at so many operations a second."""
        return self.flop / rate + self.seconds


def planned(
    study: Study,
    model: HookedTransformer,
    pairs: PromptPairs,
    ladder: Mapping[str, PromptPairs] | None = None,
    *,
    without: Collection[str] = (),
) -> dict[str, Sweeps]:
    """Of every analysis of a study that makes sweeps, what they are.

    Args:
        study: the study.
        model: the model, or its outline.
        pairs: those that are explained.
        ladder: those of every rung; without them what needs them is not planned.
        without: names those that are left out.
    """
    given = {"pairs": pairs, "ladder": ladder}
    return {
        name: Sweeps.together(analysis.function(PLANNED)(model, given[analysis.needs], **_options(study, analysis)))
        for name, analysis in registry.ordered(study.analyses).items()
        if analysis.plans and name not in without and given[analysis.needs] is not None
    }


def _options(study: Study, analysis: Analysis) -> dict[str, Any]:
    settled = {"seed": study.seed} if "seed" in analysis.settled else {}
    return {**study.options(analysis.name), **settled}
