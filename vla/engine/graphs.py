"""Passes recorded once as CUDA graphs and replayed: the processor then launches one thing instead of thousands.

On other devices a pass is simply run. A graph holds for one shape of its inputs; it is kept under a key that the caller
gives, which must tell everything else that the pass depends on (a start position, a number of tokens).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

KEPT = 8
"""Graphs kept of the most recent keys: prompts of different lengths have their own."""

WARM_UPS = 3
"""Runs before recording, so that libraries have chosen their kernels and made their workspaces."""

Pass = Callable[..., tuple[Tensor, ...]]


class _Recorded:
    """One graph, the inputs it reads and the outputs it writes."""

    def __init__(self, run: Pass, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(each.clone() for each in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                run(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = run(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for static, fresh in zip(self._inputs, inputs, strict=True):
            static.copy_(fresh)
        self._graph.replay()
        return tuple(each.clone() for each in self._outputs)


class Graphs:
    """Runs passes, by replay where the device can.

    enabled: False runs them as they are everywhere. compiled: passes go through `torch.compile` first, which fuses what
    lies between the large products; it takes a while at each new shape.
    """

    def __init__(self, *, enabled: bool = True, compiled: bool = False) -> None:
        self._enabled = enabled
        self._compiled = compiled
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._kernels: OrderedDict[Hashable, Pass] = OrderedDict()

    def clear(self) -> None:
        """Forget all: whoever's memory the graphs read or write has other memory now."""
        self._recorded.clear()
        self._kernels.clear()

    @torch.inference_mode()
    def run(self, key: Hashable, run: Pass, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `run(*inputs)` returns."""
        whole = (key, *((each.shape, each.dtype) for each in inputs))
        if self._compiled:
            run = self._kernel(whole, run)
        if not (self._enabled and inputs[0].is_cuda):
            return run(*inputs)
        if whole not in self._recorded:
            if len(self._recorded) >= KEPT:
                self._recorded.popitem(last=False)
            self._recorded[whole] = _Recorded(run, inputs)
        self._recorded.move_to_end(whole)
        return self._recorded[whole].replay(inputs)

    def _kernel(self, whole: Hashable, run: Pass) -> Pass:
        if whole not in self._kernels:
            if len(self._kernels) >= KEPT:
                self._kernels.popitem(last=False)
            self._kernels[whole] = torch.compile(run, dynamic=False)
        self._kernels.move_to_end(whole)
        return self._kernels[whole]
