"""What this library reads of what others wrote: a sound file of each kind, and how it is read.

Shared by the property tests (test_hostile.py) and by the harness that coverage guides (guided.py).
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp import _yaml, results
from interp.captures import Capture
from interp.errors import LONGEST_MESSAGE, InterpError
from interp.model import checkpoint
from interp.prompts import Template
from interp.prompts.tokens import encode
from interp.report import manifest
from interp.store import Store
from interp.stored import FINISHED, INDEX, StoredFeatures
from tests.tiny_tokenizers import byte_bpe, stand_in

SECONDS = 20
"""How long one reading may take, also on a loaded machine."""

FACTS = {"site": "z", "model": "tiny"}
TOKENIZER = stand_in(byte_bpe(["x"], 257), n_ctx=4096)


class TooLongError(Exception):
    """There was no answer in time."""


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        file: its name in the directory.
        sound: makes a directory with a sound file, and whatever has to lie beside it.
        read: reads it, in a directory.
    """

    file: str
    sound: Callable[[Path], None]
    read: Callable[[Path], object]


def _write_manifest(place: Path) -> None:
    entry = {"key": "0" * 64, "files": ["behavior"], "seconds": 1.5}
    said = {"schema_version": "1", "status": "done", "versions": {"python": "3.11"}, "results": {"behavior": entry}}
    (place / "manifest.json").write_text(json.dumps({**said, "drops": [], "n": 4, "explained_rung": None}))


def _write_rows(place: Path) -> None:
    journal = Store.at(place).journal(FACTS)
    journal.append(0, np.array([0, 1, 2]), np.array([1.5, np.nan, -2.5]))
    journal.path.rename(place / "cells.rows")


def _read_rows(place: Path) -> object:
    journal = Store.at(place).journal(FACTS)
    (place / "cells.rows").replace(journal.path)
    rows = journal.read()
    known = {(0, 0): 1.5, (0, 1): np.nan, (0, 2): -2.5}
    for cell, prompt, value in zip(rows.cell.tolist(), rows.prompt.tolist(), rows.value.tolist(), strict=True):
        assert np.array_equal(known[cell, prompt], value, equal_nan=True)  # no damage may pass as a number
    return rows


def _write_capture(place: Path) -> None:
    told = {
        "schema": 1,
        "n_prompts": 3,
        "rows_per_shard": 2,
        "dtype": "<f4",
        "axis": "position",
        "at": ["-1"],
        "places_sha256": "",
        "layers": [0, 1],
        "length": 4,
        "sites": {"resid_post": {"dims": ["prompt", "layer", "position", "d_model"], "shape": [2, 1, 5]}},
        "coords": {
            "layer": {"dim": "layer", "values": [0, 1]},
            "position": {"dim": "position", "values": [-1]},
        },
        "attrs": {"model": "tiny", "weights_sha256": "a", "tokens_sha256": "b"},
    }
    (place / "arrays").mkdir()
    (place / INDEX).write_text(json.dumps(told))
    made = Capture(place, told)
    made._lay_out()
    for number, rows in enumerate(made.shards()):
        made._write(number, rows, {"resid_post": np.ones((len(rows), 2, 1, 5), dtype=np.float32)})


def _read_capture(place: Path) -> object:
    found = Capture.open(place)
    for site in found.sites:
        for _, rows in found.features(site, layer=0).chunks(2):
            assert rows.ndim == 2
    return float(sum(values.sum() for values in found.dataset().data_vars.values()))


def _write_features(place: Path) -> None:
    np.save(place / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))


def _read_features(place: Path) -> object:
    stored = StoredFeatures.open(place / "x.npy")
    return sum(len(rows) for _, rows in stored.chunks())


def _write_safetensors(place: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, place / "model.safetensors")


def _write_gguf(place: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(place / "tiny.gguf", "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_result(place: Path) -> None:
    made = xr.Dataset({"effect": ("prompt", [1.0, 3.0], {"units": "logits", "long_name": "what a layer adds"})})
    made.attrs = dict.fromkeys(results.REQUIRED_ATTRS, "by hand") | {"schema_version": results.SCHEMA_VERSION}
    results.save(made, place / "effect.nc")


def _write_yaml(place: Path) -> None:
    (place / "in.yaml").write_text("a: &x {b: 1}\nc: {<<: *x, d: [1, 2.5, 'yes']}\ne: |\n  text\n", encoding="utf-8")


def _write_template(place: Path) -> None:
    (place / "template.txt").write_text("The {noun} is {color}{'.':stop} {{The}} {noun:asked} is", encoding="utf-8")


def _read_template(place: Path) -> object:
    text = (place / "template.txt").read_bytes().decode("utf-8", "replace")
    template = Template(text, answer=" {color}")
    rendered = template.render({slot: "black" for slot in template.slots})
    for start, stop in rendered.roles.values():
        assert 0 <= start < stop <= len(rendered.text)
    prompts = encode(TOKENIZER, [rendered.text], [rendered.roles])
    for role, (start, stop) in rendered.roles.items():
        found = prompts.ids[0][slice(*prompts.roles[role][0])]  # one by one, a letter of two tokens is read as neither
        assert rendered.text[start:stop].strip() in TOKENIZER.tokenizer.decode(found), role
    return prompts


READERS = {
    "yaml": Reader("in.yaml", _write_yaml, lambda place: _yaml.read(place / "in.yaml", "in.yaml")),
    "template": Reader("template.txt", _write_template, _read_template),
    "manifest": Reader("manifest.json", _write_manifest, manifest.read),
    "store": Reader("cells.rows", _write_rows, _read_rows),
    "capture": Reader(INDEX, _write_capture, _read_capture),
    "capture's journal": Reader(FINISHED, _write_capture, _read_capture),
    "features": Reader("x.npy", _write_features, _read_features),
    "safetensors": Reader(
        "model.safetensors",
        _write_safetensors,
        lambda place: checkpoint.safetensors_header(place / "model.safetensors"),
    ),
    "gguf": Reader("tiny.gguf", _write_gguf, lambda place: checkpoint.of_gguf(place / "tiny.gguf")),
    "result": Reader("effect.nc", _write_result, lambda place: results.load(place / "effect.nc")),
}


@functools.cache
def _made(name: str) -> dict[str, bytes]:
    """What lies in the directory of a sound file."""
    with tempfile.TemporaryDirectory() as place:
        READERS[name].sound(Path(place))
        files = (path for path in Path(place).rglob("*") if path.is_file())
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def sound(name: str) -> bytes:
    """The bytes of a sound file."""
    return _made(name)[READERS[name].file]


def answered(name: str, content: bytes) -> bool:
    """Whether a file with such a content was read; False if it was refused, in one line."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for file, as_made in (_made(name) | {reader.file: content}).items():
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(as_made)
        return refused_or(lambda: reader.read(place), place)


def refused_or(read: Callable[[], object], place: Path) -> bool:
    """Whether something was done; False if it was refused, in one line.

    Whatever else happens is a fault: another exception, no answer in time, a program started, a connection, a pickle,
    a file written outside ``place``.
    """
    try:
        with in_time(SECONDS), watched(place), contextlib.redirect_stderr(io.StringIO()):
            read()
    except InterpError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) <= LONGEST_MESSAGE
        return False
    return True


@contextlib.contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Raise where something takes longer."""

    def late(*_: object) -> None:
        raise TooLongError(f"no answer within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- what a reader may not do ----

NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}

_places: list[str] = []
_seen: list[str] = []
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _places:
        return
    if event in NEVER:
        _seen.append(f"{event} {arguments!r:.200}")
    elif event in PATHS and arguments and isinstance(arguments[0], str | os.PathLike):
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        path = os.path.realpath(arguments[0])
        if not path.startswith(_places[-1]) and path != os.devnull and "__pycache__" not in path:
            _seen.append(f"{event} {path}")


@contextlib.contextmanager
def watched(place: Path) -> Iterator[None]:
    """Fail where something in the block does what no reader may."""
    if not _hooked:
        sys.addaudithook(_audit)  # it cannot be taken away again, so there is one, which is idle outside such blocks
        _hooked.append(True)
    _places.append(os.path.realpath(place) + os.sep)
    _seen.clear()
    try:
        yield
    finally:
        _places.pop()
    assert _seen == [], _seen
