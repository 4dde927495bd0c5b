"""What a mark of the page is about: a head, a layer, the position of a token, a role.

Every mark says it in its ``data-`` attributes, so that a script can light up all that is about the same thing.

>>> attributes({"layer": 1, "head": 0})
{'data_head': 'L1H0'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup

from interp.report.markup import element, join, shown
from interp.sites import head_label

FACETS = ("layer", "head", "position", "role")
"""What marks can be about; axes of results have the same names."""

_HEAD = re.compile(r"\bL(\d+)H(\d+)\b")

About = Mapping[str, object]
"""Facet -> its value; a head is an index beside its layer, or a label such as L9H6."""


def attributes(about: About) -> dict[str, str]:
    """The attributes of an element that is about this, as ``markup.element`` takes them.

    A head is also about its layer, which its label says. A head without a layer is none: every layer has that index.

    >>> attributes({"head": "L9H6"}), attributes({"head": 6}), attributes({"role": "noun"})
    ({'data_head': 'L9H6'}, {}, {'data_role': 'noun'})
    """
    said = {name: str(about[name]) for name in FACETS if about.get(name) is not None}
    head = said.pop("head", None)
    if head is not None:
        layer = said.pop("layer", "")
        if _HEAD.fullmatch(head):
            said["head"] = head
        elif head.isdigit() and layer.isdigit():
            said["head"] = head_label(int(layer), int(head))
        elif layer:
            said["layer"] = layer
    return {f"data_{name}": value for name, value in said.items()}


def of_label(label: str) -> dict[str, str]:
    """The attributes of a mark whose label may name a head.

    >>> of_label("L1H0 from gato"), of_label("MLP3")
    ({'data_head': 'L1H0'}, {})
    """
    found = _HEAD.search(label)
    return attributes({"head": found[0]}) if found else {}


def heads_in(text: object) -> Markup:
    """A sentence in which every head that it names can be chosen.

    >>> str(heads_in("by L1H0."))
    'by <span class="names" data-head="L1H0">L1H0</span>.'
    """
    said = shown(text)
    if isinstance(said, Markup):
        return said
    parts, end = [], 0
    for found in _HEAD.finditer(str(said)):
        parts.append(Markup("{}").format(str(said)[end : found.start()]))
        parts.append(element("span", found[0], class_="names", **of_label(found[0])))
        end = found.end()
    return join([*parts, Markup("{}").format(str(said)[end:])])
