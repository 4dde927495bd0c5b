"""The parts of the page: escaping, colours, numbers, scales, words, means."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
import xarray as xr
from markupsafe import Markup

from interp import summary
from interp.report import heat, lines, markup, palette, tables, words
from interp.report.palette import Scale


def test_an_element_escapes_text_and_attributes_but_not_markup() -> None:
    made = markup.element("b", "<i>", Markup("<i></i>"), title='"x"', class_="a", font_size=2.50, absent=None)
    assert made == '<b title="&#34;x&#34;" class="a" font-size="2.5">&lt;i&gt;<i></i></b>'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a⏎b"),
        ("\u2028", "\\u2028"),
        ("\u202e", "\\u202e"),
        ("\x00", "\\u0000"),
        ("señor", "señor"),
        ("\ud800", "\\ud800"),
    ],
)
def test_invisible_characters_are_spelled_out(text: str, shown: str) -> None:
    assert markup.visible(text) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(("text", "shown"), [(" gato", "␣gato"), ("  ", "␣␣"), ("", "∅"), ("a b ", "a b␣")])
def test_outer_spaces_of_a_token_are_seen(text: str, shown: str) -> None:
    assert markup.token(text) == shown


def test_embedded_json_is_ascii_without_angle_brackets_and_reads_back() -> None:
    value = {"tokens": ["</script>", "<!--", "\u2028", "&amp;", "ñ"]}
    text = markup.embedded_json(value)
    assert text.isascii()
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        markup.embedded_json([float("nan")])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.23456, "1.235"), (-0.0001, "0.000"), (-2.5, "−2.500"), (float("nan"), "–"), (float("-inf"), "−∞")],
)
def test_numbers_for_readers(value: float, text: str) -> None:
    assert markup.figure_number(value) == text


# ---- colours ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["d", "s"])
def test_text_on_every_colour_is_readable(kind: str, scheme: str) -> None:
    colours = palette.ramp(kind, scheme)
    assert len(set(colours)) == len(colours)
    assert all(palette.contrast(colour, palette.text_on(colour)) >= 4.5 for colour in colours)


@pytest.mark.parametrize(("scheme", "sign"), [("light", -1), ("dark", 1)])
def test_sequential_colours_move_away_from_the_page_in_lightness_alone(scheme: str, sign: int) -> None:
    lightness = [palette.luminance(colour) for colour in palette.ramp("s", scheme)]
    assert all(sign * (b - a) > 0 for a, b in itertools.pairwise(lightness))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_diverging_ends_differ_under_red_green_blindness(scheme: str) -> None:
    """Orange and blue differ along the blue-yellow axis, which red-green blindness leaves alone."""
    colours = palette.ramp("d", scheme)
    blue_minus_red = [int(colour[5:7], 16) - int(colour[1:3], 16) for colour in (colours[8], colours[-9])]
    assert blue_minus_red[0] < -60
    assert blue_minus_red[1] > 60


def test_scales_take_values_to_steps() -> None:
    centred = Scale.centred(2.0, units="logits", name="x")
    assert [centred.step(v) for v in (-9, -2, 0, 2, 9, float("nan"))] == ["d0", "d0", "d20", "d40", "d40", "void"]
    rising = Scale.rising(0, 1, units="", name="x")
    assert [rising.step(v) for v in (0.0, 0.5, 1.0)] == ["s0", "s10", "s20"]
    falling = Scale.falling(1, 0, units="", name="x")
    assert [falling.step(v) for v in (0.0, 0.5, 1.0)] == ["s20", "s10", "s0"]
    assert Scale.centred(float("nan"), units="", name="x").high == 1.0


def test_the_style_sheet_has_every_step_in_both_schemes() -> None:
    css = palette.stylesheet()
    for step in ("d0", "d20", "d40", "s0", "s20"):
        assert css.count(f"--{step}:") == 2
        assert f".plot .{step}{{" in css


# ---- drawings ----


def grid(values: np.ndarray, **more: object) -> heat.Grid:
    rows, columns = ([str(i) for i in range(size)] for size in values.shape)
    return heat.Grid(values, rows, columns, "layer", "head", **more)  # type: ignore[arg-type]


def test_a_heatmap_has_a_cell_a_value_and_a_tooltip_per_number() -> None:
    values = np.array([[0.5, np.nan], [-1.0, 1.0]])
    scale = Scale.centred(1.0, units="", name="x")
    drawn = heat.heatmap(grid(values), scale, key="k", title="a <title>", description="d")
    assert drawn.count('class="cell ') == 3
    assert re.findall('class="void" d="([^"]+)"', drawn)[0].count("M") == 1  # all that hold nothing are one mark
    marked = heat.heatmap(
        grid(values, row_about=[{"layer": i} for i in range(2)]), scale, key="k", title="t", description="d"
    )
    assert marked.count('class="cell void"') == 1  # it is lit with its layer
    assert drawn.count('class="value ') == 3
    assert "<title>layer 1 · 0: −1.0000</title>" in drawn
    assert "a &lt;title&gt;" in drawn


def test_a_large_heatmap_leaves_values_to_tooltips_and_table() -> None:
    drawn = heat.heatmap(
        grid(np.zeros((30, 30))), Scale.centred(1, units="", name="x"), key="k", title="t", description="d"
    )
    assert drawn.count('class="cell ') == 900
    assert 'class="value ' not in drawn


def test_ticks_are_round_and_inside() -> None:
    assert lines.ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert lines.ticks(-9.6, 9.8) == [-5, 0, 5]
    assert lines.ticks(1, 1) == [1]


def test_the_ticks_of_small_values_differ() -> None:
    assert [lines.tick_text(tick) for tick in lines.ticks(0, 0.0004)] == ["0", "0.0001", "0.0002", "0.0003", "0.0004"]
    assert [lines.tick_text(tick) for tick in (-0.25, 2.5, -10)] == ["−0.25", "2.5", "−10"]


def test_bars_reach_from_zero_to_the_value() -> None:
    points = [lines.Point(2.0, 1.5, 2.5, 8), lines.Point(-1.0, float("nan"), float("nan"), 1)]
    drawn = lines.bars(["up", "down"], points, axis="logits", key="k", title="t", description="d", width=350.0)
    assert drawn.count("<rect") == 2
    assert 'class="bar positive"' in drawn
    assert 'class="bar negative"' in drawn
    assert drawn.count('class="whisker') == 1


# ---- words ----


def test_roles_cut_a_text_and_changed_roles_are_marked() -> None:
    text, other = "The cat is black", "The cat is white"
    spans = {"noun": (4, 7), "color": (11, 16)}
    found = words.with_roles(text, spans, other, spans, tuple(spans))
    assert "".join(word.text for word in found) == text
    assert [(w.text, w.role, w.changed) for w in found if w.role] == [("cat", "noun", False), ("black", "color", True)]


def test_a_role_has_the_same_tone_in_every_prompt_and_in_the_legend() -> None:
    roles = ("color", "noun", "asked")
    found = words.with_roles("The cat", {"noun": (4, 7)}, "The cat", {"noun": (4, 7)}, roles)
    assert [word.tone for word in found if word.role] == [words.tone("noun", roles)] == ["r2"]


def test_ranges_that_overlap_or_leave_the_text_are_left_out() -> None:
    spans = {"a": (0, 3), "b": (2, 5), "c": (4, 99)}
    assert [w.role for w in words.with_roles("abcdef", spans, "abcdef", spans, tuple(spans)) if w.role] == ["a"]


def test_without_roles_the_words_that_differ_are_marked() -> None:
    found = words.with_changes("The cat is black now", "The cat is white now")
    assert [(word.text, word.changed) for word in found if word.changed] == [(" black", True)]
    assert "".join(word.text for word in found) == "The cat is black now"


# ---- means ----


def test_means_leave_out_nan_and_count_what_is_left() -> None:
    values = xr.DataArray([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0]], dims=("prompt", "head"))
    found = summary.mean(values)
    np.testing.assert_array_equal(found["mean"], [2.0, 5.0])
    np.testing.assert_array_equal(found["n"], [2, 1])
    assert 1.0 <= float(found["low"][0]) <= 2.0 <= float(found["high"][0]) <= 3.0
    assert np.isnan(found["low"][1])
    assert np.isnan(found["high"][1])


def test_an_effect_turns_noising_round_with_its_interval() -> None:
    one = xr.Dataset({"mean": 0.2, "low": 0.1, "high": 0.4, "n": 8})
    lost = summary.effect(one, "noising")
    assert [round(float(lost[name]), 6) for name in ("mean", "low", "high")] == [0.8, 0.6, 0.9]
    assert summary.effect(one, "denoising") is one


def test_a_table_of_means_has_a_row_per_cell_in_order() -> None:
    values = xr.DataArray(
        np.arange(12.0).reshape(2, 2, 3), dims=("prompt", "layer", "role"), coords={"role": ["a", "b", "c"]}
    )
    made = tables.mean_table(
        "t", summary.mean(values), (("layer", "layer"), ("role", "role")), units="logits", name="m"
    )
    assert [row[:3] for row in made.rows[:4]] == [("0", "a", 3.0), ("0", "b", 4.0), ("0", "c", 5.0), ("1", "a", 6.0)]
    assert made.columns[2].heading == "m (logits)"
    assert made.numeric() == [False, False, True, True, True, True]
