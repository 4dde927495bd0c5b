"""The file of a store under damage: a wrong row is never read, and sound ones are never lost."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from interp.errors import InterpError
from interp.store import ENTRY, ROW, Journal, Store
from interp.sweeps.resume import Finished

CELLS, PROMPTS = 1, 2
FACTS = {"sweep": "z"}


def write(journal: Journal, cells: Iterator[int] | range = range(-2, CELLS)) -> None:
    for cell in cells:
        journal.append(cell, np.arange(PROMPTS), value_of(cell, np.arange(PROMPTS)))


def value_of(cell: int | np.ndarray, prompt: np.ndarray) -> np.ndarray:
    return np.sin(1 + cell + 10 * prompt)


def table(journal: Journal) -> dict[tuple[int, int], float]:
    rows = journal.read()
    return {(int(c), int(p)): float(v) for c, p, v in zip(rows.cell, rows.prompt, rows.value, strict=True)}


EXPECTED = {(c, p): float(value_of(c, np.array(p))) for c in range(-2, CELLS) for p in range(PROMPTS)}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Store.at(tmp_path).journal(FACTS)
    write(made)
    assert table(made) == EXPECTED
    assert made.path.stat().st_size == len(made.facts) + 1 + len(EXPECTED) * ROW.itemsize == 148
    return made


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def check_resumes(journal: Journal, spoilt: bytes, what: object) -> int:
    """What is read of spoilt bytes is right; what is missing can be added. How many rows were still there."""
    journal.path.write_bytes(spoilt)
    found = table(journal)
    assert found.items() <= EXPECTED.items(), what
    assert table(journal) == found, f"{what}: taking out the damage changed the sound rows"
    if missing := sorted(EXPECTED.keys() - found.keys()):
        cell, prompt = np.array(missing).T
        journal.append(cell, prompt, value_of(cell, prompt))
    assert table(journal) == EXPECTED, what
    return len(found)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_cut_at_any_byte_it_gives_the_rows_before_the_cut(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    head = len(journal.facts) + 1
    for cut in range(len(whole) + 1):
        assert check_resumes(journal, whole[:cut], f"cut at {cut}") == max(cut - head, 0) // ROW.itemsize


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_with_any_bit_flipped_it_loses_one_row_at_most(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    head = len(journal.facts) + 1
    for bit in range(8 * len(whole)):
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        kept = check_resumes(journal, bytes(spoilt), f"bit {bit}")
        assert kept == len(EXPECTED) - (bit // 8 >= head), f"bit {bit}"


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_zeros_anywhere_are_no_rows(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    for start in range(0, len(whole), 2):
        check_resumes(journal, whole[:start] + bytes(len(whole) - start), f"zeros from {start}")
        check_resumes(journal, whole[:start] + bytes(min(33, len(whole) - start)) + whole[start + 33 :], f"at {start}")
    check_resumes(journal, whole + bytes(100), "zeros behind")
    check_resumes(journal, bytes(len(whole)), "all zeros")


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_rows_twice_in_another_order_or_of_another_sweep(journal: Journal, tmp_path: Path) -> None:
    whole = journal.path.read_bytes()
    head, rows = whole[: len(journal.facts) + 1], np.frombuffer(whole[len(journal.facts) + 1 :], ROW)
    assert check_resumes(journal, head + rows[::-1].tobytes(), "reversed") == len(EXPECTED)
    assert check_resumes(journal, head + rows.tobytes() + rows[2:5].tobytes(), "twice") == len(EXPECTED)
    swapped = rows.copy()
    swapped["entry"]["value"][[0, 1]] = rows["entry"]["value"][[1, 0]]
    assert check_resumes(journal, head + swapped.tobytes(), "values exchanged") == len(EXPECTED) - 2
    other = Store.at(tmp_path / "other").journal({"sweep": "v"})
    other.append(0, np.array([0]), np.array([7.0]))
    foreign = other.path.read_bytes()[len(other.facts) + 1 :]
    assert check_resumes(journal, whole + foreign, "a row of another sweep") == len(EXPECTED)
    assert check_resumes(journal, other.path.read_bytes(), "the file of another sweep") == 0
    assert check_resumes(journal, b"not a journal, but longer than the line that a journal begins with", "text") == 0


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_random_damage_is_never_read(journal: Journal) -> None:
    whole, draw = journal.path.read_bytes(), np.random.default_rng(0)
    for i in range(200):
        spoilt = bytearray(whole)
        for _ in range(int(draw.integers(1, 6))):
            at, n = int(draw.integers(len(spoilt))), int(draw.integers(1, 60))
            kind = int(draw.integers(4))
            if kind == 0:
                spoilt[at : at + n] = draw.bytes(n)
            elif kind == 1:
                del spoilt[at : at + n]
            elif kind == 2:
                spoilt[at:at] = spoilt[at : at + n]
            else:
                spoilt[at] ^= 1 << int(draw.integers(8))
        check_resumes(journal, bytes(spoilt), f"case {i}")


def test_damage_is_named_once(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert table(Journal(journal.path.with_name("begun.rows"), journal.facts)) == {}
        journal.path.with_name("begun.rows").write_bytes(journal.facts[:9].encode())  # no rows yet is no damage
        assert table(Journal(journal.path.with_name("begun.rows"), journal.facts)) == {}
        assert len(table(journal)) == len(EXPECTED) - 1
        assert len(table(journal)) == len(EXPECTED) - 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{journal.path} was damaged: its {len(EXPECTED) - 1} sound rows are kept, others computed again."
    ]


def test_a_journal_is_named_by_its_facts_in_any_order(tmp_path: Path) -> None:
    one, other = {"site": "z", "model": "modèle \udcff"}, {"model": "modèle \udcff", "site": "z"}
    store = Store.at(tmp_path)
    assert store.journal(one).path == store.journal(other).path != store.journal(FACTS).path
    write(store.journal(one))
    assert table(store.journal(other)) == EXPECTED


def test_the_name_of_a_new_journal_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose directory was not written can be gone after a power cut, with all its rows."""
    written: list[Path] = []
    monkeypatch.setattr("interp.store._files.sync_directory", written.append)
    write(Store.at(tmp_path / "several" / "deep").journal(FACTS))
    assert written == [tmp_path / "several" / "deep"]


def test_rows_outside_the_sweep_are_left_out(tmp_path: Path) -> None:
    journal = Store.at(tmp_path).journal(FACTS)
    for cell, prompt in ((0, 0), (-2, 1), (-3, 0), (1, 0), (0, -1), (0, 2), (2**31 - 1, 2**31 - 1)):
        journal.append(cell, np.array([prompt]), np.array([1.0]))
    rows = journal.read().within(PROMPTS, CELLS)
    assert sorted(zip(rows.cell.tolist(), rows.prompt.tolist(), strict=True)) == [(-2, 1), (0, 0)]


def test_a_check_is_never_zero_so_that_zeros_are_no_row(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.store.zlib.crc32", lambda *arguments: 0)
    assert journal._checks(np.zeros(2, ROW)).tolist() == [1, 1]  # files of earlier runs have this one
    journal.path.write_bytes(journal.path.read_bytes()[: len(journal.facts) + 1] + bytes(5 * ROW.itemsize))
    assert table(journal) == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_line_and_what_is_finished_stays(
    journal: Journal, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    whole = journal.path.read_bytes()
    with monkeypatch.context() as later:
        later.setattr(os, "fsync", full)
        with pytest.raises(InterpError, match=r"The store cannot write .*\. Free space or give another") as caught:
            journal.append(0, np.array([0, 1]), np.array([5.0, 6.0]))
    assert "\n" not in str(caught.value)
    assert journal.path.read_bytes() == whole
    write(journal)
    assert table(journal) == EXPECTED


def test_a_journal_of_the_first_layout_is_begun_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Store.at(tmp_path)._laid_out(FACTS, 1)
    entry = np.array([(0, 0, 7.0)], dtype=ENTRY)
    old.path.write_bytes(old.facts.encode() + b"\n" + entry.tobytes())
    with caplog.at_level(logging.WARNING):
        journal = Store.at(tmp_path).journal(FACTS)
        assert table(journal) == {}
    assert caplog.messages == [f"{old.path} is of an earlier version: its sweep begins anew. You can delete it."]
    write(journal)
    caplog.clear()
    assert table(Store.at(tmp_path).journal(FACTS)) == EXPECTED
    assert caplog.messages == []
    assert old.path.exists()


def test_a_store_that_cannot_be_written_still_gives_its_sound_rows(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-1])

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("interp._files.write", refuse)
    assert len(table(journal)) == len(EXPECTED) - 1


# Processes

WRITER = """
import sys, numpy as np
from interp.store import Store
journal = Store.at(sys.argv[1]).journal({"sweep": "z"})
first, step = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for cell in range(first, 10**6 if step == 1 else 150, step):
    journal.append(cell, np.arange(2), np.sin(1 + cell + 10 * np.arange(2)))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path), *map(str, arguments)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_killed_at_any_moment_it_keeps_every_row_that_was_added(start: Start, tmp_path: Path) -> None:
    writer = start(0, 1)
    journal = Store.at(tmp_path).journal(FACTS)
    while len(table(journal)) < 8:
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    found = table(Store.at(tmp_path).journal(FACTS))
    n_cells = len({cell for cell, _ in found})
    assert n_cells > 3
    assert len(found) in (2 * n_cells, 2 * n_cells - 1)
    for (cell, prompt), value in found.items():
        assert value == value_of(cell, np.array(prompt))
        assert cell < n_cells


def test_two_processes_may_share_a_store(start: Start, tmp_path: Path) -> None:
    writers = [start(0, 2), start(1, 2)]
    reader = Store.at(tmp_path).journal(FACTS)
    while any(writer.poll() is None for writer in writers):
        for (cell, prompt), value in table(reader).items():
            assert value == value_of(cell, np.array(prompt))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(table(reader)) == 300
    assert reader.path.stat().st_size == len(reader.facts) + 1 + 300 * ROW.itemsize


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_rows_are_added_behind_the_last_whole_one_whoever_was_killed_in_between(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    for cut in (1, ROW.itemsize - 1, ROW.itemsize + 7, len(whole) - 5):
        journal.path.write_bytes(whole[:-cut])
        journal.append(0, np.array([0]), value_of(0, np.array([0])))
        size = journal.path.stat().st_size - len(journal.facts) - 1
        assert size > 0
        assert size % ROW.itemsize == 0
        found = table(journal)
        assert found[0, 0] == EXPECTED[0, 0]
        assert found.items() <= EXPECTED.items()
        assert len(found) >= size // ROW.itemsize - 1
    journal.path.write_bytes(whole + b"\0\0\0")  # cut shorter than what was there: nothing of the rest may stay
    journal.append(np.array([], int), np.array([], int), np.array([]))
    assert journal.path.read_bytes() == whole


def test_unchanged_runs_may_differ_by_a_thousandth_of_their_size_or_of_one(tmp_path: Path) -> None:
    journal = Store.at(tmp_path).journal(FACTS)
    for cell, value in ((-1, 1000.5), (-2, 0.0), (0, 3.0)):
        journal.append(cell, np.array([0]), np.array([value]))
    finished, out = Finished.of(journal, (1, 2)), np.full((1, 2), 7.0)
    assert finished.n_rows == 1
    has = finished.fill(out, np.array([0]), (np.array([1000.0]), np.array([0.0005])))
    assert has.tolist() == [[True, False]]
    assert out.tolist() == [[3.0, 7.0]]
    for first, second in ((999.0, 0.0), (1000.5, 0.002)):
        with pytest.raises(InterpError, match="was written with other weights"):
            finished.fill(out, np.array([0]), (np.array([first]), np.array([second])))
