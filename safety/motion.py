"""One tick of commanded motion: propose a velocity towards the target, limit it, accept it or go on stopping.

A velocity is *accepted* only if moving at it for one tick and stopping from there stays within every limit: joint
velocity and position, TCP speed and the workspace box. Its acceleration is legal, as is that of anything between
it and the stop. The stop of the last accepted state is always a way out, so by induction from a legal start no
limit is ever left, whatever the target is. How the proposal was made has no part in that.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.safety.braking import (
    approach_factor,
    peak_speed,
    stop_ticks,
    stop_time,
    stop_velocity,
)
from reflexarc.safety.kinematics import TcpView
from reflexarc.safety.limits import Limits
from reflexarc.wire.messages import F64, Intervention

# A limit exceeded by less than this fraction is enforced but not reported: it is rounding, not a decision.
REPORT_FRACTION = 1e-4
# rad, rad/s, m/s: far below the margin that `limits` keeps, far above the rounding of one tick.
ROUNDING = 1e-12
# Halvings between the stop and a refused proposal. 2^-6 of the step in velocity is lost at worst.
BISECTIONS = 6
# m²/rad²: keeps the correction of joint rates at a wall finite where the arm is singular.
SINGULAR_DAMPING = 1e-5


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where the arm should be at this tick, (n,) rad, and how it moves there, (n,) rad/s."""

    position: F64
    velocity: F64


@dataclasses.dataclass(frozen=True, slots=True)
class Path:
    """One tick at a velocity and the stop that follows, as a straight joint-space line.

    velocity: (n,) rad/s. ticks, time: see `braking`. rate: (3,) m/s of the TCP at the start. bend: m/s².
    """

    velocity: F64
    ticks: float
    time: float
    rate: F64
    bend: float


class Motion:
    """Limits motion for one robot. Stateless; `bend` is `Kinematics.bend`."""

    def __init__(self, limits: Limits, bend: F64) -> None:
        self._limits = limits
        self._bend = bend

    def step(
        self, position: F64, velocity: F64, view: TcpView, target: Target, scale: float
    ) -> tuple[F64, list[Intervention]]:
        """Velocity (n,) of the next tick, and what had to be limited.

        position, velocity: (n,) the commanded state. view: the TCP at `position`. scale: 1, or less to go slower.
        """
        found: list[Intervention] = []
        wanted = self._limit_velocity(self._approach(position, target), scale, found)
        path = self._limit_tcp_speed(self._path(wanted, view), view, scale, found)
        path = self._keep_in_range(position, path, view, found)
        path = self._keep_in_box(path, view, found)
        path = self._limit_acceleration(velocity, path, view, found)
        return self._accept(position, velocity, path, view, found), found

    def stop(self, velocity: F64) -> F64:
        """Velocity (n,) of the next tick of the stop from `velocity`."""
        return stop_velocity(velocity, self._limits.acceleration_step)

    def _approach(self, position: F64, target: Target) -> F64:
        """The velocity that reaches the moving target at once if near, else as fast as can be braked."""
        limits = self._limits
        error = target.position - position - target.velocity * limits.dt
        steps = float((np.abs(error) / limits.acceleration_step).max()) / limits.dt
        return target.velocity + error * (approach_factor(steps) / limits.dt)

    def _limit_velocity(self, wanted: F64, scale: float, found: list[Intervention]) -> F64:
        ratios = np.abs(wanted) / self._limits.velocity
        worst = int(ratios.argmax())
        over = float(ratios[worst]) / scale
        if over <= 1:
            return wanted
        limited = wanted / over
        if over > 1 + REPORT_FRACTION:
            found.append(
                _intervention("joint_velocity", self._limits.names[worst], wanted[worst], limited[worst])
            )
        return limited

    def _limit_tcp_speed(self, path: Path, view: TcpView, scale: float, found: list[Intervention]) -> Path:
        limit = self._limits.tcp_speed * scale
        peak = self._peak(path)
        if peak <= limit:
            return path
        # Scaling a velocity down scales its rate with it, and the bend faster still: the result is legal.
        if peak > limit * (1 + REPORT_FRACTION):
            found.append(_intervention("tcp_speed", "tcp", peak, limit))
        return self._path(path.velocity * (limit / peak), view)

    def _keep_in_range(self, position: F64, path: Path, view: TcpView, found: list[Intervention]) -> Path:
        """Takes away what leads a joint beyond its position limit; the other joints go on."""
        limits = self._limits
        high = np.maximum(limits.upper - position, 0) / path.time
        low = np.minimum(limits.lower - position, 0) / path.time
        allowed = np.minimum(np.maximum(path.velocity, low), high)
        excess = np.abs(path.velocity - allowed)
        worst = int(excess.argmax())
        if excess[worst] == 0:
            return path
        if excess[worst] > REPORT_FRACTION * limits.velocity[worst]:
            upper = path.velocity[worst] > allowed[worst]
            asked = float(position[worst] + path.velocity[worst] * path.time)
            bound = float(limits.upper[worst] if upper else limits.lower[worst])
            found.append(_intervention("joint_position", limits.names[worst], asked, bound))
        return self._path(allowed, view)

    def _keep_in_box(self, path: Path, view: TcpView, found: list[Intervention]) -> Path:
        """Takes away what leads out of the box. The rates of the other axes stay, so the TCP slides along the wall."""
        low, high = self._room(view, path)
        change = np.minimum(np.maximum(path.rate, low), high) - path.rate
        if not change.any():
            return path
        gram = view.jacobian @ view.jacobian.T + SINGULAR_DAMPING * np.eye(3)
        correction = view.jacobian.T @ np.linalg.solve(gram, change)
        share = self._least_share(path.velocity, correction, view)
        for axis in np.flatnonzero(np.abs(change) > REPORT_FRACTION * self._limits.tcp_speed):
            wall = "upper" if change[axis] < 0 else "lower"
            margin = _wall_margin(self._limits, view.point, int(axis), wall)
            asked = path.rate[axis]
            allowed = asked + share * change[axis]
            found.append(_intervention("workspace", f"{'xyz'[axis]} {wall}", asked, allowed, margin))
        # Where the arm is nearly singular, the correction may ask much of a joint: then all go slower.
        corrected = path.velocity + share * correction
        over = float((np.abs(corrected) / self._limits.velocity).max())
        return self._path(corrected / max(over, 1.0), view)

    def _least_share(self, wanted: F64, correction: F64, view: TcpView) -> float:
        """How much of the correction is needed: what remains is slower, and so has more room than the wish."""
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            path = self._path(wanted + middle * correction, view)
            least, most = self._room(view, path)
            if bool(np.all((path.rate >= least) & (path.rate <= most))):
                high = middle
            else:
                low = middle
        return high

    def _limit_acceleration(
        self, velocity: F64, path: Path, view: TcpView, found: list[Intervention]
    ) -> Path:
        change = path.velocity - velocity
        ratios = np.abs(change) / self._limits.acceleration_step
        worst = int(ratios.argmax())
        over = float(ratios[worst])
        if over <= 1:
            return path
        if over > 1 + REPORT_FRACTION:
            asked = change[worst] / self._limits.dt
            found.append(_intervention("joint_acceleration", self._limits.names[worst], asked, asked / over))
        return self._path(velocity + change / over, view)

    def _accept(
        self, position: F64, velocity: F64, path: Path, view: TcpView, found: list[Intervention]
    ) -> F64:
        """The proposal if its stop is legal, else as much of it as is; at worst the stored stop."""
        refusal = self._refusal(position, path, view)
        if refusal is None:
            return path.velocity
        proposal, stopping = path.velocity, self.stop(velocity)
        best, low, high = stopping, 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            candidate = stopping + middle * (proposal - stopping)
            if self._refusal(position, self._path(candidate, view), view) is None:
                best, low = candidate, middle
            else:
                high = middle
        if float((np.abs(proposal - best) / self._limits.acceleration_step).max()) > REPORT_FRACTION:
            found.append(refusal)
        return best

    def _refusal(self, position: F64, path: Path, view: TcpView) -> Intervention | None:
        """Why one tick on `path` and the stop after it would leave a limit; None if they do not."""
        return self._joint_refusal(position, path) or self._tcp_refusal(path, view)

    def _joint_refusal(self, position: F64, path: Path) -> Intervention | None:
        limits = self._limits
        speed = np.abs(path.velocity) - limits.velocity
        worst = int(speed.argmax())
        if speed[worst] > ROUNDING:
            asked, allowed = path.velocity[worst], limits.velocity[worst]
            return _intervention("joint_velocity", limits.names[worst], asked, allowed)
        travel = path.velocity * path.time
        over = np.maximum(
            travel - np.maximum(limits.upper - position, 0),
            np.minimum(limits.lower - position, 0) - travel,
        )
        worst = int(over.argmax())
        if over[worst] > ROUNDING:
            bound = limits.upper[worst] if travel[worst] > 0 else limits.lower[worst]
            asked = position[worst] + travel[worst]
            return _intervention("joint_position", limits.names[worst], asked, bound)
        return None

    def _tcp_refusal(self, path: Path, view: TcpView) -> Intervention | None:
        limits = self._limits
        low, high = self._room(view, path)
        allowed = np.minimum(np.maximum(path.rate, low), high)
        axis = int(np.abs(path.rate - allowed).argmax())
        if abs(path.rate[axis] - allowed[axis]) > ROUNDING:
            wall = "upper" if path.rate[axis] > allowed[axis] else "lower"
            margin = _wall_margin(limits, view.point, axis, wall)
            field = f"{'xyz'[axis]} {wall}"
            return _intervention("workspace", field, path.rate[axis], allowed[axis], margin)
        peak = self._peak(path)
        if peak > limits.tcp_speed + ROUNDING:
            return _intervention("tcp_speed", "tcp", peak, limits.tcp_speed)
        return None

    def _path(self, velocity: F64, view: TcpView) -> Path:
        magnitude = np.abs(velocity)
        ticks = stop_ticks(velocity, self._limits.acceleration_step)
        return Path(
            velocity=velocity,
            ticks=ticks,
            time=stop_time(ticks, self._limits.dt),
            rate=view.jacobian @ velocity,
            bend=float(magnitude @ self._bend @ magnitude),
        )

    def _peak(self, path: Path) -> float:
        speed = float(np.sqrt(path.rate @ path.rate))
        return peak_speed(speed, path.bend, path.ticks, self._limits.dt)

    def _room(self, view: TcpView, path: Path) -> tuple[F64, F64]:
        """Bounds (3,), (3,) m/s of the TCP's rate for which one tick and the stop stay in the box.

        Along the path the TCP is at most `bend·s²/2` from the straight line `point + s·rate`, and that bound is
        convex in s, so its end decides. A point already outside has room 0: it may only come back.
        """
        slack = path.bend * path.time / 2
        high = np.maximum(self._limits.box_upper - view.point, 0) / path.time - slack
        low = slack - np.maximum(view.point - self._limits.box_lower, 0) / path.time
        return low, high


def _wall_margin(limits: Limits, point: F64, axis: int, wall: str) -> float:
    if wall == "upper":
        return float(limits.box_upper[axis] - point[axis])
    return float(point[axis] - limits.box_lower[axis])


def _intervention(rule: str, field: str, asked: float, allowed: float, margin: float = 0.0) -> Intervention:
    return Intervention(
        rule=rule, field=field, asked=float(asked), allowed=float(allowed), margin=float(margin)
    )
