"""A probe fitted on some prompts and tested on others: does it read the word, or the word in that sentence?

Held out within one set of prompts, a probe meets other nouns in the same sentences. Here it meets other sentences:
those of another rung, or of another language, whose words stand for the same labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

from interp import results, stats, tasks
from interp._arguments import check_pairs
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.probes import logistic, null
from interp.probes.calibration import brier_score
from interp.probes.data import PAIR, Labelled, check_askable, labelled, question
from interp.prompts import PromptPairs
from interp.results import Variable
from interp.run import capture
from interp.sites import check_layers, vector_site
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer


def same_words(first: str | Path, second: str | Path, slot: str) -> dict[str, str]:
    """The words of a slot in one task, and for each the word that stands at its place in another task's list.

    It fits tasks whose lists are translations of each other, in order.

    Args:
        first: a task, by name or by its file.
        second: another.
        slot: the slot, which both have.

    Raises:
        InterpError: an unknown task or slot, or lists of different lengths.

    >>> same_words("color-noun-es", "color-noun", "color")["negro"]
    'black'
    """
    lists = []
    for task in (first, second):
        lexicon = tasks.load(task).lexicon
        if slot not in lexicon:
            raise unknown_name("slot", slot, lexicon, f" of {task}")
        lists.append(lexicon[slot])
    if len(lists[0]) != len(lists[1]):
        raise InterpError(
            f"'{slot}' has {len(lists[0])} words in {first} and {len(lists[1])} in {second}, so they are no "
            "translations in order. Give labels= as a mapping of your own."
        )
    return dict(zip(*lists, strict=True))


def transfer(
    model: HookedTransformer,
    fitted_on: PromptPairs,
    tested_on: PromptPairs,
    *,
    target: str | None = None,
    labels: Mapping[str, str] | None = None,
    site: str = "resid_post",
    roles: Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    n_permutations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Fit a probe on all prompts of one set and test it on all of another, at every layer and role that both have.

    The probe is the logistic one of the analysis ``probing`` (L2, C = 0.1, features standardised by the fitted set).
    Nothing of the tested set enters it, not even the mean of its features. Tested prompts whose label the fit never saw
    are reported and have no part in the scores.

    Args:
        model: the model.
        fitted_on: pairs whose prompts, clean and corrupted, are fitted.
        tested_on: pairs whose prompts are tested; of another rung, task or language.
        target: slot or role that is read, in both; None is the source of each set's vocabulary.
        labels: word of the tested set -> word of the fitted set (``same_words``); None: the words are the same.
        site: a site with a vector per layer and position.
        roles: where to read, in both sets; None is every role that both have.
        layers: layer indices; None is all.
        n_permutations: relabellings of the tested prompts within pairs; 0 for no p-values.
        seed: of the relabellings and the bootstrap.
        progress: True for a bar, or called with probes done and probes in all.

    Returns:
        All (layer, role): ``accuracy`` with ``accuracy_interval`` (layer, role, ci_bound), a bootstrap over tested
        pairs; ``brier``; ``p_value``, corrected over all cells. ``chance``: 1 / labels of the fit; ``unseen``: share of
        tested prompts whose label the fit never saw.

    Raises:
        UnaskableError: labels that hardly any two pairs of the fitted set share.
        InterpError: pairs that the model cannot read, no role in common, an unknown role, site or layer, or no tested
            prompt whose label the fit has.

    >>> from interp import HookedTransformer, probes, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> one, other = (tasks.build("color-noun", rung, tokenizer=model, n=24) for rung in ("recall", "repeated_frame"))
    >>> found = probes.transfer(model, one, other, site="resid_pre", layers=0, roles=["color"], n_permutations=0)
    >>> found["accuracy"].item() > 0.9  # its own embedding names the colour
    True
    """
    for pairs in (fitted_on, tested_on):
        check_pairs(model, pairs)
    whole_number(n_permutations, "n_permutations", least=0)
    vector_site(site)
    model.check_site(site)
    chosen = check_layers(layers, model.cfg.n_layers)
    places = _places(fitted_on, tested_on, roles)
    crossing = Crossing.of(fitted_on, tested_on, target, labels)
    streams = [_read(model, side, site, places, chosen) for side in (crossing.fit, crossing.test)]
    meter = Meter(progress, len(chosen) * len(places))

    def cells() -> Iterator[Cell]:
        for layer, role in product(range(len(chosen)), range(len(places))):
            x, y = (stream[:, layer, role].astype(np.float64) for stream in streams)
            yield (layer, role), x, y
            meter.add(1)

    return results.build(
        crossing.scores(cells(), ("layer", "role"), (len(chosen), len(places)), n_permutations, seed),
        coords={"layer": list(chosen), "role": list(places), "ci_bound": ["lower", "upper"]},
        title="Probing across prompts",
        question="Does a probe that was fitted on some prompts read the same word in others?",
        reading="Accuracy on prompts of which none was fitted. At chance: what the probe reads is tied to the "
        "sentences, or to the language, that it was fitted on.",
        source="Alain and Bengio 2016, arXiv 1610.01644; max-T: Westfall and Young 1993",
        of=(model, tested_on),
        seed=seed,
        extra={
            "fitted_task": str(fitted_on.provenance()["task"]),
            "fitted_tokens_sha256": str(fitted_on.provenance()["tokens_sha256"]),
            "site": site,
            "n_fitted": len(crossing.fit.labels),
            "n_tested": int(crossing.known.sum()),
            "n_labels": len(crossing.classes),
            "n_permutations": n_permutations,
        },
    )


Cell: TypeAlias = tuple[tuple[int, ...], Float[np.ndarray, "fit feature"], Float[np.ndarray, "test feature"]]
"""Where a probe reads, and the activations there of the prompts that are fitted and of those that are tested."""


@dataclass(frozen=True)
class Crossing:
    """Two sets of prompts: probes are fitted on one and asked about the other.

    Attributes:
        fit: the prompts that are fitted.
        test: the prompts that are tested.
        said: the labels of the tested prompts, in the words of the fitted ones.
    """

    fit: Labelled
    test: Labelled
    said: Shaped[np.ndarray, " test"]

    @classmethod
    def of(
        cls, fitted_on: PromptPairs, tested_on: PromptPairs, target: str | None, labels: Mapping[str, str] | None
    ) -> Crossing:
        """The prompts of two sets of pairs, with the arguments of ``transfer``.

        Raises:
            UnaskableError: labels that hardly any two pairs of the fitted set share.
            InterpError: no tested prompt whose label the fit has.
        """
        targets = [question(pairs, target, PAIR)[0] for pairs in (fitted_on, tested_on)]
        fit, test = (labelled(pairs, name, PAIR) for pairs, name in zip((fitted_on, tested_on), targets, strict=True))
        check_askable(fit, targets[0], PAIR)
        said = test.labels if labels is None else np.array([labels.get(word, word) for word in test.labels.tolist()])
        if not np.isin(said, fit.labels).any():
            raise InterpError(
                f"None of the tested labels ({shown(said[0])}, ...) is one of the fitted ones "
                f"({shown(fit.labels[0])}, ...). Say which words are the same: labels=same_words(tested task, fitted "
                "task, slot)."
            )
        return cls(fit, test, said)

    @property
    def known(self) -> Bool[np.ndarray, " test"]:
        """The tested prompts whose label the fit has."""
        return np.isin(self.said, self.fit.labels)

    @property
    def classes(self) -> Shaped[np.ndarray, " class"]:
        """The labels of the fit, sorted."""
        return np.unique(self.fit.labels)

    def scores(
        self, cells: Iterable[Cell], dims: tuple[str, ...], shape: tuple[int, ...], n_permutations: int, seed: int
    ) -> dict[str, Variable]:
        """What ``transfer`` returns, over ``dims``; NaN where no cell is given."""
        known, classes, words = self.known, self.classes, np.unique(self.said)
        permuted = null.relabellings(self.said, self.test.blocks, n=n_permutations, seed=seed)
        possible = np.isin(words, self.fit.labels)[permuted]
        right, brier = np.full((len(self.said), *shape), np.nan), np.full(shape, np.nan)
        drawn = np.full((len(permuted), *shape), np.nan)
        for index, x, y in cells:
            probe = logistic.fitted(x, self.fit.labels)
            told = logistic.predictions(probe, y)
            cell: Any = (slice(None), *index)
            right[cell] = told == self.said
            p = logistic.probabilities(probe, y[known], classes)
            brier[index] = brier_score(p, np.searchsorted(classes, self.said[known]))
            hits = (words[permuted] == told) & possible
            drawn[cell] = hits.sum(axis=1) / possible.sum(axis=1)
        variables = {
            "accuracy": Variable(dims, right[known].mean(axis=0), "share", "accuracy on prompts of the other set"),
            "accuracy_interval": Variable(
                (*dims, "ci_bound"), self._interval(right, seed), "share", "95% interval over tested pairs"
            ),
            "brier": Variable(dims, brier, "", "Brier score, in [0, 2]"),
            "chance": Variable((), 1 / len(classes), "share", "1 / number of labels"),
            "unseen": Variable((), 1 - known.mean(), "share", "tested prompts whose label the fit never saw"),
        }
        if n_permutations:
            p_values = stats.max_over_cells_p_values(drawn.reshape(len(drawn), -1)).reshape(shape)
            variables["p_value"] = Variable(dims, p_values, "", "p-value of the null, corrected over all places")
        return variables

    def _interval(self, right: Float[np.ndarray, "test ..."], seed: int) -> Float[np.ndarray, "... ci_bound"]:
        """Of the accuracy: prompts that can exchange their labels, such as those of a pair, are drawn together."""
        known, blocks = self.known, self.test.blocks
        groups = [(blocks == block) & known for block in np.unique(blocks[known])]
        counts = np.array([rows.sum() for rows in groups], dtype=np.float64)
        top = np.stack([right[rows].sum(axis=0) for rows in groups])
        bottom = counts.reshape(-1, *(1,) * (right.ndim - 1))
        return np.stack(stats.ratio_interval(top, bottom, seed=seed), axis=-1)


def _places(fitted_on: PromptPairs, tested_on: PromptPairs, roles: Sequence[str] | None) -> tuple[str, ...]:
    common = [role for role in fitted_on.roles if role in tested_on.roles]
    chosen = common if roles is None else list(dict.fromkeys([roles] if isinstance(roles, str) else roles))
    for role in chosen:
        if role not in common:
            raise unknown_name("role", role, common, " of both sets of prompts")
    if not chosen:
        raise InterpError("The two sets of prompts have no role in common. Give both the roles that are to be read.")
    return tuple(chosen)


def _read(
    model: HookedTransformer, side: Labelled, site: str, roles: Sequence[str], layers: Sequence[int]
) -> Float[np.ndarray, "prompt layer role feature"]:
    values = capture(model, side.prompts, site, at=list(roles), layers=layers)[site].values
    return values.reshape(*values.shape[:3], -1)
