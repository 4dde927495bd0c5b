"""Getting weights and a tokenizer from a name: bundled, local directory, GGUF file or the hub.

Local sources never touch the network, and only safetensors and GGUF are read: a pickled checkpoint can run code.
A model is right or refused: every one of its weights comes from its checkpoint, and all of the checkpoint is in it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from interp import mini
from interp.errors import InterpError
from interp.model import checkpoint as files
from interp.model.checkpoint import Checkpoint
from interp.model.headers import parsed_once
from interp.model.running import in_one_dtype
from interp.prompts.tokens import BosPolicy, bos_policy_of

log = logging.getLogger(__name__)

BUNDLED = mini.NAME
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
FLOATS = ("F64", "F32", "F16", "BF16")
SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)
"""Sizes of a configuration by Hugging Face's common names; each family maps its own onto them."""
COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|(attn|attention)\.(bias|masked_bias|causal_mask))$")
"""Tensors in old checkpoints that models now compute: rotary frequencies, positions, causal masks."""
LEAK = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-2}
"""How much a later token may change earlier logits, as a share of the largest: longer prompts are rounded otherwise."""
_NO_ARITHMETIC = frozenset({"transformers_version", "dtype", "torch_dtype", "use_cache"})


@dataclass(frozen=True)
class Source:
    """A Hugging Face model in evaluation mode, its tokenizer if it has one, and the sha256 of its weights."""

    model: nn.Module
    tokenizer: Any | None
    name: str
    weights_sha256: str

    @property
    def architecture(self) -> str:
        """Name of the model's class."""
        return type(self.model).__name__

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.model.parameters()).dtype


def read(source: str | os.PathLike[str], *, dtype: torch.dtype, device: torch.device) -> Source:
    """Load from ``"mini"``, a directory, a ``.gguf`` file, or a hub name.

    Raises:
        InterpError: what was missing or broken, and what to use instead.
    """
    text = os.fspath(source)
    with _header_kept(text):
        name, checkpoint = _located(text)
        model, tokenizer = _read(checkpoint, dtype)
    fingerprint = weights_sha256(model)
    _as_run(model)
    model.to(device)
    check_causal(model, checkpoint.named)
    return Source(model, tokenizer, name, fingerprint)


def _as_run(model: Any) -> None:
    """Settle what no run here depends on, in place."""
    model.config.use_cache = False  # a key-value cache would carry one run into the next
    model.config.architectures = [type(model).__name__]  # whatever the file said of it
    model.eval().requires_grad_(False)  # weights are read, never trained; attribution differentiates by activations


class Shallow(NamedTuple):
    """The first layers of a model with weights drawn at random, and what is known of the whole of it.

    Attributes:
        source: the first layers.
        n_layers: of the whole model.
        n_parameters: of the whole model.
        config_sha256: fingerprint of the whole model's configuration.
    """

    source: Source
    n_layers: int
    n_parameters: int
    config_sha256: str


def shallow(source: str | os.PathLike[str], *, layers: int, dtype: torch.dtype, device: torch.device) -> Shallow:
    """What a model would be made of; of its files only the configuration and the tokenizer are read.

    Args:
        source: as for ``read``.
        layers: how many of its layers are made, if it has as many.
        dtype: of the weights.
        device: where they are.

    Raises:
        InterpError: there is no such model, or one of those files is missing or broken.
    """
    from transformers import AutoModelForCausalLM

    text = os.fspath(source)
    with _header_kept(text), _progress_hidden(), _transformers_to_log(), in_one_dtype(dtype):
        name, checkpoint = _located(text, weights=False)
        gguf = {"gguf_file": checkpoint.gguf} if checkpoint.gguf else {}
        config = _config(checkpoint, gguf)
        tokenizer = _read_tokenizer(checkpoint, config, gguf)
        plain = copy.deepcopy(config)
        if hasattr(plain, "quantization_config"):
            del plain.quantization_config  # products are made of plain numbers in any case
        try:
            with torch.device("meta"):
                whole = AutoModelForCausalLM.from_config(plain)  # type: ignore[no-untyped-call]
            config.architectures = [type(whole).__name__]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                    _cut(plain, layers), dtype=dtype, attn_implementation="eager"
                )
        except Exception as error:  # each family builds itself from its own settings, and raises many types
            raise InterpError(f"Cannot use the configuration of {checkpoint.named}: {_one_line(error)}") from error
    _as_run(model)
    model.to(device)
    n_layers = int(config.get_text_config().num_hidden_layers)
    return Shallow(Source(model, tokenizer, name, ""), n_layers, _numbers(whole), config_sha256(config))


def _cut(config: Any, layers: int) -> Any:
    """A configuration, in place, made that of the model's first layers: what it states layer by layer is cut too."""
    sizes = config.get_text_config()
    n_layers = sizes.num_hidden_layers
    for name, value in list(vars(sizes).items()):
        if isinstance(value, list | tuple) and len(value) == n_layers:
            setattr(sizes, name, value[:layers])
    sizes.num_hidden_layers = min(layers, n_layers)
    return config


class _Sizes(NamedTuple):
    n_ctx: int | None
    vocab: int


@dataclass(frozen=True)
class Reader:
    """How a model reads text, without its weights; it takes a model's place where prompts are built.

    Attributes:
        name: what the model is called.
        tokenizer: its tokenizer, or None.
        bos_policy: as the model would have it.
        cfg: ``n_ctx`` (None if the model states none) and ``vocab``.
    """

    name: str
    tokenizer: Any | None
    bos_policy: BosPolicy
    cfg: _Sizes

    @property
    def bos_token_id(self) -> int | None:
        """The id of the BOS, or None if the vocabulary has none."""
        return None if self.tokenizer is None else self.tokenizer.bos_token_id


def reader(source: str | os.PathLike[str]) -> Reader:
    """How a model reads text; of its files only the configuration and the tokenizer are read.

    Raises:
        InterpError: there is no such model, or one of those files is missing or broken.
    """
    text = os.fspath(source)
    with _header_kept(text), _progress_hidden(), _transformers_to_log():
        name, checkpoint = _located(text, weights=False)
        gguf = {"gguf_file": checkpoint.gguf} if checkpoint.gguf else {}
        config = _config(checkpoint, gguf)
        tokenizer = _read_tokenizer(checkpoint, config, gguf)
    sizes = config.get_text_config()
    n_ctx = getattr(sizes, "max_position_embeddings", None)
    return Reader(name, tokenizer, bos_policy_of("auto", tokenizer), _Sizes(n_ctx, sizes.vocab_size))


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


def config_sha256(config: Any) -> str:
    """Fingerprint of what a configuration says of a model's arithmetic; where the model lies does not count.

    One set of weights gives other numbers with, say, another epsilon or another rotary base.
    """
    found = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    plain = {key: value for key, value in found.items() if not key.startswith("_") and key not in _NO_ARITHMETIC}
    text = json.dumps(plain, sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- where it is ----


def _header_kept(text: str) -> contextlib.AbstractContextManager[None]:
    """While a GGUF file is read, its header is parsed once."""
    return parsed_once() if text.endswith(".gguf") else contextlib.nullcontext()


def _located(text: str, *, weights: bool = True) -> tuple[str, Checkpoint]:
    """``_find``, with what the system refuses said in one line."""
    try:
        return _find(text, weights=weights)
    except OSError as error:  # no permission, a name too long, a file that went away
        raise InterpError(f"{text[:200]} cannot be read ({error.strerror}). Use 'mini' or another path.") from error


def _find(text: str, *, weights: bool = True) -> tuple[str, Checkpoint]:
    """What the model is called, and its files; without weights only the small ones are fetched and looked at."""
    if text == BUNDLED:
        return BUNDLED, files.of_directory(Path(mini.WEIGHTS), named=BUNDLED, linked=True, weights=weights)
    if not text or "\0" in text:
        raise InterpError(f"{text[:200]!r} names no model. Use 'mini', a directory or a hub name.")
    path = Path(text).expanduser()
    if path.is_dir():
        return str(path), files.of_directory(path, weights=weights)
    if path.is_file():
        if path.suffix != ".gguf":
            raise InterpError(
                f"{path} is not a model that can be read: give a directory, or a file that ends in .gguf."
            )
        return path.name, files.of_gguf(path)
    if os.path.lexists(path):
        raise InterpError(f"{path} is neither a directory nor a file, or a link to nowhere. Use 'mini' or a directory.")
    if _looks_like_path(text):
        raise InterpError(
            f"No model at {text}: there is no such file or directory. Use 'mini', a directory or a hub name."
        )
    return text, files.of_directory(_fetched(text, weights=weights), named=text, weights=weights)


def _looks_like_path(text: str) -> bool:
    return (
        text.endswith((".gguf", ".safetensors"))
        or text.startswith((".", "/", "~"))
        or text.count("/") > 1
        or (os.sep != "/" and os.sep in text)
    )


def _fetched(name: str, *, weights: bool = True) -> Path:
    """The directory of the hub's cache that holds a model: its small files first, then the weights that they name."""
    from huggingface_hub import snapshot_download

    def fetch(patterns: Iterable[str], revision: str | None) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]))

    first = (*files.SMALL_FILES, *([files.WEIGHTS] if weights else []))
    with _progress_hidden():
        try:
            revision = None
            directory = fetch(first, revision)
            if weights and not any((directory / file).exists() for file in (files.WEIGHTS, files.INDEX)):
                revision = _conversion(name)
                directory = fetch(first, revision)
            index = directory / files.INDEX
            if weights and index.is_file() and not (directory / files.WEIGHTS).exists():
                fetch(set(files.shard_names(index).values()), revision)
        except InterpError:
            raise
        except Exception as error:  # the hub's client raises many types; all mean "cannot be had"
            raise InterpError(
                f"Model '{name}' is not a local path and could not be fetched from the hub ({_one_line(error)}). "
                "Check the name and the network, or use 'mini' or a local directory."
            ) from error
    return directory


def _conversion(name: str) -> str | None:
    """The pull request in which the hub's own bot offers a repository's pickled weights as safetensors, or None.

    Only one made for the newest commit counts. The bot is not asked to make one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi()
    try:
        newest = api.list_repo_commits(name)[0].commit_id
        for found in api.get_repo_discussions(name, author="SFconvertbot", discussion_type="pull_request"):
            commits = api.list_repo_commits(name, revision=found.git_reference) if found.git_reference else []
            if "safetensors" in found.title and [commit.commit_id for commit in commits[1:2]] == [newest]:
                return found.git_reference
    except OfflineModeIsEnabled:
        return None  # what is missing is said of the files that are there
    return None


# ---- reading it ----


def _read(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[nn.Module, Any | None]:
    """Read model and tokenizer with Hugging Face's Auto classes; every failure becomes one line."""
    from transformers import AutoModelForCausalLM

    gguf = {"gguf_file": checkpoint.gguf} if checkpoint.gguf else {}
    # Rotary angles and other constants are made while a model is read: in float64 for a float64 model.
    with _progress_hidden(), _transformers_to_log(), in_one_dtype(dtype):
        config = _config(checkpoint, gguf)
        quantized = getattr(config, "quantization_config", None) is not None
        if not quantized:
            _check_claims(checkpoint, config)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint.directory,
                config=config,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=None if gguf else True,
                ignore_mismatched_sizes=True,  # they come back in the info, and are refused with their names
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                **gguf,
            )
        except Exception as error:  # Hugging Face raises many types; all mean "cannot load this"
            raise InterpError(f"Cannot load a model from {checkpoint.named}: {_one_line(error)}") from error
        model, info = loaded  # a pair, since the info was asked for
        _refuse_gaps(checkpoint, model, info)
        if not quantized:
            _check_all_used(checkpoint, model)
        return model, _read_tokenizer(checkpoint, config, gguf)


def _config(checkpoint: Checkpoint, gguf: Mapping[str, str]) -> Any:
    """The model's configuration: of a causal language model, with sizes that make sense."""
    from transformers import CONFIG_MAPPING, AutoConfig

    family = checkpoint.config.get("model_type")
    if not gguf and family not in CONFIG_MAPPING:
        raise InterpError(
            f"{checkpoint.named} is of the family '{str(family)[:60]}' (model_type in config.json), which this "
            "transformers does not know; code that comes with a model is never run."
        )
    try:
        config = AutoConfig.from_pretrained(
            checkpoint.directory,
            attn_implementation="eager",  # the only one that exposes scores and patterns
            local_files_only=True,
            trust_remote_code=False,
            **gguf,
        )
        config.return_dict = True  # what a run gives back, not what it computes
        config.output_attentions = config.output_hidden_states = False
        _check_kind(config, checkpoint.named)
        _check_sizes(config, checkpoint.named)
    except InterpError:
        raise
    except Exception as error:  # each family checks its own settings, and raises many types
        raise InterpError(f"Cannot use the configuration of {checkpoint.named}: {_one_line(error)}") from error
    return config


def _check_kind(config: Any, named: str) -> None:
    """Refuse what is known from its settings to be no causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if config.is_encoder_decoder:
        raise _not_causal(named, f"an encoder-decoder model ({config.model_type})")
    if _sees_ahead(config):
        raise _not_causal(named, f"bidirectional ({config.model_type})")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InterpError(
            f"{named} is of the family '{config.model_type}', of which transformers has no causal language model. "
            "Use a GPT, a Llama or another of TransformerLens's families."
        )


def _sees_ahead(config: Any) -> bool:
    """Whether a configuration states attention to later tokens. What it does not state, ``check_causal`` finds."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    text = config.get_text_config()
    decoder = getattr(config, "is_decoder", False) or getattr(config, "causal", False)  # XLM's name for it
    return (
        (type(config) in MODEL_FOR_MASKED_LM_MAPPING and not decoder)
        or config.model_type == "xlnet"  # reads in permuted orders, and is in no table of masked models
        or getattr(text, "is_causal", True) is False
        or getattr(text, "use_bidirectional_attention", None) in (True, "all")
    )


def _not_causal(named: str, what: str) -> InterpError:
    return InterpError(
        f"{named} is {what}: its tokens see later ones. What is asked here needs a causal model, "
        "such as a GPT or a Llama."
    )


def _check_sizes(config: Any, named: str) -> None:
    text = config.get_text_config()
    for name in SIZES:
        value = getattr(text, name, None)
        if value is not None and (type(value) is not int or value < 1):
            stated = text.attribute_map.get(name, name)
            raise InterpError(
                f"The configuration of {named} states {stated} = {str(value)[:40]}: "
                "it must be a whole number above zero."
            )


@torch.inference_mode()
def check_causal(model: Any, named: str) -> None:
    """Prove that no token changes what is said before it.

    Raises:
        InterpError: the model is bidirectional.
    """
    sizes = model.config.get_text_config()
    length = min(6, int(getattr(sizes, "max_position_embeddings", 6)))
    ids = torch.arange(length).repeat(2, 1) % sizes.vocab_size
    ids[1, -1] = (ids[1, -1] + 1) % sizes.vocab_size
    ids = ids.to(next(model.parameters()).device)
    try:
        logits = model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :-1].float()
    except Exception as error:
        raise InterpError(f"{named} cannot be run by Hugging Face's own code: {_one_line(error)}") from error
    if logits.numel() and float((logits[0] - logits[1]).abs().max()) > LEAK[model.dtype] * float(logits.abs().max()):
        raise _not_causal(named, f"bidirectional ({model.config.model_type})")


# ---- whether all of it comes from the checkpoint ----


def _empty(config: Any, tensors: Mapping[str, files.Stored]) -> tuple[Any, dict[str, Any]]:
    """The model that a configuration describes, without memory for its weights; and which of them are not stored."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not isinstance(config, kind.config_class):  # a text model inside a family that reads images too
        config = config.get_text_config()
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict={name: torch.empty(stored.shape, device="meta") for name, stored in tensors.items()},
        device_map={"": "meta"},
        dtype=torch.float32,
        attn_implementation="eager",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        local_files_only=True,
    )
    return model, info


def _check_claims(checkpoint: Checkpoint, config: Any) -> None:
    """Compare what the configuration describes with what the weights hold, before memory is taken for either."""
    try:
        with _transformers_to_log(logging.ERROR):  # what it would warn of is refused below, by name
            model, info = _empty(config, {} if checkpoint.gguf else checkpoint.tensors)
    except Exception as error:
        raise InterpError(
            f"The configuration and the weights of {checkpoint.named} do not fit: {_one_line(error)}"
        ) from error
    if not checkpoint.gguf:  # names in a GGUF file are its own; what is missing is known when it has been read
        _refuse_gaps(checkpoint, model, info)
        _refuse_integers(checkpoint, model)
    claimed = _numbers(model) + sum(buffer.numel() for buffer in model.buffers())
    if claimed > 8 * checkpoint.numbers + 2**28:
        raise InterpError(
            f"The configuration of {checkpoint.named} describes {claimed:.3g} numbers, its weights hold "
            f"{checkpoint.numbers:.3g}: they are not of one model."
        )


def _refuse_gaps(checkpoint: Checkpoint, model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a model of which some weights would be random, or a checkpoint of which some would go unused."""
    missing = sorted(info["missing_keys"])
    unexpected = sorted(name for name in info["unexpected_keys"] if not _is_computed(name, checkpoint, model))
    mismatched = sorted(
        f"{name} {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]
    )
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    wrong = "; ".join(f"{len(names)} {kind} ({files.some(names)})" for kind, names in kinds if names)
    if wrong:
        raise InterpError(
            f"{checkpoint.named} is not a whole {type(model).__name__}: of its tensors, {wrong}. "
            f"{_advice(checkpoint, model)}"
        )


def _advice(checkpoint: Checkpoint, model: Any) -> str:
    names = list(checkpoint.tensors)
    if not names:
        return "Its weights are empty: download or save it again."
    if any(".lora_" in name for name in names):
        return "Its weights are an adapter's: merge it into its base model (merge_and_unload in peft) and save that."
    prefix = names[0].split(".")[0] + "."
    if all(name.startswith(prefix) for name in names) and not any(
        name.startswith(prefix) for name in model.state_dict()
    ):
        return f"Every name in it begins with '{prefix}': take that away from the names and save it again."
    return "Its configuration and its weights are not of one model: save or download both again."


def _is_computed(name: str, checkpoint: Checkpoint, model: Any) -> bool:
    """Whether a tensor is one that models once stored and now compute."""
    if not COMPUTED.search(name):
        return False
    stored = checkpoint.tensors.get(name) or checkpoint.tensors.get(name.removeprefix(f"{model.base_model_prefix}."))
    is_mask = name.endswith(("bias", "causal_mask"))
    return not is_mask or (stored is not None and len(stored.shape) in (0, 4))  # a bias of weights is a vector


def _refuse_integers(checkpoint: Checkpoint, model: Any) -> None:
    """Refuse quantized weights of a model whose configuration does not say how to read them."""
    whole = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    packed = [
        f"{name} {stored.dtype}"
        for name, stored in checkpoint.tensors.items()
        if stored.dtype not in FLOATS and name not in whole and not COMPUTED.search(name)
    ]
    if packed:
        raise InterpError(
            f"{checkpoint.named} holds weights that are no plain floats ({files.some(packed)}), and its "
            "config.json has no quantization_config that says how to read them. Save it in float32 or bfloat16."
        )


def _numbers(model: Any) -> int:
    """How many numbers a model keeps, each tensor counted once however many names it has."""
    return sum({id(t): t.numel() for t in model.state_dict(keep_vars=True).values()}.values())


def _check_all_used(checkpoint: Checkpoint, model: Any) -> None:
    """Compare the size of the loaded model with that of its files, whatever transformers reports of missing weights.

    Tied weights may be in the files once or under each of their names.
    """
    state = model.state_dict()
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    held = 0
    for name, stored in checkpoint.tensors.items():
        known = name in state or f"{model.base_model_prefix}.{name}" in state
        if known or not (_is_computed(name, checkpoint, model) or any(p.search(name) for p in ignored)):
            held += stored.numbers
    kept = _numbers(model)
    again = sum(tensor.numel() for tensor in state.values()) - kept
    if held - kept not in (0, again):
        beyond = [
            name for name in checkpoint.tensors if _block(name) >= model.config.get_text_config().num_hidden_layers
        ]
        raise InterpError(
            f"{checkpoint.named} holds {held} numbers, the {type(model).__name__} made of it has {kept}"
            f"{f' (blocks beyond its last: {files.some(beyond)})' if beyond else ''}: part of one is not in the "
            "other. Its configuration and its weights are not of one model: save or download both again."
        )


def _block(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


# ---- tokenizer ----


def _read_tokenizer(checkpoint: Checkpoint, config: Any, gguf: Mapping[str, str]) -> Any | None:
    from transformers import AutoTokenizer

    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
    if not gguf and not any((checkpoint.directory / name).is_file() for name in names):
        log.warning("%s has no tokenizer: the model works on token ids only.", checkpoint.named)
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.directory, local_files_only=True, trust_remote_code=False, **gguf
        )
        n_tokens, vocab = tokenizer.vocab_size, config.get_text_config().vocab_size
    except Exception as error:
        raise InterpError(
            f"Cannot load the tokenizer from {checkpoint.named}: {_one_line(error)}. Download or save it again."
        ) from error
    if not 0 < n_tokens <= vocab:
        raise InterpError(
            f"The tokenizer of {checkpoint.named} has {n_tokens} tokens, its model knows {vocab}: it is "
            "another model's or damaged. Put the right one beside the weights."
        )
    if len(tokenizer) > vocab:
        log.warning(
            "%s: its tokenizer has added tokens with ids that the model does not know (%d and more).",
            checkpoint.named,
            vocab,
        )
    if tokenizer.pad_token is None:  # TransformerLens pads even a single text, and refuses without one
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    return tokenizer


# ---- what transformers says ----


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


@contextlib.contextmanager
def _progress_hidden() -> Iterator[None]:
    """Hide the progress bars of Hugging Face while loading."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _Forward(logging.Handler):
    """Passes on what another library logs, one line each, to this module's log."""

    def emit(self, record: logging.LogRecord) -> None:
        text = re.sub(r"\x1b\[[\d;]*m", "", record.getMessage())  # colours of a terminal
        log.log(record.levelno, "transformers: %s", " ".join(text.split()))


@contextlib.contextmanager
def _transformers_to_log(level: int = logging.WARNING) -> Iterator[None]:
    """Let what transformers reports reach this library's log, instead of the terminal."""
    theirs = logging.getLogger("transformers")
    before = theirs.handlers, theirs.propagate, theirs.level
    theirs.handlers, theirs.propagate = [_Forward()], False
    theirs.setLevel(level)  # somebody may have silenced it: TransformerLens does
    try:
        yield
    finally:
        theirs.handlers, theirs.propagate = before[:2]
        theirs.setLevel(before[2])
