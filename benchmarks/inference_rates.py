"""Timing for `inference.py`: variants in turns, what the machine could do at best, memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from rich.progress import track
from torch import Tensor, nn

Answer = Callable[[], Tensor]
"""One observation in, actions on the processor out."""

WARM_UPS = 3


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def measure(runs: dict[str, Answer], count: int) -> dict[str, list[float]]:
    """Milliseconds of each answer, the variants in turns so that what else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name in track(runs, "warming up", transient=True):
        for _ in range(WARM_UPS):
            runs[name]()
    for _ in track(range(count), "timing", transient=True):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) * 1e3)
    return times


@torch.inference_mode()
def memory_gb(runs: dict[str, Answer], device: torch.device) -> dict[str, float]:
    """The most memory that was allocated during an answer of each, weights of all variants included, GB.

    On a processor only the whole process's peak is known.
    """
    if device.type != "cuda":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e-6
        return {"whole process": peak}
    found = {}
    for name, run in runs.items():
        torch.cuda.reset_peak_memory_stats()
        run()
        wait(device)
        found[name] = torch.cuda.max_memory_allocated() * 1e-9
    return found


@torch.inference_mode()
def rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second that a copy reads and writes together, and operations a second of a large product."""
    cuda = device.type == "cuda"
    block = torch.zeros((1024 if cuda else 32) * 2**20, dtype=torch.uint8, device=device)
    other = torch.empty_like(block)
    copy_s = best(lambda: other.copy_(block), device)
    side = 8192 if cuda else 768
    square = torch.randn(side, side, device=device, dtype=dtype)
    product_s = best(lambda: square @ square, device)
    return 2 * block.numel() / copy_s, 2 * side**3 / product_s


def best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of ten."""
    times = []
    for _ in range(10):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


def stage_ms(
    passes: Mapping[str, Callable[[], object]], device: torch.device, count: int
) -> dict[str, float]:
    """Milliseconds of each of an answer's passes in their order, each waited for (median of `count`)."""
    rows: dict[str, list[float]] = {name: [] for name in passes}
    with torch.inference_mode():
        for _ in range(count):
            for name, run in passes.items():
                began = time.perf_counter()
                run()
                wait(device)
                rows[name].append((time.perf_counter() - began) * 1e3)
    return {name: sorted(row)[len(row) // 2] for name, row in rows.items()}


def numbers(modules: Iterable[nn.Module]) -> int:
    """Parameters of all of them."""
    return sum(each.numel() for module in modules for each in module.parameters())
