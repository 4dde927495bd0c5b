"""Templates, pairs that line up, and the three answer policies, on ids written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_tokenizers import byte_bpe, pieces, stand_in

from interp.errors import InterpError
from interp.prompts import Drop, PromptPairs, Template

#            1      2       3      4    5     6     7      8         9       10      11      12     13
TOKENS = ("The", " cat", " is", ".", " r", "ed", "ose", " black", " white", " The", " dog", " te", "al")
FRAME = Template("The {noun} is {color}. The {noun} is", answer=" {color}")


@pytest.fixture
def model():
    return stand_in(pieces(*TOKENS))


def build(model, clean, corrupted, template=FRAME, **options):
    """Pairs whose noun is a cat, from the colours of clean and corrupted."""
    fill = [[{"noun": "cat", "color": color} for color in colors] for colors in (clean, corrupted)]
    return PromptPairs.from_template(template, clean=fill[0], corrupted=fill[1], tokenizer=model, **options)


# Templates


def test_a_repeated_slot_gets_numbered_roles_and_a_renamed_one_its_own():
    template = Template("{noun} {noun:asked} {noun} {color} {noun}", answer=" {color}")
    assert template.roles == ("noun", "asked", "noun@2", "color", "noun@3")
    assert template.slots == ("noun", "color")
    assert template.roles_of("noun") == ("noun", "asked", "noun@2", "noun@3")


def test_rendering_gives_text_answer_and_the_characters_of_every_role():
    rendered = FRAME.render({"noun": "gato", "color": "marrón"})
    assert rendered.text == "The gato is marrón. The gato is"
    assert rendered.answer == " marrón"
    assert rendered.roles == {"noun": (4, 8), "color": (12, 18), "noun@2": (24, 28)}


def test_doubled_braces_are_plain():
    assert Template("{{x}} is {a}", answer="").render({"a": "b"}).text == "{x} is b"


@pytest.mark.parametrize(
    ("text", "answer", "message"),
    [
        ("The {noun is", "", r'Braces in template "The \{noun is" do not match'),
        ("The noun} is", "", r'Braces in template "The noun\} is" do not match'),
        ("The {noun}", " {color", r'Braces in template " *\{color" do not match'),
        ("The {} is", "", r"Slot \{\} of template .* needs a name"),
        ("The {noun!r} is", "", r"Slot \{noun!r\} of template .* needs a name"),
        ("The {noun.x} is", "", r"Slot \{noun.x\} of template .* needs a name"),
        ("The {noun:2} is", "", r"Slot \{noun:2\} of template .* needs a name"),
        ("{a:b} {c:b}", "", r"Two places of template .* have the role 'b'\. Rename one"),
        ("{a:noun} {noun}", "", r"Two places of template .* have the role 'noun'"),
        ("The {answer} is", "", r'Role "answer" in template "The \{answer\} is" is reserved'),
    ],
)
def test_a_malformed_template_is_refused_when_it_is_made(text, answer, message):
    with pytest.raises(InterpError, match=message):
        Template(text, answer)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"noun": "cat"}, r"Slot 'color' of template \"The \{noun\}.*\" is missing; given: noun\. Add 'color'"),
        ({"noun": "cat", "colour": "red"}, r"Unknown slot 'colour' of template .* Did you mean 'color'"),
        ({"noun": "", "color": "red"}, r"Slot 'noun' is ''\. Give it at least one word"),
        ({"noun": " ", "color": "red"}, r"Slot 'noun' is ' '\. Give it"),
        ({"noun": 3, "color": "red"}, r"Slot 'noun' is 3\. Give it"),
    ],
)
def test_slots_that_do_not_fit_are_named(slots, message):
    with pytest.raises(InterpError, match=message):
        FRAME.render(slots)


def test_a_message_says_which_prompt_lacks_the_slot(model):
    with pytest.raises(InterpError, match=r"Slot 'color' .* is missing in corrupted prompt 1"):
        PromptPairs.from_template(
            FRAME,
            clean=[{"noun": "cat", "color": "black"}] * 2,
            corrupted=[{"noun": "cat", "color": "white"}, {"noun": "cat"}],
            tokenizer=model,
        )


# Pairs


def test_the_readme_example_by_hand(model):
    pairs = PromptPairs.from_template(
        Template("The {noun} is {color}. The {noun} is", answer=" {color}"),
        clean=[{"noun": "cat", "color": "black"}],
        corrupted=[{"noun": "cat", "color": "white"}],
        tokenizer=model,
    )
    assert pairs.clean.ids.tolist() == [[0, 1, 2, 3, 8, 4, 10, 2, 3]]
    assert pairs.corrupted.ids.tolist() == [[0, 1, 2, 3, 9, 4, 10, 2, 3]]
    assert pairs.correct.tolist() == [8]
    assert pairs.incorrect.tolist() == [9]  # the corrupted prompt's own answer
    assert pairs.answer_position.tolist() == [8]
    assert pairs.roles == ("noun", "color", "noun@2", "answer")
    spans = {role: pairs.clean.spans(role)[0].tolist() for role in pairs.roles}
    assert spans == {"noun": [2, 3], "color": [4, 5], "noun@2": [7, 8], "answer": [8, 9]}
    assert pairs.answer_policy == "single"
    assert pairs.correct_tokens == ((8,),)
    assert pairs.aligned_positions
    assert not pairs.drops


def test_a_pair_can_be_read(model):
    pair = build(model, ["black"], ["white"])[0]
    assert pair.clean == "The cat is black. The cat is"
    assert pair.corrupted == "The cat is white. The cat is"
    assert (pair.correct, pair.incorrect) == (" black", " white")
    assert pair.corrupted_slots == {"noun": "cat", "color": "white"}


def test_the_incorrect_answer_can_be_given_with_words_of_the_clean_prompt(model):
    pairs = PromptPairs.from_template(
        FRAME,
        clean=[{"noun": "cat", "color": "black", "wrong": "dog"}],
        corrupted=[{"noun": "cat", "color": "white"}],
        tokenizer=model,
        incorrect_answer=" {wrong}",
    )
    assert pairs.incorrect.tolist() == [11]
    assert pairs.incorrect_answers == (" dog",)


def test_unequal_lengths_are_dropped_with_the_counts_and_the_role(model):
    pairs = build(model, ["black", "black"], ["red", "white"])
    assert len(pairs) == 1
    assert pairs.corrupted_slots[0]["color"] == "white"
    assert pairs.drops == (
        Drop(
            0,
            "clean and corrupted must have equal token counts, but have 9 and 10 (color 1 and 2); "
            "choose words with the same number of tokens",
            "The cat is black. The cat is",
            "The cat is red. The cat is",
            "length",
        ),
    )


def test_unequal_lengths_raise_if_asked_to(model):
    message = r'Pair 1 \("The cat is black\. .*"\): .* but have 9 and 10 \(color 1 and 2\)'
    with pytest.raises(InterpError, match=message):
        build(model, ["black", "black"], ["white", "red"], on_misaligned="raise")


def test_equal_lengths_with_other_spans_are_dropped(model):
    template = Template("{a} and {b}", answer=" {a}")
    words = {"a": "The cat", "b": "dog"}, {"a": "The", "b": "cat dog"}
    tokenizer = stand_in(pieces("The", " cat", " dog", " and"))
    with pytest.raises(InterpError, match=r"role a is at positions 1 to 2 in clean and 1 to 1 in corrupted"):
        PromptPairs.from_template(template, clean=[words[0]], corrupted=[words[1]], tokenizer=tokenizer)


def test_pairs_that_do_not_differ_are_dropped(model):
    with pytest.raises(InterpError, match=r"None of the 1 pairs can be used\. .*the same tokens; change at least one"):
        build(model, ["black"], ["black"])


def test_a_difference_outside_the_stated_roles_is_dropped(model):
    clean, corrupted = {"noun": "cat", "color": "black"}, {"noun": "dog", "color": "white"}
    make = dict(clean=[clean], corrupted=[corrupted], tokenizer=model)
    with pytest.raises(InterpError, match=r"may differ only at color, but differ at position 2"):
        PromptPairs.from_template(FRAME, **make, differ_only_at=["color"])
    pairs = PromptPairs.from_template(FRAME, **make, differ_only_at=["color", "noun", "noun@2"])
    assert len(pairs) == 1
    with pytest.raises(InterpError, match=r"Unknown role 'colour'\. Did you mean 'color'"):
        PromptPairs.from_template(FRAME, **make, differ_only_at=["colour"])


def test_everything_dropped_names_the_first_three_reasons(model):
    with pytest.raises(InterpError) as caught:
        build(model, ["black"] * 4, ["red", "black", "rose", "red"])
    message = str(caught.value)
    assert message.startswith("None of the 4 pairs can be used. First reasons: pair 0: clean and corrupted must")
    assert "; pair 1: clean and corrupted are the same tokens" in message
    assert "; pair 2: clean and corrupted must" in message  # a second of a kind only after one of each
    assert message.endswith("(1 more).")
    assert "\n" not in message


def test_bad_calls_are_refused(model):
    with pytest.raises(InterpError, match="2 clean and 1 corrupted prompts"):
        build(model, ["black", "black"], ["white"])
    with pytest.raises(InterpError, match="There are no prompts: the list of texts is empty"):
        build(model, [], [])
    with pytest.raises(InterpError, match=r"Unknown answer policy 'first'\. Did you mean 'first_differing'"):
        build(model, ["black"], ["white"], answer_policy="first")
    with pytest.raises(InterpError, match=r"Unknown value of on_misaligned 'drp'\. Did you mean 'drop'"):
        build(model, ["black"], ["white"], on_misaligned="drp")


# Answers of several tokens


def test_single_refuses_an_answer_of_several_tokens_and_names_the_policies(model):
    with pytest.raises(InterpError) as caught:
        build(model, ["red"], ["rose"], on_misaligned="raise")
    assert str(caught.value) == (
        'Pair 0 ("The cat is red. The cat is"): answer " red" is 2 tokens (" r", "ed") and answer_policy is "single"; '
        'choose answer_policy="first_differing" or "sum_logprob", or a word of one token.'
    )


def test_single_also_refuses_when_only_the_incorrect_answer_is_long(model):
    with pytest.raises(InterpError, match=r'answer " red" is 2 tokens'):
        build(model, ["black"], ["white"], incorrect_answer=" red", on_misaligned="raise")


def test_first_differing_appends_what_both_answers_share(model):
    pairs = build(model, ["red"], ["rose"], answer_policy="first_differing")
    assert pairs.clean.ids.tolist() == [[0, 1, 2, 3, 5, 6, 4, 10, 2, 3, 5]]
    assert pairs.corrupted.ids.tolist() == [[0, 1, 2, 3, 5, 7, 4, 10, 2, 3, 5]]
    assert (pairs.correct.tolist(), pairs.incorrect.tolist()) == ([6], [7])
    assert pairs.answer_position.tolist() == [10]
    assert pairs.clean.spans("answer").tolist() == [[10, 11]]
    assert pairs.correct_tokens == ((5, 6),)
    assert pairs.clean.texts == ("The cat is red. The cat is r",)


def test_first_differing_appends_nothing_where_the_first_tokens_differ(model):
    pairs = build(model, ["red", "black"], ["teal", "white"], answer_policy="first_differing")
    assert pairs.clean.lengths.tolist() == [10, 9]
    assert (pairs.correct.tolist(), pairs.incorrect.tolist()) == ([5, 8], [12, 9])
    assert not pairs.aligned_positions


def test_sum_logprob_expands_into_one_set_per_answer(model):
    pairs = build(model, ["red", "black"], ["teal", "white"], answer_policy="sum_logprob")
    assert pairs.clean.lengths.tolist() == [10, 9]
    right, wrong = pairs.expand_answers()
    assert right.clean.rows() == [[0, 1, 2, 3, 5, 6, 4, 10, 2, 3, 5], [0, 1, 2, 3, 8, 4, 10, 2, 3]]
    assert right.corrupted.rows()[0] == [0, 1, 2, 3, 12, 13, 4, 10, 2, 3, 5]
    assert wrong.clean.rows()[0] == [0, 1, 2, 3, 5, 6, 4, 10, 2, 3, 12]
    assert (right.continuation, wrong.continuation) == (((5, 6), (8,)), ((12, 13), (9,)))
    assert right.answer_position.tolist() == [9, 8]
    assert right.clean.spans("answer").tolist() == [[9, 10], [8, 9]]
    assert right.select([1]).continuation == ((8,),)


def test_sum_logprob_appends_nothing_before_it_is_expanded(model):
    pairs = build(model, ["red"], ["rose"], answer_policy="sum_logprob")
    assert pairs.clean.lengths.tolist() == [10]
    right, wrong = pairs.expand_answers()
    assert (right.continuation, wrong.continuation) == (((5, 6),), ((5, 7),))
    assert right.clean.rows() == wrong.clean.rows() == [[0, 1, 2, 3, 5, 6, 4, 10, 2, 3, 5]]


def test_expand_answers_under_another_policy_is_the_one_scored_token(model):
    right, wrong = build(model, ["red"], ["rose"], answer_policy="first_differing").expand_answers()
    assert (right.continuation, wrong.continuation) == (((6,),), ((7,),))
    assert right.clean.lengths.tolist() == [11]


def test_an_answer_that_begins_the_other_is_dropped():
    model = stand_in(pieces("The", " r", "ed", " is", " x", " y", "."))
    template = Template("The {a} is", answer=" {b}")
    make = dict(clean=[{"a": "x", "b": "r"}], corrupted=[{"a": "y", "b": "red"}], tokenizer=model)
    for policy in ("first_differing", "sum_logprob"):
        with pytest.raises(InterpError, match=r'one of the answers " r" and " red" begins the other'):
            PromptPairs.from_template(template, **make, answer_policy=policy)


def test_equal_answers_are_dropped(model):
    with pytest.raises(InterpError, match=r'the correct and the incorrect answer are both " black"'):
        build(model, ["black"], ["white"], incorrect_answer=" black")


@pytest.mark.parametrize("tokens", [(" red", " rose"), (" r", "ed", "ose")])
def test_an_answer_that_melts_into_the_prompt_is_dropped(tokens):
    model = stand_in(pieces("The", " is", " ", *tokens))
    template = Template("The {color} is ", answer="{color}")  # the space would join the answer's first token
    with pytest.raises(InterpError, match=r'answer "red" does not begin at a token boundary after "The red is"'):
        PromptPairs.from_template(
            template,
            clean=[{"color": "red"}],
            corrupted=[{"color": "rose"}],
            tokenizer=model,
            answer_policy="sum_logprob",
        )


def test_forced_answer_tokens_count_towards_the_context():
    model = stand_in(pieces(*TOKENS), n_ctx=10)
    assert build(model, ["red"], ["teal"], answer_policy="first_differing").clean.lengths.tolist() == [10]
    with pytest.raises(InterpError, match=r"has 11 tokens, but the model reads at most 10 \(n_ctx\)"):
        build(model, ["red"], ["teal"], answer_policy="sum_logprob")
    with pytest.raises(InterpError, match=r"has 11 tokens, but the model reads at most 10 \(n_ctx\)"):
        build(model, ["red"], ["rose"], answer_policy="first_differing")


def test_a_split_word_with_accents_is_never_cut():
    tokenizer = byte_bpe(["x"], 257)  # every byte is a token, so "marrón" has seven, like "violeta"
    template = Template("Me encanta el color {color}. El {noun:asked} es", answer=" {color}")
    pairs = PromptPairs.from_template(
        template,
        clean=[{"color": "marrón", "noun": "día"}] * 2,
        corrupted=[{"color": "dorado", "noun": "día"}, {"color": "violeta", "noun": "día"}],
        tokenizer=stand_in(tokenizer),
        answer_policy="sum_logprob",
    )
    assert [drop.kind for drop in pairs.drops] == ["length"]  # six bytes against seven
    start, stop = pairs.clean.spans("color")[0]
    assert stop - start == 7
    assert tokenizer.decode(pairs.clean.ids[0, start:stop]) == "marrón"
    assert tokenizer.decode(pairs.correct_tokens[0]) == " marrón"


# From ids


def test_pairs_from_ids_by_hand():
    pairs = PromptPairs.from_tokens(
        [[7, 1, 2, 3], [7, 4, 2]],
        [[7, 9, 2, 3], [7, 9, 2]],
        correct=[5, 6],
        incorrect=8,
        roles={"color": 1, "before_last": -2},
    )
    assert pairs.clean.rows() == [[7, 1, 2, 3], [7, 4, 2]]
    assert pairs.clean.bos == "given"
    assert (pairs.correct.tolist(), pairs.incorrect.tolist()) == ([5, 6], [8, 8])
    assert pairs.answer_position.tolist() == [3, 2]
    assert pairs.corrupted.spans("before_last").tolist() == [[2, 3], [1, 2]]
    assert pairs.roles == ("color", "before_last", "answer")
    assert pairs.answers == ("#5", "#6")
    assert pairs.slots == ({}, {})
    assert pairs[1].clean == "7 4 2"


def test_the_answer_position_of_ids_can_be_inside_the_prompt():
    pairs = PromptPairs.from_tokens([[1, 2, 3]], [[4, 2, 3]], correct=[5], incorrect=[6], answer_position=1)
    assert pairs.answer_position.tolist() == [1]
    assert pairs.clean.spans("answer").tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupted": [[9, 2]]}, r"Pair 0: clean and corrupted must have equal token counts, but have 3 and 2"),
        ({"corrupted": [[1, 2, 3]]}, r"Pair 0: clean and corrupted are the same tokens"),
        ({"corrupted": [[9, 2, 3]] * 2}, r"1 clean and 2 corrupted prompts"),
        ({"correct": [6]}, r"Pair 0: correct and incorrect are both 6"),
        ({"correct": [1, 2]}, r"correct must be one number, or one for each of 1 prompts, not 2"),
        ({"correct": [-1]}, r"correct holds -1\. It must not be negative"),
        ({"correct": "red"}, r"correct must be whole numbers"),
        ({"roles": {"answer": 1}}, r'Role "answer" is reserved\. Give its place as answer_position'),
        ({"answer_position": 3}, r"Role 'answer' covers positions 3 to 3 of prompt 0, which has 3 tokens"),
        ({"clean": []}, r"the list of ids is empty"),
    ],
)
def test_ids_that_do_not_pair_are_refused(change, message):
    call = {"clean": [[1, 2, 3]], "corrupted": [[9, 2, 3]], "correct": [5], "incorrect": [6], **change}
    with pytest.raises(InterpError, match=message):
        PromptPairs.from_tokens(call.pop("clean"), call.pop("corrupted"), **call)


# Sets of pairs


def test_select_keeps_every_column_together(model):
    pairs = build(model, ["black", "red", "white"], ["white", "teal", "black"], answer_policy="first_differing")
    chosen = pairs.select([2, 1])
    assert chosen.clean.rows() == [pairs.clean.rows()[2], pairs.clean.rows()[1]]
    assert chosen.correct.tolist() == [9, 5]
    assert chosen.answers == (" white", " red")
    assert chosen.answer_position.tolist() == [8, 9]
    assert [slots["color"] for slots in chosen.slots] == ["white", "red"]
    assert chosen.correct_tokens == ((9,), (5, 6))


def test_concat_joins_pairs_and_their_drops(model):
    first = build(model, ["black", "black"], ["white", "red"], name="a", variant="first")
    second = build(model, ["white"], ["black"], name="b", variant="second")
    both = PromptPairs.concat([first, second])
    assert both.answers == (" black", " white")
    assert both.variants == ("first", "second")
    assert [drop.index for drop in both.drops] == [1]
    assert both.name == "a+b"
    assert both.answer_position.tolist() == [8, 8]


def test_concat_refuses_what_does_not_belong_together(model):
    single = build(model, ["black"], ["white"])
    with pytest.raises(InterpError, match="share one answer policy, but have single, sum_logprob"):
        PromptPairs.concat([single, build(model, ["black"], ["white"], answer_policy="sum_logprob")])
    other = build(model, ["black"], ["white"], Template("The {color} {noun} is", answer=" {color}"))
    with pytest.raises(InterpError, match="only one side has noun@2"):
        PromptPairs.concat([single, other])
    with pytest.raises(InterpError, match="There are no pairs to join"):
        PromptPairs.concat([])


def test_positions_are_aligned_only_if_every_role_is_in_one_place(model):
    assert build(model, ["black", "white"], ["white", "black"]).aligned_positions
    front = PromptPairs.from_tokens([[1, 2, 3]], [[4, 2, 3]], correct=5, incorrect=6, roles={"color": 0})
    back = PromptPairs.from_tokens([[1, 2, 3]], [[1, 4, 3]], correct=5, incorrect=6, roles={"color": 1})
    assert not PromptPairs.concat([front, back]).aligned_positions
    assert PromptPairs.concat([front, front]).aligned_positions


def test_keep_roles_orders_them_and_keeps_answer_last(model):
    pairs = build(model, ["black"], ["white"]).keep_roles(["answer", "color", "noun"])
    assert pairs.roles == ("color", "noun", "answer")
    assert set(pairs.corrupted.roles) == {"color", "noun", "answer"}
    with pytest.raises(InterpError, match=r"Unknown role 'colour'\. Did you mean 'color'"):
        pairs.keep_roles(["colour"])


def test_the_fingerprint_sees_prompts_answers_roles_and_policy(model):
    pairs = build(model, ["black"], ["white"])
    prints = {
        pairs.sha256(),
        build(model, ["white"], ["black"]).sha256(),
        build(model, ["black"], ["white"], incorrect_answer=" dog").sha256(),
        build(model, ["black"], ["white"], answer_policy="first_differing").sha256(),
        pairs.keep_roles(["color"]).sha256(),
    }
    assert len(prints) == 5
    assert pairs.sha256() == build(model, ["black"], ["white"], name="other name").sha256()


def test_the_summary_says_what_there_is_and_what_was_dropped(model):
    pairs = build(model, ["black", "black", "red"], ["white", "red", "teal"], answer_policy="first_differing", task="t")
    assert pairs.summary() == (
        "2 pairs of t: 9 to 10 tokens, BOS prepended, answers scored as first_differing, roles noun, color, noun@2, "
        "answer. Dropped: length 1. First reasons: pair 1: clean and corrupted must have equal token counts, but have "
        "9 and 10 (color 1 and 2); choose words with the same number of tokens."
    )


def test_pairs_can_be_iterated_and_end(model):
    pairs = build(model, ["black", "white"], ["white", "black"])
    assert [pair.correct for pair in pairs] == [" black", " white"]
    with pytest.raises(IndexError, match="There is no pair 2: there are 2"):
        pairs[2]
    assert isinstance(pairs.correct, np.ndarray)


def test_a_quoted_place_is_fixed_text_under_a_role(model) -> None:
    template = Template("The {color} {noun}{'.':stop} It is{' so':degree}", answer=" {color}")
    assert template.slots == ("color", "noun")
    assert template.roles == ("color", "noun", "stop", "degree")
    rendered = template.render({"color": "black", "noun": "cat"})
    assert rendered.text == "The black cat. It is so"
    assert rendered.roles["stop"] == (13, 14)
    assert rendered.text[slice(*rendered.roles["degree"])] == " so"
    with pytest.raises(InterpError, match="needs a name"):
        Template("The {'.'}", answer="x")


def test_the_token_after_a_role_is_a_role_of_its_own(model) -> None:
    pairs = build(model, ["black"], ["white"])
    longer = pairs.with_role_after("noun")
    assert longer.clean.spans("after_noun").tolist() == [[stop, stop + 1] for _, stop in pairs.clean.spans("noun")]
    assert (longer.corrupted.spans("after_noun") == longer.clean.spans("after_noun")).all()
    with pytest.raises(InterpError, match="after_answer"):
        pairs.with_role_after("answer")
    with pytest.raises(InterpError, match="adverb"):
        pairs.with_role_after("adverb")


def test_spread_takes_evenly_spaced_pairs(model) -> None:
    ids = [[0, i, 1] for i in range(2, 12)]
    pairs = PromptPairs.from_tokens(ids, [[0, i + 1, 1] for i in range(2, 12)], correct=1, incorrect=2)
    assert pairs.spread(4).clean.ids[:, 1].tolist() == [2, 5, 8, 11]
    assert pairs.spread(None) is pairs
    assert pairs.spread(99) is pairs
    with pytest.raises(InterpError, match="max_prompts is 0"):
        pairs.spread(0)
