"""Completion of the command in a shell: studies, tasks, options and files, written as a script by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

Completed = dict[str, Any]
"""What shtab takes as ``complete`` of an argument: per shell how it is completed, and what that needs before it."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that a shell reads to complete the command.

    >>> parser = argparse.ArgumentParser(prog="interp")
    >>> argument = parser.add_subparsers().add_parser("run", help="run").add_argument("study")
    >>> "color-noun-es" in script(parser, "bash")
    True
    """
    import shtab  # only this command needs it

    ways = _ways(shtab.DIRECTORY, shtab.glob("*.yaml"))
    for action in _arguments(parser):
        if action.dest in ways and action.choices is None:
            action.complete = ways[action.dest]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)


def _ways(directory: Completed, written: Completed) -> dict[str, Completed]:
    """By the name of an argument, how it is completed."""
    from analyses.cli import study
    from interp import tasks

    ways = dict.fromkeys(("out", "directory", "directories"), directory)
    ways["study"] = _named("studies", study.names(), ".yaml")
    ways["task"] = _named("tasks", tasks.names(), ".yaml")
    ways["file"] = written
    ways["model"] = _named("models", ("mini",), ".gguf")
    return ways


def _named(kind: str, names: Sequence[str], ending: str) -> Completed:
    """Names that come with interp, files of an ending, and the directories on the way to one."""
    words, name = " ".join(names), f"_interp_{kind}"
    bash = f"""{name}() {{
  compgen -W "{words}" -- "$1"
  compgen -f -X '!*{ending}' -- "$1"
  compgen -d -- "$1"
}}
"""
    zsh = f"""{name}() {{
  compadd -- {words}
  _files -g '*{ending}'
}}
"""
    return {
        "bash": name,
        "zsh": name,
        "fish": f"(printf '%s\\n' {words}; __fish_complete_suffix {ending})",
        "preamble": {"bash": bash, "zsh": zsh},
    }


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a parser and of its commands."""
    for action in parser._actions:  # argparse lists them nowhere else
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _arguments(command)
