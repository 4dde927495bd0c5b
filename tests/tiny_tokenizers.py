"""Tokenizers small enough to know every id by heart, and stand-ins for a model that carry them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

BOS = "<s>"


def stand_in(
    tokenizer: object, *, bos: int | None = 0, policy: str = "prepend", n_ctx: int = 256, vocab: int | None = None
) -> SimpleNamespace:
    """What `interp.prompts.tokens` asks of a model."""
    cfg = SimpleNamespace(n_ctx=n_ctx, vocab=len(tokenizer) if vocab is None else vocab)
    return SimpleNamespace(tokenizer=tokenizer, bos_policy=policy, bos_token_id=bos, cfg=cfg)


def pieces(*tokens: str, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly these tokens, the longest first where several fit: ids 1, 2, 3, ... in order.

    Id 0 is the BOS. With `adds_bos` it puts the BOS before every text by itself, as Llama's does.
    """
    vocab = {BOS: 0, **{token: i for i, token in enumerate(tokens, 1)}, "<unk>": len(tokens) + 1}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    longest_first = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(longest_first), "isolated")
    raw.decoder = decoders.Fuse()
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=BOS, unk_token="<unk>")


def byte_bpe(
    texts: Sequence[str], vocab_size: int, *, trim_offsets: bool | None = None, gpt2: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`; 257 tokens are the BOS and single bytes, without any merge."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if trim_offsets is not None:
        raw.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    if gpt2:
        import json

        model = json.loads(raw.to_str())["model"]
        merges = [tuple(merge) for merge in model["merges"]]
        return GPT2Tokenizer(vocab=model["vocab"], merges=merges, unk_token=BOS, bos_token=BOS, eos_token=BOS)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=BOS)
