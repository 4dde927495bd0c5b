"""The page in a browser: quiet, whole, within its width, and text where a token is markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.opened import Opened
from tests.report_fixture import NASTY

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ("study", "made", "explained", "refused", "compared", "notebook")
WIDTHS = (320, 400, 640, 1280, 2560)
Look = Callable[..., Opened]

# A library in CircuitsVis's bundle tries, and does without, a WebAssembly module; the policy forbids compiling one.
KNOWN = "wasm"

FAULTS = r"""() => Array.from(document.querySelectorAll("svg")).flatMap(svg => {
  const box = svg.getBoundingClientRect(), faults = [], of = node => (node.textContent || node.tagName).slice(0, 40);
  const name = svg.getAttribute("aria-label") || (svg.getAttribute("aria-labelledby") || "").split(" ")
    .map(id => document.getElementById(id)).map(node => node ? node.textContent : "").join(" ");
  if (!name.trim()) faults.push("an unnamed drawing");
  if (!box.width || !box.height) return faults.concat("an empty drawing: " + name);
  const marks = Array.from(svg.querySelectorAll("rect, path, line, circle, text, polyline, polygon"))
    .map(mark => [mark, mark.getBoundingClientRect()]).filter(([, at]) => at.width || at.height);
  if (!marks.length) faults.push("nothing drawn: " + name);
  marks.forEach(([mark, at]) => {
    if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1)
      faults.push("cut off in '" + name.slice(0, 60) + "': " + of(mark));
  });
  return faults;
})"""

TOO_WIDE = r"""() => {
  const width = document.documentElement.clientWidth, faults = [];
  if (document.documentElement.scrollWidth > width) faults.push("the page is " + document.documentElement.scrollWidth);
  const walk = node => {
    const box = node.getBoundingClientRect();
    if (box.width && box.right > width + 1) faults.push(node.tagName + "." + node.className + " to " + box.right);
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(node).overflowX)) return;  // its content scrolls in it
    Array.from(node.children).filter(child => !child.matches("svg, .skip")).forEach(walk);
  };
  walk(document.body);
  return faults;
}"""

SIDES = r"""() => Array.from(document.querySelectorAll("figure")).flatMap(figure => {
  const says = side => new RegExp("(^|[^\\p{L}])" + side + "([^\\p{L}]|$)", "iu").test(
    Array.from(figure.querySelectorAll("figcaption, .panel-title, .panel-subtitle"))
      .filter(node => node.getBoundingClientRect().width).map(node => node.innerText).join(" "));
  if (!(says("left") && says("right")) && !(says("izquierda") && says("derecha"))) return [];
  if (figure.querySelector("svg .bar")) return [];  // bars to the left and right of their own zero
  const [one, two] = Array.from(figure.querySelectorAll(".panel")).map(panel => panel.getBoundingClientRect());
  const beside = two && one.right <= two.left && one.bottom > two.top && one.top < two.bottom;
  return beside ? [] : [figure.id + " says left and right"];
})"""


@pytest.mark.parametrize("name", PAGES)
def test_it_says_nothing_asks_for_nothing_and_is_refused_nothing(seen: Look, name: str) -> None:
    opened = seen(name)
    opened.unfold()
    opened.page.wait_for_timeout(300)
    assert [line for line in opened.said if KNOWN not in line.lower()] == []
    assert [url for url in opened.asked if not url.startswith(("data:", "blob:"))] == []
    assert [what for what in opened.refused() if KNOWN not in what] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_drawing_is_there_named_and_whole(seen: Look, name: str) -> None:
    opened = seen(name)
    opened.unfold()
    assert opened.page.locator("svg").count() >= (3 if name in ("study", "made") else 1)
    assert opened.page.evaluate(FAULTS) == []


@pytest.mark.parametrize("name", ["made", "explained", "compared", "notebook"])
def test_at_every_width_nothing_sticks_out_and_left_is_left(used: Look, name: str) -> None:
    """640 pixels are also 1280 at a zoom of 200%, and 320 the same at 400%."""
    faults: dict[int, list[str]] = {}
    opened = used(name)
    opened.unfold()
    opened.thin()
    for width in WIDTHS:
        opened.page.set_viewport_size({"width": width, "height": 900})
        faults[width] = opened.page.evaluate(TOO_WIDE) + opened.page.evaluate(SIDES)
    assert faults == {width: [] for width in WIDTHS}


def test_the_picture_is_seen_whole_on_a_phone_and_the_file_can_be_sent(
    seen: Look, pages: Callable[[str], Path]
) -> None:
    wide = "() => [...document.querySelectorAll('.picture .scroll')].map(one => one.scrollWidth - one.clientWidth)"
    page = seen("study", 400).page
    assert page.evaluate(wide) == [0]
    assert page.locator(".picture .on").evaluate("one => one.clientWidth") == 0  # nothing says that it scrolls
    assert max(pages(name).stat().st_size for name in ("study", "made")) < 2_000_000


def test_the_page_of_a_large_model_and_a_long_prompt_opens(used: Look, pages: Callable[[str], Path]) -> None:
    """48 layers of 25 heads, as GPT-2 XL has, and 200 tokens."""
    opened = used("large")
    assert [line for line in opened.said if KNOWN not in line.lower()] == []
    assert opened.page.evaluate(TOO_WIDE) == []
    assert pages("large").stat().st_size < 16_000_000


def test_markup_in_words_is_text(seen: Look, pages: Callable[[str], Path]) -> None:
    opened = seen("made")
    opened.unfold()
    text = opened.page.locator("body").inner_text()
    assert opened.page.locator("main b, main script").count() == 0
    assert NASTY[0] in text
    assert NASTY[1] in text
    assert "\u202e" not in text
    assert "\\u202eover" in text
    assert [line for line in opened.said if "dialog" in line] == []


@pytest.mark.parametrize("name", ["study", "made"])
def test_without_scripts_everything_but_the_interactive_view_stands(used: Look, seen: Look, name: str) -> None:
    plain = used(name, java_script_enabled=False).page
    with_scripts = seen(name).page
    for what in ("h1, section > h2", "figcaption h3", "section svg:not(.life svg)"):
        assert plain.locator(what).count() == with_scripts.locator(what).count() > 0
    assert plain.locator("h1").inner_text() == with_scripts.locator("h1").inner_text()
    sentences = plain.locator(".without-script")
    assert sentences.count() >= 1
    assert all(sentences.nth(i).is_visible() for i in range(sentences.count()))


def test_the_dark_page_is_dark(seen: Look) -> None:
    shades = {}
    for dark in (False, True):
        found = seen("study", dark=dark).page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        shades[dark] = sum(int(part) for part in found[4:-1].split(","))
    assert shades[True] < 150 < 650 < shades[False]


def test_who_wants_less_motion_more_contrast_or_own_colours_loses_nothing(used: Look) -> None:
    page = used("study").page
    page.emulate_media(reduced_motion="reduce")
    moving = """() => Array.from(document.querySelectorAll("*")).filter(node => {
      const style = getComputedStyle(node);
      const moves = style.animationName !== "none" || parseFloat(style.transitionDuration) > 0;
      return moves || style.scrollBehavior === "smooth";
    }).map(node => node.tagName)"""
    assert page.evaluate(moving) == []
    page.emulate_media(forced_colors="active")
    chips = (
        "() => new Set(Array.from(document.querySelectorAll('.chip'), c => getComputedStyle(c).backgroundColor)).size"
    )
    assert page.evaluate(chips) > 1  # their colour is a number
    fills = "() => new Set(Array.from(document.querySelectorAll('.cell'), c => getComputedStyle(c).fill)).size"
    assert page.evaluate(fills) > 5
    page.emulate_media(forced_colors="none", contrast="more")
    same = "() => ['--soft', '--ink'].map(name => getComputedStyle(document.body).getPropertyValue(name).trim())"
    soft, ink = page.evaluate(same)
    assert soft == ink
