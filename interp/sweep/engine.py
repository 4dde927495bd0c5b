"""How a stated sweep is run: on the model's own weights or through hooks, exactly or screened in bfloat16."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Bool

from interp.errors import InterpError
from interp.sweep import hooks
from interp.sweep.execute import Done, Progress, Sweep, execute, make_plan, runs_flop
from interp.sweep.plan import Plan, joined

if TYPE_CHECKING:
    from interp.blocks import Blocks
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Precision: TypeAlias = Literal["float32", "bfloat16"]

SCREENED_ROWS = 64
"""Rows that a bfloat16 sweep runs again in the model's own precision, to say how far off it is."""


@dataclass(frozen=True)
class Term:
    """One of the sweeps whose numbers, times their signs, add up to the metric: whole answers need two."""

    sign: float
    sweep: Sweep


@dataclass(frozen=True)
class Screening:
    """How far a bfloat16 sweep was off, in the metric's units, over some of its rows."""

    max_error: float
    rms_error: float
    rows: int


def run_terms(
    model: HookedTransformer,
    terms: Sequence[Term],
    *,
    precision: Precision = "float32",
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Done, Screening | None]:
    """Run a stated sweep by the fastest exact way this model allows.

    Raises:
        InterpError: an unknown precision, or screening a model that has no arithmetic of its own here.
    """
    _check_precision(model, precision)
    rows = [len(term.sweep.base) * len(term.sweep.cells) for term in terms]
    told = [_shifted(progress, sum(rows[:i]), sum(rows)) for i in range(len(terms))]
    if model.no_blocks:
        log.info("Sweeping %s through hooks, which is slower: %s.", model.name, model.no_blocks)
        through = [
            hooks.execute(model, term.sweep, memory=memory, progress=tell)
            for term, tell in zip(terms, told, strict=True)
        ]
        return _sum(terms, through), None
    blocks = model.blocks()
    if precision == "float32":
        exact = [
            execute(model, blocks, term.sweep, memory=memory, progress=tell)
            for term, tell in zip(terms, told, strict=True)
        ]
        return _sum(terms, exact), None
    cast = blocks.cast(torch.bfloat16)
    screened = _sum(
        terms,
        [
            execute(model, cast, term.sweep, memory=memory, held=_bytes(cast), progress=tell)
            for term, tell in zip(terms, told, strict=True)
        ],
    )
    return _checked(model, blocks, terms, screened, memory)


def plan_terms(
    model: HookedTransformer,
    terms: Sequence[Term],
    *,
    precision: Precision = "float32",
    memory: int | None = None,
) -> Plan:
    """What ``run_terms`` would compute, known from the tokens alone."""
    _check_precision(model, precision)
    if model.no_blocks:
        return joined([hooks.make_plan(model, term.sweep, memory=memory) for term in terms])
    blocks = model.blocks()
    if precision == "float32":
        return joined([make_plan(model, blocks, term.sweep, memory=memory) for term in terms])
    cast = blocks.cast(torch.bfloat16)
    screened = joined([make_plan(model, cast, term.sweep, memory=memory, held=_bytes(cast)) for term in terms])
    runs = sum(runs_flop(blocks, term.sweep) for term in terms)
    again = min(SCREENED_ROWS * len(terms), screened.rows) / max(screened.rows, 1)  # of an average row
    return replace(screened, flop=screened.flop + runs + again * (screened.flop - runs))


def _check_precision(model: HookedTransformer, precision: str) -> None:
    if precision not in get_args(Precision):
        raise InterpError(f"Unknown precision '{precision}'. Choose 'float32' or 'bfloat16'.")
    if model.no_blocks and precision != "float32":
        raise InterpError(f"precision='bfloat16' needs the model's own weights: {model.no_blocks}. Leave it out.")


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one term, told as that of all."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _sum(terms: Sequence[Term], found: Sequence[Done]) -> Done:
    """The signed sum of the terms' numbers."""
    signs = [term.sign for term in terms]
    sources = [done.source for done in found if done.source is not None]
    return Done(
        np.asarray(sum(sign * done.changed for sign, done in zip(signs, found, strict=True))),
        np.asarray(sum(sign * done.base for sign, done in zip(signs, found, strict=True))),
        np.asarray(sum(sign * one for sign, one in zip(signs, sources, strict=True))) if sources else None,
        joined([done.plan for done in found]),
    )


def _checked(
    model: HookedTransformer, blocks: Blocks, terms: Sequence[Term], screened: Done, memory: int | None
) -> tuple[Done, Screening]:
    """Effects as screened on baselines as they are, and how far off a random sample of the effects is."""
    only: Bool[np.ndarray, "prompt cell"] = np.zeros(screened.changed.shape, dtype=bool)
    run = np.argwhere(screened.changed != screened.base[:, None])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(run), size=min(SCREENED_ROWS, len(run)), replace=False)
    only[tuple(run[chosen].T)] = True
    exact = _sum(terms, [execute(model, blocks, term.sweep, memory=memory, only=only) for term in terms])
    effect = screened.changed - screened.base[:, None]
    error = (effect - (exact.changed - exact.base[:, None]))[only]
    found = Screening(
        float(np.abs(error).max(initial=0.0)), float(np.sqrt((error**2).mean())) if error.size else 0.0, int(only.sum())
    )
    plan = replace(
        screened.plan,
        flop=screened.plan.flop + exact.plan.flop,
        peak_bytes=max(screened.plan.peak_bytes, exact.plan.peak_bytes + screened.changed.nbytes),
    )
    return Done(exact.base[:, None] + effect, exact.base, exact.source, plan), found


def _bytes(blocks: Blocks) -> int:
    """What the matrices of the layers take."""
    return sum(matrix.weight.nbytes for block in blocks.layers for matrix in block.matrices.values())
