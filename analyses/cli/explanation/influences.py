"""What an explanation with an open source finds: the words of the context by how much they matter, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from analyses.cli.explanation.answer import EXCERPT, of_model, quoted
from analyses.cli.explanation.context import OTHERS, STEPS
from analyses.cli.explanation.result import save
from interp import _cells
from interp.language import say, speaking
from interp.prompts.ids import excerpt
from interp.report.inputs import Result
from interp.report.markup import token as visible_token
from interp.report.sections import influences as drawn
from interp.report.sections.influences import METHODS

APART = 3
"""Two ways part over a word if their ranks of it are so many places apart, or more."""


@dataclass(frozen=True, eq=False, repr=False)
class Influences:
    """Which words of the context matter to a word, or to a token that is generated.

    Attributes:
        text: the sentence; of a chat its messages, one after the other.
        target: the word that is asked about, as it was asked for; ``">"`` is the token that is generated next.
        language: of the sentence, in which the answer is written.
        words: one entry for each word of the context (dim ``word``). ``swap_...`` (word, other): another word in its
            place; ``knockout_...`` (word): the target may not look at it, in any layer; each of ``stream`` (share of
            the length of the target's stream after the last layer), ``kl`` (nats) and ``log_probability`` (change of
            the predicted token's, nats). ``input_x_gradient``, ``integrated_gradients`` (nats) and ``saliency``
            (word): attributions of that log-probability. ``agreement`` (way, other_way): Spearman correlations.
            NaN: not asked.

    >>> from interp import HookedTransformer, explain
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = explain(model, "The cat is black. The cat is", "?", ">")
    >>> found.order[0], found.words.attrs["says"]
    ('black', ' black')
    """

    text: str
    target: str
    language: str
    words: xr.Dataset

    @property
    def results(self) -> dict[str, xr.Dataset]:
        """The result by its name, with the answer among its attributes."""
        with speaking(self.language):
            said = {
                "answer": self.answer,
                "title": say("Which words matter to {target}", target=self._target),
                "question": self._question,
            }
        return {"influences": self.words.assign_attrs(said | {"language": self.language})}

    def save(self, directory: str | Path, *, figures: bool = False) -> Path:
        """Write the result and the page of the answer into a directory; returns the page's path.

        Args:
            directory: an empty one, or one that is made.
            figures: also write each figure of the page to ``DIR/figures``, as SVG and PNG.

        Raises:
            InterpError: the directory holds something already, or cannot be written.

        >>> import tempfile
        >>> from interp import HookedTransformer, explain
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> found = explain(model, "The cat is black. The cat is", "?", ">")
        >>> with tempfile.TemporaryDirectory() as place:
        ...     found.save(place).name
        'report.html'
        """
        return save(self.results, directory, figures=figures)

    @property
    def order(self) -> list[str]:
        """The words, that which matters most first: by mean rank over exchange and cut attention."""
        return [str(self.words["text"].values[i]) for i in self.places]

    @property
    def reaches(self) -> bool:
        """Whether any word makes a difference beyond rounding."""
        effects = np.concatenate([self.words[f"{way}_stream"].values.ravel() for way in ("swap", "knockout")])
        return bool(np.nanmax(effects, initial=0.0) > float(self.words.attrs["rounding"]))

    @property
    def answer(self) -> str:
        """The answer in plain words, in the language of the sentence."""
        with speaking(self.language):
            return "".join(self._sentences())

    def __repr__(self) -> str:
        return self.answer

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, and the picture of the page."""
        return _cells.html(self)

    # ---- in words ----

    @property
    def _ranks(self) -> np.ndarray:
        """[method, word] place of each word by each way, 1 the largest; NaN where a way has no number."""
        values = drawn.sizes(Result("influences", self.words))
        places = np.argsort(np.argsort(-np.nan_to_num(values, nan=-1.0), axis=1, kind="stable"), axis=1) + 1.0
        return np.where(np.isfinite(values), places, np.nan)

    @property
    def places(self) -> list[int]:
        """The numbers of the words in that order; a word that one of the two lacks is placed by the other."""
        ranks = self._ranks[:2]
        total = np.nansum(ranks, axis=0) / np.maximum(np.isfinite(ranks).sum(axis=0), 1)
        total[~np.isfinite(ranks).any(axis=0)] = np.inf
        return [int(i) for i in np.argsort(total, kind="stable")]

    @property
    def _question(self) -> str:
        return say(
            'Which words matter to {target} in "{text}"?', target=self._target, text=excerpt(self.text, limit=EXCERPT)
        )

    @property
    def _target(self) -> str:
        if not self.words.attrs["generated"]:
            return quoted(self.target)
        return say("the generated token {token}", token=quoted(visible_token(str(self.words.attrs["says"]))))

    def _sentences(self) -> Iterator[str]:
        words, model = self.words, str(self.words.attrs["model"])
        if not self._tried.any():
            yield say(
                "Nothing was tried: no word could be exchanged for another, or hidden from {target}.",
                target=self._target,
            )
            yield self._left_of_gradients()
            yield of_model(model)
            return
        if not self.reaches:
            yield say(
                "No: no word before it makes a difference to {target} in {model}, but for rounding.",
                target=self._target, model=model,
            )  # fmt: skip
            return
        yield self._first()
        yield self._agreement()
        yield self._parting()
        yield self._left_of_gradients()
        asked = int(np.isfinite(words["swap_stream"].values).any(axis=1).sum())
        left = words.sizes["word"] - asked
        if asked == 0:
            yield say(" No word was exchanged for another: there was none, or no time.")
        elif asked == 1:
            yield say(" Other words, {k} at most, were tried for one word.", k=OTHERS)
        else:
            yield say(" Other words, {k} at most, were tried for {n} words.", k=OTHERS, n=asked)
        if left == 1 and asked:
            yield say(" For one there was none, or no time, or others seemed to matter more.")
        elif left and asked:
            yield say(" For {left} there was none, or no time, or others seemed to matter more.", left=left)
        if left and asked and self._tried[1].any():
            yield say(" Without another word, only the rank by attention cut gives a word its place.")
        if np.isfinite(words["knockout_stream"].values).any():
            yield say(" Cut attention leaves open what comes by way of other words.")
        yield say(" Of other sentences this says nothing.")
        yield of_model(model)

    @property
    def _tried(self) -> np.ndarray:
        """[way, word] whether a word was exchanged, and whether it was hidden."""
        return np.asarray(np.isfinite(self._ranks[:2]))

    def _first(self) -> str:
        words, first = self.words, self.places[0]
        token = quoted(visible_token(str(words.attrs["says"])))
        if not words.attrs["generated"]:
            token = say("{token}, which is predicted after it,", token=token)
        effects: list[str] = []
        ways = (("swap", say("With another word in its place")), ("knockout", say("Without attention to it")))
        for (way, how), tried in zip(ways, self._tried[:, first], strict=True):
            if not tried:
                continue
            change, stream = (
                float(np.nanmean(words[f"{way}_{name}"].values[first])) for name in ("log_probability", "stream")
            )
            said = {"how": how, "change": f"{change:+.3g}", "stream": f"{stream:.1%}"}
            if effects:
                effects.append(say(" {how}, by {change} nats and {stream}.", **said))
            else:
                effects.append(
                    say(
                        " {how}, the log-probability of {token} changes by {change} nats, and the stream there by "
                        "{stream} of its length.",
                        token=token, **said,
                    )
                )  # fmt: skip
        return say(
            "{word} matters most to {target}.{effects}{then}",
            word=quoted(str(words["text"].values[first])), target=self._target, effects="".join(effects),
            then=self._then(),
        )  # fmt: skip

    def _then(self) -> str:
        """The next words, and what puts them in that order."""
        then = ", ".join(quoted(word) for word in self.order[1:3])
        if not then:
            return ""
        if self._tried.any(axis=1).all():
            return say(
                " Then come {words}, by the mean of their ranks by the size of each change (of several other words, "
                "the mean size).",
                words=then,
            )
        return say(" Then come {words}, by the size of that change of the log-probability.", words=then)

    def _agreement(self) -> str:
        agreement = self.words["agreement"].sel(way="swap")
        parts = [
            say("{way} {value}", way=drawn.method_name(method), value=f"{value:+.2f}")
            for method in METHODS[1:]
            if np.isfinite(value := float(agreement.sel(other_way=method)))
        ]
        if not parts:
            return ""
        return say(
            " Compared with the order by another word, the other ways order the words so (Spearman; 1: the same order, "
            "-1: the reverse): {parts}.",
            parts=", ".join(parts),
        )  # fmt: skip

    def _left_of_gradients(self) -> str:
        """What there was no time for."""
        steps = int(self.words.attrs["steps"])
        if not steps:
            return say(" For gradients there was no time.")
        if steps < STEPS[0]:
            return say(
                " Integrated gradients are of {n} steps in place of {most}: for more there was no time.",
                n=steps, most=STEPS[0],
            )  # fmt: skip
        return ""

    def _parting(self) -> str:
        """The word over which a way that changes the run and a gradient part most."""
        ranks = self._ranks
        apart = np.abs(ranks[:2, None] - ranks[None, 2:])
        if not np.isfinite(apart).any() or np.nanmax(apart) < APART:
            return ""
        run, gradient, word = np.unravel_index(int(np.nanargmax(apart)), apart.shape)
        gradient = gradient + 2
        return say(
            " They part most over {word}: place {first} of {n} by {way}, place {second} by {other}.",
            word=quoted(str(self.words["text"].values[word])), n=int(np.isfinite(ranks[run]).sum()),
            way=drawn.method_name(METHODS[run]), first=int(ranks[run, word]),
            other=drawn.method_name(METHODS[gradient]), second=int(ranks[gradient, word]),
        )  # fmt: skip
