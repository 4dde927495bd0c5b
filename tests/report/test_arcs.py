"""The picture of a sentence: one arc for each thing a head takes, as thick as it matters; text stays text."""

from __future__ import annotations

import re

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
