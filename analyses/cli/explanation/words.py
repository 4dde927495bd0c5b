"""Which language a sentence is in, and which other words can stand in the place of one of its words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from analyses.cli.explanation.beginning import Beginning
from interp import tasks
from interp.errors import InterpError
from interp.prompts import swaps
from interp.prompts.chat import Written
from interp.prompts.swaps import SOURCE
from interp.prompts.tokens import Prompts, encode_marked, encode_plain

if TYPE_CHECKING:
    from interp.model import HookedTransformer

LIKELY = 0.2
"""A word of several tokens is one that the model expects only if each of its later tokens has this probability."""


def other_words(model: HookedTransformer, text: str | Written, source: tuple[int, int], n: int) -> list[str]:
    """Words for the place of the source: of the bundled lexicons that hold it, then what the model expects there.

    In a phrase of several words, each that is in a lexicon is exchanged by itself.

    Args:
        model: the model.
        text: the sentence.
        source: characters of the word.
        n: how many counterfactuals are wanted. The model is asked only where fewer words of the lexicons line up.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> other_words(model, "el color negro", (9, 14), 2)[:2]
    ['blanco', 'rojo']
    >>> other_words(model, "el color negro", (3, 14), 2)[:2]
    ['color blanco', 'color rojo']
    """
    written = text if isinstance(text, Written) else Written.of(model, text)
    word = written.text[slice(*source)]
    found = [other for other in dict.fromkeys([*of_lexicons(word), *_of_phrase(word)]) if other != word]
    if sum(_lines_up(written, source, found)) >= n:
        return found
    expected = [
        other
        for other in _expected(model, written, source, 8 * n)
        if other.isalpha() and other.islower() == word.islower() and other not in (word, *found)
    ]
    expected = _nearest(model, word, expected)
    return found + [other for other, fits in zip(expected, _lines_up(written, source, expected), strict=True) if fits]


def of_one_length(written: Written, source: tuple[int, int]) -> tuple[str, ...]:
    """Words that stand in a lexicon with the source and have as many tokens as one another, where none has its number.

    Of several numbers of tokens, that of most words. With one of these in the sentence, they can stand in for it.
    """
    word = written.text[slice(*source)]
    others = [other for other in dict.fromkeys(of_lexicons(word)) if other != word]
    own, *lengths = _lengths(written, source, [word, *others])
    if not others or own in lengths:
        return ()
    most = max(lengths, key=lengths.count)
    return tuple(other for other, length in zip(others, lengths, strict=True) if length == most)


def _lines_up(written: Written, source: tuple[int, int], words: Sequence[str]) -> list[bool]:
    """Whether the sentence keeps its number of tokens with each word."""
    first, *others = _lengths(written, source, [written.text[slice(*source)], *words])
    return [length == first for length in others]


def _lengths(written: Written, source: tuple[int, int], words: Sequence[str]) -> list[int]:
    """How many tokens the sentence has with each word in the place of the source."""
    texts = [swaps.with_word(written.text, source, word) for word in words]
    return [len(ids) for ids, _ in encode_plain(written.reader, texts)]


def _nearest(model: HookedTransformer, word: str, others: Sequence[str]) -> list[str]:
    """The words in the order in which their embeddings look like that of one: a colour's are other colours, not *of*.

    Of several tokens the mean counts. As the model expects them where its embedding is not at hand.
    """
    blocks, _ = model.own_blocks()
    if blocks is None or not others:
        return list(others)
    reader: Any = model.tokenizer
    ids = [reader(f" {one}", add_special_tokens=False)["input_ids"] for one in (word, *others)]
    middle = blocks.token.mean(dim=0)
    own, *vectors = (blocks.token[torch.tensor(row, device=middle.device)].mean(dim=0) - middle for row in ids)
    alike = [float(torch.cosine_similarity(own, vector, dim=0)) for vector in vectors]
    return [others[i] for i in np.argsort(-np.array(alike), kind="stable")]


def of_lexicons(word: str) -> Iterator[str]:
    """The words that stand in a bundled lexicon together with this one, itself among them."""
    for name in tasks.names():
        for words in tasks.load(name).lexicon.values():
            if word in words:
                yield from words
            elif word.lower() in words and word.istitle():
                yield from (other.capitalize() for other in words)


def _of_phrase(phrase: str) -> Iterator[str]:
    """A phrase of several words with one of them exchanged for another of its lexicon."""
    words = list(re.finditer(r"\w+", phrase))
    for match in words if len(words) > 1 else ():
        for other in of_lexicons(match[0]):
            yield swaps.with_word(phrase, match.span(), other)


def _expected(model: HookedTransformer, written: Written, source: tuple[int, int], most: int) -> list[str]:
    """Whole words that the model expects in the place of the source, of as many tokens; the likeliest first."""
    prompts, _ = encode_marked(written.reader, [written.text], [{SOURCE: source}])
    start, stop = prompts.spans(SOURCE)[0].tolist()
    lead = prompts.ids[0, :start].tolist()
    if not lead:
        raise InterpError(
            "Nothing stands before the source, so that the model expects no word there. Give other words: instead=, or "
            "--instead with commas between them."
        )
    reader: Any = model.tokenizer
    beginning = Beginning.with_read(model, np.array(lead[:-1], dtype=np.int64))

    def chances(rows: Tensor) -> Tensor:
        prompts = Prompts.from_ids(rows.numpy())
        return beginning.logits(prompts, np.array([rows.shape[1] - 1]))[:, 0, : len(reader)].softmax(dim=-1)

    rows = torch.tensor([lead])
    first = chances(rows)[0].topk(min(most, len(reader))).indices
    rows = torch.cat([rows.expand(len(first), -1), first[:, None]], dim=1)
    for _ in range(start + 1, stop):
        likely, best = chances(rows).max(dim=-1)
        rows = torch.cat([rows, best[:, None]], dim=1)[likely >= LIKELY]
        if not len(rows):
            return []
    within = torch.tensor([goes_on(str(reader.decode([token]))) for token in range(len(reader))])
    ends = chances(rows)[:, within].sum(dim=-1) < 0.5
    words = [str(reader.decode(row[len(lead) :])).strip() for row in rows.tolist()]
    return [word for word, whole in zip(words, ends.tolist(), strict=True) if whole]


def goes_on(token: str) -> bool:
    """Whether a token goes on with the word before it. What is only the beginning of a word takes no word's place."""
    return token[:1].isalpha()
