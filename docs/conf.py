"""The documentation site: guides in Markdown, the API from its docstrings. Nothing is fetched while it is built."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import interp  # noqa: E402
from analyses.cli.main import _parser  # noqa: E402
from interp import track_record  # noqa: E402

project = "interp"
author = copyright = "interp contributors"
version = release = interp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "interp"
html_static_path: list[str] = []
html_show_sphinx = False
pygments_style = "friendly"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes are no reStructuredText

doctest_test_doctest_blocks = ""  # the docstrings' own examples are run by tests/test_examples.py
doctest_global_setup = "import warnings; warnings.simplefilter('ignore')"


class CommandHelp(Directive):
    """``command-help``: what every command says with ``--help``."""

    def run(self) -> list[nodes.Node]:
        """A section for each command, from its own parser."""
        os.environ["COLUMNS"] = "92"  # how wide argparse writes
        commands = next(each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
        meanings = {each.dest: each.help or "" for each in commands._choices_actions}
        return [self.section(name, meanings[name], parser) for name, parser in commands.choices.items()]

    @staticmethod
    def section(name: str, meaning: str, parser: argparse.ArgumentParser) -> nodes.Node:
        """A heading, what the command is for, and its help as it is printed."""
        text = parser.format_help()
        section = nodes.section(ids=[f"interp-{name}"], names=[f"interp {name}"])
        meaning = f"{meaning[:1].upper()}{meaning[1:]}."
        section += [nodes.title(text=f"interp {name}"), nodes.paragraph(text=meaning)]
        section += nodes.literal_block(text, text, language="text")
        return section


class PublicNames(Directive):
    """``public-names``: every public name of a module that is defined in it, for autodoc."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What ``automodule`` makes of the module."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        node = nodes.section(ids=[name.replace(".", "-")], names=[name])
        node += nodes.title(text=name)
        names = list(getattr(module, "__all__", ())) or [
            key for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == name and callable(value)
        ]  # fmt: skip
        text = [f".. automodule:: {name}", ""]
        for key in names:
            value = getattr(module, key)
            if inspect.ismodule(value) or not callable(value):
                continue
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            text += [f".. {kind}:: {name}.{key}", *(["   :members:"] if kind == "autoclass" else []), ""]
        self.state.nested_parse(StringList(text, source=f"<{name}>"), self.content_offset, node)
        return [node]


class TrackRecord(Directive):
    """``track-record``: how often each method was right where the answer is known, as it is shipped."""

    def run(self) -> list[nodes.Node]:
        """A table of methods and questions, and one of false alarms."""
        return [self.table(track_record.rows()), self.table(track_record.alarm_rows())]

    @staticmethod
    def table(rows: Sequence[Sequence[str]]) -> nodes.Node:
        """A table whose first row is its head."""
        group = nodes.tgroup(cols=len(rows[0]))
        group += [nodes.colspec(colwidth=1) for _ in rows[0]]
        made = [nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in row)) for row in rows]
        group += [nodes.thead("", made[0]), nodes.tbody("", *made[1:])]
        return nodes.table("", group)


def is_made_by_sklearn(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn writes into each estimator, whose text refers to its own site."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives of this site."""
    app.connect("autodoc-skip-member", is_made_by_sklearn)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("public-names", PublicNames)
    app.add_directive("track-record", TrackRecord)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
