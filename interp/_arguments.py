"""What every function that takes a model and prompts asks of its arguments, in one place, so that all say the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.errors import InterpError
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.prompts.tokens import Prompts, check_fits

_HAS = ("cfg", "provenance")
"""Attributes by which a model is told from anything else that might be given in its place."""


def check_model(model: Any, other: Any = None) -> None:
    """Refuse what is no model.

    Args:
        model: the first argument.
        other: the second, which may be the model.

    Raises:
        InterpError: says what was given, and how to make a model of it.
    """
    if _is_model(model):
        return
    kind = type(model).__name__
    if _is_model(other):
        raise InterpError(f"The first argument is {kind} and the second the model. Give the model first.")
    if isinstance(model, str | os.PathLike):
        way = f"Load it with HookedTransformer.from_pretrained({os.fspath(model)!r})."
    elif hasattr(model, "run_with_hooks"):
        way = "Wrap it with HookedTransformer.from_bridge(...)."
    elif hasattr(model, "save_pretrained"):
        way = "Save it with save_pretrained(directory), then HookedTransformer.from_pretrained(directory)."
    else:
        way = "Load one with HookedTransformer.from_pretrained(...)."
    raise InterpError(f"The first argument is {kind}, not a model. {way}")


def check_prompts(model: Any, prompts: Any) -> None:
    """Refuse what is no ``Prompts``, or what the model cannot read.

    Raises:
        InterpError: one line, the same from every function.
    """
    check_model(model, prompts)
    if isinstance(prompts, PromptPairs):
        raise InterpError("The second argument is PromptPairs, not prompts. Give its .clean or its .corrupted.")
    if not isinstance(prompts, Prompts):
        raise InterpError(
            f"The second argument is {type(prompts).__name__}, not Prompts. Make them with tokens.encode(model, texts) "
            "or Prompts.from_ids(ids)."
        )
    check_fits(prompts, model)


def check_pairs(model: Any, pairs: Any) -> None:
    """Refuse what is no ``PromptPairs``, prompts that the model cannot read, and answers that it cannot give.

    Raises:
        InterpError: one line, the same from every function.
    """
    check_model(model, pairs)
    if not isinstance(pairs, PromptPairs):
        raise InterpError(f"The second argument is {type(pairs).__name__}, not pairs. {_way_to_pairs(pairs)}")
    appended = np.array(
        [max(len(right), len(wrong)) - 1 for right, wrong in zip(*_whole(pairs), strict=True)]
        if pairs.answer_policy == "sum_logprob" and not pairs.continuation
        else 0
    )
    for prompts in (pairs.clean, pairs.corrupted):
        check_fits(prompts, model, extra=appended)
    check_answers(model, {"correct": pairs.correct, "incorrect": pairs.incorrect}, [*_whole(pairs), pairs.continuation])


def check_scored(model: Any, prompts: Any) -> None:
    """As ``check_pairs``, of ``PromptPairs`` or ``AnsweredPrompts``.

    Raises:
        InterpError: one line, the same from every function.
    """
    if not isinstance(prompts, AnsweredPrompts):
        if isinstance(prompts, Prompts):
            check_model(model)
            raise InterpError("The second argument is Prompts, without answers to score. Make AnsweredPrompts of it.")
        return check_pairs(model, prompts)
    check_model(model)
    check_fits(prompts.clean, model)
    answers = {"correct": prompts.correct, "incorrect": prompts.incorrect}
    check_answers(model, {name: ids for name, ids in answers.items() if ids is not None})


def check_answers(model: Any, scored: Mapping[str, np.ndarray], whole: Any = ()) -> None:
    """Refuse answer ids that have no logit.

    Args:
        model: looked at for ``cfg.vocab_out``.
        scored: name -> the scored id of each prompt.
        whole: further ids of each prompt, for answers of several tokens.

    Raises:
        InterpError: names the id and its prompt.
    """
    vocab = getattr(model.cfg, "vocab_out", None)
    if vocab is None:
        return
    for name, ids in scored.items():
        _check_ids(name, [[int(token)] for token in ids], vocab)
    for answers in whole:
        _check_ids("answer", answers, vocab)


def _check_ids(name: str, answers: Any, vocab: int) -> None:
    for i, ids in enumerate(answers):
        for token in ids:
            if not 0 <= token < vocab:
                raise InterpError(
                    f"The {name} id of prompt {i} is {token}, but the model's output vocabulary is 0 to {vocab - 1}. "
                    "Use ids of this model's own answers."
                )


def _whole(pairs: PromptPairs) -> tuple[Any, Any]:
    return pairs.correct_tokens, pairs.incorrect_tokens


def _is_model(value: Any) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in _HAS)


def _way_to_pairs(given: Any) -> str:
    if isinstance(given, Mapping):
        return "Give one of its values."
    if isinstance(given, list | tuple) and given and all(isinstance(one, PromptPairs) for one in given):
        return "Join them with PromptPairs.concat(...)."
    return "Make them with PromptPairs.from_template(...) or PromptPairs.from_tokens(...)."
