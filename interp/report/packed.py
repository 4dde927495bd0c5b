"""Numbers as short text: compressed, and in characters that any file can hold.

The page's scripts read them back with the browser's own inflater.
"""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np


def text(content: bytes) -> str:
    """Bytes as zlib data in base64.

    >>> zlib.decompress(base64.b64decode(text(b"words"))) == b"words"
    True
    """
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def shares(values: np.ndarray) -> bytes:
    """Shares between 0 and 1 in hundredths, a byte each: as exact as two decimals, and many are equal; NaN is 0.

    >>> list(shares(np.array([0.0, 0.254, 1.0, np.nan])))
    [0, 25, 100, 0]
    """
    rounded: np.ndarray = np.rint(np.nan_to_num(values) * 100).clip(0, 100).astype(np.uint8)
    return rounded.tobytes()


def json_text(value: object) -> str:
    """A value as compressed JSON.

    >>> zlib.decompress(base64.b64decode(json_text({"a": "ñ"}))).decode()
    '{"a":"ñ"}'
    """
    return text(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8"))


def floats(values: np.ndarray) -> bytes:
    """Numbers as float32, first the first bytes of all of them, then the second: this compresses better.

    >>> numbers = np.array([1.5, -2.25], dtype=np.float32)
    >>> np.frombuffer(floats(numbers), np.uint8).reshape(4, -1).T.copy().view("<f4").ravel().tolist()
    [1.5, -2.25]
    """
    return np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).reshape(-1, 4).T.tobytes()
