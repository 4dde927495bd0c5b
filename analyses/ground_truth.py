"""Which method is right where the answer is known.

The models are made by hand (``interp.groundtruth``), so that the result is the same whatever model is studied: it says
how far to believe the methods, and the report of every study says it beside their results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analyses import trial
from interp import groundtruth, results, track_record
from interp.errors import names, unknown_name
from interp.results import Variable
from interp.sweeps import Meter, Timed, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

SECONDS = 1.5
"""One method on one model, on one core, on average over all."""
SOURCE = "Shi et al. 2024, arXiv 2410.13032; Gupta et al. 2024, arXiv 2407.14494 (models with known circuits)"


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    known: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Ask every method about every model whose circuit is known.

    Args:
        model: of the study; it is recorded, and not asked.
        pairs: of the study, likewise.
        known: which hand-made models; None is all of ``groundtruth.models()``.
        methods: which methods; None is all.
        progress: True for a bar, or called with trials done and trials in all.

    Returns:
        Over (question, method, known): ``auroc``, the chance that something true has a larger score than something
        that is not (1: the order is right, 0.5: no better than chance), ``found`` of ``true`` and ``false_alarms`` of
        ``others`` at the method's own threshold; NaN where a method is not asked. Questions are those of
        ``interp.track_record.questions``.

    Raises:
        InterpError: an unknown model or method.

    >>> from analyses import ground_truth
    >>> from interp import groundtruth
    >>> truth = groundtruth.build("constant")
    >>> asked = {"known": ["constant"], "methods": ["zero_ablation", "resample_ablation"]}
    >>> found = ground_truth.run(truth.model, truth.pairs, **asked)
    >>> found.false_alarms.sel(question="carries", known="constant").values.tolist()  # of ten others
    [1.0, 0.0]
    """
    chosen = _chosen("ground-truth model", known, groundtruth.models())
    asked = _chosen("method on trial", methods, trial.METHODS)
    columns = ("auroc", "found", "true", "false_alarms", "others")
    shape = (len(trial.QUESTIONS), len(asked), len(chosen))
    values = {name: np.full(shape, np.nan) for name in columns}
    order = list(trial.QUESTIONS)
    meter = Meter(progress, len(chosen) * len(asked))
    for k, name in enumerate(chosen):
        one = trial.Trial(groundtruth.build(name))
        for m, method in enumerate(asked):
            for question, score in trial.held_to(one, method).items():
                for column in columns:
                    values[column][order.index(question), m, k] = getattr(score, column)
            meter.add(1)
    dims = ("question", "method", "known")
    units = {"auroc": "", "found": "items", "true": "items", "false_alarms": "items", "others": "items"}
    long_names = {
        "auroc": "order of the scores: 1 is right, 0.5 is chance",
        "found": "true ones that are named",
        "true": "true ones",
        "false_alarms": "others that are named",
        "others": "others that are scored",
    }
    return results.build(
        {name: Variable(dims, values[name], units[name], long_names[name]) for name in columns},
        coords={"question": order, "method": asked, "known": chosen},
        title="Where the answer is known",
        question="Which method finds the circuit of a model that was made by hand?",
        reading="auroc: the chance that something true has a larger score than something that is not. Found and false "
        "alarms are at each method's own threshold.",
        source=SOURCE,
        of=(model, pairs),
        seed=0,
        dims={
            "question": "what is asked of the model",
            "method": "the method that is asked",
            "known": "the model whose circuit is known",
        },
    )


@plans_of(run)
def planned(known: Sequence[str] | None, methods: Sequence[str] | None) -> list[Timed]:
    """What ``run`` takes: so many trials, whatever model is studied. Nothing is run.

    >>> from analyses import ground_truth
    >>> [plan.rows for plan in ground_truth.planned(None, None, known=["plain"], methods=["verdict", "gradient"])]
    [2]
    """
    models = _chosen("ground-truth model", known, groundtruth.models())
    trials = len(models) * len(_chosen("method on trial", methods, trial.METHODS))
    return [Timed(trials, trials * SECONDS)]


def _chosen(what: str, given: Sequence[str] | None, there_are: Sequence[str] | Mapping[str, object]) -> list[str]:
    if given is None:
        return list(there_are)
    for name in names(given, f"{what}s"):
        if name not in there_are:
            raise unknown_name(what, name, there_are)
    return list(dict.fromkeys(names(given, f"{what}s")))


def shipped(found: xr.Dataset, alarms: xr.Dataset) -> dict[str, Any]:
    """Both results as the plain values of ``interp/groundtruth/table.json``.

    A record is kept for each method and question: by model the AUROC, and found, true, false alarms and others.
    """
    records = {key: vars(record) for key, record in track_record.records_of(found).items()}
    return {
        "library_version": found.attrs["library_version"],
        "models": {name: groundtruth.build(name).summary for name in map(str, found["known"].values)},
        "records": records,
        "false_alarms": {
            str(claim): {"alarms": int(count), "n": int(n)}
            for claim, count, n in zip(*(alarms[name].values for name in ("claim", "alarms", "n")), strict=True)
        },
    }
