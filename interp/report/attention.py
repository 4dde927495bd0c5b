"""The attention of a run, for the page's scripts: patterns of many heads and prompts, and the vectors of some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.report import packed
from interp.report.inputs import Result, RunInputs
from interp.report.markup import visible
from interp.report.verdict import Verdict, place
from interp.report.words import spelled
from interp.sites import head_label

MOST_WEIGHTS = 600_000
"""Weights that go into the page, of one byte each before they are compressed to about a third."""

MOST_NUMBERS = 36_000
"""Numbers of queries, keys and values that go into the page, of four bytes each; they hardly compress."""

Place = tuple[int, int]
"""Layer and head."""


@dataclass(frozen=True)
class Patterns:
    """The attention patterns of a result.

    Attributes:
        result: the result.
        weights: prompt, layer, head, destination, source; NaN is padding.
        prompts: the index of each prompt in its set.
        tokens: the tokens of each prompt, without padding.
        texts: each prompt's text.
        roles: per prompt, role -> its first and last position.
    """

    result: Result
    weights: np.ndarray
    prompts: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    roles: tuple[dict[str, tuple[int, int]], ...]

    @classmethod
    def of(cls, result: Result) -> Patterns:
        """Read a result; one of an older version of this library holds a single prompt and no roles."""
        data = result.data
        if "prompt" not in data.sizes:
            data = data.assign(text=result.attr("text")).expand_dims("prompt").assign_coords(prompt=[0])
            data = data.assign(
                token=data["token"] if "prompt" in data["token"].dims else data["token"].expand_dims("prompt")
            )
            result = Result(result.name, data)
        dims = ("prompt", "layer", "head", "dest_position", "src_position")
        weights = result.need("pattern", *dims).values
        said = result.need("token", "prompt", "src_position").values
        tokens = tuple(tuple(str(text) for text in row[: _length(weights[p])]) for p, row in enumerate(said))
        texts = tuple(str(text) for text in np.atleast_1d(result.need("text", "prompt").values))
        return cls(result, weights, tuple(map(int, data["prompt"].values)), tokens, texts, _roles(result))

    @property
    def heads(self) -> list[Place]:
        """Every head, by layer."""
        return [(layer, head) for layer, head in np.ndindex(*self.weights.shape[1:3])]

    def words(self, prompt: int) -> list[str]:
        """The tokens of a prompt as words."""
        return [spelled(text, first=i == 0) for i, text in enumerate(self.tokens[prompt])]

    def ranked(self, verdict: Verdict, named: Place | None) -> list[Place]:
        """Every head: the lesson's, those with a job, then those that look most sharply."""
        focus = np.nan_to_num(self.weights[0]).max(axis=-1).mean(axis=-1)
        jobs = [place(h) for h, label in zip(verdict.heads, verdict.labels, strict=True) if label != "none"]
        first = [at for at in dict.fromkeys([*([named] if named else []), *jobs]) if at in set(self.heads)]
        return first + sorted(set(self.heads) - set(first), key=lambda at: (-float(focus[at]), at))


def holder(run: RunInputs) -> Result | None:
    """The result that has the patterns."""
    for name in ("attention_patterns", "attention_lesson"):
        result = run.get(name)
        if result is not None and result.has("pattern"):
            return result
    return run.get("attention_patterns")


def named_head(run: RunInputs) -> Place | None:
    """The head of the lesson."""
    lesson = run.get("attention_lesson")
    return None if lesson is None else (int(lesson.need_attr("layer")), int(lesson.need_attr("head")))


def block(run: RunInputs, verdict: Verdict) -> dict[str, Any]:
    """What the scripts know of attention; empty where a run has no patterns."""
    result = holder(run)
    if result is None:
        return {}
    patterns = Patterns.of(result)
    named = named_head(run)
    shown = _fitting(patterns, patterns.ranked(verdict, named))
    made: dict[str, Any] = {"patterns": _packed(patterns, *shown), "lesson": _lesson(run, patterns)}
    vectors = run.get("attention_vectors")
    if vectors is not None:
        made["vectors"] = _vectors(vectors, patterns.ranked(verdict, named), patterns.prompts[: shown[0]])
    return made


def _fitting(patterns: Patterns, ranked: Sequence[Place]) -> tuple[int, list[Place]]:
    """How many prompts, and which heads, are within ``MOST_WEIGHTS``: every head of as many prompts as fit."""
    cells = _cells(patterns.weights.shape[-1])
    prompts = max(1, min(len(patterns.prompts), MOST_WEIGHTS // (cells * len(ranked))))
    heads = ranked[: max(1, MOST_WEIGHTS // (cells * prompts))]
    return prompts, sorted(heads)


def _cells(length: int) -> int:
    """Pairs of words of which the first reads the second."""
    return length * (length + 1) // 2


def _packed(patterns: Patterns, n_prompts: int, heads: list[Place]) -> dict[str, Any]:
    """The weights by head, then pair of words (row by row), then prompt: equal things lie side by side."""
    length = patterns.weights.shape[-1]
    layers, indices = (list(part) for part in zip(*heads, strict=True))
    below = patterns.weights[:n_prompts, layers, indices][..., np.tri(length, dtype=bool)]
    prompts = [
        {
            "text": visible(patterns.texts[p]),
            "tokens": patterns.words(p),
            "roles": {role: list(span) for role, span in patterns.roles[p].items()},
        }
        for p in range(n_prompts)
    ]
    return {
        "prompts": packed.json_text(prompts),
        "heads": [head_label(*at) for at in heads],
        "n_heads": len(patterns.heads),
        "n_prompts": len(patterns.prompts),
        "length": length,
        "weights": packed.text(packed.shares(np.moveaxis(below, 0, -1))),
    }


def _lesson(run: RunInputs, patterns: Patterns) -> dict[str, Any]:
    """Where the lesson starts: its head and words, and the words that the question is about."""
    lesson = run.get("attention_lesson")
    words = json.loads(patterns.result.attr("vocabulary") or "{}")
    ends = {"source": words.get("source"), "target": words.get("target")}
    if lesson is None:
        return ends
    return {
        **ends,
        "head": head_label(int(lesson.need_attr("layer")), int(lesson.need_attr("head"))),
        "dest": int(lesson.need_attr("dest_position")),
        "src": int(lesson.need_attr("src_of_interest")),
    }


def _vectors(result: Result, ranked: Sequence[Place], prompts: Sequence[int]) -> dict[str, Any]:
    """Queries, keys and values of as many heads as ``MOST_NUMBERS`` allows, and lengths; the first prompt's first."""
    labels = result.labels("head_label")
    dims = ("prompt", "head_label", "position")
    parts = [result.need(name, *dims, "d_head").values for name in ("q", "k", "v")]
    lengths = [result.need(name, *dims).values for name in LENGTHS if result.has(name)]
    n_positions, d_head = parts[0].shape[2:]
    each = n_positions * (3 * d_head + len(lengths))
    order = [labels.index(head_label(*at)) for at in ranked if head_label(*at) in labels]
    stored = [int(p) for p in result.data["prompt"].values]
    wanted = [(p, h) for p in range(len(stored)) for h in order if stored[p] in prompts]
    entries = wanted[: max(1, MOST_NUMBERS // each)]
    numbers = [np.concatenate([part[p, h].ravel() for part in (*parts, *lengths)]) for p, h in entries]
    return {
        "d_head": d_head,
        "length": n_positions,
        "entries": [[list(prompts).index(stored[p]), labels[h]] for p, h in entries],
        "lengths": [name for name in LENGTHS if result.has(name)],
        "numbers": packed.text(packed.floats(np.nan_to_num(np.array(numbers)))),
    }


LENGTHS = ("written", "value_written", "stream")
"""What ``attention_vectors`` says of lengths, where it can."""


def _length(weights: np.ndarray) -> int:
    """Tokens of a prompt: the rows of its pattern that are no padding."""
    return int(np.isfinite(weights[0, 0, :, 0]).sum())


def _roles(result: Result) -> tuple[dict[str, tuple[int, int]], ...]:
    count = result.data.sizes["prompt"]
    if not result.has("role_first", "role_last"):
        return ({},) * count
    first, last = (result.need(name, "prompt", "role").values for name in ("role_first", "role_last"))
    names = result.labels("role")
    return tuple(
        {role: (int(first[p, r]), int(last[p, r])) for r, role in enumerate(names) if first[p, r] >= 0}
        for p in range(count)
    )
