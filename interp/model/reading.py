"""Reading on: keys and values of tokens that were read are kept, so that no token is read twice.

>>> import torch
>>> from interp import HookedTransformer
>>> model = HookedTransformer.from_pretrained("mini")
>>> ids = torch.tensor(model.tokenizer(["The cat is black"])["input_ids"])
>>> _, start = Memory.empty(model.own_blocks()[0]).read(ids[:, :2])
>>> stream, whole = start.read(ids[:, 2:])  # only these tokens are run
>>> start.length, whole.length, torch.allclose(stream, model.blocks.forward(ids)[:, 2:], atol=1e-4)
(2, 4, True)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.arithmetic import Blocks, Tap

SHARED = 64
"""Fewer tokens with which all rows begin alike are run in each row, which is as quick as reading them apart."""


def shared_length(ids: Int[Tensor, "row position"]) -> int:
    """How many tokens all rows begin with, the last one of a row aside; 0 where they are fewer than ``SHARED``.

    >>> shared_length(torch.tensor([[5] * 80 + [6, 7], [5] * 80 + [8, 7]]))
    80
    """
    same = (ids == ids[:1]).all(dim=0)
    length = min(int(same.int().cumprod(dim=0).sum()), ids.shape[1] - 1)
    return length if length >= SHARED and len(ids) > 1 else 0


@dataclass(frozen=True)
class Memory:
    """What a model keeps of the tokens that it has read.

    Attributes:
        blocks: the model.
        kept: of each layer, rotated keys and values [row, position, kv_head, d_head]. One row serves any number of
            rows that begin with its tokens.
    """

    blocks: Blocks
    kept: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def empty(cls, blocks: Blocks) -> Memory:
        """Nothing was read yet."""
        keys = blocks.token.new_zeros(1, 0, blocks.n_kv_heads, blocks.d_head)
        return cls(blocks, ((keys, keys),) * len(blocks.layers))

    @property
    def length(self) -> int:
        """Tokens that were read."""
        return int(self.kept[0][0].shape[1])

    def first(self, n: int) -> Memory:
        """What is kept of the first ``n`` tokens alone."""
        return Memory(self.blocks, tuple((k[:, :n], v[:, :n]) for k, v in self.kept))

    def of(self, n: int) -> Memory:
        """The same for ``n`` rows, without a copy where it is one row so far."""
        return Memory(self.blocks, tuple((k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in self.kept))

    def read(
        self, ids: Int[Tensor, "row token"], *, tap: Tap | None = None, within: Collection[str] = ()
    ) -> tuple[Float[Tensor, "row token d_model"], Memory]:
        """Run the tokens that come next.

        Args:
            ids: of every row, equally many.
            tap: sees and may change every activation of these tokens, as in ``Blocks.block``.
            within: sites that ``tap`` has to be shown although steps are slower where they are.

        Returns:
            The residual stream of these tokens after the last block, and the memory of all tokens so far.
        """
        now: dict[tuple[str, int], Tensor] = {}

        def keep(site: str, layer: int, value: Tensor) -> Tensor:
            value = value if tap is None else tap(site, layer, value)
            if site in ("rot_k", "v"):
                now[site, layer] = value
            return value

        stream = self.run(ids, tap=keep, within=within)
        kept = []
        for layer, (keys, values) in enumerate(self.of(len(ids)).kept):
            own = now.pop(("rot_k", layer)), now.pop(("v", layer))
            kept.append((torch.cat((keys, own[0]), dim=1), torch.cat((values, own[1]), dim=1)))
        return stream, Memory(self.blocks, tuple(kept))

    def run(
        self, ids: Int[Tensor, "row token"], *, tap: Tap | None = None, within: Collection[str] = ()
    ) -> Float[Tensor, "row token d_model"]:
        """The stream of ``read``, where nothing is read after these tokens: no key and no value is kept.

        >>> from interp import HookedTransformer
        >>> blocks = HookedTransformer.from_pretrained("mini").own_blocks()[0]
        >>> Memory.empty(blocks).run(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 128])
        """
        blocks, length = self.blocks, self.length + ids.shape[1]
        ids = ids.to(blocks.token.device)
        positions = torch.arange(self.length, length, device=ids.device)
        seen = positions[:, None] >= torch.arange(length, device=ids.device)[None, :]
        stream = blocks.token[ids]
        stream = stream if blocks.place is None else stream + blocks.place[self.length : length]
        for layer, before in enumerate(self.kept):
            stream = blocks.block(layer, stream, positions, length, seen, see=tap, within=within, before=before)
        return stream
