"""Files read whole and written whole: nothing but a plain file is opened, and no file is ever there by half."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part")

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: Path, *, at_most: int | None = None) -> bytes:
    """The content of a plain file; links are followed.

    Args:
        path: the file.
        at_most: bytes; a longer file is refused before it is read.

    Raises:
        OSError: it is absent, no plain file, too long, or cannot be read; ``why`` puts it into words.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if at_most is not None and size > at_most:
            raise OSError(errno.EFBIG, f"it holds {size:,} bytes, more than the {at_most:,} that are read")
        return file.read()


def opened(path: Path) -> BinaryIO:
    """A plain file, opened for reading; links are followed.

    A named pipe or a device is refused at once: reading one may never end.

    Raises:
        OSError: it is absent, no plain file, or cannot be read.
    """
    try:
        _check_plain(os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have such a name") from error
    file = open(descriptor, "rb")
    try:
        _check_plain(os.fstat(descriptor))  # once more: the name may have come to stand for something else meanwhile
    except OSError:
        file.close()
        raise
    return file


def _check_plain(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}, not a file")


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, and still is after a power loss.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    with writing(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a file piece by piece; it has its name once the block has ended without an error.

    The bytes go to a hidden file ``.NAME.*.part`` beside it, to the disk, and only then to their name. A process
    that is killed may leave that hidden file behind, never half of the real one.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(partial, "xb") as file:  # "x": never through a link that someone has put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_directory(path.parent)


def unfinished(directory: Path) -> list[Path]:
    """The hidden files that ``writing`` left in a directory when its process was killed.

    Raises:
        OSError: the directory cannot be read.
    """
    return sorted(path for path in directory.iterdir() if _UNFINISHED.fullmatch(path.name) and not path.is_dir())


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory against other processes and threads that ask for it, for as long as the block takes.

    The lock ends with the process, however that ends. Where the system or the file system has no such lock, the block
    runs without one.

    Raises:
        OSError: there is no such directory.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk, where the file system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def why(error: OSError) -> str:
    """The reason in a few words, without the path."""
    return error.strerror or type(error).__name__
