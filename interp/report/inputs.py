"""A run's directory, read and checked: the only place of the report that opens files of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp import _files, _yaml, results, summary, tasks
from interp.errors import InterpError
from interp.language import LANGUAGES, Foreign, is_spanish, key, say_stored, spoken
from interp.prompts.template import ANSWER
from interp.report import manifest

MOST_BYTES = 2**24
"""Bytes; this library writes no manifest or study that is longer."""


@contextlib.contextmanager
def made_by_anyone(*directories: Path, undone: str = "drawn") -> Iterator[None]:
    """Results that came from elsewhere may have any shape: what cannot be done with them is the input's fault.

    A run that draws its own results has no such excuse; its failure is one of this library, with a log.

    Args:
        directories: where the results are.
        undone: what cannot be done with them.

    Raises:
        InterpError: names the directories; the cause is attached.

    >>> with made_by_anyone(Path("run")):
    ...     [][0]
    Traceback (most recent call last):
    interp.errors.InterpError: run cannot be drawn: a result in it has other contents than this version ...
    """
    try:
        yield
    except (InterpError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        named, they = " and ".join(map(str, directories)), "it" if len(directories) == 1 else "one of them"
        raise InterpError(
            f"{named} cannot be {undone}: a result in {they} has other contents than this version of interp writes "
            f"({type(error).__name__}: {lines[0][:200]}). Run the study again with this version."
        ) from error


@dataclass(frozen=True)
class Result:
    """One result file, whose variables are asked for by name and dims.

    Attributes:
        name: file name without ``.nc``.
        data: the validated dataset.
    """

    name: str
    data: xr.Dataset

    @property
    def file(self) -> str:
        """The file's path inside the run's directory, as error messages and captions give it."""
        return f"results/{self.name}.nc"

    def has(self, *names: str) -> bool:
        """Whether every one of these variables or coordinates is there."""
        return all(name in self.data.variables for name in names)

    def need(self, name: str, *dims: str) -> xr.DataArray:
        """A variable with its dims in this order.

        Raises:
            InterpError: names the file and the variable that is missing or has other dims.
        """
        if name not in self.data.variables:
            raise InterpError(f"{self.file} has no variable '{name}'; run the study again with this version of interp.")
        array = self.data[name]
        if set(array.dims) != set(dims):
            raise InterpError(
                f"{self.file}: variable '{name}' has dims ({', '.join(map(str, array.dims))}), "
                f"expected ({', '.join(dims)}); run the study again with this version of interp."
            )
        return array.transpose(*dims)

    def summary(self, name: str, *dims: str, over: str = "prompt") -> xr.Dataset:
        """The summary of a variable over one of its dims (``interp.summary.of``), the other dims in this order.

        Raises:
            InterpError: as ``need``.
        """
        self.need(name, *dims)
        return summary.of(self.data, name, over).transpose(*(dim for dim in dims if dim != over))

    def units(self, name: str) -> str:
        """The units of a variable."""
        return str(self.data[name].attrs["units"])

    def labels(self, name: str) -> tuple[str, ...]:
        """A one-dimensional variable or coordinate as strings; a dimension without one counts from 0."""
        if name not in self.data.variables and name in self.data.sizes:
            return tuple(str(i) for i in range(self.data.sizes[name]))
        if name not in self.data.variables:
            raise InterpError(
                f"{self.file} has no coordinate '{name}'; run the study again with this version of interp."
            )
        return tuple(str(value) for value in np.atleast_1d(self.data[name].values))

    @property
    def of_weights(self) -> bool:
        """Whether it was computed from the model's weights alone, without a prompt."""
        return bool(self.data.attrs.get("n_prompts") == 0)

    def attr(self, name: str, default: str = "") -> str:
        """An attribute as text."""
        return str(self.data.attrs.get(name, default))

    def said(self, name: str) -> str:
        """An attribute that is a sentence, in the language spoken now; in English where the result has no other."""
        return self.attr(key(name, spoken())) or self._told(self.attr(name))

    def _told(self, text: str) -> str:
        written = self.attr("language", LANGUAGES[0])
        told = text if written == spoken() else say_stored(text)
        return Foreign(text, written) if told == text else told

    def said_labels(self, name: str) -> tuple[str, ...]:
        """``labels`` that are sentences, in the language spoken now where the result has them in it."""
        own = key(name, spoken())
        if own in self.data.variables:
            return self.labels(own)
        return tuple(self._told(text) for text in self.labels(name))

    def need_attr(self, name: str) -> Any:
        """An attribute the page cannot do without.

        Raises:
            InterpError: names the file and the attribute.
        """
        if name not in self.data.attrs:
            raise InterpError(
                f"{self.file} has no attribute '{name}'; run the study again with this version of interp."
            )
        return self.data.attrs[name]


@dataclass(frozen=True)
class RunInputs:
    """Everything the page is made from.

    Attributes:
        files: result name -> result, as the manifest lists them, then any other in alphabetical order.
        manifest: ``manifest.json``, empty if there is none.
        study: ``study.yaml`` as a mapping, empty if there is none.
        study_text: ``study.yaml`` as written.
    """

    files: Mapping[str, Result]
    manifest: Mapping[str, Any]
    study: Mapping[str, Any]
    study_text: str

    def get(self, name: str) -> Result | None:
        """A result by name, if the run has it."""
        return self.files.get(name)

    @property
    def explaining(self) -> tuple[str, ...]:
        """The results that explain a behaviour; they are withheld when there is none."""
        return tuple(name for name in self.files if name not in ("behavior", "verdict"))

    @property
    def own_roles(self) -> frozenset[str]:
        """The roles of a task that a user wrote: their names stay theirs."""
        task = self.manifest.get("task")
        if task is None or task in tasks.names():
            return frozenset()
        named = (result.labels("role") for result in self.files.values() if result.has("role"))
        return frozenset(role for roles in named for role in roles) - {ANSWER}

    @property
    def language(self) -> str:
        """The language of the prompts, as the task says it; empty where nothing does."""
        return str(self.manifest.get("language") or self.first_attr("language"))

    def stated(self, name: str) -> str:
        """What the study says of itself, in the language spoken now if that is known."""
        text = str(self.study.get(name) or "")
        told = say_stored(text)
        return Foreign(text, "es" if is_spanish(text) else LANGUAGES[0]) if told == text else told

    def first_said(self, name: str, files: Iterable[str]) -> str:
        """``first_attr`` of a sentence, in the language spoken now if that is known."""
        found = (result.said(name) for key in files if (result := self.files.get(key)))
        return next((text for text in found if text), "")

    def first_attr(self, name: str, files: Iterable[str] | None = None) -> str:
        """The first non-empty value of an attribute over some results, by default all; empty if none has it."""
        found = (result.attr(name) for key in files or self.files if (result := self.files.get(key)))
        return next((value for value in found if value), "")


def read(directory: Path) -> RunInputs:
    """Read and validate a run's directory.

    Raises:
        InterpError: no such directory, no results in it, an incomplete result, or a manifest or study that is
            not a JSON or YAML mapping; the message names the file.
    """
    if not directory.is_dir():
        raise InterpError(f"{directory} is not a directory; give the directory that 'interp run' wrote.")
    found = {path.stem: path for path in sorted((directory / "results").glob("*.nc"))}
    if not found:
        raise InterpError(f"{directory} holds no results/*.nc; give the directory that 'interp run' wrote.")
    files = {name: _result(name, path) for name, path in found.items()}
    study_path = directory / "study.yaml"
    study, text = _mapping(study_path, lambda text: _yaml.parse(text, study_path.name))
    said = manifest.read(directory)
    listed = [name for entry in said.get("results", {}).values() for name in entry["files"] if name in files]
    return RunInputs({name: files[name] for name in dict.fromkeys((*listed, *files))}, said, study, text)


def _result(name: str, path: Path) -> Result:
    try:
        return Result(name, results.load(path))
    except InterpError as error:
        message = str(error)
        if path.name not in message:
            message = f"results/{path.name}: {message}"
        raise InterpError(message) from error


def _mapping(path: Path, parse: Callable[[str], object]) -> tuple[Mapping[str, Any], str]:
    """What a file of the run holds, and its text; nothing if there is no such file."""
    if not os.path.lexists(path):
        return {}, ""
    try:
        text = _files.read(path, at_most=MOST_BYTES).decode("utf-8")
        value = parse(text)
    except OSError as error:
        raise InterpError(
            f"{path.name} cannot be read ({_files.why(error)}); restore it or run the study again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InterpError(f"{path.name} cannot be read ({error}); restore it or run the study again.") from error
    if not isinstance(value, Mapping):
        raise InterpError(f"{path.name} must hold a mapping, not a {type(value).__name__}; run the study again.")
    return value, text
