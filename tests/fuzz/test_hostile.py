"""Files and texts from anyone: each is read, or refused in one line; nothing else ever happens.

Few examples, the same ones each time; ``INTERP_FUZZ_CASES=5000 make test MARKERS=fuzz`` draws as many of each anew.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import os
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyses.cli.main import main
from interp import results
from interp.errors import InterpError, shown
from interp.report import markup, render
from interp.report.comparison import compare
from interp.report.templating import environment
from tests.fuzz import reading
from tests.fuzz.test_damaged_models import ODD
from tests.report_fixture import FILES, only, write_run

FEW = 25
MANY = os.environ.get("INTERP_FUZZ_CASES")
HOW_MANY = pytest.mark.parametrize(
    "examples",
    [
        pytest.param(FEW, id="few"),
        *([] if MANY is None else [pytest.param(int(MANY), id="many", marks=pytest.mark.fuzz)]),
    ],
)


def holds(check: Callable[..., None], examples: int, **strategies: st.SearchStrategy[Any]) -> None:
    """Run a check on examples; the few are the same ones every time."""
    settings(
        max_examples=examples,
        derandomize=examples == FEW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(check))()


# ---- files ----

HOSTILE_JSON = (b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"NaN", b"1e999", b'"\\ud800"', b"null", b"[]", b"{}")
PIECES = st.sampled_from([b"\0", b"\xff" * 8, b"\x7f" * 8, b"{", b"[", b'"', b",", b"-1", b"\n", b"../", *HOSTILE_JSON])


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """A file with some bytes changed, taken out or put in, more often near its start, where headers are."""
    content = sound
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.booleans())
        at = draw(st.integers(0, min(len(content), 64) if near else len(content)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            content = content[:at] + draw(st.binary(max_size=12)) + content[at:]
        elif kind == 1:
            content = content[:at] + content[at + draw(st.integers(1, 40)) :]
        elif kind == 2:
            content = content[:at]
        elif kind == 3:
            content = content[:at] + draw(PIECES) + content[at:]
        else:
            content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    return content


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [way for key in keys for way in ((*here, key), *_places(value[key], (*here, key)))]


VALUES = st.one_of(
    st.sampled_from([*ODD, 10**15, 2**64, -(2**63), float("nan"), "O", "|O", "<U9", "../../x", "x" * 5000, [-1, 5]]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)


@st.composite
def otherwise(draw: st.DrawFn, value: Any) -> Any:
    """What a JSON file says, with some places in it removed, renamed or said otherwise."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        ways = _places(value)
        if not ways:
            return value
        *way, last = draw(st.sampled_from(ways))
        inside = value
        for key in way:
            inside = inside[key]
        kind = draw(st.integers(0, 5))
        if kind == 0:
            del inside[last]
        elif kind == 1 and isinstance(inside, dict):
            inside[draw(st.text(max_size=5))] = inside.pop(last)
        else:
            inside[last] = copy.deepcopy(draw(VALUES))
    return value


@HOW_MANY
@pytest.mark.parametrize("name", reading.READERS)
def test_a_damaged_file_is_read_or_refused(name: str, examples: int) -> None:
    sound = reading.sound(name)
    assert reading.answered(name, sound)
    counts = Counter[bool]()
    holds(lambda content: counts.update([reading.answered(name, content)]), examples, content=damaged(sound))
    assert counts[False] > 0 or name == "store"  # which keeps its sound rows, and says in the log that it does


@HOW_MANY
@pytest.mark.parametrize("name", ["manifest", "capture", "safetensors"])
def test_a_header_that_says_something_else_is_read_or_refused(name: str, examples: int) -> None:
    sound = reading.sound(name)
    binary = name == "safetensors"
    end = 8 + struct.unpack("<Q", sound[:8])[0] if binary else len(sound)
    said = json.loads(sound[8 if binary else 0 : end])

    def check(value: Any) -> None:
        text = json.dumps(value).encode()
        reading.answered(name, struct.pack("<Q", len(text)) + text + sound[end:] if binary else text)

    holds(check, 2 * examples, value=otherwise(said))


@HOW_MANY
def test_a_features_header_that_says_something_else_is_read_or_refused(examples: int) -> None:
    shape = st.lists(st.one_of(st.integers(-3, 5), st.just(2**40), st.booleans()), max_size=4).map(tuple)
    descr = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "|O", "<U3", "<i4", "|b1", "<M8[s]", "x", "", [("a", "<f4")]])

    def check(shape: tuple[int, ...], descr: Any, by_columns: Any, version: int) -> None:
        header = repr({"descr": descr, "fortran_order": by_columns, "shape": shape}).encode() + b"\n"
        length = struct.pack("<H" if version == 1 else "<I", len(header))
        reading.answered("features", b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(48))

    by_columns = st.sampled_from([False, True, None, 0, "x"])
    holds(check, 2 * examples, shape=shape, descr=descr, by_columns=by_columns, version=st.integers(1, 3))


# ---- results ----

WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "</script><script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            '" onmouseover="alert(1)',
            "javascript:alert(1)",
            "{{ 7 * 7 }}{% raw %}",
            "]]>",
            "<!--",
            "\u202eover",
            "a\nb",
            "L99H99",
            "noun<-color",
            "{noun}",
            "%s%n",
            "nan",
        ]
    ),
).filter(lambda text: "\0" not in text and text.isprintable() | ("\n" in text) | ("\u202e" in text))


@functools.cache
def _sound(name: str) -> xr.Dataset:
    with tempfile.TemporaryDirectory() as place:
        write_run(Path(place), only(name, n_prompts=4))
        return results.load(Path(place) / "results" / f"{name}.nc")


@st.composite
def changed(draw: st.DrawFn, name: str) -> xr.Dataset:
    """A result with variables, labels or attributes that its writer never wrote."""
    made = _sound(name).copy(deep=True)
    for _ in range(draw(st.integers(1, 3))):
        variables = sorted(map(str, made.variables))
        variable, kind = draw(st.sampled_from(variables)), draw(st.integers(0, 8))
        values = made[variable].values
        if kind == 0:
            made = made.drop_vars(variable)
        elif kind == 1 and made.sizes:
            dim = draw(st.sampled_from(sorted(map(str, made.sizes))))
            made = made.isel({dim: slice(0, draw(st.integers(0, 2)))})
        elif kind == 2 and values.dtype.kind in "fiu":
            number = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, 5e-324, -1.0, 1e6]))
            made[variable] = made[variable].astype(np.float64) * 0 + number
        elif kind == 3 and values.dtype.kind in "OUT":
            made[variable] = (made[variable].dims, np.full(values.shape, draw(WORDS)), made[variable].attrs)
        elif kind == 4 and values.size and values.dtype.kind in "fiu":
            changed = values.astype(np.float64)
            changed.flat[draw(st.integers(0, values.size - 1))] = draw(st.floats())
            made[variable] = (made[variable].dims, changed, made[variable].attrs)
        elif kind == 5 and made.attrs:
            key = draw(st.sampled_from(sorted(made.attrs)))
            made.attrs[key] = draw(st.one_of(WORDS, st.integers(-5, 10**12), st.floats()))
        elif kind == 6 and made.attrs:
            del made.attrs[draw(st.sampled_from(sorted(made.attrs)))]
        elif kind == 7 and variable in made.data_vars:
            made[variable].attrs[draw(st.sampled_from(["units", "long_name"]))] = draw(WORDS)
        elif kind == 8 and variable in made.data_vars and values.ndim > 1 and len(values):
            made[variable] = made[variable].isel({made[variable].dims[0]: 0}, drop=True)
    return made


class Elements(HTMLParser):
    """The scripts of a page, and whatever in it could run otherwise."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "img", "base", "form", "link"):
            self.found[tag if dict(attrs).get("type", "") in ("", None) else f"{tag} of data"] += 1
        for key, value in attrs:
            if key.startswith("on") or (value or "").strip().lower().startswith(("javascript:", "vbscript:")):
                self.found[f"{tag} {key}"] += 1


def _runs(page: str) -> Counter[str]:
    found = Elements(page).found
    return Counter({key: n for key, n in found.items() if key != "script of data"})


@HOW_MANY
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means of nothing, and the like
def test_a_result_that_says_something_else_is_drawn_without_a_script_of_its_own_or_refused(
    name: str, examples: int
) -> None:
    def check(made: xr.Dataset) -> None:
        with tempfile.TemporaryDirectory() as directory:
            place, said = Path(directory), io.StringIO()
            (place / "results").mkdir()
            try:
                content = results.to_bytes(made)
            except InterpError:
                return
            (place / "results" / f"{name}.nc").write_bytes(content)
            with reading.in_time(60), reading.watched(place), contextlib.redirect_stderr(said):
                with contextlib.redirect_stdout(io.StringIO()):
                    code = main(["report", directory, "--plain"])
            if code:
                assert code == 2, said.getvalue()
                assert said.getvalue().count("\n") == 1
            else:
                page = (place / "report.html").read_text(encoding="utf-8")
                assert _runs(page) == {"script": 1}, _runs(page)
                json.loads((place / "report.json").read_text(encoding="utf-8"))

    holds(check, max(2, examples // 12), made=changed(name))


COMPARED = ("behavior", "activation_patching", "verdict", "probing")


@HOW_MANY
@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_says_something_else_is_compared_without_a_script_of_its_own_or_refused(
    name: str, examples: int, tmp_path: Path
) -> None:
    sound = write_run(tmp_path / "sound", only("behavior", "verdict", name, n_prompts=4))

    def check(made: xr.Dataset) -> None:
        with tempfile.TemporaryDirectory() as directory:
            place, said = Path(directory), io.StringIO()
            shutil.copytree(sound, place / "other")
            try:
                (place / "other" / "results" / f"{name}.nc").write_bytes(results.to_bytes(made))
            except InterpError:
                return
            with reading.in_time(60), reading.watched(place), contextlib.redirect_stderr(said):
                with contextlib.redirect_stdout(io.StringIO()):
                    code = main(["compare", str(sound), str(place / "other"), "--out", str(place / "page")])
            if code:
                assert code == 2, said.getvalue()
                assert said.getvalue().count("\n") == 1
            else:
                page = (place / "page" / "compare.html").read_text(encoding="utf-8")
                assert _runs(page) == {"script": 1}, _runs(page)
                json.loads((place / "page" / "compare.json").read_text(encoding="utf-8"))

    holds(check, max(2, examples // 12), made=changed(name))


def test_words_in_place_of_numbers_are_refused_in_one_line_by_whatever_draws_them(tmp_path: Path) -> None:
    sound, odd = (write_run(tmp_path / name, only("behavior", "verdict", n_prompts=4)) for name in ("sound", "odd"))
    said = _sound("behavior").copy(deep=True)
    said["accuracy"] = said["accuracy"].dims, np.full(said["accuracy"].shape, "often"), said["accuracy"].attrs
    results.save(said, odd / "results" / "behavior.nc")
    for draw in (lambda: render(odd), lambda: compare(sound, odd), lambda: compare(odd, sound)):
        with pytest.raises(InterpError, match=r"odd.* cannot be (drawn|compared): a result in .* has other contents"):
            draw()


# ---- text ----

ANY_TEXT = st.one_of(
    st.text(max_size=40), WORDS, st.text(alphabet="<>&\"'/!-= \n\t\r\u2028\u202e\x00sctrip{}%", max_size=30)
)


class Text(HTMLParser):
    """Tags and text of some markup."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@HOW_MANY
def test_any_text_is_text_on_the_page(examples: int) -> None:
    template = environment(explained=True).from_string('<p title="{{ text }}">{{ text }}</p><b>{{ text | told }}</b>')

    def check(text: str) -> None:
        found = Text(str(markup.element("text", text, title=text)))
        assert found.tags == ["text"]
        assert found.text == "\n".join(map(markup.visible, text.split("\n")))
        assert found.values == [markup.visible(text)]
        drawn = Text(template.render(text=text))
        assert drawn.tags[0] == "p"
        assert set(drawn.tags[1:]) <= {"b", "a", "span", "abbr", "dfn"}
        data = str(markup.embedded_json({"text": text}))
        assert not set("<>&") & set(data)
        assert data.isascii()
        assert json.loads(data) == {"text": text}

    holds(check, 4 * examples, text=ANY_TEXT)


@HOW_MANY
def test_any_value_is_one_line_in_a_message(examples: int) -> None:
    value = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=20,
    )

    def check(value: Any) -> None:
        said = str(InterpError(f"{value} is {shown(value)}."))
        assert said.isprintable() or not any(ord(letter) < 32 and letter != "\t" for letter in said)
        assert len(said) <= reading.LONGEST_MESSAGE

    holds(check, 2 * examples, value=value)


# ---- what they have found ----

TWO_WORDS = b"\x08" + bytes(3) + (2).to_bytes(8, "little")
"""In the header of a GGUF file: the kind and the number of the vocabulary's words."""


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("features", b"'fortran_order'", b"#fortran_order "),  # a comment that never ends the mapping
        ("capture", b'"schema": 1', b'"schema": 1, "deep": ' + b"[" * 100_000),
        ("capture", b'"resid_post"', b'"../../elsewhere"'),
        ("capture", b'"n_prompts": 3', b'"n_prompts": 1000000000000000'),
        ("capture", b'"<f4"', b'"|O"'),
        ("capture", b'"length": 4, ', b""),
        ("capture", b'"shape": [2, 1, 5]', b'"shape": [2, 1, -5]'),
        ("capture", b'"values": [0, 1]', b'"values": [0, 1, 2]'),
        ("capture", b'["prompt", "layer", "position"', b'[null, null, "position"'),
        ("gguf", TWO_WORDS, bytes(4) + (2**56).to_bytes(8, "little")),  # 2**56 numbers of one byte
    ],
)
def test_what_was_read_wrongly_once_is_refused(name: str, old: bytes, new: bytes) -> None:
    sound = reading.sound(name)
    assert old in sound
    assert not reading.answered(name, sound.replace(old, new, 1))


@pytest.mark.parametrize("name", ["features", "capture"])
def test_a_named_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    reader = reading.READERS[name]
    reader.sound(tmp_path)
    path = tmp_path / (reader.file if name == "features" else "arrays/resid_post.npy")
    path.unlink()
    os.mkfifo(path)
    assert not reading.refused_or(lambda: reader.read(tmp_path), tmp_path)
