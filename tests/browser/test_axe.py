"""axe-core over the whole page: no violation, best practices included, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

from tests.browser.opened import Opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RUN = r"""async options => {
  const found = await axe.run(document, { resultTypes: ["violations"], ...options });
  return found.violations.flatMap(rule => rule.nodes.map(node => rule.id + ": " + node.html.slice(0, 200)));
}"""


def violations(page: Page, options: dict[str, Any]) -> list[str]:
    """What axe-core has against a page, by rule and element."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[str] = page.evaluate(RUN, options)
    return found


@pytest.mark.parametrize("name", ["made", "sections", "compared", "notebook"])
def test_axe_finds_nothing(used: Callable[..., Opened], name: str) -> None:
    opened = used(name)
    opened.unfold()
    opened.page.wait_for_timeout(300)
    opened.thin()
    found = {"light, wide": violations(opened.page, {})}
    opened.page.emulate_media(color_scheme="dark")
    opened.page.set_viewport_size({"width": 400, "height": 900})
    opened.page.wait_for_timeout(300)
    found["dark, narrow"] = violations(opened.page, {})
    assert found == {"light, wide": [], "dark, narrow": []}
