"""``interp runs`` and ``interp gc``: what is on the disk, and taking away what is named.

Only what this tool writes is counted and removed, by name. Links are not followed, and what someone else put into a
directory stays, with the directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from analyses.cli import directory as directories
from analyses.cli.directory import EARLIER, FAILURE_LOG, LOCK, MANIFEST, PAGES, RESULTS, STUDY
from interp import _files
from interp.errors import InterpError
from interp.stored import ARRAYS, FINISHED, INDEX

Kind: TypeAlias = Literal["run", "explanation", "capture", "store"]
State: TypeAlias = Literal["done", "running", "stopped", "damaged"]

ANSWERS = ("reach", "influences")
"""A directory without a manifest that holds one of these results is an explanation's."""

_CELLS = re.compile(r"[0-9a-f]{32}\.rows")
_FIGURES = "figures"

_OURS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "run": {
        "": (MANIFEST, STUDY, *PAGES, FAILURE_LOG, LOCK),
        RESULTS: ("*.nc",),
        EARLIER: ("*.nc",),
        _FIGURES: ("*.svg", "*.png"),
    },
    "explanation": {"": (*PAGES, FAILURE_LOG, LOCK), RESULTS: ("*.nc",), _FIGURES: ("*.svg", "*.png")},
    "capture": {"": (INDEX, FINISHED), ARRAYS: ("*.npy",)},
    "store": {"": ("*.rows",)},
}
"""Folder of a directory of each kind -> the names that this tool writes there."""


@dataclass(frozen=True)
class Kept:
    """What a directory holds.

    Attributes:
        path: the directory.
        kind: what wrote it.
        what: the study or the question.
        model: its model, as far as it says.
        state: done; running: another process is at work there; stopped: it goes on when it is asked for again; damaged:
            something in it is missing or was changed.
        files: everything of ours in it.
        size: bytes of these.
        changed: when one of them last changed, in seconds since 1970.
    """

    path: Path
    kind: Kind
    what: str
    model: str
    state: State
    files: tuple[Path, ...]
    size: int
    changed: float


def found(root: Path) -> Iterator[Kept]:
    """Every directory of ours at and below a directory, by name; links are not followed.

    Raises:
        InterpError: there is no such directory.
    """
    if not root.is_dir():
        raise InterpError(f"There is no directory {root}. Name one, or run a study: it writes to reports/.")
    for folder, below, _ in os.walk(root):
        below.sort()
        one = kept_in(Path(folder))
        if one is not None:
            below[:] = [name for name in below if name not in _OURS[one.kind]]
            yield one


def kept_in(path: Path) -> Kept | None:
    """What a directory holds; None where it is none of ours.

    Raises:
        InterpError: it cannot be read.
    """
    with directories.refusing(path):
        kind = _kind(path)
        if kind is None:
            return None
        files = tuple(_ours(path, kind))
        seen = [os.lstat(file) for file in files]
        what, model, state = _LOOKS[kind](path)
        size, changed = sum(one.st_size for one in seen), max((one.st_mtime for one in seen), default=0.0)
        return Kept(path, kind, what, model, state, files, size, changed)


def _kind(path: Path) -> Kind | None:
    if _is_plain(path / MANIFEST):
        return "run"
    if _is_plain(path / INDEX):
        return "capture"
    if not (path / RESULTS).is_symlink() and any(_is_plain(path / RESULTS / f"{name}.nc") for name in ANSWERS):
        return "explanation"
    return "store" if any(_CELLS.fullmatch(one.name) and _is_plain(one) for one in path.glob("*.rows")) else None


def _is_plain(path: Path) -> bool:
    """Whether there is a file of this name, which is no link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _ours(path: Path, kind: Kind) -> Iterator[Path]:
    """The plain files of ours in a directory, with what was left unfinished."""
    for folder, names in _OURS[kind].items():
        place = path / folder
        if place.is_symlink() or not place.is_dir():
            continue
        listed = [one for name in names for one in sorted(place.glob(name))]
        if kind == "store":
            listed = [one for one in listed if _CELLS.fullmatch(one.name)]
        yield from filter(_is_plain, dict.fromkeys((*listed, *_files.unfinished(place))))


# --- what each kind says of itself ---


def _run(path: Path) -> tuple[str, str, State]:
    from interp import results
    from interp.report import manifest

    try:
        said = manifest.read(path)
    except InterpError:
        return "", "", "damaged"
    what, model = str(said.get("study", "")), str(said.get("model", {}).get("name", ""))
    if directories.is_held(path):
        return what, model, "running"
    files = [path / RESULTS / f"{name}.nc" for entry in said.get("results", {}).values() for name in entry["files"]]
    if not all(_is_plain(file) and results.is_sealed(_files.read(file)) for file in files):
        return what, model, "damaged"
    return what, model, "done" if said.get("status") == "done" else "stopped"


def _explanation(path: Path) -> tuple[str, str, State]:
    from interp import results

    for name in ANSWERS:
        if _is_plain(path / RESULTS / f"{name}.nc"):
            try:
                attrs = results.load(path / RESULTS / f"{name}.nc").attrs
            except InterpError:
                return "", "", "damaged"
            return str(attrs.get("question", "")), str(attrs.get("model", "")), "done"
    return "", "", "damaged"


def _capture(path: Path) -> tuple[str, str, State]:
    from interp.captures import Capture

    try:
        made = Capture.look(path)
    except InterpError:
        return "", "", "damaged"
    what, model = f"{made.n_prompts} prompts of {', '.join(made.sites)}", str(made.told["attrs"].get("model", ""))
    if directories.is_locked(path / ARRAYS):
        return what, model, "running"
    return what, model, "done" if len(made.finished(check=False)) == made.n_shards else "stopped"


def _store(path: Path) -> tuple[str, str, State]:
    models = set()
    for file in sorted(path.glob("*.rows")):
        if _CELLS.fullmatch(file.name) and _is_plain(file):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                with open(file, "rb") as opened:
                    models.add(str(json.loads(opened.readline(1 << 20)).get("model", "")))
    return "finished cells of sweeps", ", ".join(sorted(filter(None, models))), "done"


_LOOKS: dict[Kind, Callable[[Path], tuple[str, str, State]]] = {
    "run": _run,
    "explanation": _explanation,
    "capture": _capture,
    "store": _store,
}


# --- telling, and taking away ---

HEADER = ("directory", "kind", "study or question", "model", "state", "size", "age")


def row(one: Kept) -> tuple[str, ...]:
    """A directory as a row under ``HEADER``."""
    what = one.what if len(one.what) <= 60 else f"{one.what[:57]}..."
    return str(one.path), one.kind, what, one.model, one.state, in_bytes(one.size), age(time.time() - one.changed)


def in_bytes(size: int) -> str:
    """Bytes in words."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"


def age(seconds: float) -> str:
    """How long ago, in the largest unit that fits."""
    for unit, least in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= least:
            return f"{int(seconds // least)} {unit}"
    return "now"


def removable(paths: Sequence[Path]) -> list[Kept]:
    """What is in directories that are to be removed; each is looked at before any is touched.

    Raises:
        InterpError: one is a link, is not there, holds nothing of ours, or another process is at work in it.
    """
    listed: dict[str, Kept] = {}
    for path in paths:
        if path.is_symlink():
            raise InterpError(f"{path} is a link. Name the directory that it leads to. Nothing was removed.")
        if not path.is_dir():
            raise InterpError(f"There is no directory {path}. 'interp runs' lists what there is. Nothing was removed.")
        one = kept_in(path)
        if one is None:
            inside = [str(each.path) for each in found(path)]
            hint = f" Name what is in it: {', '.join(inside[:5])}." if inside else ""
            raise InterpError(f"{path} holds no run, explanation, capture or store.{hint} Nothing was removed.")
        if one.state == "running":
            raise InterpError(f"Another process is at work in {path}. Wait until it ends. Nothing was removed.")
        listed.setdefault(os.path.realpath(path), one)
    return list(listed.values())


def remove(one: Kept, command: str) -> str:
    """Take away what is ours in a directory, and the directory if it is empty then; says what was left.

    What says that the directory is ours goes last, so that what was interrupted can be removed again.

    Raises:
        InterpError: another process came to work there, or a file cannot be removed.
    """
    first = (MANIFEST, INDEX)
    with contextlib.ExitStack() as holding, directories.refusing(one.path):
        if one.kind in ("run", "explanation"):
            holding.enter_context(directories.held(one.path, command))
        elif one.kind == "capture" and (one.path / ARRAYS).is_dir():
            if directories.is_locked(one.path / ARRAYS):
                raise InterpError(f"Another process is at work in {one.path}. It was not removed.")
        for path in sorted(one.files, key=lambda path: path.name in first):
            if path.name != LOCK and _is_plain(path):
                path.unlink()
    with directories.refusing(one.path):
        for name in _OURS[one.kind]:
            if name and not (one.path / name).is_symlink():
                with contextlib.suppress(OSError):  # it holds something else
                    (one.path / name).rmdir()
        left = sorted(path.name for path in one.path.iterdir())
        if left:
            return f"{one.path} stays: it also holds {', '.join(left[:5])}{' and more' if len(left) > 5 else ''}."
        one.path.rmdir()
    return f"Removed {one.path}."
