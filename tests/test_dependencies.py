"""The environment, audited without a network: what is declared, pinned, locked, installed and imported is the same."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import lock

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

USED_OTHERWISE = {
    "build": "python -m build",
    "circuitsvis": "its script is read as a file",
    "coverage": "a command",
    "furo": "the theme of the site",
    "h5netcdf": "xarray reads and writes with it",
    "h5py": "h5netcdf reads and writes with it",
    "hatchling": "builds the packages",
    "ipykernel": "runs notebooks",
    "ipywidgets": "bars of progress in notebooks",
    "jupyterlab": "where notebooks are read",
    "mypy": "a command",
    "myst-parser": "an extension of the site",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "types-pyyaml": "types for mypy",
    "types-tqdm": "types for mypy",
}
"""Distributions that no file imports, and what each is for."""
PEERS = {"nnsight", "pandas", "pyvene"}
"""Imported in the environment of `make bench` alone: tests/benchmarks/peers.txt."""


def declared(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return {canonicalize_name(one.name): one for one in map(Requirement, texts)}


def imported(*folders: str) -> dict[str, str]:
    """Module -> a file that imports it, of modules that are neither Python's nor this repository's."""
    found: dict[str, str] = {}
    for path in sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.partition(".")[0]: path.relative_to(REPOSITORY).as_posix() for name in names}
    ours = {path.name.removesuffix(".py") for path in REPOSITORY.iterdir()} | {"tiny_tokenizers", "interp_example"}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | ours}


@cache
def distributions() -> dict[str, set[str]]:
    """Module -> the distributions that bring it."""
    found = importlib.metadata.packages_distributions()
    return {module: set(map(canonicalize_name, names)) for module, names in found.items()}


def installed(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def needed(*extras: str) -> Iterator[importlib.metadata.Distribution]:
    """Everything that is installed for this project, directly or because something else needs it."""
    waiting, seen = list(declared(*extras).values()), set()
    while waiting:
        wanted = waiting.pop()
        found = installed(wanted.name)
        if found is None or (canonicalize_name(wanted.name), *sorted(wanted.extras)) in seen:
            continue
        seen.add((canonicalize_name(wanted.name), *sorted(wanted.extras)))
        yield found
        for one in map(Requirement, found.requires or ()):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(one)


def test_the_lock_has_the_versions_of_the_constraints_each_with_its_hashes() -> None:
    assert {name: Version(version).public for name, version in lock.pins(lock.LOCK).items()} == lock.pins()
    for name, sums in lock.hashes().items():
        assert sums, name
        assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in sums), name
    assert "://" not in lock.LOCK.read_text(encoding="utf-8")


def test_of_a_library_of_several_builds_the_public_archive_is_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def pip(command: list[str], *, check: bool, env: dict[str, str]) -> None:
        asked.append(env)
        archive = {"archive_info": {"hashes": {"sha256": f"{len(asked)}" * 64}}}
        local = "2.0+cpu" if env.get("PIP_FIND_LINKS") else "2.0"
        told = [{"metadata": {"name": "torch", "version": local}, "download_info": archive}]
        Path(command[command.index("--report") + 1]).write_text(json.dumps({"install": told}))

    monkeypatch.setattr(lock.subprocess, "run", pip)
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    found = [list(lock.chosen("3.12", {"torch": "2.0"}, public=public)) for public in (False, True)]
    assert [one["PIP_FIND_LINKS"] for one in asked] == ["wheels", ""]
    assert found == [[("torch", "2.0+cpu", "1" * 64)], [("torch", "2.0", "2" * 64)]]


def test_all_that_is_installed_for_this_project_has_the_pinned_version() -> None:
    pins = lock.pins()
    found = {canonicalize_name(one.name): Version(one.version).public for one in needed("dev", "ray")}
    assert len(found) > 100
    assert {name: version for name, version in found.items() if pins.get(name) != version} == {}


def test_every_pin_is_within_what_pyproject_asks_for() -> None:
    for name, wanted in declared(*EXTRAS).items():
        assert wanted.specifier.contains(lock.pins()[name]), wanted


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(("interp", "analyses"), ("ray",)), (("tests", "docs"), ("ray", "dev", "fuzz"))],
    ids=["the library", "its tests"],
)
def test_every_package_that_is_imported_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    known = declared(*extras)
    undeclared = {
        module: path
        for module, path in imported(*folders).items()
        if module not in PEERS and not distributions().get(module, {module}) & set(known)
    }
    assert undeclared == {}


def test_every_package_that_is_declared_is_used() -> None:
    modules = imported("interp", "analyses", "tests", "docs")
    brought = {name for module in modules for name in distributions().get(module, {module})}
    unused = set(declared(*EXTRAS)) - brought - set(USED_OTHERWISE)
    assert unused == set()
    assert set(USED_OTHERWISE) <= set(declared(*EXTRAS)) - brought
