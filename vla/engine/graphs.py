"""Passes recorded as CUDA graphs and replayed: the processor then launches one thing instead of thousands.

On other devices a pass is simply run. A graph holds for one shape of its inputs; it is kept under a key that the caller
gives, which must tell everything else that the pass depends on (a start position, a number of tokens). Of each key and
shape the first pass is run as it is, and only one that comes again is compiled, then recorded: what is asked once, or
so rarely that it is forgotten meanwhile, costs nothing beside its answer.

Other threads may use the device meanwhile, as a server does that answers while it loads another model. They disturb no
recording as long as they don't wait for the whole device. Random numbers can't be drawn on it during one: torch raises.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

KEPT = 64
"""Keys remembered, the most recent ones: 16 lengths of prompts, each of 1, 2, 4 and 8 robots. Graphs share the memory
that their passes need, so that one more costs its inputs and outputs: OpenVLA's 300 embeddings of 8 kB a robot."""

Pass = Callable[..., tuple[Tensor, ...]]

_ALONE = threading.Lock()
"""Held by the one thread of the process that records a graph or compiles a pass. torch records one at a time, and
compiling tries kernels out and waits for the whole device, which would break a recording."""


class Recording(Protocol):
    """A pass of which only the inputs change from now on."""

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the pass returns for these inputs."""
        ...


class Recorder(Protocol):
    """Makes a recording. beside: another one of the same `Graphs`, never replayed at the same time; None: the first."""

    def __call__(self, run: Pass, inputs: tuple[Tensor, ...], beside: Any, /) -> Recording: ...


class CudaGraph:
    """One graph, the inputs it reads and the outputs it writes. beside: a graph whose memory it may use too."""

    def __init__(self, run: Pass, inputs: tuple[Tensor, ...], beside: CudaGraph | None) -> None:
        self._inputs = tuple(each.clone() for each in inputs)
        # Libraries keep handles and workspaces by thread and stream, and must not make them while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        pool = None if beside is None else beside._graph.pool()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = run(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Recording`. The outputs are copies: another graph may write into this one's."""
        for static, fresh in zip(self._inputs, inputs, strict=True):
            static.copy_(fresh)
        self._graph.replay()
        return tuple(each.clone() for each in self._outputs)


@dataclasses.dataclass(slots=True)
class _Kept:
    """Of one key: whether it came before, and what was made of its pass."""

    used: bool = False
    kernel: Pass | None = None
    recording: Recording | None = None


class Graphs:
    """Runs passes, by replay where the device can.

    enabled: False runs them as they are everywhere. compiled: passes go through `torch.compile` first, which fuses what
    lies between the large products; it takes minutes at the second use of each new shape. recorder: in place of CUDA
    graphs, on any device.
    """

    def __init__(
        self, *, enabled: bool = True, compiled: bool = False, recorder: Recorder | None = None
    ) -> None:
        self._enabled = enabled
        self._compiled = compiled
        self._recorder = recorder
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def until_ready(self, *, cuda: bool) -> int:
        """Uses of a key until its pass has its last form; cuda: whether its inputs are on a GPU."""
        return 1 + self._compiled + (self._enabled and cuda)

    def clear(self) -> None:
        """Forget all: whoever's memory the graphs read or write has other memory now."""
        self._kept.clear()

    @torch.inference_mode()
    def run(self, key: Hashable, run: Pass, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `run(*inputs)` returns."""
        recorder = self._recorder or (CudaGraph if inputs[0].is_cuda else None)
        if not self._enabled:
            recorder = None
        if recorder is None and not self._compiled:
            return run(*inputs)
        kept = self._of((key, *((each.shape, each.dtype) for each in inputs)))
        if kept.recording is not None:
            return kept.recording.replay(inputs)
        if not kept.used:
            kept.used = True
            return run(*inputs)
        if self._compiled and kept.kernel is None:
            with _ALONE:
                kept.kernel = _compiled(run)
                return kept.kernel(*inputs)
        run = kept.kernel or run
        # While another thread records or compiles, nobody waits for it: the next use may record.
        if recorder is None or not _ALONE.acquire(blocking=False):
            return run(*inputs)
        try:
            beside: Any = next((each.recording for each in self._kept.values() if each.recording), None)
            kept.recording = recorder(run, inputs, beside)
        finally:
            _ALONE.release()
        return kept.recording.replay(inputs)

    def _of(self, whole: Hashable) -> _Kept:
        if whole not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[whole] = _Kept()
        self._kept.move_to_end(whole)
        return self._kept[whole]


def _compiled(run: Pass) -> Pass:
    """torch compiles a code object for eight shapes and runs all others uncompiled, so each pass has one of its own."""

    def alone(*inputs: Tensor) -> tuple[Tensor, ...]:
        return run(*inputs)

    alone.__code__ = alone.__code__.replace()
    return torch.compile(alone, dynamic=False)
