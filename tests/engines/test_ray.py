"""Two workers of a real Ray: the bytes of a local run, also where one is killed midway, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import xarray as xr

from analyses import probing
from analyses.cli.main import main
from interp import ablation_sweep, capture, circuits, path_patching, run, sweep, tasks
from interp.circuits import running
from interp.engines import ray
from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.sweeps import through_hooks
from interp.sweeps.exact import cost
from tests import processes
from tests.doubles import House, refusal
from tests.tolerance import close

if TYPE_CHECKING:
    from interp.model import HookedTransformer

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray on this machine"),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own
]


def of_ray(commands: list[str]) -> list[str]:
    return [one for one in commands if "ray" in one]


@pytest.fixture(scope="module")
def workers() -> Iterator[ray.Workers]:
    """Two of them. After the last test none of their processes is left."""
    with ray.started(2) as found:
        yield found
    for _ in range(50):
        if not of_ray(processes.commands(processes.descendants(os.getpid()))):
            break
        time.sleep(0.1)
    assert of_ray(processes.commands(processes.descendants(os.getpid()))) == []


@pytest.fixture
def two(mini: HookedTransformer, workers: ray.Workers) -> HookedTransformer:
    return mini.on(workers)


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=6)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that there are many."""
    monkeypatch.setitem(cost.TOKENS_PER_BATCH, "cpu", 200)
    monkeypatch.setitem(cost.BATCH_BYTES, "cpu", 0)
    monkeypatch.setitem(running.BATCH_TOKENS, "cpu", 60)


def same_bytes(one: xr.Dataset, other: xr.Dataset) -> bool:
    assert set(one.variables) == set(other.variables)
    return all(one[name].values.tobytes() == other[name].values.tobytes() for name in one.variables)


MEASURES: dict[str, Callable[[HookedTransformer, PromptPairs], xr.Dataset]] = {
    "patching the stream": lambda model, pairs: sweep(model, pairs, "resid_pre"),
    "patching heads, by KL": lambda model, pairs: sweep(model, pairs, "z", "noising", "kl"),
    "ablation": lambda model, pairs: ablation_sweep(model, pairs, "z", kind="mean"),
    "path patching": lambda model, pairs: path_patching(model, pairs, senders=["embed", "L0H2"]),
    "capture": lambda model, pairs: capture(model, pairs.clean, ["resid_post", "pattern"]),
    "probing": lambda model, pairs: probing.run(model, pairs, layers=[0, 1], n_folds=2, n_permutations=20),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_two_workers_give_the_bytes_of_this_process(
    measure: str,
    mini: HookedTransformer,
    two: HookedTransformer,
    pairs: PromptPairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if measure == "capture":
        monkeypatch.setattr(run, "ROW_BYTES", 2**18)
    assert same_bytes(MEASURES[measure](mini, pairs), MEASURES[measure](two, pairs))


def test_sweeps_through_hooks_and_circuits_give_the_bytes_of_this_process(
    mini: HookedTransformer, two: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = [("embed", "L0H2.v"), ("L0H2", "L1H0.v"), ("L1H0", "logits")]
    asked = [path, path[:2], path[1:], []]
    assert circuits.run_circuits(two, pairs, asked).tobytes() == circuits.run_circuits(mini, pairs, asked).tobytes()
    found = [circuits.discover(model, pairs, "greedy", threshold=0.2) for model in (mini, two)]
    assert same_bytes(found[0].data, found[1].data)
    for model in (mini, two):
        monkeypatch.setattr(model, "blocks", None)
    monkeypatch.setattr(through_hooks.run, "ROW_BYTES", 2**18)
    assert same_bytes(sweep(mini, pairs, "z", layers=[0, 2]), sweep(two, pairs, "z", layers=[0, 2]))


def test_both_workers_work_and_share_the_weights(two: HookedTransformer) -> None:
    assert len(set(processes.doers(two, 12))) == 2

    class Writable:
        def ready(self, model: HookedTransformer) -> HookedTransformer:
            return model

        def do(self, ready: HookedTransformer, piece: int) -> bool:
            weight = next(iter(ready.bridge.parameters()))
            maps = Path("/proc/self/maps").read_text().splitlines()
            (line,) = (
                line for line in maps
                if int(line.split("-")[0], 16) <= weight.data_ptr() < int(line.split()[0].split("-")[1], 16)
            )  # fmt: skip
            return "w" in line.split()[1] and "plasma" not in line and "shm" not in line

    assert [own for _, own in two.engine.map(two, Writable(), [0, 1])] == [False, False]


def test_ray_listens_on_the_loopback_address_alone(two: HookedTransformer) -> None:
    processes.doers(two, 2)
    mine = {f"socket:[{inode}]" for inode in inodes(processes.descendants(os.getpid()) | {os.getpid()})}
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                assert fields[1].split(":")[0] in loopback


def inodes(pids: set[int]) -> set[str]:
    """The sockets that some processes hold."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    name = os.readlink(link)
                    if name.startswith("socket:["):
                        found.add(name[8:-1])
    return found


def test_a_worker_that_is_killed_is_replaced_and_its_batches_are_done_again(
    mini: HookedTransformer, two: HookedTransformer, pairs: PromptPairs, workers: ray.Workers
) -> None:
    victim = processes.doers(two, 4)[0]
    heard: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        heard.append((done, total))
        if len(heard) == 3:
            os.kill(victim, signal.SIGKILL)

    before = workers.replaced
    found = sweep(two, pairs, "resid_pre", progress=listen)
    assert same_bytes(sweep(mini, pairs, "resid_pre"), found)
    assert workers.replaced == before + 1
    assert heard[-1][0] == heard[-1][1]
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})  # nothing counts twice
    assert workers.described()["workers_replaced"] == workers.replaced


@pytest.mark.kills
def test_a_batch_that_kills_three_workers_is_given_up(two: HookedTransformer) -> None:
    class Deadly:
        def ready(self, model: object) -> None:
            return None

        def do(self, ready: None, piece: int) -> int:
            if piece == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return piece

    with pytest.raises(InterpError, match=r"Batch 2 of 3 ended 3 workers one after the other, so it is given up"):
        list(two.engine.map(two, Deadly(), [0, 1, 2]))
    assert len(processes.doers(two, 4)) == 4  # and the engine goes on


def test_what_a_worker_refuses_is_said_as_here(two: HookedTransformer) -> None:
    class Refusing:
        def ready(self, model: object) -> None:
            return None

        def do(self, ready: None, piece: int) -> int:
            raise InterpError("No such thing.")

    with pytest.raises(InterpError, match=r"^No such thing\.$"):
        list(two.engine.map(two, Refusing(), [0, 1]))


def test_a_sweep_that_was_stopped_goes_on_with_workers_or_here_wherever_it_began(
    mini: HookedTransformer, two: HookedTransformer, pairs: PromptPairs, tmp_path: Path
) -> None:
    whole = sweep(mini, pairs, "resid_pre")

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    for first, then, name in ((mini, two, "a"), (two, mini, "b"), (two, two, "c")):
        place = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            sweep(first, pairs, "resid_pre", store=place, progress=stop)
        found = sweep(then, pairs, "resid_pre", store=place)
        assert 0 < found.attrs["rows_kept"] < found.attrs["rows_run"]
        close(found.patched, whole.patched)
        again = sweep(first, pairs, "resid_pre", store=place)
        assert same_bytes(again, found)


def test_the_manifest_says_who_computed(two: HookedTransformer, tmp_path: Path) -> None:
    import json

    from interp import study

    asked = {
        "name": "recall", "title": "Recall", "question": "Does it?", "task": "color-noun", "rungs": ["recall"],
        "main_rung": "recall", "analyses": {"behavior": {}},
    }  # fmt: skip
    study(asked, model=two, n=4, out=tmp_path)
    said = json.loads((tmp_path / "manifest.json").read_text())["engine"]
    assert (said["name"], said["workers"], said["threads"]) == ("ray", 2, 1)
    assert "bytes of a local run with 1 threads" in said["numbers"]


# ---- memory ----


def test_fewer_workers_are_used_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = ray.Workers(sys, 4, None, said.append)  # type: ignore[arg-type]
    monkeypatch.setattr(run, "free_memory", lambda: 2 * ray.WORKER_BYTES / ray.MEMORY_SHARE + 1)
    found._fit(0)
    assert found.count == 2
    assert said[0].startswith("2 of 4 workers: 1.5 GiB is free, and each takes about 0.6 GiB beside the weights")
    assert found._at_once(2 * ray.WORKER_BYTES) == 1
    assert said[1].startswith("1 of 2 workers at a time: the work takes 1.2 GiB of each")
    with pytest.raises(InterpError, match=r"A worker takes about 0\.6 GiB beside 4\.0 GiB of weights, and 1\.5 GiB is"):
        found._fit(4 * 2**30)


# ---- the command ----


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--engine", "ray", "--workers", "0"), "--workers is 0. Give at least 1."),
        (("--engine", "ray", "--workers", "two"), "argument --workers: invalid int value: 'two'"),
        (("--engine", "dask"), "argument --engine: invalid choice: 'dask'"),
        (("--workers", "2"), "--workers is for workers. Add --engine ray, or leave it out."),
        (("--address", "auto"), "--address is for workers. Add --engine ray, or leave it out."),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_model_loads(
    house: House, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refusal(capsys, "run", "color-noun", *arguments)
    assert house.ran == []


def test_a_missing_package_is_named_with_its_command(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'interp[ray]'" in refusal(capsys, "run", "color-noun", "--engine", "ray")
    assert house.ran == []


def test_no_cluster_at_an_address_is_one_line(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray as package

    monkeypatch.setattr(package, "is_initialized", lambda: False)
    said = refusal(capsys, "run", "color-noun", "--engine", "ray", "--address", "127.0.0.1:9")
    assert "There is no Ray at 127.0.0.1:9 that can be used" in said
    assert house.ran == []


# ---- several studies of several models ----


def test_several_runs_are_kept_apart_and_one_that_fails_does_not_lose_the_others(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    asked = ["sweep-studies", "color-noun", "ioi", "--model", "mini", "--model", "other", "--out", str(out), "--quiet"]
    assert main(asked) == 2
    said, err = capsys.readouterr()
    assert (out / "color-noun" / "manifest.json").is_file()
    assert (out / "ioi" / "manifest.json").is_file()
    assert said.count("failed: There is no model 'other'.") == 2
    assert "2 of 4 runs failed, the others are kept." in err
    assert house.ran.count("load") == 1  # one model, two studies
    before = list(house.ran)
    main(asked)
    assert [one for one in house.ran[len(before) :] if one not in ("load", "report")] == []


# ---- being stopped ----


@pytest.mark.kills
def test_ctrl_c_leaves_a_run_that_goes_on_here_and_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    asked = ["run", "color-noun", "--n", "4", "--out", str(out)]
    running = subprocess.Popen(
        [sys.executable, "-m", "analyses", *asked, "--engine", "ray", "--workers", "2"],
        start_new_session=True, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    while not (out / "results" / "activation_patching.nc").exists():
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Run the same command again to resume." in said
    assert members(running.pid) == []
    assert main(asked) == 0
    assert "activation_patching: kept from an earlier run" in capsys.readouterr().err


def test_a_signal_while_ray_starts_is_told_to_who_handles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own handler answers SIGTERM with an exit until the one before it is put back."""
    import ray as package

    def stopped(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
        signal.raise_signal(signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(package, "is_initialized", lambda: False)
    monkeypatch.setattr(package, "init", stopped)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"), ray.started(2) as workers:
            workers.join()
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found += [int(entry.name)] if int(fields[3]) == session and fields[0] != "Z" else []
    return found


def test_a_model_that_was_asked_for_hidden_states_can_be_sent_to_workers() -> None:
    """Transformers keeps hooks in such a model, and a context variable in them."""
    from interp import HookedTransformer

    model = HookedTransformer.from_pretrained("mini")
    ids = torch.tensor([[5, 6, 7]])
    asked = model.bridge.original_model(ids, output_hidden_states=True, output_attentions=True)
    there = ray.Frozen.of(model).thawed()
    again = there.bridge.original_model(ids, output_hidden_states=True, output_attentions=True)
    assert len(again.hidden_states) == len(asked.hidden_states) == 5
    for one, other in zip(
        (*again.hidden_states, *again.attentions), (*asked.hidden_states, *asked.attentions), strict=True
    ):
        close(one.detach(), other.detach(), size=float(other.detach().abs().max()))
