"""An explanation: what of one word reaches another, with everything that was computed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analyses.cli.directory import refuse_used
from analyses.cli.explanation.answer import asked, sentences, short
from analyses.explaining.carriers import head_effects
from analyses.explaining.measuring import arrived, reaches
from interp import _cells, results
from interp.language import speaking
from interp.prompts import PromptPairs

if TYPE_CHECKING:
    from analyses.cli.explanation.words import Origin


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What of one word reaches another, with everything it was computed from.

    Attributes:
        text: the sentence; of a chat its messages, one after the other.
        source: the word that is exchanged, as it was asked for (``"gato@2"`` is the second).
        target: the word that is asked about, likewise.
        language: of the sentence, in which the answer is written.
        pairs: the sentence and its counterfactuals; ``pairs.drops`` says which words were left out and why.
        reach: ``difference`` (prompt, layer, position): length of the difference of the residual streams after each
            layer, as a share of the length of the sentence's own.
        predictions: from the target on, ``kl`` (prompt, position) in nats, KL(sentence || counterfactual) of what is
            predicted after each token; ``clean_probability`` (position, word) and ``corrupted_probability`` (prompt,
            position, word) of the words that move most.
        heads: patches of one head's output at the target, ``recovered`` (prompt, direction, layer, head, role): the
            share of the target's own difference after the last layer that is there. Where time was short, of fewer
            prompts, and NaN for heads that were not patched.
        sources: ``share`` (prompt, layer, head, position): of what a head writes otherwise at the target's last token,
            the share that it takes from each position; a head's shares sum to 1. ``written`` (prompt, layer, head): of
            the target's difference after the last layer, the part that the head writes there itself.
        route: patches of the residual stream, ``recovered`` (prompt, layer, position), from the source to the target;
            None where there was no time for it.
        continuation: how it goes on, where that was asked for: ``log_probability`` (prompt, step) in nats of the
            sentence's own greedy continuation, token by token, with another word in the sentence;
            ``clean_log_probability`` (step) in the sentence itself; ``alike`` (prompt), tokens until the continuations
            part; the coordinates ``token`` (step) and ``continuation`` (prompt) are their texts.
        paths: patches of one path, ``recovered`` (prompt, direction, sender, receiver): from the source's own token
            (``embed``) into queries, keys and values of the leading heads, between these heads, and from them to the
            target's stream; None where no head leads, or none of it could be patched.
        seconds: the time that was given; None is no limit.
        lined_up: how many counterfactuals there were; ``pairs`` are those for which there was time.
        listed: words of the source's kind, from a lexicon, that have as many tokens as one another but none as many as
            the source, so that other words stand in for it.
        origins: where each word that was chosen is from: a list that holds the source, that kind's list in another
            language, or the model's own vocabulary; empty where the words were given.

    >>> from interp import HookedTransformer, explain
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = explain(model, "The cat is black. The cat is", "black", "is@2", instead=["white", "red"])
    >>> enough, needed = found.head_effects
    >>> str(enough["cell"].values[0]), round(float(enough["mean"][0]), 2)
    ('L1H0', 1.1)
    """

    text: str
    source: str
    target: str
    language: str
    pairs: PromptPairs
    reach: xr.Dataset
    predictions: xr.Dataset
    heads: xr.Dataset
    sources: xr.Dataset
    route: xr.Dataset | None = None
    continuation: xr.Dataset | None = None
    paths: xr.Dataset | None = None
    seconds: float | None = None
    lined_up: int = 0
    listed: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, xr.Dataset]:
        """All results by name, the answer among the attributes of ``reach``."""
        with speaking(self.language):
            question = asked(self)
        found = {name: getattr(self, name) for name in ("reach", "heads", "sources", "predictions")}
        further = {"route": self.route, "paths": self.paths, "continuation": self.continuation}
        found |= {name: result for name, result in further.items() if result is not None}
        said = {
            "answer": self.answer,
            "title": f"{self.source} > {self.target}",
            "question": question,
            "language": self.language,
            "reaches": int(self.reaches),
            "words_left_out": "\n".join(drop.reason for drop in self.pairs.drops),
        }
        return found | {"reach": self.reach.assign_attrs(said)}

    def save(self, directory: str | Path, *, figures: bool = False) -> Path:
        """Write the results and the page of the answer into a directory; returns the page's path.

        Args:
            directory: an empty one, or one that is made.
            figures: also write each figure of the page to ``DIR/figures``, as SVG and PNG.

        Raises:
            InterpError: the directory holds something already, or cannot be written.

        >>> import tempfile
        >>> from interp import HookedTransformer, explain
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> found = explain(model, "The cat is black. The cat is", "black", "is@2", instead=["white", "red"])
        >>> with tempfile.TemporaryDirectory() as place:
        ...     page = found.save(place)
        ...     page.name, sorted(path.stem for path in (page.parent / "results").iterdir())
        ('report.html', ['heads', 'paths', 'predictions', 'reach', 'route', 'sources'])
        """
        return save(self.results, directory, figures=figures)

    @property
    def reaches(self) -> bool:
        """Whether anything beyond rounding arrives at the target."""
        return reaches(self.reach)

    @property
    def arrived(self) -> xr.Dataset:
        """How much of the target's stream after the last layer differs, as a share of its length: ``summary.mean``."""
        return arrived(self.reach)

    @property
    def head_effects(self) -> tuple[xr.Dataset, xr.Dataset]:
        """How far each head's output at the target is sufficient and needed, over ``cell``; the most sufficient first.

        1 is the whole difference that arrives at the target, in both: brought back by the head alone, or lost
        without it.
        """
        return head_effects(self.heads)

    def moved(self, index: int) -> list[tuple[str, float, float]]:
        """After a position of ``predictions``: word, its probability in the sentence, and its mean with other words.

        The word whose probability changes most comes first.
        """
        after = self.predictions.isel(position=index)
        clean, other = after["clean_probability"].values, after["corrupted_probability"].mean("prompt").values
        order = np.argsort(-np.abs(other - clean))
        return [(str(after["word"].values[i]), float(clean[i]), float(other[i])) for i in order]

    @property
    def answer(self) -> str:
        """The answer in plain words, in the language of the sentence; yes or no comes first."""
        with speaking(self.language):
            return "".join(sentences(self))

    @property
    def short(self) -> str:
        """The first sentence of the answer: yes or no, how much arrives, and whether it is used there."""
        with speaking(self.language):
            return short(self)

    def __repr__(self) -> str:
        return self.answer

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, and the picture of the page."""
        return _cells.html(self)


def save(found: Mapping[str, xr.Dataset], directory: str | Path, *, figures: bool = False) -> Path:
    """Write results and draw their page, with its figures as files too where asked, into an empty directory.

    Raises:
        InterpError: the directory holds something already, or cannot be written.
    """
    from interp import report

    where = Path(directory)
    refuse_used(where)
    for name, result in found.items():
        results.save(result, where / "results" / f"{name}.nc")
    return report.draw(where, interactive=False, figures=figures)


def values_of(result: xr.Dataset, *names: str) -> list[list[object]]:
    """Some coordinates or variables of a result as lists."""
    return [result[name].values.tolist() for name in names]
