"""One word is one word: what a tokenizer does not know is no word, and spellings of the same word are not two."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp import tasks
from interp.errors import InterpError
from interp.prompts import AnsweredPrompts, PromptPairs, Template
from interp.prompts.template import in_one_form
from interp.prompts.tokens import encode, unknown_id
from tests.tiny_tokenizers import byte_bpe, stand_in

WORDS = ["The", "cat", "dog", "is", "black", "white", "grey", "."]
TEMPLATE = Template("The {noun} is {color}. The {noun:asked} is", answer=" {color}")


def reader(words: list[str] = WORDS, *, fold: bool = False) -> object:
    vocabulary = ["<unk>", "<s>", *words]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if fold:
        raw.normalizer = normalizers.Lowercase()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="<unk>")


def model(**options: object) -> object:
    return stand_in(reader(**options), bos=1)


def paired(clean: dict[str, str], corrupted: dict[str, str], **options: object) -> PromptPairs:
    return PromptPairs.from_template(TEMPLATE, clean=[clean], corrupted=[corrupted], tokenizer=model(), **options)


BLACK, WHITE = {"noun": "cat", "color": "black"}, {"noun": "cat", "color": "white"}


@pytest.mark.parametrize(
    ("clean", "corrupted", "expected"),
    [
        (
            {**BLACK, "noun": "zebra"},
            {**WHITE, "noun": "zebra"},
            '"zebra" (role noun), which the tokenizer does not know',
        ),
        ({**BLACK, "color": "purple"}, WHITE, '"purple" (role color)'),
        (BLACK, {**WHITE, "color": "purple"}, '"purple" (role color)'),
    ],
)
def test_a_word_that_the_tokenizer_does_not_know_is_no_role(
    clean: dict[str, str], corrupted: dict[str, str], expected: str
) -> None:
    with pytest.raises(InterpError) as caught:
        paired(clean, corrupted)
    assert expected in str(caught.value)
    with pytest.raises(InterpError, match="choose words that it knows"):
        paired(clean, corrupted, on_misaligned="raise")


def test_pairs_with_unknown_words_are_dropped_and_counted_as_such() -> None:
    pairs = PromptPairs.from_template(
        TEMPLATE,
        clean=[BLACK, {**BLACK, "noun": "zebra"}],
        corrupted=[WHITE, {**WHITE, "noun": "zebra"}],
        tokenizer=model(),
    )
    assert (len(pairs), [(drop.index, drop.kind) for drop in pairs.drops]) == (1, [(1, "unknown")])


def test_a_word_that_the_tokenizer_does_not_know_is_no_answer() -> None:
    template = Template("The {noun} is {color}. The {noun:asked} is", answer=" {said}")
    slots = [{**BLACK, "said": "black"}], [{**WHITE, "said": "purple"}]
    with pytest.raises(InterpError, match='answer " purple" holds a word that the tokenizer does not know'):
        PromptPairs.from_template(template, clean=slots[0], corrupted=slots[1], tokenizer=model())
    with pytest.raises(InterpError, match='answer " purple" holds a word that the tokenizer does not know'):
        AnsweredPrompts.from_texts("The cat is", correct=" purple", tokenizer=model())
    tokenizer = reader()
    for answers in ({"correct": 0, "incorrect": 5}, {"correct": 5, "incorrect": 0}):
        with pytest.raises(InterpError, match="is 0, the id of any word that the tokenizer does not know"):
            PromptPairs.from_tokens([[1, 2, 3]], [[1, 2, 4]], tokenizer=tokenizer, **answers)


def test_texts_and_roles_of_ids_are_held_to_the_same() -> None:
    with pytest.raises(InterpError, match=r'Prompt 1 \("The zebra"\) holds "zebra", which the tokenizer does not know'):
        encode(model(), ["The cat", "The zebra"])
    with pytest.raises(InterpError, match="Role 'noun' of prompt 0 holds id 0, which stands for any word"):
        PromptPairs.from_tokens([[1, 0, 3]], [[1, 0, 4]], correct=5, incorrect=6, roles={"noun": 1}, tokenizer=reader())
    PromptPairs.from_tokens([[1, 0, 3]], [[1, 0, 4]], correct=5, incorrect=6, roles={"noun": 2}, tokenizer=reader())


def test_a_byte_level_tokenizer_knows_every_word() -> None:
    tokenizer = byte_bpe(["The cat is black."], 257, gpt2=True)  # names its BOS as the unknown token, as GPT-2's does
    assert tokenizer.unk_token_id is not None
    assert unknown_id(tokenizer) is None
    assert len(encode(stand_in(tokenizer), "Ünïcödé \N{ZEBRA FACE}")) == 1


TASK = """\
name: mine
language: en
title: t
question: q?
source: me
lexicon:
  noun: [cat, dog]
  color: [{colors}]
rungs:
  - name: one
    description: d
    main: true
    template: "The {{noun}} is {{color}}. The {{noun:asked}} is"
    answer: " {{color}}"
    corrupted: {{other: color}}
"""


def task(path: Path, colors: str) -> tasks.Task:
    file = path / "mine.yaml"
    file.write_text(TASK.format(colors=colors), encoding="utf-8")
    return tasks.load(file)


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        ("{nfc}, {nfd}, black", "lexicon of color holds 'marrón' twice"),
        ('black, "black ", white', "lexicon of color holds 'black ', with a space at its end"),
        ('"\\u00a0black", white', "with a space at its end"),
    ],
)
def test_spellings_of_one_word_are_not_two_words_of_a_lexicon(colors: str, expected: str, tmp_path: Path) -> None:
    forms = {form.lower(): unicodedata.normalize(form, "marrón") for form in ("NFC", "NFD")}
    with pytest.raises(InterpError) as caught:
        task(tmp_path, colors.format(**forms))
    assert expected in str(caught.value)


def test_words_that_a_tokenizer_reads_alike_are_refused_by_name(tmp_path: Path) -> None:
    mine = task(tmp_path, "black, Black, white")
    lower = model(words=[word.lower() for word in WORDS], fold=True)
    with pytest.raises(InterpError, match="holds 'black' and 'Black', which this tokenizer reads as one word"):
        tasks.build(mine, tokenizer=lower, n=2)
    assert len(tasks.build(task(tmp_path, "black, grey, white"), tokenizer=lower, n=2)) == 2


def test_a_lexicon_word_that_the_tokenizer_does_not_know_is_left_out_by_name(tmp_path: Path) -> None:
    mine = task(tmp_path, "black, white, purple, magenta")
    pairs = tasks.build(mine, tokenizer=model(), n=4)
    assert all({pair.correct, pair.incorrect} == {" black", " white"} for pair in pairs)
    assert {drop.kind for drop in pairs.drops} == {"unknown"}
    with pytest.raises(InterpError, match=r'"(purple|magenta)" .* which the tokenizer does not know'):
        tasks.build(task(tmp_path, "purple, magenta"), tokenizer=model(), n=2)


def test_unicode_forms_are_one_word_in_templates() -> None:
    nfc, nfd = (unicodedata.normalize(form, "marrón") for form in ("NFC", "NFD"))
    tokenizer = stand_in(byte_bpe([f"El gato es {nfc}. {nfd}"], 400))
    template = Template("El {noun} es {color}. El {noun:asked} es", answer=" {color}")
    with pytest.raises(InterpError, match="clean and corrupted are the same tokens"):
        PromptPairs.from_template(
            template,
            clean=[{"noun": "gato", "color": nfc}],
            corrupted=[{"noun": "gato", "color": nfd}],
            tokenizer=tokenizer,
        )
    assert in_one_form([{"color": nfd}]) == ([{"color": nfc}],)


@pytest.mark.parametrize("word", ["cat ", " cat", "cat\n", "cat\N{NO-BREAK SPACE}"])
def test_a_word_with_and_without_a_space_at_its_end_is_refused(word: str) -> None:
    with pytest.raises(InterpError, match=r"Slot 'noun' is 'cat' and .*: one word, written in two ways"):
        paired(BLACK, {**WHITE, "noun": word})
    assert len(in_one_form([{"noun": word}], [{"noun": word}])) == 2  # one way throughout is the template's business
