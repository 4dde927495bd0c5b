"""Captures larger than memory: activations written to a directory some prompts at a time, and mapped when opened.

``capture(model, texts, sites, at, to="acts")`` writes one; ``Capture.open("acts").dataset()`` opens it again, as the
``xarray.Dataset`` that ``capture`` returns without ``to``. The directory holds

- ``capture.json``: what it is (schema version, model, prompts, sites, places, labels of the axes), written first;
- ``arrays/SITE.npy``: one array a site, in NumPy's own format, so that any program maps it into memory;
- ``finished.rows``: which shards of prompts are finished, with the checksum (CRC-32) of each.

A shard is in the journal only after its bytes are on the disk, so that a capture that was killed, or ran out of space,
goes on where it stopped, and never reads half a shard. The checksums find accidents, not malice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from interp import _files, _kept, run
from interp.errors import InterpError, shown, whole_number
from interp.prompts.places import At, places_of
from interp.prompts.tokens import Prompts
from interp.store import Journal
from interp.stored import ARRAYS, BYTES_AT_ONCE, FINISHED, INDEX, StoredFeatures, npy_header
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

SCHEMA = 1
"""How the directory of a capture is laid out."""

_MODEL = (*_kept.FINGERPRINT, "dtype", "bos")
"""What must be equal of two models for prompts captured from one to go on from the other."""

MOST_PROMPTS = 2**31 - 1
"""In one capture: the journal counts them in 32 bits."""

_AT_ONCE = 8 * 2**20
"""Bytes that are read at a time to check them."""


@dataclass(frozen=True)
class Capture:
    """A capture on the disk.

    Attributes:
        path: its directory.
        told: what ``capture.json`` says.

    >>> import tempfile
    >>> from interp import HookedTransformer, capture
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> with tempfile.TemporaryDirectory() as place:
    ...     acts = capture(model, ["The cat is", "The dog is"], ["resid_post"], at=[-1], to=place)
    ...     found = Capture.open(place)
    ...     found.features("resid_post", layer=2).shape, found.dataset().identical(acts)
    ((2, 128), True)
    """

    path: Path
    told: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, check: bool = True) -> Capture:
        """Look at a capture that is finished.

        Args:
            path: its directory.
            check: read it once and compare checksums. Without it only sizes are compared.

        Raises:
            InterpError: there is none, it is not finished or damaged, or it is of another schema version.
        """
        found = cls.look(path)
        whole, n = found.finished(check=check), found.n_shards
        if len(whole) < n:
            raise InterpError(
                f"{found.path} is not whole: {len(whole)} of {n} shards are finished and sound. Make the same capture "
                "into it again: it goes on from there."
            )
        return found

    @classmethod
    def look(cls, path: str | Path) -> Capture:
        """A capture whether it is finished or not; ``finished`` says how far it is.

        Raises:
            InterpError: there is none, its index is damaged, or it is of another schema version.
        """
        path = Path(path)
        try:
            told = json.loads(_files.read(path / INDEX, at_most=_AT_ONCE * 128))
        except OSError as error:
            raise InterpError(
                f"{path} holds no capture ({_files.why(error)}). Write one with capture(..., to={str(path)!r})."
            ) from error
        except (ValueError, RecursionError) as error:
            raise InterpError(
                f"{path / INDEX} is damaged ({error}). Remove the directory and capture again."
            ) from error
        version = told.get("schema") if isinstance(told, dict) else None
        if version != SCHEMA:
            raise InterpError(
                f"{path} has schema version {shown(version)}, this library reads {SCHEMA}. Capture into another "
                "directory, or open it with the version of interp that wrote it."
            )
        found = cls(path, told)
        try:
            found._check()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InterpError(
                f"{path / INDEX} is damaged ({type(error).__name__}: {error}). Remove the directory and capture again."
            ) from error
        return found

    def _check(self) -> None:
        """Raise where the index makes no sense: it may come from anyone, and its sites name files."""
        _ = self.n_prompts, self.rows_per_shard, json.dumps(_identity(self.told), sort_keys=True)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"its numbers are {self.dtype}, not float32 or float64")
        arrays = {}
        for name, shape in self._row_shapes.items():
            if min(shape) < 1:
                raise ValueError(f"'{name}' has the shape {shape}")
            dims = self.told["sites"][name]["dims"]
            if {type(dim) for dim in dims} != {str} or len({*dims}) < len(dims):  # xarray would only warn
                raise ValueError(f"'{name}' has the axes {shown(dims)}")
            arrays[name] = np.broadcast_to(np.zeros((), self.dtype), (self.n_prompts, *shape))
        if self.n_prompts > MOST_PROMPTS:
            raise ValueError(f"it has {self.n_prompts} prompts, more than {MOST_PROMPTS}")
        if not arrays:
            raise ValueError("it names no site")
        self._labelled(arrays)  # which knows the sites, and whether labels fit

    @property
    def n_prompts(self) -> int:
        """How many prompts it is of."""
        return whole_number(self.told["n_prompts"], "n_prompts", least=1)

    @property
    def rows_per_shard(self) -> int:
        """Prompts that are written together."""
        return whole_number(self.told["rows_per_shard"], "rows_per_shard", least=1)

    @property
    def n_shards(self) -> int:
        """How many shards there are when it is finished."""
        return -(-self.n_prompts // self.rows_per_shard)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that were read."""
        return tuple(self.told["sites"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""
        return np.dtype(str(self.told["dtype"]))

    @cached_property
    def _row_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(map(int, one["shape"])) for name, one in self.told["sites"].items()}

    @cached_property
    def _coords(self) -> dict[str, Any]:
        return {
            name: (one["dim"], np.asarray(one["values"])) if one["dim"] != name else np.asarray(one["values"])
            for name, one in self.told["coords"].items()
        }

    @property
    def row_bytes(self) -> int:
        """Bytes of one prompt."""
        return sum(math.prod(shape) for shape in self._row_shapes.values()) * self.dtype.itemsize

    def shards(self) -> Iterator[range]:
        """The prompts of each shard."""
        return map(self._shard, range(self.n_shards))

    def _shard(self, number: int) -> range:
        start = number * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.n_prompts))

    def dataset(self) -> xr.Dataset:
        """What ``capture`` returns without ``to``, with arrays that are mapped into memory and cannot be written.

        Raises:
            InterpError: an array is absent or of another size.
        """
        return self._labelled({site: self._mapped(site) for site in self.sites})

    def _labelled(self, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
        dims = {site: one["dims"] for site, one in self.told["sites"].items()}
        return run.labelled(arrays, dims, self._coords, dict(self.told["attrs"]))

    def features(self, site: str, layer: int | None = None, at: int | str | None = None) -> StoredFeatures:
        """The vectors of one layer and place as rows for ``interp.probes.fit_stored``; they stay on the disk.

        Args:
            site: one that was captured.
            layer: one that was captured; None where there is one only.
            at: a role or position that was captured; None is all of them, prompt by prompt.

        Returns:
            Rows (prompt, or prompt and place) of features; heads are laid side by side.

        Raises:
            InterpError: something that was not captured, or a site without a vector per layer and position.
        """
        if site not in self.sites:
            raise InterpError(
                f"Site {shown(site)} was not captured in {self.path}. These were: {', '.join(self.sites)}."
            )
        dims, shape = tuple(self.told["sites"][site]["dims"])[1:], self._row_shapes[site]
        axis = str(self.told["axis"])
        if dims[:1] != ("layer",) or axis not in dims or "src_position" in dims:
            raise InterpError(f"Site '{site}' has no vector per layer and position. Take 'resid_post' or 'z'.")
        slot = self._slot("layer", layer, site)
        places, width = shape[1], math.prod(shape[2:])
        place = None if at is None else self._slot(axis, at, site)
        size = self.dtype.itemsize
        before = (slot * places + (place or 0)) * width * size
        each = places if place is None else 1
        return StoredFeatures(
            path=self._file(site),
            shape=(self.n_prompts * each, width),
            dtype=self.dtype,
            offset=len(self._header(site)) + before,
            each=each,
            pitch=math.prod(shape) * size,
        )

    def _slot(self, dim: str, label: int | str | None, site: str) -> int:
        known = np.asarray(self.told["coords"].get(dim, {"values": []})["values"]).tolist()
        if label is None and len(known) == 1:
            return 0
        if label not in known:
            raise InterpError(
                f"{dim} {shown(label)} of '{site}' was not captured in {self.path}. These were: "
                f"{', '.join(map(str, known))}."
            )
        return int(known.index(label))

    # ---- the files ----

    @property
    def _journal(self) -> Journal:
        return Journal(self.path / FINISHED, json.dumps(_identity(self.told), sort_keys=True))

    def _file(self, site: str) -> Path:
        return self.path / ARRAYS / f"{site}.npy"

    def _header(self, site: str) -> bytes:
        return npy_header(self.dtype, (self.n_prompts, *self._row_shapes[site]))

    def _is_laid_out(self, site: str) -> bool:
        """Whether the file of a site has its header and its size."""
        header, file = self._header(site), self._file(site)
        try:
            with _files.opened(file) as opened:
                size = len(header) + self.n_prompts * self._site_bytes(site)
                return opened.read(len(header)) == header and os.fstat(opened.fileno()).st_size == size
        except OSError:
            return False

    def _site_bytes(self, site: str) -> int:
        return math.prod(self._row_shapes[site]) * self.dtype.itemsize

    def _mapped(self, site: str) -> np.ndarray:
        if not self._is_laid_out(site):
            raise InterpError(f"{self._file(site)} is absent or damaged. Make the same capture into {self.path} again.")
        shape = (self.n_prompts, *self._row_shapes[site])
        return np.memmap(self._file(site), self.dtype, mode="r", offset=len(self._header(site)), shape=shape)

    def finished(self, *, check: bool = True) -> set[int]:
        """The numbers of the shards that are whole; with ``check`` their bytes are read and compared with checksums."""
        rows = self._journal.read().within(self.n_shards, len(self.sites))
        sums: dict[int, dict[int, float]] = {}
        for cell, shard, value in zip(rows.cell.tolist(), rows.prompt.tolist(), rows.value.tolist(), strict=True):
            sums.setdefault(shard, {})[cell] = value
        laid_out = all(map(self._is_laid_out, self.sites))
        whole = {shard for shard, found in sums.items() if laid_out and set(range(len(self.sites))) <= set(found)}
        if check:
            whole = {
                shard
                for shard in whole
                if all(self._checksum(site, self._shard(shard)) == sums[shard][i] for i, site in enumerate(self.sites))
            }
        return whole

    def _checksum(self, site: str, rows: range) -> int:
        left, total = len(rows) * self._site_bytes(site), 0
        with _files.opened(self._file(site)) as opened:
            opened.seek(len(self._header(site)) + rows.start * self._site_bytes(site))
            while left and (part := opened.read(min(left, _AT_ONCE))):
                total, left = zlib.crc32(part, total), left - len(part)
        return total

    def _lay_out(self) -> None:
        """Make the files of all sites, as long as they will be."""
        for site in self.sites:
            if not self._is_laid_out(site):
                header = self._header(site)
                with open(self._file(site), "wb") as made:
                    made.write(header)
                    made.truncate(len(header) + self.n_prompts * self._site_bytes(site))

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it wrote the index."""
        for path in _files.unfinished(self.path):
            if path.name.startswith(f".{INDEX}."):
                path.unlink(missing_ok=True)

    def _write(self, shard: int, rows: range, arrays: Mapping[str, np.ndarray]) -> None:
        """Put a shard on the disk, and only then into the journal."""
        sums = []
        for site in self.sites:
            content = np.ascontiguousarray(arrays[site]).data.cast("B")
            with open(self._file(site), "r+b", buffering=0) as opened:
                opened.seek(len(self._header(site)) + rows.start * self._site_bytes(site))
                rest = content
                while rest:
                    rest = rest[opened.write(rest) :]
                os.fsync(opened.fileno())
            sums.append(zlib.crc32(content))
        cells = np.arange(len(sums))
        self._journal.append(cells, np.full(len(sums), shard), np.array(sums, dtype=np.float64))


def write(
    model: HookedTransformer,
    inputs: run.Texts,
    sites: str | Sequence[str],
    at: At = None,
    *,
    to: str | os.PathLike[str],
    layers: int | Sequence[int] | None = None,
    bytes_at_once: int = BYTES_AT_ONCE,
    progress: Progress | None = None,
) -> Capture:
    """Capture into a directory, some prompts at a time, and go on from what an earlier call finished there.

    Batches are those of ``capture`` without ``to`` unless one holds more than ``bytes_at_once``; then the numbers are
    the same, byte for byte, and otherwise up to the rounding of other batches. A second process that captures into the
    same directory waits for the first.

    Args:
        model: the model.
        inputs: as ``capture``.
        sites: as ``capture``.
        at: as ``capture``.
        to: the directory; it is made if there is none.
        layers: as ``capture``.
        bytes_at_once: of activations that are held; at least one prompt is.
        progress: True for a bar, or called with prompts done and prompts in all.

    Raises:
        InterpError: what ``capture`` refuses; a directory that holds something else, or a capture of another model,
            other prompts, sites or places; too little space for it. What is finished stays.

    >>> import tempfile
    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write(model, ["The cat is", "The dog is"], "z", [-1], to=place).n_shards
    1
    """
    prompts = run.as_prompts(model, inputs)
    reading = run.Reading.of(model, prompts, sites, at, layers)
    path = Path(to)
    at_once = min(run.rows_per_batch(model, reading.length), max(1, bytes_at_once // max(1, reading.row_bytes)))
    shard = at_once * max(1, bytes_at_once // (at_once * max(1, reading.row_bytes)))
    made = Capture(path, _told(prompts, reading, shard))
    meter = Meter(progress, len(prompts))
    try:
        made = _begun(made)
        with _files.locked(path / ARRAYS):
            made._tidy()
            made._lay_out()
            done = made.finished()
            _check_space(made, len(done))
            for number, rows in enumerate(made.shards()):
                if number not in done:
                    made._write(number, rows, _captured(model, prompts, reading, rows, at_once))
                meter.add(len(rows))
    except OSError as error:
        raise InterpError(
            f"Cannot write the capture {path} ({_files.why(error)}). Free space there, or make it writable, and "
            "capture into it again: what is finished stays, and it goes on from there."
        ) from error
    return made


def _captured(
    model: HookedTransformer, prompts: Prompts, reading: run.Reading, rows: range, at_once: int
) -> dict[str, np.ndarray]:
    arrays = reading.empty(len(rows))
    pieces = [rows.start + some for some in run.chunks_of(len(rows), at_once)]
    takes = run.row_bytes(model) + at_once * reading.row_bytes
    for piece, found in model.engine.map(model, run.Reads(prompts, reading), pieces, bytes_each=takes):
        for name, values in found.items():
            arrays[name][piece - rows.start] = values
    return arrays


def _told(prompts: Prompts, reading: run.Reading, rows_per_shard: int) -> dict[str, Any]:
    """What ``capture.json`` says."""
    coords = {}
    for name, value in reading.coords.items():
        dim, values = value if isinstance(value, tuple) else (name, value)
        coords[name] = {"dim": dim, "values": np.asarray(values).tolist()}
    return {
        "schema": SCHEMA,
        "n_prompts": len(prompts),
        "rows_per_shard": rows_per_shard,
        "dtype": reading.dtype.str,
        "axis": reading.axis,
        "at": None if reading.at is None else list(reading.labels),
        "places_sha256": _places_sha256(prompts, reading.at),
        "layers": list(reading.layers),
        "length": reading.length,
        "sites": {
            site.name: {"dims": list(reading.dims[site.name]), "shape": list(reading.shapes[site.name])}
            for site in reading.wanted
        },
        "coords": coords,
        "attrs": dict(reading.attrs),
    }


def _places_sha256(prompts: Prompts, at: At) -> str:
    """Fingerprint of where the roles stand that are read."""
    digest = hashlib.sha256()
    for place in () if at is None else places_of(at):
        digest.update(prompts.spans(place).astype("<i8").tobytes() if isinstance(place, str) else b"")
    return digest.hexdigest()


_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "model": lambda told: [told["attrs"].get(name) for name in _MODEL],
    "prompts": lambda told: [told["n_prompts"], told["length"], told["attrs"]["tokens_sha256"]],
    "sites": lambda told: told["sites"],
    "layers": lambda told: told["layers"],
    "places": lambda told: [told["axis"], told["at"], told["places_sha256"]],
}
"""What two captures must agree in to be one, each by what says it."""


def _identity(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part(told) for name, part in _PARTS.items()} | {"rows_per_shard": told["rows_per_shard"]}


def _begun(asked: Capture) -> Capture:
    """The capture that is in the directory if it is the one that is asked for; it is begun where there is none.

    Raises:
        InterpError: another one, or something else.
    """
    path = asked.path
    if path.exists() and not path.is_dir():
        raise InterpError(f"{path} is a file. Name a directory to capture into.")
    path.mkdir(parents=True, exist_ok=True)
    if not (path / INDEX).exists():
        if any(one for one in path.iterdir() if one.name != ARRAYS and one not in _files.unfinished(path)):
            raise InterpError(f"{path} is not empty and holds no capture. Name a new or empty directory.")
        _check_space(asked, 0)
        (path / ARRAYS).mkdir(exist_ok=True)
        _files.write(path / INDEX, json.dumps(dict(asked.told), indent=1).encode())
        return asked
    there = Capture.look(path)
    differing = [name for name, part in _PARTS.items() if part(there.told) != part(asked.told)]
    if differing:
        raise InterpError(
            f"{path} holds a capture of {there.told['attrs'].get('model')} with other {' and other '.join(differing)} "
            "than are asked for. Name another directory."
        )
    (path / ARRAYS).mkdir(exist_ok=True)
    return there


def _check_space(made: Capture, n_done: int) -> None:
    """Refuse a capture that the disk cannot hold, before anything is computed.

    Raises:
        InterpError: says how much it takes, and how much is free.
    """
    left = max(0, made.n_prompts - n_done * made.rows_per_shard) * made.row_bytes
    free = shutil.disk_usage(made.path).free
    if left > free:
        raise InterpError(
            f"The capture takes {left / 2**30:.1f} GiB more, {free / 2**30:.1f} GiB is free at {made.path}. Free "
            "space, ask for fewer sites or layers, or name another directory. What is finished stays."
        )
