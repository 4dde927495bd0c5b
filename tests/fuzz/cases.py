"""Random questions to a model, and their answers by the plain loop of ``tests.fuzz.oracle``.

A case is a number. It alone decides the architecture (shared by neighbouring numbers), the prompts and the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, sweep
from tests.fuzz.architectures import LONGEST, VOCAB
from tests.fuzz.oracle import Edit, Place, Plain

PER_ARCHITECTURE = 10
CELLS = 6
"""How many cells of a sweep are held to the oracle, drawn anew in every case."""

STREAMS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_pre", "mlp_post")
NEURONS = ("mlp_pre", "mlp_post")
HEADS = ("z", "q", "k", "v", "pattern")
METRICS = {"logit_difference": 0.4, "log_probability": 0.3, "probability": 0.15, "rank": 0.15}
"""How often each is asked for."""


@dataclass(frozen=True)
class Prompts:
    """Pairs as plain lists, besides how interp has them.

    Attributes:
        clean: ids per prompt.
        corrupted: as long, per prompt.
        right: id of the right answer, per prompt.
        wrong: id of the wrong one.
        at: position whose logits answer, per prompt.
        roles: role -> (start, end) per prompt.
        pairs: the same for interp.
    """

    clean: list[list[int]]
    corrupted: list[list[int]]
    right: list[int]
    wrong: list[int]
    at: list[int]
    roles: dict[str, list[tuple[int, int]]]
    pairs: PromptPairs

    @property
    def aligned(self) -> bool:
        """Whether a position means the same in every prompt."""
        places = zip(self.clean, *self.roles.values(), self.at, strict=True)
        return len({(len(ids), *where) for ids, *where in places}) == 1


def draw_prompts(rng: np.random.Generator) -> Prompts:
    """Two or three random pairs that differ at a token or two: all alike in shape, or each with its own."""
    n, alike = int(rng.integers(2, 4)), bool(rng.integers(4))
    clean, corrupted, at, roles = [], [], [], {"first": [], "second": []}
    shape: tuple[Any, ...] = ()
    for _ in range(n):
        if not (alike and shape):
            length = int(rng.integers(5, LONGEST - 3))
            cut = sorted(rng.choice(np.arange(1, length), size=3, replace=False).tolist())
            shape = length, cut, int(rng.integers(cut[1], length))
        length, (start, middle, end), answer = shape
        ids = rng.integers(2, VOCAB, size=length)
        other = ids.copy()
        for place in {start, int(rng.integers(1, length))}:
            other[place] = (ids[place] - 2 + rng.integers(1, VOCAB - 2)) % (VOCAB - 2) + 2
        clean.append(ids.tolist())
        corrupted.append(other.tolist())
        roles["first"].append((start, middle))
        roles["second"].append((middle, end))
        at.append(answer)
    right = rng.integers(2, VOCAB, size=n)
    wrong = (right - 2 + rng.integers(1, VOCAB - 2, size=n)) % (VOCAB - 2) + 2
    pairs = PromptPairs.from_tokens(
        clean, corrupted, correct=right.tolist(), incorrect=wrong.tolist(), answer_position=at,
        roles={name: np.array(spans) for name, spans in roles.items()},
    )  # fmt: skip
    return Prompts(clean, corrupted, right.tolist(), wrong.tolist(), at, roles, pairs)


@dataclass(frozen=True)
class Case:
    """One question, answered by both sides.

    Attributes:
        question: in words.
        found: interp's numbers at the drawn cells, [cell, prompt].
        expected: the oracle's; NaN where a rank is decided by less than rounding.
        unchanged: the oracle's without a change, [prompt].
        scale: size of what was rounded on the way to these numbers.
        dtype: the least precise on interp's side.
    """

    question: str
    found: np.ndarray
    expected: np.ndarray
    unchanged: np.ndarray
    scale: float
    dtype: str

    @classmethod
    def of(
        cls, side: Side, question: str, found: Any, expected: Any, base: Sequence[Sequence[int]], dtype: str = ""
    ) -> Case:
        """With the scale of the metric: of the logits, and for a probability of their change of it, dp = p dlogit."""
        unchanged = np.array([side.read(i, side.plain.run(ids, [{}])[0]) for i, ids in enumerate(base)])
        ours, theirs = np.asarray(found, dtype=np.float64), np.asarray(expected)
        scale = side.largest_logit * (np.abs(theirs).max() if side.metric == "probability" else 1)
        dtype = dtype or str(side.model.dtype).removeprefix("torch.")
        return cls(f"{question} of {side.metric}", ours, theirs, unchanged, float(scale), dtype)


@dataclass
class Side:
    """Everything a question is asked of.

    Attributes:
        rng: of the case.
        model: interp's.
        plain: the oracle's.
        prompts: the prompts.
    """

    rng: np.random.Generator
    model: HookedTransformer
    plain: Plain
    prompts: Prompts

    def __post_init__(self) -> None:
        self.metric = str(self.rng.choice(list(METRICS), p=list(METRICS.values())))
        self.largest_logit = 0.0

    @property
    def n_layers(self) -> int:
        return len(self.plain.blocks)

    def choose(self, *options: Any) -> Any:
        """One of the options."""
        return options[self.rng.integers(len(options))]

    def read(self, prompt: int, logits: Tensor) -> float:
        """The metric, written out; NaN where a rank is decided by less than rounding."""
        row = logits[self.prompts.at[prompt]]
        right, wrong = row[self.prompts.right[prompt]], row[self.prompts.wrong[prompt]]
        self.largest_logit = max(self.largest_logit, float(row.abs().max()))
        if self.metric == "logit_difference":
            return float(right - wrong)
        if self.metric == "rank":
            others = torch.cat([row[: self.prompts.right[prompt]], row[self.prompts.right[prompt] + 1 :]])
            tie = float((others - right).abs().min()) <= 1e-3 * float(row.abs().max())
            return float("nan") if tie else float((others > right).sum())
        log_probability = float(right - row.logsumexp(dim=0))
        if self.metric == "log_probability":
            return log_probability
        assert self.metric == "probability", self.metric
        return float(np.exp(log_probability))


# ---- where a sweep changes ----


@dataclass(frozen=True)
class Cell:
    """One cell: its index in interp's result, and what it changes, written out.

    Attributes:
        index: dim -> label.
        layers: the layers it changes.
        heads: those of its heads; None is all of a site without heads.
        neurons: a range of neurons; None is all.
        tokens: per prompt, which positions.
    """

    index: dict[str, Any]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None
    neurons: slice | None
    tokens: list[list[int]]


def draw_cells(side: Side, site: str) -> tuple[dict[str, Any], list[Cell]]:
    """Random options of a sweep of a site, and random cells of it."""
    rng, prompts, options = side.rng, side.prompts, {}
    lengths = [len(ids) for ids in prompts.clean]
    ways = ["role", *(["position"] if prompts.aligned else []), *(["all"] if site in HEADS else [])]
    way = side.choose(*ways)
    places: list[tuple[dict[str, Any], list[list[int]]]]
    if way == "role":
        names = [name for name in prompts.roles if rng.integers(2)] or ["second"]
        options["roles"] = names
        places = [({"role": name}, [list(range(*span)) for span in prompts.roles[name]]) for name in names]
    elif way == "position":
        chosen = sorted(rng.choice(lengths[0], size=3, replace=False).tolist())
        options |= side.choose({"positions": chosen}, {"axis": "position"})
        shown = options.get("positions", range(lengths[0]))
        places = [({"position": int(p)}, [[int(p)]] * len(lengths)) for p in shown]
    else:
        assert way == "all", way
        places = [({}, [list(range(length)) for length in lengths])]
    n_heads, dim = side.plain.n_heads, "head"
    if site in ("k", "v"):
        n_heads = getattr(side.plain.hf.config, "num_key_value_heads", n_heads)
        dim = "kv_head" if n_heads != side.plain.n_heads else "head"
    if rng.integers(4) == 0:  # sets in place of layers
        members = (
            [(layer, head) for layer in range(side.n_layers) for head in range(n_heads)]
            if site in HEADS
            else [*range(side.n_layers)]
        )
        one = [members[i] for i in sorted(rng.choice(len(members), size=min(2, len(members)), replace=False).tolist())]
        # Where a set holds several layers with several heads, each layer has its own: the oracle takes one head each.
        if site in HEADS:
            one = list({layer: (layer, head) for layer, head in one}.values())
        options["sets"] = {"drawn": one}
        return options, [_of_set(one, index, tokens) for index, tokens in places]
    window = int(side.choose(1, 1, 3))
    options |= {"window": window}
    layers = sorted(rng.choice(side.n_layers, size=int(rng.integers(1, side.n_layers + 1)), replace=False).tolist())
    options |= side.choose({}, {"layers": layers})
    units: list[tuple[dict[str, Any], tuple[int, ...] | None, slice | None]] = [({}, None, None)]
    if site in HEADS:
        units = [({dim: head}, (head,), None) for head in range(n_heads)]
    elif site in NEURONS and rng.integers(2):
        options["neuron_groups"] = 4
        width = side.plain.activations(prompts.clean[0])[site, 0].shape[-1] // 4
        units = [
            ({"neuron_group": f"{i * width}-{(i + 1) * width - 1}"}, None, slice(i * width, (i + 1) * width))
            for i in range(4)
        ]
    cells = [
        Cell(
            {"layer": layer, **unit, **index},
            _window(side, layer, window), heads, neurons, tokens,
        )
        for layer in options.get("layers", range(side.n_layers))
        for unit, heads, neurons in units
        for index, tokens in places
    ]  # fmt: skip
    return options, [cells[i] for i in sorted(rng.choice(len(cells), size=min(CELLS, len(cells)), replace=False))]


def _window(side: Side, layer: int, window: int) -> tuple[int, ...]:
    """An odd number of layers with ``layer`` in the middle, cut off at the ends."""
    return tuple(one for one in range(layer - window // 2, layer + window // 2 + 1) if 0 <= one < side.n_layers)


def _of_set(members: Sequence[Any], index: dict[str, Any], tokens: list[list[int]]) -> Cell:
    layers = tuple(member[0] if isinstance(member, tuple) else member for member in members)
    heads = tuple(member[1] for member in members) if isinstance(members[0], tuple) else None
    return Cell({"set": "drawn", **index}, layers, heads, None, tokens)


def edits_of(side: Side, site: str, cell: Cell, prompt: int, new: Callable[[int], Tensor]) -> dict[Place, Edit]:
    """The changes of a cell in one prompt; ``new`` gives a layer's replacement, of the activation's shape."""

    def edit(order: int, layer: int) -> Edit:
        def change(now: Tensor) -> None:
            replacement, at = new(layer), cell.tokens[prompt]
            heads = None if cell.heads is None else cell.heads[order if len(cell.heads) > 1 else 0]
            if site == "pattern":
                now[heads, at] = replacement[heads, at]
            elif heads is not None:
                now[at, heads] = replacement[at, heads]
            elif cell.neurons is not None:
                now[at, cell.neurons] = replacement[at, cell.neurons]
            else:
                now[at] = replacement[at]

        return change

    return {(site, layer): edit(order, layer) for order, layer in enumerate(cell.layers)}


def answers(
    side: Side,
    found: xr.DataArray,
    cells: Sequence[Cell],
    base: Sequence[Sequence[int]],
    edits: Callable[[int, Cell], dict[Place, Edit]],
) -> tuple[list[np.ndarray], list[list[float]]]:
    """Both sides' numbers at the cells, [cell, prompt]."""
    rows = [side.plain.run(ids, [edits(i, cell) for cell in cells]) for i, ids in enumerate(base)]
    theirs = [[side.read(i, logits[c]) for i, logits in enumerate(rows)] for c in range(len(cells))]
    ours = [found.sel(cell.index).values for cell in cells]
    return ours, theirs


# ---- the questions ----


def ask(number: int, model: HookedTransformer, plain: Plain) -> Case:
    """The case of a number."""
    side = Side(np.random.default_rng([number, 1]), model, plain, prompts_of(number))
    kinds = [patch, patch, patch, ablate, project]
    if "pattern" in editable(side):
        kinds.append(cut)
    if model.blocks is not None:
        kinds.append(paths)
    return side.choose(*kinds)(side)


def prompts_of(number: int) -> Prompts:
    return draw_prompts(np.random.default_rng([number, 2]))


def editable(side: Side) -> list[str]:
    """The sites of this architecture."""
    config = side.plain.hf.config
    left_out = {"resid_mid"} if getattr(config, "use_parallel_residual", False) else set()
    if config.model_type == "opt":  # its attention is left to Hugging Face: patterns are read-only
        left_out.add("pattern")
    return [site for site in (*STREAMS, *HEADS) if site not in left_out]


def patch(side: Side) -> Case:
    """``sweep``."""
    site, direction = side.choose(*editable(side)), side.choose("denoising", "noising")
    options, cells = draw_cells(side, site)
    # Screening needs the model's own weights; a rank of rounded logits is another rank.
    screened = side.model.blocks is not None and side.metric != "rank" and side.model.dtype == torch.float32
    precision = side.choose("float32", "float32", *(["bfloat16"] if screened else []))
    prompts = side.prompts
    base, source = (
        (prompts.corrupted, prompts.clean) if direction == "denoising" else (prompts.clean, prompts.corrupted)
    )
    kept = [side.plain.activations(ids) for ids in source]
    found = sweep(side.model, prompts.pairs, site, direction, side.metric, precision=precision, **options)
    numbers = answers(
        side, found.patched, cells, base,
        lambda i, cell: edits_of(side, site, cell, i, lambda layer: kept[i][site, layer]),
    )  # fmt: skip
    least = precision if precision == "bfloat16" else ""
    return Case.of(side, f"sweep({site}, {direction}, {precision}, {options})", *numbers, base, least)


@dataclass(frozen=True)
class Read:
    """What a projection reads, written out.

    Attributes:
        side: of the question.
        site: what is read.
        layer: of it.
        head: one of its heads; None is all, or a site without.
        role: where.
    """

    side: Side
    site: str
    layer: int
    head: int | None
    role: str

    @classmethod
    def drawn(cls, side: Side, clean: dict[Place, Tensor]) -> Read:
        """Some activation that a patch can change."""
        site = side.choose(*(one for one in editable(side) if one != "pattern"))
        layer = max(int(side.rng.integers(side.n_layers)), int(site == "resid_pre"))
        heads = clean[site, 0].shape[1] if site in HEADS else 0
        head = side.choose(None, int(side.rng.integers(heads))) if heads else None
        return cls(side, site, layer, head, side.choose(*side.prompts.roles))

    @property
    def place(self) -> Place:
        """Where the oracle has it. The stream after a block is the one before the next: patches of both count."""
        if self.site not in ("resid_pre", "resid_post"):
            return self.site, self.layer
        before = self.layer + (self.site == "resid_post")
        return ("resid_pre", before) if before < self.side.n_layers else ("resid_post", before - 1)

    def of(self, prompt: int, values: Tensor) -> Tensor:
        """The role's activation, [row, number], of a whole one [row, position, ...]."""
        own = values[:, slice(*self.side.prompts.roles[self.role][prompt])]
        if self.head is not None:
            own = own[:, :, self.head]
        centred = self.side.plain.hf.config.model_type in ("gpt2", "gpt_neox", "opt")
        if (
            centred
            and self.side.model.numerics == "compatibility"
            and self.site in STREAMS
            and self.site not in NEURONS
        ):
            own = own - own.mean(dim=-1, keepdim=True)  # folding takes the mean out of what such models write
        return own.flatten(1)


def project(side: Side) -> Case:
    """``sweep`` of a projection: the share of an activation's own difference that is there after a patch."""
    prompts, direction, site = side.prompts, side.choose("denoising", "noising"), side.choose(*editable(side))
    clean, corrupted = ([side.plain.activations(ids) for ids in run] for run in (prompts.clean, prompts.corrupted))
    options, cells = draw_cells(side, site)
    read = Read.drawn(side, clean[0])
    settings = {"site": read.site, "layer": read.layer, "at": read.role, "head": read.head}
    base, source = (prompts.corrupted, clean) if direction == "denoising" else (prompts.clean, corrupted)
    found = sweep(side.model, prompts.pairs, site, direction, {"projection": settings}, **options).patched
    expected, scale = np.full((len(cells) + 1, len(base)), np.nan), 1.0
    for i, ids in enumerate(base):
        start, end = (read.of(i, run[i][read.place][None])[0] for run in (corrupted, clean))
        length = float((end - start).norm())
        if length < 1e-6:  # the role comes before all that differs
            continue
        edits = [edits_of(side, site, cell, i, lambda layer, i=i: source[i][site, layer]) for cell in cells]
        rows = read.of(i, side.plain.read(ids, [*edits, {}], read.place))
        expected[:, i] = (rows - start) @ (end - start) / length**2
        scale = max(scale, float(rows.abs().max()) / length, float(np.abs(expected[:, i]).max()))
    return Case(
        f"sweep({site}, {direction}, {options}) of projection {settings}",
        np.asarray([found.sel(cell.index).values for cell in cells], dtype=np.float64),
        expected[:-1], expected[-1], scale, str(side.model.dtype).removeprefix("torch."),
    )  # fmt: skip


def ablate(side: Side) -> Case:
    """``ablation_sweep``. Zeros of folded weights are no zeros of the saved model: only raw ones are asked for."""
    prompts, which = side.prompts, side.choose("clean", "corrupted")
    base = getattr(prompts, which)
    lengths = {len(ids) for ids in base}
    kinds = ["mean", "zero_raw"]
    if side.model.numerics == "raw":
        kinds.append("zero")
    if len(base) == 2 and len(lengths) == 1:  # the other prompt is the only one to resample from
        kinds.append("resample")
    kind = side.choose(*kinds)
    sites = editable(side)
    if kind == "zero_raw" or (kind == "mean" and len(lengths) > 1):  # neither is defined for patterns
        sites = [site for site in sites if site != "pattern"]
    site = side.choose(*sites)
    options, cells = draw_cells(side, site)
    kept = [side.plain.activations(ids) for ids in base]

    def new(i: int, layer: int) -> Tensor:
        own = kept[i][site, layer]
        if kind in ("zero", "zero_raw"):
            return torch.zeros_like(own)
        if kind == "resample":
            return kept[1 - i][site, layer]
        assert kind == "mean", kind
        every = [one[site, layer] for one in kept]
        if len(lengths) == 1:
            return torch.stack(every).mean(dim=0)
        return torch.cat(every).mean(dim=0).expand_as(own)

    found = ablation_sweep(side.model, prompts.pairs, site, kind, side.metric, which=which, **options)
    numbers = answers(
        side, found.ablated, cells, base,
        lambda i, cell: edits_of(side, site, cell, i, lambda layer: new(i, layer)),
    )  # fmt: skip
    return Case.of(side, f"ablation_sweep({site}, {kind}, {which}, {options})", *numbers, base)


def cut(side: Side) -> Case:
    """``knockout_sweep``."""
    prompts, which, by_head = side.prompts, side.choose("clean", "corrupted"), bool(side.rng.integers(2))
    window, base = int(side.choose(1, 3)), getattr(prompts, which)
    edge = "second<-first"
    dest, src = ([list(range(*span)) for span in prompts.roles[name]] for name in ("second", "first"))
    cells = []
    for layer in range(side.n_layers):
        layers = _window(side, layer, window)
        for head in range(side.plain.n_heads) if by_head else [None]:
            index = {"layer": layer, "edge": edge, **({} if head is None else {"head": head})}
            cells.append(Cell(index, layers, None if head is None else (head,), None, dest))

    def edits(i: int, cell: Cell) -> dict[Place, Edit]:
        def change(scores: Tensor) -> None:
            rows, columns = torch.tensor(dest[i])[:, None], torch.tensor(src[i])[None, :]
            for head in cell.heads or range(len(scores)):
                scores[head, rows, columns] = -torch.inf

        return {("scores", layer): change for layer in cell.layers}

    found = knockout_sweep(side.model, prompts.pairs, [edge], side.metric, which=which, window=window, by_head=by_head)
    numbers = answers(side, found.cut, cells, base, edits)
    return Case.of(side, f"knockout_sweep({edge}, {which}, window={window}, by_head={by_head})", *numbers, base)


def paths(side: Side) -> Case:
    """``path_patching``."""
    prompts, direction = side.prompts, side.choose("denoising", "noising")
    base, source = (
        (prompts.corrupted, prompts.clean) if direction == "denoising" else (prompts.clean, prompts.corrupted)
    )
    found = path_patching(side.model, prompts.pairs, direction=direction, metric=side.metric)
    known = np.isfinite(found.patched.values).all(axis=0)
    edges = np.argwhere(known)
    drawn = edges[np.sort(side.rng.choice(len(edges), size=min(CELLS, len(edges)), replace=False))]
    names = [(str(found.sender.values[s]), str(found.receiver.values[r])) for s, r in drawn]
    theirs = []
    for i, (ids, other) in enumerate(zip(base, source, strict=True)):
        here, there = side.plain.activations(ids), side.plain.activations(other)
        changes = [side.plain.written(sender, there) - side.plain.written(sender, here) for sender, _ in names]
        edits = [side.plain.path(here, change, reader) for change, (_, reader) in zip(changes, names, strict=True)]
        theirs.append([side.read(i, logits) for logits in side.plain.run(ids, edits)])
    ours = [found.patched.values[:, s, r] for s, r in drawn]
    return Case.of(side, f"path_patching({direction}) {names}", ours, np.array(theirs).T, base)
