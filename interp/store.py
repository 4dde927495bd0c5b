"""Finished cells on disk, so that an interrupted sweep goes on where it stopped and a finished one costs nothing again.

A store is a directory; what a sweep finds is in one file there, named by the hash of everything that its numbers depend
on. The file begins with those facts as one line of JSON; finished rows follow, appended as they come. A row that was
being written when the process ended is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.errors import InterpError

ROW = np.dtype([("cell", "<i4"), ("prompt", "<i4"), ("value", "<f8")])
"""One finished row; cells below 0 are numbers of the unchanged runs."""

SCHEMA = 1


@dataclass(frozen=True)
class Rows:
    """Finished rows, each once.

    Attributes:
        cell: [row] which cell; -1 and -2 are the metric of the run that is changed and of the other one.
        prompt: [row] which prompt.
        value: [row] the metric.
    """

    cell: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]
    value: Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Journal:
    """The file of one sweep."""

    path: Path
    facts: str

    def read(self) -> Rows:
        """What is finished; the last entry of a row counts.

        Raises:
            InterpError: the file is not such a file, or of other facts.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise InterpError(f"{self.path} cannot be read ({error.strerror or error}). Give another store.") from error
        head, newline, body = content.partition(b"\n")
        if content and (not newline or head.decode("utf-8", "replace") != self.facts):
            raise InterpError(f"{self.path} is not the journal of this sweep. Delete it, or give another store.")
        rows = np.frombuffer(body[: len(body) // ROW.itemsize * ROW.itemsize], dtype=ROW)
        key = (rows["cell"].astype(np.int64) << 32) + rows["prompt"]
        _, last = np.unique(key[::-1], return_index=True)
        rows = rows[::-1][last]
        return Rows(rows["cell"].astype(np.int64), rows["prompt"].astype(np.int64), rows["value"].astype(np.float64))

    def append(
        self,
        cell: Int[np.ndarray, " row"] | int,
        prompt: Int[np.ndarray, " row"],
        value: Float[np.ndarray, " row"],
    ) -> None:
        """Add finished rows.

        Raises:
            InterpError: the file cannot be written.
        """
        rows = np.empty(len(prompt), dtype=ROW)
        rows["cell"], rows["prompt"], rows["value"] = cell, prompt, value
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
                size = file.seek(0, os.SEEK_END)
                head = len(self.facts.encode()) + 1
                if size == 0:
                    file.write(self.facts.encode() + b"\n")
                elif (size - head) % ROW.itemsize:
                    file.seek(head + (size - head) // ROW.itemsize * ROW.itemsize)  # over a row that was cut short
                file.write(rows.tobytes())
        except OSError as error:
            raise InterpError(
                f"The store cannot write {self.path} ({error.strerror or error}). Free space or give another directory."
            ) from error


@dataclass(frozen=True)
class Store:
    """A directory of journals. Any number of sweeps may share one; deleting it loses nothing but time."""

    directory: Path

    @classmethod
    def at(cls, directory: Store | str | os.PathLike[str]) -> Store:
        """The store in a directory, made when first written; a store is itself.

        Raises:
            InterpError: it is a file.
        """
        if isinstance(directory, Store):
            return directory
        path = Path(directory)
        if path.exists() and not path.is_dir():
            raise InterpError(f"The store {path} is a file. Name a directory.")
        return cls(path)

    def journal(self, facts: Mapping[str, Any]) -> Journal:
        """The journal of whatever these facts (strings and numbers) determine."""
        text = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, ensure_ascii=True)
        return Journal(self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.rows", text)
