"""nnsight: the map of its documentation, all positions (or heads) of a layer as invokes of one trace.

Measured twice: as its documentation writes it, and with only the last position's logits asked for
(``logits_to_keep=1``, which Hugging Face offers and nnsight's examples leave out): a third less work at GPT-2 small's
shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnsight
import torch
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.benchmarks.workload import Workload

ORDER_IN_QKV = {"q": 0, "k": 1, "v": 2}


class Sight:
    """nnsight round the same Hugging Face weights, unfolded: logit differences are equal up to rounding."""

    unit = "layer"

    def __init__(self, work: Workload, *, last_only: bool) -> None:
        self.name = "nnsight, helped" if last_only else "nnsight"
        self.options = {"logits_to_keep": 1} if last_only else {}
        self.work = work
        self.hf = AutoModelForCausalLM.from_pretrained(work.directory, dtype=torch.float32).eval()
        self.hf.config.use_cache = False  # as ours: no keys and values are kept for a next token
        self.model = TransformersModel(self.hf, task="text-generation", tokenizer=_tokenizer())
        self.absent: dict[str, str] = {}
        self.clean: dict[str, list[Tensor]] = {}

    def prepare(self, sites: Sequence[str]) -> None:
        self.clean = {}
        with torch.inference_mode():
            for site in sites:
                self._attention_for(site)
                self.clean[site] = self._read(site)

    def run(self, groups: Sequence[Sequence[Any]]) -> list[float]:
        values: list[float] = []
        with torch.inference_mode():
            for group in groups:
                site, layer, _ = group[0]
                self._attention_for(site)
                values += self._patch(site, layer, [index for _, _, index in group])
        return values

    def _attention_for(self, site: str) -> None:
        """Fused attention never makes the pattern; everything else runs with it."""
        wanted = "eager" if site == "pattern" else "sdpa"
        if self.hf.config._attn_implementation != wanted:
            self.hf.set_attn_implementation(wanted)

    def _read(self, site: str) -> list[Tensor]:
        with self.model.trace(self.work.clean):
            read = nnsight.save([self._tensor(site, layer).clone() for layer in range(len(self.model.transformer.h))])
        return list(read)

    def _patch(self, site: str, layer: int, indices: list[int]) -> list[float]:
        clean = self.clean[site][layer]
        with self.model.trace() as tracer:
            row = nnsight.save([])
            for index in indices:
                with tracer.invoke(self.work.corrupted, **self.options):
                    where = self._where(site, index)
                    self._tensor(site, layer)[where] = clean[where]
                    row.append(self.work.mean_difference(self.model.lm_head.output))
        return [float(value) for value in row]

    def _tensor(self, site: str, layer: int) -> Any:
        """The live activation, inside a trace."""
        block = self.model.transformer.h[layer]
        if site == "resid_pre":
            return block.input
        if site == "resid_mid":
            return block.ln_2.input  # the very tensor that the skip connection carries
        if site == "resid_post":
            return block.output
        if site == "attn_out":
            return block.attn.output[0]
        if site == "mlp_out":
            return block.mlp.output
        if site == "z":
            return block.attn.c_proj.input
        if site == "pattern":
            return block.attn.source.attention_interface_1.source.nn_functional_softmax_0.output
        return block.attn.c_attn.output

    def _where(self, site: str, index: int) -> tuple[Any, ...]:
        """The part of that activation which is one cell."""
        every = slice(None)
        if site == "pattern" or site not in ("z", *ORDER_IN_QKV):
            return (every, index)
        config = self.work.model.cfg
        start = ORDER_IN_QKV.get(site, 0) * config.n_heads * config.d_head + index * config.d_head
        return (every, every, slice(start, start + config.d_head))


def _tokenizer() -> PreTrainedTokenizerFast:
    """It wants one to know its padding, of which ids of one length have none."""
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), pad_token="a", eos_token="a"
    )


def load(work: Workload) -> list[Sight]:
    """Load the weights twice more, as Hugging Face has them."""
    return [Sight(work, last_only=False), Sight(work, last_only=True)]
