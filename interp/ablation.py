"""What an ablation puts in place of an activation: zeros, a mean, or another prompt's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import sites
from interp._arguments import check_prompts
from interp.errors import InterpError, whole_number
from interp.interventions import check_ablation
from interp.prompts.tokens import Prompts
from interp.sites import Site

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Reader: TypeAlias = Callable[
    ["HookedTransformer", Prompts, str, Sequence[int]], Iterator[tuple[Prompts, Mapping[int, Tensor]]]
]
"""Reads a site's activations at some layers, some prompts at a time."""


@dataclass(frozen=True)
class Reference:
    """What an ablation puts in place of an activation.

    Attributes:
        kind: name of the ablation.
        prompts: what is ablated.
        references: prompts that the mean or the resample is made of.
        donors: with ``resample``, the prompt that each prompt gets its values from; else None.
        differs: per prompt, the first token from which on the reference's activations are not the prompt's own.

    A prompt can be told from its reference only where their tokens differ, and after that:

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = Prompts.from_ids([[5, 6, 7, 9], [5, 8, 7, 9]])
    >>> Reference.of(model, prompts, "resample").differs.tolist()
    [1, 1]
    """

    kind: str
    prompts: Prompts
    references: Prompts
    donors: Prompts | None
    differs: Int[np.ndarray, " prompt"]

    @classmethod
    def of(
        cls, model: HookedTransformer, prompts: Prompts, kind: str, *, seed: int = 0, references: Prompts | None = None
    ) -> Reference:
        """The reference of one kind of ablation.

        Raises:
            InterpError: an unknown kind, references that the model cannot read or that are not used, or a prompt that
                no reference of its length can be drawn for.
        """
        check_ablation(kind)
        if references is not None:
            check_prompts(model, references)
        given = prompts if references is None else references
        everywhere = np.zeros(len(prompts), dtype=np.int64)
        match kind:
            case "zero" | "zero_raw":
                if references is not None:
                    raise InterpError(f"References are for 'mean' and 'resample': leave them out with '{kind}'.")
                return cls(kind, prompts, given, None, everywhere)
            case "mean":
                equal = _one_length(prompts, given)
                differs = _first_difference(prompts, given) if equal else everywhere
                return cls(kind, prompts, given, None, differs)
            case "resample":
                donors = given.select(resample_donors(prompts, seed=seed, references=references))
                differ = donors.ids[:, : prompts.ids.shape[1]] != prompts.ids
                differs = np.where(differ.any(axis=1), differ.argmax(axis=1), prompts.lengths)
                return cls(kind, prompts, given, donors, differs)
            case _:
                raise InterpError(f"Ablation '{kind}' has no values here. State in interp.ablation what it puts in.")

    def check_varies(self, masks: Bool[np.ndarray, "place prompt position"], places: Sequence[Any]) -> list[Any]:
        """The places at which the reference is the prompt's own activation everywhere, so that nothing is ablated.

        Raises:
            InterpError: it is so at all of them.
        """
        positions = np.arange(masks.shape[2])
        varied = np.asarray((masks & (positions >= self.differs[:, None])).any(axis=(1, 2)))
        if not varied.any():
            raise InterpError(
                f"The reference of this '{self.kind}' ablation does not vary: up to the last token that is ablated it "
                "has the prompt's own tokens, so nothing would change. Give prompts that differ there, or references=."
            )
        return [place for place, moves in zip(places, varied, strict=True) if not moves]

    def constants(self, model: HookedTransformer, site: str, layers: Sequence[int], read: Reader) -> dict[int, Tensor]:
        """Layer -> the value that is the same for every prompt, [position, *dims] or [*dims] (not with ``resample``).

        Args:
            model: the model.
            site: what is ablated.
            layers: where.
            read: reads the references' activations, where they are needed.

        Raises:
            InterpError: a kind or a site for which there is none.
        """
        match self.kind:
            case "zero":
                zeros = torch.zeros(shape_at(model, site), dtype=model.dtype, device=model.device)
                return dict.fromkeys(layers, zeros)
            case "zero_raw":
                return {layer: _raw_zero(model, site, layer) for layer in layers}
            case "mean":
                return self._means(model, site, layers, read)
            case _:
                raise InterpError(f"Ablation '{self.kind}' has no constant value.")

    def _means(self, model: HookedTransformer, site: str, layers: Sequence[int], read: Reader) -> dict[int, Tensor]:
        equal = _one_length(self.prompts, self.references)
        if sites.site(site).is_pattern and not equal:
            raise InterpError(
                "A mean over attention patterns needs prompts of one length. Ablate 'z' instead, or group by length."
            )
        total: dict[int, Tensor] = {}
        for part, found in read(model, self.references, site, layers):
            real = torch.from_numpy(np.arange(part.ids.shape[1]) < part.lengths[:, None])
            for layer, value in found.items():
                value = value if equal else value[real.to(value.device)]
                total[layer] = total.get(layer, 0) + value.double().sum(dim=0)
        count = len(self.references) if equal else int(self.references.lengths.sum())
        return {layer: (value / count).to(model.dtype) for layer, value in total.items()}


def _one_length(*parts: Prompts) -> bool:
    return len({int(length) for part in parts for length in part.lengths}) == 1


def _first_difference(prompts: Prompts, references: Prompts) -> Int[np.ndarray, " prompt"]:
    """Per prompt, the first token at which any reference differs; all have one length."""
    differ = np.stack([(references.ids != row).any(axis=0) for row in prompts.ids])
    return np.where(differ.any(axis=1), differ.argmax(axis=1), prompts.lengths)


def _raw_zero(model: HookedTransformer, name: str, layer: int) -> Tensor:
    """What an activation is in this model's numerics where it is zero in the raw model's."""
    zeros = torch.zeros(shape_at(model, name), dtype=model.dtype, device=model.device)
    if model.folded_values is None:
        raise InterpError(
            f"What folding took out of the values of {model.name} is not known, so 'zero_raw' cannot be made. Load it "
            "with HookedTransformer.from_pretrained, or use 'zero'."
        )
    moved = model.folded_values[layer].to(zeros)
    in_raw = sites.site(name).in_raw
    if in_raw == "same" or not bool((moved != 0).any()):
        return zeros
    if in_raw == "unknown":
        raise InterpError(f"Site '{name}' has no 'zero_raw' in folded numerics. Ablate 'z', or use 'zero'.")
    if name not in _MOVED:
        raise InterpError(f"What folding moved out of site '{name}' is not written in interp.ablation. Use 'zero'.")
    return -_MOVED[name](model, moved, layer)


def _of_heads(model: HookedTransformer, moved: Float[Tensor, "kv_head d_head"]) -> Float[Tensor, "head d_head"]:
    return moved.repeat_interleave(model.cfg.n_heads // model.cfg.n_kv_heads, dim=0)


_MOVED: dict[str, Callable[[HookedTransformer, Tensor, int], Tensor]] = {
    "v": lambda model, moved, layer: moved,
    "z": lambda model, moved, layer: _of_heads(model, moved),
    "result": lambda model, moved, layer: torch.einsum("hd,hdm->hm", _of_heads(model, moved), model.W_O(layer)),
}
"""Site whose zero is shifted in folded numerics -> by how much, from what folding moved out of a layer's values."""


def shape_at(model: HookedTransformer, name: str) -> tuple[int, ...]:
    """A site's shape at one token; one destination and source of every head at the pattern.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> shape_at(model, "z") == (model.cfg.n_heads, model.cfg.d_head)
    True
    """
    return sites.site(name).shape(model.cfg.sizes)


def laid_out(value: Tensor, site: Site, n: int, length: int) -> Float[Tensor, "prompt position *dims"]:
    """A value that is the same for every prompt, with or without a token axis, for ``n`` prompts of ``length`` tokens.

    It is a view, not a copy. A value for more tokens than that is cut off.

    >>> mean = torch.tensor([1.0, 2.0])  # d_model
    >>> laid_out(mean, sites.site("resid_pre"), n=3, length=4).shape
    torch.Size([3, 4, 2])
    """
    if site.is_pattern:
        return value[None, :, :length, :length].expand(n, -1, length, length)
    if value.ndim == len(site.dims):
        value = value[:length]
    return value.expand(n, length, *value.shape[value.ndim - len(site.dims) + 1 :])


def resample_donors(prompts: Prompts, *, seed: int, references: Prompts | None = None) -> Int[np.ndarray, " prompt"]:
    """For each prompt, the number of the prompt whose values it takes: one of equal length and with other tokens.

    Without references the prompts of one length take from each other in a seeded cycle, so that each is used once. With
    references each prompt draws one of its length, by the seed.

    Raises:
        InterpError: a prompt for which there is none.

    >>> prompts = Prompts.from_ids([[1, 2], [3, 4], [5, 6, 7], [8, 9, 7]])
    >>> resample_donors(prompts, seed=0).tolist()  # only prompts of one length take from each other
    [1, 0, 3, 2]
    """
    rng = np.random.default_rng(whole_number(seed, "seed", least=0))
    given = prompts if references is None else references
    donors = np.arange(len(prompts))
    for length in np.unique(prompts.lengths):
        group = rng.permutation(np.flatnonzero(prompts.lengths == length))
        pool = group if references is None else np.flatnonzero(given.lengths == length)
        if (references is None and len(group) < 2) or not len(pool):
            raise InterpError(
                f"Prompt {group[0]} is the only one of {length} tokens, so there is no other to resample from. "
                "Add prompts of that length or use the mean."
            )
        donors[group] = np.roll(group, 1) if references is None else rng.choice(pool, size=len(group))
        same = (given.ids[donors[group], :length] == prompts.ids[group, :length]).all(axis=1)
        for prompt in group[same]:
            others = pool[(given.ids[pool, :length] != prompts.ids[prompt, :length]).any(axis=1)]
            if not len(others):
                raise InterpError(
                    f"Every prompt of {length} tokens has the tokens of prompt {prompt}: its reference does not vary. "
                    "Add prompts that differ, or give references=."
                )
            donors[prompt] = rng.choice(others)
    return donors
