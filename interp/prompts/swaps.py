"""One sentence, two words: the sentence again with other words in the place of the first of them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from interp.errors import InterpError, shown, whole_number
from interp.prompts.alignment import Problem, misalignments
from interp.prompts.pairing import Drop, first_reasons
from interp.prompts.pairs import PromptPairs
from interp.prompts.tokens import CharSpans, Span, SupportsTokenizer, encode_marked, excerpt
from interp.prompts.vocabulary import Vocabulary

SOURCE, TARGET = "source", "target"
"""The roles of the two words."""
LISTED = 4
"""Of so many places of a word each is named; of more the first and the last."""


def find(text: str, word: str, within: Sequence[tuple[int, int]] | None = None) -> tuple[int, int]:
    """The characters of a word, or of several words in a row, in a text.

    Args:
        text: the sentence.
        word: as it stands there; ``"gato@2"`` is its second occurrence.
        within: characters of the text in which it is looked for, such as the messages of a chat; None is all.

    Returns:
        First character, and one past the last.

    Raises:
        InterpError: it does not occur, or occurs several times and none of them is chosen.

    >>> find("el gato y el perro", "gato")
    (3, 7)
    >>> find("un gato, otro gato", "gato@2")
    (14, 18)
    """
    for name, one in (("text", text), ("word", word)):
        if not isinstance(one, str):
            raise InterpError(
                f"The {name} is {shown(one)}, which is no text ({type(one).__name__}). Give it in quotes."
            )
        if not one.strip():
            raise InterpError(f"The {name} is {shown(one)}. Give at least one word.")
    word = word.strip()
    plain, _, which = word.rpartition("@") if re.search(r".@\d+$", word) else (word, "", "")
    places = _places(text, plain, within)
    if not places:
        there = {found.casefold(): found for found in re.findall(r"\w+", text)}
        near = difflib.get_close_matches(plain.casefold(), there, n=1, cutoff=0.6)
        hint = f"Did you mean {shown(there[near[0]])}?" if near else "Write a whole word, as it stands there."
        raise InterpError(f'The word {shown(plain)} is not in "{excerpt(text)}". {hint}')
    if not which:
        if len(places) > 1:
            choices = [f"{plain}@{i + 1}" for i in range(len(places))]
            listed = ", ".join(choices) if len(choices) <= LISTED else f"{choices[0]} to {choices[-1]}"
            raise InterpError(
                f'The word {shown(plain)} is {len(places)} times in "{excerpt(text)}". Choose one: {listed}.'
            )
        return places[0]
    if not 1 <= int(which) <= len(places):
        times = f"{len(places)} times" if len(places) > 1 else "once"
        raise InterpError(f'"{excerpt(text)}" has {shown(plain)} {times}, so there is no {shown(word)}.')
    return places[int(which) - 1]


def name(text: str, place: tuple[int, int], within: Sequence[tuple[int, int]] | None = None) -> str:
    """What ``find`` calls the word at these characters: the word, with its number where it occurs several times.

    >>> name("un gato, otro gato", (14, 18)), name("un gato, otro gato", (9, 13))
    ('gato@2', 'otro')
    """
    word = text[slice(*place)]
    places = _places(text, word, within)
    return f"{word}@{places.index(place) + 1}" if len(places) > 1 else word


def _places(text: str, word: str, within: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Where a word, or several in a row, stand in a text."""
    # A word ends where letters end; where a script writes no spaces, or at a sign, any place will do.
    before = r"(?<!\w)" if spaced(word[0]) else ""
    after = r"(?!\w)" if spaced(word[-1]) else ""
    spelled = r"\s+".join(map(re.escape, word.split()))  # a line may break within a phrase
    places = [match.span() for match in re.finditer(before + spelled + after, text)]
    if within is None:
        return places
    return [(a, b) for a, b in places if any(first <= a and b <= last for first, last in within)]


def find_both(
    text: str, source: str, target: str, within: Sequence[tuple[int, int]] | None = None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The characters of two words, of which the second comes after the first; ``within`` as in ``find``.

    Raises:
        InterpError: what ``find`` refuses, or the target does not come after the source.

    >>> find_both("un gato, otro gato", "gato@1", "gato@2")
    ((3, 7), (14, 18))
    """
    first, second = (find(text, word, within) for word in (source, target))
    if max(first[0], second[0]) < min(first[1], second[1]):
        raise InterpError(
            f"Source {shown(text[slice(*first)])} and target {shown(text[slice(*second)])} are the same word or share "
            "one. Name a later word as the target."
        )
    if second[0] < first[1]:
        raise InterpError(
            f"{shown(target)} does not come after {shown(source)}. A model of this kind "
            "reads from left to right, so that a word can only reach later ones."
        )
    return first, second


def with_word(text: str, place: tuple[int, int], word: str) -> str:
    """A text with another word at some of its characters.

    >>> with_word("el gato negro", (8, 13), "rojo")
    'el gato rojo'
    """
    return text[: place[0]] + word + text[place[1] :]


def spaced(letter: str) -> bool:
    """Whether it is a letter or digit of a script that sets its words apart with spaces."""
    unspaced = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    return letter.isalnum() and not unicodedata.name(letter, "").startswith(unspaced)


def swapped(
    tokenizer: SupportsTokenizer,
    text: str,
    source: tuple[int, int],
    target: tuple[int, int],
    words: Sequence[str],
    *,
    most: int | None = None,
    also: CharSpans | None = None,
) -> PromptPairs:
    """Pairs of a sentence and the same sentence with another word in the place of the source.

    Every pair has the sentence itself as its clean prompt, and one of ``words`` in its corrupted prompt. A word that
    does not line up token by token is dropped with the reason. The token compared is the first that differs.

    Args:
        tokenizer: the model.
        text: the sentence.
        source: characters of the word that is exchanged, as from ``find_both``.
        target: characters of the word that is asked about.
        words: what stands in the place of the source, one pair for each.
        most: stop after so many pairs; None is all.
        also: further roles of the sentence, such as the messages of a chat, each with its characters.

    Returns:
        Pairs with the roles ``source``, ``target`` and ``answer`` (the last token of the sentence).

    Raises:
        InterpError: no word lines up.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> text = "Me encanta el color negro y tengo un gato"
    >>> pairs = swapped(model, text, *find_both(text, "negro", "gato"), ["rojo", "negro", "blanco"])
    >>> [pair.incorrect for pair in pairs], [drop.kind for drop in pairs.drops]
    ([' rojo', ' blanco'], ['identical'])
    """
    if most is not None and whole_number(most, "most") < 1:
        raise InterpError(f"most is {shown(most)}. Ask for at least one pair.")
    if isinstance(words, str) or not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
        raise InterpError(f"The other words are {shown(words)}. Give a list of words.")
    if blank := next((i for i, word in enumerate(words, start=1) if not word.strip()), None):
        raise InterpError(f"Number {blank} of the other words {shown(words)} is empty. Leave it out.")
    others = list(dict.fromkeys(unicodedata.normalize("NFC", word.strip()) for word in words))
    if not others:
        raise InterpError(
            f"No other word was found for {shown(text[slice(*source)])}: none in a lexicon, and the model expects no "
            "whole word of as many tokens there. Give some: instead=['...', '...'], or --instead with commas between."
        )
    texts = [with_word(text, source, other) for other in others]
    shifts = [len(other) - (source[1] - source[0]) for other in others]
    roles = [
        {SOURCE: (source[0], source[1] + shift), TARGET: (target[0] + shift, target[1] + shift)} for shift in shifts
    ]
    own = {SOURCE: source, TARGET: target, **(also or {})}
    clean, _ = encode_marked(tokenizer, [text] * len(others), [own] * len(others))
    corrupted, unknown = encode_marked(tokenizer, texts, roles)
    words_alone = clean.with_roles({role: clean.spans(role) for role in (SOURCE, TARGET)})
    problems = misalignments(words_alone, corrupted, differ_only_at=[SOURCE])
    kept: list[int] = []
    drops: list[Drop] = []
    for i, problem in enumerate(problems):
        if len(kept) == most:
            break
        if unknown[i]:
            problem = Problem("unknown", f"it holds {unknown[i]}")
        if problem is not None:
            drops.append(Drop(i, f"{others[i]}: {problem.reason}", text, texts[i], problem.kind))
        else:
            kept.append(i)
    if all(drop.kind == "identical" for drop in drops) and not kept:
        raise InterpError(
            f"All other words for {shown(text[slice(*source)])} are that word itself. Give others: instead=, or "
            "--instead with commas between."
        )
    if not kept:
        raise InterpError(
            f"None of {len(others)} other words for {shown(text[slice(*source)])} has its number of tokens. "
            f"{first_reasons(drops)}"
        )
    clean, corrupted = clean.select(kept), corrupted.select(kept)
    rows = np.arange(len(kept))
    first = (clean.ids != corrupted.ids).argmax(axis=1)
    pairs = PromptPairs.from_tokens(
        clean.rows(),
        corrupted.rows(),
        correct=clean.ids[rows, first],
        incorrect=corrupted.ids[rows, first],
        roles={role: Span(*clean.spans(role)[0].tolist()) for role in clean.roles},  # one sentence: one place
        tokenizer=tokenizer,
        bos=clean.bos,
        task="explain",
        name="sentence",
        drops=drops,
        vocabulary=Vocabulary(source=SOURCE, target=TARGET),
    )
    return replace(
        pairs,
        clean=replace(pairs.clean, texts=clean.texts),
        corrupted=replace(pairs.corrupted, texts=corrupted.texts),
        slots=({SOURCE: text[slice(*source)]},) * len(kept),
        corrupted_slots=tuple({SOURCE: others[i]} for i in kept),
    )
