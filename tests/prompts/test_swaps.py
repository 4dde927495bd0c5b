"""The sentence again with other words: where words are found, and which pairs line up."""

from __future__ import annotations

from typing import Any

import pytest

from interp import HookedTransformer, InterpError
from interp.prompts import swaps

TEXT = "Me encanta el color negro, espero algún día tener un gato así"


@pytest.mark.parametrize(
    ("word", "expected"), [("negro", (20, 25)), ("gato", (53, 57)), ("algún día", (34, 43)), ("así", (58, 61))]
)
def test_a_word_is_found_where_it_stands(word: str, expected: tuple[int, int]) -> None:
    assert swaps.find(TEXT, word) == expected
    assert TEXT[slice(*expected)] == word


@pytest.mark.parametrize(("text", "word", "expected"), [("¿Es negro!", "!", (9, 10)), ("猫は黒い", "黒", (2, 3))])
def test_a_sign_and_a_script_without_spaces_need_no_space(text: str, word: str, expected: tuple[int, int]) -> None:
    assert swaps.find(text, word) == expected


def test_a_word_within_another_is_not_found() -> None:
    with pytest.raises(InterpError, match=r"The word 'col' is not in .* Did you mean 'color'\?"):
        swaps.find(TEXT, "col")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("gato", r"'gato' is 2 times in .* Choose one: gato@1, gato@2\."),
        ("gato@3", "has 'gato' 2 times, so there is no 'gato@3'"),
        ("gato@0", "so there is no 'gato@0'"),
        ("perro", "Write a whole word, as it stands there"),
        ("  ", "The word is ' '"),
    ],
)
def test_which_word_is_meant_is_asked_for(word: str, says: str) -> None:
    with pytest.raises(InterpError, match=says):
        swaps.find("un gato, otro gato", word)


@pytest.mark.parametrize("word", [["negro"], 5, None, b"negro"])
def test_what_is_no_text_is_said_with_its_kind(word: Any) -> None:
    with pytest.raises(InterpError, match=rf"which is no text \({type(word).__name__}\)\. Give it in quotes\."):
        swaps.find(TEXT, word)


def test_of_many_places_the_first_and_the_last_are_named() -> None:
    with pytest.raises(InterpError, match=r"'gato' is 27 times in .* Choose one: gato@1 to gato@27\.$"):
        swaps.find(" y ".join(["gato"] * 27), "gato")


def test_a_target_before_the_source_is_refused() -> None:
    with pytest.raises(InterpError, match="'negro' does not come after 'gato'"):
        swaps.find_both(TEXT, "gato", "negro")
    with pytest.raises(InterpError, match="'black' does not come after 'is@2'"):  # it does come after the first
        swaps.find_both("The cat is black. The cat is", "is@2", "black")


@pytest.mark.parametrize(("source", "target"), [("negro", "negro"), ("color negro", "negro"), ("negro", "color negro")])
def test_a_source_that_is_its_own_target_is_refused(source: str, target: str) -> None:
    with pytest.raises(InterpError, match=r"are the same word or share one\. Name a later word"):
        swaps.find_both(TEXT, source, target)


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("el gato  negro", " gato negro ", "gato  negro"),
        ("el gato\nnegro", "gato negro", "gato\nnegro"),
        ("el gato, negro", "gato,", "gato,"),
        ("a sign @2 here", "@2", "@2"),
    ],
)
def test_spaces_within_and_about_a_phrase_do_not_matter(text: str, word: str, found: str) -> None:
    assert text[slice(*swaps.find(text, word))] == found


@pytest.mark.parametrize(("text", "word", "near"), [("EL GATO NEGRO", "negro", "NEGRO"), ("Café solo", "cafe", "Café")])
def test_the_nearest_word_is_offered_whatever_its_capitals(text: str, word: str, near: str) -> None:
    with pytest.raises(InterpError, match=f"Did you mean '{near}'"):
        swaps.find(text, word)


def test_pairs_differ_at_the_source_alone(mini: HookedTransformer) -> None:
    places = swaps.find_both(TEXT, "negro", "gato")
    pairs = swaps.swapped(mini, TEXT, *places, ["rojo", "negro", "rojo", "zzzq", "blanco", "azul"], most=2)
    assert [slots["source"] for slots in pairs.corrupted_slots] == ["rojo", "blanco"]
    assert [drop.kind for drop in pairs.drops] == ["identical", "length"]  # "azul" came after enough
    assert (pairs.clean.ids != pairs.corrupted.ids).sum(axis=1).tolist() == [1, 1]
    (source, target) = (pairs.clean.spans(role)[0].tolist() for role in ("source", "target"))
    tokens = pairs.clean.tokens[0]
    assert tokens[slice(*source)] == (" negro",)
    assert tokens[slice(*target)] == (" gato",)
    assert pairs.corrupted.texts == tuple(TEXT.replace("negro", other) for other in ("rojo", "blanco"))
    assert [pair.correct for pair in pairs] == [" negro"] * 2
    assert [pair.incorrect for pair in pairs] == [" rojo", " blanco"]


def test_no_word_that_lines_up_is_one_line(mini: HookedTransformer) -> None:
    places = swaps.find_both(TEXT, "negro", "gato")
    with pytest.raises(InterpError, match=r"None of 1 other words for 'negro' has its number of tokens\. First"):
        swaps.swapped(mini, TEXT, *places, ["zzzq"])
    with pytest.raises(InterpError, match="All other words for 'negro' are that word itself"):
        swaps.swapped(mini, TEXT, *places, ["negro"])
    for words, says in (
        ([], "No other word was found for 'negro'"),
        ("rojo", "Give a list of words"),
        (["rojo", ""], r"Number 2 of the other words \['rojo', ''\] is empty"),
        ([1], "Give a list of words"),
        (5, "The other words are 5. Give a list of words"),
    ):
        with pytest.raises(InterpError, match=says):
            swaps.swapped(mini, TEXT, *places, words)
