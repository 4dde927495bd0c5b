"""The import rules of the house, and proof that each check can fail.

A rule reads: files that match `where` import none of `never`. Imports under `if TYPE_CHECKING` do not count.
"""

from __future__ import annotations

import ast
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

PLOTTING = ("matplotlib", "plotly", "circuitsvis", "seaborn")
NETWORK = ("urllib.request", "http", "socket", "requests", "httpx", "huggingface_hub")
MODELS = ("torch", "transformers", "transformer_lens", "safetensors", "gguf")
RUNNING = ("interp.model", "interp.run", "interp.sweeps", "interp.attribution")
ROOMS_OF_SWEEPS = tuple(
    f"interp.sweeps.{path.stem}" for path in sorted((REPOSITORY / "interp/sweeps").iterdir()) if path.stem[0] != "_"
)
"""The modules behind the door of the sweeps."""


@dataclass(frozen=True)
class Rule:
    """What the files that match a pattern may never import."""

    where: str
    never: tuple[str, ...]
    but: tuple[str, ...] = ()  # patterns


# The composition root: the command, studies, runs on disk.
ROOT = "analyses/cli/*"
# What is known of the analyses without importing them.
REGISTRY = ("analyses/registry.py", "analyses/bundled.py")
# The verdict: it joins the results of the analyses.
VERDICT = ("analyses/context_flow.py", "analyses/claims.py", "analyses/looking.py")
# What asks about the heads that the evidence names.
ON_NAMED_HEADS = ("analyses/qk_attribution.py",)

# What an explanation measures, which its command and the trial both ask.
EXPLAINING = "analyses/explaining/*"
# What asks the other analyses about models whose answer is known, by the registry.
ON_TRIAL = ("analyses/trial.py", "analyses/ground_truth.py", "analyses/false_alarms.py")

RULES = (
    Rule("interp/*", ("analyses",)),
    Rule("interp/__init__.py", MODELS),
    # Who does the pieces is known to the engine alone, and to the command that chooses it.
    Rule("interp/*", ("ray", "interp.engines.ray"), but=("interp/engines/ray.py",)),
    Rule("analyses/*", ("ray", "interp.engines.ray"), but=("analyses/cli/scaling.py",)),
    Rule("interp/prompts/*", (*RUNNING, "interp.metrics", "interp.readouts", *PLOTTING)),
    Rule("interp/tasks/*", (*RUNNING, "interp.metrics", "interp.readouts", "interp.stats", *PLOTTING)),
    Rule("interp/sites.py", (*MODELS, "numpy", *RUNNING)),
    Rule(
        "interp/model/*",
        ("interp.sweeps", "interp.attribution", "interp.metrics", "interp.readouts", "interp.stats", "interp.report"),
    ),
    *(  # what is found of a model, and how it computes, are known without the model
        Rule(f"interp/model/{name}.py", ("interp.model.hooked", "interp.model.load", "interp.model.HookedTransformer"))
        for name in (
            *("arithmetic", "bridged", "checks", "checkpoint", "config", "folding", "live_sites", "products"),
            *("running", "source", "families/*"),
        )
    ),
    Rule("interp/run.py", ("interp.sweeps", "interp.attribution", "interp.stats", "interp.report", *PLOTTING)),
    Rule("interp/interventions.py", (*RUNNING, "interp.metrics", "interp.readouts", "interp.report")),
    Rule("interp/sweeps/*", ("interp.attribution", "interp.stats", "interp.report", *PLOTTING)),
    Rule("interp/attribution*", ("interp.report", "interp.circuits", *PLOTTING)),
    Rule("interp/circuits/*", ("interp.report", *PLOTTING)),
    *(Rule(where, ROOMS_OF_SWEEPS) for where in ("interp/attribution/*", "interp/circuits/*", "analyses/*")),
    Rule("interp/heads/*", ("interp.report", *PLOTTING)),
    *(
        Rule(f"interp/{name}.py", (*RUNNING, "interp.stats", "interp.results", "interp.report", *PLOTTING))
        for name in ("metrics", "readouts")
    ),
    Rule("interp/probes/*", ("interp.attribution", "interp.report", *PLOTTING)),
    Rule("interp/subspaces/*", ("interp.report", *PLOTTING)),
    Rule("interp/lenses/*", ("interp.report", *PLOTTING)),
    Rule("interp/stats.py", (*MODELS, *RUNNING, *PLOTTING)),
    Rule("interp/summary.py", (*MODELS, *RUNNING, "interp.results", "interp.report", *PLOTTING)),
    Rule("interp/results.py", (*MODELS, *RUNNING, *PLOTTING)),
    Rule("interp/store.py", (*MODELS, *RUNNING, "interp.stats", "interp.metrics", "interp.readouts", *PLOTTING)),
    Rule("interp/groundtruth/*", ("interp.report", *PLOTTING)),
    Rule("interp/mini/*", ("interp.sweeps", "interp.attribution", "interp.report")),
    Rule(
        "interp/report/*",
        (*MODELS, *RUNNING, *NETWORK, "time", "datetime", "random", "secrets", "uuid", "numpy.random"),
    ),
    Rule("analyses/*.py", ("interp.report", *PLOTTING), but=(ROOT, "analyses/__main__.py")),
    Rule("analyses/*.py", ("transformer_lens", "transformers"), but=(ROOT, "analyses/__main__.py")),
    Rule(
        "analyses/*.py",
        ("analyses",),
        but=(ROOT, "analyses/__main__.py", EXPLAINING, *VERDICT, *ON_NAMED_HEADS, *ON_TRIAL, *REGISTRY),
    ),
    Rule("analyses/*.py", ("analyses.cli",), but=(ROOT, "analyses/__main__.py")),
    *(Rule(name, (*MODELS, *RUNNING, "interp.readouts", "interp.interventions")) for name in REGISTRY),
    *(Rule(name, (*RUNNING, *MODELS, "interp.interventions")) for name in VERDICT),
)

FOLDERS = "interp analyses reports tests docs"
FILES = "pyproject.toml README.md LICENSE CHANGELOG.md CONTRIBUTING.md CITATION.cff Makefile"
TOP_LEVEL = {*FOLDERS.split(), *FILES.split()}


def imports(source: str, *, loading: bool = False) -> Iterator[str]:
    """Every module and name imported anywhere in the source, dotted, except for type checking only.

    With ``loading`` only those that are imported when the source is: not what a function imports when it is called.
    """
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
            continue
        if loading and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def sources(root: Path) -> list[Path]:
    """The Python files of the two packages (an environment beside them is not ours)."""
    return sorted(path for package in ("interp", "analyses") for path in (root / package).rglob("*.py"))


def violations(rule: Rule, root: Path) -> list[str]:
    """What breaks a rule below a directory, as 'file imports module'."""
    found = []
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        if not fnmatch(name, rule.where) or any(fnmatch(name, but) for but in rule.but):
            continue
        for module in sorted(set(imports(path.read_text(encoding="utf-8")))):
            if any(module == banned or module.startswith(banned + ".") for banned in rule.never):
                found.append(f"{name} imports {module}")
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.where} without {rule.never[0]}")
def test_the_import_rule_holds(rule: Rule) -> None:
    assert violations(rule, REPOSITORY) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.where} without {rule.never[0]}")
@pytest.mark.parametrize("form", ["import {}", "from {} import anything", "def later():\n    import {}"])
def test_the_import_rule_can_fail(rule: Rule, form: str, tmp_path: Path) -> None:
    name = rule.where.replace("*", "offender")
    offender = tmp_path / (name if name.endswith(".py") else name + ".py")
    offender.parent.mkdir(parents=True, exist_ok=True)
    for banned in rule.never:
        offender.write_text(form.format(banned))
        assert violations(rule, tmp_path), f"{form.format(banned)} in {offender.name} went unseen"


def test_a_submodule_imported_by_name_from_its_package_is_seen() -> None:
    assert "interp.run" in set(imports("from interp import run"))


def test_imports_for_type_checking_only_are_allowed_but_their_else_branch_is_not() -> None:
    source = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import torch
        else:
            import analyses
    """
    assert set(imports(textwrap.dedent(source))) == {"typing", "typing.TYPE_CHECKING", "analyses"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.where} without {rule.never[0]}")
def test_a_rule_names_files_of_the_house(rule: Rule) -> None:
    files = [path.relative_to(REPOSITORY).as_posix() for path in sources(REPOSITORY)]
    assert any(fnmatch(name, rule.where) for name in files)


def arrows(root: Path) -> dict[str, set[str]]:
    """Which module imports which when it is loaded."""
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in sources(root)}
    modules = {name.removesuffix("/__init__").replace("/", "."): path for name, path in files.items()}
    found = {}
    for name, path in modules.items():
        given = set(imports(path.read_text(encoding="utf-8"), loading=True))
        packages = {module.rpartition(".")[0] for module in given & modules.keys()}
        entered = {word.rpartition(".")[0] for word in given - modules.keys()}  # something of the package's own
        found[name] = (given & modules.keys()) - {name} - (packages - entered)
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules that are left when those that import none of the rest are taken away, again and again."""
    left = dict(graph)
    while done := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in done:
            del left[name]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(arrows(REPOSITORY)) == []


def test_a_circle_of_three_modules_is_seen(tmp_path: Path) -> None:
    (tmp_path / "interp").mkdir()
    for name, line in {
        "a": "from interp import b",
        "b": "import interp.c",
        "c": "from interp.a import x",
    }.items():
        (tmp_path / f"interp/{name}.py").write_text(line)
    assert circle(arrows(tmp_path)) == ["interp.a", "interp.b", "interp.c"]


def test_the_top_level_holds_only_what_the_design_fixes() -> None:
    shown = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert shown - TOP_LEVEL - {"build", "dist"} == set()


# --- what an import really loads ---

LOADS = "import sys, importlib; importlib.import_module({!r}); sys.exit(int('torch' in sys.modules))"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    "module",
    [
        "interp",
        "interp.results",
        "interp.stats",
        "interp.summary",
        "interp.report",
        "interp.sites",
        "analyses",
        "analyses.cli.study",
        "analyses.bundled",
    ],
)
def test_importing_it_loads_no_torch(module: str, python: Run) -> None:
    done = python("-c", LOADS.format(module))
    assert done.returncode == 0, done.stderr or f"import {module} loads torch"


def test_the_torch_check_can_fail(python: Run) -> None:
    done = python("-c", LOADS.format("interp.metrics", "interp.readouts"))
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""


def test_parsing_arguments_loads_nothing_heavy(python: Run) -> None:
    heavy = "numpy xarray torch yaml transformers sklearn jinja2 tqdm"
    code = f"""
        import sys
        from analyses.cli.main import _parser
        _parser()
        print(*(name for name in "{heavy}".split() if name in sys.modules))
    """
    done = python("-c", textwrap.dedent(code))
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["import interp.sweeps.exact.planner", "from interp.sweeps import sweep", "import interp.sweep"]
)
def test_sweep_is_the_function_whoever_imports_what_first(first: str, python: Run) -> None:
    check = "import interp\nfrom interp.sweeps import sweep\nassert interp.sweep is sweep, interp.sweep"
    done = python("-W", "ignore::DeprecationWarning", "-c", f"{first}\n{check}")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_earlier_place_of_the_sweeps_works_and_points_to_the_new_one(python: Run) -> None:
    done = python("-c", "from interp.sweep import path_patching, plan, sweep\nassert callable(plan)")
    assert done.returncode == 0
    assert "DeprecationWarning: Import from interp.sweeps" in done.stderr


def test_every_public_name_resolves(python: Run) -> None:
    done = python("-c", "import interp; [getattr(interp, name) for name in interp.__all__]; interp.nothing")
    assert done.stderr.strip().endswith("AttributeError: module 'interp' has no attribute 'nothing'")
