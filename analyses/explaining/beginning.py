"""What the sentence and its counterfactuals begin with: read once, and never again for another word in the source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.reading import Memory
from interp.prompts import PromptPairs
from interp.prompts.swaps import SOURCE
from interp.prompts.tokens import Prompts
from interp.run import as_prompts, capture, chunks_of, ids_of, logits_at, row_bytes

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.model.arithmetic import Tap


@dataclass(frozen=True)
class Seen:
    """What is looked at of some runs, in float64.

    Attributes:
        stream: [row, layer, token, d_model] after each layer, of the tokens after the beginning.
        weights: [row, layer, head, position] attention of one token.
        values: [row, layer, position, head, d_head] of every token.
    """

    stream: Float[np.ndarray, "row layer token d_model"]
    weights: Float[np.ndarray, "row layer head position"]
    values: Float[np.ndarray, "row layer position head d_head"]


@dataclass(frozen=True)
class Beginning:
    """The tokens before the source, which are the same in every run.

    Attributes:
        model: the model.
        length: how many tokens they are.
        memory: what the model keeps of them; None where its arithmetic is not written, so that every run begins anew.
    """

    model: HookedTransformer
    length: int
    memory: Memory | None

    @classmethod
    def of(cls, model: HookedTransformer, pairs: PromptPairs) -> Beginning:
        """Read what these pairs begin with."""
        return cls.with_read(model, pairs.clean.ids[0, : int(pairs.clean.spans(SOURCE)[0, 0])])

    @classmethod
    def empty(cls, model: HookedTransformer) -> Beginning:
        """Nothing is the same in every run."""
        return cls.with_read(model, np.zeros(0, dtype=np.int64))

    @classmethod
    def with_read(cls, model: HookedTransformer, ids: Int[np.ndarray, " position"]) -> Beginning:
        """Read some tokens, with which every run begins."""
        blocks, _ = model.own_blocks()
        if blocks is None:
            return cls(model, len(ids), None)
        memory = Memory.empty(blocks)
        with torch.inference_mode():
            if len(ids):
                _, memory = memory.read(torch.tensor(ids, dtype=torch.long)[None])
        return cls(model, len(ids), memory)

    def first(self, length: int) -> Beginning:
        """The first ``length`` tokens of it."""
        return Beginning(self.model, length, None if self.memory is None else self.memory.first(length))

    def rows(self, prompts: Prompts, more: int = 0, *, keeps: bool = True) -> Iterator[np.ndarray]:
        """The prompts in parts whose activations stay near ``row_bytes``.

        Args:
            prompts: of one length.
            more: tokens that come to be added.
            keeps: whether keys and values of every token are kept for each prompt, as ``read`` does.
        """
        cfg, length = self.model.cfg, int(prompts.ids.shape[1]) + more
        new = length - (self.length if self.memory is not None else 0)
        per_row = 4 * new * (8 * cfg.d_model + 2 * cfg.d_mlp + 3 * cfg.n_heads * length)
        kept = 8 * length * cfg.n_layers * cfg.n_kv_heads * cfg.d_head
        return chunks_of(len(prompts), int(max(1, row_bytes(self.model) // max(per_row, kept if keeps else 0))))

    def read(
        self, ids: Int[Tensor, "row position"], *, tap: Tap | None = None, within: Collection[str] = ()
    ) -> tuple[Float[Tensor, "row token d_model"], Memory]:
        """Run what comes after the beginning, of whole prompts, as ``Memory.read`` does."""
        assert self.memory is not None
        return self.memory.read(ids[:, self.length :], tap=tap, within=within)

    def run(
        self, ids: Int[Tensor, "row position"], *, tap: Tap | None = None, within: Collection[str] = ()
    ) -> Float[Tensor, "row token d_model"]:
        """The stream of ``read``, where nothing is read after it."""
        assert self.memory is not None
        return self.memory.run(ids[:, self.length :], tap=tap, within=within)

    def watch(self, ids: Int[Tensor, "row position"], at: int) -> Seen:
        """Run whole prompts of one length; attention is that of the token ``at``."""
        if self.memory is None:
            return self._captured(ids, at)
        streams: list[Tensor] = []
        weights: list[Tensor] = []

        def look(site: str, layer: int, value: Tensor) -> Tensor:
            if site == "resid_post":
                streams.append(value.cpu())
            elif site == "pattern":
                weights.append(value[:, :, at - self.length].cpu())
            return value

        with torch.inference_mode():
            _, memory = self.read(ids, tap=look, within=("pattern",))
            values = torch.stack([memory.blocks.spread(values).cpu() for _, values in memory.kept], dim=1)
        return Seen(*(part.double().numpy() for part in (torch.stack(streams, 1), torch.stack(weights, 1), values)))

    def _captured(self, ids: Int[Tensor, "row position"], at: int) -> Seen:
        """The same through hooks, from the first token on."""
        everywhere = capture(self.model, ids, ["resid_post", "v"])
        weights = capture(self.model, ids, "pattern", [at])["pattern"].isel(dest_position=0)
        heads = "kv_head" if "kv_head" in everywhere["v"].dims else "head"
        values = everywhere["v"].transpose("prompt", "layer", "position", heads, "d_head").values
        return Seen(
            everywhere["resid_post"].transpose("prompt", "layer", "position", "d_model").values[:, :, self.length :]
            .astype(np.float64),
            weights.transpose("prompt", "layer", "head", "src_position").values.astype(np.float64),
            np.repeat(values, weights.sizes["head"] // values.shape[3], axis=3).astype(np.float64),
        )  # fmt: skip

    def logits(self, prompts: Prompts, positions: Int[np.ndarray, " position"]) -> Float[Tensor, "row position vocab"]:
        """Logits (CPU, float32 or float64) at some positions after the beginning, the same of every prompt."""
        if self.memory is None:
            return logits_at(self.model, prompts, np.tile(positions, (len(prompts), 1)))
        found = []
        with torch.inference_mode():
            for part in self.rows(prompts, keeps=False):
                stream = self.run(ids_of(prompts)[part])
                found.append(self.memory.blocks.logits(stream[:, positions - self.length]).cpu())
        logits = torch.cat(found)
        return logits if logits.dtype == torch.float64 else logits.float()

    def ends(self, continuation: Sequence[int]) -> bool:
        """Whether it ends with the end of a text."""
        return continuation[-1] == getattr(self.model.tokenizer, "eos_token_id", None)

    def greedy(self, prompts: Prompts, n: int, enough: Callable[[], bool] = lambda: False) -> list[list[int]]:
        """Of prompts of one length, the likeliest next token, ``n`` times, up to an end of the text (which is kept).

        Once ``enough`` says so, no further token is generated; one is in any case.
        """
        end = getattr(self.model.tokenizer, "eos_token_id", None)
        found = []
        with torch.inference_mode():
            for part in self.rows(prompts, n):
                ids = ids_of(prompts)[part]
                length = ids.shape[1]
                memory: Memory | None = None
                for _ in range(n):
                    if self.memory is None:
                        last = torch.full((len(ids),), ids.shape[1] - 1)
                        logits = self.model.forward(ids, logits_at=last)
                    else:
                        stream, memory = self.read(ids) if memory is None else memory.read(ids[:, -1:])
                        logits = memory.blocks.logits(stream[:, -1])
                    ids = torch.cat((ids, logits.argmax(dim=-1, keepdim=True).cpu()), dim=1)
                    if enough():
                        break
                found += ids[:, length:].tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in found]

    def log_probabilities(self, prompts: Prompts, continuation: list[int]) -> Float[Tensor, "row step"]:
        """Log-probability (nats, float64) of each token of one continuation after each prompt, all of one length."""
        length, n = int(prompts.lengths[0]), len(continuation)
        longer = as_prompts(self.model, [[*row, *continuation] for row in prompts.rows()])
        logits = self.logits(longer, np.arange(length - 1, length + n - 1)).double().log_softmax(dim=-1)
        return logits.gather(-1, torch.tensor(continuation).expand(len(prompts), n)[..., None])[..., 0]
