"""Labelled results: build, validate, save, load.

A result is an ``xarray.Dataset`` whose every axis has a name, whose every variable has units, and whose attributes
say what was asked, of which model, on which prompts. Nothing here knows about models or plots.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import xarray as xr

from interp import _accessor, _files
from interp.errors import InterpError

SCHEMA_VERSION = "1"
ENGINE: Literal["h5netcdf"] = "h5netcdf"

_SEAL = b"\ninterp sha256 "
_SEAL_BYTES = len(_SEAL) + 64 + 1
"""What a file of a result ends in: this, the SHA-256 of all before it in hexadecimal digits, and a line break."""

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

DIMS = {
    "prompt": "the prompts, or the pairs of prompts",
    "position": "token of a prompt, counted from 0",
    "role": "what a word is in the prompt",
    "layer": "layer of the model, counted from 0",
    "head": "attention head of a layer",
    "kv_head": "head of keys and values, which several heads share",
    "head_label": "attention head by its label",
    "d_model": "entry of a vector of the residual stream",
    "d_head": "entry of a head's vector",
    "neuron": "neuron of a layer's MLP",
    "dest_position": "token that attends",
    "src_position": "token that is attended to",
    "fold": "part of the data that is held out",
    "site": "place in the model",
    "component": "part of the model that writes to the residual stream",
    "edge": "destination and source of attention",
    "ablation": "what an activation is replaced by",
    "direction": "denoising or noising",
    "rung": "rung of the task's ladder",
    "ci_bound": "lower and upper end of an interval",
    "group": "places that are changed together",
    "set": "places that are changed together, by name",
    "neuron_group": "neurons that are changed together",
    "sender": "part of the model that an edge starts from",
    "receiver": "part of the model that an edge leads to",
    "approximation": "estimate that is compared with exact patching",
    "audited": "cell that was patched exactly too",
}
"""The axes that results share, and what each counts. Names are singular and lower case. A result with another axis
gives its meaning (``build(..., dims=...)``)."""


class Variable(NamedTuple):
    """One named array of a result: ``dims`` in order, values, and the two attributes every reader needs.

    >>> Variable(("prompt", "layer"), np.zeros((2, 3)), "logits", "effect of a patch").units
    'logits'
    """

    dims: tuple[str, ...]
    values: Any
    units: str
    long_name: str


class HasProvenance(Protocol):
    """Anything that can say where it came from, as flat attributes.

    Models and prompts of this library have it. Anything else can be given it:

    >>> class Measured:
    ...     def provenance(self):
    ...         return {"model": "by hand", "weights_sha256": ""}
    >>> Measured().provenance()["model"]
    'by hand'
    """

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
    dims: Mapping[str, str] | None = None,
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
        dims: axes that are not in ``DIMS`` -> what each counts. It is kept as the ``long_name`` of the coordinate.

    Raises:
        InterpError: a missing attribute, unit or long name, a dimension without a meaning or coordinate, or values
            that are not plain arrays.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> made = build(
    ...     {"effect": Variable(("prompt", "layer"), [[0.0, 1.0], [0.0, 3.0]], "logits", "what a layer adds")},
    ...     coords={"layer": [0, 1]},
    ...     title="Effect by layer",
    ...     question="Which layer says it?",
    ...     reading="0: the layer adds nothing.",
    ...     source="",
    ...     of=(model, pairs),
    ...     seed=0,
    ... )
    >>> made.effect.mean("prompt").values.tolist(), made.attrs["task"], made.attrs["n_prompts"]
    ([0.0, 2.0], 'color-noun/two', 2)
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
    made = xr.Dataset(data, coords=dict(coords), attrs=attrs)
    for name, meaning in (dims or {}).items():
        if name not in made.coords:
            raise InterpError(f"Dimension '{name}' has no coordinate; give its labels in coords.")
        made[name].attrs["long_name"] = meaning
    return validate(made)


def meaning(dataset: xr.Dataset, dim: str) -> str:
    """What an axis of a result counts; empty if nobody has said.

    >>> import xarray as xr
    >>> meaning(xr.Dataset(), "layer")
    'layer of the model, counted from 0'
    """
    stated = str(dataset[dim].attrs.get("long_name", "")) if dim in dataset.coords else ""
    return stated or DIMS.get(dim, "")


def now() -> str:
    """The time in UTC, ISO 8601, to the second; ``SOURCE_DATE_EPOCH`` overrides it for reproducible builds.

    >>> len(now())
    20
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset if it is a complete result.

    Raises:
        InterpError: names the first thing that is missing or wrong.

    >>> validate(xr.Dataset(attrs={name: "" for name in REQUIRED_ATTRS}))
    Traceback (most recent call last):
    interp.errors.InterpError: The result holds no variable.
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
    for dim in dataset.dims:
        if not meaning(dataset, str(dim)):
            raise InterpError(
                f"The result has the unknown dimension '{dim}'. Known: {', '.join(sorted(DIMS))}. The meaning of a new "
                f"one is given by results.build(..., dims={{'{dim}': '...'}})."
            )
    return dataset


def _validate_variable(name: Hashable, variable: xr.DataArray) -> None:
    for attribute in ("units", "long_name"):
        if attribute not in variable.attrs:
            raise InterpError(f"Variable '{name}' has no {attribute}; give it one (an empty string is a unit of 1).")
    if variable.dtype == object:
        raise InterpError(f"Variable '{name}' holds Python objects; give numbers or fixed-width strings.")


def to_bytes(dataset: xr.Dataset) -> bytes:
    """A result as the bytes of its file: NetCDF, then the checksum of all that comes before it.

    Other tools open such a file as they open any NetCDF file. The dataset is not validated here.

    Raises:
        InterpError: NetCDF cannot hold it (a text with a NUL, a whole number of more than 64 bits).

    >>> content = to_bytes(xr.Dataset({"effect": ("prompt", [1.0, 3.0])}))
    >>> content[1:4], b"interp sha256 " in content
    (b'HDF', True)
    """
    try:
        body = bytes(dataset.to_netcdf(engine=ENGINE))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InterpError(f"The result cannot be written as NetCDF ({error}).") from error
    return body + _seal(body)


def _seal(body: bytes) -> bytes:
    """The checksum of a file's content. It finds accidents; it is no signature."""
    return _SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


def is_sealed(content: bytes) -> bool:
    """Whether the bytes of a file end in the checksum of what comes before it.

    >>> content = to_bytes(xr.Dataset())
    >>> is_sealed(content), is_sealed(content[1:])
    (True, False)
    """
    return content[-_SEAL_BYTES:] == _seal(content[:-_SEAL_BYTES])


def from_bytes(content: bytes, where: str) -> xr.Dataset:
    """The validated result in the bytes of a file; ``where`` names the file in messages.

    HDF5 answers damaged bytes with wrong numbers, a crash or an endless loop. So it is only given bytes whose
    checksum is right.

    Raises:
        InterpError: the checksum is absent or wrong, the schema version is another, or the result is incomplete.

    >>> from_bytes(to_bytes(xr.Dataset())[:100], "effect.nc")
    Traceback (most recent call last):
    interp.errors.InterpError: effect.nc is not a readable result: it does not end in a checksum, so ...
    """
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if not seal.startswith(_SEAL):
        raise InterpError(
            f"{where} is not a readable result: it does not end in a checksum, so it was cut short, damaged, or not "
            "written by results.save. Run the study again, or save the result again."
        )
    if seal != _seal(body):
        raise InterpError(
            f"{where} is not a readable result: it was damaged or changed after it was saved (its checksum is "
            "wrong). Run the study again, or save the result again."
        )
    try:
        with xr.open_dataset(io.BytesIO(body), engine=ENGINE) as opened:
            dataset = opened.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InterpError(f"{where} is not a readable result ({error}). Run the study again.") from error
    for attrs in (dataset.attrs, *(variable.attrs for variable in dataset.variables.values())):
        for key, value in attrs.items():
            # NetCDF returns numbers as zero-dimensional NumPy scalars and arrays; a result holds plain ones.
            if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
                attrs[key] = value.item()
    version = str(dataset.attrs.get("schema_version", "none"))
    if version != SCHEMA_VERSION:
        raise InterpError(
            f"{where} has schema version {version}, this library reads {SCHEMA_VERSION}. Run the study again."
        )
    return validate(dataset)


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Validate and write a result as NetCDF with a checksum at its end; the file is there whole or not at all.

    Raises:
        InterpError: the result is incomplete or the directory cannot be written.

    >>> import tempfile
    >>> made = xr.Dataset({"effect": ("prompt", [1.0, 3.0], {"units": "logits", "long_name": "what a layer adds"})})
    >>> made.attrs = dict.fromkeys(REQUIRED_ATTRS, "") | {"schema_version": SCHEMA_VERSION}
    >>> with tempfile.TemporaryDirectory() as place:
    ...     float(load(save(made, Path(place) / "effect.nc")).effect.mean())
    2.0
    """
    try:
        target = Path(path)
    except TypeError:
        raise InterpError(f"The path is {type(path).__name__}. Give the result, then its path.") from None
    content = to_bytes(validate(dataset))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _files.write(target, content)
    except OSError as error:
        raise InterpError(
            f"Cannot write the result to {target}: {_files.why(error)}. Free space or choose another directory."
        ) from error
    return target


def load(path: str | Path) -> xr.Dataset:
    """Read and validate a result that ``save`` wrote, whole, into memory.

    A NetCDF file of another tool has no checksum and is refused. If you trust it, take it in with
    ``save(xarray.load_dataset(path), other_path)``.

    Raises:
        InterpError: the file is absent, damaged, not from ``save``, has another schema version, or is incomplete.

    >>> load("reports/none/results/effect.nc")
    Traceback (most recent call last):
    interp.errors.InterpError: No result at reports/none/results/effect.nc. Run the study first, or name its directory.
    """
    source = Path(path)
    try:
        content = _files.read(source)
    except FileNotFoundError as error:
        raise InterpError(f"No result at {source}. Run the study first, or name its directory.") from error
    except OSError as error:
        raise InterpError(
            f"{source} is not a readable result: {_files.why(error)}. Remove it and run the study again."
        ) from error
    return from_bytes(content, str(source))


_accessor.register()
