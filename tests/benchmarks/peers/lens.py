"""TransformerLens: ``transformer_lens.patching``, one whole forward for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens import patching

from tests.benchmarks.workload import AT_POSITIONS, Workload, parse_head

SWEEPS = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "resid_mid": patching.get_act_patch_resid_mid,
    "attn_out": patching.get_act_patch_attn_out,
    "mlp_out": patching.get_act_patch_mlp_out,
    "z": patching.get_act_patch_attn_head_out_all_pos,
    "q": patching.get_act_patch_attn_head_q_all_pos,
    "k": patching.get_act_patch_attn_head_k_all_pos,
    "v": patching.get_act_patch_attn_head_v_all_pos,
    "pattern": patching.get_act_patch_attn_head_pattern_all_pos,
}
"""Its named sweeps. ``resid_post`` has none: it goes through the general function that all of these call."""


class Lens:
    """TransformerLens on the bridge that interp holds, in the same numerics."""

    name = "transformer-lens"
    unit = "cell"

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.bridge = work.model.bridge
        self.absent: dict[str, str] = {}
        self.clean: Any = None
        self.corrupted: Any = None

    def prepare(self, sites: Sequence[str]) -> None:
        with torch.inference_mode():
            _, self.clean = self.bridge.run_with_cache(self.work.clean)
            if "path" in sites:
                _, self.corrupted = self.bridge.run_with_cache(self.work.corrupted)

    def run(self, groups: Sequence[Sequence[Any]]) -> list[float]:
        with torch.inference_mode():
            if groups and len(groups[0][0]) == 2:
                return [value for group in groups for value in self._paths(group)]
            return self._cells([cell for group in groups for cell in group])

    def _cells(self, cells: Sequence[tuple[str, int, int]]) -> list[float]:
        """The cells of each site in one call, by a table of their indices instead of the axes."""
        values: dict[tuple[str, int, int], float] = {}
        for site in dict.fromkeys(cell[0] for cell in cells):
            own = [cell for cell in cells if cell[0] == site]
            index = "pos" if site in AT_POSITIONS else "head"
            swept = patching.generic_activation_patch(
                self.bridge,
                self.work.corrupted,
                self.clean,
                self.work.mean_difference,
                SWEEPS[site].keywords["patch_setter"] if site in SWEEPS else patching.layer_pos_patch_setter,
                SWEEPS[site].keywords["activation_name"] if site in SWEEPS else site,
                index_df=pd.DataFrame([cell[1:] for cell in own], columns=["layer", index]),
            )
            values |= dict(zip(own, swept.tolist(), strict=True))
        return [values[cell] for cell in cells]

    def _paths(self, edges: Sequence[tuple[str, str]]) -> list[float]:
        """Direct path patching from one head into the queries (or keys, or values) of every later head."""
        sender, receiver = edges[0]
        layer, head = parse_head(sender)
        patched = patching.get_act_patch_direct_path(
            self.bridge,
            self.work.corrupted,
            self.clean,
            self.corrupted,
            self.work.mean_difference,
            layer,
            head,
            receiver.split(".")[1],
            verbose=False,
        )
        return [float(patched[parse_head(to.split(".")[0])]) for _, to in edges]


def load(work: Workload) -> list[Lens]:
    """The bridge is loaded already."""
    return [Lens(work)]
