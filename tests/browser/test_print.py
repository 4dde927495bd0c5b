"""The page on paper: nothing is wider than the sheet, no frame is empty, what is interactive is left out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.opened import Opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

A4 = 718
"""Width of the text on an A4 sheet with margins of a centimetre, in CSS pixels."""

CUT = r"""() => {
  const width = document.documentElement.clientWidth;
  return Array.from(document.querySelectorAll("body *:not(svg *)")).filter(node => {
    if (!node.checkVisibility()) return false;
    const box = node.getBoundingClientRect();
    return box.width && box.height && (box.right > width + 1 || node.scrollWidth > node.clientWidth + 1 &&
      getComputedStyle(node).overflowX !== "visible");
  }).map(node => node.tagName + "." + (node.getAttribute("class") || "") + " " + node.textContent.trim().slice(0, 40));
}"""

EMPTY = r"""() => Array.from(document.querySelectorAll(".card, figure, .panel, .drawn")).filter(frame => {
  if (!frame.checkVisibility()) return false;
  const shown = Array.from(frame.querySelectorAll("svg, p, table, li, pre, h3")).some(node => {
    const box = node.getBoundingClientRect();
    return box.width > 5 && box.height > 5;
  });
  return !shown || frame.matches(".drawn");
}).map(frame => frame.className + "#" + frame.id)"""


@pytest.mark.parametrize("name", ["made", "explained", "compared"])
def test_on_paper_nothing_is_cut_and_no_frame_is_empty(used: Callable[..., Opened], name: str) -> None:
    page = used(name, A4).page
    page.emulate_media(media="print", color_scheme="dark")  # paper is white, whatever the screen is
    assert page.evaluate(CUT) == []
    assert page.evaluate(EMPTY) == []
    figures = page.locator("figure:has(svg):not(#any-two-words), details:has(svg)")
    assert all(figures.nth(i).locator("svg").first.bounding_box() for i in range(figures.count()))
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    controls = page.locator("nav, .skip, button:not(.square)")
    assert controls.evaluate_all("all => all.filter(one => one.checkVisibility()).length") == 0
    sheets = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", margin=dict.fromkeys(("left", "right"), "1cm"))))
    assert 1 <= sheets <= 60


def test_tables_of_a_sheets_length_are_printed_though_they_are_closed(used: Callable[..., Opened]) -> None:
    page = used("made", A4).page
    page.emulate_media(media="print")
    rows = """() => Array.from(document.querySelectorAll("details:not([open], .still)"), part =>
      [part.querySelector("script.rows") ? Infinity :
         Math.max(0, ...Array.from(part.querySelectorAll("tbody"), body => body.rows.length)),
       Array.from(part.querySelectorAll("table:not(:has(th:nth-child(17)))"), one => one.checkVisibility())])"""
    found = [(length, shown) for length, shown in page.evaluate(rows) if shown]
    assert {length <= 40 for length, _ in found} == {True, False}
    assert all(set(shown) == {length <= 40} for length, shown in found)
