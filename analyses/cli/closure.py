"""Which files a result depends on: what its modules import, and what those import, read from the sources."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = (".yaml", ".json")


def code_sha256(root: Path, modules: Iterable[str], packages: Collection[str] | None = None) -> str:
    """One hash of all the files that some modules depend on (see ``files``): names and contents."""
    digest = hashlib.sha256()
    for path in files(root, modules, packages):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def files(root: Path, modules: Iterable[str], packages: Collection[str] | None = None) -> list[Path]:
    """The files below ``root`` that some modules depend on, sorted.

    These are the modules themselves, every module of the same packages that they import anywhere in their text
    (but for type checking only), and the data files that lie beside those.

    Args:
        root: the directory that holds the packages.
        modules: dotted names.
        packages: top-level packages whose imports are followed; None is all below ``root``.

    Raises:
        FileNotFoundError: there is no such module.
    """
    sources = _Sources(root, packages)
    found: dict[str, Path] = {}
    pending = list(modules)
    for name in pending:
        if sources.path(name) is None:
            raise FileNotFoundError(f"no module {name} in {root}")
    while pending:
        name = pending.pop()
        path = sources.path(name)
        if path is None or name in found:
            continue
        found[name] = path
        pending.append(name.rpartition(".")[0])
        pending.extend(sources.imported(path))
    data = {file for path in found.values() for file in path.parent.iterdir() if file.suffix in DATA}
    return sorted({*found.values(), *data})


@dataclass(frozen=True)
class _Import:
    """One import statement: a module, the names taken from it, and whether that is for type checking only."""

    module: str
    names: tuple[str, ...]
    types: bool


class _Sources:
    """The modules below a directory and what they import; each is read once."""

    def __init__(self, root: Path, packages: Collection[str] | None) -> None:
        self.root, self.packages = root, packages
        self._read: dict[Path, list[_Import]] = {}

    def path(self, name: str) -> Path | None:
        """The file of a module; None for what is no module here, or of a package that is not followed."""
        if self.packages is not None and name.split(".")[0] not in self.packages:
            return None
        base = self.root.joinpath(*name.split("."))
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if name and path.is_file()), None)

    def imported(self, path: Path) -> Iterator[str]:
        """The modules that a file imports when it runs."""
        for one in self._imports(path):
            if not one.types:
                yield one.module
                yield from (self._home(one.module, name) for name in one.names)

    def _home(self, package: str, name: str) -> str:
        """The module that a name of a package stands for: a submodule, or what the package's front door takes it from.

        A front door that resolves its names when they are first used still imports them for type checking.
        """
        whole = f"{package}.{name}"
        front = self.path(package)
        if self.path(whole) is not None or front is None or front.name != "__init__.py":
            return whole
        return next((one.module for one in self._imports(front) if name in one.names), whole)

    def _imports(self, path: Path) -> list[_Import]:
        if path not in self._read:
            self._read[path] = list(_import_statements(ast.parse(path.read_bytes()), types=False))
        return self._read[path]


def _import_statements(node: ast.AST, *, types: bool) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        yield from (_Import(alias.name, (), types) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.module:
            yield _Import(node.module, tuple(alias.name for alias in node.names), types)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for statement in node.body:
            yield from _import_statements(statement, types=True)
        for statement in node.orelse:
            yield from _import_statements(statement, types=types)
    elif not isinstance(node, ast.expr):  # an expression holds no statement
        for child in ast.iter_child_nodes(node):
            yield from _import_statements(child, types=types)
