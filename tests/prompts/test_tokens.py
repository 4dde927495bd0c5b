"""Ids, BOS and spans, against ids that are written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_tokenizers import byte_bpe, pieces, stand_in
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import tokens
from interp.prompts.tokens import Prompts, Span, check_fits, encode, extend, token_texts, usable_ids

#            1      2       3      4    5     6     7      8
TOKENS = ("The", " cat", " is", ".", " r", "ed", "ose", " blue")
SENTENCE = "The cat is red. The cat is"
SENTENCE_IDS = [1, 2, 3, 5, 6, 4, 9, 2, 3]  # " The" is token 9


@pytest.fixture
def model():
    return stand_in(pieces(*TOKENS, " The"))


def spans_of(text: str, **words: str) -> dict[str, tuple[int, int]]:
    return {role: (text.index(word), text.index(word) + len(word)) for role, word in words.items()}


def test_ids_have_exactly_one_bos_and_spans_count_it(model):
    prompts = encode(model, [SENTENCE], [spans_of(SENTENCE, noun="cat", color="red")])
    assert prompts.ids.tolist() == [[0, *SENTENCE_IDS]]
    assert prompts.lengths.tolist() == [10]
    assert prompts.bos == "prepended"
    assert prompts.spans("noun").tolist() == [[2, 3]]
    assert prompts.spans("color").tolist() == [[4, 6]]  # " r" and "ed"
    assert prompts.tokens == (("<s>", "The", " cat", " is", " r", "ed", ".", " The", " cat", " is"),)


def test_a_tokenizer_that_adds_its_own_bos_does_not_double_it():
    tokenizer = pieces(*TOKENS, " The", adds_bos=True)
    assert tokenizer(SENTENCE)["input_ids"][0] == 0  # it really adds one
    prompts = encode(stand_in(tokenizer), SENTENCE, [spans_of(SENTENCE, noun="cat")])
    assert prompts.ids.tolist() == [[0, *SENTENCE_IDS]]
    assert prompts.spans("noun").tolist() == [[2, 3]]


def test_policy_none_adds_no_bos_even_if_the_tokenizer_would():
    tokenizer = pieces(*TOKENS, " The", adds_bos=True)
    prompts = encode(stand_in(tokenizer, policy="none"), [SENTENCE], [spans_of(SENTENCE, noun="cat")])
    assert prompts.ids.tolist() == [SENTENCE_IDS]
    assert prompts.bos == "none"
    assert prompts.spans("noun").tolist() == [[1, 2]]


def test_a_tokenizer_without_bos_works_under_policy_none():
    prompts = encode(stand_in(pieces(*TOKENS), bos=None, policy="none"), ["The cat"])
    assert prompts.ids.tolist() == [[1, 2]]


def test_prompts_of_different_length_are_padded_on_the_right_with_zero(model):
    prompts = encode(model, ["The cat", "The cat is red"])
    assert prompts.ids.tolist() == [[0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 5, 6]]
    assert prompts.lengths.tolist() == [3, 6]
    assert prompts.rows() == [[0, 1, 2], [0, 1, 2, 3, 5, 6]]


@pytest.mark.parametrize("gpt2", [False, True])
def test_a_letter_of_two_bytes_is_covered_whole(gpt2):
    tokenizer = byte_bpe(["x"], 257, gpt2=gpt2)  # no merges: every byte is a token
    prompts = encode(stand_in(tokenizer), ["un día"], [{"noun": (3, 6)}])
    # <s> u n space d [two bytes of í] a
    assert prompts.lengths.tolist() == [8]
    assert prompts.spans("noun").tolist() == [[4, 8]]
    prompts = encode(stand_in(tokenizer), ["un día"], [{"letter": (4, 5)}])
    assert prompts.spans("letter").tolist() == [[5, 7]]


@pytest.mark.parametrize("vocab_size", [257, 280, 330])
@pytest.mark.parametrize("options", [{}, {"trim_offsets": True}, {"trim_offsets": False}, {"gpt2": True}])
@pytest.mark.parametrize("word", ["algún", "día", "marrón", "ñandú", "gato", "el árbol"])
def test_the_tokens_of_a_span_decode_to_the_word(vocab_size, options, word):
    text = f"Espero ver «{word}» un {word}, algún día. El {word} es"
    tokenizer = byte_bpe([text, "algún día un gato marrón y el árbol"] * 3, vocab_size, **options)
    starts = [i for i in range(len(text)) if text.startswith(word, i)]
    roles = {f"place {i}": (start, start + len(word)) for i, start in enumerate(starts)}
    prompts = encode(stand_in(tokenizer), [text], [roles])
    assert len(roles) >= 3
    for role in roles:
        start, stop = prompts.spans(role)[0]
        assert tokenizer.decode(prompts.ids[0, start:stop]).strip() == word


def test_sentencepiece_style_tokens_show_their_space_and_give_spans():
    vocab = {"<s>": 0, "\u2581The": 1, "\u2581cat": 2, "\u2581is": 3, "<unk>": 4}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>")
    prompts = encode(stand_in(tokenizer), ["The cat is"], [{"noun": (4, 7)}])
    assert prompts.ids.tolist() == [[0, 1, 2, 3]]
    assert prompts.spans("noun").tolist() == [[2, 3]]
    assert prompts.tokens == (("<s>", " The", " cat", " is"),)


@pytest.mark.parametrize("policy", ["prepend", "none"])
def test_a_text_that_brings_its_own_bos_is_refused(policy):
    model = stand_in(pieces(*TOKENS), policy=policy)
    with pytest.raises(InterpError, match=r'Prompt 1 \("<s>The cat"\) writes the BOS <s> itself\. Remove it'):
        encode(model, ["The cat", "<s>The cat"])


def test_policy_prepend_without_a_bos_is_refused():
    with pytest.raises(InterpError, match='bos_policy is "prepend", but the model has no bos_token_id'):
        encode(stand_in(pieces(*TOKENS), bos=None), ["The cat"])


@pytest.mark.parametrize("given", ["mini", None, object()])
def test_what_is_no_loaded_model_is_refused_with_the_call_that_gives_one(given: Any):
    with pytest.raises(InterpError, match=r"no loaded model.*tokenizer=HookedTransformer\.from_pretrained\('mini'\)"):
        encode(given, "The cat")


def test_an_unknown_bos_policy_is_refused():
    with pytest.raises(InterpError, match=r"Unknown bos_policy 'prepnd'\. Did you mean 'prepend'\?"):
        encode(stand_in(pieces(*TOKENS), policy="prepnd"), ["The cat"])


def test_a_prompt_longer_than_the_context_is_refused_with_its_length():
    model = stand_in(pieces(*TOKENS), n_ctx=4)
    assert len(encode(model, ["The cat is"])) == 1  # 3 tokens and the BOS: just fits
    message = r'Prompt 1 \("The cat is red"\) has 6 tokens, but the model reads at most 4 \(n_ctx\)'
    with pytest.raises(InterpError, match=message):
        encode(model, ["The cat", "The cat is red"])


def test_ids_outside_the_vocabulary_are_refused():
    prompts = Prompts.from_ids([[1, 2], [1, 70]])
    with pytest.raises(InterpError, match="Prompt 1 holds token id 70, but the model's vocabulary ends at 49"):
        check_fits(prompts, stand_in(None, vocab=50))
    with pytest.raises(InterpError, match="Prompt 1 holds token id 70"):
        check_fits(prompts, stand_in(None, vocab=70))
    check_fits(prompts, stand_in(None, vocab=71))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "There are no prompts: the list of texts is empty"),
        (["The cat", ""], "Prompt 1 is empty"),
        (["The cat", 3], "Prompt 1 is int, not text"),
    ],
)
def test_texts_that_are_no_texts_are_refused(model, texts, message):
    with pytest.raises(InterpError, match=message):
        encode(model, texts)


def test_a_model_without_a_tokenizer_says_to_use_ids():
    with pytest.raises(InterpError, match=r"no tokenizer. Give token ids: Prompts.from_ids"):
        encode(stand_in(None, vocab=9), ["The cat"])


def test_ids_are_taken_as_they_come():
    prompts = Prompts.from_ids([[5, 6, 7], [8, 9]], roles={"last": -1, "start": Span(0, 2), "own": [2, 0]})
    assert prompts.ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert prompts.lengths.tolist() == [3, 2]
    assert prompts.bos == "given"
    assert prompts.spans("last").tolist() == [[2, 3], [1, 2]]
    assert prompts.spans("start").tolist() == [[0, 2], [0, 2]]
    assert prompts.spans("own").tolist() == [[2, 3], [0, 1]]
    assert prompts.tokens is None


def test_ids_can_be_arrays_and_show_their_tokens(model):
    spans = np.array([[0, 1], [1, 2]])
    prompts = Prompts.from_ids(np.array([[1, 2], [5, 6]]), roles={"a": spans}, tokenizer=model)
    assert prompts.tokens == (("The", " cat"), (" r", "ed"))
    assert prompts.spans("a").tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("ids", "roles", "message"),
    [
        ([], {}, "the list of ids is empty"),
        ([1, 2, 3], {}, r"one list per prompt. Wrap a single prompt in a list"),
        ([[1], []], {}, "Prompt 1 is empty"),
        ([[1, 2.5]], {}, r"Prompt 0 must be whole numbers"),
        ([[1, -2]], {}, "Prompt 0 holds the negative id -2"),
        ([[1, 2]], {"color": 2}, r"Role 'color' covers positions 2 to 2 of prompt 0, which has 2 tokens"),
        ([[1, 2]], {"color": [0, 1, 1]}, r"one position for each of 1 prompts, but has shape \(3,\)"),
        ([[1, 2]], {"color": "noun"}, r"Role 'color' must be whole numbers"),
    ],
)
def test_ids_and_roles_that_do_not_fit_are_refused(ids, roles, message):
    with pytest.raises(InterpError, match=message):
        Prompts.from_ids(ids, roles=roles)


def test_role_positions_are_the_first_or_last_token_of_the_span():
    prompts = Prompts.from_ids([[1, 2, 3, 4]], roles={"color": Span(1, 3)})
    assert prompts.role_positions("color").tolist() == [2]
    assert prompts.role_positions("color", "first").tolist() == [1]
    with pytest.raises(InterpError, match=r"Unknown role 'colour'\. Did you mean 'color'"):
        prompts.role_positions("colour")


def test_select_reorders_and_cuts_padding():
    prompts = Prompts.from_ids([[1, 2, 3], [4], [5, 6]], roles={"last": -1})
    chosen = prompts.select([2, 1])
    assert chosen.ids.tolist() == [[5, 6], [4, 0]]
    assert chosen.spans("last").tolist() == [[1, 2], [0, 1]]
    with pytest.raises(InterpError, match="asks for prompt 3, but there are 3"):
        prompts.select([0, 3])
    with pytest.raises(InterpError, match="The selection has no prompts"):
        prompts.select([])


def test_concat_pads_and_refuses_other_roles_or_bos(model):
    first, second = encode(model, ["The cat"]), encode(model, ["The cat is"])
    both = Prompts.concat([first, second])
    assert both.ids.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3]]
    assert both.texts == ("The cat", "The cat is")
    with pytest.raises(InterpError, match="only one side has noun"):
        Prompts.concat([first, encode(model, ["The cat"], [{"noun": (4, 7)}])])
    with pytest.raises(InterpError, match="treat the BOS alike, but have prepended and given"):
        Prompts.concat([first, Prompts.from_ids([[1]])])


def test_the_fingerprint_is_of_tokens_only():
    known = Prompts.from_ids([[1, 2], [3]])
    # the lengths 2 and 1, then the ids 1, 2 and 3, as eight little-endian bytes each
    assert known.sha256() == "b48967cd7f76e5818da9ad2cae52118e355996b10df13414104d2f64c8f0ce97"
    assert Prompts.from_ids([[1, 2], [3]], roles={"a": 0}).sha256() == known.sha256()
    padded = Prompts(ids=np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), lengths=np.array([2, 1]))
    assert padded.sha256() == known.sha256()
    assert Prompts.from_ids([[1], [2, 3]]).sha256() != known.sha256()
    assert Prompts.from_ids([[1, 2], [3, 0]]).sha256() != known.sha256()


def test_extend_appends_tokens_and_their_text(model):
    prompts = encode(model, ["The cat", "The"], [{"noun": (0, 3)}] * 2)
    longer = extend(prompts, [(3, 5), ()], model)
    assert longer.rows() == [[0, 1, 2, 3, 5], [0, 1]]
    assert longer.texts == ("The cat is r", "The")
    assert longer.tokens == (("<s>", "The", " cat", " is", " r"), ("<s>", "The"))
    assert longer.spans("noun").tolist() == [[1, 2], [1, 2]]


def test_prompts_cannot_be_changed_by_accident():
    ids = np.array([[1, 2]])
    prompts = Prompts(ids=ids, lengths=np.array([2]))
    ids[0, 0] = 9
    assert prompts.ids.tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="read-only"):
        prompts.ids[0, 0] = 9


def test_a_token_with_half_a_letter_shows_the_replacement_sign():
    tokenizer = byte_bpe(["x"], 257)
    ids = tokenizer("ñ")["input_ids"]
    assert token_texts(tokenizer, ids) == ("\ufffd", "\ufffd")


def test_usable_ids_leave_special_tokens_out():
    assert usable_ids(stand_in(pieces("a", "b"))) == [1, 2]  # not <s>, not <unk>
    assert usable_ids(stand_in(None, bos=2, vocab=5)) == [0, 1, 3, 4]
    assert usable_ids(stand_in(pieces("a", "b"), vocab=2)) == [1]  # the model's own vocabulary is smaller
    with pytest.raises(InterpError, match="size of the vocabulary is unknown"):
        usable_ids(stand_in(None, vocab=0))


def test_tokens_and_prompts_load_no_torch(python: Callable[..., object]):
    code = "import sys, interp.tasks, interp.prompts; sys.exit('torch' in sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert python("-c", "import sys, torch; sys.exit('torch' in sys.modules)").returncode == 1  # it can fail


def test_many_texts_are_read_some_at_a_time(mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The cat is black", "My dog is white today", "The cup is red", "A big horse is blue"]
    spans = [{"noun": (4, 7)}, {"noun": (3, 6)}, {"noun": (4, 7)}, {"noun": (6, 11)}]
    whole = tokens.encode(mini, texts, spans)
    asked: list[int] = []
    plain = tokens.encode_plain
    monkeypatch.setattr(tokens, "AT_ONCE", 3)
    monkeypatch.setattr(
        tokens, "encode_plain", lambda model, some, **more: asked.append(len(some)) or plain(model, some, **more)
    )
    pieces = tokens.encode(mini, texts, spans)
    assert asked == [3, 1]
    assert pieces.ids.tolist() == whole.ids.tolist()
    assert (pieces.texts, pieces.tokens) == (whole.texts, whole.tokens)
    assert pieces.spans("noun").tolist() == whole.spans("noun").tolist()
    assert pieces.spans("noun").tolist() == [[2, 3], [2, 3], [2, 3], [3, 4]]
    with pytest.raises(InterpError, match=r"^Prompt 3 "):
        tokens.encode(mini, [*texts[:3], "<|endoftext|>The cat"])
