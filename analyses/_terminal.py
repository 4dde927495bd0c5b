"""What the command says and where: lines, tables, progress, and the log that libraries are diverted to."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

log = logging.getLogger("interp.cli")



def say(screen: TextIO, message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print(f"interp: {' '.join(message.split())}", file=screen)


def print_line(text: str) -> None:
    print(text, file=_stdout())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Screen:
    """Tells of stages: bars on a terminal, plain lines elsewhere, nothing with ``--quiet``."""

    def __init__(self, screen: TextIO, *, quiet: bool) -> None:
        self.screen, self.quiet = screen, quiet
        self.bars = screen.isatty() and not quiet

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A stage: its bar or its line, and the function that moves it."""
        from tqdm import tqdm

        log.info("%s", name)
        if not self.bars:
            self._line(name)
            yield lambda done, total: None
            return
        with tqdm(total=1, desc=name, file=self.screen, leave=True, bar_format=BAR) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield advance
            bar.update((bar.total or 1) - bar.n)

    def note(self, text: str) -> None:
        """One line worth reading."""
        log.info("%s", text)
        self._line(text)

    def _line(self, text: str) -> None:
        if not self.quiet:
            say(self.screen, text)


BAR = "{desc:<32.32} {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} {elapsed}"




@contextlib.contextmanager
def log_file() -> Iterator[Path]:
    """Everything logged or warned goes to a file, which is kept only after a failure."""
    handle, name = tempfile.mkstemp(prefix="interp-", suffix=".log")
    os.close(handle)
    path = Path(name)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield path
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


class _ToLog(io.TextIOBase):
    """A stream that turns what a library writes into log lines."""

    def write(self, text: str) -> int:
        if text.strip():
            logging.getLogger("interp.output").info("%s", text.strip())
        return len(text)


_OUTPUT: list[TextIO] = []


def _stdout() -> TextIO:
    return _OUTPUT[-1] if _OUTPUT else sys.stdout


@contextlib.contextmanager
def libraries_kept_quiet() -> Iterator[None]:
    """Libraries write to the log; only this module speaks to the terminal."""
    _OUTPUT.append(sys.stdout)
    sink = _ToLog()
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield
    finally:
        _OUTPUT.pop()


