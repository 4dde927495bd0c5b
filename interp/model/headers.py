"""The header of a GGUF file, parsed once while a model is loaded.

transformers parses it anew for the configuration, for the weights and for the tokenizer, word by word of the
vocabulary, and makes the table of tensor names anew for each of a model's modules.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    import gguf

_ONE_AT_A_TIME = threading.RLock()
"""Held while the reader of the package gguf is another one."""


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Let whoever makes a ``gguf.GGUFReader`` of a file within this block have the same one.

    >>> import gguf
    >>> theirs = gguf.GGUFReader
    >>> with parsed_once():
    ...     gguf.GGUFReader is theirs
    False
    >>> gguf.GGUFReader is theirs
    True
    """
    import gguf

    made: dict[str, gguf.GGUFReader] = {}
    plain = _plain_reader()

    def of_file(path: str | os.PathLike[str], mode: str = "r") -> gguf.GGUFReader:
        if mode != "r":  # for writing: not ours to share
            return plain(path, mode)  # type: ignore[no-any-return]
        key = os.path.realpath(path)
        if key not in made:
            made[key] = plain(path)
        return made[key]

    names = functools.cache(gguf.get_tensor_name_map)
    with _ONE_AT_A_TIME, mock.patch.multiple(gguf, GGUFReader=of_file, get_tensor_name_map=names):
        yield


def reader(path: str | os.PathLike[str]) -> gguf.GGUFReader:
    """The header of a file; within ``parsed_once`` the one that was parsed already.

    Raises:
        ValueError: it states more than the file holds.
    """
    import gguf

    made = _plain_reader() if isinstance(gguf.GGUFReader, type) else gguf.GGUFReader
    return made(path)  # type: ignore[no-any-return]


def _plain_reader() -> Any:
    """The package's reader on a plain array: a slice of a ``numpy.memmap`` takes several times as long.

    It stops at the end of the file. The package's own goes on, so that a stated 2**56 numbers are read one by one.
    """
    import gguf

    class Plain(gguf.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            end = offset + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"it states numbers up to byte {end}, and has {len(self.data)}")
            return super()._get(offset, dtype, count, override_order)

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = np.asarray(mapped)

    return Plain
