"""The page in a real browser: CircuitsVis draws, nothing is asked for, nothing overflows, tables copy as CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from interp import report
from tests.conftest import BROWSERS
from tests.report_fixture import RunSpec, write_run

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --virtual-time-budget=8000"
).split()

# Runs in the page: what it asked for, what its policy refused, what was drawn.
PROBE = """
<script>
window.refused = [];
window.errors = [];
document.addEventListener("securitypolicyviolation", function (e) { refused.push(e.blockedURI); });
window.addEventListener("error", function (e) { errors.push(String(e.message)); });
setTimeout(function () {
  var canvases = Array.from(document.querySelectorAll("#circuitsvis-attention canvas"));
  var drawn = canvases.filter(function (c) {
    var pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    return pixels.some(function (p) { return p > 0; });
  });
  document.body.textContent = "";
  document.body.appendChild(document.createElement("pre")).textContent = "PROBE" + JSON.stringify({
    refused: refused, errors: errors, canvases: canvases.length, drawn: drawn.length,
    requests: performance.getEntriesByType("resource").map(function (e) { return e.name; }),
    overflow: window.overflow, copied: window.copied, tip: window.tip
  }) + "EBORP";
}, 4000);
setTimeout(function () {
  Object.defineProperty(window, "isSecureContext", { value: true });
  Object.defineProperty(navigator, "clipboard", { value: {
    writeText: function (text) { window.copied = text; return Promise.resolve(); }
  } });
  document.querySelector("#patch-z button.copy").click();
  document.querySelector("#patch-z .cell").dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  window.tip = document.getElementById("tip").textContent;
  window.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
}, 3000);
</script>
"""


def probe(directory: Path, spec: RunSpec, size: str) -> dict[str, Any]:
    """What the page says of itself after four seconds."""
    write_run(directory, spec)
    text = report.render(directory).read_text(encoding="utf-8")
    browser = next(path for name in BROWSERS if (path := shutil.which(name)))
    (directory / "probed.html").write_text(text.replace("</head>", PROBE + "</head>", 1), encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={directory / 'profile'}", f"--window-size={size}", "--dump-dom"]
    done = subprocess.run(
        [*command, (directory / "probed.html").as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    found = re.search(r"PROBE(\{.*\})EBORP", done.stdout)
    assert found is not None, done.stdout[-2000:]
    record: dict[str, Any] = json.loads(html.unescape(found[1]))
    return record


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,900", "500,900"])
def test_the_page_draws_and_asks_for_nothing(tmp_path: Path, size: str) -> None:
    record = probe(tmp_path, RunSpec(nasty=True), size)
    assert record["requests"] == []
    # A library in the bundle tries, and does without, a WebAssembly module; the policy forbids compiling one.
    assert set(record["refused"]) <= {"wasm-eval"}
    assert record["errors"] == []
    assert record["canvases"] == record["drawn"] == 13  # twelve heads, and one of them enlarged
    assert record["overflow"] == 0
    rows = list(csv.reader(io.StringIO(record["copied"])))
    assert rows[0][:4] == ["direction", "layer", "head", "recovered (share of the clean–corrupted gap)"]
    assert len(rows) == 1 + 2 * 3 * 4
    assert all(math.isfinite(float(row[3])) for row in rows[1:])
    assert re.match(r"L0H0: [−\d.]+ \[.*\], n = 8$", record["tip"])
