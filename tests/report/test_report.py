"""The page and its twin: what they say, what they withhold, what they refuse, and that they are pure."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.cli.main import main
from interp import report, results
from interp.errors import InterpError
from interp.prompts.vocabulary import PREFERS, SAYS
from interp.report import bundle, inputs, page, scatter
from interp.sites import SITES, Site
from tests.report_fixture import FILES, MOVER, NASTY, READER, ROLES, RunSpec, edit, only, unfolded, write_run

NOT_DONE = "The model does not do this; nothing below explains it."
INLINE = {"a", "span", "small", "strong", "code"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The page as a browser's parser sees it, every table unfolded: elements, text, and scripts set apart."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(unfolded(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self.apart(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.apart(tag)

    def apart(self, tag: str) -> None:
        """What stands in elements of their own are words of their own."""
        if tag not in INLINE:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        where = {"script": self.scripts, "style": self.styles}.get(self.open[-1] if self.open else "", self.texts)
        where.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]


def read_page(directory: Path) -> Page:
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def rendered(directory: Path, spec: RunSpec | None = None) -> Page:
    """The page of a run, without the script of CircuitsVis, which is half of it."""
    report.render(write_run(directory, spec), interactive=False)
    return read_page(directory)


def twin(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return content


_load = results.load


@cache
def _parsed(content: bytes, name: str) -> xr.Dataset:
    """What a result file of this content holds (tests/test_results.py is about reading); many runs share it."""
    return results.from_bytes(content, name)


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """Read files of the same content once: half the time of a page is HDF5's."""

    def load(path: Path) -> xr.Dataset:
        if path.is_file():
            return _parsed(path.read_bytes(), path.name).copy(deep=True)
        return _load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "load", load)
        yield


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, rendered; not to be changed."""
    directory = write_run(tmp_path_factory.mktemp("full"))
    report.render(directory)
    return directory


@pytest.fixture(scope="module")
def full(full_run: Path) -> Page:
    return read_page(full_run)


@pytest.fixture(scope="module")
def nasty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run whose words are markup, rendered; not to be changed."""
    directory = write_run(tmp_path_factory.mktemp("nasty"), RunSpec(nasty=True))
    report.render(directory)
    return directory


# ---- purity ----


def test_the_same_results_give_the_same_bytes_wherever_they_lie(full_run: Path, tmp_path: Path) -> None:
    second = write_run(tmp_path / "elsewhere" / "b")
    report.render(second)
    for name in ("report.html", "report.json"):
        assert (full_run / name).read_bytes() == (second / name).read_bytes()


def test_what_a_run_adds_to_its_manifest_afterwards_does_not_change_the_page(tmp_path: Path) -> None:
    report.render(write_run(tmp_path, only("behavior", "verdict")))
    before = {name: (tmp_path / name).read_bytes() for name in ("report.html", "report.json")}
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest |= {"status": "done", "peak_memory_bytes": 123456789}
    manifest["timings"] |= {"report": 2.5, "total": 99.0}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    report.render(tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_rendering_loads_neither_torch_nor_circuitsvis(
    tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_run(tmp_path / "run", only("attention_patterns", "verdict"))
    code = (
        "import sys; from interp import report; report.render('run'); "
        "print([name for name in ('torch', 'circuitsvis', 'transformers', 'sklearn') if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# ---- self-contained and safe ----


def test_the_page_is_well_formed_and_its_ids_are_unique(full: Page) -> None:
    assert full.open == []
    assert len(full.ids()) == len(set(full.ids()))
    anchors = [attrs["href"] for attrs in full.all("a")]
    assert anchors
    assert {anchor[1:] for anchor in anchors} <= set(full.ids())
    labelled = [name for attrs in full.all("svg") for name in attrs["aria-labelledby"].split()]
    assert set(labelled) <= set(full.ids())


def test_the_page_loads_nothing(full: Page) -> None:
    loading = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href", "ping"}
    for tag, attrs in full.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "image", "use"}
        assert not loading & set(attrs), (tag, attrs)
        assert tag != "a" or attrs["href"].startswith("#")
        assert "url(" not in attrs.get("style", "")
    css = "".join(full.styles)
    assert "url(" not in css
    assert "@import" not in css
    assert "sourceMappingURL" not in "".join(full.scripts)
    policies = [attrs["content"] for attrs in full.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [page.POLICY]
    assert policies[0].startswith("default-src 'none'")


def test_nasty_words_are_text_and_nothing_else(full: Page, nasty_run: Path) -> None:
    raw = (nasty_run / "report.html").read_text(encoding="utf-8")
    nasty = Page(raw)
    # The same kinds of elements, and as many scripts: no word has become one.
    assert {tag for tag, _ in nasty.elements} == {tag for tag, _ in full.elements}
    assert "b" not in {tag for tag, _ in nasty.elements}
    assert len(nasty.all("script")) == len(full.all("script"))
    assert "alert(1)" not in "".join(nasty.scripts[1:])  # the first holds the tokens, as data
    for word in (NASTY[0], NASTY[1], "\\u2028sep", "\\u202eover", "line⏎break"):
        assert word in nasty.text
    for character in ("\u2028", "\u202e"):
        assert character not in raw


def test_nasty_words_are_text_without_circuitsvis_too(
    full: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "circuitsvis", lambda: None)
    nasty = rendered(tmp_path, only("attention_lesson", "attention_patterns", nasty=True))
    assert {tag for tag, _ in nasty.elements} <= {tag for tag, _ in full.elements}
    assert len(nasty.all("script")) == 2  # the data and the page's own


def test_data_for_scripts_cannot_close_its_element(nasty_run: Path) -> None:
    data = read_page(nasty_run).scripts[0]
    packed = json.loads(data)["attention"]["patterns"]["prompts"]
    tokens = json.loads(zlib.decompress(base64.b64decode(packed)))[0]["tokens"]
    assert any(NASTY[0] in token for token in tokens)
    assert not {"<", ">", "&", "\u2028"} & set(data)


def test_circuitsvis_is_inlined_once_compressed_and_not_run(full: Page) -> None:
    code = full.scripts[1]
    assert full.all("script")[1] == {"type": "text/plain", "id": "circuitsvis-code"}
    found = zlib.decompress(base64.b64decode(code)).decode("utf-8")
    assert "var CircuitsVis=" in found
    assert len(code) < len(found) / 2
    assert not any("var CircuitsVis=" in script for script in full.scripts)


def test_without_circuitsvis_the_page_has_its_own_pattern_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "circuitsvis", lambda: None)
    found = rendered(tmp_path, only("attention_patterns"))
    assert "circuitsvis is not installed" in " ".join(found.text.split())
    assert not any("CircuitsVis=" in script for script in found.scripts)
    assert "lesson-pattern-map-t" in found.ids()
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_the_bundle_is_found_without_importing_its_package_and_can_be_inlined() -> None:
    found = bundle.circuitsvis()
    assert found is not None
    assert not re.search("</script", found.code, re.IGNORECASE)
    assert "<!--" not in found.code
    assert found.version.startswith("1.")


def test_a_script_keeps_its_meaning_and_loses_its_end_tag() -> None:
    assert bundle.safe_script('a="<script></script>";\n//# sourceMappingURL=x.map\n') == 'a="<script><\\/script>";\n'
    with pytest.raises(InterpError, match="<!--"):
        bundle.safe_script("<!-- x")


# ---- what the page says ----


def test_the_answer_comes_before_everything_it_rests_on(full: Page) -> None:
    order = ["The question", "The answer", "Does the model do it?", "The prompts", "How one head reads"]
    order += ["Where it can be read", "What carries it", "Which heads", "How sure we are", "Provenance"]
    main = full.text[full.text.index("The question") :]
    places = [main.index(heading) for heading in order]
    assert places == sorted(places)
    assert "restores 65% of the gap" in main


def test_every_figure_has_named_axes_and_its_numbers(full: Page, full_run: Path) -> None:
    raw = (full_run / "report.html").read_text(encoding="utf-8")
    figures = {match[1]: match[0] for match in re.finditer(r'<figure id="([^"]+)".*?</figure>', raw, re.DOTALL)}
    drawn = {"ladder-figure", "lesson-strip", "lesson-mix", "lesson-pattern", "probe-0", "patch-resid_pre", "patch-z"}
    assert drawn | {"patch-z-role", "patch-resid_pre-position", "edges", "dla", "ablations"} <= set(figures)
    for key, body in figures.items():
        if key != "circuitsvis-attention-figure":
            assert "<details" in body, key
            assert "<table" in body, key
            assert 'class="axis"' in body, key
    assert all(attrs["role"] == "img" for attrs in full.all("svg"))


def test_every_swept_site_is_drawn_and_so_is_one_that_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Site("gate", ("position", "neuron"), "mlp", "blocks.{layer}.mlp.hook_gate", "gates of the MLP's neurons")
    monkeypatch.setitem(SITES, "gate", later)
    swept = [site for site in SITES.values() if site.swept]

    def patched_everywhere(data: xr.Dataset) -> xr.Dataset:
        for site in swept:
            like = "z" if site.has_heads else "mlp_out"
            for quantity in ("recovered", "patched"):
                data[f"{quantity}_{site.name}"] = data[f"{quantity}_{like}"]
        return data

    directory = write_run(tmp_path, only("behavior", "verdict", "activation_patching"))
    edit(directory, "activation_patching", patched_everywhere)
    report.render(directory, interactive=False)
    raw = (directory / "report.html").read_text(encoding="utf-8")
    drawn = re.findall(r'<figure id="patch-(\w+)"', raw)
    assert drawn == [
        "resid_pre", "attn_out", "resid_mid", "mlp_out", "mlp_pre", "mlp_post", "gate", "resid_post",
        "z", "pattern", "v", "k", "q",
    ]  # fmt: skip
    assert set(drawn) == {site.name for site in swept}
    assert "gate: gates of the MLP's neurons" in read_page(directory).text


def test_means_of_the_page_are_means_of_the_results(full_run: Path, full: Page) -> None:
    patching = inputs.read(full_run).files["activation_patching"]
    patched = patching.need("patched_z", "direction", "prompt", "layer", "head").values
    clean, corrupted = (patching.need(name, "prompt").values for name in ("clean", "corrupted"))
    layer, head = MOVER
    moved = (patched[:, :, layer, head] - corrupted).mean(axis=1)
    sufficient, kept = moved / (clean - corrupted).mean()
    assert f"L{layer}H{head}: {sufficient:.4f}" in full.text  # tooltip of the denoising map
    assert f"L{layer}H{head}: {1 - kept:.4f}" in full.text  # the noising map shows what is lost
    assert f"{kept:.3f}" in full.text  # its table, what is recovered


def test_the_outlined_heads_are_those_of_the_verdict(full_run: Path) -> None:
    raw = (full_run / "report.html").read_text(encoding="utf-8")
    figure = re.search(r'<figure id="patch-z" .*?</figure>', raw, re.DOTALL)
    assert figure is not None
    drawn = figure[0].split('class="plot legend"')[0]
    marks = re.findall(r'<rect class="mark (mover|reader)" x="([\d.]+)" y="([\d.]+)"', drawn)
    cells = re.findall(r'class="cell [ds]\d+" x="([\d.]+)" y="([\d.]+)"[^>]*><title>(L\dH\d)', drawn)
    found: dict[str, set[str]] = {}
    for kind, x, y in marks:
        by_distance = {abs(float(a) - float(x)) + abs(float(b) - float(y)): name for a, b, name in cells}
        found.setdefault(kind, set()).add(by_distance[min(by_distance)])
    assert found == {"mover": {f"L{MOVER[0]}H{MOVER[1]}"}, "reader": {f"L{READER[0]}H{READER[1]}"}}


def test_a_failed_gate_withholds_every_explanation(tmp_path: Path) -> None:
    found = rendered(tmp_path, RunSpec(gate_passed=False))
    text = found.text
    assert NOT_DONE in text
    assert text.index(NOT_DONE) < text.index("The answer")
    ids = found.ids()
    assert {"ladder", "prompts", "provenance"} <= set(ids)
    assert not {"lesson", "probing", "patching", "heads", "certainty"} & set(ids)
    for word in ("L1H2", "mover", "recovered", "(denoising)"):
        assert word not in text
    record = twin(tmp_path)
    assert record["verdict"]["gate"] == "failed"
    assert record["heads"] == []
    assert len(record["baselines"]) == 3


def test_a_gate_that_only_the_manifest_knows_of_withholds_too(tmp_path: Path) -> None:
    text = rendered(tmp_path, only("behavior", gate_passed=False)).text
    assert NOT_DONE in text
    assert "There is no behaviour to explain" in text


def test_baselines_that_do_not_say_what_is_explained_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_run(tmp_path, only("behavior"))

    def of_an_older_version(data: xr.Dataset) -> xr.Dataset:
        del data.attrs["explained_rung"]
        return data

    edit(directory, "behavior", of_an_older_version)
    assert main(["report", str(directory)]) == 2
    assert capsys.readouterr().err == (
        "interp: results/behavior.nc has no attribute 'explained_rung'; run the study again with this version of "
        "interp.\n"
    )
    assert not (directory / "report.html").exists()


def test_the_page_says_which_rungs_the_model_does_not_do(full: Page, tmp_path: Path) -> None:
    assert "The model does not do three. The explanation below is about two only." in full.text
    spec = only("behavior", "verdict", manifest={"main_rung": "three", "explained_rung": "two"})
    text = rendered(tmp_path, spec).text
    assert "The model does not do this study's main rung, three." in text
    assert "Everything below explains rung two only. Its first prompt: “I love the color black, and" in text
    assert "The answer, for rung two only" in text
    assert "The answer, for rung" not in full.text


def test_words_about_heads_stand_beside_the_table_not_in_it(full: Page, full_run: Path) -> None:
    assert "L1H2 (mover): agree: denoising, noising, direct contribution" in full.text
    raw = (full_run / "report.html").read_text(encoding="utf-8")
    first = raw[raw.index("Movers: 1. Readers: 1. Heads in all: 12.") :].split("</table>")[0]
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", first)
    assert heads == ["head", "job", "where", "sufficient", "needed", "mean ablation (logits)"]
    assert "direct contribution" not in first


def test_missing_results_leave_a_line_in_their_place(tmp_path: Path) -> None:
    text = rendered(tmp_path, only("verdict")).text
    for name in ("behavior", "attention_lesson", "probing", "activation_patching"):
        assert f"This run has no results/{name}.nc, so this section is left out." in text
    assert "This run has no results/head_attribution.nc" in text


def test_what_a_study_does_not_ask_for_leaves_no_line(tmp_path: Path) -> None:
    study = write_run(tmp_path, only("verdict")) / "study.yaml"
    study.write_text(f"{study.read_text('utf-8')}analyses:\n  behavior:\n  probing:\n", "utf-8")
    report.render(tmp_path, interactive=False)
    text = read_page(tmp_path).text
    for name, said in (
        ("behavior", True),
        ("probing", True),
        ("attention_lesson", False),
        ("activation_patching", False),
    ):
        assert (f"This run has no results/{name}.nc" in text) == said, name


@pytest.mark.parametrize("name", FILES)
def test_one_result_alone_makes_a_page(tmp_path: Path, name: str) -> None:
    found = rendered(tmp_path, only(name))
    assert found.open == []
    assert name in twin(tmp_path)["provenance"]["files"]


def test_an_approximation_that_is_not_to_be_trusted_is_called_out_with_its_reason(full: Page, tmp_path: Path) -> None:
    at = full.text.index("Whether a gradient would have told")
    warning = full.text.index("Do not use these approximations here", at)
    assert "q, gradient: Pearson -0.40 is below 0.8. Patch exactly instead" in full.text[warning : warning + 200]
    ranking = full.text.index("Use these approximations as a ranking only", warning)
    assert "edges, EAP: they are about 1.43 times too small (slope 0.7). Their order" in full.text[ranking:][:200]
    assert "1 good as numbers, 1 a ranking only, 1 not to be used." in full.text
    assert "slope −0.20 [−0.30, 0.10], Pearson −0.40: not to be used" in full.text
    assert "slope 0.70 [0.65, 0.76], Pearson 0.95: a ranking only" in full.text
    assert "the slope's interval lies within 0.8 to 1.25" in full.text
    good = write_run(tmp_path, only("behavior", "verdict", "approximation_audit"))

    def trust_all(data: Any) -> Any:
        data["use"] = data["use"].astype("U7")
        data["use"][:] = "numbers"
        return data

    edit(good, "approximation_audit", trust_all)
    report.render(good)
    text = read_page(good).text
    assert "3 good as numbers." in text
    assert "Do not use" not in text
    assert "ranking only" not in text

    def invent(data: Any) -> Any:
        data["use"][:] = "maybe"
        return data

    edit(good, "approximation_audit", invent)
    with pytest.raises(InterpError, match="'use' has the unknown value 'maybe'"):
        report.render(good)


@pytest.mark.parametrize("slope", [1.0, 0.25, 1e-10, 0.0, 3.0, -0.5, -2.0])
def test_the_line_of_a_slope_goes_through_0_and_stays_within_the_axes(slope: float) -> None:
    marks = [scatter.Mark(across, upwards, "one", "a") for across, upwards in [(-1.0, 0.0), (3.0, 2.0), (0.0, 0.0)]]
    drawn = str(scatter.diagonal(marks, across="x", upwards="y", key="k", title="t", description="d", slope=slope))
    dots = [tuple(map(float, found)) for found in re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    line = re.search(r'class="line e" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    frame = re.search(r'class="line c" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    assert line is not None
    assert frame is not None
    x1, y1, x2, y2 = map(float, line.groups())
    left, bottom, right, top = map(float, frame.groups())
    assert left - 0.01 <= x1 < x2 <= right + 0.01
    assert all(top - 0.01 <= y <= bottom + 0.01 for y in (y1, y2))
    assert any(abs(end - edge) < 0.02 for end, edge in ((x1, left), (y1, bottom), (y1, top)))
    assert any(abs(end - edge) < 0.02 for end, edge in ((x2, right), (y2, bottom), (y2, top)))
    x0, y0 = dots[2]
    for x, y in ((x1, y1), (x2, y2)):
        assert abs((y0 - y) - slope * (x - x0)) < 0.03 * max(1, abs(slope))  # two decimals in the drawing
    assert "line e" not in str(scatter.diagonal(marks, across="x", upwards="y", key="k", title="t", description="d"))


def test_marks_lie_where_their_numbers_say() -> None:
    pairs = [(1.0, 3.0), (2.0, 2.0), (0.0, float("nan"))]
    marks = [scatter.Mark(across, upwards, "one", "a") for across, upwards in pairs]
    drawn = str(scatter.diagonal(marks, across="x", upwards="y", key="k", title="t", description="d"))
    places = [tuple(map(float, found)) for found in re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    line = re.search(r'class="line c" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    assert line is not None
    x1, y1, x2, y2 = map(float, line.groups())
    assert len(places) == 2
    up, on = places
    assert abs((on[0] - x1) / (x2 - x1) - (on[1] - y1) / (y2 - y1)) < 0.01, "equal numbers lie on the diagonal"
    assert (up[1] - y1) / (y2 - y1) > (up[0] - x1) / (x2 - x1) + 0.3, "a larger exact effect lies above it"


def test_grouped_query_maps_have_kv_heads(tmp_path: Path) -> None:
    text = rendered(tmp_path, only("activation_patching", "verdict", grouped=True)).text
    assert "This model is grouped-query" in text
    assert "kv_head 1" in text


def test_prompts_show_roles_and_what_differs(full: Page) -> None:
    words = [attrs for attrs in full.all("span") if attrs.get("class", "").startswith("word r")]
    titles = {attrs["title"] for attrs in words if "title" in attrs}
    assert {title.split(",")[0] for title in titles} == set(ROLES)
    assert {title for title in titles if "differs" in title} == {"color, differs", "color_other, differs"}


def test_a_model_that_only_prefers_the_answer_is_not_said_to_say_it(tmp_path: Path) -> None:
    def without_saying(data: xr.Dataset) -> xr.Dataset:
        words = [PREFERS if word == SAYS else word for word in data["outcome"].values]
        return data.assign(outcome=("rung", words, data["outcome"].attrs))

    heading = "The model prefers this answer; it does not say it."
    directory = write_run(tmp_path, only("behavior", "verdict"))
    report.render(directory)
    said = (directory / "report.html").read_text(encoding="utf-8")
    assert "✓ says it" in said
    assert heading not in said
    edit(directory, "behavior", without_saying)
    report.render(directory)
    preferred = (directory / "report.html").read_text(encoding="utf-8")
    assert heading in preferred
    assert "✓ prefers it" in preferred
    assert "✓ says it" not in preferred


def test_an_outcome_that_nobody_has_written_is_refused(tmp_path: Path) -> None:
    directory = write_run(tmp_path, only("behavior"))
    edit(directory, "behavior", lambda data: data.assign(outcome=data["outcome"].copy(data=["says", "no", "yes"])))
    with pytest.raises(InterpError, match="'outcome' holds 'says', which is none of says it, prefers it, does not"):
        report.render(directory)


def test_a_question_that_could_not_be_asked_is_shown_with_its_reason(tmp_path: Path) -> None:
    reason = {"not_asked": {"probing": "Every prompt has the same noun."}}
    directory = write_run(tmp_path, RunSpec(missing=("probing",), manifest=reason))
    report.render(directory)
    said = (directory / "report.html").read_text(encoding="utf-8")
    assert "This cannot be asked here. Every prompt has the same noun." in said


def test_prompts_without_roles_show_what_differs(tmp_path: Path) -> None:
    found = rendered(tmp_path, only("behavior", with_roles=False))
    assert not [attrs for attrs in found.all("span") if attrs.get("class", "").startswith("word r")]
    assert [attrs for attrs in found.all("span") if attrs.get("class") == "changed"]


def test_the_lesson_says_what_a_weight_is_and_adds_up(full: Page) -> None:
    said = "Attention weights lie between 0 and 1, and the weights of one reading word sum to 1 (here: 1.000000)"
    assert said in full.text
    assert "does not add up" not in full.text
    assert "÷ √8" in full.text


def test_a_lesson_that_does_not_add_up_is_called_out(tmp_path: Path) -> None:
    write_run(tmp_path, only("attention_lesson"))
    edit(tmp_path, "attention_lesson", lambda ds: ds.assign(z=ds["z"] + 1))
    report.render(tmp_path)
    assert "The arithmetic does not add up" in read_page(tmp_path).text


def test_contributions_that_do_not_add_up_are_called_out(full: Page, tmp_path: Path) -> None:
    assert "Sum check:" in full.text
    write_run(tmp_path, only("head_attribution"))
    edit(tmp_path, "head_attribution", lambda ds: ds.assign(logit_difference=ds["logit_difference"] + 1))
    report.render(tmp_path)
    assert "The contributions do not add up" in read_page(tmp_path).text


def test_small_gaps_are_counted_and_count_in_the_means(tmp_path: Path) -> None:
    write_run(tmp_path, only("activation_patching"))
    edit(tmp_path, "activation_patching", lambda ds: ds.assign_attrs(n_small_gap=1))
    report.render(tmp_path)
    text = read_page(tmp_path).text
    assert "For 1 of 8 prompts the gap between clean and corrupted is too small" in text
    assert "They count in the ratios of means" in text
    assert "n = 8" in text
    assert "n = 7" not in text


def test_sweeps_that_changed_nothing_are_called_out(tmp_path: Path) -> None:
    write_run(tmp_path, only("activation_patching"))
    edit(tmp_path, "activation_patching", lambda ds: ds.assign_attrs(no_effect="v noising"))
    report.render(tmp_path)
    assert "These sweeps changed no logit of any prompt: v noising." in read_page(tmp_path).text


def test_provenance_lists_attributes_drops_timings_and_the_command(full: Page) -> None:
    text = full.text
    assert "interp run color-noun --model mini --out reports/color-noun" in text
    for key in ("weights_sha256", "tokens_sha256", "numerics", "versions.torch", "library_version", "created_at"):
        assert key in text
    assert "Dropped prompts: 2" in text
    assert "clean has 31 tokens and corrupted 32" in text
    assert "activation_patching 21.40" in text


def test_other_words_that_an_explanation_left_out_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path, only("activation_patching"))
    left_out = "rojo: is two tokens\nazul: is three tokens"
    edit(tmp_path, "activation_patching", lambda ds: ds.assign_attrs(words_left_out=left_out))
    report.render(tmp_path)
    text = read_page(tmp_path).text
    assert "Other words left out: 2" in text
    assert "rojo is two tokens" in text


# ---- the twin ----


def test_the_twin_holds_verdict_baselines_heads_and_provenance(full_run: Path) -> None:
    record = twin(full_run)
    assert record["verdict"]["gate"] == "passed"
    assert record["verdict"]["rung"] == "two"
    assert record["verdict"]["answer"].startswith("L1H2 reads")
    assert [row["rung"] for row in record["baselines"]] == ["recall", "two", "three"]
    row = record["baselines"][1]
    assert row["passes"] is True
    assert row["accuracy_interval"][0] <= row["accuracy"] <= row["accuracy_interval"][1]
    heads = {head["head"]: head for head in record["heads"]}
    assert len(heads) == 12
    assert (record["heads"][0]["head"], record["heads"][0]["label"]) == ("L1H2", "mover")
    value = heads["L2H1"]["values"]["contribution"]
    assert value["units"] == "logits"
    assert value["low"] < value["value"] < value["high"]
    assert record["provenance"]["command"].startswith("interp run")
    assert record["provenance"]["shared"]["model"] == "mini"


def test_numbers_that_are_not_numbers_are_null_in_the_twin(tmp_path: Path) -> None:
    write_run(tmp_path, only("verdict"))
    edit(tmp_path, "verdict", lambda ds: ds.assign(contribution=ds["contribution"] * np.nan))
    report.render(tmp_path)
    assert {head["values"]["contribution"]["value"] for head in twin(tmp_path)["heads"]} == {None}


# ---- refusals ----


def refused(directory: Path) -> str:
    """The message of the refusal; nothing may have been written."""
    before = sorted(directory.rglob("*"))
    with pytest.raises(InterpError) as caught:
        report.render(directory)
    assert sorted(directory.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def without(attribute: str, variable: str | None = None) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(dataset: xr.Dataset) -> xr.Dataset:
        del (dataset if variable is None else dataset[variable]).attrs[attribute]
        return dataset

    return change


REFUSALS: list[tuple[str, Callable[[xr.Dataset], xr.Dataset], tuple[str, ...]]] = [
    ("probing", lambda ds: ds.drop_vars("selectivity"), ("results/probing.nc has no variable 'selectivity'",)),
    ("head_attribution", without("units", "contribution"), ("head_attribution.nc", "contribution", "units")),
    ("activation_patching", without("created_at"), ("activation_patching.nc", "created_at")),
    (
        "probing",
        lambda ds: ds.assign(accuracy=ds["accuracy"].isel(fold=0, drop=True)),
        ("results/probing.nc: variable 'accuracy' has dims (site, layer, role), expected (site, layer, role, fold)",),
    ),
    ("verdict", without("answer"), ("results/verdict.nc has no attribute 'answer'",)),
    ("verdict", lambda ds: ds.assign_attrs(gate="perhaps"), ("results/verdict.nc", "'gate' is 'perhaps'")),
    (
        "verdict",
        lambda ds: ds.assign_coords(head_label=[f"{n}.x" for n in range(12)]),
        ("results/verdict.nc", "not a head label"),
    ),
    ("attention_lesson", lambda ds: ds.assign_attrs(src_of_interest=99), ("attention_lesson.nc", "src_of_interest")),
    (
        "activation_patching",
        lambda ds: ds.assign_coords(direction=["denoising", "sideways"]),
        ("activation_patching.nc", "'sideways' is neither"),
    ),
]


@pytest.mark.parametrize(("name", "change", "said"), REFUSALS)
def test_an_incomplete_result_is_refused_by_name(
    tmp_path: Path, name: str, change: Callable[[xr.Dataset], xr.Dataset], said: tuple[str, ...]
) -> None:
    write_run(tmp_path, only(name))
    edit(tmp_path, name, change)
    message = refused(tmp_path)
    for part in said:
        assert part in message


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    assert "holds no results" in refused(tmp_path)
    assert "is not a directory" in refused(tmp_path / "nowhere")


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, only("probing"))
    (tmp_path / "results" / "probing.nc").write_bytes(b"not a file")
    assert "probing.nc" in refused(tmp_path)


@pytest.mark.parametrize(("name", "text"), [("manifest.json", "{"), ("manifest.json", "[]"), ("study.yaml", "a: [")])
def test_a_damaged_manifest_or_study_is_refused(tmp_path: Path, name: str, text: str) -> None:
    write_run(tmp_path, only("verdict"))
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert name in refused(tmp_path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, only("verdict"))
    (tmp_path / "report.json").mkdir()  # stands in the way, whoever runs the test
    assert "Cannot write the report" in refused(tmp_path)


def test_a_run_without_manifest_and_study_still_renders(tmp_path: Path) -> None:
    write_run(tmp_path, only("verdict"))
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "study.yaml").unlink()
    report.render(tmp_path)
    assert "How does the colour reach its noun?" in read_page(tmp_path).text


@pytest.mark.slow
def test_a_plain_page_holds_no_script_but_our_own(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    page = report.render(directory, interactive=False).read_text(encoding="utf-8")
    assert 'id="circuitsvis-code"' not in page
    assert "made without the CircuitsVis script" in " ".join(page.split())
    assert 'id="circuitsvis-code"' in report.render(directory).read_text(encoding="utf-8")
