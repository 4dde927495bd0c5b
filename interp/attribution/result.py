"""What nodes and edges share: the question that is asked, and the labelled answer with its audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from interp import readouts, results
from interp._arguments import check_pairs
from interp.attribution.audit import NOT_AUDITED, Audit, Exact, run_audit
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout, Readout
from interp.results import Variable
from interp.sweeps import Direction, Reading, base_and_source, checked_reading, described, score, scored_parts

if TYPE_CHECKING:
    from interp.model import HookedTransformer


@dataclass(frozen=True)
class Part:
    """One reading of the question. A whole answer (``sum_logprob``) has two, its right and its wrong answer.

    Attributes:
        pairs: the pairs, continued by the answer where that is scored whole.
        base: the run that is patched.
        source: the run whose activations are patched in.
        reading: the metric.
        sign: with which it enters the effect.
    """

    pairs: PromptPairs
    base: Prompts
    source: Prompts
    reading: Reading
    sign: float


@dataclass(frozen=True)
class Question:
    """What is estimated, of which model, on which pairs.

    Attributes:
        model: the model.
        pairs: clean and corrupted prompts.
        direction: ``"denoising"`` or ``"noising"``.
        readout: what is measured.
        clean: [prompt] the metric of the clean run.
        corrupted: [prompt] that of the corrupted run.
        parts: the readings that the effect is the sum of.
    """

    model: HookedTransformer
    pairs: PromptPairs
    direction: Direction
    readout: Readout
    clean: Float[np.ndarray, " prompt"]
    corrupted: Float[np.ndarray, " prompt"]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, model: HookedTransformer, pairs: PromptPairs, direction: Direction, metric: AnyReadout) -> Question:
        """Check the question and run both prompts once.

        Raises:
            InterpError: an unknown direction or metric, or a metric without a gradient.
        """
        check_pairs(model, pairs)
        base_and_source(pairs, direction)  # an unknown direction is refused before anything is run
        readout = readouts.readout(metric)
        clean, corrupted = (score(model, pairs, which, metric) for which in ("clean", "corrupted"))
        parts = []
        for sign, part, term in scored_parts(pairs, metric):
            parts.append(Part(part, *base_and_source(part, direction), checked_reading(model, part, term), sign))
        return cls(model, pairs, direction, readout, clean, corrupted, tuple(parts))

    @property
    def whole_answers(self) -> bool:
        """Whether answers of several tokens are scored whole."""
        return self.parts[0].pairs is not self.pairs

    def effect_of(self, found: xr.Dataset) -> Float[np.ndarray, "prompt ..."]:
        """What the patches of an exact result changed, by its own unpatched run."""
        unpatched = {"denoising": found.corrupted, "noising": found.clean}[self.direction]
        return np.asarray((found.patched - unpatched).transpose(*found.patched.dims).values)

    @property
    def unpatched(self) -> Float[np.ndarray, " prompt"]:
        """The metric of the run that is patched."""
        return {"denoising": self.corrupted, "noising": self.clean}[self.direction]


def check_gradient(metric: AnyReadout, direction: str, *, at_base: bool) -> None:
    """Refuse a read-out without a gradient, or with none where it would be taken.

    Args:
        metric: what is measured.
        direction: of the patches.
        at_base: whether every gradient is taken on the unpatched run.

    Raises:
        InterpError: says what to use instead.
    """
    readout = readouts.readout(metric)
    if not readout.differentiable:
        raise InterpError(f"Metric {shown(readout.name)} has no gradient. Use 'logit_difference', or the exact sweep.")
    if readout.least_at_clean and direction == "noising" and at_base:
        raise InterpError(
            f"Metric {shown(readout.name)} is least at the clean run, so its gradient there is 0. Use "
            "direction='denoising', a method that integrates, or the exact sweep."
        )


def check_method(method: str, methods: Sequence[str], steps: int) -> None:
    """Refuse an unknown method, or fewer than one step."""
    if method not in methods:
        raise unknown_name("method", method, methods)
    if whole_number(steps, "steps") < 1:
        raise InterpError(f"steps is {shown(steps)}. An integral needs at least one step.")


@dataclass(frozen=True)
class Estimates:
    """Estimated effects of all cells, and what the audit needs to know of them.

    Attributes:
        effect: [prompt, *cell] estimated change of the metric.
        eligible: [*cell] cells that could have an effect.
        dims: names of the cell axes.
        coords: labels of the cell axes.
        exact: patches chosen cells (flat indices) exactly.
    """

    effect: Float[np.ndarray, "prompt ..."]
    eligible: Bool[np.ndarray, " *cells"]
    dims: tuple[str, ...]
    coords: Mapping[str, Any]
    exact: Exact


def in_products(
    chosen: Int[np.ndarray, " chosen"],
    n_columns: int,
    run: Callable[[Int[np.ndarray, " row"], Int[np.ndarray, " column"]], Float[np.ndarray, "prompt row column"]],
) -> Float[np.ndarray, "prompt chosen"]:
    """Chosen cells of a grid, by runs of some rows with some columns: one per row, or per column where these are fewer.

    Args:
        chosen: flat indices.
        n_columns: width of the grid.
        run: takes row and column indices, each ascending.
    """
    row, column = np.divmod(chosen, n_columns)
    along = row if len(np.unique(row)) < len(np.unique(column)) else column
    parts: dict[int, Float[np.ndarray, " prompt"]] = {}
    for one in np.unique(along):
        mine = np.flatnonzero(along == one)
        rows, columns = np.unique(row[mine]), np.unique(column[mine])
        found = run(rows, columns)
        for index in mine.tolist():
            parts[index] = found[:, np.searchsorted(rows, row[index]), np.searchsorted(columns, column[index])]
    return np.stack([parts[index] for index in range(len(chosen))], axis=1)


def labelled(
    question: Question,
    estimates: Estimates,
    audit: Audit | None,
    *,
    what: str,
    method: str,
    reading: str,
    source: str,
    seed: int,
    extra: Mapping[str, str | int | float],
    variables: Mapping[str, Variable] | None = None,
) -> xr.Dataset:
    """The result, audited."""
    (metric, units), effect = described(question.pairs, question.readout), estimates.effect
    mean = effect.mean(axis=0)
    report = NOT_AUDITED
    if audit is not None:
        eligible = estimates.eligible.reshape(-1)
        flat = effect.reshape(len(effect), -1)
        report = run_audit(audit, flat, estimates.exact, eligible=eligible, what=f"{what} by {method}", seed=seed)
    audited = np.zeros(mean.size, dtype=bool)
    audited[report.cells] = True
    exact = np.full((len(effect), mean.size), np.nan)
    exact[:, report.cells] = report.exact
    estimated = question.unpatched.reshape(-1, *(1,) * mean.ndim) + effect
    minimum_gap = question.readout.minimum_gap
    recovered = readouts.recovered(
        *(torch.from_numpy(values) for values in (estimated, question.clean, question.corrupted)),
        minimum_gap=minimum_gap,
    )
    dims = ("prompt", *estimates.dims)
    return results.build(
        {
            "estimated": Variable(dims, estimated, units, f"estimated {metric} after the patch"),
            "estimated_effect": Variable(dims, effect, units, f"estimated change of {metric} by the patch"),
            "clean": Variable(("prompt",), question.clean, units, f"{metric} of the clean run"),
            "corrupted": Variable(("prompt",), question.corrupted, units, f"{metric} of the corrupted run"),
            "recovered": Variable(dims, recovered.numpy(), "fraction", "(estimated - corrupted) / (clean - corrupted)"),
            "exact_effect": Variable(
                dims, exact.reshape(effect.shape), units, f"change of {metric} by exact patching, where audited"
            ),
            "audited": Variable(estimates.dims, audited.reshape(mean.shape), "", "patched exactly by the audit"),
            **(variables or {}),
        },
        coords={"prompt": np.arange(len(effect)), **estimates.coords},
        title=f"{method} estimate of {question.direction} {what}",
        question=f"Which {what} would matter to the answer, by the gradient?",
        reading=f"{report.verdict} {reading}".strip(),
        source=source,
        of=(question.model, question.pairs),
        seed=seed,
        extra={
            "direction": question.direction,
            "metric": metric,
            "method": method,
            "minimum_gap": minimum_gap,
            **extra,
            **report.figures,
        },
    )  # fmt: skip
