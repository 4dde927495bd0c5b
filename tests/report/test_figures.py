"""Figures as files: each drawing of a page stands by itself."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from analyses.cli.main import main
from interp.errors import InterpError
from interp.report import figures, inputs, page, palette, parts, render
from interp.report.blocks import Figure, Panel
from interp.report.tables import Table
from tests.report_fixture import only, write_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's directory whose words are hostile."""
    return write_run(tmp_path_factory.mktemp("run"), only("behavior", "activation_patching", nasty=True, n_prompts=4))


@pytest.fixture(scope="module")
def drawn(run: Path) -> dict[str, Markup]:
    """Every figure of its page."""
    return figures.of_page(page.Drawn.of(inputs.read(run)))


def written(run: Path) -> Path:
    """Draw a page with its figures; the directory in which these lie."""
    return render(run, interactive=False, figures=True).parent / figures.FOLDER


def _drawing(*, text: str = "") -> Markup:
    inner = f'<rect class="cell d40" x="0" y="0" width="40" height="20"></rect>{text}'
    return Markup(f'<svg class="plot" viewBox="0 0 40 20" width="40" height="20">{inner}</svg>')


def _size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _pixels(png: bytes) -> bytes:
    """The compressed pixels of a PNG, unpacked."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return zlib.decompress(data)


def test_every_figure_of_the_page_is_an_svg_that_stands_by_itself(drawn: dict[str, Markup]) -> None:
    assert {"ladder-figure", "patch-z", "patch-resid_pre"} <= set(drawn)
    for key, drawing in drawn.items():
        text = figures.standalone(drawing)
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg", key
        assert not root.findall(f".//{SVG}script"), key
        assert not re.search(r"var\(|@media|url\(|:hover", text), key
        classes = {name for node in root.iter() for name in node.get("class", "").split()}
        styled = set(re.findall(r"\.([a-z][\w-]*)", root.findtext(f"{SVG}style") or ""))
        assert styled <= classes, key
        for node in root.iter(f"{SVG}rect"):
            steps = [name for name in node.get("class", "").split() if re.fullmatch(r"[ds]\d+", name)]
            assert set(steps) <= styled, key


def test_the_files_are_named_by_their_figures_and_the_same_when_written_again(
    run: Path, drawn: dict[str, Markup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "png", lambda document: document.encode()[:8])
    sections, calls = parts.sections, []
    monkeypatch.setattr(parts, "sections", lambda context: calls.append(1) or sections(context))
    files = [{path: path.read_bytes() for path in written(run).iterdir()} for _ in range(2)]
    assert files[0] == files[1]
    assert len(calls) == 2  # the page and the files are of one drawing
    endings = (".svg", ".png") if figures.can_draw_text() else (".svg",)
    assert {path.name for path in files[0]} == {key + ending for key in drawn for ending in endings}


def test_a_colour_is_the_one_of_the_light_page() -> None:
    text = figures.standalone(_drawing())
    assert f".plot .d40{{fill:{palette.ramp('d', 'light')[40]}}}" in text
    assert palette.ramp("d", "dark")[40] not in text


def test_a_png_shows_the_drawing_at_twice_its_size_and_its_text() -> None:
    if not figures.can_draw_text():
        pytest.skip("no font on this machine")
    blank, written = (
        figures.png(figures.standalone(_drawing(text=f'<text class="value" x="5" y="14">{text}</text>')))
        for text in ("", "0.5")
    )
    assert _size(written) == (2 * (40 + 28), 2 * (20 + 28))
    assert _pixels(blank) != _pixels(written)
    empty = figures.png(figures.standalone(Markup(str(_drawing()).replace("d40", "none"))))
    assert len({_pixels(empty), _pixels(blank)}) == 2


def test_without_a_font_there_is_svg_alone_and_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "can_draw_text", lambda: False)
    run = write_run(tmp_path, only("behavior", n_prompts=2))
    assert main(["report", str(run), "--figures"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"Figures: {run / 'figures'}", figures.NO_FONT]
    assert {path.suffix for path in (run / "figures").iterdir()} == {".svg"}
    with pytest.raises(InterpError, match="no font"):
        figures.write(_drawing(text='<text class="value">1</text>'), tmp_path / "one.png")


def test_another_ending_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=r"\.svg or \.png, not as 'one\.pdf'"):
        figures.write(_drawing(), tmp_path / "one.pdf")


def test_panels_keep_their_titles_and_do_not_overlap() -> None:
    panels = tuple(Panel(f"panel {i}", _drawing(), group="a group" if i == 2 else "") for i in range(4))
    drawn = figures.whole(Figure("one", "One", "", panels, (Table("", (), ()),), legend=_drawing()))
    assert drawn is not None
    root = ElementTree.fromstring(str(drawn))
    words = [node.text for node in root.iter("text")]
    assert words == ["One", "panel 0", "panel 1", "a group", "panel 2", "panel 3"]
    boxes = []

    def walk(node: ElementTree.Element, x: float, y: float) -> None:
        moved = re.fullmatch(r"translate\((\S+) (\S+)\)", node.get("transform", ""))
        x, y = (x + float(moved[1]), y + float(moved[2])) if moved else (x, y)
        if node.tag == "svg" and node.get("class"):
            boxes.append((x, y, x + float(node.get("width", "")), y + float(node.get("height", ""))))
        for child in node:
            walk(child, x, y)

    walk(root, 0.0, 0.0)
    assert len(boxes) == 5
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert right <= float(root.get("width", "")), i
        assert bottom <= float(root.get("height", "")), i
        for other in boxes[i + 1 :]:
            assert other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top, (i, other)


def test_the_command_writes_figures_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, only("behavior", n_prompts=2))
    assert main(["report", str(run)]) == 0
    assert "Figures" not in capsys.readouterr().out
    assert not (run / "figures").exists()


def test_figures_of_an_explanation_need_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "a black cat", "--from", "black", "--to", "cat", "--figures"]) == 2
    assert "--out DIR" in capsys.readouterr().err
