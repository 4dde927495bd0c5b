"""At which layer, and at which word, can a linear probe read the source word that belongs to the target?

A probe may score by memory instead of by reading. Two guards: the target words of the tested prompts are never in the
fit, and a control task measures what the same probe can do by memory.

The control (Hewitt and Liang 2019) gives every *type* a random label, which only memory can connect to its input. A
label per target word would be the obvious choice, and a vacuous one: with the target words held out no probe can learn
it, so the control would sit at chance by construction and selectivity would be accuracy minus chance. Here a type is a
pair of prompts: clean and corrupted hold the same sentence about the same target and differ in the source alone, so a
label that both share says nothing about the source and everything about which sentence this is. The two prompts of a
pair go to different folds: every tested sentence was in the fit, with the other source. The control thus has an
advantage that the probe lacks (its targets are not held out), and selectivity errs on the low side; below 0 it says
that the sentence is easier to recognise there than the source is to read.

Accuracy alone says little of how sure that is. Beside it stand the codelength (``interp.probes.online_codelength``: how
much shorter the labels become for somebody who has the activations), calibration, other probes on the same folds, and a
null: labels exchanged within pairs (``interp.probes.null``), with p-values corrected over the whole grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp import results, stats
from interp._arguments import check_pairs, check_prompts
from interp._threads import threads_for
from interp.errors import InterpError, names, shown, unknown_name, whole_number, whole_numbers
from interp.language import in_each, say
from interp.probes import MeanDifference, RidgeProbe, data, logistic, null, other_tasks
from interp.probes.calibration import brier_score, expected_calibration_error
from interp.probes.codelength import online_codelength
from interp.probes.data import PAIR, TEMPLATE, Control, Labelled
from interp.prompts import PromptPairs
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts
from interp.prompts.vocabulary import NOTHING_STATED
from interp.results import Variable
from interp.run import capture
from interp.sites import check_sites, vector_site
from interp.sweeps import Meter, Plan, Progress, Timed, bounded, costly, passes, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer


STREAM = "resid_pre"
"""The site whose layer axis has one more entry: after the last block, which is ``resid_post`` of the last layer."""

PROBES = ("means", "ridge", "tuned", "mlp")
"""Further probes: difference of means, ridge regression, logistic regression whose C each fit chooses on groups that it
holds out of its own prompts, and a perceptron with one hidden layer."""

CHEAP = ("means", "ridge")
"""Those that have a closed form."""

PERMUTATIONS = 200
"""Relabellings under the null: the least p-value is 1 in 201."""

TRANSFER = "fitted on one task -> tested on the other"

SECONDS = 0.02
"""One probe at one place in one fold, its codelength and null too, on one core."""

EVERY = 3
"""Where a run is costly every third layer is probed, and the last: a layer adds little to its neighbours."""

HIDDEN = 32
"""Hidden units of the perceptron."""


def check(
    *, sites: Sequence[str], n_folds: int, probes: Sequence[str] = CHEAP, n_permutations: int = PERMUTATIONS
) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: fewer than two folds, no site, a site without a vector per layer and position, an unknown probe, or
            a negative number of permutations.
    """
    if whole_number(n_folds, "n_folds") < 2:
        raise InterpError(f"n_folds is {shown(n_folds)}. Give at least 2.")
    if not sites:
        raise InterpError(f"There is no site to probe. Give at least one, such as '{STREAM}'.")
    for site in check_sites(sites):
        vector_site(site.name)
    whole_number(n_permutations, "n_permutations", least=0)
    for probe in probes:
        if probe not in PROBES:
            raise unknown_name("probe", probe, PROBES)


def check_askable(
    pairs: PromptPairs, *, target: str | None = None, group: str | None = None, transfer: Sequence[str] = ()
) -> None:
    """Refuse a question that these pairs leave no room for, whatever the model; the arguments are those of ``run``.

    Raises:
        UnaskableError: as ``run``.
        InterpError: an unknown target or group, or a task to transfer to that has nothing in common with the pairs.
    """
    target, group = data.question(pairs, target, group)
    data.check_askable(data.labelled(pairs, target, group), target, group)
    other_tasks.check(pairs, target, transfer)


def run(
    model: HookedTransformer,
    pairs: PromptPairs | Prompts,
    *,
    target: str | None = None,
    group: str | None = None,
    sites: Sequence[str] = (STREAM,),
    roles: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    n_folds: int = 5,
    probes: Sequence[str] = CHEAP,
    codelength: bool = True,
    n_permutations: int = PERMUTATIONS,
    transfer: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Fit a probe at every site, layer and role, and test it on words it has not seen.

    The probe is scikit-learn's multinomial ``LogisticRegression`` (L2, C = 0.1, lbfgs) on features standardised inside
    each fold. Clean and corrupted prompts are data alike, each with its own label; one that occurs twice counts once. A
    held-out prompt whose label its fit never saw is reported (``unseen``) and has no part in any score.

    Args:
        model: the model.
        pairs: pairs of prompts, or ``Prompts`` (whose control type is then the prompt without the target's tokens).
        target: what to read: a slot of the pairs, else a role, whose tokens are the label; None is the source of the
            pairs' vocabulary.
        group: what to hold out, likewise: prompts that share it are in one fold. None is the vocabulary's target, or
            ``"pair"`` (clean and corrupted together) where that is the answer position. ``"template"`` holds out the
            templates of the rung in turn.
        sites: sites with a position; heads are laid side by side.
        roles: where to read (a role of several tokens at its last); None is every role.
        layers: layer indices; None is all, or every third and the last where a run is costly (``interp.sweeps.costly``;
            the attribute ``bounded`` says so). ``n_layers`` is the stream after the last block (``resid_pre`` only).
        n_folds: at most this many folds; fewer where there are fewer groups.
        probes: further probes, fitted on the same folds: ``"means"``, ``"ridge"``, ``"tuned"``, ``"mlp"``.
        codelength: whether to measure the codelength of the labels too.
        n_permutations: relabellings under the null; 0 for no p-values.
        transfer: bundled tasks, as ``"color-noun-es"`` or ``"color-noun-es/recall"``: the probe fitted on all pairs is
            tested on as many of theirs, and the other way round. Words stand for one another by their place in the two
            tasks' lists, so that a language can be held out.
        seed: of the control's labels and folds, of the relabellings, of the order in which labels are sent, and of
            other tasks' prompts.
        progress: True for a bar, or called with probes done and probes in all.

    Returns:
        ``accuracy``, ``control_accuracy`` and ``selectivity`` = accuracy - control_accuracy, all (site, layer, role,
        fold), shares of held-out prompts; NaN for sites without a last layer ``n_layers``. ``distractor_rate``, alike,
        where a distractor of the vocabulary is a word of the target's kind (never the target's own, and a label
        elsewhere): how often the probe answers with the distractor's label; a probe that reads "a word of this kind"
        without binding has both near 0.5. ``majority`` (role): of
        always giving the fit's most frequent label; ``chance``: 1 / number of labels. ``n_train``, ``n_test``,
        ``unseen`` (fold): prompts fitted, held out, and the share of these whose label the fit never saw.
        ``p_value`` (site, layer, role): of a ridge probe's accuracy under labels exchanged within pairs, corrected over
        all cells; NaN where no pair differs in the label. ``calibration_error`` and ``brier`` (site, layer, role) of
        the probe's probabilities on all held-out prompts. ``compression`` and ``control_compression`` (site, layer,
        role): bits of the uniform code over those of the online code; ``codelength`` in bits.
        ``accuracy_by_probe`` (probe, site, layer, role, fold).
        ``classifier_...``: a task classifier at one word (the answer position, or the last role) whose layer each fold
        chooses on the prompts it is fitted on: ``layer``, ``accuracy``, ``control_accuracy`` (fold),
        ``mean`` and
        ``mean_interval`` (ci_bound; Wilson, each held-out group one observation), ``calibration_error``, ``brier``.
        ``transfer_accuracy`` (transfer, site, layer, role) with its interval over tested pairs, ``transfer_p_value``,
        ``transfer_brier``, and ``transfer_chance``, ``transfer_unseen`` (transfer): fitted on one task, tested on the
        other; NaN at roles that one of them lacks. An entry is called ``"color-noun/two -> color-noun-es/two"``.
        Attributes: ``control_seen``, the share of prompts whose control type is in their fold's fit (0 would make the
        control vacuous), and ``n_unconverged``, fits stopped by the iteration limit.

    Raises:
        UnaskableError: one label only, one group only, labels that hardly any two groups share, or no role in which
            clean and corrupted differ.
        InterpError: an unknown target, group, site, role, layer or probe, or prompts without pairs and no target or
            group.

    >>> from analyses import probing
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> probed = probing.run(model, pairs, roles=["color"], layers=[0], n_folds=2)
    >>> bool((probed.selectivity == probed.accuracy - probed.control_accuracy).all())
    True
    """
    if isinstance(pairs, Prompts):
        check_prompts(model, pairs)
    else:
        check_pairs(model, pairs)
    check(sites=sites, n_folds=n_folds, probes=probes, n_permutations=n_permutations)
    target, group = data.question(pairs, target, group)
    found = data.labelled(pairs, target, group)
    places = _names(roles, found.prompts.roles, "role")
    chosen = _usual_layers(model, found.prompts, sites) if layers is None else layers
    features = _Features(model, found.prompts, sites, places, chosen)  # refuses wrong layers before all else
    data.check_askable(found, target, group)
    task = _Task.of(found, n_folds, seed)
    scores = _Scores(
        task, features.sites, features.layers, places, tuple(dict.fromkeys(probes)), codelength,
        null.relabellings(found.labels, found.blocks, n=n_permutations, seed=seed) if n_permutations else None,
    )  # fmt: skip
    classified = _Classifier(task, places.index(ANSWER) if ANSWER in places else len(places) - 1)
    meter = Meter(progress, len(features) * (1 + 2 * len(transfer)))
    work = _Places(task, scores.probes, codelength, scores.drawn, classified.role)
    for places_of_site in features.by_site():
        for (index, x), measured in model.engine.map(model, work, places_of_site, here=work):
            scores.add(index, measured)
            classified.add(index, x.shape[1], measured)
            meter.add(1)
    crossed, entries, tokens = _crossed(model, pairs, features, target, transfer, n_permutations, seed, meter)
    told = in_each(lambda: _in_words(pairs, target, group))
    return results.build(
        _variables(task, scores, len(places)) | classified.variables(scores) | crossed,
        coords={
            "site": list(features.sites),
            "layer": list(features.layers),
            "role": list(places),
            "fold": np.arange(len(task.held_out)),
            "ci_bound": ["lower", "upper"],
            **({"probe": ["logistic", *scores.probes]} if scores.probes else {}),
            **({"transfer": entries} if entries else {}),
        },
        title="Probing",
        question=told.pop("question"),
        reading=told.pop("reading"),
        source="Alain and Bengio 2016, arXiv 1610.01644; control task and selectivity: Hewitt and Liang 2019, "
        "arXiv 1909.03368; online codelength: Voita and Titov 2020, arXiv 2003.12298; max-T: Westfall and Young 1993",
        of=(model, _Provenance(pairs)),
        seed=seed,
        dims=({"probe": "kind of probe"} if scores.probes else {}) | ({"transfer": TRANSFER} if entries else {}),
        extra={
            "target": target,
            "held_out": group,
            **told,
            "n_folds": len(task.held_out),
            "n_data": len(found.labels),
            "n_repeated": found.n_repeated,
            "n_labels": len(task.classes),
            "n_groups": len(np.unique(found.groups)),
            "n_control_types": len(np.unique(found.types)),
            "control": "a random label per pair of prompts, which are split over the folds",
            "control_seen": task.control.seen,
            "null": "labels exchanged between prompts that differ in the label alone",
            "n_permutations": n_permutations,
            "n_exchangeable": int(task.exchangeable.sum()),
            "probe": f"logistic regression, L2 with C = {logistic.REGULARISATION:g}, features standardised within "
            "the fold",
            "n_unconverged": scores.unconverged,
            "classifier_role": places[classified.role],
            "classifier_site": features.sites[0],
            "n_features": classified.n_features,
            "bounded": bounded({"layers": (len(chosen), len(_possible(model, sites)))} if layers is None else {}),
            **({"transfer_tokens": tokens} if entries else {}),
        },
    )


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs | Prompts,
    sites: Sequence[str],
    roles: Sequence[str] | None,
    layers: Sequence[int] | None,
    n_folds: int,
    probes: Sequence[str],
    transfer: Sequence[str],
) -> list[Plan | Timed]:
    """About what ``run`` computes with the same options: it reads every prompt once, and fits. Nothing is run.

    Fits are timed: ``SECONDS`` each.

    >>> from analyses import probing
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [plan.rows for plan in probing.planned(model, pairs)]  # runs, and fits
    [4, 600]
    """
    prompts = pairs.clean if isinstance(pairs, PromptPairs) else pairs
    check_prompts(model, prompts)
    both = 2 if isinstance(pairs, PromptPairs) else 1
    n_layers = len(_usual_layers(model, prompts, sites) if layers is None else layers)
    n_cells = len(sites) * n_layers * len(prompts.roles if roles is None else roles)
    n_fits = n_cells * n_folds * (2 + len(probes))
    reads = both * len(sites) * (1 + 2 * len(transfer))
    return [passes(model, prompts, forward=reads, unembedded=0), Timed(n_fits, n_fits * SECONDS)]


def _crossed(
    model: HookedTransformer,
    pairs: PromptPairs | Prompts,
    features: _Features,
    target: str,
    transfer: Sequence[str],
    n_permutations: int,
    seed: int,
    meter: Meter,
) -> tuple[dict[str, Variable], list[str], str]:
    """Probes of these pairs asked about other tasks, and of those about these: see ``other_tasks.measured``."""
    if not transfer:
        return {}, [], ""
    if isinstance(pairs, Prompts):
        raise InterpError("Prompts without pairs are of no task, so that no probe is transferred. Leave transfer= out.")
    return other_tasks.measured(
        model,
        pairs,
        lambda prompts, roles: _Features(model, prompts, features.sites, roles, features.layers),
        target=target,
        transfer=tuple(dict.fromkeys(transfer)),
        roles=features.roles,
        shape=(len(features.sites), len(features.layers), len(features.roles)),
        n_permutations=n_permutations,
        seed=seed,
        advance=meter.add,
    )


# ---- what is asked, in words ----


def _name(pairs: PromptPairs | Prompts, place: str) -> str:
    """A role or slot within a sentence."""
    words = pairs.vocabulary if isinstance(pairs, PromptPairs) else NOTHING_STATED
    return words.name(place)


def _in_words(pairs: PromptPairs | Prompts, target: str, group: str) -> dict[str, str]:
    """What is asked and how to read it, in the language spoken now."""
    thing = _name(pairs, target)
    own = {PAIR: say("the pair of prompts"), TEMPLATE: say("the template")}
    held_out = own[group] if group in own else _name(pairs, group)
    what = thing if group in own else say("{thing} bound to {other}", thing=thing, other=held_out)
    return {
        "question": say("At which layer, and at which word, can a linear probe read {what}?", what=what),
        "reading": say(
            "Accuracy where {held_out} was not in the fit. The control has a random label per sentence, whichever of "
            "two words stands for {thing}, and has seen every sentence with the other word: what memory alone can do. "
            "A probe that beats its control and the majority reads something that is there; that the model uses it is "
            "for patching to show.",
            held_out=held_out,
            thing=thing,
        )
        + " "
        + say(
            "p: a ridge probe's accuracy against that with labels exchanged between prompts that differ in {thing} "
            "alone, corrected over all places. Compression: how many times shorter the labels become for somebody who "
            "has the activations, with an interval over prompts in its table; 1 or below is no gain.",
            thing=thing,
        ),
        "held_out_in_words": held_out,
    }


def _names(chosen: Sequence[str] | None, known: Mapping[str, Any], what: str) -> tuple[str, ...]:
    names = tuple(known if chosen is None else dict.fromkeys([chosen] if isinstance(chosen, str) else chosen))
    for name in names:
        if name not in known:
            raise unknown_name(what, name, known)
    if not names:
        raise InterpError(f"There is no {what} to probe. Give at least one of {', '.join(known) or 'none'}.")
    return names


def _possible(model: HookedTransformer, sites: Sequence[str]) -> list[int]:
    """The layers that can be probed; the last entry is the stream after the last block."""
    return [*range(model.cfg.n_layers), *([model.cfg.n_layers] if STREAM in sites else [])]


def _usual_layers(model: HookedTransformer, prompts: Prompts, sites: Sequence[str]) -> list[int]:
    """The layers that are probed unless others are named."""
    possible = _possible(model, sites)
    return sorted({*possible[::EVERY], possible[-1]}) if costly(model, prompts) else possible


class _Features:
    """Iterates over the cells: (site, layer, role) index and activations [prompt, feature]. One site in memory."""

    def __init__(
        self,
        model: HookedTransformer,
        prompts: Prompts,
        sites: Sequence[str],
        roles: Sequence[str],
        layers: Sequence[int],
    ) -> None:
        self.model, self.prompts, self.roles = model, prompts, roles
        self.sites = names(sites, "sites")
        for name in self.sites:
            model.check_site(name)
        last = model.cfg.n_layers
        possible = _possible(model, self.sites)
        self.layers = tuple(sorted(set(whole_numbers(layers, "layers"))))
        outside = [layer for layer in self.layers if layer not in possible]
        if outside or not self.layers:
            raise InterpError(
                f"Layers {list(outside)} cannot be probed. {model.name} has 0 to {last - 1}, and {last} is '{STREAM}' "
                "after the last block."
            )

    def __len__(self) -> int:
        per_site = [
            len(self.layers) - (name != STREAM and self.model.cfg.n_layers in self.layers) for name in self.sites
        ]
        return sum(per_site) * len(self.roles)

    def __iter__(self) -> Iterator[_Place]:
        for places in self.by_site():
            yield from places

    def by_site(self) -> Iterator[_OfSite]:
        """The cells of one site after the other."""
        last = self.model.cfg.n_layers
        for s, name in enumerate(self.sites):
            within = [layer for layer in self.layers if layer < last]
            parts = {layer: (name, layer) for layer in within}
            if name == STREAM and last in self.layers:
                parts[last] = ("resid_post", last - 1)
            read = {
                site: capture(
                    self.model, self.prompts, site, at=self.roles, layers=[at for n, at in parts.values() if n == site]
                )
                for site in dict.fromkeys(site for site, _ in parts.values())
            }
            yield _OfSite(
                [
                    ((s, slot, r), read[site][site].sel(layer=at, role=role).values)
                    for slot, (site, at) in (
                        (slot, parts[layer]) for slot, layer in enumerate(self.layers) if layer in parts
                    )
                    for r, role in enumerate(self.roles)
                ]
            )


_Place: TypeAlias = "tuple[tuple[int, int, int], Float[np.ndarray, 'prompt feature']]"
"""A cell: (site, layer, role) as indices, and the activations there."""


class _OfSite(Sequence[_Place]):
    """The cells of a site, whose activations are views of what was captured until a cell is taken."""

    def __init__(self, cells: Sequence[tuple[tuple[int, int, int], np.ndarray]]) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, which: Any) -> Any:
        index, values = self.cells[which]
        return index, values.reshape(len(values), -1).astype(np.float64)


# ---- one cell ----


@dataclass(frozen=True)
class _Task:
    """What every cell shares: the data, its folds, the control, and the order in which labels are sent."""

    data: Labelled
    held_out: list[Bool[np.ndarray, " prompt"]]
    control: Control
    classes: Shaped[np.ndarray, " class"]
    exchangeable: Bool[np.ndarray, " prompt"]
    order: Int[np.ndarray, " prompt"]
    seed: int

    @classmethod
    def of(cls, found: Labelled, n_folds: int, seed: int) -> _Task:
        held_out = data.group_folds(found.groups, n_folds)
        return cls(
            found,
            held_out,
            data.control_task(found, len(held_out), seed),
            np.unique(found.labels),
            null.exchangeable(found.labels, found.blocks),
            np.random.default_rng(seed).permutation(len(found.labels)),
            seed,
        )

    def known(self, test: Bool[np.ndarray, " prompt"]) -> Bool[np.ndarray, " prompt"]:
        """The tested prompts whose label the fit has."""
        return test & np.isin(self.data.labels, self.data.labels[~test])


@dataclass(frozen=True)
class _Measured:
    """All that is measured of one cell.

    Attributes:
        by_fold: name -> [fold].
        by_probe: further probe -> accuracy [fold].
        by_cell: name -> a number.
        lengths: name -> bits.
        length_intervals: name -> [two] of the compression.
        statistics: [1 + relabelling] accuracies under the null; None without one.
        unconverged: fits stopped by the iteration limit.
        said: the probabilities, each prompt's from the fold that held it out; NaN where that had no such label.
        tried: [fold] accuracy within the prompts of each fit, for the choice of a layer; empty where none is chosen.
    """

    by_fold: dict[str, Float[np.ndarray, " fold"]]
    by_probe: dict[str, Float[np.ndarray, " fold"]]
    by_cell: dict[str, float]
    lengths: dict[str, float]
    length_intervals: dict[str, tuple[float, float]]
    statistics: Float[np.ndarray, " relabelling"] | None
    unconverged: int
    said: Float[np.ndarray, "prompt class"]
    tried: list[float]


@dataclass(frozen=True)
class _Places:
    """Everything fitted and tested at one cell, as work (``interp.engines``).

    Attributes:
        task: what every cell shares.
        probes: further probes.
        codelength: whether the codelength is measured.
        drawn: relabellings under the null; None without one.
        role: of the task classifier, whose layer is chosen.
    """

    task: _Task
    probes: tuple[str, ...]
    codelength: bool
    drawn: Int[np.ndarray, "relabelling prompt"] | None
    role: int

    def ready(self, model: HookedTransformer) -> _Places:
        """Fits need no model."""
        return self

    def do(self, ready: _Places, piece: _Place) -> _Measured:
        """One cell."""
        (site, _, role), x = piece
        task, found = self.task, self.task.data
        folds = len(task.held_out)
        said = np.full((len(x), len(task.classes)), np.nan)
        by_fold = {name: np.full(folds, np.nan) for name in _BY_FOLD}
        by_probe = {name: np.full(folds, np.nan) for name in self.probes}
        unconverged = 0
        for fold, (test, control_test) in enumerate(zip(task.held_out, task.control.folds, strict=True)):
            known = task.known(test)
            probe = logistic.fitted(x[~test], found.labels[~test])
            unconverged += not probe.converged
            if known.any():
                answers = logistic.predictions(probe, x[known])
                said[known] = logistic.probabilities(probe, x[known], task.classes)
                by_fold["accuracy"][fold] = np.mean(answers == found.labels[known])
                if found.distractors is not None:
                    by_fold["distractor_rate"][fold] = np.mean(answers == found.distractors[known])
                for name in self.probes:
                    told = _PROBES[name](x[~test], found.labels[~test], found.groups[~test], task.seed)(x[known])
                    by_probe[name][fold] = np.mean(told == found.labels[known])
            recalled, converged = _recalled(x, task.control.labels, control_test)
            by_fold["control_accuracy"][fold] = recalled
            unconverged += not converged
        by_cell: dict[str, float] = {}
        tested = np.isfinite(said[:, 0])
        if tested.any():
            codes = np.searchsorted(task.classes, found.labels[tested])
            by_cell["calibration_error"] = expected_calibration_error(said[tested], codes)
            by_cell["brier"] = brier_score(said[tested], codes)
        lengths: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        for name, labels in (("codelength", found.labels), ("control_codelength", task.control.labels)):
            if self.codelength:
                length = online_codelength(x, labels, order=task.order, classes=task.classes)
                lengths[name] = length.bits
                intervals[name] = length.compression_interval(found.blocks, seed=task.seed)
        statistics = None
        if self.drawn is not None and task.exchangeable.any():
            statistics = null.ridge_accuracies(x, self.drawn, task.held_out)
        tried = [self._tried(x, ~test) for test in task.held_out] if (site, role) == (0, self.role) else []
        return _Measured(by_fold, by_probe, by_cell, lengths, intervals, statistics, unconverged, said, tried)

    def _tried(self, x: Float[np.ndarray, "prompt feature"], fit: Bool[np.ndarray, " prompt"]) -> float:
        """Accuracy within the prompts of a fit; NaN where they are all of one group."""
        groups, labels = self.task.data.groups[fit], self.task.data.labels[fit]
        if len(np.unique(groups)) < 2:
            return float("nan")
        codes = np.unique(labels, return_inverse=True)[1]
        return float(null.ridge_accuracies(x[fit], codes[None], data.group_folds(groups, 3))[0])


_BY_FOLD = ("accuracy", "control_accuracy", "distractor_rate")


class _Scores:
    """All that is measured of each cell, gathered cell by cell."""

    def __init__(
        self,
        task: _Task,
        sites: Sequence[str],
        layers: Sequence[int],
        roles: Sequence[str],
        probes: tuple[str, ...],
        codelength: bool,
        drawn: Int[np.ndarray, "relabelling prompt"] | None,
    ) -> None:
        self.task, self.probes, self.drawn = task, probes, drawn
        self.layers = np.array(layers)
        shape = (len(sites), len(layers), len(roles))
        folds = (*shape, len(task.held_out))
        self.by_fold = {name: np.full(folds, np.nan) for name in _BY_FOLD}
        self.by_probe = {name: np.full(folds, np.nan) for name in probes}
        self.by_cell = {name: np.full(shape, np.nan) for name in ("calibration_error", "brier")}
        self.lengths: dict[str, np.ndarray] = {}
        self.length_intervals: dict[str, np.ndarray] = {}
        if codelength:
            self.lengths = {name: np.full(shape, np.nan) for name in ("codelength", "control_codelength")}
            self.length_intervals = {name: np.full((*shape, 2), np.nan) for name in self.lengths}
        self.statistics = None if drawn is None else np.full((len(drawn), *shape), np.nan)
        self.unconverged = 0

    def add(self, index: tuple[int, int, int], found: _Measured) -> None:
        """Put in what was measured of one cell."""
        for kept, one in (
            (self.by_fold, found.by_fold),
            (self.by_probe, found.by_probe),
            (self.by_cell, found.by_cell),
            (self.lengths, found.lengths),
            (self.length_intervals, found.length_intervals),
        ):
            for name, value in one.items():
                kept[name][index] = value
        if self.statistics is not None and found.statistics is not None:
            self.statistics[(slice(None), *index)] = found.statistics
        self.unconverged += found.unconverged


def _recalled(
    x: Float[np.ndarray, "prompt feature"], labels: Shaped[np.ndarray, " prompt"], test: Bool[np.ndarray, " prompt"]
) -> tuple[float, bool]:
    """How often the probe has learnt the control task, among labels that its fit has, and whether it converged."""
    known = test & np.isin(labels, labels[~test])
    probe = logistic.fitted(x[~test], labels[~test])
    if not known.any():
        return float("nan"), probe.converged
    return float(np.mean(logistic.predictions(probe, x[known]) == labels[known])), probe.converged


# ---- further probes ----

_Said = Callable[[Float[np.ndarray, "test feature"]], Shaped[np.ndarray, " test"]]
_Fit = Callable[
    [Float[np.ndarray, "fit feature"], Shaped[np.ndarray, " fit"], Shaped[np.ndarray, " fit"], int],
    _Said,
]


def _closed(kind: type[MeanDifference | RidgeProbe]) -> _Fit:
    def fit(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> _Said:
        if len(np.unique(labels)) == 1:
            return lambda tested: np.repeat(labels[:1], len(tested))
        return kind().fit(x, labels).predict  # type: ignore[no-any-return]

    return fit


def _tuned(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> _Said:
    """Logistic regression with the C that is best on groups held out of these prompts."""
    c = logistic.REGULARISATION
    if len(np.unique(groups)) > 1 and len(np.unique(labels)) > 1:
        c = logistic.chosen_regularisation(x, labels, groups)
    probe = logistic.fitted(x, labels, regularisation=c)
    return lambda tested: logistic.predictions(probe, tested)


def _perceptron(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> _Said:
    probe = make_pipeline(
        StandardScaler(),
        MLPClassifier((HIDDEN,), alpha=1.0, solver="lbfgs", max_iter=logistic.MAX_ITERATIONS, random_state=seed),
    )
    with logistic.quiet(), threads_for(x.size):
        probe.fit(x, labels)
    return probe.predict  # type: ignore[no-any-return]


_PROBES: dict[str, _Fit] = {
    "means": _closed(MeanDifference),
    "ridge": _closed(RidgeProbe),
    "tuned": _tuned,
    "mlp": _perceptron,
}


# ---- the task classifier ----


@dataclass
class _Classifier:
    """A classifier at one word of the first site, whose layer each fold chooses on the prompts it is fitted on.

    The best of all layers by held-out accuracy would be chosen by the prompts that test it. So each fold tries all
    layers on parts held out of its own fit (with a ridge probe, whose fits are closed), and only then is tested.
    """

    task: _Task
    role: int
    n_features: int = 0
    tried: dict[int, list[float]] = field(default_factory=dict)
    said: dict[int, Float[np.ndarray, "prompt class"]] = field(default_factory=dict)

    def add(self, index: tuple[int, int, int], n_features: int, found: _Measured) -> None:
        """Look at a cell, if it is at this word."""
        site, layer, role = index
        if site or role != self.role:
            return
        self.n_features = n_features
        self.tried[layer], self.said[layer] = found.tried, found.said

    def variables(self, scores: _Scores) -> dict[str, Variable]:
        """What is said of it: the layer of each fold, and how it does there on prompts that did not choose it."""
        task, layers = self.task, sorted(self.tried)
        tried = np.nan_to_num(np.array([self.tried[layer] for layer in layers]), nan=-1.0)
        # Of equal layers the last: without a choice that is where a classifier is usually put.
        chosen = [layers[len(layers) - 1 - int(column[::-1].argmax())] for column in tried.T]
        said = np.full((len(task.data.labels), len(task.classes)), np.nan)
        for layer, test in zip(chosen, task.held_out, strict=True):
            said[test] = self.said[layer][test]
        at = [(0, layer, self.role, fold) for fold, layer in enumerate(chosen)]
        by_fold = {
            f"classifier_{name}": Variable(("fold",), [scores.by_fold[name][cell] for cell in at], "share", meaning)
            for name, meaning in _OF_CLASSIFIER.items()
        }
        where = Variable(("fold",), scores.layers[chosen], "", "layer that the fold chose")
        return {"classifier_layer": where, **by_fold, **self._overall(said)}

    def _overall(self, said: Float[np.ndarray, "prompt class"]) -> dict[str, Variable]:
        """Over all prompts that were tested, each by the fold that held it out."""
        tested = np.isfinite(said[:, 0])
        if not tested.any():
            return {}
        codes = np.searchsorted(self.task.classes, self.task.data.labels[tested])
        mean = float((said[tested].argmax(axis=1) == codes).mean())
        n_groups = len(np.unique(self.task.data.groups[tested]))
        interval = stats.wilson_interval(mean * n_groups, n_groups)
        error, brier = expected_calibration_error(said[tested], codes), brier_score(said[tested], codes)
        return {
            "classifier_mean": Variable((), mean, "share", "accuracy over all held-out prompts"),
            "classifier_mean_interval": Variable(
                ("ci_bound",), interval, "share", "95% interval, each held-out group one observation"
            ),
            "classifier_calibration_error": Variable((), error, "share", "expected calibration error"),
            "classifier_brier": Variable((), brier, "", "Brier score, in [0, 2]"),
        }


_OF_CLASSIFIER = {
    "accuracy": "accuracy at the chosen layer",
    "control_accuracy": "accuracy on the control task at the chosen layer",
}


# ---- the result ----


def _variables(task: _Task, scores: _Scores, n_roles: int) -> dict[str, Variable]:
    dims = ("site", "layer", "role", "fold")
    cells, labels = dims[:3], task.data.labels
    accuracy, control = scores.by_fold["accuracy"], scores.by_fold["control_accuracy"]
    majority = np.nanmean([_majority(labels[~test], labels[task.known(test)]) for test in task.held_out])
    unseen = [1 - task.known(test).sum() / test.sum() for test in task.held_out]
    uniform = len(labels) * np.log2(len(task.classes))
    variables = {
        "accuracy": Variable(dims, accuracy, "share", "accuracy of the probe on held-out groups"),
        "control_accuracy": Variable(dims, control, "share", "accuracy of the same probe on the control task"),
        "selectivity": Variable(dims, accuracy - control, "share", "accuracy - control accuracy"),
        "majority": Variable(
            ("role",), np.full(n_roles, majority), "share", "accuracy of the fit's most frequent label"
        ),
        "chance": Variable((), 1 / len(task.classes), "share", "1 / number of labels"),
        "n_train": Variable(("fold",), [int((~test).sum()) for test in task.held_out], "prompts", "prompts fitted on"),
        "n_test": Variable(("fold",), [int(test.sum()) for test in task.held_out], "prompts", "prompts tested on"),
        "unseen": Variable(
            ("fold",), unseen, "share", "tested prompts whose label the fit never saw: they have no part in the scores"
        ),
        "calibration_error": Variable(
            cells, scores.by_cell["calibration_error"], "share", "expected calibration error"
        ),
        "brier": Variable(cells, scores.by_cell["brier"], "", "Brier score, in [0, 2]"),
    }
    if task.data.distractors is not None:
        rate = scores.by_fold["distractor_rate"]
        variables["distractor_rate"] = Variable(dims, rate, "share", "how often the probe gives the distractor's label")
    if scores.statistics is not None:
        flat = scores.statistics.reshape(len(scores.statistics), -1)
        p_values = stats.max_over_cells_p_values(flat).reshape(accuracy.shape[:3])
        variables["p_value"] = Variable(cells, p_values, "", "p-value of the null, corrected over all places")
    for name, bits in scores.lengths.items():
        whose = "control labels" if name.startswith("control") else "labels"
        variables[name] = Variable(cells, bits, "bits", f"online codelength of the {whose}")
        variables[name.replace("codelength", "compression")] = Variable(
            cells, uniform / bits, "", f"how many times shorter the {whose} are than by the uniform code"
        )
        variables[f"{name.replace('codelength', 'compression')}_interval"] = Variable(
            (*cells, "ci_bound"), scores.length_intervals[name], "", "95% interval over prompts, the probes as they are"
        )
    if scores.probes:
        variables["accuracy_by_probe"] = Variable(
            ("probe", *dims), np.stack([accuracy, *scores.by_probe.values()]), "share", "accuracy by kind of probe"
        )
    return variables


def _majority(fit: Shaped[np.ndarray, " fit"], test: Shaped[np.ndarray, " test"]) -> float:
    if not len(test):
        return float("nan")
    labels, counts = np.unique(fit, return_counts=True)
    return float(np.mean(test == labels[counts.argmax()]))


@dataclass(frozen=True)
class _Provenance:
    """Pairs know where they came from; bare prompts state their tokens."""

    pairs: PromptPairs | Prompts

    def provenance(self) -> dict[str, str | int]:
        """Attributes that identify the prompts."""
        if isinstance(self.pairs, PromptPairs):
            return self.pairs.provenance()
        return {
            "task": "own prompts",
            "n_prompts": len(self.pairs),
            "tokens_sha256": self.pairs.sha256(),
            "bos": self.pairs.bos,
        }
