"""axe-core over the whole page: no violation, best practices included, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

from tests.browser.opened import Opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LOOKS = ("link-in-text-block", "scrollable-region-focusable", "target-size")
"""Rules, beside contrast, that can see another page where colours and width are others."""

# Contrast is most of the work. Of texts with the same colours, size, weight and surroundings one is asked.
RUN = r"""async options => {
  const kinds = new Map(), named = node => node.tagName + "." + (node.getAttribute("class") || "");
  document.querySelectorAll("body *").forEach(node => {
    const written = Array.from(node.childNodes).some(part => part.nodeType === Node.TEXT_NODE && part.data.trim());
    if (!written || !node.checkVisibility()) return;
    const style = getComputedStyle(node), above = [];
    for (let up = node; up; up = up.parentElement) above.push(up);
    const behind = above.map(up => getComputedStyle(up).backgroundColor).find(one => one !== "rgba(0, 0, 0, 0)");
    const kind = [...above.slice(0, 3).map(named), style.color, style.fontSize, style.fontWeight, behind].join("|");
    if (!kinds.has(kind)) kinds.set(kind, node);
  });
  const only = { resultTypes: ["violations"] };
  const asked = [[document, { ...only, ...options }]];
  asked.push([{ include: [...kinds.values()] }, { ...only, runOnly: ["color-contrast"] }]);
  const found = [];
  for (const [where, how] of asked) found.push(...(await axe.run(where, how)).violations);
  return found.flatMap(rule => rule.nodes.map(node => rule.id + ": " + node.html.slice(0, 200)));
}"""


def violations(page: Page, options: dict[str, Any]) -> list[str]:
    """What axe-core has against a page, by rule and element: the rules asked for, and contrast."""
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
    found = {"light, wide": violations(opened.page, {"rules": {"color-contrast": {"enabled": False}}})}
    opened.page.emulate_media(color_scheme="dark")
    opened.page.set_viewport_size({"width": 400, "height": 900})
    opened.page.wait_for_timeout(300)
    found["dark, narrow"] = violations(opened.page, {"runOnly": list(LOOKS)})
    assert found == {"light, wide": [], "dark, narrow": []}
