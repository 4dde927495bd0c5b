"""pyvene: one ``IntervenableModel`` per layer, one whole forward for each cell.

Its tutorials run the clean prompt again for every cell; here the clean activations are collected once and given as
``source_representations``, and only the last position's logits are asked for, which together cost it less than half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyvene
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.benchmarks.workload import AT_POSITIONS, Cell, Workload

COMPONENTS = {
    "resid_pre": "block_input",
    "resid_post": "block_output",
    "attn_out": "attention_output",
    "mlp_out": "mlp_output",
    "z": "head_attention_value_output",
    "q": "head_query_output",
    "k": "head_key_output",
    "v": "head_value_output",
}


class Vene:
    """pyvene round the same Hugging Face weights, unfolded: logit differences are equal up to rounding."""

    name = "pyvene"
    unit = "cell"

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.hf = AutoModelForCausalLM.from_pretrained(work.directory, dtype=torch.float32).eval()
        self.hf.config.use_cache = False  # as ours: no keys and values are kept for a next token
        self.absent = {
            "resid_mid": "it has no component there",
            "pattern": "its component is a module that Hugging Face no longer calls",
        }
        self.models: dict[tuple[str, int], Any] = {}
        self.clean: dict[str, list[Tensor]] = {}

    def prepare(self, sites: Sequence[str]) -> None:
        self.clean = {}
        with torch.inference_mode():
            for site in sites:
                self.clean[site] = self._collect(site)

    def _collect(self, site: str) -> list[Tensor]:
        """Clean activations of every layer in one run: [prompt, position, d] or [prompt, head, position, d]."""
        n_layers, n_prompts = self.work.model.cfg.n_layers, len(self.work.clean)
        size = len(self.work.cells(site, (0,)))
        parts = [pyvene.RepresentationConfig(layer, COMPONENTS[site], _unit(site), size) for layer in range(n_layers)]
        config = pyvene.IntervenableConfig(parts, intervention_types=pyvene.CollectIntervention)
        everything = [[list(range(size))] * n_prompts] * n_layers
        (_, collected), _ = pyvene.IntervenableModel(config, model=self.hf)(
            {"input_ids": self.work.clean}, unit_locations={"sources->base": (None, everything)}
        )
        read = [torch.as_tensor(part) for part in collected]
        return [part.reshape(n_prompts, size, -1) if site in AT_POSITIONS else part for part in read]

    def run(self, groups: Sequence[Sequence[Cell]]) -> list[float]:
        with torch.inference_mode():
            return [self._patch(*cell) for group in groups for cell in group]

    def _patch(self, site: str, layer: int, index: int) -> float:
        model = self._model(site, layer)
        clean = self.clean[site][layer][:, index : index + 1]
        _, output = model(
            {"input_ids": self.work.corrupted, "logits_to_keep": 1},
            unit_locations={"sources->base": index},
            source_representations={model.sorted_keys[0]: clean},
        )
        return float(self.work.mean_difference(output.logits))

    def _model(self, site: str, layer: int) -> Any:
        if (site, layer) not in self.models:
            part = pyvene.RepresentationConfig(layer, COMPONENTS[site], _unit(site), 1)
            config = pyvene.IntervenableConfig([part], intervention_types=pyvene.VanillaIntervention)
            self.models[site, layer] = pyvene.IntervenableModel(config, model=self.hf)
        return self.models[site, layer]


def _unit(site: str) -> str:
    return "pos" if site in AT_POSITIONS else "h"


def load(work: Workload) -> list[Vene]:
    """Load the weights once more, as Hugging Face has them."""
    return [Vene(work)]
