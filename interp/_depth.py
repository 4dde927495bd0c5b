"""What the layers of a site are called: the residual stream is read between layers, everything else within one.

>>> names("resid_pre", ["0", "1", "2"]), title("resid_pre")
(['start', '0', '1'], 'after layer')
>>> where("resid_pre", "1"), where("resid_pre", "start"), where("z", "1")
('after layer 1', 'before layer 0', 'layer 1')
"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from interp.language import called, say

_BETWEEN = {"resid_pre": 1, "resid_post": 0}
"""Streams that are read where a layer ends, and how many layers before their own that is."""


def title(site: str) -> str:
    """The name of the axis."""
    return say("after layer") if site in _BETWEEN else say("layer")


def names(site: str, layers: Sequence[str]) -> list[str]:
    """The labels of the axis: for the stream, the layer that was done; ``start`` before the first."""
    step = _BETWEEN.get(site, 0)
    if not step or not all(layer.isdigit() for layer in layers):
        return list(layers)
    return [str(int(layer) - step) if int(layer) >= step else say("start") for layer in layers]


def where(site: str, name: str) -> str:
    """A layer within a sentence, by its label."""
    if site not in _BETWEEN:
        return say("layer {layer}", layer=name)
    return say("before layer {layer}", layer=0) if name == say("start") else say("after layer {layer}", layer=name)


def of(site: str, layer: object) -> str:
    """A layer within a sentence, as the result counts it."""
    return where(site, names(site, [str(layer)])[0])


def cells(summary: xr.Dataset, site: str) -> dict[tuple[int, int], str]:
    """What the cells of a map of layers and roles are called, layer by layer; its layers have these labels."""
    layers, roles = ([str(value) for value in summary[dim].values] for dim in ("layer", "role"))
    return {
        (i, j): f"{where(site, layer)} · {called('role', role)}"
        for i, layer in enumerate(layers)
        for j, role in enumerate(roles)
    }


def named(summary: xr.Dataset, site: str) -> xr.Dataset:
    """A summary whose layers have these labels."""
    layers = [str(v) for v in summary["layer"].values] if "layer" in summary.coords else []
    layers = layers or [str(i) for i in range(summary.sizes["layer"])]
    return summary.assign_coords(layer=names(site, layers))
