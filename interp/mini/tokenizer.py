"""The byte-level BPE of `mini`, trained on its own corpus."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, PreTrainedTokenizerBase

from interp.mini.corpus import LANGUAGES, draw_document, load_grammar

END = "<|endoftext|>"
VOCAB = 1280


def train_tokenizer(*, seed: int, n_documents: int = 20_000, n_ctx: int = 128) -> PreTrainedTokenizerBase:
    """A GPT-2 tokenizer whose merges come from `n_documents` of the corpus.

    The lexicon is appended with weight so that every word of it ends as one token with a leading
    space, also the rarer ones.
    """
    rng = random.Random(seed)
    texts = [draw_document(rng).text for _ in range(n_documents)]
    for language in LANGUAGES:
        texts += [" " + " ".join(load_grammar(language).words())] * 200
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return _as_gpt2(bpe, n_ctx)


def _as_gpt2(bpe: Tokenizer, n_ctx: int) -> PreTrainedTokenizerBase:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        bpe.model.save(folder)
        return GPT2Tokenizer(
            vocab=str(Path(folder) / "vocab.json"),
            merges=str(Path(folder) / "merges.txt"),
            unk_token=END,
            bos_token=END,
            eos_token=END,
            model_max_length=n_ctx,
        )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json, and the vocab.json and merges.txt of the original format."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
