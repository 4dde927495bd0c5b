"""One sentence, two words: what of the first word reaches the second, in any model, without a task file.

>>> from interp import HookedTransformer, explain
>>> model = HookedTransformer.from_pretrained("mini")
>>> found = explain(model, "Me encanta el color negro y tengo un gato", source="negro", target="gato", n=4)
>>> found.language, found.reaches, len(found.pairs)
('es', True, 4)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np

from analyses.cli.explanation import context
from analyses.cli.explanation.continuation import continued
from analyses.cli.explanation.influences import Influences
from analyses.cli.explanation.result import Explanation
from analyses.cli.explanation.words import Origin, of_one_length, origins, other_words
from analyses.cli.sentence import ANY
from analyses.explaining import measuring
from analyses.explaining.beginning import Beginning
from analyses.explaining.carriers import carried
from analyses.explaining.clock import Clock
from interp._arguments import check_model
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.language import LANGUAGES, is_spanish
from interp.prompts import swaps
from interp.prompts.chat import Messages, Written, checked

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.sweeps import Progress

__all__ = ["Explanation", "Influences", "explain", "is_spanish", "other_words"]

Language: TypeAlias = Literal["en", "es"]

N = 8
"""How many other words stand in the place of the source, unless more or fewer are asked for."""


@overload
def explain(  # type: ignore[overload-overlap]
    model: HookedTransformer,
    text: str | Messages,
    source: Literal["?"],
    target: str,
    *,
    language: Language | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Influences: ...
@overload
def explain(
    model: HookedTransformer,
    text: str | Messages,
    source: str,
    target: str,
    *,
    instead: Sequence[str] | None = None,
    n: int = N,
    language: Language | None = None,
    continuation: int | None = None,
    seconds: float | None = None,
    refined: Callable[[Explanation], None] | None = None,
    progress: Progress | None = None,
) -> Explanation: ...
def explain(
    model: HookedTransformer,
    text: str | Messages,
    source: str,
    target: str,
    *,
    instead: Sequence[str] | None = None,
    n: int = N,
    language: Language | None = None,
    continuation: int | None = None,
    seconds: float | None = None,
    refined: Callable[[Explanation], None] | None = None,
    progress: Progress | None = None,
) -> Explanation | Influences:
    """What of one word of a sentence reaches another: how much, what it changes, and which heads write it there.

    The sentence is compared with counterfactuals: itself with another word in the place of the source, of as many
    tokens. Other words come from lists of words of its kind, then from the same kind in another language, then from the
    model's own vocabulary: those most like it there.

    Where the source is ``"?"``, the question is the other way round: which words of the context matter to the target?
    Each is exchanged for others, attention from the target to it is cut, and gradients are attributed to it. The
    target may then be ``">"``, the token that is generated next, or ``">3"``, the third.

    Args:
        model: the model, with a tokenizer.
        text: the sentence, or any text; or a chat, ``[{"role": "user", "content": "..."}]``, as the tokenizer's own
            template writes it, with the beginning of the answer. Words are then looked for in its messages.
        source: a word of it, or several in a row; ``"gato@2"`` is the second ``gato``; ``"?"`` asks which words matter.
        target: a later word, likewise.
        instead: the words to put in the place of the source; None chooses.
        n: at most so many counterfactuals.
        language: ``"en"`` or ``"es"``, of the answer; None goes by the sentence.
        continuation: generate so many tokens after the sentence and after every counterfactual; None generates none.
        seconds: about how long it may take. What matters most is patched first, and how much of the rest follows is
            planned from the time that this took; the answer says what was left. None patches everything.
        refined: called with each answer before the last as soon as it stands, the first of them early.
        progress: called with patches done and patches in all.

    Returns:
        ``Explanation``, or ``Influences`` where the source is ``"?"``: the answer in words, and every result it rests
        on. Intervals are over counterfactuals, so that they say how
        far the choice of the other word matters, and nothing of other sentences.

    Raises:
        InterpError: a word that is not in the text or is there several times, a target before the source, or no other
            word with as many tokens.

    >>> from interp import HookedTransformer, explain
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = explain(model, "The cat is black. The cat is", "black", "cat@2", instead=["white", "red"])
    >>> [pair.incorrect for pair in found.pairs], found.heads.recovered.dims
    ([' white', ' red'], ('prompt', 'direction', 'layer', 'head', 'role'))
    """
    clock = Clock(seconds)
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise InterpError(f"seconds is {shown(seconds)}. Give a number above 0, or None for no limit.")
    check_model(model, text)
    if language not in (None, *LANGUAGES):
        raise unknown_name("language", language, LANGUAGES)
    written = as_written(model, text)
    text = written.text
    said = language or ("es" if isinstance(text, str) and is_spanish(text) else "en")
    if source == ANY:
        if instead is not None or continuation is not None:
            raise InterpError(f"source {ANY!r} asks of every word, so that it takes no instead= and no continuation=.")
        asked = context.setting(model, written, in_one_form(target))
        return Influences(written.said, in_one_form(target), said, context.measured(asked, clock, progress=progress))
    if continuation is not None and whole_number(continuation, "continuation") < 1:
        raise InterpError(f"continuation is {shown(continuation)}. Ask for at least one token.")
    pairs, listed, chosen = counterfactuals(model, written, source, target, instead=instead, n=n)
    names = in_one_form(source).strip(), in_one_form(target).strip()
    beginning, lined_up = Beginning.of(model, pairs), len(pairs)
    pairs = measuring.affordable(beginning, pairs, clock)
    reach, sources = measuring.arrival(beginning, pairs)
    predictions = measuring.predictions(beginning, pairs)
    goes_on = None if continuation is None else continued(beginning, pairs, continuation, clock)
    order = np.abs(sources["written"].mean("prompt").values)
    found: Explanation | None = None
    for now in carried(model, pairs, order, clock, progress):
        found = Explanation(
            written.said, *names, said, pairs, reach, predictions, now.heads, sources, now.route, goes_on, now.paths,
            seconds, lined_up, listed, chosen,
        )  # fmt: skip
        if refined is not None and not now.last:
            refined(found)
    assert found is not None
    return found


def as_written(model: HookedTransformer, text: str | Messages) -> Written:
    """A sentence, or a chat as the tokenizer's own template writes it."""
    if not isinstance(text, str) and isinstance(text, list | tuple):
        text = [{key: in_one_form(part) for key, part in message.items()} for message in checked(text)]
    return Written.of(model, in_one_form(text) if isinstance(text, str) else text)


def counterfactuals(
    model: HookedTransformer, written: Written, source: str, target: str, *, instead: Sequence[str] | None, n: int
) -> tuple[PromptPairs, tuple[str, ...], dict[str, Origin]]:
    """The sentence with other words in the place of the source; and ``Explanation.listed`` and ``.origins``.

    Raises:
        InterpError: as ``explain`` does.
    """
    if whole_number(n, "n") < 1:
        raise InterpError(f"n is {shown(n)}. Ask for at least one counterfactual.")
    first, second = swaps.find_both(written.text, in_one_form(source), in_one_form(target), written.within)
    chosen = origins(model, written, first, n) if instead is None else {}
    listed = of_one_length(written, first) if instead is None else ()
    words = list(chosen) if instead is None else instead
    pairs = swaps.swapped(written.reader, written.text, first, second, words, most=n, also=written.roles)
    return pairs, listed, chosen


def in_one_form(text: str) -> str:
    """Letters in one Unicode form (NFC); what is no text is refused by ``swaps.find``."""
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text
