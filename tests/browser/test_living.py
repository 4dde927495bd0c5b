"""The page's own scripts: what is chosen is lit everywhere, and the lesson's numbers are NumPy's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from interp import results
from tests.browser.opened import Opened
from tests.report_fixture import RunSpec, attention_vectors
from tests.tolerance import close, near

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Use = Callable[..., Opened]


def alive(use: Use, width: int = 1280, **options: object) -> Page:
    page = use("made", width, **options).page
    page.wait_for_selector("html.alive", state="attached")
    return page


def chosen_heads(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "() => Array.from(document.querySelectorAll('.chosen'), node => node.dataset.head || '')"
    )
    return found


def test_a_head_chosen_in_one_map_is_lit_in_all_and_every_method_speaks(used: Use) -> None:
    page = alive(used)
    page.locator("#dla rect.cell[data-head=L2H1]").click()
    heads = chosen_heads(page)
    assert len(heads) > 8
    assert set(heads) == {"L2H1"}
    assert page.locator("#patch-z tr.chosen").count() == 2  # one row for each direction
    said = page.locator("#chosen").inner_text()
    assert re.search(r"^L2H1 · reader · sufficient at the [\w ]+ [−\d.]+ \[.*\] · needed at the ", said)
    assert re.search(r" · sufficient at all words [−\d.]+ \[.* ablation .* · direct contribution ", said)
    assert page.locator(".square[aria-pressed=true]").get_attribute("data-head") == "L2H1"
    page.locator("#dla rect.cell[data-head=L0H0]").hover()
    page.wait_for_function("() => document.querySelectorAll('.lit').length > 8")
    page.keyboard.press("Escape")
    assert page.locator(".chosen, .lit").count() == 0
    assert not page.locator("#chosen").is_visible()


def test_keys_walk_over_a_map_and_choose(used: Use) -> None:
    page = alive(used)
    page.evaluate("() => document.querySelector('#ablations svg [tabindex=\"0\"]').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate("() => document.activeElement.dataset.head") == "L1H1"
    assert page.locator("#ablations svg").first.locator("[tabindex='0']").count() == 1
    assert page.locator("#chosen p").inner_text().startswith("L1H1")
    assert page.locator("#ablations svg").first.get_attribute("role") == "group"
    page.locator(".square[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.head") == "L1H2"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#patterns h4").inner_text() == "Attention pattern of L2H2"


def test_a_tap_chooses_and_what_it_says_stays(used: Use) -> None:
    page = alive(used, 400, has_touch=True, is_mobile=True)
    page.locator("#patch-z .cell").first.tap()
    page.wait_for_timeout(300)
    assert page.locator("#tip").is_visible()
    assert page.locator("#chosen p").inner_text().startswith("L0H0")
    page.locator("#chosen button").tap()
    assert not page.locator("#chosen").is_visible()


def test_a_prompt_is_chosen_once_and_a_cell_leads_to_the_lesson(used: Use) -> None:
    page = alive(used)
    page.locator("#patterns select").select_option("1")
    assert page.locator("#any-two-words select").first.input_value() == "1"
    page.locator("#patterns .square[data-head=L0H3]").click()
    page.locator("#patterns [data-pair='9 4']").click()
    values = [page.locator("#any-two-words select").nth(i).input_value() for i in range(4)]
    assert values == ["1", "L0H3", "9", "4"]


@pytest.mark.parametrize(("prompt", "head", "dest", "src"), [(0, "L1H2", 12, 5), (1, "L2H0", 20, 0)])
def test_the_lesson_s_numbers_are_numpy_s(used: Use, prompt: int, head: str, dest: int, src: int) -> None:
    page = alive(used)
    selects = page.locator("#any-two-words select")
    for i, value in enumerate((prompt, head, dest, src)):
        selects.nth(i).select_option(str(value))
    spec = RunSpec(nasty=True)
    data = attention_vectors(spec, np.random.default_rng([spec.seed, 3])).isel(prompt=prompt).sel(head_label=head)
    q, k = (data[name].values.astype(np.float32).astype(np.float64) for name in "qk")
    dots = k[: dest + 1] @ q[dest]

    def shares(root: float) -> np.ndarray:
        exponentials = np.exp(dots / root - (dots / root).max())
        return np.asarray(exponentials / exponentials.sum())

    true = shares(np.sqrt(spec.d_head))
    lengths = {name: data[name].values.astype(np.float32) for name in ("written", "value_written", "stream")}
    expected = {
        "dot": dots[src],
        "score": dots[src] / np.sqrt(spec.d_head),
        "weight": true[src],
        "entropy": -(true * np.log2(true)).sum(),
        "written": lengths["written"][dest],
        "stream": lengths["stream"][dest],
        "alone": true[src] * lengths["value_written"][src],
    }

    def exact(name: str) -> np.ndarray:
        return np.array(float(page.locator(f"[data-name={name}]").get_attribute("data-value") or "nan"))

    for name, number in expected.items():
        close(exact(name), number, what=name)
    page.locator("#any-two-words input").fill("1.5")
    softer = shares(1.5)
    close(exact("entropy"), -(softer * np.log2(softer)).sum(), what="entropy")
    close(exact("weight"), true[src], what="the model's own weight stays")


def test_the_lesson_offers_only_prompts_whose_vectors_are_there_and_says_whose_pair_it_has(used: Use) -> None:
    page = used("partial").page
    page.wait_for_selector("html.alive", state="attached")
    options = page.locator("#any-two-words select").first.locator("option")
    assert [option.is_disabled() for option in options.all()] == [False] + [True] * (options.count() - 1)
    assert options.nth(1).inner_text().endswith("(not stored)")
    assert page.locator("#patterns select option:disabled").count() == 0
    page.locator("#patterns select").select_option("1")  # the patterns of the other prompts are there
    said = page.locator("#any-two-words").inner_text()
    assert "on prompt 2 are not in this page" in said
    assert "Prompts that have them: 1." in said
    assert "–" not in said
    assert (
        page.locator("#any-two-words .jumps button").first.inner_text().startswith("The lesson's pair, on prompt 1: ")
    )
    assert "of prompt 1" in page.locator("#any-two-words + details.still summary").first.inner_text()
    page.locator("#any-two-words .jumps button").first.click()
    assert page.locator("#any-two-words input").is_visible()


@pytest.mark.parametrize(("prompt", "head"), [(0, (2, 1)), (1, (0, 3))])
def test_the_pattern_s_weights_are_those_of_the_result(
    used: Use, pages: Callable[[str], Path], prompt: int, head: tuple[int, int]
) -> None:
    page = alive(used)
    page.locator("#patterns select").select_option(str(prompt))
    page.locator(f"#patterns .square[data-head=L{head[0]}H{head[1]}]").click()
    drawn = page.evaluate(
        "() => Array.from(document.querySelectorAll('#patterns [data-pair]'), cell =>"
        " [...cell.dataset.pair.split(' '), /-?[\\d.]+$/.exec(cell.textContent)[0]].map(Number))"
    )
    stored = results.load(pages("made").parent / "results" / "attention_patterns.nc")["pattern"]
    weights = stored.isel(prompt=prompt, layer=head[0], head=head[1]).transpose("dest_position", "src_position").values
    assert len(drawn) == np.isfinite(weights[np.tri(len(weights), dtype=bool)]).sum()
    near([weight for _, _, weight in drawn], [weights[int(i), int(j)] for i, j, _ in drawn], 0.0051, why="hundredths")


def test_circuitsvis_comes_when_asked_for_with_names_on_what_it_draws(used: Use) -> None:
    opened = used("made")
    page = opened.page
    page.wait_for_selector("html.alive", state="attached")
    assert page.locator("canvas:not([aria-hidden])").count() == 0
    page.locator("#circuitsvis-attention-figure summary").click()
    page.wait_for_selector("#circuitsvis-attention canvas[aria-label]")
    page.wait_for_timeout(300)
    assert page.locator("#circuitsvis-attention canvas:not([aria-label])").count() == 0
    assert [what for what in opened.refused() if "wasm" not in what] == []
    page.emulate_media(media="print")
    assert not page.locator("#circuitsvis-attention").is_visible()
    assert page.locator("#patterns .square").first.is_visible()


def test_where_nothing_can_be_inflated_the_sentence_and_the_static_lesson_stand(used: Use) -> None:
    page = used("made").page
    page.add_init_script("delete window.DecompressionStream")
    page.reload()
    page.wait_for_selector("html.alive", state="attached")
    assert page.locator("#any-two-words .without-script").is_visible()
    assert page.locator("#lesson-strip").is_visible()
    assert page.locator(".lives").count() == 0
