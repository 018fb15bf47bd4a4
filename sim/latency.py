"""The policy's latency as simulated time: a constant, or drawn by seed from a recorded distribution.

It is never measured live, so that the same run gives the same result on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reflexarc.configs.errors import SimulationError


class Latency:
    """Draws one latency for each answer of a policy."""

    def __init__(self, samples_s: Sequence[float]) -> None:
        """`samples_s`: at least one latency in seconds, each in [0, 10]."""
        samples = np.asarray(samples_s, dtype=np.float64)
        if samples.size == 0 or not np.all((samples >= 0) & (samples <= 10)):
            raise SimulationError(f"latency samples must be 1 or more numbers in [0, 10] s; got {samples_s}")
        self._samples_ns = np.round(samples * 1e9).astype(np.int64)
        self._generator = np.random.default_rng(0)

    @staticmethod
    def parse(text: str) -> Latency:
        """`0.05` (seconds), or the path of a text file with one latency in seconds on each line."""
        try:
            return Latency([float(text)])
        except ValueError:
            pass
        path = Path(text)
        if not path.is_file():
            raise SimulationError(f"latency {text!r} is neither a number of seconds nor a file of them")
        try:
            return Latency([float(line) for line in path.read_text().split()])
        except ValueError as error:
            raise SimulationError(f"latency file {path}: {error}") from error

    def reseed(self, seed: int) -> None:
        """Start the sequence of an episode."""
        self._generator = np.random.default_rng([0x1A7, seed])

    def draw_ns(self) -> int:
        """The latency of the next answer, ns."""
        return int(self._generator.choice(self._samples_ns))
