"""What is made for one model and kept in a file: whose it is, how it is written, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import _files
from interp.errors import InterpError

if TYPE_CHECKING:
    from interp.model import HookedTransformer

WRONG = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, StopIteration)
"""What reading the facts of a damaged file may raise."""

FINGERPRINT = ("weights_sha256", "config_sha256", "numerics")
"""What must be equal of two models for what was made for one to mean the same in the other."""


def fingerprint(model: HookedTransformer, names: Sequence[str] = FINGERPRINT) -> dict[str, str]:
    """Name and fingerprint of a model, as its provenance states them."""
    stated = model.provenance()
    return {name: str(stated[name]) for name in ("model", *names)}


def differing(model: HookedTransformer, stated: Mapping[str, Any], names: Sequence[str] = FINGERPRINT) -> list[str]:
    """The parts of the fingerprint that a file states otherwise than the model."""
    own = fingerprint(model, names)
    return [name for name in names if stated.get(name) != own[name]]


def write(path: str | Path, content: bytes) -> Path:
    """Write a file whole, in a directory that is made if there is none.

    Raises:
        InterpError: it cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _files.write(target, content)
    except OSError as error:
        raise InterpError(f"Cannot write {target}: {_files.why(error)}. Choose another place.") from error
    return target


def read(path: str | Path, what: str, writer: str) -> bytes:
    """The bytes of a file that ``writer`` wrote.

    Raises:
        InterpError: it cannot be read.
    """
    file = Path(path)
    try:
        return _files.read(file)
    except OSError as error:
        raise InterpError(
            f"Cannot read the {what} {file}: {_files.why(error)}. Name a file that {writer} wrote."
        ) from error


def header(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is said beside the tensors, as the metadata of a safetensors file."""
    return {"interp": json.dumps(facts)}


def told(content: bytes) -> dict[str, Any]:
    """What ``header`` put into the bytes of a safetensors file; raises whatever is wrong with them."""
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    found: dict[str, Any] = json.loads(metadata["interp"])
    return found
