"""The engine of many workers: processes of Ray on this machine or on a cluster, each with the model.

The model is sent once. Its weights lie in Ray's object store, read-only; the workers of one machine map them, so that
they share one copy. Work is sent once to each worker, then a piece at a time. A worker that dies is replaced, and what
it had not finished is done again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import torch
from jaxtyping import UInt8
from threadpoolctl import threadpool_limits

from interp import __version__
from interp.engines import HERE, Found, Piece, Ready, Work
from interp.errors import InterpError, whole_number

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

AHEAD = 2
"""Pieces that a worker has at a time: the one that it does, and the next."""
DEATHS = 3
"""Workers that may die of one piece before the work is given up."""
STARTS = 3
"""How often a local Ray is started before it is given up."""
WORKER_BYTES = 600 * 2**20
"""What a worker takes beside the weights: Python with PyTorch, and what they load."""
MEMORY_SHARE = 0.8
"""Share of the free memory that workers may plan with."""
STORE_BYTES = 512 * 2**20
"""Of the object store, beside the weights: what pieces and what was found of them take on their way."""
ANSWERS_WITHIN = 10.0
"""Seconds in which a cluster's address has to answer."""
LONGEST_PLACE = 40
"""Characters of Ray's own directory: the path of a socket within it may have 107."""


@contextlib.contextmanager
def started(
    workers: int | None = None, address: str | None = None, *, note: Callable[[str], None] = log.warning
) -> Iterator[Workers]:
    """Workers for a model: ``model.on(workers)``. They end with the block, however it ends.

    A local Ray is started when there are first pieces to share out. It listens on the loopback address alone, has no
    dashboard and sends no statistics. Where this process has a Ray already, that is used and left running.

    Args:
        workers: how many; None is one per GPU, or where there is none one for every four cores, at least two.
        address: of a running cluster, as ``ray.init`` takes it; None starts a local Ray.
        note: is told in a line of fewer workers than were asked for, and of one that died.

    Raises:
        InterpError: Ray is not installed, not a number of workers, or no cluster at the address.

    >>> from interp.engines import ray
    >>> with ray.started(workers=2) as two:  # and then sweep(model.on(two), pairs, "z")
    ...     two.count
    2
    """
    if workers is not None:
        whole_number(workers, "workers", least=1)
    found = Workers(_ray(local=address is None), workers, address, note)
    try:
        with _computing_with(found.threads):
            if address is not None:
                found.join()
            yield found
    finally:
        found.stop()


def _ray(*, local: bool) -> ModuleType:
    """Ray, imported.

    Raises:
        InterpError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's authors
    if local:
        os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # where others use the machine, too
        os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
        os.environ.setdefault("RAY_worker_niceness", "0")  # how nice a run is, is its caller's to say
        if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:  # read when Ray is imported
            os.environ["RAY_AUTH_MODE"] = "token"  # else Ray writes a token into the user's home
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InterpError("The engine 'ray' needs a package. Install it: pip install 'interp[ray]'") from error
    return ray


@contextlib.contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """Within the block this process computes with as many threads as a worker, so that both round alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Processors that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """An engine (``interp.engines``): processes that have the model, each with its share of the cores, or with a GPU.

    Attributes:
        count: how many there are.
        threads: that each computes with, as this process does meanwhile.
        address: of the cluster; None is this machine alone.
        replaced: how many have died and were replaced.
    """

    def __init__(self, ray: ModuleType, workers: int | None, address: str | None, note: Callable[[str], None]) -> None:
        """Decide how many; nothing is started."""
        self.address, self.replaced = address, 0
        self.before = torch.get_num_threads()
        self.gpus = torch.cuda.device_count()
        self.count = workers or self.gpus or max(2, cores() // 4)
        self.threads = max(1, min(self.before, cores() // self.count))
        self._ray, self._note = ray, note
        self._joined = self._ours = False
        self._place: str | None = None
        self._crew: list[Any] = []
        self._model: tuple[HookedTransformer, Any] | None = None
        self._work: tuple[Any, Any, int] | None = None
        self._gpus_each = 0

    def described(self) -> dict[str, str | int]:
        """What a manifest says of it: who computed, and how its numbers compare with those of a local run."""
        # Each start measures which product is fastest (interp.model.products), and near ties fall either way.
        alike = (
            f"the bytes of a local run with {self.threads} threads that measured the same matrix products as fastest; "
            "otherwise equal but for rounding"
        )
        return {
            "name": "ray",
            "workers": self.count,
            "threads": self.threads,
            "workers_replaced": self.replaced,
            "numbers": alike if self.address is None else "equal to a local run's but for rounding",
        }

    def map(
        self,
        model: HookedTransformer,
        work: Work[Ready, Piece, Found],
        pieces: Sequence[Piece],
        *,
        here: Ready | None = None,
        bytes_each: int = 0,
    ) -> Iterator[tuple[Piece, Found]]:
        """Every piece with what was found, as they are finished; a single one is done here.

        Raises:
            InterpError: what the work raises; too little memory for a worker; or a piece that workers die of.
        """
        if len(pieces) < 2:
            yield from HERE.map(model, work, pieces, here=here)
            return
        self._begin(model)
        key, told = self._told(work)
        exceptions = self._ray.exceptions
        waiting, deaths = deque(range(len(pieces))), Counter[int]()
        crew = self._crew[: self._at_once(bytes_each)]
        queues: list[deque[tuple[Any, int]]] = [deque() for _ in crew]
        try:
            while waiting or any(queues):
                for slot, queue in enumerate(queues):
                    while waiting and len(queue) < AHEAD and len(queue) <= min(map(len, queues)):
                        index = waiting.popleft()
                        queue.append((self._crew[slot].do.remote(key, [told], pieces[index]), index))
                asked = {reference: slot for slot, queue in enumerate(queues) for reference, _ in queue}
                (done, *_), _ = self._ray.wait(list(asked))
                slot = asked[done]
                try:
                    found = self._ray.get(done)
                except exceptions.RayTaskError as error:
                    raise error.cause from (None if isinstance(error.cause, InterpError) else error)
                except exceptions.RayError as error:  # the worker, or its machine, is gone
                    _, culprit = queues[slot][0]
                    deaths[culprit] += 1
                    self._check_deaths(deaths[culprit], culprit, len(pieces), error)
                    waiting.extendleft(index for _, index in reversed(queues[slot]))
                    queues[slot].clear()
                    self._replace(slot)
                    continue
                index = next(index for reference, index in queues[slot] if reference == done)
                queues[slot] = deque((reference, i) for reference, i in queues[slot] if i != index)
                yield pieces[index], found
        finally:
            for queue in queues:
                for reference, _ in queue:
                    with contextlib.suppress(Exception):
                        self._ray.cancel(reference)

    # ---- starting and ending ----

    def join(self) -> None:
        """Connect to the cluster, or start Ray here.

        Raises:
            InterpError: there is no cluster at the address, or Ray does not start.
        """
        if self._joined:
            return
        if self._ray.is_initialized():
            self._joined = True
            return
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is not None:
            how["address"] = self.address
        else:
            self._place = _short_place()
            how |= {
                "address": "local",
                "num_cpus": self.count * self.threads,
                "num_gpus": self.gpus,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES + (0 if self._model is None else self._model[1].nbytes),
                "_temp_dir": self._place,
            }
        for attempt in range(STARTS, 0, -1):
            try:
                if self.address is not None:
                    _reach(self.address)
                with _own_signals(), _on_loopback() if self.address is None else contextlib.nullcontext():
                    self._ray.init(**how)
                break
            except Exception as error:  # whatever Ray raises
                if self.address is None and attempt > 1 and "timed out" in str(error):
                    continue  # it gives itself half a minute, which is short on a machine that others use
                where = "on this machine" if self.address is None else f"at {self.address}"
                said = " ".join(str(error).split())[:200]
                raise InterpError(
                    f"There is no Ray {where} that can be used ({type(error).__name__}: {said})."
                ) from error
        self._joined = self._ours = True

    def stop(self) -> None:
        """End the workers, and Ray if it was started or joined here."""
        if self._joined:
            for worker in self._crew:
                with contextlib.suppress(Exception):
                    self._ray.kill(worker)
        self._crew, self._model, self._work = [], None, None
        if self._ours:
            with _own_signals():
                self._ray.shutdown()
        self._joined = self._ours = False
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None

    def _begin(self, model: HookedTransformer) -> None:
        """Have workers that hold this model.

        Raises:
            InterpError: the model cannot be sent, or there is no memory for a worker.
        """
        if self._model is not None and self._model[0].bridge is model.bridge:
            return
        for worker in self._crew:
            self._ray.kill(worker)
        frozen = Frozen.of(model)
        self._crew, self._work, self._model = [], None, (model, frozen)
        self._gpus_each = int(model.device.type == "cuda")
        self._fit(frozen.nbytes)
        self.join()
        self._find_places()
        self._model = model, self._ray.put(frozen)
        self._crew = [self._hired() for _ in range(self.count)]

    def _find_places(self) -> None:
        """Use as many workers as there are processors for, or GPUs, and say so if they are fewer.

        Raises:
            InterpError: there are none for a single one.
        """
        there = self._ray.cluster_resources()
        fit = int(there.get("GPU", 0) if self._gpus_each else there.get("CPU", 0) // self.threads)
        what = "GPUs" if self._gpus_each else f"times {self.threads} processors"
        if fit < 1:
            raise InterpError(f"Ray has no {what} for a worker. Use another --device, fewer threads, or no engine.")
        if fit < self.count:
            self._note(f"{fit} of {self.count} workers: Ray has {fit} {what}")
            self.count = fit

    def _hired(self) -> Any:
        """A new worker, which loads the model."""
        assert self._model is not None
        worker = (
            self._ray.remote(_Worker)
            .options(num_cpus=self.threads, num_gpus=self._gpus_each, scheduling_strategy="SPREAD")
            .remote(self.threads, __version__)
        )
        worker.load.remote([self._model[1]])
        return worker

    def _replace(self, slot: int) -> None:
        self.replaced += 1
        self._note("a worker died; another one takes its place and its batches")
        with contextlib.suppress(Exception):
            self._ray.kill(self._crew[slot])
        self._crew[slot] = self._hired()

    def _check_deaths(self, n: int, index: int, pieces: int, error: Exception) -> None:
        if n < DEATHS:
            return
        said = " ".join(str(error).split())[:200]
        raise InterpError(
            f"Batch {index + 1} of {pieces} ended {n} workers one after the other, so it is given up. If memory ran "
            f"out, use fewer workers or fewer prompts. The last one: {said}"
        ) from error

    # ---- memory ----

    def _fit(self, weights: int) -> None:
        """Use as many workers as this machine has memory for, and say so if they are fewer.

        Raises:
            InterpError: there is none for a single one.
        """
        free = self._free()
        if free is None:
            return
        room = MEMORY_SHARE * free - weights  # which they share
        if room < WORKER_BYTES:
            raise InterpError(
                f"A worker takes about {WORKER_BYTES / 2**30:.1f} GiB beside {weights / 2**30:.1f} GiB of weights, and "
                f"{free / 2**30:.1f} GiB is free. Free some, or run without an engine."
            )
        fit = int(room // WORKER_BYTES)
        if fit < self.count:
            self._note(
                f"{fit} of {self.count} workers: {free / 2**30:.1f} GiB is free, and each takes about "
                f"{WORKER_BYTES / 2**30:.1f} GiB beside the weights, which they share"
            )
            self.count = fit

    def _at_once(self, each: int) -> int:
        """How many workers there is memory for when each takes so much for its work."""
        free = self._free()
        if free is None or not each:
            return self.count
        fit = max(1, min(self.count, int(MEMORY_SHARE * free // each)))
        if fit < self.count:
            self._note(
                f"{fit} of {self.count} workers at a time: the work takes {each / 2**30:.1f} GiB of each, and "
                f"{free / 2**30:.1f} GiB is free"
            )
        return fit

    def _free(self) -> int | None:
        """Bytes that are free on this machine; None where workers are elsewhere, or the work is on GPUs."""
        from interp.run import free_memory

        return None if self.address is not None or self._gpus_each else free_memory()

    # ---- work ----

    def _told(self, work: Any) -> tuple[int, Any]:
        """The number of a work, and where it lies for the workers. The last one is sent once only."""
        if self._work is not None and self._work[0] is work:
            return self._work[2], self._work[1]
        assert self._model is not None
        number = 0 if self._work is None else self._work[2] + 1
        if self._work is not None:  # its runs are let go before memory is counted
            for worker in self._crew:
                worker.forget.remote()
        told = self._ray.put(_without_model(work, self._model[0]))
        self._work = work, told, number
        return number, told


class _Worker:
    """A process of the engine."""

    def __init__(self, threads: int, version: str) -> None:
        if version != __version__:
            raise InterpError(f"A worker has interp {__version__}, not {version}. Install the same everywhere.")
        torch.set_num_threads(threads)
        self.limits = threadpool_limits(threads)
        self.model: HookedTransformer | None = None
        self.failed: Exception | None = None
        self.work: Any = None
        self.ready: Any = None
        self.number = -1

    def load(self, boxed: list[Any]) -> None:
        """Have the model."""
        import ray

        try:
            self.model = ray.get(boxed[0]).thawed()
        except Exception as error:  # whatever the model's parts or the device raise: told with the first piece
            self.failed = error

    def do(self, number: int, boxed: list[Any], piece: Any) -> Any:
        """One piece of a work, of which what its pieces share is kept until another work comes."""
        import ray

        if self.failed is not None:
            raise self.failed
        assert self.model is not None
        if number != self.number:
            self.forget()
            self.work = _WithModel(io.BytesIO(ray.get(boxed[0])), self.model).load()
            self.ready = self.work.ready(self.model)
            self.number = number
        return self.work.do(self.ready, piece)

    def forget(self) -> None:
        """Let go of what the last work shared."""
        self.work, self.ready, self.number = None, None, -1


# ---- sending a model, and work that speaks of it ----


class Frozen:
    """A model as bytes and arrays. Ray keeps the arrays where all workers of a machine can map them.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> Frozen.of(model).thawed().weights_sha256 == model.weights_sha256
    True
    """

    def __init__(self, content: bytes, arrays: list[UInt8[np.ndarray, " byte"]]) -> None:
        """Hold what ``of`` made."""
        self.content, self.arrays = content, arrays

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return len(self.content) + sum(array.nbytes for array in self.arrays)

    @classmethod
    def of(cls, model: HookedTransformer) -> Frozen:
        """A model, with the ways of its matrix products that were chosen here.

        Raises:
            InterpError: it holds something that cannot be sent.
        """
        file = io.BytesIO()
        pickler = _Freezing(file)
        try:
            pickler.dump(model.settled())
        except Exception as error:  # whatever a part of a model raises
            said = " ".join(str(error).split())[:200]
            raise InterpError(f"{model.name} cannot be sent to workers ({type(error).__name__}: {said}).") from error
        return cls(file.getvalue(), pickler.arrays)

    def thawed(self) -> HookedTransformer:
        """The model. Its weights are the arrays, not copies, and must not be written to."""
        model: HookedTransformer = _Thawing(self.content, self.arrays).load()
        return model


class _Freezing(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles tensors as references to the memory that they lie in, each once."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.arrays: list[np.ndarray] = []
        self._at: dict[tuple[int, int, str], int] = {}

    def persistent_id(self, item: object) -> object:
        if not isinstance(item, torch.storage.TypedStorage | torch.UntypedStorage):
            return None
        dtype = item.dtype if isinstance(item, torch.storage.TypedStorage) else None
        memory = item._untyped_storage if isinstance(item, torch.storage.TypedStorage) else item
        key = memory.data_ptr(), memory.nbytes(), str(memory.device)
        if key not in self._at:
            self._at[key] = len(self.arrays)
            self.arrays.append(torch.empty(0, dtype=torch.uint8).set_(memory.cpu()).numpy())  # type: ignore[no-untyped-call]
        return self._at[key], dtype, str(memory.device)

    def reducer_override(self, item: object) -> object:
        """What holds a context variable, which has no bytes, goes by the name that it has in its module.

        Transformers leaves such a thing in a model that was once asked for hidden states or attention weights.
        """
        if not isinstance(item, type) and any(
            isinstance(v, ContextVar) for v in getattr(item, "__dict__", {}).values()
        ):
            home = sys.modules[type(item).__module__]
            name = next((name for name, value in vars(home).items() if value is item), None)
            if name is not None:
                return getattr, (home, name)
        return super().reducer_override(item)


class _Thawing(pickle.Unpickler):
    """Reads what ``_Freezing`` wrote."""

    def __init__(self, content: bytes, arrays: Sequence[np.ndarray]) -> None:
        super().__init__(io.BytesIO(content))
        self.arrays = arrays
        self._memory: dict[int, torch.UntypedStorage] = {}

    def persistent_load(self, name: Any) -> object:
        index, dtype, device = name
        if index not in self._memory:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the memory cannot be written to, and is not
                array = self.arrays[index]
                tensor = torch.from_numpy(array) if array.size else torch.empty(0, dtype=torch.uint8)
                self._memory[index] = tensor.to("cuda" if device.startswith("cuda") else device).untyped_storage()
        memory = self._memory[index]
        if dtype is None:
            return memory
        return torch.storage.TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _without_model(work: object, model: HookedTransformer) -> bytes:
    """Work as bytes, in which the model is only named."""
    file = io.BytesIO()
    _Naming(file, model).dump(work)
    return file.getvalue()


class _Naming(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, model: HookedTransformer) -> None:
        super().__init__(file, protocol=5)
        self.model = model

    def persistent_id(self, item: object) -> object:
        return "model" if getattr(type(item), "own_blocks", None) and item.bridge is self.model.bridge else None  # type: ignore[attr-defined]


class _WithModel(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, model: HookedTransformer) -> None:
        super().__init__(file)
        self.model = model

    def persistent_load(self, name: object) -> object:
        return self.model


# ---- this process ----


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Signals are handled as before the block: Ray puts a handler of its own in place, for which SIGTERM is an exit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    exited = False
    try:
        yield
    except SystemExit:  # of Ray's handler, which has ended Ray's processes
        exited = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if exited:
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Within the block a Ray that starts listens on the loopback address alone, as it does on macOS and Windows.

    Ray puts the machine's own address in place of any loopback address that it is given, so this switch is what is left
    (a test looks at what is listened on).
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _reach(address: str) -> None:
    """Ask whether anything listens at ``HOST:PORT``: Ray itself can go on asking for many minutes.

    Raises:
        OSError: nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():  # not "auto", say, which Ray looks up
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()


def _short_place() -> str | None:
    """A directory of its own for Ray; None, which is Ray's usual one, where its path would be too long for sockets."""
    place = tempfile.mkdtemp(prefix="ray-")
    if len(place) <= LONGEST_PLACE:
        return place
    os.rmdir(place)
    return None
