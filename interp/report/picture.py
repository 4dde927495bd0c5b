"""The picture of a run's answer: a sentence, and the heads that carry the source through it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from interp.language import called, say
from interp.report import verdict
from interp.report.arcs import Arc, Faint, Word, flow
from interp.report.inputs import Result, RunInputs
from interp.report.markup import figure_number
from interp.report.sections import sentence
from interp.report.tables import Size
from interp.report.verdict import Roles, Verdict
from interp.sites import head_label

SHORT = 72
"""A longer prompt, in characters, is drawn with dots in place of what lies between its words of interest."""
HEADS = 6
"""Heads that are drawn, at most."""
HARDLY = 0.05
"""A head with less than this of its attention on a word does not take anything from there itself."""
SENTENCE = ("reach", "heads", "sources")
"""The results of ``interp explain`` that its picture is drawn from."""


@dataclass(frozen=True)
class Route:
    """What one named head carries: from which role to which, and how much that matters.

    ``weight`` is how much of its attention that word has, None where that was not measured.
    """

    head: str
    job: str
    start: str
    end: str
    effect: verdict.Effect
    weight: float | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether the head hardly looks at the word that it would start from: it takes it by way of another."""
        return self.weight is not None and self.weight < HARDLY


@dataclass(frozen=True)
class _Prompt:
    """The first prompt that is explained: its words, and the word of each role."""

    words: tuple[str, ...]
    at: Mapping[str, int]
    are_tokens: bool


def picture(run: RunInputs, *, key: str = "picture") -> Markup | None:
    """The drawing of the run's answer; None where nothing is explained, or nobody says where its words stand.

    Args:
        run: a run's results.
        key: unique on the page.
    """
    explained = [one for name in SENTENCE if (one := run.get(name)) is not None]
    if len(explained) == len(SENTENCE):
        return sentence.picture(*explained).panels[0].body
    found = verdict.of(run)
    prompt = _prompt(run, found)
    if not found.passed or found.roles is None or prompt is None:
        return None
    drawn = _drawn(run, found, prompt)
    faint = _faint(run, found.roles, drawn, prompt)
    kept, at = _kept(prompt, found.roles, drawn)
    arcs = [
        Arc(
            one.head, int(verdict.place(one.head)[0]), at[prompt.at[one.start]], at[prompt.at[one.end]],
            one.effect.largest, _tip(one), figure_number(one.effect.largest, 2),
        )
        for one in drawn
    ]  # fmt: skip
    moved = [Faint(at[one.start], at[one.end], one.text) for one in faint]
    return flow(
        kept, arcs, faint=moved, n_layers=_n_layers(found), key=key, title=say("How the source reaches the answer")
    )


def _n_layers(found: Verdict) -> int:
    return 1 + max((verdict.place(head)[0] for head in found.heads), default=0)


def _tip(one: Route) -> str:
    return say(
        "from {start} to {end}; sufficient {sufficient}, needed {needed}",
        start=called("role", one.start), end=called("role", one.end),
        sufficient=one.effect.sufficient.text, needed=one.effect.needed.text,
    )  # fmt: skip


def routes(run: RunInputs, found: Verdict) -> list[Route]:
    """What each named head carries, the movers first. It starts where the head looks most, of the words in question."""
    if found.roles is None:
        return []
    weights = _attention(run)
    made = []
    for head, job in found.named():
        effect = found.effects.get(head)
        if effect is not None:
            starts = _starts(job, effect.role, found.roles)
            looked = {start: weight for (at, end, start), weight in weights.items() if (at, end) == (head, effect.role)}
            start = max(starts, key=lambda role: looked.get(role, 0.0)) if looked else starts[0]
            made.append(Route(head, job, start, effect.role, effect, looked.get(start)))
    return made


def _starts(job: str, end: str, roles: Roles) -> list[str]:
    """The words that a head can take it from: a mover one of the two words, a reader also where they meet."""
    both = (roles.source, roles.target)
    words = both if job == "mover" else (roles.meeting, *both, *(roles.vocabulary.meeting or ()))
    return [role for role in dict.fromkeys(words) if role and role != end]


def _attention(run: RunInputs) -> dict[tuple[str, str, str], float]:
    """(head, role that looks, role looked at) -> mean attention weight, as far as it was measured."""
    result = run.get("head_attribution")
    if result is None or not result.has("attention"):
        return {}
    mean = result.summary("attention", "prompt", "edge", "layer", "head")["mean"].values
    found = {}
    for e, edge in enumerate(result.labels("edge")):
        end, _, start = edge.partition("<-")
        found.update({(head_label(*at), end, start): float(mean[(e, *at)]) for at in np.ndindex(*mean.shape[1:])})
    return found


def at_target(run: RunInputs, roles: Roles) -> Size | None:
    """How sufficient the target's own residual stream is, at the layer where it is most; None if never measured."""
    result = run.get("activation_patching")
    if result is None or not result.has("recovered_resid_pre") or roles.target not in result.labels("role"):
        return None
    if "denoising" not in result.labels("direction"):
        return None
    found = result.summary("recovered_resid_pre", "direction", "prompt", "layer", "role")
    one = found.isel(
        direction=result.labels("direction").index("denoising"), role=result.labels("role").index(roles.target)
    )
    means = one["mean"].values
    if not np.isfinite(means).any():
        return None
    best = one.isel(layer=int(np.nanargmax(means)))
    return Size(*(float(best[name]) for name in ("mean", "low", "high")))


def _faint(run: RunInputs, roles: Roles, drawn: list[Route], prompt: _Prompt) -> list[Faint]:
    """The way to the target where no head takes it, and where it would have been seen: thin, with its number."""
    if roles.source not in prompt.at or roles.target not in prompt.at:
        return []
    start, end = prompt.at[roles.source], prompt.at[roles.target]
    size = at_target(run, roles)
    if start >= end or roles.target in {one.end for one in drawn} or size is None:
        return []
    return [Faint(start, end, figure_number(size.mean, 2))]


def has_faint(run: RunInputs, found: Verdict) -> bool:
    """Whether the picture draws a way on which next to nothing goes, thin and grey."""
    reach = run.get("reach")
    if reach is not None:
        return reach.attr("reaches", "1") == "0"
    prompt = _prompt(run, found)
    if not found.passed or found.roles is None or prompt is None:
        return False
    return bool(_faint(run, found.roles, _drawn(run, found, prompt), prompt))


def _drawn(run: RunInputs, found: Verdict, prompt: _Prompt) -> list[Route]:
    there = (one for one in routes(run, found) if one.start in prompt.at and one.end in prompt.at)
    return [one for one in there if not one.elsewhere][:HEADS]


def prompts(run: RunInputs, found: Verdict) -> int | None:
    """How many prompts there are of which the picture draws the first; None where it draws none of several."""
    behavior = run.get("behavior")
    if any(run.get(name) is not None for name in SENTENCE) or not found.passed or behavior is None:
        return None
    return behavior.labels("rung_of").count(found.rung) or None


def _prompt(run: RunInputs, found: Verdict) -> _Prompt | None:
    """The first prompt of the explained rung: its words with their roles, else the tokens whose roles are known."""
    behavior = run.get("behavior")
    if behavior is not None and behavior.has("role_start", "role_stop"):
        return _of_words(behavior, found.rung)
    patterns = run.get("attention_patterns")
    return None if patterns is None or not patterns.has("role_last") else _of_tokens(patterns)


def _of_tokens(patterns: Result) -> _Prompt:
    tokens = [str(text) for text in patterns.need("token", "prompt", "src_position").values[0]]
    last = patterns.need("role_last", "prompt", "role").values[0]
    at = {role: int(p) for role, p in zip(patterns.labels("role"), last, strict=True) if p >= 0}
    while tokens and not tokens[-1]:  # padding
        tokens.pop()
    return _Prompt(tuple(tokens), at, are_tokens=True)


def _of_words(behavior: Result, rung: str) -> _Prompt | None:
    if rung not in behavior.labels("rung_of"):
        return None
    p = behavior.labels("rung_of").index(rung)
    text = behavior.labels("text")[p]
    start, stop = (behavior.need(f"role_{end}", "prompt", "role").values[p] for end in ("start", "stop"))
    spans = {
        role: (int(a), int(b))
        for role, a, b in zip(behavior.labels("role"), start, stop, strict=True)
        if 0 <= a < b <= len(text)
    }
    cuts = sorted({0, len(text), *(end for span in spans.values() for end in span)})
    pieces = [(a, b) for a, b in pairwise(cuts) for a, b in _split(text, a, b, spans.values())]
    words = tuple(text[a:b].strip() for a, b in pieces)
    at = {
        role: max(i for i, (a, b) in enumerate(pieces) if a < span[1] and b > span[0]) for role, span in spans.items()
    }
    return _Prompt(words, at, are_tokens=False)


def _split(text: str, start: int, stop: int, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """A stretch of text as one piece if it is part of a role, else word by word."""
    if any(a <= start and stop <= b for a, b in spans):
        return [(start, stop)]
    return [(start + word.start(), start + word.end()) for word in re.finditer(r"\S+", text[start:stop])]


def _kept(prompt: _Prompt, roles: Roles, drawn: list[Route]) -> tuple[list[Word], dict[int, int]]:
    """The words that are drawn, and the place of each among them; dots stand for what is left out between."""
    of_interest = {roles.source: "source", roles.target: "target"}
    shown = dict.fromkeys((*of_interest, *(end for one in drawn for end in (one.start, one.end))))
    names = {prompt.at[role]: role for role in reversed(shown) if role in prompt.at}
    size = len(prompt.words)
    near = set(names) | {prompt.at[role] - 1 for role in of_interest if role in prompt.at} - {-1}
    if sum(map(len, prompt.words)) <= SHORT:
        near = set(range(size))
    words: list[Word] = []
    at: dict[int, int] = {}
    for i in range(size):
        if i in near or {i - 1, i + 1} <= near:  # dots are no shorter than one word
            at[i] = len(words)
            role = names.get(i, "")
            words.append(Word(prompt.words[i], of_interest.get(role, ""), role, i if prompt.are_tokens else None))
        elif not words or words[-1].text != "…":
            words.append(Word("…"))
    return words, at
