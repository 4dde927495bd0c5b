"""A lens that was made for one model: a translator for each place of its stream, kept in a file, read on that model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from interp import _cells, _kept
from interp._arguments import check_model
from interp.errors import InterpError
from interp.lenses.reading import IDENTITY, Translator, read
from interp.lenses.streams import Point, point_of
from interp.prompts.places import At
from interp.sweeps.progress import Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPairs

VERSION = "1"


@dataclass(frozen=True, eq=False, repr=False)
class TrainedLens:
    """A translator for each place of a model's stream: ``matrix @ stream + offset`` is what the last layer would leave.

    Attributes:
        matrices: place -> [d_model, d_model].
        offsets: place -> [d_model].
        sites: the states of the stream that it was made for.
        n_layers: layers of its model.
        model: name and fingerprint of its model.
        made: how it was made: prompts, settings, seed.

    >>> from interp import HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lens = lenses.jacobian_lens(model, ["The cat is black."], sites=["resid_post"])
    >>> isinstance(lens, TrainedLens), lens.sites, lens.model["model"]
    (True, ('resid_post',), 'mini')
    """

    kind: ClassVar[str]
    """What it is called on the axis ``lens`` and in its file."""
    title: ClassVar[str]
    source: ClassVar[str]

    matrices: Mapping[Point, Float[Tensor, "d_model d_model"]]
    offsets: Mapping[Point, Float[Tensor, " d_model"]]
    sites: tuple[str, ...]
    n_layers: int
    model: Mapping[str, str]
    made: Mapping[str, str | int | float]

    def __repr__(self) -> str:
        """What it is, of which model, and for which places."""
        return f"{type(self).__name__}({self.model['model']!r}, {len(self.matrices)} places of {', '.join(self.sites)})"

    def _repr_html_(self) -> str:
        return _cells.html(self)

    def translate(self, stream: Float[Tensor, "... d_model"], site: str, layer: int) -> Float[Tensor, "... d_model"]:
        """The stream at a place as the last layer would have left it; after the last layer it stays as it is.

        Raises:
            InterpError: the lens was not made for this site.
        """
        point = point_of(site, layer, self.n_layers)
        if point is None:
            return stream
        if point not in self.matrices:
            raise InterpError(
                f"This lens has no translator for site '{site}': it was made for {', '.join(self.sites)}. Make one "
                "with more sites=."
            )
        matrix, offset = (part[point].to(stream.device, stream.dtype) for part in (self.matrices, self.offsets))
        return stream @ matrix.T + offset

    def read(
        self,
        model: HookedTransformer,
        pairs: PromptPairs | AnsweredPrompts,
        *,
        at: At = None,
        sites: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """What the lens says at each place of the stream: the same as ``logit_lens`` returns.

        Args:
            model: the model that it was made for.
            pairs: prompts with their answers, best those that it was not made from.
            at: roles or positions; None is every role.
            sites: states of the stream; None is all that it was made for.
            progress: True for a bar, or called with places read and places in all.

        Raises:
            InterpError: another model, or what ``logit_lens`` refuses.
        """
        self.check(model)
        chosen = self.sites if sites is None else sites
        found = read(model, pairs, {self.kind: self}, at=at, sites=chosen, progress=progress)
        return found.isel(lens=0, drop=True).assign_attrs(title=self.title, source=self.source, **self._said())

    def _said(self, before: str = "") -> dict[str, str | int | float]:
        return {f"{before}lens_{name}": value for name, value in self.made.items()}

    def check(self, model: HookedTransformer) -> None:
        """Refuse another model than the one that it was made for.

        Raises:
            InterpError: names both and what differs.
        """
        check_model(model)
        if differing := _kept.differing(model, self.model):
            raise InterpError(
                f"The lens was made for {self.model['model']}, whose {' and '.join(differing)} differ from those of "
                f"{model.name}. Load that model, or make a lens for this one."
            )

    def save(self, path: str | Path) -> Path:
        """Write it as safetensors, with all else in the header as JSON. There is no pickle.

        Raises:
            InterpError: the file cannot be written.
        """
        told = {
            "version": VERSION, "kind": self.kind, "sites": self.sites, "n_layers": self.n_layers,
            "model": dict(self.model), "made": dict(self.made),
        }  # fmt: skip
        tensors = {
            f"{what}.{site}.{layer}": part[site, layer].contiguous()
            for what, part in (("matrix", self.matrices), ("offset", self.offsets))
            for site, layer in part
        }
        return _kept.write(path, save(tensors, metadata=_kept.header(told)))

    @classmethod
    def load(cls, path: str | Path, model: HookedTransformer) -> Self:
        """Read what ``save`` wrote, to be used on the model that it was made for.

        Raises:
            InterpError: no such file, damaged, another kind of lens, or made for another model.
        """
        check_model(model)
        content = _kept.read(path, "lens", f"{cls.__name__}.save")
        try:
            made = cls._from(content)
        except (SafetensorError, *_kept.WRONG) as error:
            raise InterpError(f"{Path(path)} is not a lens that {cls.__name__}.save wrote ({error}).") from error
        made.check(model)
        return made

    @classmethod
    def _from(cls, content: bytes) -> Self:
        """The lens in the bytes of a file; raises whatever is wrong with them."""
        tensors = load(content)
        told = _kept.told(content)
        for name, right in (("version", VERSION), ("kind", cls.kind)):
            if told[name] != right:
                raise ValueError(f"its {name} is {told[name]!r}, not {right!r}")
        parts: dict[str, dict[Point, Tensor]] = {"matrix": {}, "offset": {}}
        for name, tensor in tensors.items():
            what, site, layer = name.split(".")
            parts[what][site, int(layer)] = tensor
        matrices, offsets = parts["matrix"], parts["offset"]
        width = next(iter(offsets.values())).shape[0]
        shapes = {(*matrices[point].shape, *offsets[point].shape) for point in offsets}
        if set(matrices) != set(offsets) or shapes != {(width, width, width)}:
            raise ValueError("its translators do not have one size")
        model = {name: str(told["model"][name]) for name in ("model", *_kept.FINGERPRINT)}
        return cls(matrices, offsets, tuple(told["sites"]), int(told["n_layers"]), model, dict(told["made"]))


def side_by_side(
    model: HookedTransformer,
    pairs: PromptPairs | AnsweredPrompts,
    lenses: Mapping[str, TrainedLens],
    *,
    at: At = None,
    sites: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The logit lens and lenses that were made for this model, on the same prompts.

    Args:
        model: the model.
        pairs: prompts with their answers, best those that no lens was made from (``held_out``).
        lenses: name -> lens.
        at: roles or positions; None is every role.
        sites: states of the stream; None is all that every lens was made for.
        progress: True for a bar, or called with places read and places in all.

    Returns:
        What ``logit_lens`` returns, with the axis ``lens``: ``logit``, then the names given.

    Raises:
        InterpError: a lens of another model, the name ``logit``, or what ``logit_lens`` refuses.

    >>> from interp import HookedTransformer, lenses, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> texts, pairs = lenses.held_out(tasks.build("color-noun", "recall", tokenizer=model, n=8))
    >>> tuned = lenses.tuned_lens(model, texts, sites=["resid_post"], steps=0)
    >>> kl = lenses.side_by_side(model, pairs, {"tuned": tuned})["kl"].sel(site="resid_post", layer=0, role="answer")
    >>> bool(kl.sel(lens="tuned").mean() < kl.sel(lens="logit").mean())
    True
    """
    for name, lens in lenses.items():
        if name == "logit":
            raise InterpError("The name 'logit' is that of the logit lens, which is always there. Choose another.")
        lens.check(model)
    made_for = [lens.sites for lens in lenses.values()]
    if sites is None and made_for:
        sites = [site for site in made_for[0] if all(site in one for one in made_for)]
    together: dict[str, Translator] = {"logit": IDENTITY, **lenses}
    found = read(model, pairs, together, at=at, sites=sites, progress=progress)
    said = {key: value for name, lens in lenses.items() for key, value in lens._said(f"{name}_").items()}
    sources = dict.fromkeys(lens.source for lens in lenses.values())
    return found.assign_attrs(
        title="Lenses side by side", source="; ".join(("logit lens: nostalgebraist 2020", *sources)), **said
    )


def as_translators(
    matrices: Mapping[Point, Tensor], offsets: Mapping[Point, Tensor] | None = None
) -> tuple[dict[Point, Tensor], dict[Point, Tensor]]:
    """Matrices and offsets (zeros where there are none) as a lens keeps them: on the CPU, outside any graph."""
    kept = {point: matrix.detach().cpu().contiguous() for point, matrix in matrices.items()}
    given = {} if offsets is None else {point: offset.detach().cpu().contiguous() for point, offset in offsets.items()}
    return kept, {point: given.get(point, torch.zeros(len(kept[point]), dtype=kept[point].dtype)) for point in kept}
