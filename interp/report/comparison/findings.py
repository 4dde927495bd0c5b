"""What runs found beside numbers: the claims of their verdicts with their grades, and the edges of their circuits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from interp.language import called, say, say_stored
from interp.report.comparison.sides import Side
from interp.report.comparison.table import Part, Row, Value

Claim: TypeAlias = tuple[str, str, str]
"""Component, job and role."""
Edge: TypeAlias = tuple[str, str, str]
"""Sender, receiver and role; the role is empty where edges have none."""


def parts(runs: Sequence[Side]) -> list[Part]:
    """Claims and circuits; a part is without rows where fewer than two runs have them."""
    return [_claims(runs), _circuits(runs)]


def _claims(runs: Sequence[Side]) -> Part:
    """One row a claim: its grade in each run, or that a run does not make it."""
    made = [_graded(side) for side in runs]
    rows = []
    if sum(found is not None for found in made) > 1:
        for claim in dict.fromkeys(claim for found in made if found for claim in found):
            component, job, role = claim
            name = say("{component}: {job}", component=component, job=say_stored(job))
            name += f" ({called('role', role)})" if role else ""
            values = tuple(
                None if found is None else Value(math.nan, place=found.get(claim, say("not claimed"))) for found in made
            )
            rows.append(Row(name, values, (None,) * (len(runs) - 1)))
    reading = say(
        "What each run's verdict claims of a head or an MLP, made by patching it alone, and how the other methods of "
        "that run grade the claim. A run that does not claim it found no effect of that kind large enough."
    )
    letters = tuple(side.letter for side in runs)
    return Part("claims", say("What components do"), reading, "", letters, tuple(rows), drawn=False, graded=True)


def _graded(side: Side) -> dict[Claim, str] | None:
    """The claims of a run with their grades; None where it may not be explained or has no verdict."""
    found = side.run.get("verdict") if side.passed else None
    if found is None:
        return None
    if not found.has("claim_component"):
        return {}
    columns = (found.labels(f"claim_{name}") for name in ("component", "job", "role", "grade"))
    return {(component, job, role): say_stored(grade) for component, job, role, grade in zip(*columns, strict=True)}


def _circuits(runs: Sequence[Side]) -> Part:
    """How many edges each circuit has, and how many of them it has in common with the first run's."""
    found = [_edges(side) for side in runs]
    rows: list[Row] = []
    first, *others = found
    if first is not None and any(other is not None for other in others):
        none = (None,) * len(others)
        counts = tuple(None if edges is None else Value(float(len(edges))) for edges in found)
        shared = tuple(None if other is None else Value(jaccard(first, other)) for other in others)
        letter = runs[0].letter
        rows = [
            Row(say("edges"), counts, none),
            Row(say("edges in common with {run} (Jaccard)", run=letter), (None, *shared), none),
        ]
    reading = say("1: the same edges; 0: none in common. No interval: each run found one circuit.")
    letters = tuple(side.letter for side in runs)
    return Part("circuits", say("The circuits"), reading, "", letters, tuple(rows), drawn=False)


def jaccard(one: frozenset[Edge], other: frozenset[Edge]) -> float:
    """The share of the edges of either that both have; NaN where neither has any.

    >>> jaccard(frozenset({("L0H0", "L1H0.q", ""), ("L0H1", "L1H0.q", "")}), frozenset({("L0H0", "L1H0.q", "")}))
    0.5
    """
    either = len(one | other)
    return len(one & other) / either if either else math.nan


def _edges(side: Side) -> frozenset[Edge] | None:
    found = side.run.get("circuit") if side.passed else None
    if found is None:
        return None
    kept = found.data["kept"]
    roles = found.labels("role") if "role" in kept.dims else ("",)
    values = kept.transpose("sender", "receiver", *(["role"] if "role" in kept.dims else [])).values.astype(bool)
    values = values.reshape(*values.shape[:2], len(roles))
    senders, receivers = found.labels("sender"), found.labels("receiver")
    return frozenset((senders[s], receivers[r], roles[w]) for s, r, w in np.argwhere(values).tolist())
