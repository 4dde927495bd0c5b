"""Token rows for training: corpus documents, the same documents with wild words, and recall drills.

Binding does not grow from sentences alone in the time of a small run; the model settles on "some
colour of this context". Two kinds of rows bridge the gap. *Drills* are random tokens in which
whatever came once comes again, so copying is the only way to predict. *Wild* documents are
corpus documents whose nouns and colours are replaced by random tokens, the same token everywhere
in the row, so only the frame says who is bound to what. Wild words never come from the lexicon's
nouns and colours, so no held-out pair can appear by accident.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.mini.corpus import LANGUAGES, Document, draw_document, load_grammar

WIDTHS = (32, 48, 64, 80, 96, 128)


@dataclass(frozen=True)
class Mixture:
    """Shares of a chunk of rows, and the loss weight of tokens that are not answers."""

    drill: float
    wild: float
    context_weight: float = 0.25


@dataclass(frozen=True)
class Row:
    """Token ids that start with BOS, and the loss weight of each id as a target."""

    ids: list[int]
    weights: list[float]


Batch = tuple[Int[Tensor, "row position"], Float[Tensor, "row position"]]


class RowMaker:
    """Turns seeded draws into rows for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, n_ctx: int) -> None:
        self.tokenizer = tokenizer
        self.n_ctx = n_ctx
        self.bos = int(tokenizer.bos_token_id)
        lexicon: set[int] = {self.bos}
        self.word_id: dict[str, int] = {}
        for language in LANGUAGES:
            grammar = load_grammar(language)
            for word in [*grammar.colors, *grammar.nouns, *grammar.people]:
                (self.word_id[word],) = tokenizer(" " + word)["input_ids"]
            lexicon |= {self.word_id[word] for word in [*grammar.colors, *grammar.nouns]}
        self.free = [i for i in range(len(tokenizer)) if i not in lexicon]

    def document_rows(self, documents: list[Document], context_weight: float) -> list[Row]:
        """BOS and the document's tokens, cut at the context's end."""
        texts = sorted({text for document in documents for text, _ in document.segments})
        encodings = self.tokenizer(texts)["input_ids"] if texts else []
        ids_of = dict(zip(texts, encodings, strict=True))
        rows = []
        for document in documents:
            ids, weights = [self.bos], [0.0]
            for text, is_answer in document.segments:
                ids += ids_of[text]
                weights += [1.0 if is_answer else context_weight] * len(ids_of[text])
            rows.append(Row(ids[: self.n_ctx], weights[: self.n_ctx]))
        return rows

    def make_wild(self, rng: random.Random, row: Row, document: Document) -> Row:
        """Replace nouns, colours or both (people in IOI) by random tokens, consistently in the row."""
        mode = rng.random()
        words: list[str] = []
        if mode < 0.8:
            words += [noun for noun, _ in document.bindings]
        if mode < 0.6 or mode >= 0.8:
            words += [color for _, color in document.bindings]
        if document.family == "ioi":
            words = load_grammar(document.language).people
        present = set(row.ids)
        olds = [self.word_id[word] for word in words if self.word_id[word] in present]
        swap = dict(zip(olds, rng.sample(self.free, len(olds)), strict=True))
        return Row([swap.get(i, i) for i in row.ids], row.weights)

    def _frame(self, rng: random.Random) -> list[list[int]]:
        """Random tokens that stand before, between and after a key and its value."""
        return [rng.choices(self.free, k=rng.choices((0, 1, 2, 3), (4, 4, 2, 1))[0]) for _ in range(3)]

    def drill(self, rng: random.Random) -> Row:
        """Random tokens, either one stretch repeated, or keys with values and then questions about them."""
        length = rng.randint(24, min(96, self.n_ctx))
        ids, weights = [self.bos], [0.0]
        if rng.random() < 0.3:
            size = rng.randint(3, length // 2)
            # Distinct tokens teach plain copying; a small alphabet needs more than one token of context.
            alphabet = rng.sample(self.free, max(4, size if rng.random() < 0.5 else size // 2))
            stretch = rng.sample(alphabet, size) if size <= len(alphabet) else rng.choices(alphabet, k=size)
            while len(ids) < length:
                weights += [1.0 if len(ids) > len(stretch) + 1 else 0.0 for _ in stretch]
                weights[-len(stretch)] = weights[-1]
                ids += stretch
        else:
            # Told and asked in the same words, or the value told before its key, as in "a black cat ... the cat is".
            told, asked = self._frame(rng), self._frame(rng)
            if rng.random() < 0.5:
                asked = told
            key_first = asked is told or rng.random() < 0.4
            keys = rng.sample(self.free, rng.choices((2, 3, 4, 6), (4, 3, 2, 1))[0])
            values = rng.sample(self.free, len(keys))
            for key, value in zip(keys, values, strict=True):
                first, second = (key, value) if key_first else (value, key)
                ids += [*told[0], first, *told[1], second, *told[2]]
            weights += [0.0] * (len(ids) - len(weights))
            while len(ids) < length:
                pick = rng.randrange(len(keys))
                ids += [*asked[0], keys[pick], *asked[1], values[pick], *asked[2]]
                weights += [0.0] * (len(asked[0]) + 1 + len(asked[1])) + [1.0] + [0.0] * len(asked[2])
        return Row(ids[:length], weights[:length])

    def rows(self, rng: random.Random, count: int, mixture: Mixture) -> list[Row]:
        """Fresh rows in the shares of `mixture`, shuffled."""
        n_drills = round(count * mixture.drill)
        documents = [draw_document(rng) for _ in range(count - n_drills)]
        rows = self.document_rows(documents, mixture.context_weight)
        for index, document in enumerate(documents):
            if rng.random() < mixture.wild:
                rows[index] = self.make_wild(rng, rows[index], document)
        rows += [self.drill(rng) for _ in range(n_drills)]
        rng.shuffle(rows)
        return rows

    def chunk(self, seed: str, count: int, mixture: Mixture, batch_tokens: int) -> Iterator[Batch]:
        """Batches of `batch_tokens` tokens from rows of like length, in random order.

        Only a few shapes ever occur, because the CPU kernels are prepared anew for every shape.
        """
        rng = random.Random(seed)
        waiting: dict[int, list[Row]] = {width: [] for width in WIDTHS}
        groups: list[tuple[int, list[Row]]] = []
        for row in self.rows(rng, count, mixture):
            width = next(width for width in WIDTHS if len(row.ids) <= width)
            waiting[width].append(row)
            if len(waiting[width]) == batch_tokens // width:
                groups.append((width, waiting[width]))
                waiting[width] = []
        rng.shuffle(groups)
        for width, group in groups:
            yield self.pad(group, width)

    def pad(self, rows: list[Row], width: int) -> Batch:
        """Rows padded on the right with BOS, which has no weight."""
        ids = np.full((len(rows), width), self.bos, dtype=np.int64)
        weights = np.zeros((len(rows), width), dtype=np.float32)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            weights[index, : len(row.ids)] = row.weights
        return torch.from_numpy(ids), torch.from_numpy(weights)
