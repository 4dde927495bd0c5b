"""The README and the notebook do what they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

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
    for link in [*links, "analyses/notebooks/color_noun.ipynb"]:
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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    saved = ["".join(str(output) for output in cell.get("outputs", ())) for cell in notebook.cells]
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell, before in zip(notebook.cells, saved, strict=True):
        assert bool(before) == any(o.get("name") != "stderr" for o in cell.get("outputs", ())), cell.source
