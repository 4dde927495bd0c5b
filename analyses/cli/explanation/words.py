"""Which language a sentence is in, and which other words can stand in the place of one of its words."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cli.sentence import FEWEST
from analyses.explaining.beginning import Beginning
from interp import _yaml, tasks
from interp.language import LANGUAGES, is_spanish
from interp.prompts import swaps
from interp.prompts.chat import Written
from interp.prompts.swaps import SOURCE
from interp.prompts.tokens import Prompts, encode_marked, encode_plain

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.tasks import Task

LIKELY = 0.2
"""A word of several tokens is one that the model expects only if each of its later tokens has this probability."""
WEIGHT = 0.01
"""What a nat of a word's log-probability counts beside a cosine: ten nats as much as a tenth."""
NEAR = 20
"""So many numbers stand beside one that is written in digits."""

Origin: TypeAlias = Literal["list", "another language", "model"]
"""Where a word is from: a list that holds the source, that kind's list in another language, or the vocabulary."""


def other_words(model: HookedTransformer, text: str | Written, source: tuple[int, int], n: int) -> list[str]:
    """Words for the place of the source, those of its kind first.

    They come from the lists of words of one kind (``kinds.yaml``) and the lexicons of the bundled tasks that hold the
    source. Where fewer than ``n`` of them have its number of tokens, those of the same kind in another language follow,
    then the words of the model's own vocabulary that are most like it there: by their embeddings, beside its own and
    those of its kind, and by how far the model expects them. A word of several tokens is put together by the model,
    and may be no word: that is done only where no list has another. In a phrase of several words, each that is in a
    list is exchanged by itself.

    Args:
        model: the model.
        text: the sentence.
        source: characters of the word.
        n: how many counterfactuals are wanted.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> other_words(model, "el color negro", (9, 14), 2)[:2]
    ['blanco', 'rojo']
    >>> other_words(model, "el color negro", (3, 14), 2)[:2]
    ['color blanco', 'color rojo']
    """
    return list(origins(model, text if isinstance(text, Written) else Written.of(model, text), source, n))


def origins(model: HookedTransformer, written: Written, source: tuple[int, int], n: int) -> dict[str, Origin]:
    """The words of ``other_words``, and where each is from.

    Of lists, those that do not line up are among them, so that they can be reported; of the others none is.
    """
    word = written.text[slice(*source)]
    spoken = language_of(written.text)
    others = [*of_lists(word, spoken), *_of_phrase(word, spoken)]
    found: dict[str, Origin] = {other: "list" for other in others if other != word}
    enough = min(n, FEWEST)  # as many as an interval needs: words of other kinds are not mixed into more
    fits = [other for other, fit in zip(found, _lines_up(written, source, list(found)), strict=True) if fit]
    if len(fits) >= enough:
        return found
    foreign = [other for other in dict.fromkeys(_abroad(word, spoken)) if other != word and other not in found]
    foreign = [other for other, fit in zip(foreign, _lines_up(written, source, foreign), strict=True) if fit]
    found |= dict.fromkeys(foreign, "another language")
    if len(fits) + len(foreign) >= enough:
        return found
    _, (start, stop) = _read(written, source)
    if (fits or foreign) and stop - start > 1:
        return found
    expected = [
        other
        for other in _expected(model, written, source, [*fits, *foreign], 8 * n)
        if other.isalpha()
        and _case(other) == _case(word)
        and other not in (word, *found)
        and not _one_stem(word, other)
    ]
    lined_up = _lines_up(written, source, expected)
    found |= {other: "model" for other, fit in zip(expected, lined_up, strict=True) if fit}
    return found


def language_of(text: str) -> str:
    """The language whose words are tried first."""
    return "es" if is_spanish(text) else "en"


def of_one_length(written: Written, source: tuple[int, int]) -> tuple[str, ...]:
    """Words that stand in a list with the source and have as many tokens as one another, where none has its number.

    Of several numbers of tokens, that of most words. With one of these in the sentence, they can stand in for it.
    """
    word = written.text[slice(*source)]
    spoken = language_of(written.text)
    others = [other for other in dict.fromkeys(of_lists(word, spoken)) if other != word]
    own, *lengths = _lengths(written, source, [word, *others])
    if not others or own in lengths:
        return ()
    most = max(lengths, key=lengths.count)
    return tuple(other for other, length in zip(others, lengths, strict=True) if length == most)


def _read(written: Written, source: tuple[int, int]) -> tuple[list[int], tuple[int, int]]:
    """The tokens of the sentence, and which of them are the source, half open."""
    prompts, _ = encode_marked(written.reader, [written.text], [{SOURCE: source}])
    start, stop = prompts.spans(SOURCE)[0].tolist()
    return prompts.ids[0].tolist(), (start, stop)


def _lines_up(written: Written, source: tuple[int, int], words: Sequence[str]) -> list[bool]:
    """Whether the sentence keeps its number of tokens with each word."""
    first, *others = _lengths(written, source, [written.text[slice(*source)], *words])
    return [length == first for length in others]


def _lengths(written: Written, source: tuple[int, int], words: Sequence[str]) -> list[int]:
    """How many tokens the sentence has with each word in the place of the source."""
    texts = [swaps.with_word(written.text, source, word) for word in words]
    return [len(ids) for ids, _ in encode_plain(written.reader, texts)]


def of_lists(word: str, spoken: str) -> Iterator[str]:
    """The words that stand in a list or a lexicon together with this one, itself among them; with its capitals.

    The lists of the language that is spoken come first, and keep out those of another. Beside a number in digits are
    the nearest that have as many.
    """
    if word.isascii() and word.isdigit():
        yield from _numbers(word)
    for language in (spoken, *(other for other in LANGUAGES if other != spoken)):
        lists = [*_kinds(language).values()]
        lists += [words for task in _tasks(language) for words in task.lexicon.values()]
        found = [other for words in lists for other in _beside(word, words)]
        if found:
            yield from found
            return


def _numbers(word: str) -> Iterator[str]:
    near = (int(word) + step * sign for step in range(1, NEAR) for sign in (-1, 1))
    yield from (str(number) for number in near if number >= 0 and len(str(number)) == len(word))


def _abroad(word: str, spoken: str) -> Iterator[str]:
    """The words of its kind in the languages that are not spoken, with its capitals."""
    own = [kind for kind, words in _kinds(spoken).items() if _plain(word, words) in words]
    for language in LANGUAGES:
        for kind in own if language != spoken else ():
            yield from (_like(word, other) for other in _kinds(language).get(kind.partition("_")[0], ()))


def _beside(word: str, words: Sequence[str]) -> Iterator[str]:
    """The words of a list, written as this one is, if it is among them."""
    if word in words:
        yield from words
    elif _plain(word, words) in words:
        yield from (_like(word, other) for other in words)


def _plain(word: str, words: Collection[str]) -> str:
    """A word as a list has it: without the capitals of a sentence's beginning, or of a whole word in capitals."""
    return next((form for form in (word, word.lower(), word.capitalize()) if form in words), word)


def _like(word: str, other: str) -> str:
    """Another word with the capitals of this one."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word.istitle() else other


@cache
def _kinds(language: str) -> Mapping[str, Sequence[str]]:
    lists: Mapping[str, Mapping[str, Sequence[str]]] = _yaml.read(Path(__file__).with_name("kinds.yaml"), "kinds.yaml")
    return lists.get(language, {})


@cache
def _tasks(language: str) -> tuple[Task, ...]:
    return tuple(task for task in map(tasks.load, tasks.names()) if task.language == language)


def _of_phrase(phrase: str, spoken: str) -> Iterator[str]:
    """A phrase, or a word with signs about it, with one of its words exchanged for another of its kind."""
    for match in re.finditer(r"\w+", phrase):
        for other in of_lists(match[0], spoken) if match[0] != phrase else ():
            yield swaps.with_word(phrase, match.span(), other)


def _case(word: str) -> tuple[bool, bool, bool]:
    return word.islower(), word.istitle(), word.isupper()


def _one_stem(word: str, other: str) -> bool:
    """Whether two words look like forms of one: *walked* and *walks* change too little to be compared."""
    first, second = word.lower(), other.lower()
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    return shared >= max(3, min(len(first), len(second)) - 2)


# ---- what the model has ----


def _expected(
    model: HookedTransformer, written: Written, source: tuple[int, int], kind: Sequence[str], most: int
) -> list[str]:
    """Whole words of the model's vocabulary for the place of the source, of as many tokens; the most like it first.

    Args:
        model: the model.
        written: the sentence.
        source: characters of the word.
        kind: further words of its kind, of as many tokens; there may be none.
        most: so many are looked at.
    """
    ids, (start, stop) = _read(written, source)
    lead, own = ids[:start], ids[start:stop]
    reader: Any = model.tokenizer
    texts = pieces(reader, own[0])
    beginning = Beginning.with_read(model, np.array(lead[:-1], dtype=np.int64))

    def chances(rows: Tensor) -> Tensor:
        prompts = Prompts.from_ids(rows.numpy())
        return beginning.logits(prompts, np.array([rows.shape[1] - 1]))[:, 0, : len(reader)].log_softmax(dim=-1)

    before = torch.tensor([lead], dtype=torch.long)
    there = chances(before)[0] if lead else torch.zeros(len(reader))
    similar = _Likeness.of(model, reader, own, kind)
    if len(own) == 1 and similar is not None:
        first = torch.tensor([_as_whole(piece, texts[own[0]]) for piece in texts]).nonzero()[:, 0]
    else:
        first = there.topk(min(most, len(reader))).indices
    rows = torch.cat([before.expand(len(first), -1), first[:, None]], dim=1)
    for _ in own[1:]:
        chance, best = chances(rows).max(dim=-1)
        rows = torch.cat([rows, best[:, None]], dim=1)[chance >= math.log(LIKELY)]
        if not len(rows):
            return []
    score = WEIGHT * there[rows[:, start]]
    if similar is not None:
        score = score + similar.of_rows(rows[:, start:])
    rows = rows[score.argsort(descending=True, stable=True)[:most]]
    whole = word_ends(chances(rows), texts, written.text[source[1] - 1]) if len(rows) else []
    return [
        "".join(texts[token] for token in row[start:]).strip()
        for row, ends in zip(rows.tolist(), whole, strict=True)
        if ends
    ]


def goes_on(token: str) -> bool:
    """Whether a token goes on with the word before it."""
    return token[:1].isalpha()


def pieces(reader: Any, after: int) -> list[str]:
    """What each token of a vocabulary adds to a text, with the space before it where it has one.

    Some tokenizers leave out the space at the beginning of a text, so that each is decoded after another token.
    """
    plain = {"clean_up_tokenization_spaces": False}
    first = len(reader.decode([after], **plain))
    return [text[first:] for text in reader.batch_decode([[after, token] for token in range(len(reader))], **plain)]


def _as_whole(piece: str, like: str) -> bool:
    """Whether a token can be a word where another stands: with or without the space before it, as that one."""
    return piece[:1].isspace() == like[:1].isspace() and piece.strip().isalpha()


def word_ends(chances: Float[Tensor, "row vocab"], texts: Sequence[str], letter: str) -> list[bool]:
    """Whether the model expects a word to end: what is only the beginning of a word takes no word's place.

    Args:
        chances: log-probabilities of the next token.
        texts: what each token adds, as from ``pieces``.
        letter: a letter of the text, by which its script is known.
    """
    if not swaps.spaced(letter):  # a script that writes no spaces does not say
        return [True] * len(chances)
    within = torch.tensor([goes_on(piece) for piece in texts])
    return (chances[:, within].exp().sum(dim=-1) < 0.5).tolist()


@dataclass(frozen=True)
class _Likeness:
    """How like a word and others of its kind the vocabulary's words are: cosines of their embeddings.

    Of several tokens the mean of the embeddings counts, about that of the whole vocabulary.
    """

    token: Tensor
    middle: Tensor
    like: Tensor

    @classmethod
    def of(cls, model: HookedTransformer, reader: Any, own: Sequence[int], kind: Sequence[str]) -> _Likeness | None:
        """Likeness to the tokens of the word and to the mean of its kind; None where no embedding is at hand."""
        blocks, _ = model.own_blocks()
        if blocks is None:
            return None
        found = cls(blocks.token, blocks.token.mean(dim=0), blocks.token[:0])
        like = [found._directions(torch.tensor([own]))[0]]
        ids = [reader(f" {one}", add_special_tokens=False)["input_ids"] for one in kind]
        if ids:
            like.append(torch.stack([found._directions(torch.tensor([row]))[0] for row in ids]).mean(dim=0))
        return replace(found, like=torch.nn.functional.normalize(torch.stack(like), dim=-1))

    def _directions(self, ids: Tensor) -> Tensor:
        mean = self.token[ids.to(self.token.device)].mean(dim=1) - self.middle
        return torch.nn.functional.normalize(mean, dim=-1)

    def of_rows(self, ids: Tensor) -> Tensor:
        """Of words of several tokens each [word, token], the sum of the cosines."""
        return (self._directions(ids) @ self.like.T).sum(dim=-1).float().cpu()
