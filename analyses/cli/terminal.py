"""What the command says and where: lines, tables, progress, and the log that libraries are diverted to."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from interp.errors import InterpError

log = logging.getLogger("interp.cli")

BAR = "{desc:<32.32} {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} {elapsed}<{remaining}, {rate_fmt}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, its columns as wide as their longest cell."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


class Terminal:
    """The two streams of the command: results on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self.out, self.err = sys.stdout, sys.stderr

    def say(self, message: str) -> None:
        """One line on stderr, whatever the message holds."""
        with contextlib.suppress(OSError):  # a full disk or a reader that left: there is nobody to tell
            print(f"interp: {' '.join(message.split())}", file=self.err)

    def line(self, text: str = "") -> None:
        """One line on stdout."""
        print(text, file=self.out)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns on stdout."""
        for line in aligned(header, rows):
            self.line(line)

    def agreed(self, question: str) -> bool:
        """Whether the person at the terminal says yes to a question.

        Raises:
            InterpError: nobody is there to ask.
        """
        if not sys.stdin.isatty():
            raise InterpError(f"{question} Nobody is at a terminal to ask. Give --yes if you mean it.")
        print(f"{question} [y/N] ", end="", file=self.err, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block only this object writes to the terminal; what libraries print becomes log lines."""
        sink = _ToLog()
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield


class Screen:
    """Tells of stages: bars on a terminal, plain lines elsewhere, nothing if quiet."""

    def __init__(self, terminal: Terminal, *, quiet: bool) -> None:
        self.terminal, self.quiet = terminal, quiet
        self.bars = terminal.err.isatty() and not quiet

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A stage: its bar or its line, and the function that moves it."""
        log.info("%s", name)
        if not self.bars:
            self._line(name)
            yield lambda done, total: None
            return
        from tqdm import tqdm

        with tqdm(total=1, desc=name, file=self.terminal.err, bar_format=BAR) as bar:

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
            self.terminal.say(text)


class _Lines(logging.Handler):
    """Keeps the last lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=20_000)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one entry."""
        self.lines.append(self.format(record))


@contextlib.contextmanager
def logged() -> Iterator[deque[str]]:
    """Everything logged or warned within the block, in memory: nothing is left behind, and no disk can be full."""
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield handler.lines
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


class _ToLog(io.TextIOBase):
    """A stream that turns what is written into log lines. It is never closed: libraries may keep hold of it."""

    def write(self, text: str) -> int:
        if text.strip():
            logging.getLogger("interp.output").info("%s", text.strip())
        return len(text)
