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
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp import results
from interp._arguments import check_pairs, check_prompts
from interp.errors import InterpError, UnaskableError, names, shown, unknown_name, whole_number, whole_numbers
from interp.language import in_each, say
from interp.prompts import PromptPairs
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts
from interp.prompts.vocabulary import NOTHING_STATED
from interp.results import Variable
from interp.run import capture
from interp.sites import check_sites, vector_site
from interp.sweeps import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer


STREAM = "resid_pre"
"""The site whose layer axis has one more entry: after the last block, which is ``resid_post`` of the last layer."""

PAIR = "pair"
"""What is held out where the target is the answer position: clean and corrupted prompt of a pair are in one fold."""

REGULARISATION = 0.1
"""C of ``LogisticRegression``: the inverse strength of its L2 penalty, on features of unit variance."""

MAX_ITERATIONS = 300


def check(*, sites: Sequence[str], n_folds: int) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: fewer than two folds, no site, or a site without a vector per layer and position.
    """
    if whole_number(n_folds, "n_folds") < 2:
        raise InterpError(f"n_folds is {shown(n_folds)}. Give at least 2.")
    if not sites:
        raise InterpError(f"There is no site to probe. Give at least one, such as '{STREAM}'.")
    for site in check_sites(sites):
        vector_site(site.name)


def check_askable(pairs: PromptPairs, *, target: str | None = None, group: str | None = None) -> None:
    """Refuse a question that these pairs leave no room for, whatever the model; the arguments are those of ``run``.

    Raises:
        UnaskableError: as ``run``.
        InterpError: an unknown target or group.
    """
    target, group = _question(pairs, target, group)
    _check_askable(_data(pairs, target, group), target, group)


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
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Fit a probe at every site, layer and role, and test it on words it has not seen.

    The probe is scikit-learn's multinomial ``LogisticRegression`` (L2, C = 0.1, lbfgs) on features standardised inside
    each fold. Clean and corrupted prompts are data alike, each with its own label; one that occurs twice counts once.

    Args:
        model: the model.
        pairs: pairs of prompts, or ``Prompts`` (whose control type is then the prompt without the target's tokens).
        target: what to read: a slot of the pairs, else a role, whose tokens are the label; None is the source of the
            pairs' vocabulary.
        group: what to hold out, likewise: prompts that share it are in one fold. None is the vocabulary's target, or
            ``"pair"`` (clean and corrupted together) where that is the answer position.
        sites: sites with a position; heads are laid side by side.
        roles: where to read (a role of several tokens at its last); None is every role.
        layers: layer indices; None is all. ``n_layers`` is the stream after the last block (``resid_pre`` only).
        n_folds: at most this many folds; fewer where there are fewer groups.
        seed: of the control's labels and folds.
        progress: True for a bar, or called with probes done and probes in all.

    Returns:
        ``accuracy``, ``control_accuracy`` and ``selectivity`` = accuracy - control_accuracy, all (site, layer, role,
        fold), shares of held-out prompts; NaN for sites without a last layer ``n_layers``. ``distractor_rate``, alike,
        where a distractor of the vocabulary is a word of the target's kind (never the target's own, and a label
        elsewhere): how often the probe answers with the distractor's label; a probe that reads "a word of this kind"
        without binding has both near 0.5. ``majority`` (role): of
        always giving the fit's most frequent label; ``chance``: 1 / number of labels. ``n_train``, ``n_test`` (fold).
        Attributes: ``control_seen``, the share of prompts whose control type is in their fold's fit (0 would make the
        control vacuous), and ``n_unconverged``, fits stopped by the iteration limit.

    Raises:
        UnaskableError: one label only, one group only, labels that hardly any two groups share, or no role in which
            clean and corrupted differ.
        InterpError: an unknown target, group, site, role or layer, or prompts without pairs and no target or group.

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
    check(sites=sites, n_folds=n_folds)
    target, group = _question(pairs, target, group)
    data = _data(pairs, target, group)
    places = _names(roles, data.prompts.roles, "role")
    features = _Features(model, data.prompts, sites, places, layers)  # refuses wrong layers before all else
    _check_askable(data, target, group)
    held_out = _group_folds(data, n_folds)
    control = _control(data, len(held_out), seed)
    shape = (len(features.sites), len(features.layers), len(places), len(held_out))
    scores = {name: np.full(shape, np.nan) for name in ("accuracy", "control_accuracy", "distractor_rate")}
    unconverged, meter = 0, Meter(progress, len(features))
    for index, x in features:
        for fold, (test, control_test) in enumerate(zip(held_out, control.folds, strict=True)):
            said, converged = _predict(x[~test], data.labels[~test], x[test])
            recalled, control_converged = _predict(x[~control_test], control.labels[~control_test], x[control_test])
            scores["accuracy"][index][fold] = np.mean(said == data.labels[test])
            scores["control_accuracy"][index][fold] = np.mean(recalled == control.labels[control_test])
            if data.distractors is not None:
                scores["distractor_rate"][index][fold] = np.mean(said == data.distractors[test])
            unconverged += (not converged) + (not control_converged)
        meter.add(1)
    told = in_each(lambda: _in_words(pairs, target, group))
    return results.build(
        _variables(data, scores, held_out, len(places)),
        coords={
            "site": list(features.sites),
            "layer": list(features.layers),
            "role": list(places),
            "fold": np.arange(len(held_out)),
        },
        title="Probing",
        question=told.pop("question"),
        reading=told.pop("reading"),
        source="Alain and Bengio 2016, arXiv 1610.01644; control task and selectivity: Hewitt and Liang 2019, "
        "arXiv 1909.03368",
        of=(model, _Provenance(pairs)),
        seed=seed,
        extra={
            "target": target,
            "held_out": group,
            **told,
            "n_folds": len(held_out),
            "n_data": len(data.labels),
            "n_repeated": data.n_repeated,
            "n_labels": len(np.unique(data.labels)),
            "n_groups": len(np.unique(data.groups)),
            "n_control_types": len(np.unique(data.types)),
            "control": "a random label per pair of prompts, which are split over the folds",
            "control_seen": control.seen,
            "probe": f"logistic regression, L2 with C = {REGULARISATION:g}, features standardised within the fold",
            "n_unconverged": unconverged,
        },
    )


# ---- what is read, from what, held out by what ----


@dataclass(frozen=True)
class _Data:
    """The prompts with, for each, its label, its group, its control type and the distractor's label."""

    prompts: Prompts
    labels: Shaped[np.ndarray, " prompt"]
    groups: Shaped[np.ndarray, " prompt"]
    types: Int[np.ndarray, " prompt"]
    distractors: Shaped[np.ndarray, " prompt"] | None
    n_repeated: int


def _question(pairs: PromptPairs | Prompts, target: str | None, group: str | None) -> tuple[str, str]:
    """What is read and what is held out, by the pairs' vocabulary where the study does not say."""
    if target is not None and group is not None:
        return target, group
    if isinstance(pairs, Prompts):
        raise InterpError("Prompts without pairs do not say what to read of them. Give target= and group=, roles.")
    words = pairs.vocabulary
    if target is None and words.source is None:
        raise UnaskableError(
            "Clean and corrupted differ in no word that has a role, so there is nothing to read. Give that word a role."
        )
    by_default = PAIR if words.target in (ANSWER, None) else words.target
    return target or str(words.source), group or str(by_default)


def _name(pairs: PromptPairs | Prompts, place: str) -> str:
    """A role or slot within a sentence."""
    words = pairs.vocabulary if isinstance(pairs, PromptPairs) else NOTHING_STATED
    return words.name(place)


def _in_words(pairs: PromptPairs | Prompts, target: str, group: str) -> dict[str, str]:
    """What is asked and how to read it, in the language spoken now."""
    thing = _name(pairs, target)
    held_out = say("the pair of prompts") if group == PAIR else _name(pairs, group)
    what = thing if group == PAIR else say("{thing} bound to {other}", thing=thing, other=held_out)
    return {
        "question": say("At which layer, and at which word, can a linear probe read {what}?", what=what),
        "reading": say(
            "Accuracy where {held_out} was not in the fit. The control has a random label per sentence, whichever of "
            "two words stands for {thing}, and has seen every sentence with the other word: what memory alone can do. "
            "A probe that beats its control and the majority reads something that is there; that the model uses it is "
            "for patching to show.",
            held_out=held_out,
            thing=thing,
        ),
        "held_out_in_words": held_out,
    }


def _data(pairs: PromptPairs | Prompts, target: str, group: str) -> _Data:
    labels = _words(pairs, target, "target")
    distractors = _distractors(pairs, target, labels)
    if isinstance(pairs, PromptPairs) and group == PAIR:
        groups: Shaped[np.ndarray, " prompt"] = np.tile(np.arange(len(pairs)), 2)
    else:
        groups = _words(pairs, group, "group")
    if isinstance(pairs, PromptPairs):
        prompts = Prompts.concat([pairs.clean, pairs.corrupted])
        types = np.tile(np.arange(len(pairs)), 2)
    else:
        prompts = pairs
        types = _without(prompts, target) if target in prompts.roles else np.arange(len(prompts))
    seen: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(prompts.rows()):
        seen.setdefault(tuple(row), i)
    kept = np.array(list(seen.values()))
    return _Data(
        prompts.select(kept), labels[kept], groups[kept], types[kept],
        None if distractors is None else distractors[kept], len(labels) - len(kept),
    )  # fmt: skip


def _check_askable(data: _Data, target: str, group: str) -> None:
    """Refuse labels that a probe cannot have learnt: those of a held-out group must occur in other groups too."""
    labels, groups = data.labels, data.groups
    if len(np.unique(labels)) < 2:
        raise UnaskableError(
            f"Every prompt has the same {target} ({labels[0]}), so there is nothing to read. Vary it.", by=["target"]
        )
    in_groups = {label: set(groups[labels == label].tolist()) for label in np.unique(labels)}
    shared = sum(len(in_groups[label]) > 1 for label in labels)
    if len(np.unique(groups)) > 1 and shared < len(labels) / 2:
        raise UnaskableError(
            f"Only {shared} of {len(labels)} labels of '{target}' occur with another '{group}' too, and no probe can "
            "give a label that it has never seen. Use fewer different words, or more prompts.",
            by=["target", "group"],
        )
    if len(np.unique(groups)) < 2:
        raise UnaskableError(
            f"Every prompt has the same {group}, so none can be held out. Vary it or give another group=.",
            by=["group"],
        )


def _distractors(
    pairs: PromptPairs | Prompts, target: str, labels: Shaped[np.ndarray, " prompt"]
) -> Shaped[np.ndarray, " prompt"] | None:
    """The words of the first distractor of the target's own kind: never the target's word, and a label elsewhere."""
    for name in _candidates(pairs):
        if name not in (target, ANSWER):
            words = _words(pairs, name, "target")
            if (words != labels).all() and np.isin(words, labels).any():
                return words
    return None


def _candidates(pairs: PromptPairs | Prompts) -> list[str]:
    """The distractors of the vocabulary, then every slot; of prompts without pairs, every role."""
    if isinstance(pairs, Prompts):
        return list(pairs.roles)
    slots = [slot for slot in pairs.slots[0] if all(slot in words for words in (*pairs.slots, *pairs.corrupted_slots))]
    return list(dict.fromkeys((*(pairs.vocabulary.distractors or ()), *slots)))


def _words(pairs: PromptPairs | Prompts, name: str, what: str) -> Shaped[np.ndarray, " prompt"]:
    """What each prompt has in a slot, clean prompts first; without such a slot, the tokens of the role of that name."""
    if isinstance(pairs, Prompts):
        return _spans(pairs, name, what, ())
    slots: tuple[Mapping[str, str], ...] = (*pairs.slots, *pairs.corrupted_slots)
    if all(name in words for words in slots):
        return np.array([words[name] for words in slots])
    known = [slot for slot in slots[0] if all(slot in words for words in slots)]
    return np.concatenate([_spans(prompts, name, what, known) for prompts in (pairs.clean, pairs.corrupted)])


def _spans(prompts: Prompts, role: str, what: str, slots: Sequence[str]) -> Shaped[np.ndarray, " prompt"]:
    if role not in prompts.roles:
        raise unknown_name(what, role, dict.fromkeys((*slots, *prompts.roles)))
    rows = zip(prompts.rows(), prompts.spans(role), strict=True)
    return np.array([" ".join(map(str, row[start:stop])) for row, (start, stop) in rows])


def _without(prompts: Prompts, role: str) -> Int[np.ndarray, " prompt"]:
    """Prompts numbered by what they hold besides a role."""
    rows = zip(prompts.rows(), prompts.spans(role), strict=True)
    rest = [(*row[:start], -1, *row[stop:]) for row, (start, stop) in rows]
    numbers = {content: number for number, content in enumerate(dict.fromkeys(rest))}
    return np.array([numbers[content] for content in rest])


def _names(chosen: Sequence[str] | None, known: Mapping[str, Any], what: str) -> tuple[str, ...]:
    names = tuple(known if chosen is None else dict.fromkeys([chosen] if isinstance(chosen, str) else chosen))
    for name in names:
        if name not in known:
            raise unknown_name(what, name, known)
    if not names:
        raise InterpError(f"There is no {what} to probe. Give at least one of {', '.join(known) or 'none'}.")
    return names


class _Features:
    """Iterates over the cells: (site, layer, role) index and activations [prompt, feature]. One site in memory."""

    def __init__(
        self,
        model: HookedTransformer,
        prompts: Prompts,
        sites: Sequence[str],
        roles: Sequence[str],
        layers: Sequence[int] | None,
    ) -> None:
        self.model, self.prompts, self.roles = model, prompts, roles
        self.sites = names(sites, "sites")
        for name in self.sites:
            model.check_site(name)
        last = model.cfg.n_layers
        extra = [last] if STREAM in self.sites else []
        possible = [*range(last), *extra]
        self.layers = tuple(possible if layers is None else sorted(set(whole_numbers(layers, "layers"))))
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

    def __iter__(self) -> Iterator[tuple[tuple[int, int, int], Float[np.ndarray, "prompt feature"]]]:
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
            for slot, layer in enumerate(self.layers):
                if layer not in parts:
                    continue
                site, at = parts[layer]
                for r, role in enumerate(self.roles):
                    values = read[site][site].sel(layer=at, role=role).values
                    yield (s, slot, r), values.reshape(len(values), -1).astype(np.float64)


# ---- folds ----


def _group_folds(data: _Data, n_folds: int) -> list[Shaped[np.ndarray, " prompt"]]:
    """Which prompts each fold tests; no group is in two folds."""
    folds = []
    n_splits = min(n_folds, len(np.unique(data.groups)))
    for _, test in GroupKFold(n_splits=n_splits).split(data.labels, groups=data.groups):
        folds.append(np.isin(np.arange(len(data.labels)), test))
    return folds


@dataclass(frozen=True)
class _Control:
    """The control task: labels, which prompts each fold tests, and the share of prompts whose type is in the fit."""

    labels: Shaped[np.ndarray, " prompt"]
    folds: list[Shaped[np.ndarray, " prompt"]]
    seen: float


def _control(data: _Data, n_folds: int, seed: int) -> _Control:
    """Labels drawn per type from the task's own labels; a type's prompts are dealt to different folds."""
    rng = np.random.default_rng(seed)
    _, first, type_of = np.unique(data.types, return_index=True, return_inverse=True)
    labels = data.labels[rng.permutation(first)][type_of]
    dealt = np.lexsort((rng.random(len(type_of)), rng.permutation(len(first))[type_of]))
    fold_of = np.empty(len(type_of), dtype=int)
    fold_of[dealt] = np.arange(len(dealt)) % n_folds
    elsewhere = [((type_of == kind) & (fold_of != fold)).any() for kind, fold in zip(type_of, fold_of, strict=True)]
    return _Control(labels, [fold_of == fold for fold in range(n_folds)], float(np.mean(elsewhere)))


# ---- the probe ----


def _predict(
    x: Float[np.ndarray, "fit feature"], y: Shaped[np.ndarray, " fit"], x_test: Float[np.ndarray, "test feature"]
) -> tuple[Shaped[np.ndarray, " test"], bool]:
    """What a probe fitted on one part says of the other, and whether the fit converged."""
    if len(np.unique(y)) == 1:
        return np.repeat(y[:1], len(x_test)), True
    probe = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    pipeline = make_pipeline(StandardScaler(), probe)
    with warnings.catch_warnings():
        # Counted and reported instead: a fit stopped early is still a fair probe.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Labels are words: many of them are no sign of a regression.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        pipeline.fit(x, y)
    return pipeline.predict(x_test), int(np.max(probe.n_iter_)) < MAX_ITERATIONS


# ---- the result ----


def _variables(
    data: _Data,
    scores: Mapping[str, Float[np.ndarray, "site layer role fold"]],
    held_out: Sequence[Shaped[np.ndarray, " prompt"]],
    n_roles: int,
) -> dict[str, Variable]:
    dims = ("site", "layer", "role", "fold")
    accuracy, control = scores["accuracy"], scores["control_accuracy"]
    majority = np.mean([_majority(data.labels[~test], data.labels[test]) for test in held_out])
    variables = {
        "accuracy": Variable(dims, accuracy, "share", "accuracy of the probe on held-out groups"),
        "control_accuracy": Variable(dims, control, "share", "accuracy of the same probe on the control task"),
        "selectivity": Variable(dims, accuracy - control, "share", "accuracy - control accuracy"),
        "majority": Variable(
            ("role",), np.full(n_roles, majority), "share", "accuracy of the fit's most frequent label"
        ),
        "chance": Variable((), 1 / len(np.unique(data.labels)), "share", "1 / number of labels"),
        "n_train": Variable(("fold",), [int((~test).sum()) for test in held_out], "prompts", "prompts fitted on"),
        "n_test": Variable(("fold",), [int(test.sum()) for test in held_out], "prompts", "prompts tested on"),
    }
    if data.distractors is not None:
        rate = scores["distractor_rate"]
        variables["distractor_rate"] = Variable(dims, rate, "share", "how often the probe gives the distractor's label")
    return variables


def _majority(fit: Shaped[np.ndarray, " fit"], test: Shaped[np.ndarray, " test"]) -> float:
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
