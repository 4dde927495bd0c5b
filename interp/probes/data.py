"""Prompts as data for a probe: what each is labelled by, held out with, and may exchange its label with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold

from interp.errors import InterpError, UnaskableError, unknown_name
from interp.prompts import PromptPairs
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts

PAIR = "pair"
"""What is held out where the target is the answer position: clean and corrupted prompt of a pair are in one fold."""

TEMPLATE = "template"
"""What is held out to ask whether a probe depends on the sentence: the prompts of one template of the rung."""


@dataclass(frozen=True)
class Labelled:
    """Prompts, each with what a probe needs to know of it. One that occurs twice counts once.

    Attributes:
        prompts: the prompts, clean ones first.
        labels: what is read.
        groups: prompts that share one are held out together.
        types: the type of the control task: the pair, or the prompt without the target's tokens.
        blocks: prompts that differ in the label alone, and can exchange it: pairs that share a prompt are one block.
        distractors: the distractor's label, or None where no word of the prompts is one.
        n_repeated: prompts left out because they had occurred before.
    """

    prompts: Prompts
    labels: Shaped[np.ndarray, " prompt"]
    groups: Shaped[np.ndarray, " prompt"]
    types: Int[np.ndarray, " prompt"]
    blocks: Int[np.ndarray, " prompt"]
    distractors: Shaped[np.ndarray, " prompt"] | None
    n_repeated: int


def question(pairs: PromptPairs | Prompts, target: str | None, group: str | None) -> tuple[str, str]:
    """What is read and what is held out, by the pairs' vocabulary where it is not said.

    Raises:
        UnaskableError: clean and corrupted differ in no word that has a role.
        InterpError: prompts without pairs, and no target or group.
    """
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


def labelled(pairs: PromptPairs | Prompts, target: str, group: str) -> Labelled:
    """The prompts of pairs, clean and corrupted alike, with their labels, groups, types and blocks.

    Raises:
        InterpError: an unknown target or group.
    """
    labels = words(pairs, target, "target")
    distractors = _distractors(pairs, target, labels)
    if isinstance(pairs, PromptPairs):
        prompts = Prompts.concat([pairs.clean, pairs.corrupted])
        types = np.tile(np.arange(len(pairs)), 2)
    else:
        prompts = pairs
        types = _without(prompts, target) if target in prompts.roles else np.arange(len(prompts))
    groups = _groups(pairs, group)
    seen: dict[tuple[int, ...], int] = {}
    first = np.array([seen.setdefault(tuple(row), i) for i, row in enumerate(prompts.rows())])
    kept = np.array(list(seen.values()))
    return Labelled(
        prompts=prompts.select(kept),
        labels=labels[kept],
        groups=groups[kept],
        types=types[kept],
        blocks=_joined(first, types)[kept],
        distractors=None if distractors is None else distractors[kept],
        n_repeated=len(labels) - len(kept),
    )


def check_askable(data: Labelled, target: str, group: str) -> None:
    """Refuse labels that a probe cannot have learnt: those of a held-out group must occur in other groups too.

    Raises:
        UnaskableError: one label only, one group only, or labels that hardly any two groups share.
    """
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


def words(pairs: PromptPairs | Prompts, name: str, what: str) -> Shaped[np.ndarray, " prompt"]:
    """What each prompt has in a slot, clean prompts first; without such a slot, the tokens of the role of that name.

    Raises:
        InterpError: neither a slot nor a role is called so.
    """
    if isinstance(pairs, Prompts):
        return _spans(pairs, name, what, ())
    slots: tuple[Mapping[str, str], ...] = (*pairs.slots, *pairs.corrupted_slots)
    if all(name in words for words in slots):
        return np.array([words[name] for words in slots])
    known = [slot for slot in slots[0] if all(slot in words for words in slots)]
    return np.concatenate([_spans(prompts, name, what, known) for prompts in (pairs.clean, pairs.corrupted)])


def _groups(pairs: PromptPairs | Prompts, group: str) -> Shaped[np.ndarray, " prompt"]:
    if isinstance(pairs, PromptPairs) and group == PAIR:
        return np.tile(np.arange(len(pairs)), 2)
    if isinstance(pairs, PromptPairs) and group == TEMPLATE:
        return np.tile(np.array(pairs.variants), 2)
    return words(pairs, group, "group")


def _joined(first: Int[np.ndarray, " prompt"], types: Int[np.ndarray, " prompt"]) -> Int[np.ndarray, " prompt"]:
    """Prompts numbered by what they are connected with: the other prompts of their type, and those of equal tokens."""
    n = len(first)
    types = np.unique(types, return_inverse=True)[1] + n
    links = (np.ones(2 * n), (np.r_[np.arange(n), np.arange(n)], np.r_[first, types]))
    return np.asarray(connected_components(coo_array(links, shape=(2 * n, 2 * n)), directed=False)[1][:n])


def _distractors(
    pairs: PromptPairs | Prompts, target: str, labels: Shaped[np.ndarray, " prompt"]
) -> Shaped[np.ndarray, " prompt"] | None:
    """The words of the first distractor of the target's own kind: never the target's word, and a label elsewhere."""
    for name in _candidates(pairs):
        if name not in (target, ANSWER):
            found = words(pairs, name, "target")
            if (found != labels).all() and np.isin(found, labels).any():
                return found
    return None


def _candidates(pairs: PromptPairs | Prompts) -> list[str]:
    """The distractors of the vocabulary, then every slot; of prompts without pairs, every role."""
    if isinstance(pairs, Prompts):
        return list(pairs.roles)
    slots = [slot for slot in pairs.slots[0] if all(slot in words for words in (*pairs.slots, *pairs.corrupted_slots))]
    return list(dict.fromkeys((*(pairs.vocabulary.distractors or ()), *slots)))


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


# ---- folds ----


def group_folds(groups: Shaped[np.ndarray, " prompt"], n_folds: int) -> list[Bool[np.ndarray, " prompt"]]:
    """Which prompts each fold tests; no group is in two folds, and there are at most as many folds as groups."""
    folds = []
    for _, test in GroupKFold(n_splits=min(n_folds, len(np.unique(groups)))).split(groups, groups=groups):
        folds.append(np.isin(np.arange(len(groups)), test))
    return folds


@dataclass(frozen=True)
class Control:
    """The control task.

    Attributes:
        labels: a label per prompt, the same for all prompts of a type.
        folds: which prompts each fold tests.
        seen: the share of prompts whose type is in the fit that tests them; at 0 the control would be vacuous.
    """

    labels: Shaped[np.ndarray, " prompt"]
    folds: list[Bool[np.ndarray, " prompt"]]
    seen: float


def control_task(data: Labelled, n_folds: int, seed: int) -> Control:
    """Labels drawn per type from the task's own labels; a type's prompts are dealt to different folds."""
    rng = np.random.default_rng(seed)
    _, first, type_of = np.unique(data.types, return_index=True, return_inverse=True)
    labels = data.labels[rng.permutation(first)][type_of]
    dealt = np.lexsort((rng.random(len(type_of)), rng.permutation(len(first))[type_of]))
    fold_of = np.empty(len(type_of), dtype=int)
    fold_of[dealt] = np.arange(len(dealt)) % n_folds
    elsewhere = [((type_of == kind) & (fold_of != fold)).any() for kind, fold in zip(type_of, fold_of, strict=True)]
    return Control(labels, [fold_of == fold for fold in range(n_folds)], float(np.mean(elsewhere)))
