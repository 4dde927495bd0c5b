"""Checkpoints that lack something, say something else than they hold, or were made to do harm: one line, at once."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers as T
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from analyses.cli.main import main
from interp import mini
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.model.source import check_causal
from tests.tiny import VOCAB, random_ids
from tests.tiny_tokenizers import pieces
from tests.tolerance import close

Captured = pytest.CaptureFixture[str]
Damage = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]

SECONDS = 20
"""What a refusal may take, on a slow and busy machine. Reading a pipe, or building a million layers, takes for ever."""


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that hangs fails instead."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def gpt2_copy(gpt2_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gpt2_directory, tmp_path / "model"))


@pytest.fixture
def llama_copy(llama_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_directory, tmp_path / "model"))


def refusal(source: object) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(InterpError) as caught:
        HookedTransformer.from_pretrained(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


# ---- making damage ----


def edit(change: Callable[[Tensors], Tensors]) -> Damage:
    """Write the weights again, changed."""

    def damage(directory: Path) -> None:
        file = directory / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return damage


def without(*parts: str) -> Damage:
    """Leave out the tensors whose names hold one of these."""
    return edit(lambda held: {k: v for k, v in held.items() if not any(part in k for part in parts)})


def renamed(prefix: str) -> Damage:
    return edit(lambda held: {prefix + name: tensor for name, tensor in held.items()})


def plus(**tensors: torch.Tensor) -> Damage:
    return edit(lambda held: held | {name.replace("__", "."): tensor for name, tensor in tensors.items()})


def settings(**changes: object) -> Damage:
    """Change config.json."""

    def damage(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def text(name: str, content: str | bytes) -> Damage:
    """Replace a file."""

    def damage(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Put something else where a file was."""

    def damage(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        make(directory / name)

    return damage


def header(change: Callable[[dict[str, Any]], object], *, pad: int = 0) -> Damage:
    """Change the header of the weights, or replace it by what the change gives back."""

    def damage(directory: Path) -> None:
        file = directory / "model.safetensors"
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        stated = json.loads(data[8 : 8 + length])
        changed = change(stated)
        new = changed if isinstance(changed, bytes) else json.dumps(stated if changed is None else changed).encode()
        file.write_bytes(struct.pack("<Q", len(new) + pad) + new + data[8 + length :])

    return damage


def first(**changes: object) -> Damage:
    """Change the entry of the first tensor in the header."""

    def change(stated: dict[str, Any]) -> None:
        stated[next(name for name in stated if name != "__metadata__")].update(changes)

    return header(change)


def sharded(directory: Path) -> dict[str, Any]:
    """Split the weights into two files and an index."""
    held = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(held)
    files = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, parts in files.items():
        save_file({name: held[name] for name in parts}, directory / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, parts in files.items() for name in parts}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def index(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Split the weights, and change the index."""

    def damage(directory: Path) -> None:
        stated = sharded(directory)
        changed = change(stated)
        (directory / "model.safetensors.index.json").write_text(json.dumps(stated if changed is None else changed))

    return damage


def elsewhere(where: str) -> Damage:
    """An index that names weights outside of the directory; they are there, and whole."""

    def damage(directory: Path) -> None:
        stated = sharded(directory)
        shutil.move(directory / "b.safetensors", directory.parent / "b.safetensors")
        name = where.format(directory.parent)
        for tensor, file in stated["weight_map"].items():
            stated["weight_map"][tensor] = name if file == "b.safetensors" else file
        (directory / "model.safetensors.index.json").write_text(json.dumps(stated))

    return damage


def linked_out(name: str) -> Damage:
    def damage(directory: Path) -> None:
        shutil.move(directory / name, directory.parent / name)
        (directory / name).symlink_to(directory.parent / name)

    return damage


def drop(keys: int) -> Callable[[dict[str, Any]], None]:
    def change(stated: dict[str, Any]) -> None:
        for name in sorted(stated["weight_map"])[:keys]:
            del stated["weight_map"][name]

    return change


def overlap(stated: dict[str, Any]) -> None:
    one, two = [name for name in stated if name != "__metadata__"][:2]
    stated[two] = stated[one]


def twice(stated: dict[str, Any]) -> bytes:
    name = next(name for name in stated if name != "__metadata__")
    return json.dumps(stated).encode()[:-1] + f", {json.dumps(name)}: {json.dumps(stated[name])}}}".encode()


def tokenizer(*tokens: str) -> Damage:
    return lambda directory: pieces(*tokens).save_pretrained(directory)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


PIPE, LOOP, DEVICE, FOLDER = os.mkfifo, loop, device, Path.mkdir
DEEP = "[" * 100_000
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"

# Damage to a Llama with an untied head, and what the line must say.
LACKING: dict[str, tuple[Damage, str]] = {
    "the prefix of a compiled module": (
        renamed("_orig_mod."),
        r"30 missing \(lm_head\.weight, .*\); 30 unexpected \(_orig_mod\..* begins with '_orig_mod\.': take that away",
    ),
    "the prefix of a parallel module": (renamed("module."), r"30 missing .* begins with 'module\.'"),
    "a layer": (without(".layers.1."), r"9 missing \(model\.layers\.1\.input_layernorm\.weight, .* and 6 more\)"),
    "one weight": (without("layers.2.mlp.up_proj"), r"1 missing \(model\.layers\.2\.mlp\.up_proj\.weight\)\. "),
    "the last norm": (without("model.norm"), r"1 missing \(model\.norm\.weight\)"),
    "the embedding": (without("embed_tokens"), r"1 missing \(model\.embed_tokens\.weight\)"),
    "the head": (without("lm_head"), r"1 missing \(lm_head\.weight\)"),
    "all but an adapter": (
        edit(lambda held: {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, 32)}),
        r"30 missing .*1 unexpected \(.*lora_A\.weight\)\. Its weights are an adapter's: merge it",
    ),
    "everything": (edit(lambda held: {}), r"30 missing .*Its weights are empty"),
    "a layer that is described": (settings(num_hidden_layers=4), r"9 missing \(model\.layers\.3\."),
    "a layer in the configuration": (settings(num_hidden_layers=2), r"9 unexpected \(model\.layers\.2\."),
    "a place for a head of another task": (plus(score__weight=torch.ones(2, 32)), r"1 unexpected \(score\.weight\)"),
    "a place for biases": (
        plus(model__layers__0__self_attn__q_proj__bias=torch.ones(32)),
        r"1 unexpected \(model\.layers\.0\.self_attn\.q_proj\.bias\)",
    ),
    "room in the configuration": (
        settings(intermediate_size=40),
        r"9 of another shape \(model\.layers\.0\.mlp\.down_proj\.weight \(32, 48\) instead of \(32, 40\), ",
    ),
    "words": (settings(vocab_size=61), r"2 of another shape \(lm_head\.weight \(60, 32\) instead of \(61, 32\), "),
    "what a vast configuration describes": (settings(vocab_size=10**10), r"2 of another shape .*10000000000"),
    "floats": (
        edit(lambda held: {k: v.to(torch.int8) if "up_proj" in k else v for k, v in held.items()}),
        r"no plain floats \(model\.layers\.0\.mlp\.up_proj\.weight I8, .* no quantization_config",
    ),
    "an entry of the index": (index(drop(3)), r"differ in where 3 tensors are \(lm_head\.weight, "),
    "a file of the index": (
        lambda directory: (sharded(directory), (directory / "b.safetensors").unlink()),
        r"names files that are not there: b\.safetensors",
    ),
    "the other half of the weights": (
        lambda directory: (sharded(directory), (directory / INDEX).unlink()),
        r"has no model\.safetensors, only a\.safetensors, b\.safetensors\. ",
    ),
    "a whole": (
        lambda directory: (directory / "adapter_config.json").write_text("{}"),
        r"holds an adapter \(adapter_config\.json\), not a whole model\. Merge it",
    ),
}  # fmt: skip

# Damage to a GPT-2 with a tied head.
TIED: dict[str, tuple[Damage, str]] = {
    "the embedding, which is the head too": (without("wte"), r"missing \(.*transformer\.wte\.weight"),
    "one bias": (without("h.1.mlp.c_fc.bias"), r"1 missing \(transformer\.h\.1\.mlp\.c_fc\.bias\)"),
    "positions": (without("wpe"), r"1 missing \(transformer\.wpe\.weight\)"),
    "a head of its own": (settings(tie_word_embeddings=False), r"1 missing \(lm_head\.weight\)"),
    "one name for a tensor": (
        edit(lambda held: held | {"ln_f.weight": 2 * held["transformer.ln_f.weight"]}),
        r"holds 40896 numbers, the GPT2LMHeadModel made of it has 40864",
    ),
}  # fmt: skip

ODD: dict[str, tuple[Damage, str]] = {
    "no layers": (settings(n_layer=0), r"states n_layer = 0: it must be a whole number above zero"),
    "a million layers": (settings(n_layer=10**6), r"config\.json states n_layer = 1000000, its weights are 40 tensors"),
    "layers without end": (settings(n_layer=10**9), r"states n_layer = 1000000000"),
    "labels without end": (settings(num_labels=10**11), r"states num_labels = 100000000000"),
    "a negative width": (settings(n_embd=-32), r"n_embd = -32: it must be a whole number above zero"),
    "a width of thousands of digits": (settings(n_embd=10**3000), r"states n_embd = 10000000000000000000,? ?.*no such"),
    "a width that is half a number": (settings(n_embd=32.5), r"n_embd|int"),
    "layers in words": (settings(n_layer="three"), r"n_layer|num_hidden_layers"),
    "no heads": (settings(n_head=0), r"n_head = 0"),
    "heads that do not divide the width": (settings(n_head=5), r"divisible"),
    "no positions": (settings(n_positions=0), r"n_positions = 0"),
    "an encoder and a decoder": (settings(is_encoder_decoder=True), r"an encoder-decoder model .* a causal model"),
    "no family": (lambda d: (d / "config.json").write_text('{"n_layer": 3}'), r"does not state a model_type"),
    "an unknown family": (settings(model_type="gtp2"), r"of the family 'gtp2' .* does not know; code .* is never run"),
    "a family of its own code": (
        settings(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}),
        r"'mine' .* code that comes with a model is never run",
    ),
    "a family of images": (settings(model_type="vit"), r"the family 'vit', of which transformers has no causal"),
    "other files of settings": (settings(configuration_files=["config.4.0.json"]), r"names other files"),
    "weights outside": (settings(transformers_weights="../b.safetensors"), r"names weights outside its directory"),
    "a list": (text("config.json", "[1]"), r"config\.json is damaged or no JSON file \(list where an object belongs\)"),
    "null": (text("config.json", "null"), r"\(NoneType where an object belongs\)"),
    "nothing": (text("config.json", ""), r"config\.json is damaged or no JSON file \(Expecting value"),
    "depth": (text("config.json", DEEP), r"\(nested too deep\)"),
    "deep objects": (text("config.json", '{"a":' * 100_000), r"\(nested too deep\)"),
    "no text": (text("config.json", b'{"model_type": "\xff\xfe"}'), r"'utf-8' codec can't decode"),
    "a number of 5,000 digits": (text("config.json", '{"n_layer": 1' + "0" * 5000 + "}"), r"config\.json is damaged"),
    "a key twice": (text("config.json", '{"n_layer": 3, "n_layer": 2}'), r"the key 'n_layer' twice"),
    "too much": (
        instead("config.json", lambda path: (path.touch(), os.truncate(path, 10**10))),
        r"config\.json is too large \(10000000000 bytes",
    ),
    "a tokenizer of another model": (tokenizer(*(f"w{i}" for i in range(VOCAB))), r"has 62 tokens, its model knows 60"),
    "a tokenizer without words": (
        text("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer"}'),
        r"tokenizer of .*model",
    ),
    "a tokenizer that is a list": (text("tokenizer.json", "[]"), r"Cannot load the tokenizer"),
    "a tokenizer nested deep": (text("tokenizer.json", '{"a":' * 100_000), r"Cannot load the tokenizer"),
    "settings of a tokenizer that are null": (
        lambda d: (tokenizer("a")(d), (d / "tokenizer_config.json").write_text("null")),
        r"Cannot load the tokenizer",
    ),
}  # fmt: skip

HOSTILE: dict[str, tuple[Damage, str]] = {
    "an index that leads up": (elsewhere("../b.safetensors"), r"names '\.\./b\.safetensors', which is no safe"),
    "an index that leads anywhere": (elsewhere("{}/b.safetensors"), r"names '/.*', which is no safetensors file of"),
    "an index that names no file": (index(lambda i: i["weight_map"].update(a=3)), r"names '3', which is no"),
    "an index that is a list": (index(lambda i: [1]), r"index\.json is damaged or no JSON file \(list where"),
    "an index that is null": (index(lambda i: {"metadata": {}, "weight_map": None}), r"is no index of weights"),
    "an index of nothing": (index(lambda i: {"metadata": {}, "weight_map": {}}), r"is no index of weights"),
    "an index without metadata": (index(lambda i: i.pop("metadata") and None), r"needs a 'metadata'"),
    "an index nested deep": (lambda d: (sharded(d), text(INDEX, DEEP)(d)), r"index\.json is damaged .*nested too deep"),
    "weights that are a link out": (linked_out(WEIGHTS), r"model\.safetensors is a link to a file outside"),
    "a configuration that is a link out": (linked_out("config.json"), r"config\.json is a link to a file outside"),
    **{
        f"{name} that is {what}": (instead(name, make), rf"{name.replace('.', '[.]')} {says}")
        for name in (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", INDEX)
        for what, make, says in (
            ("a pipe", PIPE, "is a pipe, a socket or a device"),
            ("a device", DEVICE, "is a pipe, a socket or a device"),
            ("a circle of links", LOOP, "cannot be read .*symbolic links"),
            ("a directory", FOLDER, "is a directory, not a file"),
        )
    },
    "weights of no bytes": (text(WEIGHTS, b""), r"truncated or not a safetensors file"),
    "weights of seven bytes": (text(WEIGHTS, b"1234567"), r"truncated or not a safetensors file"),
    "weights that are a text": (text(WEIGHTS, b"<html>not found</html>"), r"truncated or not a safetensors file"),
    "weights cut in the header": (
        lambda d: os.truncate(d / WEIGHTS, 300),
        r"truncated or not a safetensors file \(300 bytes, its header says",
    ),
    "weights cut at the end": (
        lambda d: os.truncate(d / WEIGHTS, (d / WEIGHTS).stat().st_size - 1),
        r"truncated or not a safetensors file \(\d+ bytes, its header describes",
    ),
    "a header without end": (text(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"), r"its header says that it has 922337"),
    "a header that is a list": (header(lambda h: []), r"\(list where an object belongs\)"),
    "a header that is null": (header(lambda h: b"null"), r"\(NoneType where an object belongs\)"),
    "a header nested deep": (header(lambda h: DEEP.encode()), r"\(nested too deep\)"),
    "a header that is no text": (header(lambda h: b'{"\xff": 1}'), r"'utf-8' codec"),
    "a header without tensors": (header(lambda h: {}), r"its header describes"),
    "an entry that is null": (header(lambda h: {"a": None}), r"the entry of 'a' makes no sense"),
    "an entry without a shape": (header(lambda h: {"a": {"dtype": "F32", "data_offsets": [0, 4]}}), r"entry of 'a'"),
    "an unknown data type": (first(dtype="F31"), r"makes no sense"),
    "a data type that is a list": (first(dtype=[]), r"makes no sense"),
    "a negative shape": (first(shape=[-60, -32]), r"makes no sense"),
    "a shape of texts": (first(shape=["60", "32"]), r"makes no sense"),
    "a vast shape": (first(shape=[2**40, 2**40]), r"makes no sense"),
    "negative offsets": (first(data_offsets=[-7680, 0]), r"makes no sense"),
    "offsets in words": (first(data_offsets=["0", "7680"]), r"makes no sense"),
    "tensors that overlap": (header(overlap), r"overlap or leave a gap"),
    "a tensor twice": (header(twice), r"the key '.*' twice"),
}  # fmt: skip


@pytest.mark.parametrize("lack", LACKING)
def test_a_checkpoint_that_lacks_something_is_refused_by_name(lack: str, llama_copy: Path, in_time: None) -> None:
    damage, says = LACKING[lack]
    damage(llama_copy)
    assert re.search(says, refusal(llama_copy))


@pytest.mark.parametrize("what", {**TIED, **ODD, **HOSTILE})
def test_what_is_wrong_is_said_in_one_line(what: str, gpt2_copy: Path, in_time: None) -> None:
    damage, says = {**TIED, **ODD, **HOSTILE}[what]
    damage(gpt2_copy)
    assert re.search(says, refusal(gpt2_copy))


SOME = ("a layer", "one bias", "a million layers", "a list", "an index that leads up", "config.json that is a pipe")


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[] if what in SOME else pytest.mark.slow)
        for what in {**LACKING, **TIED, **ODD, **HOSTILE}
    ],
)
def test_the_command_exits_with_2_and_one_line(
    what: str, gpt2_directory: Path, llama_directory: Path, tmp_path: Path, capsys: Captured, in_time: None
) -> None:
    directory = Path(shutil.copytree(llama_directory if what in LACKING else gpt2_directory, tmp_path / "model"))
    {**LACKING, **TIED, **ODD, **HOSTILE}[what][0](directory)
    capsys.readouterr()
    assert main(["run", "color-noun", "--model", str(directory), "--quiet", "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("interp: ")


# ---- whatever the source ----


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Path], Path]:
    """Put a model into a cache of the hub as a download leaves it: a snapshot of links to blobs."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def put(name: str, directory: Path) -> Path:
        revision = "0" * 40
        repository = cache / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / revision
        for folder in (snapshot, repository / "blobs", repository / "refs"):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        for number, file in enumerate(sorted(directory.iterdir())):
            shutil.copy(file, repository / "blobs" / str(number))
            (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
        return snapshot

    return put


@pytest.mark.parametrize("lack", ["a layer", "the head", "a layer in the configuration", "an entry of the index"])
def test_a_model_of_the_hub_that_lacks_something_is_refused_by_name(
    lack: str, llama_copy: Path, hub: Callable[[str, Path], Path]
) -> None:
    damage, says = LACKING[lack]
    damage(llama_copy)
    hub("someone/tiny", llama_copy)
    assert re.search(says, refusal("someone/tiny"))


def test_a_model_of_the_hub_has_the_numbers_of_its_directory(
    llama_copy: Path, llama: HookedTransformer, hub: Callable[[str, Path], Path]
) -> None:
    pieces("a", "b").save_pretrained(llama_copy)
    sharded(llama_copy)
    snapshot = hub("someone/tiny", llama_copy)
    for source in ("someone/tiny", snapshot):
        model = HookedTransformer.from_pretrained(source)
        assert (model.name, model.weights_sha256) == (str(source), llama.weights_sha256)
        assert model.tokenizer is not None


def test_weights_that_the_hub_has_converted_are_read_where_they_are(
    gpt2_copy: Path, gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the hub: the main revision has pickled weights, a pull request on top of it has safetensors."""
    main = gpt2_copy.parent / "main"
    main.mkdir()
    shutil.copy(gpt2_copy / "config.json", main)
    offers = [SimpleNamespace(title="Adding `safetensors` variant of this model", git_reference="refs/pr/3")]
    commits = {None: ["b", "a"], "refs/pr/3": ["c", "b", "a"]}
    asked: list[str | None] = []

    def snapshot(name: str, *, revision: str | None, **_: object) -> str:
        asked.append(revision)
        return str(main if revision is None else gpt2_copy)

    class Hub:
        def list_repo_commits(self, name: str, revision: str | None = None) -> list[SimpleNamespace]:
            return [SimpleNamespace(commit_id=commit) for commit in commits[revision]]

        def get_repo_discussions(self, name: str, *, author: str, discussion_type: str) -> list[SimpleNamespace]:
            assert (author, discussion_type) == ("SFconvertbot", "pull_request")
            return offers

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert HookedTransformer.from_pretrained("someone/old").weights_sha256 == gpt2.weights_sha256
    assert asked == [None, "refs/pr/3"]
    commits["refs/pr/3"] = ["c", "a"]  # made of an older revision
    assert "has no weights" in refusal("someone/old")


def test_weights_that_nobody_has_converted_are_refused(llama_copy: Path, hub: Callable[[str, Path], Path]) -> None:
    (llama_copy / WEIGHTS).unlink()
    hub("someone/old", llama_copy)
    assert "has no weights" in refusal("someone/old")


def test_a_model_that_was_loaded_reads_texts_as_transformer_lens_does(gpt2_copy: Path) -> None:
    """TransformerLens asks the tokenizer to pad; GPT-2's has no token for it."""
    pieces("a", "b").save_pretrained(gpt2_copy)
    model = HookedTransformer.from_pretrained(gpt2_copy)
    assert model.bridge.run_with_cache("ab")[0].shape[-1] == VOCAB


def test_the_bundled_model_that_lacks_something_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(mini.WEIGHTS, tmp_path / "mini"))
    without(".h.1.")(directory)
    monkeypatch.setattr(mini, "WEIGHTS", directory)
    assert re.search(r"mini is not a whole .*12 missing \(transformer\.h\.1\.", refusal("mini"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (PIPE, "is neither a directory nor a file"),
        (LOOP, "is neither a directory nor a file, or a link to nowhere"),
        (DEVICE, "is neither a directory nor a file"),
        (lambda path: path.symlink_to("nothing"), "a link to nowhere"),
        (Path.touch, "is not a model that can be read"),
    ],
)
def test_a_source_that_is_no_model(make: Callable[[Path], object], says: str, tmp_path: Path, in_time: None) -> None:
    make(tmp_path / "model")
    assert says in refusal(tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "'' names no model"),
        ("a\0b", "names no model"),
        ("x" * 5000, "cannot be read (File name too long)"),
        ("a b/c d", "could not be fetched from the hub"),
        ("../" * 30 + "nothing", "there is no such file or directory"),
    ],
)
def test_a_name_that_is_no_model(source: str, says: str) -> None:
    assert says in refusal(source)


# ---- what is no damage ----

KINDLY: dict[str, Damage] = {
    "causal masks of old GPT-2 checkpoints": plus(
        transformer__h__0__attn__bias=torch.ones(1, 1, 24, 24, dtype=torch.uint8),
        transformer__h__0__attn__masked_bias=torch.tensor(-1e4),
    ),
    "names without the family's prefix": edit(
        lambda held: {name.removeprefix("transformer."): tensor for name, tensor in held.items()}
    ),
    "the head under both of its names": edit(
        lambda held: held | {"lm_head.weight": held["transformer.wte.weight"].clone()}
    ),
    "the head under its other name": edit(
        lambda held: {name.replace("transformer.wte", "lm_head"): tensor for name, tensor in held.items()}
    ),
    "two files and an index": sharded,
    "outputs without names": settings(return_dict=False),
    "outputs with attention": settings(output_attentions=True, output_hidden_states=True),
    "a link within the directory": lambda d: (shutil.move(d / WEIGHTS, d / "w"), (d / WEIGHTS).symlink_to("w")),
    "code that is not needed": settings(auto_map={"AutoModelForCausalLM": "mine.Model"}),
    "a wrong name of its class": settings(architectures=["GPTJForCausalLM"]),
    "no name of its class": settings(architectures=1e308),
    "another attention": settings(attn_implementation="someone/kernel"),
}  # fmt: skip


@pytest.mark.parametrize("what", KINDLY)
def test_what_is_no_damage_loads_with_the_numbers_of_hugging_face(
    what: str, gpt2_copy: Path, gpt2: HookedTransformer, in_time: None
) -> None:
    KINDLY[what](gpt2_copy)
    assert HookedTransformer.from_pretrained(gpt2_copy).weights_sha256 == gpt2.weights_sha256


def test_rotary_frequencies_of_old_llama_checkpoints_are_no_damage(llama_copy: Path, llama: HookedTransformer) -> None:
    plus(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))(llama_copy)
    assert HookedTransformer.from_pretrained(llama_copy).weights_sha256 == llama.weights_sha256


def test_a_head_of_its_own_beside_a_tied_one_is_used_and_warned_of(
    gpt2_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What transformers has to say reaches the log: here that a configuration says what its weights do not."""
    edit(lambda held: held | {"lm_head.weight": 2 * held["transformer.wte.weight"]})(gpt2_copy)
    with caplog.at_level(logging.WARNING, logger="interp"):
        model = HookedTransformer.from_pretrained(gpt2_copy, numerics="raw")
    assert any("transformers: The tied weights mapping" in record.getMessage() for record in caplog.records)
    ids = torch.tensor(random_ids(2, 6))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(gpt2_copy).eval()(ids).logits
    close(model.forward(ids), expected)


# Damage, what the line advises, and that done.
ADVICE: dict[str, tuple[Damage, Damage]] = {
    "take that away from the names": (
        renamed("_orig_mod."),
        edit(lambda held: {name.removeprefix("_orig_mod."): tensor for name, tensor in held.items()}),
    ),
    "Rename the file of the whole model": (
        lambda directory: (directory / WEIGHTS).rename(directory / "weights.safetensors"),
        lambda directory: (directory / "weights.safetensors").rename(directory / WEIGHTS),
    ),
    "it needs a 'metadata'": (
        index(lambda stated: {"weight_map": stated["weight_map"]}),
        lambda directory: text(
            INDEX, json.dumps({"metadata": {}, **json.loads((directory / INDEX).read_text())})
        )(directory),
    ),
    "Put the file itself there": (
        linked_out(WEIGHTS),
        lambda directory: shutil.move((directory / WEIGHTS).resolve(), directory / WEIGHTS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("advice", ADVICE)
def test_the_advice_works(advice: str, llama_copy: Path, llama: HookedTransformer) -> None:
    damage, mend = ADVICE[advice]
    damage(llama_copy)
    assert advice in refusal(llama_copy)
    mend(llama_copy)
    assert HookedTransformer.from_pretrained(llama_copy).weights_sha256 == llama.weights_sha256


# ---- causal or not ----

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": VOCAB,
    "max_position_embeddings": 24,
}
GEMMA = {**BERT, "num_key_value_heads": 2, "head_dim": 8, "use_bidirectional_attention": True}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": VOCAB}
BIDIRECTIONAL: dict[str, tuple[Callable[[], Any], str]] = {
    "BERT": (lambda: T.BertForMaskedLM(T.BertConfig(**BERT)), r"bidirectional \(bert\)"),
    "BERT with a head": (lambda: T.BertLMHeadModel(T.BertConfig(**BERT)), r"bidirectional \(bert\)"),
    "RoBERTa": (lambda: T.RobertaForMaskedLM(T.RobertaConfig(**BERT)), r"bidirectional \(roberta\)"),
    "XLNet": (lambda: T.XLNetLMHeadModel(T.XLNetConfig(**XLNET)), r"bidirectional \(xlnet\)"),
    "Gemma 3": (lambda: T.Gemma3ForCausalLM(T.Gemma3TextConfig(**GEMMA)), r"bidirectional \(gemma3_text\)"),
    "T5": (
        lambda: T.T5ForConditionalGeneration(
            T.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=VOCAB)
        ),
        r"an encoder-decoder model \(t5\)",
    ),
}


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_a_model_that_is_not_causal_is_refused_for_that_reason(family: str, tmp_path: Path) -> None:
    make, says = BIDIRECTIONAL[family]
    make().save_pretrained(tmp_path / "model")
    said = refusal(tmp_path / "model")
    assert re.search(says + ": its tokens see later ones. What is asked here needs a causal model", said)


def test_a_llama_that_states_no_causal_mask_is_refused_for_that_reason(llama_copy: Path) -> None:
    settings(is_causal=False)(llama_copy)
    assert "bidirectional (llama): its tokens see later ones" in refusal(llama_copy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_no_setting_states_is_found_by_changing_the_last_token(dtype: torch.dtype, llama_directory: Path) -> None:
    torch.manual_seed(0)
    both_ways = T.BertLMHeadModel(T.BertConfig(**BERT)).eval().to(dtype)
    with pytest.raises(InterpError, match=r"it is bidirectional \(bert\): its tokens see later ones"):
        check_causal(both_ways, "it")
    one_way = T.BertLMHeadModel(T.BertConfig(**BERT, is_decoder=True)).eval().to(dtype)
    check_causal(one_way, "it")


def test_a_mixture_of_experts_that_lacks_an_expert(tmp_path: Path) -> None:
    """Hugging Face puts the experts of a layer into one tensor, whose name is in no file."""
    config = T.Qwen2MoeConfig(
        **BERT, num_key_value_heads=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4,
        num_experts_per_tok=2,
    )  # fmt: skip
    T.Qwen2MoeForCausalLM(config).save_pretrained(tmp_path)
    whole = load_file(tmp_path / WEIGHTS)
    for parts in (("experts.1.",), ("experts.1.up_proj",), ("experts.0.down_proj",), ("layers.1.mlp.experts",)):
        save_file(whole, tmp_path / WEIGHTS, metadata={"format": "pt"})
        without(*parts)(tmp_path)
        assert re.search("experts|do not fit", refusal(tmp_path)), parts
