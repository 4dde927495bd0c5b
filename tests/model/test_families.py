"""Every family that TransformerLens bridges: its numbers are those of Hugging Face's own hooks, or it is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from interp import run
from interp.errors import InterpError
from interp.interventions import Steer
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import sweep
from tests.families import FAMILIES, VOCAB, Family
from tests.tolerance import close

QUICK = ("gemma2", "granite", "bloom", "mixtral")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
PLACES = (2, 5)
CORRECT, INCORRECT = 5, 9


@functools.cache
def _directory(name: str, root: Path) -> Path:
    return FAMILIES[name].build(root / name.replace(" ", "-"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a family's model is saved."""
    return functools.partial(_directory, root=tmp_path_factory.mktemp("families"))


def pairs() -> PromptPairs:
    """Two pairs of seven tokens that differ in two places."""
    generator = np.random.default_rng(3)
    clean = generator.integers(1, VOCAB, (2, 7))
    corrupted = clean.copy()
    for place in PLACES:
        corrupted[:, place] = (corrupted[:, place] + 7) % (VOCAB - 1) + 1
    return PromptPairs.from_tokens(clean, corrupted, correct=CORRECT, incorrect=INCORRECT, answer_position=6)


# ---- plain Hugging Face, hooked by hand ----


@dataclass(frozen=True)
class Place:
    """A tensor of a Hugging Face model: the input or the output of a module, times ``scale``."""

    module: nn.Module
    is_input: bool
    scale: float = 1.0


class Plain:
    """A Hugging Face model of its own, read and changed through PyTorch's hooks."""

    def __init__(self, family: Family, path: Path) -> None:
        self.family = family
        self.model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
        self.blocks = self.model.get_submodule(family.blocks)

    def _find(self, block: nn.Module, names: tuple[str, ...]) -> nn.Module:
        known = dict(block.named_modules())
        return next(known[name] for name in names if name in known)

    def has_own_activation(self) -> bool:
        """Whether every layer has a module of its own for the activation of its MLP."""
        found = [dict(block.named_modules()).get(name) for block in self.blocks for name in self.family.act]
        modules = [module for module in found if module is not None]
        return len({id(module) for module in modules}) == len(modules) >= len(self.blocks)

    def place(self, site: str, layer: int) -> Place:
        family, block = self.family, self.blocks[layer]
        if site in ("resid_pre", "resid_post"):
            return Place(block, site == "resid_pre")
        names = {
            "attn_out": family.attn, "mlp_out": family.mlp, "z": family.o, "mlp_pre": family.act,
            "mlp_post": family.down,
        }[site]  # fmt: skip
        is_input = site in ("z", "mlp_pre", "mlp_post")
        return Place(self._find(block, names), is_input, 1.0 if is_input else family.scale)

    @contextmanager
    def hooked(self, place: Place, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Call ``edit`` with [prompt, position, width]; what it returns is used from there on."""

        def change(tensor: Tensor) -> Tensor:
            whole = tensor.reshape(*self.shape, tensor.shape[-1])
            new = edit(whole * place.scale)
            return tensor if new is None else (new / place.scale).reshape(tensor.shape)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        def after(_: nn.Module, args: Any, out: Any) -> Any:
            return type(out)([change(out[0]), *out[1:]]) if isinstance(out, tuple | list) else change(out)

        handle = (
            place.module.register_forward_pre_hook(before, with_kwargs=True)
            if place.is_input
            else place.module.register_forward_hook(after)
        )
        try:
            yield
        finally:
            handle.remove()

    def logits(self, ids: np.ndarray) -> Tensor:
        self.shape = ids.shape
        with torch.no_grad():
            out: Tensor = self.model(torch.tensor(ids), use_cache=False).logits
        return out

    def read(self, place: Place, ids: np.ndarray) -> Tensor:
        kept: list[Tensor] = []
        with self.hooked(place, lambda tensor: kept.append(tensor.clone())):
            self.logits(ids)
        return kept[0]

    def patched(self, site: str, layer: int, base: np.ndarray, source: np.ndarray, where: Any) -> np.ndarray:
        """The metric of ``base`` with one activation of ``source``; ``where`` picks what is replaced."""
        if site == "resid_mid":  # through what attention adds: the skip connection changes with it
            mid = Place(self._find(self.blocks[layer], self.family.mid), is_input=True)
            change = self.read(mid, source) - self.read(mid, base)
            place = self.place("attn_out", layer)
            new = self.read(place, base) + change
        else:
            place = self.place(site, layer)
            new = self.read(place, source)

        def edit(tensor: Tensor) -> Tensor:
            out = tensor.clone()
            out[where] = new[where]
            return out

        with self.hooked(place, edit):
            return difference(self.logits(base))


def difference(logits: Tensor) -> np.ndarray:
    last = logits[:, -1]
    return (last[:, CORRECT] - last[:, INCORRECT]).numpy()


@pytest.mark.parametrize("name", EVERY)
def test_patches_equal_hugging_face_hooks_or_the_family_is_refused(name: str, built: Callable[[str], Path]) -> None:
    family, path = FAMILIES[name], built(name)
    if family.refused:
        with pytest.raises(InterpError, match=family.refused) as refusal:
            HookedTransformer.from_pretrained(path)
        assert "\n" not in str(refusal.value)
        if not family.raw:
            return
    model = HookedTransformer.from_pretrained(path, numerics="raw" if family.raw else "compatibility")
    plain, both = Plain(family, path), pairs()
    clean, corrupted = both.clean.ids, both.corrupted.ids
    size = float(plain.logits(clean)[:, -1].abs().max())
    compared = 0
    for site in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_pre", "mlp_post", "z"):
        if site not in model.sites or site in model.read_only:
            continue
        if site == "mlp_pre" and not plain.has_own_activation():
            continue  # it is a function, which no hook sees, or one module of all layers
        heads = site == "z"
        found = sweep(model, both, site)["patched"].values  # prompt, layer, position or head
        for layer in range(model.cfg.n_layers):
            for unit in range(model.cfg.n_heads) if heads else PLACES:
                width = slice(unit * model.cfg.d_head, (unit + 1) * model.cfg.d_head)
                where = (slice(None), slice(None), width) if heads else (slice(None), unit)
                expected = plain.patched(site, layer, corrupted, clean, where)
                close(found[:, layer, unit], expected, size=size, what=(site, layer, unit))
                compared += 1
    assert compared >= 12  # a stream at three layers and two tokens, at both ends of a block


# ---- what the sites of these blocks mean ----


def test_a_steered_head_of_a_post_norm_block_is_steered_before_the_norm(built: Callable[[str], Path]) -> None:
    path = built("gemma3")
    model, plain, ids = HookedTransformer.from_pretrained(path), Plain(FAMILIES["gemma3"], path), pairs().clean.ids
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    prompts = run.as_prompts(model, ids)
    found = run.logits_at(model, prompts, interventions=[Steer(site="result", vector=vector, layers=[1], heads=[2])])
    projection = plain.blocks[1].self_attn.o_proj
    with plain.hooked(Place(projection, is_input=False), lambda tensor: tensor + vector):
        expected = plain.logits(ids)[:, -1]
    close(found.log_softmax(-1), expected.log_softmax(-1))


def test_what_a_post_norm_block_adds_is_the_normalised_output(built: Callable[[str], Path]) -> None:
    model = HookedTransformer.from_pretrained(built("gemma3"))
    acts = run.capture(model, pairs().clean, ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "result"])
    close(acts.resid_pre + acts.attn_out, acts.resid_mid, "product")
    close(acts.resid_mid + acts.mlp_out, acts.resid_post, "product")
    assert float(abs(acts.result.sum("head") - acts.attn_out).max()) > 0.1  # the norm lies between
