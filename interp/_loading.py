"""Getting weights and a tokenizer from a name: bundled, local directory, GGUF file or the hub.

Local sources never touch the network, and only safetensors and GGUF are read: a pickled checkpoint can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp import mini
from interp.errors import InterpError

log = logging.getLogger(__name__)

BUNDLED = mini.NAME
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Loaded:
    """A Hugging Face model in evaluation mode, its tokenizer if it has one, and the sha256 of its weights."""

    model: nn.Module
    tokenizer: Any | None
    name: str
    weights_sha256: str


def load(source: str | os.PathLike[str], *, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Load from ``"mini"``, a directory, a ``.gguf`` file, or a hub name.

    Raises:
        InterpError: what was missing or broken, and what to use instead.
    """
    text = os.fspath(source)
    if text == BUNDLED:
        model, tokenizer = _from_directory(mini.WEIGHTS, dtype)
        name = BUNDLED
    else:
        path = Path(text).expanduser()
        if path.is_dir():
            model, tokenizer = _from_directory(path, dtype)
            name = str(path)
        elif path.is_file():
            model, tokenizer = _from_file(path, dtype)
            name = path.name
        elif _looks_like_path(text):
            raise InterpError(
                f"No model at {text}: there is no such file or directory. Use 'mini', a directory or a hub name."
            )
        else:
            model, tokenizer = _from_hub(text, dtype)
            name = text
    fingerprint = weights_sha256(model)
    model.config.use_cache = False  # type: ignore[union-attr]  # a key-value cache would carry one run into the next
    # Weights are read, never trained; attribution differentiates by activations.
    return Loaded(model.to(device=device).eval().requires_grad_(False), tokenizer, name, fingerprint)


def weights_sha256(model: nn.Module) -> str:
    """Fingerprint of the parameters: sha256 over sorted names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().to("cpu").contiguous()
        digest.update(f"{name}:{flat.dtype}:{tuple(flat.shape)}\n".encode())
        digest.update(
            memoryview(flat.view(torch.uint8).numpy() if flat.ndim else flat.reshape(1).view(torch.uint8).numpy())
        )
    return digest.hexdigest()


def _looks_like_path(text: str) -> bool:
    return (
        text.endswith((".gguf", ".safetensors"))
        or text.startswith((".", "/", "~"))
        or text.count("/") > 1
        or (os.sep != "/" and os.sep in text)
    )


def _from_directory(path: Path, dtype: torch.dtype) -> tuple[nn.Module, Any | None]:
    if not (path / "config.json").is_file():
        raise InterpError(
            f"{path} is not a model directory: it has no config.json. Save a model there with save_pretrained."
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickled = next((found for pattern in PICKLED for found in sorted(path.glob(pattern))), None)
        if pickled is not None:
            raise InterpError(
                f"{path} holds only a pickled checkpoint ({pickled.name}), which can run code when read: refused. "
                "Save it again with save_pretrained(..., safe_serialization=True)."
            )
        raise InterpError(f"{path} has no weights: no *.safetensors file beside config.json.")
    for file in weights:
        _check_safetensors(file)
    return _read(path, dtype, local=True)


def _check_safetensors(file: Path) -> None:
    """Compare the length that the header promises with the length of the file (a broken download is shorter)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        header = stream.read(header_bytes) if 8 + header_bytes <= size else b""
    try:
        entries = json.loads(header)
        promised = (
            8 + header_bytes + max((e["data_offsets"][1] for k, e in entries.items() if k != "__metadata__"), default=0)
        )
    except (ValueError, KeyError, TypeError):
        promised = -1
    if promised != size:
        raise InterpError(f"{file} is truncated or not a safetensors file ({size} bytes). Download or save it again.")


def _from_file(path: Path, dtype: torch.dtype) -> tuple[nn.Module, Any | None]:
    if path.suffix != ".gguf":
        raise InterpError(f"{path} is not a model that can be read: give a directory, or a file that ends in .gguf.")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InterpError(f"{path} is not a GGUF file: it does not start with 'GGUF'. Download it again.")
    return _read(path.parent, dtype, local=True, gguf_file=path.name)


def _from_hub(name: str, dtype: torch.dtype) -> tuple[nn.Module, Any | None]:
    try:
        return _read(name, dtype, local=False)
    except InterpError as error:
        raise InterpError(
            f"Model '{name}' is not a local path and could not be fetched from the hub ({error}). "
            "Check the name and the network, or use 'mini' or a local directory."
        ) from error


def _read(place: str | Path, dtype: torch.dtype, *, local: bool, **options: str) -> tuple[nn.Module, Any | None]:
    """Read model and tokenizer with Hugging Face's Auto classes; every failure becomes one line."""
    from transformers import AutoModelForCausalLM

    named = Path(place, options["gguf_file"]) if "gguf_file" in options else place

    with _quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=dtype,
                attn_implementation="eager",  # the only one that exposes scores and patterns
                use_safetensors=None if options else True,
                local_files_only=local,
                trust_remote_code=False,
                **options,
            )
        except Exception as error:  # Hugging Face raises many types; all mean "cannot load this"
            raise InterpError(f"Cannot load a model from {named}: {_first_line(error)}") from error
        return model, _read_tokenizer(place, local=local, **options)


def _read_tokenizer(place: str | Path, *, local: bool, **options: str) -> Any | None:
    from transformers import AutoTokenizer

    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
    if local and not options and not any((Path(place) / name).is_file() for name in names):
        log.warning("%s has no tokenizer: the model works on token ids only.", place)
        return None
    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=local, trust_remote_code=False, **options)
    except Exception as error:
        raise InterpError(f"Cannot load the tokenizer from {place}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence Hugging Face's own progress bars and advice while loading; restore both afterwards."""
    from transformers.utils import logging as hf_logging

    verbosity = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
