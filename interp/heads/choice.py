"""Which two words are looked at, and which head, where the caller does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from interp.errors import InterpError, UnaskableError, whole_number
from interp.prompts.places import positions_of
from interp.prompts.template import ANSWER
from interp.run import capture

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.prompts.tokens import Prompts

Word: TypeAlias = str | int | None
"""A role (its last token) or a position (negative: from the end); None leaves it to the prompts and the model."""


@dataclass(frozen=True)
class End:
    """One end of an attention edge: what it was called, and its position in every clean prompt.

    >>> End("noun", np.array([2, 3])).span.tolist()
    [[2, 3], [3, 4]]
    """

    name: str
    positions: Int[np.ndarray, " prompt"]

    @property
    def span(self) -> Int[np.ndarray, "prompt 2"]:
        """As the span of a role."""
        return np.stack([self.positions, self.positions + 1], axis=1)


def end_of(prompts: Prompts, place: str | int) -> End:
    """A role's last token, or a position.

    Raises:
        InterpError: an unknown role, or a position outside a prompt.

    >>> from interp.prompts.tokens import Prompts
    >>> end_of(Prompts.from_ids([[5, 6, 7], [5, 6]]), -1).positions.tolist()
    [2, 1]
    """
    if isinstance(place, str):
        return End(place, prompts.role_positions(place))
    return End(str(place), positions_of(prompts, place))


def check_order(dest: End, src: End) -> None:
    """Refuse a word that would have to read what comes after it.

    Raises:
        UnaskableError: names the first such prompt.

    >>> check_order(End("noun", np.array([1])), End("color", np.array([2])))
    Traceback (most recent call last):
    interp.errors.UnaskableError: dest 'noun' is token 1 of prompt 0 and src 'color' is token 2: ...
    """
    before = dest.positions < src.positions
    if before.any():
        i = int(before.argmax())
        raise UnaskableError(
            f"dest '{dest.name}' is token {dest.positions[i]} of prompt {i} and src '{src.name}' is token "
            f"{src.positions[i]}: attention is causal, a word reads only itself and what comes before it. Choose "
            "a src that does not come after dest.",
            by=["dest", "src"],
        )


def ends(pairs: PromptPairs, dest: Word, src: Word) -> tuple[list[End], End]:
    """The words that may read, of which the model decides, and the word that is read.

    Args:
        pairs: prompts; the clean ones are looked at.
        dest: the reading word. None is every role among target, meeting places and readers of the vocabulary that is
            behind ``src``.
        src: the word that is read. None is the role that holds the correct answer in every prompt (the vocabulary's
            source, if it does, else the first); if none does, the source.

    Raises:
        UnaskableError: ``dest`` comes before ``src``, or no word is there to be read by default.
        InterpError: an unknown role, or a position outside a prompt.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> readers, read = ends(pairs, "answer", None)
    >>> [end.name for end in readers], read.name
    (['answer'], 'color')
    """
    read = end_of(pairs.clean, _default_src(pairs) if src is None else src)
    if dest is None:
        readers = [end_of(pairs.clean, role) for role in _readers(pairs)]
        possible = [end for end in readers if (end.positions > read.positions).all()] or readers[-1:]
    else:
        possible = [end_of(pairs.clean, dest)]
    for end in possible:
        check_order(end, read)
    return possible, read


def _readers(pairs: PromptPairs) -> list[str]:
    """The roles that may read by default, in the order of the vocabulary."""
    words = pairs.vocabulary
    named = (words.target or ANSWER, *(words.meeting or ()), *(words.readers or ()))
    return [role for role in dict.fromkeys(named) if role in pairs.roles]


def _default_src(pairs: PromptPairs) -> str:
    """The role that holds the answer in every prompt, the source before others; the source if none does."""
    source = pairs.vocabulary.source
    for role in pairs.roles if source is None else (source, *pairs.roles):
        spans = zip(pairs.clean.ids, pairs.clean.spans(role), pairs.correct, strict=True)
        if role != ANSWER and all(correct in ids[start:stop] for ids, (start, stop), correct in spans):
            return role
    if source is not None:
        return source
    raise UnaskableError(
        f"No role of these prompts holds the answer. Name the word that is read: src=, one of {', '.join(pairs.roles)}."
    )


def looking_most(
    model: HookedTransformer, pairs: PromptPairs, readers: Sequence[End], read: End, *, from_layer: int = 0
) -> End:
    """The word from which any one head of a layer, or of a later one, looks at the word that is read most.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> readers, read = ends(pairs, "answer", "color")
    >>> looking_most(model, pairs, readers, read).name
    'answer'
    """
    if len(readers) == 1:
        return readers[0]
    return max(readers, key=lambda end: mean_attention(model, pairs, end.positions, read.positions)[from_layer:].max())


def chosen_head(
    model: HookedTransformer,
    pairs: PromptPairs,
    layer: int | None,
    head: int | None,
    dest: End,
    src: End,
    *,
    from_layer: int = 0,
) -> tuple[int, int, str]:
    """Layer, head, and how they were chosen: the largest mean attention among those that are left open.

    Where the layer is left open, it is ``from_layer`` or a later one.

    Raises:
        InterpError: there is no such layer or head.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> (dest,), src = ends(pairs, "answer", "color")
    >>> chosen_head(model, pairs, 1, 0, dest, src)
    (1, 0, 'given')
    """
    sizes = {"layer": (layer, model.cfg.n_layers), "head": (head, model.cfg.n_heads)}
    for name, (given, size) in sizes.items():
        if given is not None and not 0 <= whole_number(given, name) < size:
            raise InterpError(f"There is no {name} {given}: {model.name} has {size} (0 to {size - 1}).")
    if layer is not None and head is not None:
        return layer, head, "given"
    layers = range(from_layer, model.cfg.n_layers) if layer is None else [layer]
    heads = range(model.cfg.n_heads) if head is None else [head]
    mean = mean_attention(model, pairs, dest.positions, src.positions)[np.ix_(list(layers), list(heads))]
    row, column = np.unravel_index(int(mean.argmax()), mean.shape)
    among = f" of layer {layer}" if layer is not None else f" with index {head}" if head is not None else ""
    words = (
        f"largest mean attention {dest.name}<-{src.name} over {len(pairs)} clean prompts, {mean[row, column]:.3f}, "
        f"among the {mean.size} heads{among}"
    )
    return layers[row], heads[column], words


def mean_attention(
    model: HookedTransformer,
    pairs: PromptPairs,
    dest: Int[np.ndarray, " prompt"],
    src: Int[np.ndarray, " prompt"],
) -> Float[np.ndarray, "layer head"]:
    """Mean over the clean prompts of the attention from one position to another, each given per prompt; in [0, 1].

    A word attends to itself and to what comes before it:

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> float(mean_attention(model, pairs, np.zeros(2, int), np.zeros(2, int)).min())
    1.0
    """
    places = pairs.clean.with_roles({"dest": End("dest", dest).span})
    rows = capture(model, places, ["pattern"], at=["dest"])["pattern"].isel(role=0)
    weights = rows.transpose("prompt", "src_position", "layer", "head").values
    mean: Float[np.ndarray, "layer head"] = weights[np.arange(len(pairs)), src].mean(axis=0, dtype=np.float64)
    return mean
