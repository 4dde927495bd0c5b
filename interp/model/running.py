"""How a model runs: where, in evaluation mode, in one data type throughout, its blocks on arguments that are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interp.errors import InterpError

Path: TypeAlias = tuple[Any, ...]
"""Where a tensor is in a nest of tuples, lists and mappings."""


def resolve_device(device: str) -> torch.device:
    """``"auto"`` to CUDA where there is one, else CPU; anything else is checked to exist.

    Raises:
        InterpError: an unknown device or one that this machine lacks.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InterpError(f"Unknown device '{device}'. Use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"Device '{device}' was asked for, but torch sees no CUDA GPU. Use device='cpu'.")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise InterpError("Device 'mps' was asked for, but torch sees no Apple GPU. Use device='cpu'.")
    if place.type not in ("cpu", "cuda", "mps"):
        raise InterpError(f"Device '{device}' is not supported. Use 'auto', 'cpu', 'cuda' or 'mps'.")
    return place


class _Double(TorchFunctionMode):
    """What asks for float32 gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one function of PyTorch."""
        wanted = torch.Tensor.double if func is torch.Tensor.float else func
        return wanted(*map(_doubled, args), **{name: _doubled(value) for name, value in (kwargs or {}).items()})


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def in_one_dtype(dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Within it a float64 model computes in float64 throughout; other data types are left as they are.

    Models compute norms, softmaxes and rotary angles in float32 whatever their weights are: an improvement in half
    precision, a loss in double. It holds for this thread and ends with the ``with``; nothing is patched.
    """
    return _Double() if dtype == torch.float64 else contextlib.nullcontext()


@contextlib.contextmanager
def in_evaluation(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Without dropout, whatever mode each module is in; each is back in its own mode afterwards."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True)
class BlockCall:
    """What the blocks of one model are called with besides the residual stream, for prompts of one length.

    Masks and rotary angles of one row. Most broadcast over any number of rows, since prompts are padded on the right
    and no padding mask is needed; those that do not (ALiBi's biases) are repeated. This is what lets a run be resumed
    at any block.

    Attributes:
        length: tokens of a prompt.
        args: of each block, in order.
        kwargs: of each block.
        per_row: places (block, then in its ``(args, kwargs)``) of the tensors that hold as much again per further row.
    """

    length: int
    args: tuple[tuple[Any, ...], ...]
    kwargs: tuple[Mapping[str, Any], ...]
    per_row: frozenset[Path]

    def of(self, layer: int, n_rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of a block for so many rows."""

        def repeated(path: Path, value: Tensor) -> Tensor:
            if path not in self.per_row:
                return value
            if len(value) == 1:
                return value.expand(n_rows, *value.shape[1:])
            return value.repeat(n_rows, *(1,) * (value.ndim - 1))

        args, kwargs = mapped((self.args[layer], dict(self.kwargs[layer])), repeated, (layer,))
        return args, kwargs


def mapped(nest: Any, change: Callable[[Path, Tensor], Any], path: Path = ()) -> Any:
    """The same nest of tuples, lists and mappings with every tensor changed; what is neither stays as it is."""
    if isinstance(nest, Tensor):
        return change(path, nest)
    if isinstance(nest, tuple | list):
        return type(nest)([mapped(item, change, (*path, index)) for index, item in enumerate(nest)])
    if isinstance(nest, dict):
        return {name: mapped(item, change, (*path, name)) for name, item in nest.items()}
    return nest


def per_row(one: Any, two: Any) -> frozenset[Path]:
    """Places of the tensors that are twice as long for two rows as for one."""
    lengths: dict[Path, int] = {}

    def measure(path: Path, value: Tensor) -> None:
        lengths[path] = len(value) if value.ndim else 0

    mapped(one, measure)
    single = dict(lengths)
    mapped(two, measure)
    return frozenset(path for path, length in single.items() if length and lengths.get(path) == 2 * length)
