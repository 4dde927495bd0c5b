"""Task files and the prompts they build: exact sentences, balance, retries, and refusals."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_tokenizers import byte_bpe, stand_in

from interp import tasks
from interp.errors import InterpError
from interp.prompts.tokens import usable_ids

WORD_TASKS = ("binding", "color-noun", "color-noun-es", "ioi")
TABLE_TASKS = ("agreement", "agreement-es", "gender", "gender-es", "greater-than", "greater-than-es")
RUNGS = [(name, rung.name) for name in WORD_TASKS for rung in tasks.load(name).rungs]


@pytest.fixture(scope="session")
def whole_words():
    """A byte-level BPE in which each word of the lexicons is one token, accents included."""
    words = {word for name in WORD_TASKS for words in tasks.load(name).lexicon.values() for word in words}
    tokenizer = byte_bpe([f" {word}" for word in sorted(words)] * 20, 4000)
    assert len(tokenizer(" pájaro")["input_ids"]) == 1
    return stand_in(tokenizer)


@pytest.fixture(scope="session")
def split_words():
    """Every byte is a token: no word is whole, and words of unequal length do not line up."""
    return stand_in(byte_bpe(["x"], 257), n_ctx=1024)


def write_task(folder: Path, **changes: object) -> Path:
    """A small valid task file; a key set to None is left out, `rung` changes its only rung."""
    rung = {
        "name": "recall",
        "description": "One colour.",
        "template": "The {noun} is {color}. The {noun:asked} is",
        "answer": " {color}",
        "corrupted": {"other": "color"},
        "main": True,
        **changes.pop("rung", {}),
    }
    content = {
        "name": "mine",
        "language": "en",
        "title": "Mine",
        "question": "Is it?",
        "source": "This test.",
        "lexicon": {"color": ["red", "blue"], "noun": ["cat", "dog"]},
        "rungs": [{key: value for key, value in rung.items() if value is not None}],
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    return path


# Bundled tasks


def test_the_bundled_tasks_load_and_say_where_they_come_from():
    assert set(tasks.names()) == {*WORD_TASKS, *TABLE_TASKS, "induction"}
    for name in tasks.names():
        task = tasks.load(name)
        assert task.name == name
        assert task.question.endswith("?")
        assert len(task.source) > 40
        assert all(rung.description for rung in task.rungs)
    assert "arXiv:2211.00593" in tasks.load("ioi").source
    assert "swapped-subject" in tasks.load("ioi").source


@pytest.mark.parametrize("name", ["color-noun", "color-noun-es"])
def test_the_ladder_is_in_order_and_two_is_the_main_rung(name):
    task = tasks.load(name)
    assert [rung.name for rung in task.rungs] == ["recall", "repeated_frame", "two", "three"]
    assert task.main.name == "two"
    assert task.answer_policy == "first_differing"
    assert task.main.roles == (
        "color",
        "noun",
        "after_noun",
        "clause_end",
        "color_other",
        "noun_other",
        "asked",
        "answer",
    )


@pytest.mark.parametrize(
    ("name", "words", "first", "second"),
    [
        (
            "color-noun-es",
            {"color": "negro", "noun": "gato", "color_other": "rojo", "noun_other": "perro"},
            "Me encanta el color negro, espero algún día tener un gato así. "
            "No me gusta el color rojo, no quiero tener un perro así. El gato es",
            "Me encanta el color rojo, espero algún día tener un perro así. "
            "No me gusta el color negro, no quiero tener un gato así. El gato es",
        ),
        (
            "color-noun",
            {"color": "black", "noun": "cat", "color_other": "red", "noun_other": "dog"},
            "I love the color black, and I hope to have a cat like that one day. "
            "I do not like the color red, and I do not want a dog like that. The cat is",
            "I love the color red, and I hope to have a dog like that one day. "
            "I do not like the color black, and I do not want a cat like that. The cat is",
        ),
    ],
)
def test_the_founding_sentences_are_exact(name, words, first, second):
    templates = tasks.load(name).main.templates
    assert templates["first"].render(words).text == first
    assert templates["second"].render(words).text == second
    assert templates["first"].render(words).answer == f" {words['color']}"


@pytest.mark.parametrize("name", ["color-noun", "color-noun-es", "binding", "ioi"])
def test_the_words_and_frames_are_those_of_mini(name):
    corpus = yaml.safe_load((Path(tasks.__file__).parents[1] / "mini/corpus.yaml").read_text(encoding="utf-8"))
    task = tasks.load(name)
    grammar = corpus["languages"][task.language]
    lists = {
        "color": grammar["colors"],
        "noun": grammar["nouns"],
        "person": grammar["people"],
        "io": grammar["people"],
        "s1": grammar["people"],
        "place": grammar["places"],
        "object": grammar["things"],
        "filler": grammar["fillers"],
    }
    for slot, words in task.lexicon.items():
        assert set(words) <= set(lists[slot.split("_")[0]]), slot
    spelled = " ".join(str(frame) for family in grammar["families"].values() for frame in family)
    spelled += " ".join(grammar["ioi"])
    for rung in task.rungs:
        first = next(iter(rung.templates.values()))
        frame = first.render({slot: "{" + slot + "}" for slot in first.slots}).text
        for mine, theirs in (
            *(("{noun}", "{n0}"), ("{color}", "{c0}"), ("{noun_other}", "{n1}"), ("{color_other}", "{c1}")),
            *(("{noun_third}", "{n2}"), ("{color_third}", "{c2}"), ("{person}", "{p0}"), ("{person_other}", "{p1}")),
            *(("{place}", "{w0}"), ("{place_other}", "{w1}"), ("{object}", "{t0}")),
            *(("{io}", "{p0}"), ("{s1}", "{p1}"), ("{s2}", "{p1}")),
        ):
            frame = frame.replace(mine, theirs)
        question = {"en": " The {n0} is", "es": " El {n0} es"}[task.language]
        assert frame.removesuffix(question) in spelled, frame


# Building


@pytest.mark.parametrize(("name", "rung"), RUNGS)
@pytest.mark.parametrize("words", ["whole_words", "split_words"])
def test_every_rung_builds_what_was_asked_for(name, rung, words, request):
    model = request.getfixturevalue(words)
    pairs = tasks.build(name, rung, tokenizer=model, n=12, seed=3)
    assert len(pairs) == 12
    assert len(set(pairs.clean.texts)) == 12
    assert (pairs.task, pairs.name) == (name, rung)
    assert pairs.roles == tuple(role for role in tasks.load(name).rung(rung).roles)
    assert (pairs.clean.ids[:, 0] == 0).all()
    assert (pairs.clean.ids[:, 1:] != 0).sum() == (pairs.clean.lengths - 1).sum()  # one BOS, never a second
    if words == "whole_words":
        assert not pairs.drops
        assert [tokens[-1] for tokens in pairs.correct_tokens] == pairs.correct.tolist()
    for i in range(12):
        for role in pairs.roles[:-1]:
            start, stop = pairs.clean.spans(role)[i]
            if role == "after_noun":
                assert (start, stop) == (pairs.clean.spans("noun")[i, 1], start + 1)
                continue
            word = {**pairs.slots[i], "clause_end": "."}[{"asked": "noun"}.get(role, role)]
            assert model.tokenizer.decode(pairs.clean.ids[i, start:stop]).strip() == word
        assert pairs.answers[i].strip() == pairs.slots[i].get("color", pairs.slots[i].get("io"))


@pytest.mark.parametrize("rung", ["two", "three"])
def test_corrupted_swaps_the_colours_and_nothing_else(whole_words, rung):
    pairs = tasks.build("color-noun-es", rung, tokenizer=whole_words, n=10, seed=0)
    for pair in pairs:
        color, other = pair.slots["color"], pair.slots["color_other"]
        swapped = pair.clean.replace(color, "#").replace(other, color).replace("#", other)
        assert pair.corrupted == swapped
        assert pair.corrupted != pair.clean
        assert (pair.correct, pair.incorrect) == (f" {color}", f" {other}")


def test_corrupted_recall_has_another_colour(whole_words):
    for pair in tasks.build("color-noun", "recall", tokenizer=whole_words, n=10):
        color = pair.slots["color"]
        other = pair.corrupted_slots["color"]
        assert other != color
        assert pair.corrupted == pair.clean.replace(color, other)
        assert pair.incorrect == f" {other}"


def test_words_and_questions_are_balanced(whole_words):
    pairs = tasks.build("color-noun", "two", tokenizer=whole_words, n=48)
    assert Counter(pairs.variants) == {"first": 24, "second": 24}
    assert pairs.variants[:4] == ("first", "second", "first", "second")
    for slot, least, most in (("color", 4, 5), ("color_other", 4, 6), ("noun", 2, 2), ("noun_other", 1, 3)):
        counts = Counter(slots[slot] for slots in pairs.slots)
        assert least <= min(counts.values()) <= max(counts.values()) <= most, slot
    for ask in ("first", "second"):
        colors = Counter(s["color"] for s, v in zip(pairs.slots, pairs.variants, strict=True) if v == ask)
        assert max(colors.values()) <= 4
    recall = tasks.build("color-noun", "recall", tokenizer=whole_words, n=40)
    assert max(Counter(slots["color"] for slots in recall.corrupted_slots).values()) <= 5


def test_words_within_a_prompt_are_all_different(whole_words):
    pairs = tasks.build("binding", "list", tokenizer=whole_words, n=30)
    assert all(len(set(slots.values())) == 6 for slots in pairs.slots)
    assert Counter(pairs.variants) == {"first": 10, "second": 10, "third": 10}


def test_the_seed_fixes_the_draw(whole_words):
    make = lambda seed: tasks.build("color-noun", tokenizer=whole_words, n=8, seed=seed).sha256()  # noqa: E731
    assert make(1) == make(1)
    assert make(1) != make(2)


def test_a_task_states_its_policy_and_build_can_override_it(split_words):
    assert tasks.build("color-noun", "recall", tokenizer=split_words, n=2).answer_policy == "first_differing"
    pairs = tasks.build("color-noun", "recall", tokenizer=split_words, n=2, answer_policy="sum_logprob")
    assert pairs.answer_policy == "sum_logprob"
    with pytest.raises(InterpError, match=r'No pair of rung .recall. .* tokens .* answer_policy is "single"; choose'):
        tasks.build("color-noun", "recall", tokenizer=split_words, n=2, answer_policy="single")


def test_pairs_that_cannot_line_up_are_replaced_by_others(tmp_path, split_words):
    colors = ["red", "tan", "yellow"]  # "yellow" has no partner of its length
    path = write_task(
        tmp_path, answer_policy="first_differing", lexicon={"color": colors, "noun": ["cat", "dog", "bird"]}
    )
    pairs = tasks.build(tasks.load(path), tokenizer=split_words, n=6)
    assert len(pairs) == 6  # every noun in red and in tan
    assert {slots["color"] for slots in pairs.slots} == {"red", "tan"}
    assert {drop.kind for drop in pairs.drops} == {"length"}
    assert all("equal token counts" in drop.reason for drop in pairs.drops)
    assert any("yellow" in drop.clean_text + drop.corrupted_text for drop in pairs.drops)


def test_a_shortfall_ends_the_drop_log(tmp_path, whole_words):
    pairs = tasks.build(tasks.load(write_task(tmp_path)), tokenizer=whole_words, n=10)
    assert sorted(pairs.clean.texts) == [
        "The cat is blue. The cat is",
        "The cat is red. The cat is",
        "The dog is blue. The dog is",
        "The dog is red. The dog is",
    ]
    assert pairs.drops[-1].kind == "shortfall"
    assert pairs.drops[-1].index == -1
    assert pairs.drops[-1].reason.startswith("10 pairs were asked for and 4 different ones could be built")


def test_no_pair_at_all_is_one_line_with_the_reasons(tmp_path, split_words, whole_words):
    path = write_task(tmp_path, answer_policy="first_differing", lexicon={"color": ["red", "yellow"], "noun": ["cat"]})
    with pytest.raises(InterpError, match=r"No pair of rung 'recall' of task 'mine' can be built") as caught:
        tasks.build(tasks.load(path), tokenizer=split_words, n=5)
    assert "equal token counts" in str(caught.value)
    assert "\n" not in str(caught.value)
    path = write_task(
        tmp_path,
        lexicon={"color": ["red"], "noun": ["cat"], "other": ["red"]},
        rung={
            "template": "The {other} {noun} is {color}. The {noun:asked} is",
            "corrupted": {"copy": {"color": "other"}},
        },
    )
    with pytest.raises(InterpError, match="The lexicon has too few words"):
        tasks.build(tasks.load(path), tokenizer=whole_words, n=5)


def test_a_prompt_longer_than_the_context_is_refused(whole_words):
    short = stand_in(whole_words.tokenizer, n_ctx=12)
    with pytest.raises(InterpError, match=r'Prompt \d+ \("I love the color .*\) has \d+ tokens, .* at most 12'):
        tasks.build("color-noun", "two", tokenizer=short, n=4)


# IOI


def test_ioi_has_both_orders_and_swaps_the_subject(whole_words):
    pairs = tasks.build("ioi", "when", tokenizer=whole_words, n=16)
    assert Counter(pairs.variants) == {"ABBA": 8, "BABA": 8}
    for pair in pairs:
        io, s, place, thing = (pair.slots[slot] for slot in ("io", "s1", "place", "object"))
        names = f"{io} and {s}" if pair.variant == "ABBA" else f"{s} and {io}"
        assert pair.clean == f"When {names} went to {place}, {s} gave {thing} to"
        assert pair.corrupted == f"When {names} went to {place}, {io} gave {thing} to"
        assert (pair.correct, pair.incorrect) == (f" {io}", f" {s}")
        assert io != s
    different = pairs.clean.ids != pairs.corrupted.ids
    assert different.sum(axis=1).tolist() == [1] * 16
    assert different.argmax(axis=1).tolist() == pairs.clean.role_positions("s2").tolist()


# Induction


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_induction_repeats_a_block_and_replaces_the_token_to_copy(whole_words, with_tokenizer):
    model = whole_words if with_tokenizer else stand_in(None, bos=7, vocab=40)
    bos = model.bos_token_id
    pairs = tasks.build("induction", "block_8", tokenizer=model, n=10)
    allowed = set(usable_ids(model))
    assert pairs.clean.ids.shape == (10, 13)
    assert pairs.clean.bos == "prepended"
    assert pairs.roles == ("copied", "previous", "answer")
    for i, (row, other) in enumerate(zip(pairs.clean.ids.tolist(), pairs.corrupted.ids.tolist(), strict=True)):
        assert row[0] == bos
        block, again = row[1:9], row[9:]
        assert again == block[:4]
        assert len(set(block)) == 8
        assert set(block) <= allowed
        assert pairs.correct[i] == block[4]
        assert pairs.incorrect[i] == other[5]
        assert other[5] not in row
        assert other[:5] + other[6:] == row[:5] + row[6:]
    assert pairs.clean.spans("copied").tolist() == [[5, 6]] * 10
    assert pairs.clean.spans("previous").tolist() == [[4, 5]] * 10
    assert pairs.answer_position.tolist() == [12] * 10
    assert pairs.aligned_positions


def test_induction_works_without_a_bos():
    pairs = tasks.build("induction", "block_8", tokenizer=stand_in(None, bos=None, policy="none", vocab=9), n=3)
    assert pairs.clean.ids.shape == (3, 12)
    assert pairs.clean.bos == "none"
    assert pairs.clean.spans("copied").tolist() == [[4, 5]] * 3


def test_induction_says_when_the_vocabulary_or_the_context_is_too_small():
    small = stand_in(None, bos=0, vocab=9)
    with pytest.raises(InterpError, match=r"needs 9 different tokens, but the vocabulary has 8 that are not special"):
        tasks.build("induction", "block_8", tokenizer=small, n=1)
    with pytest.raises(InterpError, match=r"Prompt 0 has 76 tokens, but the model reads at most 64"):
        tasks.build("induction", "block_50", tokenizer=stand_in(None, vocab=90, n_ctx=64), n=1)


def test_induction_reports_a_shortfall(tmp_path):
    path = write_task(
        tmp_path,
        kind="random_tokens",
        lexicon=None,
        rungs=[{"name": "tiny", "description": "Two tokens.", "block": 2, "main": True}],
    )
    model = stand_in(None, bos=None, policy="none", vocab=3)
    pairs = tasks.build(tasks.load(path), tokenizer=model, n=50)
    assert sorted(row[:2] for row in pairs.clean.rows()) == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert pairs.drops[-1].reason.startswith("50 pairs were asked for and 6 different ones could be built")


# Slots that are drawn together

AGREEMENT = {
    "name": "agreement",
    "language": "en",
    "title": "Agreement",
    "question": "Does the verb agree?",
    "source": "This test.",
    "lexicon": {
        "noun, verb, lemma": [
            ["key", "is", "KEY"], ["keys", "are", "KEY"], ["cat", "is", "CAT"], ["cats", "are", "CAT"],
            ["dog", "is", "DOG"], ["dogs", "are", "DOG"],
        ],
        "near": ["cabinet", "cabinets", "box"],
    },
    "rungs": [
        {
            "name": "near",
            "description": "A noun between subject and verb.",
            "main": True,
            "template": "The {noun} near the {near}",
            "answer": " {verb}",
            "corrupted": {"other": "verb", "keep": "lemma"},
        }
    ],
}  # fmt: skip
VERB = {"key": "is", "keys": "are", "cat": "is", "cats": "are", "dog": "is", "dogs": "are"}
PARTNER = {"key": "keys", "cat": "cats", "dog": "dogs", "keys": "key", "cats": "cat", "dogs": "dog"}


@pytest.fixture(scope="session")
def agreeing():
    """A tokenizer for which every word of AGREEMENT is one token."""
    words = {*VERB, *VERB.values(), "cabinet", "cabinets", "box", "The", "near", "the"}
    return stand_in(byte_bpe([f" {word}" for word in sorted(words)] * 20, 600))


def agreement(**rung: object) -> dict[str, object]:
    return {**AGREEMENT, "rungs": [{**AGREEMENT["rungs"][0], **rung}]}


def test_a_row_is_drawn_whole_and_another_row_corrupts_it(agreeing):
    pairs = tasks.build(agreement(), tokenizer=agreeing, n=18)
    assert len(pairs) == 18
    assert pairs.drops == ()
    for pair in pairs:
        noun, near = pair.clean.split()[1], pair.clean.split()[-1]
        assert pair.clean == f"The {noun} near the {near}"
        assert pair.corrupted == f"The {PARTNER[noun]} near the {near}"
        assert (pair.correct, pair.incorrect) == (f" {VERB[noun]}", f" {VERB[PARTNER[noun]]}")
    assert set(Counter(slots["noun"] for slots in pairs.slots).values()) == {3}
    assert set(Counter(slots["near"] for slots in pairs.slots).values()) == {6}


def test_another_row_differs_in_the_slot_that_is_named(agreeing):
    pairs = tasks.build(agreement(corrupted={"other": "verb"}), tokenizer=agreeing, n=18)
    nouns = [(slots["noun"], other["noun"]) for slots, other in zip(pairs.slots, pairs.corrupted_slots, strict=True)]
    assert all(VERB[one] != VERB[other] for one, other in nouns)
    assert any(PARTNER[one] != other for one, other in nouns)
    assert pairs.drops == ()
    anything = tasks.build(agreement(corrupted={"other": "noun"}), tokenizer=agreeing, n=12)
    assert {drop.kind for drop in anything.drops} == {"answer"}  # rows with the same verb, which ask nothing


def test_a_word_of_the_row_may_be_copied_or_answer_though_no_template_shows_it(agreeing):
    lexicon = {"start, later, earlier, low": [["cat", "dog", "key", "box"], ["cats", "dogs", "keys", "cabinet"]]}
    content = agreement(
        template="The near the {start}",
        answer=" {later}",
        incorrect_answer=" {earlier}",
        corrupted={"copy": {"start": "low"}},
    )
    pairs = tasks.build({**content, "lexicon": lexicon}, tokenizer=agreeing, n=2)
    found = {(pair.clean, pair.corrupted, pair.correct, pair.incorrect) for pair in pairs}
    assert found == {
        ("The near the cat", "The near the box", " dog", " key"),
        ("The near the cats", "The near the cabinet", " dogs", " keys"),
    }


def test_two_tables_with_one_kind_of_words_never_hold_one_word_twice(agreeing):
    rows = AGREEMENT["lexicon"]["noun, verb, lemma"]
    lexicon = {"noun, verb, lemma": rows, "near, near_verb": [row[:2] for row in rows]}
    pairs = tasks.build({**agreement(), "lexicon": lexicon}, tokenizer=agreeing, n=20)
    for slots, other in zip(pairs.slots, pairs.corrupted_slots, strict=True):
        assert slots["near"] not in (slots["noun"], other["noun"])


@pytest.fixture(scope="session")
def words_of_tables():
    """A tokenizer for which every word of the tasks with tables is one token, and every digit."""
    slots = (slot for name in TABLE_TASKS for slot in tasks.load(name).lexicon.values())
    words = {part for words in slots for word in words for part in word.split() if not part.isdigit()}
    return stand_in(byte_bpe([f" {word}" for word in sorted(words)] * 20, 4000))


@pytest.mark.parametrize(
    ("name", "rung"), [(name, rung.name) for name in TABLE_TASKS for rung in tasks.load(name).rungs]
)
def test_every_rung_of_a_task_with_tables_builds_pairs_that_differ_in_one_way(name, rung, words_of_tables):
    pairs = tasks.build(name, rung, tokenizer=words_of_tables, n=24, seed=1)
    assert len(pairs) == 24
    assert pairs.drops == ()
    source = pairs.roles[0] if pairs.roles[0] != "event" else "start"
    for i, pair in enumerate(pairs):
        different = np.flatnonzero(pairs.clean.ids[i] != pairs.corrupted.ids[i])
        start, stop = pairs.clean.spans(source)[i]
        assert ((start <= different) & (different < stop)).all()
        assert pair.correct != pair.incorrect
    right = Counter(pairs.answers)
    if not name.startswith("greater"):
        assert min(right.values()) >= 11  # of 24: both answers are right about equally often


@pytest.mark.parametrize("rung", ["plain", "attractor", "clause"])
def test_verbs_agree_with_their_subject_and_not_with_the_noun_between(rung, words_of_tables):
    for pair in tasks.build("agreement", rung, tokenizer=words_of_tables, n=24):
        subject, between = pair.clean.split()[1], pair.clean.split()[-1]
        assert pair.correct == (" are" if subject.endswith("s") else " is")
        assert {pair.correct, pair.incorrect} == {" is", " are"}
        assert {subject, pair.corrupted.split()[1]} == {subject.rstrip("s"), subject.rstrip("s") + "s"}
        if rung != "plain":
            assert between.endswith("s") != subject.endswith("s")
    for pair in tasks.build("agreement-es", rung, tokenizer=words_of_tables, n=24):
        article, subject = pair.clean.split()[2:4]
        assert pair.correct == (" son" if article in ("los", "las") else " es")
        assert subject.endswith("s") == (pair.correct == " son")
        if rung != "plain":
            assert (pair.clean.split()[-2] in ("los", "las")) != (pair.correct == " son")


@pytest.mark.parametrize("rung", ["reason", "clause", "far"])
def test_a_pronoun_has_the_gender_of_the_name(rung, words_of_tables):
    women = {"Mary", "Anna", "Sarah", "Laura", "Emma", "Lucy", "Alice", "Kate"}
    for pair in tasks.build("gender", rung, tokenizer=words_of_tables, n=24):
        name, other = pair.clean.split()[1], pair.corrupted.split()[1]
        assert (pair.correct == " she") == (name in women)
        assert (pair.incorrect == " she") == (other in women)


def test_an_adjective_has_the_gender_of_its_noun(words_of_tables):
    for pair in tasks.build("gender-es", "attractor", tokenizer=words_of_tables, n=24):
        words = pair.clean.split()
        assert pair.correct == {"el": " nuevo", "la": " nueva"}[words[2]]
        assert words[2] != words[5]  # the noun between has the other article
        assert pair.corrupted.split()[2] == words[5]


@pytest.mark.parametrize("name", ["greater-than", "greater-than-es"])
def test_the_right_year_is_later_and_the_wrong_one_is_not_but_in_corrupted(name, words_of_tables):
    for pair in tasks.build(name, tokenizer=words_of_tables, n=24):
        years = [int(re.findall(r"\d\d(\d\d)", text)[0]) for text in (pair.clean, pair.corrupted)]
        right, wrong = int(pair.correct), int(pair.incorrect)
        assert years[1] < wrong < years[0] < right < 100


def test_tasks_of_independent_slots_draw_what_they_always_drew(whole_words):
    pairs = tasks.build("color-noun", "repeated_frame", tokenizer=whole_words, n=3, seed=0)
    assert [(pair.clean, pair.corrupted) for pair in pairs] == [
        ("The horse is green. The horse is", "The horse is gray. The horse is"),
        ("The cup is purple. The cup is", "The cup is white. The cup is"),
        ("The fish is brown. The fish is", "The fish is purple. The fish is"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lexicon": {"noun, verb": [["key"]]}}, r"lexicon of noun, verb holds \['key'\]\. Give rows of 2 words: \["),
        ({"lexicon": {"noun, verb": ["key"]}}, r"lexicon of noun, verb holds 'key'\. Give rows of 2 words"),
        ({"lexicon": {"noun, verb": [["key", 3]]}}, r"lexicon of noun, verb holds 3\. Give words; quote"),
        ({"lexicon": {"noun, verb": [["key", "is"], ["key", "are"]]}}, r"holds 'key' twice in its first column"),
        ({"lexicon": {"noun, verb": [["key", "is"]], "verb": ["is"]}}, r"lexicon has the slot 'verb' twice"),
        ({"lexicon": {"noun, noun": [["key", "is"]]}}, r"lexicon has the slot 'noun' twice"),
        (
            {"rung": {"corrupted": {"other": "color", "keep": "noun"}}},
            r"Unknown column to keep 'noun' in rung 'recall'",
        ),
        ({"rung": {"corrupted": {"keep": "color"}}}, r"needs exactly one of other, swap, copy"),
        ({"rung": {"corrupted": {"swap": ["color", "noun"], "keep": "noun"}}}, r"keep in .* goes with other alone"),
    ],
)
def test_a_table_with_a_mistake_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(InterpError, match=message) as caught:
        tasks.load(write_task(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_task_given_as_a_mapping_is_read_as_its_file_would_be():
    assert tasks.load(agreement()).name == "agreement"
    with pytest.raises(InterpError, match=r"Unknown key 'langauge' in the task of the given mapping"):
        tasks.load({**AGREEMENT, "langauge": "en"})
    with pytest.raises(InterpError, match="the given mapping holds what YAML cannot"):
        tasks.load({**AGREEMENT, "title": object()})


# Refusals


def test_unknown_names_come_with_the_nearest(whole_words):
    with pytest.raises(InterpError, match=r"Unknown task 'colour-noun'\. Did you mean 'color-noun'"):
        tasks.load("colour-noun")
    with pytest.raises(InterpError, match=r"Unknown rung 'tow' of task 'color-noun'\. Did you mean 'two'"):
        tasks.build("color-noun", "tow", tokenizer=whole_words)
    with pytest.raises(InterpError, match=r"n is 0\. Ask for at least one pair"):
        tasks.build("color-noun", tokenizer=whole_words, n=0)
    with pytest.raises(InterpError, match="This model has no tokenizer"):
        tasks.build("color-noun", tokenizer=stand_in(None, vocab=9), n=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"langauge": "en"}, r"Unknown key 'langauge' in the task of mine\.yaml\. Did you mean 'language'"),
        ({"title": None}, r"mine\.yaml: the task has no title\. Add it"),
        ({"title": 3}, r"mine\.yaml: title of the task must be text, not 3"),
        ({"rungs": []}, r"mine\.yaml: rungs must be a list with at least one item"),
        ({"kind": "word"}, r"Unknown kind 'word' in the task of mine\.yaml\. Did you mean 'words'"),
        ({"answer_policy": "sum"}, r"Unknown answer_policy 'sum' .* Did you mean 'sum_logprob'"),
        ({"lexicon": {"color": ["red", True], "noun": ["cat"]}}, r"lexicon of color holds True\. Give words; quote"),
        ({"lexicon": {"color": ["red", "red"], "noun": ["cat"]}}, r"lexicon of color holds 'red' twice"),
        ({"lexicon": ["red"]}, r"mine\.yaml: lexicon must be a mapping"),
        ({"rung": {"main": False}}, r"mine\.yaml: exactly one rung must say main: true"),
        ({"rung": {"main": "yes"}}, r"main of rung 'recall' must be true or false, not 'yes'"),
        (
            {"rung": {"tempalte": "x"}},
            r"Unknown key 'tempalte' in rung 'recall' of mine\.yaml\. Did you mean 'template'",
        ),
        ({"rung": {"answer": None}}, r"rung 'recall' has no answer\. Add it"),
        ({"rung": {"template": None}}, r"rung 'recall' needs either template or templates"),
        ({"rung": {"template": "The {noun is"}}, r"mine\.yaml: rung 'recall': Braces in template .* do not match"),
        ({"rung": {"template": "{colour} {noun}"}}, r"Unknown slot 'colour' in rung 'recall' .* Did you mean 'color'"),
        ({"rung": {"answer": " {colr}"}}, r"Unknown slot 'colr' in rung 'recall' .* Did you mean 'color'"),
        ({"rung": {"roles": ["noun", "askd"]}}, r"Unknown role 'askd' in rung 'recall' .* Did you mean 'asked'"),
        ({"rung": {"corrupted": {"othr": "color"}}}, r"Unknown key 'othr' in corrupted of rung 'recall' .*'other'"),
        ({"rung": {"corrupted": {}}}, r"corrupted of rung 'recall' needs exactly one of other, swap, copy"),
        ({"rung": {"corrupted": {"other": "colour"}}}, r"Unknown slot 'colour' in rung 'recall' .*'color'"),
        ({"rung": {"corrupted": {"swap": ["color"]}}}, r"swap of rung 'recall' must name two slots"),
        ({"rung": {"incorrect_answer": " {nuon}"}}, r"Unknown slot 'nuon' in incorrect_answer of rung 'recall'"),
        (
            {"kind": "random_tokens"},
            r"Unknown key '\w+' in rung 'recall' of mine\.yaml\. Choose from: name, description, block, main",
        ),
    ],
)
def test_a_task_file_with_a_mistake_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(InterpError, match=message) as caught:
        tasks.load(write_task(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_two_rungs_with_one_name_are_refused(tmp_path):
    content = yaml.safe_load(write_task(tmp_path).read_text())
    content["rungs"] *= 2
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InterpError, match=r"two rungs share a name \(recall, recall\)"):
        tasks.load(tmp_path / "mine.yaml")


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(InterpError, match=r"Cannot read .*none\.yaml: No such file or directory"):
        tasks.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: }")
    with pytest.raises(InterpError, match=r"bad\.yaml is not valid YAML") as caught:
        tasks.load(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)
