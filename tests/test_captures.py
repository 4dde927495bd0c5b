"""Captures on the disk: equal to those in memory, whole or refused, gone on with after a kill."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from interp import HookedTransformer, InterpError, capture, captures, run, stored
from interp.captures import Capture
from interp.prompts.tokens import Prompts
from tests.tolerance import close

SITES = ["resid_post", "z", "pattern", "embed"]


def alike(found: xr.Dataset, expected: xr.Dataset) -> None:
    """The same but for rounding, where the prompts went through the model in other batches."""
    xr.testing.assert_equal(found.coords.to_dataset(), expected.coords.to_dataset())
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dims == values.dims
        close(found[name], values, what=name)


def some(n: int = 11, *, seed: int = 0, ragged: bool = True) -> Prompts:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 60, size=rng.integers(3, 9) if ragged else 6).tolist() for _ in range(n)]
    return Prompts.from_ids(rows, roles={"second": 1, "last": -1})


@pytest.mark.parametrize("at", [None, ["second", "last"], [0, -1]])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_capture_on_disk_is_the_one_in_memory(
    name: str, at: list[str] | list[int] | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(name)
    sites = [site for site in SITES if site != "pattern" or at != [0, -1]]
    expected = capture(model, some(), sites, at, layers=[0, 2])
    xr.testing.assert_identical(capture(model, some(), sites, at, layers=[0, 2], to=tmp_path / "a"), expected)
    xr.testing.assert_identical(Capture.open(tmp_path / "a").dataset(), expected)
    small = captures.write(model, some(), sites, at, layers=[0, 2], to=tmp_path / "b", bytes_at_once=1)
    assert small.n_shards == 11
    alike(small.dataset(), expected)
    loaded = np.load(tmp_path / "a" / "arrays" / "z.npy", mmap_mode="r")  # any program reads it
    np.testing.assert_array_equal(loaded, expected["z"].values)


def test_an_opened_capture_is_mapped_and_not_read(gpt2: HookedTransformer, tmp_path: Path) -> None:
    acts = capture(gpt2, some(), ["z"], to=tmp_path / "a")
    values = acts["z"].values
    while isinstance(values, np.ndarray) and not isinstance(values, np.memmap):
        values = values.base
    assert isinstance(values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        acts["z"].values[:] = 0


def test_it_goes_on_where_it_stopped_and_computes_nothing_twice(
    gpt2: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, real = [], captures._captured

    def watched(model: object, prompts: object, reading: object, rows: range, at_once: int) -> object:
        if len(computed) == 4:
            raise KeyboardInterrupt
        computed.append(rows.start)
        return real(model, prompts, reading, rows, at_once)  # type: ignore[arg-type]

    monkeypatch.setattr(captures, "_captured", watched)
    with pytest.raises(KeyboardInterrupt):
        captures.write(gpt2, some(), "z", to=tmp_path, bytes_at_once=1)
    with pytest.raises(InterpError, match=r"is not whole: 4 of 11 shards are finished"):
        Capture.open(tmp_path)
    computed.append(-1)
    heard: list[tuple[int, int]] = []
    captures.write(gpt2, some(), "z", to=tmp_path, bytes_at_once=1, progress=lambda *both: heard.append(both))
    assert computed == [*range(4), -1, *range(4, 11)]
    assert heard[-1] == (11, 11)
    captures.write(gpt2, some(), "z", to=tmp_path, bytes_at_once=1)
    assert len(computed) == 12
    alike(Capture.open(tmp_path).dataset(), capture(gpt2, some(), "z"))


def test_what_was_damaged_is_refused_and_computed_again(gpt2: HookedTransformer, tmp_path: Path) -> None:
    made = captures.write(gpt2, some(), ["z", "q"], to=tmp_path, bytes_at_once=1)
    file = tmp_path / "arrays" / "q.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] + b"\x00\x01\x02\x03\x04")
    with pytest.raises(InterpError, match="10 of 11 shards are finished and sound"):
        Capture.open(tmp_path)
    assert made.finished(check=False) == set(range(11))
    captures.write(gpt2, some(), ["z", "q"], to=tmp_path, bytes_at_once=1)
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-1])
    with pytest.raises(InterpError, match="0 of 11"):
        Capture.open(tmp_path, check=False)
    with pytest.raises(InterpError, match="absent or damaged"):
        made.dataset()
    captures.write(gpt2, some(), ["z", "q"], to=tmp_path)
    assert file.read_bytes() == whole
    index = tmp_path / stored.INDEX
    index.write_bytes(index.read_bytes()[:50])
    with pytest.raises(InterpError, match="is damaged"):
        Capture.open(tmp_path)


def test_another_capture_in_the_directory_is_refused(
    gpt2: HookedTransformer, llama: HookedTransformer, tmp_path: Path
) -> None:
    capture(gpt2, some(), "z", ["last"], to=tmp_path / "a")
    moved = some().with_roles({**some().roles, "last": some().roles["second"]})
    for what, call in {
        "model": lambda to: capture(llama, some(), "z", ["last"], to=to),
        "prompts": lambda to: capture(gpt2, some(seed=1), "z", ["last"], to=to),
        "sites": lambda to: capture(gpt2, some(), "q", ["last"], to=to),
        "layers": lambda to: capture(gpt2, some(), "z", ["last"], layers=[1], to=to),
        "places": lambda to: capture(gpt2, moved, "z", ["last"], to=to),
    }.items():
        with pytest.raises(InterpError, match=rf"holds a capture of .* with other .*{what}.* Name another directory"):
            call(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("my own")
    with pytest.raises(InterpError, match="is not empty and holds no capture"):
        capture(gpt2, some(), "z", to=tmp_path / "b")
    with pytest.raises(InterpError, match="is a file"):
        capture(gpt2, some(), "z", to=tmp_path / "b" / "thesis.tex")
    with pytest.raises(InterpError, match="holds no capture"):
        Capture.open(tmp_path / "b")
    assert [one.name for one in (tmp_path / "b").iterdir()] == ["thesis.tex"]


def test_another_schema_version_is_refused_with_the_way_out(gpt2: HookedTransformer, tmp_path: Path) -> None:
    capture(gpt2, some(), "z", to=tmp_path)
    index = tmp_path / stored.INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), "schema": 0}))
    for call in (lambda: Capture.open(tmp_path), lambda: capture(gpt2, some(), "z", to=tmp_path)):
        with pytest.raises(InterpError, match=r"has schema version 0, this library reads 1\. Capture into another"):
            call()


def test_too_little_space_is_seen_before_anything_is_computed(
    gpt2: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(captures.shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(run.Reading, "read", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(InterpError, match=r"The capture takes .* GiB more, 0\.0 GiB is free"):
        capture(gpt2, some(), "z", to=tmp_path / "a")
    assert not (tmp_path / "a" / "arrays").exists()


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    gpt2: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(InterpError, match=r"\(No space left on device\).*what is finished stays") as said:
            captures.write(gpt2, some(), "z", to=tmp_path, bytes_at_once=1)
    assert "\n" not in str(said.value)
    finished = Capture.look(tmp_path).finished()
    assert 0 < len(finished) < 11
    captures.write(gpt2, some(), "z", to=tmp_path, bytes_at_once=1)
    alike(Capture.open(tmp_path).dataset(), capture(gpt2, some(), "z"))


def test_rows_of_features_are_those_of_the_dataset(gpt2: HookedTransformer, tmp_path: Path) -> None:
    acts = capture(gpt2, some(ragged=False), ["z", "resid_post"], ["second", "last"], to=tmp_path / "a")
    made = Capture.open(tmp_path / "a")
    for rows in (1, 3, None):
        for site in ("z", "resid_post"):
            one = made.features(site, layer=1, at="last")
            found = np.concatenate([x for _, x in one.chunks(rows)])
            np.testing.assert_array_equal(found, acts[site].sel(layer=1, role="last").values.reshape(11, -1))
            every = made.features(site, layer=2)
            found = np.concatenate([x for _, x in every.chunks(rows)])
            np.testing.assert_array_equal(found, acts[site].sel(layer=2).values.reshape(22, -1))
            assert every.shape == found.shape
    for bad, message in (
        ({"site": "q"}, "was not captured"),
        ({"site": "z"}, r"layer None of 'z' was not captured"),
        ({"site": "z", "layer": 1, "at": "first"}, "role 'first' of 'z' was not captured"),
    ):
        with pytest.raises(InterpError, match=message):
            made.features(**bad)  # type: ignore[arg-type]


def test_interventions_and_progress_without_a_directory_are_refused(gpt2: HookedTransformer, tmp_path: Path) -> None:
    from interp.interventions import Ablate

    with pytest.raises(InterpError, match="is of unchanged runs"):
        capture(gpt2, some(), "z", to=tmp_path, interventions=[Ablate(site="z", kind="zero")])
    with pytest.raises(InterpError, match="Give to="):
        capture(gpt2, some(), "z", progress=True)


KILLS = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from interp import captures, HookedTransformer
from interp.prompts.tokens import Prompts

model = HookedTransformer.from_pretrained(sys.argv[1])
prompts = Prompts.from_ids([[i + 1, i + 2, i + 3] for i in range(2)])

def make(place):
    return captures.write(model, prompts, ["z", "q"], to=place, bytes_at_once=1)

def bytes_of(place):
    return {path.name: path.read_bytes() for path in sorted(Path(place).rglob("*")) if path.is_file()}

make("whole")
right, event = bytes_of("whole"), 0
EVENTS = ("open", "os.rename", "os.mkdir", "os.truncate")
while True:
    place = f"killed-{event}"
    child = os.fork()
    if child == 0:
        left = event

        def die(what, arguments):
            global left
            if what in EVENTS and place in str(arguments[0]):
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), signal.SIGKILL)

        def fsync(descriptor, real=os.fsync):
            die("open", (place,))
            real(descriptor)

        sys.addaudithook(die)
        os.fsync = fsync
        try:
            make(place)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    status = os.waitpid(child, 0)[1]
    make(place)
    assert bytes_of(place) == right, (event, sorted(bytes_of(place)))
    captures.Capture.open(place)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    event += 3
print(event)
"""


def test_killed_at_every_step_it_ends_as_if_it_had_not_been(
    gpt2_directory: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python("-c", KILLS, str(gpt2_directory))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 30  # steps, of which every third was tried
