"""Random damage to studies and tasks: each is read, or refused in one line; nothing else is ever raised."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analyses.cli import study as studies
from interp import _yaml, tasks
from interp.errors import LONGEST_MESSAGE, InterpError
from tests.tiny_tokenizers import byte_bpe, stand_in

STUDY_FILES = sorted(studies.STUDIES.glob("*.yaml"))
TASK_FILES = sorted(Path(tasks.__file__).parent.glob("*.yaml"))

EVERYTHING = """\
a: &x {b: 1}
c: {<<: *x, d: [1, 2.5, yes, 2020-01-01, 0x1F, ~]}
? key
: |
  text
  more
!!str tagged: 'q'
"\\x41\\u0041\\U00000041": >-
  folded
"""

PIECES = (
    *(
        "&a",
        "*a",
        "<<:",
        "- ",
        "? ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "|",
        "|9",
        "|-+1",
        ">",
        "'",
        '"',
        "\\x",
        "\\U",
        "!!",
        "!<",
    ),
    *(
        "!",
        "%",
        "%TAG ! x",
        "---",
        "...",
        "\t",
        "\n",
        " ",
        "#",
        "@",
        "`",
        "~",
        "&",
        "*",
        "1e",
        "0x",
        "\0",
        "\x85",
        "\u2028",
    ),
    *(
        "\ufeff",
        "\ud83d",
        "9" * 30,
        ",",
        "!<tag:yaml.org,2002:int>",
        "!!python/x",
        "%YAML 1.",
        "%YAML 9.9\n---\n",
        "\r",
    ),
)

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 2**62, 0.5, "", "  ", "x", "no", "..", "../x", "\u202e", "😀", "a\nb", "ñ" * 50),
    *("{noun}", "{noun}{noun}", "{", "}", "{}", "{a:b:c}", "all", "main", "a" * 3000),
    *([], {}, ["x"], ["x", "x"], [[]], ["a"] * 300, [1, 2], {"a": {}}, {"x": "y"}, {"other": "noun"}),
    *({"swap": ["noun", "color"]}, {"behavior": None}, {"behavior": []}, {"behavior": {"n": 1}}),
)
KEYS = ("x", "main", "template", "templates", "block", "kind", "rungs", "copy", "same", "roles", "gate", "seed")


def read_or_refused(read: Callable[[], Any], case: object) -> Any:
    """What was read; None if it was refused in one line."""
    try:
        return read()
    except InterpError as error:
        message = str(error)
    assert "\n" not in message, case
    assert len(message) <= LONGEST_MESSAGE, case
    return None


def damaged(text: str, draw: random.Random) -> str:
    start = draw.randrange(len(text))
    text = text[start : start + draw.randrange(400)]
    for _ in range(draw.randrange(1, 8)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(3)
        if kind == 0:
            text = text[:at] + draw.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randrange(20) :]
        else:
            text = text[:at] + chr(draw.randrange(0x3000)) + text[at:]
    return text


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value inside a nested one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*here, key)
        yield from places(item, (*here, key))


def changed(content: Any, draw: random.Random) -> Any:
    content = copy.deepcopy(content)
    for _ in range(draw.randrange(1, 4)):
        *way, last = draw.choice(list(places(content)) or [(None,)])
        holder = content
        for key in way:
            holder = holder[key]
        kind = draw.randrange(4)
        if last is None:
            return content
        if kind == 0:
            del holder[last]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(KEYS)] = copy.deepcopy(draw.choice(VALUES))
        else:
            holder[last] = copy.deepcopy(draw.choice(VALUES))
    return content


def check_text(n: int, seed: int) -> Counter[bool]:
    draw = random.Random(seed)
    texts = [EVERYTHING, *(path.read_text(encoding="utf-8") for path in (*STUDY_FILES, *TASK_FILES))]
    spoilt = [damaged(draw.choice(texts), draw) for _ in range(n)]
    return Counter(read_or_refused(lambda text=text: [_yaml.parse(text, "x")], text) is not None for text in spoilt)


def check_values(n: int, seed: int, folder: Path) -> Counter[bool]:
    draw, path, counts = random.Random(seed), folder / "in.yaml", Counter[bool]()
    model = stand_in(byte_bpe(["x"], 257), n_ctx=1024)
    for _ in range(n):
        source = draw.choice([*STUDY_FILES, *TASK_FILES])
        content = changed(_yaml.read(source, source.name), draw)
        path.write_text(_yaml.dump(content), encoding="utf-8")
        load = studies.load if source in STUDY_FILES else tasks.load
        found = read_or_refused(lambda load=load: load(path), content)
        counts[found is not None] += 1
        for rung in found.rungs if isinstance(found, tasks.Task) else ():
            read_or_refused(lambda found=found, rung=rung: tasks.build(found, rung.name, tokenizer=model, n=2), content)
    return counts


def test_damaged_text_is_read_or_refused() -> None:
    counts = check_text(1500, seed=0)
    assert min(counts.values()) > 100


def test_odd_values_are_read_or_refused(tmp_path: Path) -> None:
    counts = check_values(20, seed=0, folder=tmp_path)
    assert min(counts.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_much_more_of_both(seed: int, tmp_path: Path) -> None:
    assert min(check_text(10_000, seed).values()) > 1000
    assert min(check_values(150, seed, tmp_path).values()) > 5
