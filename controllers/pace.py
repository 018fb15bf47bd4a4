"""The clock of the path: it runs slower than time where the arm must, so that nothing of the path is cut off.

A path that is too fast for a joint, for a person's speed setting or for safety is not clipped, which would leave it,
but travelled more slowly. Waypoints keep their order and their place; what is due later is due later still.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from reflexarc.controllers.kernels import turn_between
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

FALL_PER_S = 8.0
RISE_PER_S = 4.0
"""How fast the pace may fall and rise again, per second: a change of pace must not itself be a jerk."""
KEPT = 256
"""Ticks that can be looked up: 2.5 s at 100 Hz, longer than any request stays open."""


class Pace:
    """Maps the host's time to the path's."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self.reset()

    def reset(self) -> None:
        """Path time is host time again, at full pace."""
        self.speed = 1.0
        self._marks.clear()

    def advance(self, due_ns: int, wanted: float, *, standing: bool = False) -> int:
        """The path's time at `due_ns`, the next tick, with the pace on its way to `wanted` in 0..1.

        standing: nothing moves, so the pace may fall at once.
        """
        if not self._marks:
            self._marks.append((due_ns, due_ns))
            return due_ns
        host_ns, path_ns = self._marks[-1]
        passed_ns = max(due_ns - host_ns, 0)
        passed_s = passed_ns * 1e-9
        low = 0.0 if standing else self.speed - FALL_PER_S * passed_s
        high = self.speed + RISE_PER_S * passed_s
        self.speed = min(max(min(max(wanted, low), high), 0.0), 1.0)
        path_ns += round(passed_ns * self.speed)
        self._marks.append((due_ns, path_ns))
        return path_ns

    def path_ns(self, host_ns: int) -> int:
        """The path's time at a time of the host: looked up, or as it will be at the present pace."""
        if not self._marks:
            return host_ns
        last_host, last_path = self._marks[-1]
        if host_ns >= last_host:
            return last_path + round((host_ns - last_host) * self.speed)
        later = self._marks[-1]
        for mark in reversed(self._marks):
            if mark[0] <= host_ns:
                share = (host_ns - mark[0]) / (later[0] - mark[0])
                return mark[1] + round(share * (later[1] - mark[1]))
            later = mark
        return later[1] - (later[0] - host_ns)


@compiled
def kept_pace(rates: F64, velocity: F64, acceleration: F64, apart_s: float) -> float:
    """The pace at which the joints can do what the path asks for ahead, at the times `apart_s` s from one another.

    rates: (K, n) rad/s at those times at full pace. velocity, acceleration: (n,) of the joints at most. A time slowed
    by s divides speed by 1 / s and acceleration by 1 / s²; until a later one the pace may yet fall.
    """
    kept = 1.0
    for k in range(1, rates.shape[0]):
        over = 1.0
        for i in range(rates.shape[1]):
            bend = abs(rates[k, i] - rates[k - 1, i]) / (apart_s * acceleration[i])
            over = max(over, abs(rates[k, i]) / velocity[i], math.sqrt(bend))
        kept = min(kept, 1.0 / over + (k - 1) * FALL_PER_S * apart_s)
    return kept


@compiled
def eased_share(
    rates: F64,
    point: F64,
    quat: F64,
    velocity: F64,
    spin: F64,
    new_point: F64,
    new_quat: F64,
    new_velocity: F64,
    new_spin: F64,
    most: F64,
    acceleration: F64,
) -> float:
    """How much of the TCP's acceleration, (6,) `most`, keeps the joints within theirs (n,) from one sample to another.

    Along the way between the places, and along the change of velocity. rates: (n, 6) of the joints per m/s and rad/s of
    the TCP.
    """
    share, ways = 1.0, np.empty((2, 6))
    ways[0, :3], ways[0, 3:] = new_point - point, turn_between(new_quat, quat)
    ways[1, :3], ways[1, 3:] = new_velocity - velocity, new_spin - spin
    for way in ways:
        largest = 0.0
        for axis in range(6):
            largest = max(largest, abs(way[axis]) / most[axis])
        if largest == 0.0:
            continue
        for i in range(rates.shape[0]):
            change = 0.0
            for axis in range(6):
                change += rates[i, axis] * way[axis]
            share = min(share, acceleration[i] * largest / max(abs(change), 1e-300))
    return share
