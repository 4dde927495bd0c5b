"""Random damage to the files of a model: it loads, or it is refused in one line. Nothing else, and soon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from interp.errors import InterpError
from interp.model import HookedTransformer
from tests.tiny_tokenizers import pieces

pytestmark = pytest.mark.fuzz

CASES = int(os.environ.get("INTERP_FUZZ_CASES", "100"))
SECONDS = 60
ODD: list[Any] = [None, True, False, 0, -1, 1, 2**31, 2**63, 1e308, "", "x", "../x", "\0", [], [1], {}, {"a": 1}, 3.5]


@pytest.fixture
def in_time() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"no answer within {SECONDS} seconds"))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def changed(value: Any, random: Random) -> Any:
    """The value with one random place in it taken away, renamed or replaced."""
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        for key in keys:
            places.append((inside, key))
            walk(inside[key])

    walk(value)
    inside, key = random.choice(places)
    how = random.random() if isinstance(inside, dict) else 1
    if how < 0.2:
        del inside[key]
    elif how < 0.3:
        inside[f"{key}x"] = inside.pop(key)
    else:
        inside[key] = random.choice(ODD)
    return value


def damage(file: Path, random: Random) -> None:
    data = bytearray(file.read_bytes())
    start, end = 0, len(data)
    if file.suffix == ".safetensors":  # a changed weight is another weight: only the header can be wrong
        start, end = 8, 8 + struct.unpack("<Q", data[:8])[0]
    if random.random() < 0.6:
        new = json.dumps(changed(json.loads(data[start:end]), random)).encode()
        file.write_bytes((struct.pack("<Q", len(new)) if start else b"") + new + data[end:])
    elif random.random() < 0.5:
        file.write_bytes(data[: random.randrange(end)])
    else:
        data[random.randrange(end)] ^= 1 << random.randrange(8)
        file.write_bytes(data)


@pytest.mark.filterwarnings("ignore")  # what a damaged setting makes other libraries warn of
@pytest.mark.parametrize("seed", range(CASES))
def test_a_damaged_model_loads_or_is_refused_in_one_line(
    seed: int, gpt2_directory: Path, llama_directory: Path, tmp_path: Path, in_time: None
) -> None:
    random = Random(seed)
    directory = Path(shutil.copytree(random.choice([gpt2_directory, llama_directory]), tmp_path / "model"))
    pieces("a", "b").save_pretrained(directory)
    damage(random.choice(sorted(directory.iterdir())), random)
    said = ""
    try:
        HookedTransformer.from_pretrained(directory)
    except InterpError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
