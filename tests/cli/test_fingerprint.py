"""The fingerprint that decides whether a result is served again: every file that it depends on, and no other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from analyses.cli import closure
from analyses.cli import manifest as manifests

if TYPE_CHECKING:
    from interp.model import HookedTransformer

REPOSITORY = Path(__file__).parents[2]

# A small house: what `work.method` depends on is marked, by hand.
HOUSE = {
    "work/__init__.py": ("", True),
    "work/method.py": ("from work import _rules\nfrom lib import measure, late\nimport numpy\n", True),
    "work/_rules.py": ("LEVEL = 0.05\n", True),
    "work/other.py": ("import work.method\n", False),
    "lib/__init__.py": (
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from lib.inner import measure
            from lib.unused import nothing
        """,
        True,
    ),
    "lib/inner.py": (
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from lib.types import Kind
        else:
            from lib import fallback
        def measure():
            if True:
                from lib.deep.below import value
        """,
        True,
    ),
    "lib/late.py": ("try:\n    import lib.fast as fast\nexcept ImportError:\n    fast = None\n", True),
    "lib/fast.py": ("", True),
    "lib/fallback.py": ("", True),
    "lib/types.py": ("", False),
    "lib/unused.py": ("", False),
    "lib/deep/__init__.py": ("", True),
    "lib/deep/below.py": ("class A:\n    def f(self):\n        import lib.deep.lowest\n", True),
    "lib/deep/lowest.py": ("", True),
    "lib/deep/words.yaml": ("a: 1\n", True),
    "lib/deep/README.md": ("", False),
    "lib/page/__init__.py": ("import lib.inner\n", False),
    "lib/page/style.json": ("{}", False),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The small house on disk."""
    for name, (text, _) in HOUSE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def test_the_files_are_those_that_the_imports_reach(root: Path) -> None:
    found = {path.relative_to(root).as_posix() for path in closure.files(root, ["work.method"])}
    assert found == {name for name, (_, reached) in HOUSE.items() if reached}


@pytest.mark.parametrize("name", HOUSE)
def test_a_change_of_a_file_changes_the_fingerprint_if_a_result_depends_on_it(name: str, root: Path) -> None:
    before = closure.code_sha256(root, ["work.method"])
    path = root / name
    path.write_text(path.read_text() + "\n# changed\n")
    assert (closure.code_sha256(root, ["work.method"]) != before) == HOUSE[name][1]


def test_what_moves_between_files_changes_the_fingerprint(root: Path) -> None:
    before = closure.code_sha256(root, ["work.method"])
    for name, text in (("fast", "x = 1\n"), ("fallback", "")):
        (root / f"lib/{name}.py").write_text(text)
    moved = closure.code_sha256(root, ["work.method"])
    for name, text in (("fast", ""), ("fallback", "x = 1\n")):
        (root / f"lib/{name}.py").write_text(text)
    assert len({before, moved, closure.code_sha256(root, ["work.method"])}) == 3


def test_a_module_that_is_not_there_is_no_empty_list(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"work\.absent"):
        closure.files(root, ["work.absent"])


@pytest.fixture(scope="module")
def ours() -> set[str]:
    """The files that results of this library depend on."""
    found = closure.files(REPOSITORY, manifests.RESULTS_COME_FROM)
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


def test_rules_weights_and_tasks_are_in_the_page_and_the_command_are_not(ours: set[str]) -> None:
    needed = ["analyses/head_evidence.py", "interp/stats.py", "interp/model/load.py", "interp/sweeps/exact/execute.py"]
    needed += ["interp/run.py", "interp/tasks/color-noun.yaml", "interp/mini/__init__.py", "interp/results.py"]
    assert [name for name in needed if name not in ours] == []
    outside = [name for name in ours if name.startswith(("interp/report/", "analyses/cli/", "analyses/__main__"))]
    assert outside == []
    assert "analyses/cli/terminal.py" not in ours
    assert "interp/mini/train.py" not in ours


def test_every_library_that_is_imported_there_has_its_version_recorded(ours: set[str]) -> None:
    distributions = {"sklearn": "scikit-learn", "transformer_lens": "transformer-lens"}
    # Annotations; texts, whose values are in the key; downloads, as are the fingerprints of weights and settings; bars.
    without_numbers = {"jaxtyping", "yaml", "h5py", "huggingface_hub", "tqdm", "pyarrow", "datasets", "threadpoolctl"}
    imported = set()
    for name in ours:
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((REPOSITORY / name).read_bytes())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"interp", "analyses", "__future__"} - without_numbers
    assert {distributions.get(name, name) for name in third_party} <= set(manifests.versions())


@pytest.mark.slow
def test_what_a_run_really_loads_is_in_the_fingerprint(
    python: Callable[..., subprocess.CompletedProcess[str]], ours: set[str]
) -> None:
    """Not the text of the sources but the modules of a process that has made every result of a study."""
    code = """
        import json, sys
        from pathlib import Path
        from analyses.cli import execution, manifest, study
        real = execution.real_tools()
        object.__setattr__(real, "render", lambda out: out)
        class Quiet:
            import contextlib
            @contextlib.contextmanager
            def stage(self, name):
                yield lambda done, total: None
            def note(self, text): pass
        chosen = study.with_overrides(study.load("color-noun"), model=None, n=4, seed=None)
        execution.execute(chosen, Path("run"), tools=real, watcher=Quiet(), command="")
        ours = [module for name, module in sys.modules.items() if name.split(".")[0] in ("interp", "analyses")]
        print(json.dumps([module.__file__ for module in ours if getattr(module, "__file__", None)]))
    """
    done = python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    loaded = {Path(file).relative_to(REPOSITORY).as_posix() for file in json.loads(done.stdout.splitlines()[-1])}
    command = {"__init__", "asking", "execution", "manifest", "closure", "directory", "plans", "study"}
    registry = {f"analyses/{name}.py" for name in ("registry", "bundled", "options")}
    page = {"interp/report/manifest.py", "interp/_names.py", "interp/summary.py"}
    page |= {name for name in loaded if name.startswith("interp/report/")}
    assert loaded - ours - {f"analyses/cli/{name}.py" for name in command} - registry - page == set()


def test_a_configuration_counts_by_what_it_says_of_the_arithmetic() -> None:
    from transformers import GPT2Config

    from interp.model.source import config_sha256

    def sha256(**options: object) -> str:
        return config_sha256(GPT2Config(n_layer=2, **options))

    assert sha256() == sha256(name_or_path="/elsewhere", use_cache=False, transformers_version="0")
    others = [{"layer_norm_epsilon": 1e-3}, {"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}]
    assert len({sha256(), *(sha256(**options) for options in others)}) == 4


def test_a_model_says_which_configuration_it_has(gpt2: HookedTransformer) -> None:
    assert gpt2.provenance()["config_sha256"] == gpt2.config_sha256
    assert len(gpt2.config_sha256) == 64
