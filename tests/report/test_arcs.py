"""The picture of a sentence: one arc for each thing a head takes, as thick as it matters; text stays text."""

from __future__ import annotations

import re
from itertools import pairwise

from interp.report.arcs import THICKEST, Arc, sentence

TOKENS = ["<s>", " black", " cat", "</text><script>x</script>"]


def drawn(*arcs: Arc) -> str:
    return str(sentence(TOKENS, source=(1, 2), target=(2, 3), arcs=arcs, n_layers=12, key="p"))


def test_an_arc_is_as_thick_as_what_it_brings() -> None:
    text = drawn(Arc("L3H1", 3, 1, 2, 0.5), Arc("L7H0", 7, 1, 2, 0.25), Arc("L7H2", 7, 1, 2, 1.4))
    widths = sorted(float(width) for width in re.findall(r'class="arc"[^>]*stroke-width="([\d.]+)"', text))
    assert widths == [THICKEST / 4, THICKEST / 2, THICKEST]  # never thicker than the whole
    assert "L7H2, L7H0" in text  # the stronger first


def test_higher_layers_are_higher_up() -> None:
    pattern = r'class="arc" d="M[\d.]+ ([\d.]+)C'
    low, high = (float(re.findall(pattern, drawn(Arc("h", layer, 1, 2, 1.0)))[0]) for layer in (0, 11))
    assert high < low


def test_what_a_head_takes_from_the_target_itself_is_a_dot() -> None:
    assert '<circle class="arc own"' in drawn(Arc("L0H0", 0, 2, 2, 0.3))


def test_nothing_is_one_thin_line_that_says_so() -> None:
    text = drawn()
    assert text.count('class="arc none"') == 1
    assert ">nothing<" in text
    assert "nothing</desc>" in text


def test_tokens_are_text() -> None:
    text = drawn()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_long_sentence_is_drawn_where_its_arcs_are_and_says_that_words_are_left_out() -> None:
    words = [f"w{i}" for i in range(200)]
    arc = Arc("L0H1", 0, 100, 190, 0.5)
    drawn = sentence(words, source=(3, 4), target=(190, 191), arcs=[arc], n_layers=2, key="k")
    shown = re.findall(r">(w\d+|…)<", drawn)
    near = [*range(10), *range(94, 107), *range(184, 197)]
    assert [word for word in dict.fromkeys(shown) if word != "…"] == [f"w{i}" for i in near]
    assert shown.count("…") == 3
    assert 'data-position="100"' in drawn


def test_names_of_neighbouring_layers_do_not_lie_on_one_another() -> None:
    picture = drawn(*(Arc(f"L{layer}H0", layer, 1, 2, 0.5) for layer in (9, 10, 11)))
    tall = str(sentence(TOKENS, source=(1, 2), target=(2, 3), n_layers=48, key="p",
                        arcs=[Arc(f"L{layer}H0", layer, 1, 2, 0.5) for layer in (9, 10, 11)]))  # fmt: skip
    for text in (picture, tall):
        heights = sorted(float(y) for y in re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>L\d+H0<', text))
        assert len(heights) == 3
        assert min(b - a for a, b in pairwise(heights)) >= 12


def test_of_a_long_sentence_what_is_near_an_arc_is_drawn() -> None:
    tokens = [f"w{i}" for i in range(60)]
    text = str(
        sentence(tokens, source=(30, 31), target=(50, 51), arcs=[Arc("L3H1", 3, 30, 50, 0.5)], n_layers=12, key="p")
    )
    assert [word for word in ("w0", "w24", "w36", "w37", "w43", "w44", "w56", "w57") if f">{word}<" in text] == [
        "w24", "w36", "w44", "w56",
    ]  # fmt: skip
    assert text.count(">…<") == 3
