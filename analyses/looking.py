"""Why the head that ``qk_attribution`` was asked about looks: the largest parts of its score, and the best path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.head_evidence import LEVEL, number
from interp import stats, summary
from interp.language import say, say_stored
from interp.prompts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Path:
    """What one writer's output of the other prompt, sent into the query or the key alone, does to the attention.

    Attributes:
        sender: the writer.
        side: ``query`` or ``key``.
        mean: change of the attention weight.
        low: lower end of its 95% interval.
        high: upper end.
        sure: whether the score surely changes, corrected for all paths that were patched.
    """

    sender: str
    side: str
    mean: float
    low: float
    high: float
    sure: bool


@dataclass(frozen=True)
class Look:
    """Where a head looks and why.

    Attributes:
        head: its label.
        dest: the word that looks.
        src: the word that is looked at.
        query: the writer whose part of the query is in the largest part of the score.
        key: the writer whose part of the key is.
        term: that part, the mean over prompts.
        score: the whole score.
        path: of the paths that were patched, the one that changes the score most surely; None where none was.
    """

    head: str
    dest: str
    src: str
    query: str
    key: str
    term: float
    score: float
    path: Path | None

    @classmethod
    def of(cls, found: xr.Dataset | None) -> Look | None:
        """What the result of ``qk_attribution`` says; None without it."""
        if found is None:
            return None
        terms = found["term"].mean("prompt").transpose("query_writer", "key_writer")
        query, key = (int(i) for i in np.unravel_index(int(np.argmax(terms.values)), terms.shape))
        return cls(
            head=str(found.attrs["head_label"]),
            dest=str(found.attrs["dest"]),
            src=str(found.attrs["src"]),
            query=str(terms["query_writer"].values[query]),
            key=str(terms["key_writer"].values[key]),
            term=float(terms.values[query, key]),
            score=float(found["score"].mean()),
            path=_path(found),
        )

    def is_of(self, head: str, role: str) -> bool:
        """Whether this is how a head looks from a word."""
        return (head, role) == (self.head, self.dest)

    def text(self, vocabulary: Vocabulary) -> str:
        """One sentence: why it looks."""
        told = {"head": self.head, "dest": vocabulary.name(self.dest), "src": vocabulary.name(self.src)}
        if self.path is not None and self.path.sure:
            sides = {"query": say("its query"), "key": say("its key")}
            size = f"{number(self.path.mean)} [{number(self.path.low)}, {number(self.path.high)}]"
            return say(
                "{head} looks from {dest} to {src} for what {sender} writes into {side}: with that of the other prompt "
                "alone its attention changes by {size}.",
                sender=say_stored(self.path.sender), side=sides[self.path.side], size=size, **told,
            )  # fmt: skip
        told |= {"query": say_stored(self.query), "key": say_stored(self.key)}
        told |= {"term": f"{self.term:.1f}", "score": f"{self.score:.1f}"}
        if self.path is None:
            return say(
                "Of the parts of {head}'s score from {dest} to {src}, the largest is what {query} wrote at {dest} "
                "against what {key} wrote at {src}: {term}, where all sum to {score}.",
                **told,
            )
        return say(
            "Of the parts of {head}'s score from {dest} to {src}, the largest is what {query} wrote at {dest} against "
            "what {key} wrote at {src}: {term}, where all sum to {score}; no path that was patched surely changes it.",
            **told,
        )


def _path(found: xr.Dataset) -> Path | None:
    if "score_change" not in found:
        return None
    change = found["score_change"].transpose("prompt", "sender", "side")
    cells = change.values[np.isfinite(change.values).all(axis=(1, 2))].reshape(-1, change[0].size)
    if len(cells) < 2:
        return None
    p_values = stats.max_t_p_values(cells)
    size = np.abs(cells.mean(axis=0))
    best = int(np.lexsort((-size, p_values))[0])
    sender, side = (int(i) for i in np.unravel_index(best, change.shape[1:]))
    weight = summary.mean(found["weight_change"]).isel(sender=sender, side=side)
    return Path(
        sender=str(change["sender"].values[sender]),
        side=str(change["side"].values[side]),
        mean=float(weight["mean"]),
        low=float(weight["low"]),
        high=float(weight["high"]),
        sure=bool(p_values[best] <= LEVEL),
    )
