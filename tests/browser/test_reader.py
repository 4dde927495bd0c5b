"""What a reader does with the page: walks it with the keyboard, points, taps, copies."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.opened import Opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Use = Callable[..., Opened]

FOCUSED = r"""() => {
  const node = document.activeElement, box = node.getBoundingClientRect(), style = getComputedStyle(node);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  return {
    what: node.tagName + "." + (node.getAttribute("class") || "") + "#" + node.id,
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0,
    outlined: outlined || style.boxShadow !== "none" || node === document.body,
    again: node.hasAttribute("data-walked") || node.toggleAttribute("data-walked") === null
  };
}"""

REACHABLE = r"""() => Array.from(document.querySelectorAll(
  "a[href], button, summary, input, select, textarea, [tabindex]")).filter(node =>
    node.tabIndex >= 0 && !node.disabled && node.checkVisibility({ visibilityProperty: true })).length"""


@pytest.mark.parametrize("name", ["study", "explained"])
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(used: Use, name: str) -> None:
    page = used(name, reduced_motion="reduce").page
    page.keyboard.press("Tab")
    first = page.evaluate(FOCUSED)
    assert "skip" in first["what"]
    assert first["seen"]
    controls, stops = page.evaluate(REACHABLE), [first]
    while len(stops) <= controls + 5:
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop["again"] or stop["what"].startswith("BODY"):
            break
        stops.append(stop)
    assert [stop["what"] for stop in stops if not (stop["seen"] and stop["outlined"])] == []
    assert len(stops) >= controls
    page.evaluate("() => scrollTo(0, 0)")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.getElementById('content').contains(document.activeElement)")


def test_a_cell_says_its_number_to_pointer_and_finger(used: Use) -> None:
    says = re.compile(r"L0H0: [−\d.]+ \[.*\], n = \d+$")
    pointed = used("made").page
    cell = pointed.locator("#patch-z .cell").first
    cell.scroll_into_view_if_needed()
    pointed.wait_for_timeout(300)  # the event of that scroll, which takes a tooltip away, has come
    cell.hover()
    assert says.match(pointed.locator("#tip").inner_text())
    assert says.match(cell.get_attribute("aria-label") or "")  # for a screen reader, while the title is away
    pointed.locator("h1").first.hover()
    assert cell.get_attribute("aria-label") is None
    assert says.match(cell.locator("title").text_content() or "")
    tapped = used("made", 400, has_touch=True, is_mobile=True).page
    tapped.locator("#patch-z .cell").first.tap()
    tapped.wait_for_timeout(300)
    assert says.match(tapped.locator("#tip").inner_text())


JSON = "button[data-save=json]"


def saved_as(page: Page, button: str, place: Path) -> str:
    """The text of the file that a button saves; a name that has an ending is that of the file."""
    with page.expect_download() as download:
        page.locator(button).first.click()
    assert not place.suffix or download.value.suggested_filename == place.name
    download.value.save_as(place)
    return place.read_text(encoding="utf-8")


def test_a_table_is_saved_as_csv_and_as_json(used: Use, tmp_path: Path) -> None:
    page = used("made").page
    page.locator("#patch-z details").first.locator("summary").first.click()
    table = page.locator("#patch-z table").first
    shown = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in table.locator("tr").all()]
    saved = {}
    for kind in ("csv", "json"):
        saved[kind] = saved_as(page, f"#patch-z button[data-save={kind}]", tmp_path / f"patch-z-1.{kind}")
    assert list(csv.reader(io.StringIO(saved["csv"]))) == [[text.replace("−", "-") for text in row] for row in shown]
    records = json.loads(saved["json"])
    assert [list(record) for record in records] == [shown[0]] * (len(shown) - 1)
    assert [record["effect (share of the clean–corrupted gap)"] for record in records] == [
        float(row[3].replace("−", "-")) for row in shown[1:]
    ]


def test_a_number_with_its_interval_is_saved_in_three_columns(used: Use, tmp_path: Path) -> None:
    page = used("made").page
    path = "#heads .table-block:has(td[data-low])"
    block = page.locator(path).first
    shown = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in block.locator("tr").all()]
    read, saved = (saved_as(page, f"{path} button[data-save={kind}]", tmp_path / kind) for kind in ("csv", "json"))
    header, *rows = csv.reader(io.StringIO(read))
    i = header.index("sufficient")
    assert header[i : i + 3] == ["sufficient", "sufficient 95% low", "sufficient 95% high"]
    assert not re.search(r"[\u2212\[]", read)
    for row, record, cells in zip(rows, json.loads(saved), shown[1:], strict=True):
        assert [text or None for text in row[i : i + 3]] == [
            None if (number := record[name]) is None else f"{number:.6g}" for name in header[i : i + 3]
        ]
        told = re.findall(r"\d\.\d\d", cells[shown[0].index("sufficient")])
        assert [f"{abs(float(text)):.2f}" for text in row[i : i + 3] if text] == told


def test_a_long_table_gets_its_rows_when_it_is_opened(used: Use, tmp_path: Path) -> None:
    page = used("study").page
    assert page.locator("#provenance tr:nth-child(41)").count() == 0
    page.locator("#provenance details:has(script.rows) > summary").first.click()
    block = page.locator("#provenance details[open] .table-block:has(tr:nth-child(41))")
    block.locator("tr:nth-child(41)").wait_for()
    saved = saved_as(page, f"#provenance details[open] .table-block:has(tr:nth-child(41)) {JSON}", tmp_path / "saved")
    assert len(json.loads(saved)) == block.locator("tbody tr").count()
    assert block.locator(".by-script, script").count() == 0


def test_the_cells_of_the_large_pattern_are_walked_with_the_arrows(used: Use) -> None:
    page = used("study").page
    page.locator("#patterns .pair.here").wait_for()
    focused = "() => document.activeElement.dataset.pair"
    page.locator("#patterns .pair.here").focus()
    dest, src = map(int, page.evaluate(focused).split())
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == f"{dest - 1} {src - 1}"
    page.keyboard.press("Enter")
    assert page.locator("#patterns .pair.here").get_attribute("data-pair") == f"{dest - 1} {src - 1}"
    assert page.evaluate(focused) == f"{dest - 1} {src - 1}"


def test_the_tables_of_a_comparison_are_saved_with_places_and_intervals(used: Use, tmp_path: Path) -> None:
    page = used("compared").page
    records = json.loads(saved_as(page, f".table-block:has(td[data-place]) {JSON}", tmp_path / "saved"))
    assert list(records[0])[:5] == ["quantity", "A: place", "A", "A 95% low", "A 95% high"]
    assert all(record["A"] is None or isinstance(record["A"], (int, float)) for record in records)
    assert any(record["A: place"] for record in records)


def test_a_table_is_copied_as_csv(used: Use) -> None:
    page = used("made").page
    page.evaluate("""() => Object.defineProperty(navigator, "clipboard", { value: {
      writeText: text => { window.copied = text; return Promise.resolve(); } } })""")
    page.locator("#patch-z details").first.locator("summary").first.click()
    page.locator("#patch-z button.copy").first.click()
    rows = list(csv.reader(io.StringIO(page.evaluate("() => window.copied"))))
    assert rows[0][:3] == ["effect is", "layer", "head"]
    assert len(rows) == 1 + 2 * 3 * 4
    assert all(math.isfinite(float(row[3])) for row in rows[1:])
