"""What a run says of itself in ``manifest.json``, read and checked: it may come from anyone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp import _files
from interp._names import component
from interp.errors import InterpError

AT_MOST = 50_000_000
"""Bytes of a manifest that are read; thousands of dropped prompts take less."""

SCHEMA_VERSION = "1"
"""How a run's directory is laid out. Earlier manifests, which state none, are read as this one."""

_KINDS: dict[str, tuple[type, ...]] = {
    "schema_version": (str,),
    "status": (str,),
    "command": (str, list),
    "created_at": (str,),
    "versions": (dict,),
    "machine": (dict,),
    "engine": (dict,),
    "model": (dict,),
    "study": (str,),
    "task": (str,),
    "language": (str,),
    "task_sha256": (str,),
    "rungs": (list,),
    "n": (int,),
    "n_explained": (int,),
    "seed": (int,),
    "main_rung": (str,),
    "explained_rung": (str, type(None)),
    "skipped_rungs": (dict,),
    "drops": (list,),
    "timings": (dict,),
    "code_sha256": (str,),
    "results": (dict,),
    "not_asked": (dict,),
    "peak_memory_bytes": (int, type(None)),
}


def read(directory: Path) -> dict[str, Any]:
    """The manifest of a run's directory; empty if there is none.

    Raises:
        InterpError: it is no JSON mapping, what it says is of the wrong kind, or its schema version is another; names
            the file and the key.
    """
    path = directory / "manifest.json"
    try:
        content = json.loads(_files.read(path, at_most=AT_MOST))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _damaged(path, _files.why(error)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(
            path, "it is not JSON" if isinstance(error, ValueError) else "it is nested too deeply"
        ) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it is a {type(content).__name__}, not a mapping")
    for key, kinds in _KINDS.items():
        if key in content and (not isinstance(content[key], kinds) or isinstance(content[key], bool)):
            raise _damaged(path, f"'{key}' is a {type(content[key]).__name__}")
    version = content.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise InterpError(
            f"{path} has schema version {version}, this library reads {SCHEMA_VERSION}. Read it with the version of "
            "interp that wrote it, or run the study in another directory."
        )
    for name, entry in content.get("results", {}).items():
        _check_entry(path, name, entry)
    return content


def _check_entry(path: Path, name: str, entry: object) -> None:
    component(name, f"The name of a result in {path}")
    if not isinstance(entry, Mapping):
        raise _damaged(path, f"its result '{name}' is a {type(entry).__name__}")
    if not isinstance(entry.get("key"), str) or not isinstance(entry.get("files"), list):
        raise _damaged(path, f"its result '{name}' lacks a key or a list of files")
    seconds = entry.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
        raise _damaged(path, f"the seconds of its result '{name}' are a {type(seconds).__name__}")
    for file in entry["files"]:
        component(file, f"A file of '{name}' in {path}")


def _damaged(path: Path, why: str) -> InterpError:
    return InterpError(f"{path} is damaged: {why}. Restore it, or run the study in another directory.")
