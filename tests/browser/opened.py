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
        """Open every ``details`` of the page."""
        self.page.evaluate("() => document.querySelectorAll('details').forEach(part => part.open = true)")
