"""Writes ``tests/lock.txt``: every pin of ``tests/constraints.txt`` with the SHA-256 of its archives.

    python -m tests.lock

pip chooses the archives, for each Python that is supported, on this operating system and processor; it downloads
nothing that it need not. What is installed from the file is then what was tested, or pip refuses it:

    python -m pip install --require-hashes --no-deps --requirement tests/lock.txt

PyTorch has several builds of one version. The file has the public ones and, where pip is told of another on this
machine (its ``find-links``), that one too; for any other (ROCm, say) leave its lines out and install it by hand.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
CONSTRAINTS, LOCK = HERE / "constraints.txt", HERE / "lock.txt"
PYTHONS = ("3.11", "3.12", "3.13")
SOURCE_ALONE = ("fancy-einsum", "transformers-stream-generator")
"""Published without wheels."""

SEVERAL_BUILDS = "torch"
"""May lie on this machine in a build of its own, which pip then prefers to the public one."""

HEAD = """\
# The tested versions with the SHA-256 of their archives, for Python {pythons} on this platform: {platform}.
# Made by `python -m tests.lock`, which says how to install from it. tests/test_dependencies.py holds it to
# constraints.txt and to what is installed.
"""


def pins(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Distribution -> version, of a file of pins; hashes and comments are left out."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def hashes(path: Path = LOCK) -> dict[str, list[str]]:
    """Distribution -> the SHA-256 of its archives."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return {
        canonicalize_name(line.split("==")[0]): re.findall(r"sha256:([0-9a-f]+)", line)
        for line in lines
        if "==" in line
    }


def chosen(python: str, pinned: Mapping[str, str], *, public: bool = False) -> Iterator[tuple[str, str, str]]:
    """Name, version and SHA-256 of the archives that pip would install for a Python.

    Args:
        python: its version.
        pinned: distribution -> version.
        public: leave out what this machine's settings of pip add to what is published.

    Raises:
        subprocess.CalledProcessError: pip cannot find one.
    """
    own = python == f"{sys.version_info.major}.{sys.version_info.minor}"
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""} if public else {}
    with tempfile.TemporaryDirectory() as place:
        wanted, report = Path(place) / "wanted.txt", Path(place) / "report.json"
        named = {name: version for name, version in pinned.items() if own or name not in SOURCE_ALONE}
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in named.items()))
        other = () if own else ("--python-version", python, "--only-binary", ":all:", "--target", place)
        subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
                "--report", str(report), *other, "--requirement", str(wanted),
            ],
            check=True, env={**os.environ, **settings},
        )  # fmt: skip
        for one in json.loads(report.read_text())["install"]:
            sha256 = one["download_info"]["archive_info"]["hashes"]["sha256"]
            yield canonicalize_name(one["metadata"]["name"]), one["metadata"]["version"], sha256


def main() -> None:
    """Write the file."""
    versions: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    pinned = pins()
    several = {SEVERAL_BUILDS: pinned[SEVERAL_BUILDS]}
    for python in PYTHONS:
        for name, version, sha256 in (*chosen(python, pinned), *chosen(python, several, public=True)):
            versions[name] = Version(version).public  # a local build's name would leave out the public one
            found.setdefault(name, set()).add(sha256)
    lines = [
        f"{name}=={versions[name]} " + " ".join(f"\\\n    --hash=sha256:{sha256}" for sha256 in sorted(sums))
        for name, sums in sorted(found.items())
    ]
    head = HEAD.format(pythons=", ".join(PYTHONS), platform=f"{sys.platform} {platform.machine()}")
    LOCK.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
