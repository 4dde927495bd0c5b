"""A page open in a browser, and all that it said, asked for and was refused while it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

_LISTEN = """
window.refused = [];
document.addEventListener("securitypolicyviolation", event => window.refused.push(event.blockedURI));
"""

# Rows of a table are alike, and so are marks of a drawing: of each kind the first few are kept.
_THIN = r"""() => {
  document.querySelectorAll("tbody").forEach(body => Array.from(body.rows).slice(3).forEach(row => row.remove()));
  document.querySelectorAll("svg").forEach(svg => {
    const seen = {};
    Array.from(svg.querySelectorAll("*:not(title, desc)")).forEach(mark => { // a name goes with what it names
      const kind = mark.tagName + "." + (mark.getAttribute("class") || "").split(" ")[0];
      seen[kind] = (seen[kind] || 0) + 1;
      if (seen[kind] > 4) mark.remove();
    });
  });
}"""


@dataclass
class Opened:
    """A page, with its console's errors and warnings, its dialogs, and every request but that for the page itself."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, browser: Browser, path: Path, width: int = 1280, **options: Any) -> Opened:
        """Open a file, ``width`` pixels wide; ``options`` are those of Playwright's ``new_context``."""
        page = browser.new_context(viewport={"width": width, "height": 900}, **options).new_page()
        page.set_default_timeout(20_000)
        opened = cls(page)
        page.add_init_script(_LISTEN)
        page.on("console", lambda line: opened.said.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened.said.append(str(error)))
        page.on("dialog", lambda dialog: (opened.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: opened.asked.append(request.url))
        page.goto(path.as_uri())
        opened.asked.remove(path.as_uri())
        return opened

    def refused(self) -> list[str]:
        """What the page's policy refused it so far."""
        found: list[str] = self.page.evaluate("() => window.refused")
        return found

    def unfold(self) -> None:
        """Open every ``details`` of the page, and wait for the rows that are kept compressed until then."""
        self.page.evaluate("() => document.querySelectorAll('details').forEach(part => part.open = true)")
        self.page.wait_for_function("() => !document.querySelector('details[open] script.rows')")

    def thin(self) -> None:
        """Keep the first rows of every table and the first marks of every kind in a drawing."""
        self.page.evaluate(_THIN)
