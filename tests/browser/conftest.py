"""One Chromium and a few finished pages, shared by the tests that open them as a reader does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from analyses import circuit_evaluation, context_flow, ground_truth, head_roles, lenses, logit_lens, qk_attribution
from interp import Explanation, HookedTransformer, circuits, explain, groundtruth, report, results, show
from interp.report.comparison import compare
from interp.results import Variable
from tests.analyses.test_claims import planted
from tests.browser.opened import Opened
from tests.report.test_places_section import result as places
from tests.report_fixture import RunSpec, edit, only, write_run

EXAMPLE = Path(__file__).parents[2] / "reports" / "examples" / "color-noun-es"
TEXT = "Me encanta el color negro, espero algún día tener un gato así"
SHELL = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cells</title><style>body { margin: 0 }</style>
<meta name="viewport" content="width=device-width, initial-scale=1"><main><h1>Notebook</h1><h2>Cells</h2>"""


def executable(playwright: Playwright) -> Path | None:
    """Chromium on the path, or the one that ``playwright install`` has fetched."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [*map(shutil.which, names), playwright.chromium.executable_path]
    return next((Path(path) for path in found if path and Path(path).is_file()), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = executable(playwright)
        if path is None:
            pytest.skip("no Chromium: 'apt-get install chromium' or 'playwright install chromium' brings one")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a name, drawn when it is first asked for.

    ``study`` is that of the bundled example, ``sections`` has what few studies ask for, ``made`` of seeded
    numbers with markup in its words, ``large`` of 48 layers of 25 heads and 200 tokens, ``partial`` has
    vectors of one prompt alone, ``refused`` is of a model that does not do the task, ``explained`` of one sentence,
    ``compared`` of two runs, ``notebook`` what cells show.
    """

    @cache
    def found() -> Explanation:
        model = HookedTransformer.from_pretrained("mini")
        return explain(model, TEXT, "negro", "gato", instead=["rojo", "blanco", "azul"])

    def study(directory: Path) -> Path:
        shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
        return report.render(directory)

    def compared(directory: Path) -> Path:
        sides = [write_run(directory / name, RunSpec(seed=seed)) for seed, name in enumerate("ab")]
        return compare(*sides).save(directory)

    def partial(directory: Path) -> Path:
        write_run(directory, only("attention_lesson", "attention_patterns", "attention_vectors", "verdict"))
        edit(directory, "attention_vectors", lambda data: data.isel(prompt=[0]))
        return report.render(directory)

    def notebook(directory: Path) -> Path:
        cells = [show(found().pairs), show(found().results["heads"]), show(found())]
        (directory / "notebook.html").write_text(SHELL + "".join(cell.html for cell in cells), encoding="utf-8")
        return directory / "notebook.html"

    def sections(directory: Path) -> Path:
        write_run(directory, only("behavior", "verdict"))
        claimed = context_flow.run(planted())
        claimed = claimed[[name for name, one in claimed.data_vars.items() if "claim" in one.dims]]
        edit(directory, "verdict", lambda verdict: verdict.merge(claimed, combine_attrs="override"))
        truth = groundtruth.build("plain")
        made = {
            "circuit": circuits.discover(truth.model, truth.pairs, "eap").data,
            "circuit_evaluation": circuit_evaluation.run(
                truth.model, truth.pairs,
                ablations=["resample"], size=6, n_random=2, n_knockouts=1, max_prompts=8,
            ),
            "logit_lens": logit_lens.run(truth.model, truth.pairs),
            "lenses": lenses.run(truth.model, truth.pairs, steps=0, jacobian_prompts=1),
            "ground_truth": ground_truth.run(
                truth.model, truth.pairs, known=["constant"], methods=["zero_ablation", "resample_ablation"]
            ),
            "false_alarms": results.build(
                {
                    "alarms": Variable(("claim",), np.array([0, 3]), "models", "models of which it is claimed"),
                    "n": Variable(("claim",), np.array([200, 200]), "models", "models asked"),
                },
                coords={"claim": ["verdict", "das"]}, title="False alarms", question="", reading="", source="",
                of=(truth.model, truth.pairs), seed=0, dims={"claim": "what is claimed"},
            ),
            "qk_attribution": qk_attribution.run(truth.model, truth.pairs),
            "head_roles": head_roles.run(truth.model, truth.pairs),
            "places": places().data,
        }  # fmt: skip
        for name, result in made.items():
            results.save(result, directory / "results" / f"{name}.nc")
        return report.render(directory)

    makers: dict[str, Callable[[Path], Path]] = {
        "study": study,
        "sections": sections,
        "made": lambda directory: report.render(write_run(directory, RunSpec(nasty=True))),
        "partial": partial,
        "large": lambda directory: report.render(write_run(directory, RunSpec(n_layers=48, n_heads=25, n_tokens=200))),
        "refused": lambda directory: report.render(write_run(directory, RunSpec(gate_passed=False))),
        "explained": lambda directory: found().save(directory),
        "compared": compared,
        "notebook": notebook,
    }

    @cache
    def page(name: str) -> Path:
        return makers[name](tmp_path_factory.mktemp(name))

    return page


@pytest.fixture(scope="session")
def _kept(chromium: Browser) -> Iterator[dict[str, Opened]]:
    kept: dict[str, Opened] = {}
    yield kept
    for opened in kept.values():
        opened.page.context.close()


@pytest.fixture
def seen(chromium: Browser, pages: Callable[[str], Path], _kept: dict[str, Opened]) -> Callable[..., Opened]:
    """A page that tests share and only look at: ``seen(name, width, dark=False, media="screen")``."""

    def look(name: str, width: int = 1280, *, dark: bool = False, media: str = "screen") -> Opened:
        if name not in _kept:
            _kept[name] = Opened.of(chromium, pages(name))
        opened = _kept[name]
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.page.emulate_media(media=media, color_scheme="dark" if dark else "light")  # type: ignore[arg-type]
        opened.page.evaluate("() => scrollTo(0, 0)")
        return opened

    return look


@pytest.fixture
def used(chromium: Browser, pages: Callable[[str], Path]) -> Iterator[Callable[..., Opened]]:
    """A page of a test's own, to be clicked: ``used(name, width, **options of the browser's context)``."""
    mine: list[Opened] = []

    def use(name: str, width: int = 1280, **options: object) -> Opened:
        mine.append(Opened.of(chromium, pages(name), width, **options))
        return mine[-1]

    yield use
    for opened in mine:
        opened.page.context.close()
