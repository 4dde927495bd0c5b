"""Who does the pieces that a plan falls into: this process, one after the other, or workers.

What a sweep, a probe, a circuit or a capture computes falls into independent *pieces*: batches of rows, places, batches
of prompts. Its *work* says what the pieces share, and what is done with one. A model carries the engine that is asked:
``HERE`` unless another one was chosen. Another one is ``interp.engines.ray``, which alone knows of Ray.

>>> from interp import HookedTransformer
>>> model = HookedTransformer.from_pretrained("mini")
>>> model.engine is HERE, model.on(HERE).engine is HERE
(True, True)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from interp.model import HookedTransformer

ENGINES = ("local", "ray")
"""What a run may be told: this process, or workers of Ray."""

Ready = TypeVar("Ready")
Piece = TypeVar("Piece")
Found = TypeVar("Found")
Taken = TypeVar("Taken", contravariant=True)
Made = TypeVar("Made", covariant=True)


class Work(Protocol[Ready, Taken, Made]):
    """Work that falls into pieces. It is a value that can be pickled, and holds no weights of the model.

    >>> class Doubles:
    ...     def ready(self, model):
    ...         return 2
    ...     def do(self, ready, piece):
    ...         return ready * piece
    >>> Doubles().do(Doubles().ready(None), 3)
    6
    """

    def ready(self, model: HookedTransformer) -> Ready:
        """What all pieces share, made where they are done: by each worker once."""
        ...

    def do(self, ready: Ready, piece: Taken) -> Made:
        """One piece. Whatever else was done before it, the outcome is the same."""
        ...


class Engine(Protocol):
    """Does pieces of work.

    >>> from interp import HookedTransformer
    >>> HookedTransformer.from_pretrained("mini").engine.described()["name"]
    'local'
    """

    def map(
        self,
        model: HookedTransformer,
        work: Work[Ready, Piece, Found],
        pieces: Sequence[Piece],
        *,
        here: Ready | None = None,
        bytes_each: int = 0,
    ) -> Iterator[tuple[Piece, Found]]:
        """Every piece with what was found, as they are finished.

        Args:
            model: the model that the work is about.
            work: what the pieces share, and what is done with one.
            pieces: the pieces; they may be done in any order.
            here: what ``work.ready`` would make here, where that is known already.
            bytes_each: memory that a worker takes for the work, about.
        """
        ...

    def described(self) -> Mapping[str, str | int]:
        """What a manifest says of it: its ``name``, and whatever tells how its numbers compare."""
        ...


class Here:
    """The pieces one after the other, in this process.

    >>> from interp import HookedTransformer
    >>> class Squares:
    ...     def ready(self, model):
    ...         return model.cfg.n_layers
    ...     def do(self, ready, piece):
    ...         return ready * piece**2
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> list(model.engine.map(model, Squares(), [1, 2, 3]))
    [(1, 4), (2, 16), (3, 36)]
    """

    def map(
        self,
        model: HookedTransformer,
        work: Work[Ready, Piece, Found],
        pieces: Sequence[Piece],
        *,
        here: Ready | None = None,
        bytes_each: int = 0,
    ) -> Iterator[tuple[Piece, Found]]:
        """Every piece with what was found, in order."""
        ready = work.ready(model) if here is None else here
        for piece in pieces:
            yield piece, work.do(ready, piece)

    def described(self) -> dict[str, str | int]:
        """This process, and its threads, on which rounding depends."""
        import torch

        return {"name": "local", "threads": torch.get_num_threads()}


HERE = Here()
"""The engine of a model for which no other was chosen."""
