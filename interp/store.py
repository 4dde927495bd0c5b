"""Finished cells on disk, so that an interrupted sweep goes on where it stopped and a finished one costs nothing again.

A store is a directory; what a sweep finds is in one file there, named by the hash of everything that its numbers depend
on. The file begins with those facts as one line of JSON; finished rows follow, appended as they come and synced. Each
row carries a checksum, which depends on the facts as well: a row that was cut short, altered or taken from another
sweep's file is noticed and computed again. The checksums (CRC-32) find accidents, not malice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp import _files
from interp.errors import InterpError

log = logging.getLogger(__name__)

ENTRY = np.dtype([("cell", "<i4"), ("prompt", "<i4"), ("value", "<f8")])
"""What a finished row says; cells below 0 are numbers of the unchanged runs."""

ROW = np.dtype([("entry", ENTRY), ("check", "<u4")])
"""A finished row as it is on disk. A check is never 0, so that a stretch of zero bytes is not taken for rows."""

SCHEMA = 2
"""How a journal is laid out. 1 had no checksums."""


@dataclass(frozen=True)
class Rows:
    """Finished rows, each once.

    Attributes:
        cell: [row] which cell; -1 and -2 are the metric of the run that is changed and of the other one.
        prompt: [row] which prompt.
        value: [row] the metric.

    >>> rows = Rows(np.array([-1, 0, 1]), np.array([0, 0, 0]), np.array([4.0, 1.5, 3.0]))
    >>> rows.within(n_prompts=1, n_cells=1).value.tolist()
    [4.0, 1.5]
    """

    cell: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]
    value: Float[np.ndarray, " row"]

    def within(self, n_prompts: int, n_cells: int) -> Rows:
        """The rows that a sweep of so many prompts and cells has."""
        inside = (self.prompt >= 0) & (self.prompt < n_prompts) & (self.cell >= -2) & (self.cell < n_cells)
        return Rows(self.cell[inside], self.prompt[inside], self.value[inside])


@dataclass(frozen=True)
class Journal:
    """The file of one sweep. Any number of processes may read it and append to it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     journal = Store.at(place).journal({"site": "z", "model": "mini"})
    ...     journal.append(0, np.array([0, 1]), np.array([1.5, 2.5]))  # cell 0 of prompts 0 and 1
    ...     journal.read().value.tolist()
    [1.5, 2.5]
    """

    path: Path
    facts: str

    def read(self) -> Rows:
        """What is finished; the last entry of a row counts.

        A damaged file keeps its sound rows; the log says how many were not, and they are taken out of the file.

        Raises:
            InterpError: there is something that cannot be read as a file.
        """
        try:
            rows, damaged = self._look()
            if damaged:
                rows = self._mend()
        except OSError as error:
            raise InterpError(
                f"{self.path} cannot be read ({_files.why(error)}). Remove it, or give another store."
            ) from error
        entries = rows["entry"]
        key = (entries["cell"].astype(np.int64) << 32) + entries["prompt"]
        _, last = np.unique(key[::-1], return_index=True)
        entries = entries[::-1][last]
        return Rows(
            entries["cell"].astype(np.int64), entries["prompt"].astype(np.int64), entries["value"].astype(np.float64)
        )

    def append(
        self,
        cell: Int[np.ndarray, " row"] | int,
        prompt: Int[np.ndarray, " row"],
        value: Float[np.ndarray, " row"],
    ) -> None:
        """Add finished rows; they are on the disk when this returns.

        Raises:
            InterpError: the file cannot be written; the rows that were there before still are.
        """
        rows = np.empty(len(prompt), dtype=ROW)
        entries = rows["entry"]
        entries["cell"], entries["prompt"], entries["value"] = cell, prompt, value
        rows["check"] = self._checks(rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _files.locked(self.path.parent):
                self._append(rows.tobytes())
        except OSError as error:
            raise InterpError(
                f"The store cannot write {self.path} ({_files.why(error)}). Free space or give another directory; what "
                "is finished stays."
            ) from error

    def _append(self, content: bytes) -> None:
        with open(self.path, "r+b" if self.path.exists() else "x+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            whole = max(size - len(self._head), 0) // ROW.itemsize * ROW.itemsize
            begun = size >= len(self._head)
            end = len(self._head) + whole if begun else 0
            file.seek(end)
            file.truncate()  # what was cut short
            try:
                rest = memoryview(content if begun else self._head + content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
        if not begun:
            _files.sync_directory(self.path.parent)

    @property
    def _head(self) -> bytes:
        return self.facts.encode() + b"\n"

    def _look(self) -> tuple[np.ndarray, bool]:
        """The sound rows [row] of the file as it is now, and whether it holds anything else."""
        try:
            content = _files.read(self.path)
        except FileNotFoundError:
            return np.empty(0, dtype=ROW), False
        if self._head.startswith(content):  # it has no row yet
            return np.empty(0, dtype=ROW), False
        body = content[len(self._head) :]
        rows = np.frombuffer(body[: len(body) // ROW.itemsize * ROW.itemsize], dtype=ROW)
        rows = rows[rows["check"] == self._checks(rows)]
        return rows, content != self._head + rows.tobytes()

    def _mend(self) -> np.ndarray:
        """The sound rows [row]; takes all else out of the file, unless the store cannot be written."""
        with _files.locked(self.path.parent):
            rows, damaged = self._look()  # again: the first look may have come while another process was writing
            if damaged:
                log.warning("%s was damaged: its %d sound rows are kept, others computed again.", self.path, len(rows))
                with contextlib.suppress(OSError):
                    for left in self.path.parent.glob(f".{self.path.name}.*.part"):  # by a process that was killed here
                        left.unlink()
                    _files.write(self.path, self._head + rows.tobytes())
        return rows

    def _checks(self, rows: np.ndarray) -> Int[np.ndarray, " row"]:
        """The checksum that each row ought to have. It begins from that of the facts."""
        content, start = memoryview(rows["entry"].tobytes()), zlib.crc32(self.facts.encode())
        places = range(0, len(content), ENTRY.itemsize)
        return np.fromiter((zlib.crc32(content[i : i + ENTRY.itemsize], start) or 1 for i in places), "<u4", len(rows))


@dataclass(frozen=True)
class Store:
    """A directory of journals. Any number of sweeps may share one; deleting it loses nothing but time.

    Other facts give another file, so that no sweep reads the rows of another:

    >>> store = Store.at("cells")
    >>> store.journal({"site": "z"}).path == store.journal({"site": "q"}).path
    False
    """

    directory: Path

    @classmethod
    def at(cls, directory: Store | str | os.PathLike[str]) -> Store:
        """The store in a directory, which is made when something is first written. Given a store, that store.

        Raises:
            InterpError: it is a file.
        """
        if isinstance(directory, Store):
            return directory
        try:
            path = Path(directory)
        except TypeError:
            raise InterpError(f"store is {type(directory).__name__}. Give the path of a directory.") from None
        if path.exists() and not path.is_dir():
            raise InterpError(f"The store {path} is a file. Name a directory.")
        return cls(path)

    def journal(self, facts: Mapping[str, Any]) -> Journal:
        """The journal of whatever these facts (strings and numbers) determine.

        A journal of an earlier layout is left alone; the log says that its sweep begins anew.
        """
        journal = self._laid_out(facts, SCHEMA)
        if not journal.path.exists():
            for older in (self._laid_out(facts, schema).path for schema in range(1, SCHEMA)):
                if older.exists():
                    log.warning("%s is of an earlier version: its sweep begins anew. You can delete it.", older)
        return journal

    def _laid_out(self, facts: Mapping[str, Any], schema: int) -> Journal:
        text = json.dumps({"schema": schema, **facts}, sort_keys=True, ensure_ascii=True)
        return Journal(self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.rows", text)
