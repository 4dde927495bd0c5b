"""How one attention head reads: the arithmetic of one destination word, and the patterns of the heads."""

from __future__ import annotations

import math

import numpy as np

from interp.report.blocks import Block, Figure, Notice, Panel, Prose, Script, Section, Steps
from interp.report.bundle import Bundle
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result, RunInputs
from interp.report.markup import figure_number, token
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table
from interp.report.verdict import Verdict, place
from interp.report.words import token_strip
from interp.sites import head_label

TOLERANCE = 1e-3
"""How far the weights' sum may be from 1, and the mix of values from z, before the page says so (float32)."""

CIRCUITSVIS_HEADS = 24
"""At most this many heads go to CircuitsVis, which draws one canvas per head."""

MIXED = 4
"""How many source words the mix of values names; the others are summed."""


def section(run: RunInputs, verdict: Verdict, bundle: Bundle | None) -> Section | None:
    """The lesson, or ``None`` when neither of its results is there."""
    lesson = run.get("attention_lesson")
    holder = next(
        (r for n in ("attention_patterns", "attention_lesson") if (r := run.get(n)) and r.has("pattern")), None
    )
    if lesson is None and holder is None:
        return None
    blocks: list[Block] = []
    named: tuple[int, int] | None = None
    if lesson is not None:
        blocks += _arithmetic(lesson)
        named = int(lesson.need_attr("layer")), int(lesson.need_attr("head"))
    if holder is not None:
        blocks += _patterns(holder, verdict, named, bundle)
    else:
        blocks.append(
            Notice("note", "No attention patterns", "This run has no variable 'pattern', so no pattern is drawn.")
        )
    lead = (
        "A word asks a question (its query q), every word before it offers a label (its key k) and something to hand over "
        "(its value v). How well question and label match decides how much is handed over."
    )
    return Section("lesson", "How one head reads", lead, blocks, "One head, by hand")


def _arithmetic(lesson: Result) -> list[Block]:
    tokens = lesson.labels("token")
    weight, dot, score, norm = (lesson.need(n, "src_position").values for n in ("weight", "dot", "score", "value_norm"))
    q, z = (lesson.need(name, "d_head").values for name in ("q", "z"))
    k, v = (lesson.need(name, "src_position", "d_head").values for name in ("k", "v"))
    layer, head, source = (int(lesson.need_attr(name)) for name in ("layer", "head", "src_of_interest"))
    destination = int(lesson.need_attr("dest_position"))
    if not 0 <= source < len(tokens):
        raise_range(lesson, source, len(tokens))
    name, d_head = head_label(layer, head), q.shape[0]
    dest_word, src_word = token(lesson.attr("dest_token")), token(lesson.attr("src_token") or tokens[source])
    total, error = float(np.nansum(weight)), float(np.max(np.abs(np.nansum(weight[:, None] * v, axis=0) - z)))
    root = math.sqrt(d_head)
    table = _table(tokens, dot, score, weight, norm, root)
    file, paper = lesson.file, lesson.attr("source")
    blocks: list[Block] = [
        Prose((f"Head {name}, at the word {dest_word}{_role(lesson, 'dest')}: which words does it read, and why {src_word}{_role(lesson, 'src')}?{_chosen(lesson)}",)),
        Figure(
            "lesson-strip", f"Where {name} looks from {dest_word}",
            f"The number under each token is the attention weight that {dest_word} gives it. {src_word} is outlined.",
            (Panel("", token_strip(tokens, [float(w) for w in weight], destination=destination, interest=source, label=f"Attention weights of {name} from {dest_word}"), wide=True),),
            (table,), legend=colour_legend(Scale.rising(0, 1, units="share", name="attention weight"), key="lesson-strip-l"), source=paper, file=file, open=True,
        ),
        _steps(name, dest_word, src_word, d_head, (float(dot[source]), float(score[source]), float(weight[source])), int(np.isfinite(score).sum()), error),
        Notice(
            "note" if abs(total - 1) <= TOLERANCE and weight.min() >= 0 and weight.max() <= 1 + TOLERANCE else "warn", "What a weight is",
            f"Attention weights lie between 0 and 1, and the weights of one destination word sum to 1 (here: {figure_number(total, 6)}). "
            "So a weight is a share, never negative, and not a correlation: it says where the head reads, not yet what that does to the answer.",
        ),
        _vectors(lesson, q, k[source], (name, dest_word, src_word), root),
        _mix(lesson, tokens, weight, v, z, name),
    ]  # fmt: skip
    if error > TOLERANCE * max(1.0, float(np.abs(z).max())):
        blocks.append(
            Notice("warn", "The mix does not add up", f"Σ weight · v and the model's z differ by {error:.2e}.")
        )
    return blocks


def _role(lesson: Result, end: str) -> str:
    role = lesson.attr(end)
    return f" ({role})" if role and not role.lstrip("-").isdigit() else ""


def _chosen(lesson: Result) -> str:
    reason = lesson.attr("chosen_by")
    return f" This head was chosen by: {reason}." if reason and reason != "given" else ""


def _steps(
    head: str, dest: str, src: str, d_head: int, numbers: tuple[float, float, float], count: int, error: float
) -> Steps:
    dot, score, weight = numbers
    root = math.sqrt(d_head)
    return Steps(
        f"From q·k to z, for {dest} reading {src}",
        (
            (
                "Match",
                f"q({dest}) · k({src}) = {figure_number(dot, 3)}",
                f"The sum of {d_head} products, one per dimension of the head (below).",
            ),
            (
                "Scale",
                f"{figure_number(dot, 3)} ÷ √d_k = {figure_number(dot, 3)} ÷ √{d_head} = {figure_number(score, 3)}",
                "Without this, heads with more dimensions would have larger scores and a sharper softmax for no other reason.",
            ),
            (
                "Share",
                f"softmax: e^{figure_number(score, 3)} ÷ Σ e^score = {figure_number(weight, 4)}",
                f"The sum runs over the {count} tokens that {dest} can read. The result is the attention weight.",
            ),
            (
                "Mix",
                f"z = {figure_number(weight, 4)} · v({src}) + … (Σ weight · v)",
                f"The values of all words, each times its weight, are added up: {head}'s z. Recomputed here, it differs from the model's by at most {error:.1e}.",
            ),
        ),
    )


def raise_range(lesson: Result, source: int, count: int) -> None:
    """Refuse a source position outside the prompt."""
    from interp.errors import InterpError

    raise InterpError(
        f"{lesson.file}: attribute 'src_of_interest' is {source}, outside the {count} tokens; run the study again."
    )


def _table(
    tokens: tuple[str, ...], dot: np.ndarray, score: np.ndarray, weight: np.ndarray, norm: np.ndarray, root: float
) -> Table:  # type: ignore[type-arg]
    columns = (
        Column("position"), Column("token"), Column("q·k", "", 4), Column(f"÷ √d_k = ÷ {figure_number(root, 3)}", "", 4),
        Column("softmax: weight", "share", 4), Column("|v|", "", 3), Column("weight · |v|", "", 4),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (i, token(text), float(dot[i]), float(score[i]), float(weight[i]), float(norm[i]), float(weight[i] * norm[i]))
        for i, text in enumerate(tokens)
    ]
    rows.append((None, "sum", None, None, float(np.nansum(weight)), None, float(np.nansum(weight * norm))))
    return Table("Q·K, scaling, softmax and values, token by token", columns, tuple(rows))


def _vectors(lesson: Result, q: np.ndarray, k: np.ndarray, names: tuple[str, str, str], root: float) -> Figure:  # type: ignore[type-arg]
    head, dest_word, src_word = names
    product = q * k
    columns = [str(i) for i in range(q.shape[0])]
    own = Scale.centred(float(np.abs(np.stack([q, k])).max()), units="activation", name="q and k")
    sums = Scale.centred(float(np.abs(product).max()), units="activation²", name="q × k")

    def strip(rows: np.ndarray, labels: list[str], scale: Scale, key: str) -> Panel:  # type: ignore[type-arg]
        grid = Grid(rows, labels, columns if len(columns) <= 32 else [c if int(c) % 8 == 0 else "" for c in columns], "", "dimension of the head (d_head)",
                    cells={(i, j): f"{labels[i]}, dimension {j}" for i in range(len(labels)) for j in range(len(columns))})  # fmt: skip
        drawn = heatmap(
            grid,
            scale,
            key=key,
            title=scale.name,
            description=f"{scale.name} by dimension",
            cell=(max(12.0, min(22.0, 640 / len(columns))), 22.0),
            annotate=False,
        )
        return Panel("", drawn, legend=colour_legend(scale, key=f"{key}-l"), wide=True)

    panels = (
        strip(np.stack([q, k]), [f"q {dest_word}", f"k {src_word}"], own, "lesson-qk"),
        strip(product[None], ["q × k"], sums, "lesson-product"),
    )
    rows = tuple((i, float(q[i]), float(k[i]), float(product[i])) for i in range(len(q)))
    table = Table(
        "q, k and their products",
        (
            Column("dimension"),
            Column(f"q({dest_word})", "", 4),
            Column(f"k({src_word})", "", 4),
            Column("q × k", "", 4),
        ),
        rows,
    )
    reading = (
        f"Dimension by dimension, q and k are multiplied; where both have the same sign the product is positive. The products sum to "
        f"{figure_number(float(product.sum()), 3)}; divided by {figure_number(root, 3)}, {figure_number(float(product.sum()) / root, 3)}."
    )
    return Figure(
        "lesson-vectors",
        f"q·k in {head}, dimension by dimension",
        reading,
        panels,
        (table,),
        source=lesson.attr("source"),
        file=lesson.file,
    )


def _mix(
    lesson: Result, tokens: tuple[str, ...], weight: np.ndarray, v: np.ndarray, z: np.ndarray, head: str
) -> Figure:  # type: ignore[type-arg]
    top = [int(i) for i in np.argsort(-np.nan_to_num(weight), kind="stable")[:MIXED]]
    rest = [i for i in range(len(tokens)) if i not in top]
    labels = [f"{figure_number(float(weight[i]), 2)} · v {token(tokens[i])}" for i in top] + ["all others", "sum = z"]
    others = np.nansum(weight[rest, None] * v[rest], axis=0) if rest else np.zeros_like(z)
    rows = np.stack([*(weight[i] * v[i] for i in top), others, z])
    columns = [str(i) for i in range(len(z))]
    scale = Scale.centred(float(np.abs(rows).max()), units="activation", name="share of z")
    grid = Grid(rows, labels, columns if len(columns) <= 32 else [c if int(c) % 8 == 0 else "" for c in columns], "", "dimension of the head (d_head)",
                cells={(i, j): f"{labels[i]}, dimension {j}" for i in range(len(labels)) for j in range(len(columns))})  # fmt: skip
    drawn = heatmap(grid, scale, key="lesson-mix-map", title="The mix of values", description="Weighted values by dimension and their sum",
                    cell=(max(12.0, min(22.0, 600 / len(columns))), 22.0), annotate=False)  # fmt: skip
    table = Table(
        "Weighted values by dimension", (Column("dimension"), *(Column(label, "", 4) for label in labels)),
        tuple((j, *(float(rows[i, j]) for i in range(len(labels)))) for j in range(len(z))),
    )  # fmt: skip
    return Figure("lesson-mix", f"What {head} carries away", "Each row is one word's value times its weight; the last row is their sum, the vector z that the head writes (through W_O) into the residual stream.",
                  (Panel("", drawn, legend=colour_legend(scale, key="lesson-mix-l"), wide=True),), (table,), source=lesson.attr("source"), file=lesson.file)  # fmt: skip


def _patterns(holder: Result, verdict: Verdict, named: tuple[int, int] | None, bundle: Bundle | None) -> list[Block]:
    pattern = holder.need("pattern", "layer", "head", "dest_position", "src_position").values
    tokens = [token(text) for text in holder.labels("token")]
    n_layers, n_heads = pattern.shape[:2]
    chosen = _choose(pattern, verdict, named)
    first = named if named is not None and named[0] < n_layers and named[1] < n_heads else chosen[0]
    blocks: list[Block] = [
        _one_pattern(holder, pattern[first], tokens, head_label(*first), 13.0 if bundle or len(tokens) > 40 else 18.0)
    ]
    if bundle is None:
        text = "The package circuitsvis is not installed where this page was made, so the interactive patterns of all heads are left out; the pattern above does not need it."
        return [*blocks, Notice("note", "No interactive patterns", text)]
    data = {
        "tokens": tokens,
        "attention": [[[round(float(w), 4) for w in row] for row in pattern[at]] for at in chosen],
        "attentionHeadNames": [head_label(*at) for at in chosen],
        "minValue": 0,
        "maxValue": 1,
        "positiveColor": "#1b5f98",
        "maskUpperTri": True,
    }
    count = n_layers * n_heads
    which = (
        f"all {count} heads"
        if len(chosen) == count
        else f"{len(chosen)} of {count} heads: those with a job in the verdict, the head above, then the most sharply focused ones"
    )
    reading = f"Interactive, drawn by CircuitsVis {bundle.version}: {which}. Rows read (destination), columns are read (source). Hover over a head to enlarge it, click to keep it, hover over a cell for its weight."
    blocks.append(Script("circuitsvis-attention", "The patterns of the heads", reading, data, "AttentionHeads"))
    return blocks


def _choose(pattern: np.ndarray, verdict: Verdict, named: tuple[int, int] | None) -> list[tuple[int, int]]:  # type: ignore[type-arg]
    n_layers, n_heads = pattern.shape[:2]
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    focus = np.nan_to_num(pattern).max(axis=-1).mean(axis=-1)
    wanted = [
        *([named] if named else []),
        *(place(h) for h, label in zip(verdict.heads, verdict.labels, strict=True) if label != "none"),
    ]
    ranked = [*wanted, *sorted(every, key=lambda at: (-float(focus[at]), at))]
    kept = [at for at in dict.fromkeys(ranked) if at[0] < n_layers and at[1] < n_heads][:CIRCUITSVIS_HEADS]
    first = [at for at in kept if at in wanted]
    return first + sorted(at for at in kept if at not in first)


def _one_pattern(holder: Result, weights: np.ndarray, tokens: list[str], name: str, side: float) -> Figure:  # type: ignore[type-arg]
    size = len(tokens)
    causal = np.where(np.tri(size, dtype=bool), weights, np.nan)
    scale = Scale.rising(0, 1, units="share", name="attention weight")
    cells = {(i, j): f"{name}: {tokens[i]} ({i}) reads {tokens[j]} ({j})" for i in range(size) for j in range(size)}
    grid = Grid(causal, tokens, tokens, "destination (reads)", "source (is read)", cells=cells)
    drawn = heatmap(
        grid,
        scale,
        key="lesson-pattern-map",
        title=f"Attention pattern of {name}",
        description="Attention weights from destination rows to source columns",
        cell=(side, side),
        annotate=False,
    )
    rows: list[tuple[Cell, ...]] = [
        (i, tokens[i], j, tokens[j], float(weights[i, j])) for i in range(size) for j in range(i + 1)
    ]
    table = Table(
        f"Attention weights of {name}",
        (
            Column("destination"),
            Column("destination token"),
            Column("source"),
            Column("source token"),
            Column("weight", "share", 4),
        ),
        tuple(rows),
    )
    return Figure("lesson-pattern", f"The whole pattern of {name}", "One row per reading word; each row sums to 1. The upper right is empty: a word cannot read what comes after it.",
                  (Panel("", drawn, wide=True),), (table,), legend=colour_legend(scale, key="lesson-pattern-l"), source=holder.attr("source"), file=holder.file)  # fmt: skip
