"""Probes of one task asked about the prompts of another, both ways: other sentences, or another language.

It is what the option ``transfer`` of the analysis ``probing`` adds to its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float

from interp import tasks
from interp.errors import InterpError, shown, unknown_name
from interp.probes import data
from interp.probes.across import Cell, Crossing, same_words
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.results import Variable

if TYPE_CHECKING:
    from interp.model import HookedTransformer

DIMS = ("transfer", "site", "layer", "role")

Cells: TypeAlias = Iterable[tuple[tuple[int, int, int], Float[np.ndarray, "prompt feature"]]]
"""(site, layer, role) and the activations there."""


@dataclass(frozen=True)
class Another:
    """A bundled task, and one of its rungs."""

    task: str
    rung: str

    @classmethod
    def named(cls, name: str) -> Another:
        """Of ``task`` or ``task/rung``; without a rung it is the task's main one.

        Raises:
            InterpError: an unknown task or rung.

        >>> Another.named("color-noun-es")
        Another(task='color-noun-es', rung='two')
        """
        task, _, rung = name.partition("/")
        if task not in tasks.names():
            raise unknown_name("task", task, tasks.names())
        return cls(task, tasks.load(task).rung(rung or None).name)

    def labels(self, pairs: PromptPairs, target: str) -> tuple[dict[str, str] | None, dict[str, str] | None]:
        """Its words -> those of the pairs, and the other way round; None where they are the same words.

        Words of two tasks stand for one another by their place in the tasks' lists.

        Raises:
            InterpError: a task whose list the words are not in, or lists that are no translations in order.
        """
        lexicon = tasks.load(self.task).lexicon
        if target not in lexicon:
            raise unknown_name("slot", target, lexicon, f" of {self.task}")
        words = lexicon[target]
        if set(words) & set(data.words(pairs, target, "target").tolist()):
            return None, None
        if pairs.task not in tasks.names():
            raise InterpError(
                f"No {target} of these prompts is a word of {self.task} ({shown(words[0])}, ...), and only the lists "
                "of bundled tasks are translated. Transfer to a task with the same words."
            )
        return same_words(self.task, pairs.task, target), same_words(pairs.task, self.task, target)


def check(pairs: PromptPairs, target: str, transfer: Sequence[str]) -> None:
    """Refuse a task that has nothing in common with the pairs, before its prompts are built.

    Raises:
        InterpError: as ``Another``.
    """
    for name in transfer:
        Another.named(name).labels(pairs, target)


def measured(
    model: HookedTransformer,
    pairs: PromptPairs,
    features: Callable[[Prompts, Sequence[str]], Cells],
    *,
    target: str,
    transfer: Sequence[str],
    roles: Sequence[str],
    shape: tuple[int, int, int],
    n_permutations: int,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[dict[str, Variable], list[str], str]:
    """Fit on the pairs and test on as many of each other task, and the other way round.

    Args:
        model: the model.
        pairs: the pairs.
        features: gives the activations of prompts at some roles.
        target: the slot or role that is read.
        transfer: the other tasks, as ``Another.named`` takes them.
        roles: where to read; roles that another task lacks are left out there.
        shape: how many sites, layers and roles there are.
        n_permutations: as of ``probes.transfer``.
        seed: of the other tasks' prompts, the relabellings and the bootstrap.
        advance: told of probes done.

    Returns:
        Variables over ``DIMS``; the entries of ``transfer``, such as ``"color-noun/two -> color-noun-es/two"``; and
        the fingerprint of each other task's tokens.

    Raises:
        InterpError: no role in common, or no prompts or labels that go together.
    """
    found: list[dict[str, Variable]] = []
    entries, prints = [], []
    for name in transfer:
        another = Another.named(name)
        other = tasks.build(another.task, another.rung, tokenizer=model, n=len(pairs), seed=seed)
        to_own, to_other = another.labels(pairs, target)
        common = [role for role in roles if role in other.roles]
        if not common:
            raise InterpError(f"{name} has none of the roles {', '.join(roles)}. Give roles= that both tasks have.")
        prints.append(f"{name} {other.sha256()}")
        for fitted_on, tested_on, labels in ((pairs, other, to_own), (other, pairs, to_other)):
            crossing = Crossing.of(fitted_on, tested_on, target, labels)
            fit, test = (features(side.prompts, common) for side in (crossing.fit, crossing.test))
            cells = _joined(fit, test, [roles.index(role) for role in common], advance)
            found.append(crossing.scores(cells, DIMS[1:], shape, n_permutations, seed))
            entries.append(" -> ".join(str(side.provenance()["task"]) for side in (fitted_on, tested_on)))
    return _stacked(found), entries, "; ".join(prints)


def _joined(fit: Cells, test: Cells, places: Sequence[int], advance: Callable[[int], None]) -> Iterator[Cell]:
    """Two sets' activations cell by cell, the roles by their number among all."""
    for ((site, layer, role), x), (_, y) in zip(fit, test, strict=True):
        yield (site, layer, places[role]), x, y
        advance(1)


def _stacked(found: Sequence[Mapping[str, Variable]]) -> dict[str, Variable]:
    """One variable for all entries of ``transfer``."""
    return {
        f"transfer_{name}": Variable(
            (DIMS[0], *one.dims), np.stack([np.asarray(each[name].values) for each in found]), one.units, _MEANING[name]
        )
        for name, one in found[0].items()
    }


_MEANING = {
    "accuracy": "accuracy across tasks: fitted on one, tested on the other",
    "accuracy_interval": "95% interval over tested pairs",
    "brier": "Brier score across tasks, in [0, 2]",
    "chance": "1 / number of labels of the fit",
    "unseen": "tested prompts whose label the fit never saw",
    "p_value": "p-value across tasks, corrected over all places of one transfer",
}
