"""From a run's results to one page: ``report.html`` and its machine-readable twin ``report.json``.

Nothing here loads torch, a model, the network, a clock or a random source: the same directory gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from interp import _files
from interp.errors import InterpError
from interp.language import chosen, speaking
from interp.report import bundle, inputs, page, twin

__all__ = ["render"]


def render(
    directory: str | Path, *, interactive: bool = True, language: str | None = None, figures: bool = False
) -> Path:
    """Write ``report.html`` and ``report.json`` into a run's directory and return the path of the page.

    Reads ``results/*.nc``, ``manifest.json`` and ``study.yaml``. Both files are made whole before either is written.

    Args:
        directory: the run's directory.
        interactive: inline the CircuitsVis script (1.3 MB) for the attention patterns; otherwise they are plain
            figures like the others, and the page holds no code but this library's own.
        language: of the page, ``"en"`` or ``"es"``; None is that of the prompts where it is one of these, else English.
            ``report.json`` is in English.
        figures: also write each figure of the page to ``DIR/figures``, as SVG and PNG under the figure's key. The same
            results give the same SVG; a PNG depends on the fonts of the machine besides, and is left out where there
            is none.

    Raises:
        InterpError: no results, an incomplete result (the message names the file and the variable) or one of another
            shape, a language without words, or a directory that cannot be written.

    >>> import tempfile
    >>> import xarray as xr
    >>> from interp import results
    >>> made = xr.Dataset({"effect": ("prompt", [1.0, 3.0], {"units": "logits", "long_name": "what a layer adds"})})
    >>> made.attrs = dict.fromkeys(results.REQUIRED_ATTRS, "by hand") | {"schema_version": results.SCHEMA_VERSION}
    >>> with tempfile.TemporaryDirectory() as place:
    ...     path = results.save(made, Path(place) / "results" / "effect.nc")
    ...     "what a layer adds" in render(place).read_text(encoding="utf-8")
    True
    """
    with inputs.made_by_anyone(Path(directory)):
        return draw(directory, interactive=interactive, language=language, figures=figures)


def draw(
    directory: str | Path, *, interactive: bool = True, language: str | None = None, figures: bool = False
) -> Path:
    """``render`` for results that this process has made itself: what goes wrong beside its input stays what it is.

    Raises:
        InterpError: as ``render``, but for results of another shape.
    """
    where = Path(directory)
    run = inputs.read(where)
    with speaking(chosen(language, run.language), run.language, run.own_roles):
        drawn = page.Drawn.of(run, bundle.circuitsvis() if interactive else None)
        made = page.html(drawn)
    texts = {"report.json": twin.text(run), "report.html": made}
    try:
        for name, text in texts.items():
            _files.write(where / name, text.encode("utf-8"))
    except OSError as error:
        raise InterpError(
            f"Cannot write the report to {where} ({_files.why(error)}). Free space or make it writable, and draw it "
            "again: the results are there."
        ) from error
    if figures:
        from interp.report.figures import write_all  # most pages are drawn without

        write_all(drawn, where)
    return where / "report.html"
