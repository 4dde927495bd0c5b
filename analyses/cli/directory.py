"""A run's directory: its default name, who holds it, and what is written, set aside or removed in it.

Nothing finished is removed. A result that is not the study's any more goes to ``earlier/`` and comes back when it is
asked for again. Only this command's own names are touched, and links inside the directory are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp import _files
from interp._names import component
from interp.errors import InterpError

if TYPE_CHECKING:
    import xarray as xr

log = logging.getLogger("interp.cli")

MANIFEST, STUDY = "manifest.json", "study.yaml"
PAGES = ("report.html", "report.json")
FAILURE_LOG = "failure.log"
LOCK = "run.lock"
RESULTS, EARLIER = "results", "earlier"

KEY = "run_key"
"""The attribute of a result that holds the hash of all that it depends on."""

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_KEY_FORM = re.compile(r"[0-9a-f]{64}")
_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL})


# --- where a run goes unless it is told ---


def default_out(name: str, model: str, changed: tuple[str, ...] = ()) -> Path:
    """The directory of a run: under ``reports``, the study, the model, and what was changed on the command line.

    Models of one name in two places have two directories: a path goes in as its last part and a short hash of the
    whole. One model in two spellings of its path has one.

    Raises:
        InterpError: a study of this name can have no directory.
    """
    return Path("reports") / "-".join([component(name, "The study's name"), *_model_words(model), *changed])


def _model_words(model: str) -> list[str]:
    if model == "mini":
        return []
    path = Path(model).expanduser()
    if _HUB_NAME.fullmatch(model) and not os.path.exists(path):
        return [model.replace("/", "--")]
    whole = os.path.realpath(path)
    last = re.sub(r"[^\w.-]+", "_", Path(whole).name.removesuffix(".gguf"))[:60]
    return [last or "model", hashlib.sha256(os.fsencode(whole)).hexdigest()[:6]]


# --- who holds it ---


@contextlib.contextmanager
def held(out: Path, command: str) -> Iterator[None]:
    """Hold a directory for as long as the block takes; it is made, and taken away again if nothing was written.

    The lock goes with the process, however that ends.

    Raises:
        InterpError: it is a file, cannot be written, or another process holds it.
    """
    made: list[Path] = []
    handle: int | None = None
    try:
        with refusing(out):
            for directory in (*reversed(out.parents), out):
                if not directory.is_dir():
                    directory.mkdir(exist_ok=True)  # another run may make it at the same time
                    made.append(directory)
            handle = _lock(out / LOCK, command)
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                if _is_still_at(handle, out / LOCK):
                    (out / LOCK).unlink()
            os.close(handle)
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # it holds something now
                directory.rmdir()


@contextlib.contextmanager
def refusing(out: Path) -> Iterator[None]:
    """What the system says against a directory becomes one line."""
    try:
        yield
    except InterpError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: a path with a NUL
        why = _files.why(error) if isinstance(error, OSError) else str(error)
        raise InterpError(f"{out} cannot be written ({why}); name another directory.") from error


def refuse_foreign(out: Path) -> None:
    """Find out, before anything is touched, that a directory is a run's, or empty, or not there yet.

    Raises:
        InterpError: it holds something else.
    """
    with refusing(out):
        if out.exists() and not out.is_dir():
            raise InterpError(f"--out {out} is a file; name a new directory.")
        if not out.is_dir():
            return
        here = set(out.iterdir()) - set(_files.unfinished(out)) - {out / LOCK}
        if here and not (out / MANIFEST).is_file():
            raise InterpError(f"--out {out} is not empty and holds no run; name a new or empty directory.")


def refuse_used(out: Path) -> None:
    """Find out that a directory is not there yet or empty, and say what is in it otherwise.

    Raises:
        InterpError: it is a file, or holds something; an earlier explanation is named by its question.
    """
    with refusing(out):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        if not out.is_dir():
            raise InterpError(f"{out} is a file. Name a new directory.")
        question = _question_of(out)
    if question:
        raise InterpError(
            f"{out} holds an explanation already: {question} Name another directory, or run 'interp report "
            f"{shlex.quote(str(out))}' to draw that one again."
        )
    raise InterpError(f"{out} is not an empty directory. Name another one.")


def _question_of(out: Path) -> str:
    """What the explanation in a directory asks; empty where there is none."""
    from interp import results

    for name in ("reach", "influences"):
        path = out / RESULTS / f"{name}.nc"
        if path.is_file():
            with contextlib.suppress(InterpError):
                return str(results.load(path).attrs.get("question", ""))
    return ""


def _lock(path: Path, command: str) -> int:
    """Lock a file and write down who holds it; the lock lasts while the handle is open."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock_handle(handle, path)
            if _is_still_at(handle, path):  # not the file of a run that has just ended and removed it
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(_me(command)).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock_handle(handle: int, path: Path) -> None:
    if sys.platform == "win32":  # has no such lock: two runs on one directory are not noticed there
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InterpError(
            f"{path.parent} is in use: {_holder(handle)}. Wait until that ends, or name another directory."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        log.warning("%s is on a file system without locks: two runs there are not noticed", path.parent)


def _is_still_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _me(command: str) -> dict[str, str | int]:
    from interp.results import now

    return {"pid": os.getpid(), "host": platform.node(), "started": now(), "command": command}


def is_held(out: Path) -> bool:
    """Whether another process holds a run's directory. Nothing is written."""
    return not (out / LOCK).is_symlink() and is_locked(out / LOCK)


def is_locked(path: Path) -> bool:
    """Whether a process has a lock on a file or directory; False where it is not there, or there are no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _holder(handle: int) -> str:
    """Who wrote the lock's file, in words."""
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        said = f"process {who['pid']} on {who['host']} writes there since {who['started']} ({who['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process writes there"
    return said[:300]


# --- what is in it ---


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run, held by this process.

    Attributes:
        path: where it is.
        load: reads a result; raises InterpError if it is absent or damaged.
        save: writes one.
        note: is told what is set aside, and what is damaged.
    """

    path: Path
    load: Callable[[Path], xr.Dataset]
    save: Callable[[xr.Dataset, Path], object]
    note: Callable[[str], None]

    def tidy(self) -> None:
        """Remove what a killed run left unfinished.

        Raises:
            InterpError: a part of the directory lies elsewhere.
        """
        with refusing(self.path):
            for folder in (self.path / RESULTS, self.path / EARLIER):
                if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                    raise InterpError(
                        f"{folder} is no directory of its own, and a run writes only into its directory. "
                        "Remove it, or name another directory with --out."
                    )
            for folder in (self.path, self.path / RESULTS, self.path / EARLIER):
                for path in _files.unfinished(folder) if folder.is_dir() else ():
                    path.unlink(missing_ok=True)

    def result(self, file: str) -> Path:
        """Where a result is."""
        return self.path / RESULTS / f"{component(file, 'The name of a result')}.nc"

    def results(self) -> list[str]:
        """The results that are there, whatever they are worth."""
        return sorted(path.stem for path in (self.path / RESULTS).glob("*.nc"))

    def write(self, name: str, text: str) -> None:
        """Write a file of the run.

        Raises:
            InterpError: it cannot be written.
        """
        path = self.path / name
        try:
            _files.write(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise cannot_write(path, error) from error

    def keep(self, file: str, dataset: xr.Dataset, key: str) -> xr.Dataset:
        """Save a result under its key and return it as saved.

        Raises:
            InterpError: it cannot be written.
        """
        keyed = dataset.assign_attrs({KEY: key})
        self._drop_pages()
        try:
            self.result(file).parent.mkdir(exist_ok=True)  # fails if the run's directory has gone
        except OSError as error:
            raise cannot_write(self.result(file), error) from error
        self.save(keyed, self.result(file))
        return keyed

    def find(self, file: str, key: str) -> xr.Dataset | None:
        """The result under a key, brought back if it was set aside; None if it is not there or damaged."""
        current = self._read(self.result(file), self.note)
        if _key_of(current) == key:
            return current
        aside = self._aside(file, key)
        before = self._read(aside, self.note)
        if _key_of(before) != key:
            return None
        self.set_aside(file)
        self._move(aside, self.result(file))
        return before

    def has(self, file: str, key: str) -> bool:
        """Whether there is a result under a key, in its place or set aside; nothing is moved."""
        return any(_key_of(self._read(path, log.info)) == key for path in (self.result(file), self._aside(file, key)))

    def set_aside(self, file: str) -> None:
        """Move a result, if it is there, to where it is kept but not shown."""
        path = self.result(file)
        if not os.path.lexists(path):
            return
        aside = self._aside(file, _key_of(self._read(path, log.info)) or f"unknown-{secrets.token_hex(4)}")
        self._move(path, aside)
        self.note(f"{path.name} is of other settings or code: kept as {EARLIER}/{aside.name}")

    def clear_log(self) -> None:
        """Take away what an earlier failure left to read."""
        (self.path / FAILURE_LOG).unlink(missing_ok=True)

    def forget(self) -> None:
        """Take away what a run writes before its first result; for a run that came to nothing."""
        with contextlib.suppress(OSError):
            (self.path / STUDY).unlink(missing_ok=True)
            if (self.path / RESULTS).is_dir():
                (self.path / RESULTS).rmdir()
            (self.path / MANIFEST).unlink(missing_ok=True)  # last: while anything is there, it says what that is

    def _aside(self, file: str, key: str) -> Path:
        return self.path / EARLIER / f"{file}.{key[:16]}.nc"

    def _read(self, path: Path, tell: Callable[[str], None]) -> xr.Dataset | None:
        if not os.path.lexists(path):
            return None
        try:
            return self.load(path)
        except InterpError as error:
            tell(str(error))
            return None

    def _move(self, path: Path, target: Path) -> None:
        self._drop_pages()
        try:
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        except OSError as error:
            raise cannot_write(target, error) from error
        _files.sync_directory(target.parent)
        _files.sync_directory(path.parent)

    def _drop_pages(self) -> None:
        """A page shows the results as they were: it goes when one of them does. Drawing it again is quick."""
        for name in PAGES:
            (self.path / name).unlink(missing_ok=True)


def _key_of(dataset: xr.Dataset | None) -> str:
    """The key that a result was saved under; empty if there is none that this command could have written."""
    key = "" if dataset is None else str(dataset.attrs.get(KEY, ""))
    return key if _KEY_FORM.fullmatch(key) else ""


def cannot_write(path: Path, error: OSError) -> InterpError:
    """The one line for a file that cannot be written: what is finished is kept, and the same command goes on."""
    mend = "Free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make it writable"
    return InterpError(
        f"Cannot write {path} ({_files.why(error)}). {mend} and run the same command again: it goes on from there."
    )
