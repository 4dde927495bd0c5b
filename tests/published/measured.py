"""What papers have measured of GPT-2 small, measured with the bundled tasks; and how that is held to what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp import HookedTransformer, PromptPairs, _yaml, heads, path_patching, tasks
from interp.run import logits_at
from interp.sites import head_label
from tests.tolerance import near

FILE = Path(__file__).with_name("gpt2.yaml")
FIGURES: dict[str, dict[str, Any]] = _yaml.read(FILE, FILE.name)
NAME_MOVERS = ("L9H9", "L9H6", "L10H0")
YEARS = [f"{year:02}" for year in range(2, 100)]  # those of the paper


@dataclass(frozen=True)
class Measured:
    """Numbers, and rankings of heads and MLPs, of a model of GPT-2 small's layers and heads.

    Attributes:
        model: the model.
        n: prompts of a task.
        block: random tokens that come twice; the paper has 100.
    """

    model: HookedTransformer
    n: int = 64
    block: int = 50

    @cached_property
    def ioi(self) -> PromptPairs:
        parts = [tasks.build("ioi", rung, tokenizer=self.model, n=self.n // 2) for rung in ("when", "then")]
        return PromptPairs.concat(parts)

    @cached_property
    def ioi_differences(self) -> np.ndarray:
        pairs, rows = self.ioi, np.arange(len(self.ioi))
        logits = logits_at(self.model, pairs.clean, pairs.answer_position).numpy()
        return logits[rows, pairs.correct] - logits[rows, pairs.incorrect]

    @property
    def ioi_logit_difference(self) -> float:
        return float(self.ioi_differences.mean())

    @property
    def ioi_preferred(self) -> float:
        return float((self.ioi_differences > 0).mean())

    @cached_property
    def ioi_direct(self) -> dict[str, float]:
        return self._lost(self.ioi, self._heads(), ["logits"])

    @property
    def towards_the_name(self) -> list[str]:
        return _ranked(self.ioi_direct)

    @property
    def against_the_name(self) -> list[str]:
        return _ranked(self.ioi_direct)[::-1]

    @property
    def to_the_name_movers(self) -> list[str]:
        """Of heads below all name movers, by what is lost through the queries of these."""
        return _ranked(self._lost(self.ioi, self._heads(9), [f"{head}.q" for head in NAME_MOVERS]))

    @cached_property
    def on_random_tokens(self) -> xr.DataArray:
        return heads.roles(self.model, n=10, block=self.block)["measured"].mean("prompt")

    @property
    def previous_token(self) -> list[str]:
        return self._by_attention("previous token")

    @property
    def duplicate_token(self) -> list[str]:
        return self._by_attention("duplicate token")

    @property
    def induction(self) -> list[str]:
        return self._by_attention("induction")

    @cached_property
    def spans(self) -> PromptPairs:
        return tasks.build("greater-than", "lasted", tokenizer=self.model, n=self.n)

    @property
    def greater_than(self) -> float:
        """Probability of later years minus that of the first year and earlier ones."""
        tokens = [self.model.tokenizer.encode(year, add_special_tokens=False) for year in YEARS]
        assert all(len(ids) == 1 for ids in tokens), "a year of two digits is one token"
        ids = np.array(tokens)[:, 0]
        probability = logits_at(self.model, self.spans.clean, self.spans.answer_position).softmax(-1).numpy()[:, ids]
        began = np.array([int(slots["start"]) for slots in self.spans.slots])
        later = np.array([int(year) for year in YEARS]) > began[:, None]
        return float(np.where(later, probability, -probability).sum(axis=1).mean())

    @property
    def towards_later_years(self) -> list[str]:
        mlps = [f"MLP{layer}" for layer in range(self.model.cfg.n_layers)]
        return _ranked(self._lost(self.spans, [*self._heads(), *mlps], ["logits"]))

    def _heads(self, below: int | None = None) -> list[str]:
        cfg = self.model.cfg
        layers = range(cfg.n_layers if below is None else below)
        return [head_label(layer, head) for layer in layers for head in range(cfg.n_heads)]

    def _lost(self, pairs: PromptPairs, senders: Sequence[str], receivers: Sequence[str]) -> dict[str, float]:
        """What the clean run's logit difference loses when the paths carry what is sent in the corrupted run."""
        found = path_patching(self.model, pairs, direction="noising", senders=senders, receivers=receivers)
        lost = (found["clean"] - found["patched"]).mean("prompt").sum("receiver")
        return dict(zip(lost["sender"].values.tolist(), lost.values.tolist(), strict=True))

    def _by_attention(self, measure: str) -> list[str]:
        score = self.on_random_tokens.sel(measure=measure).transpose("layer", "head").values
        return _ranked({head_label(*at): float(value) for at, value in np.ndenumerate(score)})


def _ranked(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda label: -scores[label])


def check(name: str, found: float | list[str]) -> None:
    """Hold what was found to the figure of that name."""
    figure = FIGURES[name]
    if isinstance(found, list):
        first = found[: figure["among"]]
        missing = [part for part in figure["parts"] if part not in first]
        assert not missing, f"{name}: {missing} not among the first {figure['among']}, {first} ({figure['source']})"
    else:
        near(found, figure["value"], figure["within"], why=figure["why"], what=f"{name} ({figure['source']})")
