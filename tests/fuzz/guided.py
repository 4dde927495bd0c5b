"""Fuzzing that coverage guides, over every reader of files: atheris changes sound files towards lines not yet reached.

    python -m pip install --constraint tests/constraints.txt '.[fuzz]'
    python -m tests.fuzz.guided --seconds 300              all readers, the time shared out
    python -m tests.fuzz.guided gguf yaml --seconds 60     some of them

A reader has to answer or to refuse in one line (``tests.fuzz.reading``). What makes one do anything else is kept in
``--keep`` and named; the exit code is 1 then. Mend it, and add it to what test_hostile.py has found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = ["interp", "gguf", "yaml", "h5netcdf", "numpy.lib"]
"""Packages whose lines are seen; those in C are not."""


def fuzz(name: str, seconds: int, keep: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz import reading

    def one(content: bytes) -> None:
        reading.answered(name, content)

    with tempfile.TemporaryDirectory() as corpus:
        sound = reading.sound(name)
        (Path(corpus) / "sound").write_bytes(sound)
        arguments = [
            sys.argv[0], corpus, f"-max_total_time={seconds}", f"-max_len={max(4096, 2 * len(sound))}",
            f"-artifact_prefix={keep}/{name.replace(' ', '-')}-", "-handle_alrm=0", "-timeout=1000",
            "-rss_limit_mb=8192", "-print_final_stats=1",
        ]  # fmt: skip
        atheris.Setup(arguments, one)
        atheris.Fuzz()


def main() -> int:
    """Fuzz each reader in a process of its own, and say how many files each was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--seconds", type=int, default=300, help="of all readers together")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="directory of what was not answered rightly")
    parser.add_argument("--alone", action="store_true", help="this reader, in this process")
    given = parser.parse_args()
    if given.alone:
        fuzz(given.readers[0], given.seconds, given.keep)
    from tests.fuzz import reading

    given.keep.mkdir(parents=True, exist_ok=True)
    code = 0
    names = given.readers or list(reading.READERS)
    for name in names:
        each = ["--alone", "--seconds", str(given.seconds // len(names)), "--keep", str(given.keep)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, *each], capture_output=True, text=True, errors="replace"
        )
        counts = [line for line in done.stderr.splitlines() if "stat::number_of_executed_units" in line]
        said = f"{counts[-1].split()[-1]} files" if counts else "not begun"
        sys.stdout.write(f"{name}: {said}, {'all right' if done.returncode == 0 else 'WRONG'}\n")
        if done.returncode:
            code = 1
            sys.stdout.write("\n".join((done.stdout + done.stderr).splitlines()[-60:]) + "\n")
        sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
