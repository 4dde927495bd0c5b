"""Writing whole or not at all."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from interp import _files as files


def failing(error: BaseException) -> Any:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


def test_what_is_written_is_read_back_and_nothing_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write(path, b"old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "rename", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file(
    step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write(path, b"old")
    target = {"rename": (Path, "replace"), "fsync": (os, "fsync"), "open": (builtins, "open")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(*target, failing(OSError(code, os.strerror(code))))
        with pytest.raises(OSError, match=os.strerror(code)):
            files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_nothing_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(victim)
    files.write(tmp_path / "link", b"new")
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


def test_what_a_killed_process_left_is_told_from_everything_else(tmp_path: Path) -> None:
    ours = [tmp_path / ".a.nc.0123abcd.part", tmp_path / ".manifest.json.ffffffff.part"]
    others = [".hidden", "a.part", ".a.part", ".a.nc.0123abc.part", "a.nc.0123abcd.part", ".a.nc.0123ABCD.part"]
    for path in (*ours, *(tmp_path / name for name in others)):
        path.touch()
    (tmp_path / ".folder.0123abcd.part").mkdir()
    assert files.unfinished(tmp_path) == ours
