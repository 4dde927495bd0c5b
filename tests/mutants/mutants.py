"""Mutation testing: one small fault at a time is put into a module, and its tests have to notice.

    python -m tests.mutants.mutants stats --n 60
    python -m tests.mutants.mutants readouts stats planner resume --n 60 --seed 1
    python -m tests.mutants.mutants stats --n 60 --among survivors.txt    only those that an earlier output names

A mutant is a module with one operator, number, comparison, branch or statement changed. This process imports the
libraries once and forks a child for each mutant, in which the changed module is compiled in place of its file (which
stays as it is) and the module's tests run until one fails. Mutants are drawn with a seed, so that a number names the
same ones again.

Those that survive are held to ``judged.yaml``, where each that cannot be told from the original has its reason. The
exit code is 1 where one has none.
"""

from __future__ import annotations

import argparse
import ast
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

REPOSITORY = Path(__file__).parent.parent.parent
JUDGED = Path(__file__).with_name("judged.yaml")
LIBRARIES = (
    "numpy", "pandas", "xarray", "scipy.stats", "sklearn.linear_model", "h5netcdf", "torch", "transformers",
    "transformer_lens", "hypothesis", "pytest",
)  # fmt: skip

QUIETLY = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
EXAMPLES = ("--doctest-modules", "-o", "doctest_optionflags=ELLIPSIS NORMALIZE_WHITESPACE")


@dataclass(frozen=True)
class Target:
    """What is changed, and what has to notice.

    Attributes:
        modules: files below the repository.
        tests: arguments of pytest.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "readouts": Target(
        ("interp/readouts.py",),
        (*EXAMPLES, "interp/readouts.py", "tests/test_readouts.py", "tests/sweeps/test_projections.py"),
    ),
    "stats": Target(
        ("interp/stats.py",),
        (*EXAMPLES, "interp/stats.py", "tests/test_stats.py"),
    ),
    "planner": Target(
        ("interp/sweeps/planning.py", "interp/sweeps/exact/planner.py"),
        ("tests/sweeps/test_planner.py", "tests/sweeps/test_whole_runs.py", "tests/sweeps/test_toy.py"),
    ),
    "resume": Target(
        ("interp/sweeps/resume.py", "interp/store.py"),
        (*EXAMPLES, "interp/store.py", "tests/test_store.py", "tests/sweeps/test_journal.py"),
    ),
}

# ---- the mutants of a module ----

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
    "floor": "ceil", "ceil": "floor", "argmax": "argmin", "argmin": "argmax", "cumsum": "cumprod", "isnan": "isfinite",
    "isfinite": "isnan", "zeros": "ones", "ones": "zeros",
}  # fmt: skip

Edit: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        module: the file.
        place: which node of its tree, in the order in which they are visited.
        which: which change of that node.
        line: where it stands.
        source: that line.
        change: what became what.
    """

    module: str
    place: int
    which: int
    line: int
    source: str
    change: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.change}   in   {self.source}"

    def tree(self, text: str) -> ast.Module:
        """The module's tree with the change."""
        tree = ast.parse(text)
        _, edit = list(_edits(list(_visited(tree))[self.place]))[self.which]
        edit()
        return ast.fix_missing_locations(tree)


def mutants_of(text: str, module: str = "") -> list[Mutant]:
    """Every mutant of a module."""
    lines = text.splitlines()
    return [
        Mutant(module, place, which, node.lineno, lines[node.lineno - 1].strip(), change)  # type: ignore[attr-defined]
        for place, node in enumerate(_visited(ast.parse(text)))
        for which, (change, _) in enumerate(_edits(node))
    ]


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that decide what is computed: no annotation, message, decorator or block for type checking."""
    yield node
    if isinstance(node, ast.JoinedStr | ast.Raise) or (isinstance(node, ast.UnaryOp) and _is_number(node.operand)):
        return  # of a number below 0 the sign is changed
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _visited(child)


def _edits(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    """The changes of one node, each with what makes it in place."""
    match node:
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op) in OPERATORS and not _joins_text(node):
            other = OPERATORS[type(node.op)]
            yield f"{type(node.op).__name__} -> {other.__name__}", lambda: setattr(node, "op", other())
        case ast.Compare():
            for i, op in enumerate(node.ops):
                new = OPERATORS[type(op)]
                yield f"{type(op).__name__} -> {new.__name__}", functools.partial(node.ops.__setitem__, i, new())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", lambda: _become(node, node.operand)
        case ast.IfExp():
            yield "branches exchanged", lambda: _exchange(node)
        case ast.Constant(value=bool()):
            yield f"{node.value} -> {not node.value}", lambda: setattr(node, "value", not node.value)
        case ast.Constant(value=int() | float() as number):
            yield f"{number} -> {number + 1}", lambda: setattr(node, "value", number + 1)
        case ast.Name(id=name) if name in NAMES:
            yield f"{name} -> {NAMES[name]}", lambda: setattr(node, "id", NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield f".{name} -> .{NAMES[name]}", lambda: setattr(node, "attr", NAMES[name])
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue():
            yield f"{ast.unparse(node).split('(')[0]} left out", lambda: _become(node, ast.Pass())


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _joins_text(node: ast.AST) -> bool:
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def _become(node: Any, other: ast.AST) -> None:
    other = ast.copy_location(other, node)
    node.__class__, node.__dict__ = other.__class__, other.__dict__


def _exchange(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


# ---- running them ----


def drawn(target: Target, n: int, seed: int) -> list[Mutant]:
    """Mutants of a target's modules, in the order in which they stand; all of them if there are no more than ``n``."""
    every = [one for name in target.modules for one in mutants_of((REPOSITORY / name).read_text(), name)]
    chosen = sorted(random.Random(seed).sample(range(len(every)), min(n, len(every))))
    return [every[i] for i in chosen]


class Changed(importlib.machinery.SourceFileLoader):
    """Loads a mutant in place of its module, as a plugin of pytest."""

    def __init__(self, mutant: Mutant) -> None:
        path = REPOSITORY / mutant.module
        super().__init__(mutant.module.removesuffix(".py").replace("/", "."), str(path))
        self.code = compile(mutant.tree(path.read_text()), str(path), "exec", dont_inherit=True)

    def get_code(self, fullname: str) -> Any:
        """The mutant's."""
        return self.code

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Of this module alone."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def pytest_collection(self) -> None:
        """Come before pytest's own loader, which would read the file."""
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]


def tested(tests: Sequence[str], mutant: Mutant | None, seconds: float) -> str:
    """What the tests say: ``passed``, ``failed``, or ``late``."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for handle in (0, 1, 2):
                os.dup2(nowhere, handle)
            import pytest

            plugins = [] if mutant is None else [Changed(mutant)]
            code = int(pytest.main([*QUIETLY, *tests], plugins))
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "late"
        time.sleep(0.02)
    return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"


def judged() -> dict[tuple[str, str, str], str]:
    """Survivors that were looked at: module, line and change -> why no test can tell."""
    said = yaml.safe_load(JUDGED.read_text(encoding="utf-8")) or []
    return {(one["module"], one["line"], one["change"]): one["why"] for one in said}


def main() -> int:
    """Print every survivor, and how many there were of which kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--n", type=int, default=60, help="mutants of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--among", type=Path, metavar="FILE", help="of those drawn, the ones that this output names")
    given = parser.parse_args()
    named = given.among.read_text() if given.among else None
    os.chdir(REPOSITORY)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # what the children share is not written to
    code, known = 0, judged()
    for name in given.targets:
        target, counts = TARGETS[name], Counter[str]()
        started = time.monotonic()
        if tested(target.tests, None, 3600) != "passed":
            sys.stderr.write(f"The tests of {name} fail without a mutant.\n")
            return 2
        alone = time.monotonic() - started
        for mutant in drawn(target, given.n, given.seed):
            if named is not None and str(mutant) not in named:
                continue
            said = tested(target.tests, mutant, 3 * alone + 30)
            why = known.get((mutant.module, mutant.source, mutant.change))
            counts["survived" if said == "passed" else said] += 1
            if said == "passed":
                counts["of these judged"] += why is not None
                code |= why is None
                sys.stdout.write(f"survived: {mutant}   {f'({why})' if why else 'NOT JUDGED'}\n")
                sys.stdout.flush()
        seconds = time.monotonic() - started
        sys.stdout.write(
            f"{name}: {counts.total() - counts['of these judged']} mutants in {seconds:.0f} s: {dict(counts)}\n"
        )
        sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
