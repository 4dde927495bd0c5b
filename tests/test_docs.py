"""The README and the notebooks do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.tolerance import near

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((REPOSITORY / "analyses" / "notebooks").glob("*.ipynb"))


def block(language: str) -> str:
    """The first fenced block of a language in the README."""
    found = re.search(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_the_readme_example_prints_what_the_readme_shows() -> None:
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(block("python"), names)
    shown, made = block("text"), printed.getvalue()
    assert re.sub(r"[-\d.\s]+", " ", made) == re.sub(r"[-\d.\s]+", " ", shown)
    near(numbers(made), numbers(shown), 0.02, why="printed to two decimals")
    sweeps = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    with contextlib.redirect_stdout(printed):
        exec(sweeps, names)
    assert "rows are computed" in printed.getvalue()


def test_everything_the_readme_points_at_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    for link in links:
        assert (REPOSITORY / link).exists(), link
    for name in re.findall(r"^    +(?:  )?([a-z_]+\.py)\b", README, flags=re.MULTILINE):
        assert list((REPOSITORY / "interp").glob(f"**/{name}")), name


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/design.md", "docs/style.md"])
def test_every_file_that_the_documents_name_is_there(name: str) -> None:
    document = REPOSITORY / name
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (document.parent / link).exists(), link
    named = re.findall(r"`((?:interp|analyses|tests|reports|docs|\.ci)/[\w./*-]*)`", text)
    assert named
    for path in named:
        assert list(REPOSITORY.glob(path.rstrip("/"))), path


# ---- the notebooks ----


def shown(cell: Any) -> str:
    """What a reader reads below a cell: printed text, tables, and the numbers in the cells of what is drawn."""
    texts = []
    for output in cell.get("outputs", ()):
        assert output["output_type"] != "error", output
        if output.get("name") == "stderr":  # what is logged belongs to the machine
            continue
        data = output.get("data", {})
        drawn = re.findall(r'class="value [^"]*"[^>]*>([^<]+)<', data.get("text/html", ""))
        texts += [output.get("text", ""), data.get("text/plain", ""), *drawn]
    return "\n".join(texts).replace("\N{MINUS SIGN}", "-")


def test_the_notebooks_are_small_and_have_their_outputs() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("123456")
    for path in NOTEBOOKS:
        assert path.stat().st_size < 150_000, path.name
        cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
        assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2, path.name
        assert path.name in README


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are those of another processor."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    saved = nbformat.read(path, 4)
    made = copy.deepcopy(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # In a thread of its own: another test's browser may keep this thread's event loop.
        with ThreadPoolExecutor(1) as alone:
            client = NotebookClient(made, timeout=300, kernel_name="python3")
            alone.submit(lambda: asyncio.run(client.async_execute())).result()
    for cell, kept in zip(made.cells, saved.cells, strict=True):
        now, then = shown(cell), shown(kept)
        assert re.sub(r"-?\d+(\.\d+)?", "#", now).split() == re.sub(r"-?\d+(\.\d+)?", "#", then).split(), cell.source
        near(numbers(now), numbers(then), 0.11, why="printed to one decimal, on another processor")
