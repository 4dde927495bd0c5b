"""What a checkpoint's files hold, read without trusting them.

Nothing is allocated by a size that a file claims, no pipe or device is opened, and no name or link leads out of the
directory. What is wrong is said in one line, before Hugging Face reads anything.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from interp.errors import InterpError
from interp.model import headers

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
"""Everything beside the weights that is read: configuration, tokenizer, the index of the weights."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Data type in a safetensors header -> bits per number."""
LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library itself."""
LARGEST_JSON = 64_000_000
"""Bytes of config.json or of an index of weights; real ones are a thousand times smaller."""
LARGEST_INTEGER = 2**40
ROTARY_FACTORS = "rope_freqs.weight"
_COUNTED = re.compile(r"(layers?|experts?|labels|block_count|expert_count)$")
"""Settings that say how many objects are built one by one: a huge number takes forever, even for empty objects."""


class Stored(NamedTuple):
    """One tensor as a file states it. A GGUF file's data types are GGML's (``"Q4_K"``)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """The files of one model, checked one by one.

    Attributes:
        named: what messages call it.
        directory: where its files lie.
        config: its config.json; empty for a GGUF file, which states its settings itself.
        tensors: what its weights hold, by the names that they have in the files.
        gguf: name of the GGUF file, or empty for a directory of safetensors.
    """

    named: str
    directory: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    gguf: str = ""

    @property
    def numbers(self) -> int:
        """How many numbers its weights hold."""
        return sum(stored.numbers for stored in self.tensors.values())


def of_directory(
    directory: Path, *, named: str | None = None, linked: bool = False, weights: bool = True
) -> Checkpoint:
    """Look at a directory in Hugging Face's layout.

    Args:
        directory: where it is.
        named: what messages call it, if not by its path.
        linked: whether links may lead out of it (an installer may link the files of a package).
        weights: whether to look at the weights too; without, ``tensors`` is empty.

    Raises:
        InterpError: what is missing, damaged or leads elsewhere.
    """
    check_files(directory, linked=linked)
    config = read_config(directory)
    held: dict[str, Stored] = {}
    if not weights:
        return Checkpoint(named or str(directory), directory, config, held)
    for file in weight_files(directory, config):
        for name, stored in safetensors_header(file).items():
            if name in held:
                raise InterpError(f"{directory} holds the tensor '{name}' in two files. Save the model again.")
            held[name] = stored
    check_counts(config, len(held), f"{directory / 'config.json'}")
    return Checkpoint(named or str(directory), directory, config, held)


def of_gguf(file: Path) -> Checkpoint:
    """Look at a GGUF file.

    Raises:
        InterpError: it is none, or it is damaged.
    """
    if (file.parent / ADAPTER).exists():
        raise InterpError(
            f"An adapter ({ADAPTER}) lies beside {file} and might be applied to it. Keep them in separate directories."
        )
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InterpError(f"{file} is not a GGUF file: it does not start with 'GGUF'. Download it again.")
    return Checkpoint(str(file), file.parent, {}, _gguf_tensors(file), gguf=file.name)


# ---- files ----


def check_files(directory: Path, *, linked: bool = False) -> None:
    """Prove that what may be read here are plain files of this directory, and no adapter.

    Raises:
        InterpError: a pipe, a device, a directory, a link that leads out or in a circle, or an adapter.
    """
    root = Path(os.path.sep) if linked else _root(directory)
    for pattern in (*SMALL_FILES, "*.safetensors"):
        for path in sorted(directory.glob(pattern)):
            _check_regular(path, root)
    if (directory / ADAPTER).exists():
        raise InterpError(
            f"{directory} holds an adapter ({ADAPTER}), not a whole model. Merge it into its base model "
            "(merge_and_unload in peft) and save the result with save_pretrained in a directory of its own."
        )
    if not (directory / "config.json").is_file():
        raise InterpError(
            f"{directory} is not a model directory: it has no config.json. Save a model there with save_pretrained."
        )


def _root(directory: Path) -> Path:
    """Where links may lead: a snapshot in the hub's cache consists of links to the blobs beside it."""
    real = Path(os.path.realpath(directory))
    in_cache = real.parent.name == "snapshots" and (real.parent.parent / "blobs").is_dir()
    return real.parent.parent if in_cache else real


def _check_regular(path: Path, root: Path) -> None:
    try:
        real = Path(os.path.realpath(path, strict=True))
        mode = real.stat().st_mode
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error.strerror}). Put the file itself there.") from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise InterpError(f"{path} is {what}, not a file. Put the file itself there.")
    if path.is_symlink() and not real.is_relative_to(os.path.realpath(root)):
        raise InterpError(f"{path} is a link to a file outside its directory. Put the file itself there.")


def weight_files(directory: Path, config: Mapping[str, Any]) -> list[Path]:
    """The files that hold the weights, in the order in which Hugging Face looks for them.

    Raises:
        InterpError: there are none, or an index that is damaged, points elsewhere, or differs from its files.
    """
    name = config.get("transformers_weights")  # a setting of Hugging Face's that names the file
    if name is None:
        name = INDEX if (directory / INDEX).exists() and not (directory / WEIGHTS).exists() else WEIGHTS
    elif not _is_component(name):
        raise InterpError(f"{directory / 'config.json'} names weights outside its directory (transformers_weights).")
    file = directory / name
    if not file.is_file():
        raise _no_weights(directory, name)
    return _shards(file) if name.endswith(".index.json") else [file]


def _no_weights(directory: Path, wanted: str) -> InterpError:
    others = sorted(directory.glob("*.safetensors"))
    if others:
        return InterpError(
            f"{directory} has no {wanted}, only {some(path.name for path in others)}. Rename the file of the whole "
            f"model to {WEIGHTS}, or save it again with save_pretrained, which writes an index of several files."
        )
    pickled = next((found for pattern in PICKLED for found in sorted(directory.glob(pattern))), None)
    if pickled is not None:
        return InterpError(
            f"{directory} holds only a pickled checkpoint ({pickled.name}), which can run code when read: refused. "
            "Save it again with save_pretrained(..., safe_serialization=True)."
        )
    return InterpError(f"{directory} has no weights: no *.safetensors file beside config.json.")


def shard_names(index: Path) -> dict[str, str]:
    """Tensor name -> name of its file, as an index states it; all lie beside the index.

    Raises:
        InterpError: not an index, or one that names files elsewhere.
    """
    stated = read_json(index)
    shards = stated.get("weight_map")
    if not isinstance(shards, dict) or not shards or not isinstance(stated.get("metadata"), dict):
        raise InterpError(f"{index} is no index of weights: it needs a 'metadata' and a 'weight_map', both objects.")
    for name in shards.values():
        if not _is_component(name) or not name.endswith(".safetensors"):
            raise InterpError(f"{index} names {str(name)[:80]!r}, which is no safetensors file of its own directory.")
    return shards


def _shards(index: Path) -> list[Path]:
    shards = shard_names(index)
    files = [index.parent / name for name in sorted(set(shards.values()))]
    if absent := [file.name for file in files if not file.is_file()]:
        raise InterpError(f"{index} names files that are not there: {some(absent)}. Download or save them again.")
    held = {(name, file.name) for file in files for name in safetensors_header(file)}
    differing = sorted(name for name, _ in held ^ set(shards.items()))
    if differing:
        raise InterpError(
            f"{index} and its files differ in where {len(set(differing))} tensors are ({some(differing)}). "
            "Download or save them again."
        )
    return files


def _is_component(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first names, and how many more there are: a message never lists a thousand."""
    every = sorted(set(names))
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(name[:120] for name in every[:shown]) + more


# ---- JSON ----


def read_json(path: Path, limit: int = LARGEST_JSON) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        InterpError: too large, damaged, nested too deep, a key twice, or something else than an object.
    """
    size = path.stat().st_size
    if size > limit:
        raise InterpError(f"{path} is too large ({size} bytes, at most {limit} are read). Is it another file?")
    return _object(path.read_bytes(), f"{path} is damaged or no JSON file")


def _object(data: bytes, wrong: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise InterpError(f"{wrong} (nested too deep). Download or save it again.") from error
    except ValueError as error:  # not UTF-8, no JSON, a key twice, a number of thousands of digits
        raise InterpError(f"{wrong} ({str(error)[:100]}). Download or save it again.") from error
    if not isinstance(found, dict):
        raise InterpError(f"{wrong} ({type(found).__name__} where an object belongs). Download or save it again.")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:60]!r} twice")
        found[name] = value
    return found


def read_config(directory: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises:
        InterpError: damaged, of no stated family, or pointing at other files.
    """
    path = directory / "config.json"
    config = read_json(path)
    if "configuration_files" in config:
        raise InterpError(f"{path} names other files to be read instead (configuration_files). Put the settings there.")
    if not isinstance(config.get("model_type"), str):
        raise InterpError(f"{path} does not state a model_type, so that nobody knows what its weights mean.")
    return config


def check_counts(config: Mapping[str, Any], n_tensors: int, where: str) -> None:
    """Refuse settings with which building the model would never end, before they are used.

    Raises:
        InterpError: a number beyond any model, or more layers, experts or labels than the weights can be of.
    """
    pending: list[tuple[str, Any]] = list(config.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(name, item) for item in value]
        elif isinstance(value, int):
            counted = bool(_COUNTED.search(name)) or name in ("n_layer", "num_layer")
            limit = max(n_tensors, 1000) if counted else LARGEST_INTEGER
            if abs(value) > limit:
                held = f", its weights are {n_tensors} tensors" if counted else ""
                raise InterpError(f"{where} states {name[:60]} = {str(value)[:20]}{held}: no such model. Mend it.")


# ---- headers of weights ----


def safetensors_header(file: Path) -> dict[str, Stored]:
    """Tensor name -> what a safetensors file states of it. The tensors fill the file without gap or overlap.

    Raises:
        InterpError: truncated (a broken download), or not a safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, LARGEST_HEADER):
            raise _damaged(file, f"{size} bytes, its header says that it has {length}")
        header = _object(stream.read(length), f"{file} is truncated or not a safetensors file")
    header.pop("__metadata__", None)
    spans = []
    held = {}
    for name, stated in header.items():
        stored, span = _stated(stated)
        if stored is None:
            raise _damaged(file, f"the entry of {name[:80]!r} makes no sense")
        held[name] = stored
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _damaged(file, f"its tensors overlap or leave a gap at byte {end}")
        end = stop
    if 8 + length + end != size:
        raise _damaged(file, f"{size} bytes, its header describes {8 + length + end}")
    return held


def _damaged(file: Path, why: str) -> InterpError:
    return InterpError(f"{file} is truncated or not a safetensors file ({why}). Download or save it again.")


def _stated(entry: object) -> tuple[Stored | None, tuple[int, int]]:
    """One entry of a header, and where its bytes are; None where it makes no sense."""
    nothing = None, (0, 0)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return nothing
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (_is_naturals(shape) and _is_naturals(offsets) and len(offsets) == 2):
        return nothing
    stored = Stored(tuple(shape), str(dtype))
    start, stop = offsets
    if stored.dtype not in BITS or 8 * (stop - start) != stored.numbers * BITS[stored.dtype]:
        return nothing
    return stored, (start, stop)


def _is_naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _gguf_tensors(file: Path) -> dict[str, Stored]:
    try:
        reader = headers.reader(file)
        settings = {name: field.contents() for name, field in reader.fields.items() if len(field.types) == 1}
        held = {str(t.name): Stored(tuple(int(n) for n in t.shape), t.tensor_type.name) for t in reader.tensors}
        spans = sorted((int(t.data_offset), int(t.n_bytes)) for t in reader.tensors)
        factors = [t.data for t in reader.tensors if t.name == ROTARY_FACTORS]
    except Exception as error:  # the reader meets damage in the middle of its arithmetic, in many types
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise InterpError(f"{file} is truncated or damaged ({why}). Download it again.") from error
    end = 0
    for start, length in spans:
        if start < end:
            raise InterpError(f"{file} is damaged (its tensors overlap at byte {start}). Download it again.")
        end = start + length
    if end > file.stat().st_size:
        raise InterpError(f"{file} is truncated or damaged (it ends before byte {end}). Download it again.")
    check_counts(settings, len(held), str(file))
    if any((values != 1).any() for values in factors):
        raise InterpError(
            f"{file} scales its rotary frequencies ({ROTARY_FACTORS}), which transformers does not read from a GGUF "
            "file: its numbers would be wrong. Load the model from a directory of safetensors."
        )
    held.pop(ROTARY_FACTORS, None)
    return held
