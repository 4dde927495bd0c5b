"""``interp.show``: whatever this library makes, drawn as on the page, in a notebook or into a file.

>>> from interp import HookedTransformer, show, sweep, tasks
>>> model = HookedTransformer.from_pretrained("mini")
>>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
>>> show(sweep(model, pairs, "z"))
Shown('denoising sweep of z', also: patched)
>>> show(pairs)
Shown('4 pairs of color-noun/recall')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.circuits import Circuit
from interp.errors import InterpError
from interp.groundtruth.value import DOES, GroundTruth
from interp.language import say, say_stored, speaking, spoken
from interp.lenses.trained import TrainedLens
from interp.prompts import AnsweredPrompts, PromptPairs, Prompts, Template
from interp.prompts.template import parse
from interp.report import blocks, cells, notebook
from interp.report.markup import token, visible
from interp.report.notebook import Shown
from interp.report.tables import Column, Table
from interp.report.words import tone

EXAMPLES = 3
"""Prompts, or pairs of prompts, that are shown with their roles."""
LISTED = 100
"""Prompts in the table below them."""

_CAN = (
    "a model, pairs, prompts, a template, results (of sweeps, estimates, lenses, analyses), a circuit, a lens, a model "
    "whose circuit is known, captured patterns, what interp.study or interp.explain found"
)


def show(what: Any, name: str | None = None, *, prompts: Prompts | None = None, language: str | None = None) -> Shown:
    """Draw something as on the page: in a notebook it shows itself, elsewhere ``save`` it.

    Args:
        what: a model, pairs, prompts or a template; a result, a circuit, a trained lens, a model whose circuit is
            known, or captured patterns; or what ``interp.study`` or ``interp.explain`` found.
        name: which of a result's figures, or of a run's results; the repr of what comes back names them. None is what
            matters most.
        prompts: whose tokens label captured patterns.
        language: ``"en"`` or ``"es"``, of the words; None is English, and of an explanation its own.

    Returns:
        What was drawn, with ``html``, ``svg`` and ``save(path)``: ``.svg``, ``.png`` or ``.html``.

    Raises:
        InterpError: something else, an unknown name or language, or a result without anything that can be drawn.

    >>> from interp import HookedTransformer, show, sweep, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> effect = sweep(model, tasks.build("color-noun", "recall", tokenizer=model, n=4), "z", roles=["answer"])
    >>> shown = show(effect)
    >>> shown.svg[:4], "<script" in shown.html
    ('<svg', False)
    """
    answers = hasattr(what, "answer") and isinstance(getattr(what, "results", None), Mapping)
    with speaking(language or (answers and getattr(what, "language", None)) or "en"):
        if isinstance(what, Circuit):
            what = what.data
        if isinstance(what, xr.Dataset | xr.DataArray):
            return cells.of_result(what, name=name, tokens=_tokens(what, prompts))
        if answers:
            return cells.of_run(what.answer, what.results, name=name)
        if name is not None or prompts is not None:
            raise InterpError("name= and prompts= choose within results. Leave them out of anything else.")
        return _of_object(what)


def _of_object(what: Any) -> Shown:
    if isinstance(what, Shown):
        return what
    if isinstance(what, PromptPairs):
        return _of_pairs(what)
    if isinstance(what, AnsweredPrompts):
        return _of_prompts(what.clean, [f"#{int(one)}" for one in what.correct])
    if isinstance(what, Prompts):
        return _of_prompts(what)
    if isinstance(what, Template):
        return _of_template(what)
    if not isinstance(what, type) and callable(getattr(what, "sizes", None)) and hasattr(what, "provenance"):
        return _of_model(what)
    if isinstance(what, TrainedLens):
        return _of_lens(what)
    if isinstance(what, GroundTruth):
        return _of_truth(what)
    raise InterpError(f"{type(what).__name__} is not shown. What can be: {_CAN}.")


def _tokens(what: xr.Dataset | xr.DataArray, prompts: Prompts | None) -> Sequence[str] | None:
    """The tokens of the prompt that is drawn: the one that was chosen, else the first."""
    if prompts is None:
        return None
    if not isinstance(prompts, Prompts) or prompts.tokens is None:
        raise InterpError("prompts= takes Prompts with tokens, such as pairs.clean.")
    chosen = int(np.atleast_1d(what["prompt"].values)[0]) if "prompt" in what.coords else 0
    return prompts.tokens[chosen]


# ---- models ----


def _of_model(model: Any) -> Shown:
    rows = tuple(model.sizes().items())
    title = f"HookedTransformer {model.name}"
    table = Table(
        say("as it was loaded"),
        (Column(say("what")), Column(say("value"))),
        (*rows, (say("sites"), ", ".join(model.sites))),
    )
    return notebook.of_blocks(title, [blocks.Details(title, (table,), open=True)], language=spoken())


def _of_lens(lens: TrainedLens) -> Shown:
    rows = (
        (say("model"), lens.model["model"]),
        (say("sites"), ", ".join(lens.sites)),
        (say("translators"), str(len(lens.matrices))),
        *((name, str(value)) for name, value in lens.made.items()),
    )
    table = Table(say("as it was made"), (Column(say("what")), Column(say("value"))), rows)
    title = say_stored(lens.title)
    return notebook.of_blocks(title, [blocks.Details(title, (table,), open=True)], language=spoken())


def _of_truth(truth: GroundTruth) -> Shown:
    title = say("a model whose circuit is known: {name}", name=truth.name)
    does = tuple((part, DOES[does]) for part, does in truth.components.items())
    edges = tuple(sorted(truth.edges))
    shown: list[blocks.Block] = [
        blocks.Prose((truth.summary,)),
        blocks.Details(
            title, (Table(say("components"), (Column(say("component")), Column(say("what it does"))), does),), open=True
        ),
        _table(say("edges"), (Column(say("sender")), Column(say("receiver"))), edges),
    ]
    return notebook.of_blocks(title, shown, language=spoken())


# ---- prompts ----


def _of_pairs(pairs: PromptPairs) -> Shown:
    label = "/".join(part for part in (pairs.task, pairs.name) if part) or say("own prompts")
    count = say("a pair of {label}", label=label) if len(pairs) == 1 else ""
    title = count or say("{n} pairs of {label}", n=len(pairs), label=label)
    roles = [role for role in pairs.roles if role != "answer"]
    examples = tuple(
        blocks.PromptExample(
            _words(pairs.clean, i, roles, pairs.corrupted), _words(pairs.corrupted, i, roles, pairs.clean),
            token(pairs.answers[i]), token(pairs.incorrect_answers[i]), (),
        )
        for i in range(min(EXAMPLES, len(pairs)))
    )  # fmt: skip
    columns = (Column(say("clean")), Column(say("corrupted")), Column(say("answer")), Column(say("other answer")))
    rows = tuple(
        (one.clean, one.corrupted, token(one.correct), token(one.incorrect))
        for one in (pairs[i] for i in _listed(pairs))
    )
    drops = tuple((drop.clean_text, drop.reason) for drop in pairs.drops[:LISTED])
    more = [_table(say("All pairs"), columns, rows)] if len(pairs) > EXAMPLES else []
    if drops:
        more.append(_table(say("Left out"), (Column(say("clean")), Column(say("why"))), drops))
    return notebook.of_blocks(title, [_block(title, examples, roles), *more], language=spoken())


def _of_prompts(prompts: Prompts, answers: Sequence[str] = ()) -> Shown:
    title = say("a prompt") if len(prompts) == 1 else say("{n} prompts", n=len(prompts))
    roles = [role for role in prompts.roles if role != "answer"]
    shown = range(min(EXAMPLES, len(prompts)))
    examples = tuple(
        blocks.PromptExample(_words(prompts, i, roles), (), answers[i] if answers else "", "", ()) for i in shown
    )
    rows = tuple(("".join(word.text for word in _words(prompts, i, ())),) for i in _listed(prompts))
    more = [_table(say("All prompts"), (Column(say("prompt")),), rows)] if len(prompts) > EXAMPLES else []
    return notebook.of_blocks(title, [_block(title, examples, roles), *more], language=spoken())


def _of_template(template: Template) -> Shown:
    words, roles = [], list(template.roles)
    for piece in parse(template.text):
        words.append(blocks.Word(visible(piece.literal)))
        if piece.role:
            words.append(blocks.Word(piece.fixed or f"{{{piece.slot}}}", piece.role, tone(piece.role, roles)))
    example = blocks.PromptExample(tuple(words), (), token(template.answer), "", ())
    title = say("a template")
    return notebook.of_blocks(title, [_block(title, (example,), roles)], language=spoken())


def _block(title: str, examples: tuple[blocks.PromptExample, ...], roles: Sequence[str]) -> blocks.Prompts:
    legend = tuple((role, tone(role, roles)) for role in roles)
    return blocks.Prompts((blocks.PromptRung(title, "", examples),), legend, ())


def _listed(prompts: Prompts | PromptPairs) -> range:
    return range(min(LISTED, len(prompts)))


def _table(title: str, columns: tuple[Column, ...], rows: tuple[tuple[str, ...], ...]) -> blocks.Details:
    return blocks.Details(title, (Table(title, columns, rows),))


def _words(prompts: Prompts, i: int, roles: Sequence[str], other: Prompts | None = None) -> tuple[blocks.Word, ...]:
    """A prompt cut at its roles, its BOS left out; a role within another one stays unmarked."""
    ids, length = prompts.ids[i], int(prompts.lengths[i])
    texts = [f"#{one} " for one in ids[:length]] if prompts.tokens is None else list(prompts.tokens[i])
    role_at: dict[int, str] = {}
    for role in sorted(roles, key=lambda one: tuple(prompts.spans(one)[i])):
        start, stop = (int(end) for end in prompts.spans(role)[i])
        if not role_at.keys() & range(start, stop):
            role_at |= dict.fromkeys(range(start, stop), role)
    words: list[blocks.Word] = []
    for at in range(1 if prompts.bos == "prepended" else 0, length):
        role = role_at.get(at, "")
        changed = other is not None and other.ids[i][at] != ids[at]
        text = texts[at]
        begins = not role or role_at.get(at - 1) != role
        if (role or changed) and begins and text[:1] == " ":  # the space belongs to no word
            words.append(blocks.Word(" "))
            text = text[1:]
        words.append(blocks.Word(visible(text), role, tone(role, roles) if role else "", changed))
    return tuple(_joined(words))


def _joined(words: Sequence[blocks.Word]) -> list[blocks.Word]:
    """Neighbours of one role as one word, which is changed where any part of it is."""
    out: list[blocks.Word] = []
    for word in words:
        last = out[-1] if out else None
        if last is not None and last.role == word.role and (word.role or last.changed == word.changed):
            out[-1] = blocks.Word(last.text + word.text, word.role, word.tone, last.changed or word.changed)
        else:
            out.append(word)
    return out
