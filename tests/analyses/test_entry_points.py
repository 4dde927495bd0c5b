"""Another package adds an analysis by an entry point: it runs in a study, is on the page, or is refused in one line."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import interp
from analyses import registry
from analyses.cli import manifest as manifests
from analyses.cli.main import main
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.run import logits_at
from tests.tolerance import close

EXAMPLE = Path(__file__).parents[1] / "example_package"
STUDY = {
    "name": "sure",
    "title": "How sure",
    "question": "How sure is the model?",
    "task": "color-noun",
    "rungs": ["two"],
    "n": 8,
    "analyses": {"behavior": {}, "entropy": {"temperatures": [0.5, 1.0]}},
}


def install(site: Path, name: str, entries: dict[str, str]) -> None:
    """What an installer leaves of a package beside its modules."""
    information = site / f"{name.replace('-', '_')}-0.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (information / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place where packages are installed, on the path; what is imported from it is forgotten."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(place) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def example(site: Path) -> Path:
    """The example package, installed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "interp_example", site / "interp_example")
    install(site, project["name"], project["entry-points"][registry.GROUP])
    return site / "interp_example"


def test_it_runs_in_a_study_and_is_on_the_page(example: Path, mini: HookedTransformer, tmp_path: Path) -> None:
    outcome = interp.study(STUDY, model=mini, out=tmp_path / "run")
    entropy = outcome.results["entropy"]["entropy"]
    pairs = interp.tasks.build(interp.tasks.load("color-noun"), "two", tokenizer=mini, n=8, seed=0)
    logits = logits_at(mini, pairs.clean, pairs.answer_position).double().numpy()
    for temperature in (0.5, 1.0):
        weight = np.exp(logits / temperature) / np.exp(logits / temperature).sum(axis=1, keepdims=True)
        expected = -(weight * np.log(weight)).sum(axis=1)
        close(entropy.sel(temperature=temperature), expected, size=np.abs(logits).max())
    page = outcome.report.read_text(encoding="utf-8")
    assert '<section id="result-entropy"' in page
    assert "what the logits are divided by." in re.sub(r"<[^>]+>", "", page)  # "logits" is a link to the glossary
    assert "entropy of what the model says (nats)" in page


def test_its_options_are_checked_before_anything_is_loaded(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp.model.HookedTransformer.from_pretrained", None)
    for options, words in (
        ({"temperatures": [0]}, "In analyses.entropy of s.yaml: temperatures is 0. Give a number above 0."),
        ({"temperature": [1]}, "Unknown key 'temperature' in analyses.entropy of s.yaml. Did you mean 'temperatures'?"),
    ):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({**STUDY, "analyses": {"behavior": {}, "entropy": options}}))
        for command in (["check", "s.yaml"], ["run", "s.yaml", "--out", "run"]):
            assert main(command) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert words in err
    assert "interp_example.entropy" not in sys.modules
    assert not (tmp_path / "run").exists()


def test_it_runs_after_the_bundled_ones_of_its_kind(example: Path) -> None:
    found = registry.ordered(["entropy", "context_flow", "probing", "behavior"])
    assert list(found) == ["behavior", "probing", "entropy", "context_flow"]
    assert registry.names()[-1] == "entropy"


def test_a_change_of_its_code_makes_its_results_anew(example: Path, mini: HookedTransformer, tmp_path: Path) -> None:
    def keys() -> list[str]:
        found = interp.study(STUDY, model=mini, out=tmp_path / "run").results
        return [found[name].attrs["run_key"] for name in ("behavior", "entropy")]

    first = keys()
    assert keys() == first
    (example / "entropy.py").write_text((example / "entropy.py").read_text() + "\n# changed\n")
    behavior, entropy = keys()
    assert (behavior == first[0], entropy == first[1]) == (True, False)
    assert manifests.code_elsewhere_sha256(registry.get("probing")) is None


BROKEN = {
    "no module": ("absent_module:IT", "", "cannot be loaded (ModuleNotFoundError: No module named 'absent_module')"),
    "an error in it": ("mine:IT", "1 / 0", "cannot be loaded (ZeroDivisionError: division by zero)"),
    "no such value": ("mine:IT", "", "cannot be loaded (AttributeError: module 'mine' has no attribute 'IT')"),
    "another kind": ("mine:IT", "IT = 3", "is no analyses.registry.Analysis: mine:IT is int"),
    "another name": ("mine:IT", "IT = Analysis('its', 'mine', '?')", "calls itself 'its': both names must be the same"),
    "a file that is taken": (
        "mine:IT", "IT = Analysis('broken', 'mine', '?', file='verdict')", "writes the file 'verdict', which a bundled",
    ),
    "what cannot be": ("mine:IT", "IT = Analysis('broken', 'mine', '?', needs='all')", "Unknown need 'all' of the"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "code", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_one_is_one_line_that_names_its_package(site: Path, value: str, code: str, words: str) -> None:
    (site / "mine.py").write_text(f"from analyses.registry import Analysis\n{code}\n")
    install(site, "their-package", {"broken": value})
    with pytest.raises(InterpError) as caught:
        registry.get("broken")
    message = str(caught.value)
    assert message.startswith("The analysis 'broken' of the package their-package ")
    assert words in message
    assert message.endswith("Install a version of that package that works, or uninstall it.")
    assert registry.get("probing").name == "probing"


def test_a_name_that_two_packages_use_is_refused_and_both_are_named(site: Path) -> None:
    install(site, "their-package", {"probing": "mine:IT", "twice": "mine:IT"})
    install(site, "your-package", {"twice": "yours:IT"})
    with pytest.raises(InterpError, match=r"'probing' comes from interp and their-package\. Uninstall all but one"):
        registry.get("probing")
    with pytest.raises(InterpError, match=r"'twice' comes from their-package and your-package"):
        registry.get("twice")


def test_one_whose_module_lacks_its_function_is_one_line(site: Path) -> None:
    (site / "mine.py").write_text("from analyses.registry import Analysis\nIT = Analysis('mine', 'mine', '?')\nrun = 3")
    install(site, "their-package", {"mine": "mine:IT"})
    found = registry.get("mine")
    with pytest.raises(InterpError, match=r"The analysis mine cannot be used: mine\.run is no function"):
        found.function("run")
    with pytest.raises(InterpError, match="The analysis mine cannot be used: module 'mine' has no attribute 'more'"):
        found.function("more")
