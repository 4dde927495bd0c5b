"""Rows of features that stay on the disk: a ``.npy`` file, or a place of a capture, read some rows at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from jaxtyping import Float

from interp import _files
from interp.errors import InterpError, shown, whole_number

INDEX, ARRAYS, FINISHED = "capture.json", "arrays", "finished.rows"
"""What the directory of a capture holds (``interp.captures``)."""

BYTES_AT_ONCE = 64 * 2**20
"""Bytes of features that are held at a time, on their way to or from the disk."""


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers of an array, row by row, in a ``.npy`` file.

    >>> len(npy_header(np.dtype(np.float32), (2, 3))) % 64
    0
    """
    written = io.BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, said)
    return written.getvalue()


@dataclass(frozen=True)
class StoredFeatures:
    """A matrix of features in a ``.npy`` file, of which only some rows are in memory at a time.

    Any program that reads NumPy's format reads the file, mapped into memory too: ``numpy.load(path, mmap_mode="r")``.
    Here its rows are read, not mapped, so that the memory used is that of the rows asked for, and not what the system
    keeps of the file.

    Attributes:
        path: the file.
        shape: rows and features.
        dtype: of the numbers.
        offset: bytes before the first number.
        each: rows that lie side by side in a stretch of the file.
        pitch: bytes from the start of a stretch to that of the next; None: there is nothing between them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     np.save(Path(place) / "x.npy", np.arange(6.0).reshape(3, 2))
    ...     [rows.tolist() for _, rows in StoredFeatures.open(Path(place) / "x.npy").chunks(2)]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]]
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int
    each: int = 1
    pitch: int | None = None

    @classmethod
    def open(cls, path: str | Path) -> StoredFeatures:
        """Look at a file that ``Features.to`` or ``numpy.save`` wrote.

        Raises:
            InterpError: it is absent, or holds something else than a matrix of float32 or float64.
        """
        file = Path(path)
        try:
            with _files.opened(file) as opened:
                version = np.lib.format.read_magic(opened)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, by_columns, dtype = read(opened)
                offset = opened.tell()
        except (OSError, ValueError, SyntaxError, TokenError, TypeError, MemoryError, RecursionError) as error:
            raise InterpError(
                f"{file} holds no features ({error}). Write them with Features.to(path, texts)."
            ) from error
        if len(shape) != 2 or by_columns or dtype not in (np.float32, np.float64) or min(shape) < 1:
            raise InterpError(f"{file} holds {dtype} of shape {shape}, not one or more rows of float32 or float64.")
        size = offset + shape[0] * shape[1] * dtype.itemsize
        if file.stat().st_size != size:
            raise InterpError(f"{file} has {file.stat().st_size} bytes instead of {size}. Write it again.")
        return cls(file, (int(shape[0]), int(shape[1])), dtype, offset)

    @classmethod
    def write(
        cls, path: str | Path, parts: Iterator[Float[np.ndarray, "row feature"]], *, shape: tuple[int, int]
    ) -> StoredFeatures:
        """Write rows as they come.

        Args:
            path: of the file, ending in ``.npy``; it is there whole or not at all.
            parts: chunks of rows, in order, each with all features. They are kept as float32.
            shape: rows and features in all.

        Raises:
            InterpError: another ending, parts that do not make up the shape, or a file that cannot be written.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     chunks = iter([np.ones((2, 3)), np.zeros((1, 3))])
        ...     np.load(StoredFeatures.write(Path(place) / "x.npy", chunks, shape=(3, 3)).path).sum()
        np.float32(6.0)
        """
        file = Path(path)
        if file.suffix != ".npy":
            raise InterpError(f"Features are kept in a file that ends in .npy, not {shown(str(path))}.")
        written = 0
        try:
            with _files.writing(file) as opened:
                opened.write(npy_header(np.dtype(np.float32), shape))
                for part in parts:
                    if part.shape[1:] != shape[1:] or written + len(part) > shape[0]:
                        raise InterpError(f"Rows of shape {part.shape} after {written} do not make up {shape}.")
                    opened.write(np.ascontiguousarray(part, dtype=np.float32).tobytes())
                    written += len(part)
                if written != shape[0]:
                    raise InterpError(f"There are {written} rows instead of {shape[0]}.")
        except OSError as error:
            raise InterpError(f"Cannot write {file}: {_files.why(error)}. Choose another place.") from error
        return cls.open(file)

    def chunks(self, rows: int | None = None) -> Iterator[tuple[slice, Float[np.ndarray, "row feature"]]]:
        """Rows in order, about ``rows`` at a time (None: 64 MiB), each chunk with where it stands.

        A chunk has at most so many rows, but for rows that lie side by side: whole stretches are read.
        """
        width = self.shape[1] * self.dtype.itemsize
        at_once = whole_number(rows, "rows", least=1) if rows is not None else max(1, BYTES_AT_ONCE // width)
        some = max(1, at_once // self.each)
        pitch = self.pitch or self.each * width
        n = self.shape[0] // self.each
        with _files.opened(self.path) as opened:
            for start in range(0, n, some):
                stop = min(start + some, n)
                at = self.offset + start * pitch
                if pitch == self.each * width:
                    opened.seek(at)
                    read = np.fromfile(opened, dtype=self.dtype, count=(stop - start) * self.each * self.shape[1])
                else:
                    read = self._between(at, stop - start, pitch)
                yield slice(start * self.each, stop * self.each), read.reshape(-1, self.shape[1])

    def _between(self, at: int, n: int, pitch: int) -> np.ndarray:
        """Stretches with something between them; the mapping goes with the call, and the memory of its pages too."""
        length = (n - 1) * pitch + self.each * self.shape[1] * self.dtype.itemsize
        mapped = np.memmap(self.path, np.uint8, mode="r", offset=at, shape=(length,))
        strides = (pitch, self.shape[1] * self.dtype.itemsize, self.dtype.itemsize)
        found = np.ndarray((n, self.each, self.shape[1]), self.dtype, buffer=mapped, strides=strides)
        return np.array(found)
