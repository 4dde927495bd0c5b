"""How a stated sweep is run: on the model's own weights or through hooks, exactly or screened in bfloat16."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack, get_args

import numpy as np
import torch
from jaxtyping import Bool

from interp.errors import InterpError, shown
from interp.prompts.tokens import Prompts
from interp.store import Journal, Store
from interp.sweeps import through_hooks as hooks
from interp.sweeps.exact.execute import execute, make_plan, runs_flop
from interp.sweeps.exact.planner import Plan, joined
from interp.sweeps.options import HOW, How, Precision, completed
from interp.sweeps.progress import listener, shifted
from interp.sweeps.resume import AnyStore, digest, facts_of
from interp.sweeps.statement import Done, Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.model.arithmetic import Blocks

log = logging.getLogger(__name__)

SCREENED_ROWS = 64
"""Rows that a bfloat16 sweep runs again in the model's own precision, to say how far off it is."""


@dataclass(frozen=True)
class Term:
    """One of the terms whose numbers, times their signs, add up to the metric: whole answers need two.

    Attributes:
        sign: of the term.
        sweeps: one per site, of the same runs and reading.
    """

    sign: float
    sweeps: tuple[Sweep, ...]


@dataclass(frozen=True)
class Screening:
    """How far a bfloat16 sweep was off, in the metric's units, over some of its rows."""

    max_error: float
    rms_error: float
    rows: int


def run_terms(
    model: HookedTransformer,
    terms: Sequence[Term],
    **how: Unpack[How],
) -> list[tuple[Done, Screening | None]]:
    """Run stated sweeps by the fastest exact way this model allows; what was found, per site.

    Raises:
        InterpError: an unknown precision, or screening a model that has no arithmetic of its own here.
    """
    how = completed(how, HOW)
    precision, memory, store, progress = how["precision"], how["memory"], how["store"], listener(how["progress"])
    blocks, reason = model.own_blocks(_sites(terms))
    _check_precision(reason, precision)
    terms = [replace(term, sweeps=tuple(sweep.clipped() for sweep in term.sweeps)) for term in terms]
    rows = [sum(len(sweep.base) * len(sweep.cells) for sweep in term.sweeps) for term in terms]
    shares = [shifted(progress, sum(rows[:i]), sum(rows)) for i in range(len(terms))]
    kept = [_journals(model, term, precision, store) for term in terms]
    if blocks is None:
        log.info("Sweeping %s through hooks, which is slower: %s.", model.name, reason)
        through = [
            hooks.execute_all(model, term.sweeps, reason, memory=memory, journals=journals, progress=tell)
            for term, journals, tell in zip(terms, kept, shares, strict=True)
        ]
        return [(done, None) for done in _sums(terms, through)]
    blocks = terms[0].sweeps[0].reading.up_to(blocks)
    exact = precision == "float32"
    used, held = _in(blocks, precision)
    found = _sums(
        terms,
        [
            execute(model, used, term.sweeps, memory=memory, held=held, journals=journals, progress=tell)
            for term, journals, tell in zip(terms, kept, shares, strict=True)
        ],
    )
    if exact:
        return [(done, None) for done in found]
    return [
        _checked(model, blocks, [Term(term.sign, (term.sweeps[i],)) for term in terms], done, memory)
        for i, done in enumerate(found)
    ]


def plan_terms(
    model: HookedTransformer,
    terms: Sequence[Term],
    *,
    precision: Precision = "float32",
    memory: int | None = None,
) -> Plan:
    """What ``run_terms`` would compute, known from the tokens alone."""
    blocks, reason = model.own_blocks(_sites(terms))
    _check_precision(reason, precision)
    terms = [replace(term, sweeps=tuple(sweep.clipped() for sweep in term.sweeps)) for term in terms]
    if blocks is None:
        return joined([hooks.make_plan(model, sweep, reason, memory=memory) for term in terms for sweep in term.sweeps])
    blocks = terms[0].sweeps[0].reading.up_to(blocks)
    exact = precision == "float32"
    used, held = _in(blocks, precision)
    plans = [make_plan(model, used, term.sweeps, memory=memory, held=held) for term in terms]
    if exact:
        return joined([plan for one in plans for plan in one])
    checks = [make_plan(model, blocks, term.sweeps, memory=memory) for term in terms]
    return joined(
        [
            plan
            for term, screened, again in zip(terms, plans, checks, strict=True)
            for plan in _with_check(runs_flop(blocks, term.sweeps[0]), screened, again)
        ]
    )


def _with_check(runs: float, plans: Sequence[Plan], again: Sequence[Plan]) -> list[Plan]:
    """Plans of a screening, with the rows that are run again to check it; each is taken for an average row.

    ``runs`` is the cost of the two unchanged runs.
    """
    out = []
    for i, (plan, exact) in enumerate(zip(plans, again, strict=True)):
        rows = plan.flop - (runs if i == 0 else 0.0)
        share = min(SCREENED_ROWS, plan.rows) / max(plan.rows, 1)
        peak = max(plan.peak_bytes, exact.peak_bytes + 8 * plan.rows_in_all)
        out.append(replace(plan, flop=plan.flop + runs + share * rows, peak_bytes=peak))
    return out


def _journals(model: HookedTransformer, term: Term, precision: Precision, store: AnyStore) -> list[Journal] | None:
    if store is None:
        return None
    return [Store.at(store).journal(_facts(model, sweep, precision)) for sweep in term.sweeps]


def _facts(model: HookedTransformer, sweep: Sweep, precision: Precision) -> dict[str, str]:
    """Everything that the numbers of a sweep depend on, but for rounding."""
    cells = sweep.cells
    source = sweep.source.sha256() if isinstance(sweep.source, Prompts) else sweep.origin
    return {
        "site": sweep.site,
        "cells": digest(cells.parts, cells.place, cells.tokens, cells.sources),
        "precision": precision,
        **facts_of(model, sweep.base, source, sweep.reading),
    }


def _sites(terms: Sequence[Term]) -> set[str]:
    """The sites that are changed, or read within a block."""
    sweeps = [sweep for term in terms for sweep in term.sweeps]
    return {sweep.site for sweep in sweeps} | {sweep.reading.inside.site for sweep in sweeps if sweep.reading.inside}


def _check_precision(reason: str, precision: str) -> None:
    if precision not in get_args(Precision):
        raise InterpError(f"Unknown precision {shown(precision)}. Choose 'float32' or 'bfloat16'.")
    if reason and precision != "float32":
        raise InterpError(f"precision='bfloat16' needs the model's own weights: {reason}. Leave it out.")


def _sums(terms: Sequence[Term], found: Sequence[Sequence[Done]]) -> list[Done]:
    """The signed sums of the terms' numbers, per site."""
    return [_sum(terms, of_site) for of_site in zip(*found, strict=True)]


def _sum(terms: Sequence[Term], found: Sequence[Done]) -> Done:
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
    (exact,) = _sums(terms, [execute(model, blocks, term.sweeps, memory=memory, only=only) for term in terms])
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


def _in(blocks: Blocks, precision: Precision) -> tuple[Blocks, int]:
    """The model's pieces in a precision, and the bytes of the matrices that are copied for it."""
    if precision == "float32":
        return blocks, 0
    if precision != "bfloat16":
        raise InterpError(f"Precision {shown(precision)} is not written in interp.sweeps.engine.")
    cast = blocks.cast(torch.bfloat16)
    return cast, sum(matrix.weight.nbytes for block in cast.layers for matrix in block.matrices.values())
