"""Labelled results: build, validate, save, load.

A result is an ``xarray.Dataset`` whose every axis has a name, whose every variable has units, and whose attributes
say what was asked, of which model, on which prompts. Nothing here knows about models or plots.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import xarray as xr

from interp.errors import InterpError

SCHEMA_VERSION = "1"
ENGINE: Literal["h5netcdf"] = "h5netcdf"

REQUIRED_ATTRS = (
    "title",
    "question",
    "reading",
    "source",
    "task",
    "n_prompts",
    "seed",
    "model",
    "weights_sha256",
    "tokens_sha256",
    "schema_version",
    "library_version",
    "created_at",
)
"""Attributes without which a result is refused."""

DIMS = frozenset(
    "prompt position role layer head kv_head head_label d_model d_head neuron dest_position src_position fold site "
    "component edge ablation direction rung ci_bound group set neuron_group sender receiver approximation "
    "audited".split()
)
"""The axis names a result may carry: singular, lower case, one name per meaning."""


class Variable(NamedTuple):
    """One named array of a result: ``dims`` in order, values, and the two attributes every reader needs."""

    dims: tuple[str, ...]
    values: Any
    units: str
    long_name: str


class HasProvenance(Protocol):
    """Anything that can say where it came from, as flat attributes."""

    def provenance(self) -> dict[str, str | int]:
        """Attributes that identify this object."""
        ...


def build(
    variables: Mapping[str, Variable],
    *,
    coords: Mapping[str, Any],
    title: str,
    question: str,
    reading: str,
    source: str,
    of: Sequence[HasProvenance],
    seed: int,
    extra: Mapping[str, str | int | float] | None = None,
) -> xr.Dataset:
    """Make a validated result.

    Args:
        variables: name -> ``Variable``.
        coords: coordinates; a bare sequence is for the dimension of that name, a ``(dim, values)`` pair for another.
        title: what the result is.
        question: what it answers.
        reading: how to read one cell, signs and range included.
        source: the paper or definition the quantity comes from.
        of: the model and the prompts, which state their own provenance.
        seed: the seed of everything random in it.
        extra: further attributes (strings or numbers).

    Raises:
        InterpError: a missing attribute, unit or long name, an unknown dimension, or values that are not plain arrays.
    """
    from interp import __version__

    attrs: dict[str, Any] = {
        "title": title,
        "question": question,
        "reading": reading,
        "source": source,
        "seed": int(seed),
        "schema_version": SCHEMA_VERSION,
        "library_version": __version__,
        "created_at": now(),
    }
    for item in of:
        attrs.update(item.provenance())
    attrs.update(extra or {})
    data = {
        name: (
            variable.dims,
            np.asarray(variable.values),
            {"units": variable.units, "long_name": variable.long_name},
        )
        for name, variable in variables.items()
    }
    return validate(xr.Dataset(data, coords=dict(coords), attrs=attrs))


def now() -> str:
    """The time in UTC, ISO 8601, to the second; ``SOURCE_DATE_EPOCH`` overrides it for reproducible builds."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset if it is a complete result.

    Raises:
        InterpError: names the first thing that is missing or wrong.
    """
    missing = [name for name in REQUIRED_ATTRS if name not in dataset.attrs]
    if missing:
        raise InterpError(f"The result lacks the attributes {', '.join(missing)}; build it with results.build.")
    for key, value in dataset.attrs.items():
        if not isinstance(value, str | int | float | np.integer | np.floating):
            raise InterpError(
                f"Attribute '{key}' is a {type(value).__name__}; only strings and numbers survive NetCDF."
            )
    if not dataset.data_vars:
        raise InterpError("The result holds no variable.")
    for name, variable in dataset.data_vars.items():
        _validate_variable(name, variable)
    return dataset


def _validate_variable(name: Hashable, variable: xr.DataArray) -> None:
    for attribute in ("units", "long_name"):
        if attribute not in variable.attrs:
            raise InterpError(f"Variable '{name}' has no {attribute}; give it one (an empty string is a unit of 1).")
    unknown = [str(dim) for dim in variable.dims if dim not in DIMS]
    if unknown:
        raise InterpError(
            f"Variable '{name}' has the unknown dimension '{unknown[0]}'. Known: {', '.join(sorted(DIMS))}."
        )
    if variable.dtype == object:
        raise InterpError(f"Variable '{name}' holds Python objects; give numbers or fixed-width strings.")


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Validate and write a result as NetCDF, atomically: the file is there whole or not at all.

    Raises:
        InterpError: the result is incomplete or the directory cannot be written.
    """
    target = Path(path)
    validate(dataset)
    partial = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.to_netcdf(str(partial), engine=ENGINE)
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InterpError(
            f"Cannot write the result to {target}: {error.strerror or error}. Choose another directory."
        ) from error
    return target


def load(path: str | Path) -> xr.Dataset:
    """Read and validate a saved result, whole, into memory.

    Raises:
        InterpError: the file is absent, is not NetCDF, has another schema version, or is incomplete.
    """
    source = Path(path)
    if not source.is_file():
        raise InterpError(f"No result at {source}. Run the study first, or name its directory.")
    try:
        with xr.open_dataset(source, engine=ENGINE) as opened:
            dataset = opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise InterpError(f"{source} is not a readable result ({error}). Delete it and run the study again.") from error
    for attrs in (dataset.attrs, *(variable.attrs for variable in dataset.variables.values())):
        for key, value in attrs.items():
            # NetCDF returns numbers as zero-dimensional NumPy scalars and arrays; a result holds plain ones.
            if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
                attrs[key] = value.item()
    version = str(dataset.attrs.get("schema_version", "none"))
    if version != SCHEMA_VERSION:
        raise InterpError(
            f"{source} has schema version {version}, this library reads {SCHEMA_VERSION}. Run the study again."
        )
    return validate(dataset)
