"""One tick of commanded motion: propose a velocity towards the target, accept it, or go on stopping.

A velocity is *accepted* only if moving at it for one tick and stopping from there keeps every limit at every tick:
`judge` rolls that out. The stop of the last accepted state is stored and is always a way out, so by induction from a
legal start no limit is ever left, whatever the target is. How the proposal was made has no part in that: it is
first kept on its path (`project`), then bent away from what is in the way (`barrier`), then shortened towards the stop.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.safety.block import Fixed, gather
from reflexarc.safety.clearance import clearances
from reflexarc.safety.judge import BODY_SPEED, CLEARANCE, FINE, JERK, MotionState
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import REPORT_FRACTION, Limits
from reflexarc.safety.propose import ASKED, NOTES, PROPOSED, improve, let_through, propose
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import F64, Intervention

# Where a clearance is already negative by no more than this, the arm is not called outside: it is rounding.
ROUNDING = 1e-9
RULES = (
    "joint_velocity",
    "joint_acceleration",
    "joint_jerk",
    "tcp_speed",
    "tcp_angular_speed",
    "tcp_acceleration",
    "tcp_angular_acceleration",
    "tcp_jerk",
    "tcp_angular_jerk",
    "body_speed",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where the arm should be at this tick, (n,) rad, and how it moves there, (n,) rad/s."""

    position: F64
    velocity: F64


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """velocity: (n,) of the next tick. stop: (m, n) of the stop after it. speed_scale: as in `SafetyReport`."""

    velocity: F64
    stop: F64
    interventions: list[Intervention]
    speed_scale: float


class MotionLimiter:
    """Limits motion for one robot. Holds scratch memory but no history.

    limits: those that were given, whose arrays, as those of `kinematics`, lie in the limiter's `Block` from then on.
    """

    def __init__(self, kinematics: Kinematics, limits: Limits, surroundings: Surroundings) -> None:
        body = kinematics.body
        self._block, fixed, room = gather(
            Fixed(
                kinematics.chain,
                body.capsules,
                surroundings.table,
                limits.rates,
                surroundings.slow,
                surroundings.singularity_slow,
            )
        )
        kinematics.chain, kinematics.body = fixed.chain, dataclasses.replace(body, capsules=fixed.capsules)
        self.limits = dataclasses.replace(limits, rates=fixed.rates, velocity=fixed.rates.velocity)
        self._kinematics = kinematics
        self._around = dataclasses.replace(surroundings, table=fixed.table, slow=fixed.slow)
        self._at, self._here = room.at, room.here
        self._notes, self._refused = np.empty((NOTES + len(surroundings.rules), 4)), np.empty(4)
        self.warm_up()

    def warm_up(self) -> None:
        """Compile, or load, every kernel: the first tick of a loop must not wait for that."""
        middle = (self.limits.lower + self.limits.upper) / 2
        state, target = self._kinematics.rest(middle), Target(middle + 0.1, np.zeros_like(middle))
        self._kinematics.advance(state, np.zeros_like(middle), self.limits.dt)
        self._kinematics.view(middle)
        self.step(state, np.zeros((0, len(middle))), target, 1.0)
        velocities = np.zeros((3, len(middle)))
        improve(*self._block, *state, velocities[0], velocities, 0, FINE, 0, 0.0, 0.0, self._refused)

    def step(self, state: MotionState, stop: F64, target: Target, scale: float) -> Step:
        """The next tick towards `target`. stop: (m, n) as stored by the last step. scale: 1, or less to go slower."""
        velocities = np.empty((3, len(state.position)))
        rows, told, rule, which, asked, allowed, after = propose(
            *self._block, *state, target.position, target.velocity, scale, velocities, self._notes
        )
        found = self._limited(told)
        if rows or rule != FINE:
            base, _ = halt(state.velocity, stop)
            rule, after = improve(
                *self._block,
                *state,
                base,
                velocities,
                rows,
                rule,
                which,
                asked,
                allowed,
                self._refused,
            )
            self._note(self._refused, found)
        velocity, after = (velocities[PROPOSED], after) if rule == FINE else halt(state.velocity, stop)
        return Step(velocity, after, found, let_through(velocities[ASKED], velocity, self.limits.velocity))

    def outside(self, position: F64) -> str:
        """Which limit of place joint position (n,) is outside of, in words; empty if none."""
        body, around = self._kinematics.body, self._around
        clearances(around.table, self._kinematics.chain, body.capsules, position, self._at, self._here)
        row = int(np.argmin(self._here))
        if self._here[row] >= -ROUNDING:
            return ""
        return f"{around.rules[row]} {around.fields[row]}: outside by {-self._here[row]:.4f}"

    def _limited(self, told: int) -> list[Intervention]:
        """What the first so many notes say."""
        found: list[Intervention] = []
        for rule, index, asked, allowed in self._notes[:told].tolist():
            if rule == CLEARANCE:
                found.append(self._intervention(int(index), asked, allowed))
            elif rule != FINE and abs(asked) > abs(allowed) * (1 + REPORT_FRACTION):
                field = self._field(int(rule), int(index))
                found.append(_intervention(RULES[int(rule)], field, asked, allowed))
        return found

    def _note(self, refused: F64, found: list[Intervention]) -> None:
        rule, which, asked, allowed = refused.tolist()
        if rule == CLEARANCE:
            if asked < -(REPORT_FRACTION**2):
                found.append(self._intervention(int(which), asked, 0.0))
        elif rule != FINE:
            field = self._field(int(rule), int(which))
            found.append(_intervention(RULES[int(rule)], field, asked, allowed))

    def _field(self, rule: int, index: int) -> str:
        if rule <= JERK:
            return self.limits.names[index]
        return self._kinematics.body.names[index] if rule == BODY_SPEED else "tcp"

    def _intervention(self, row: int, asked: float, allowed: float) -> Intervention:
        around = self._around
        return _intervention(around.rules[row], around.fields[row], asked, allowed, float(self._here[row]))


def halt(velocity: F64, stop: F64) -> tuple[F64, F64]:
    """Velocity (n,) of the next tick of a stored stop (m, n), and what is left of it."""
    return (stop[0], stop[1:]) if len(stop) else (np.zeros_like(velocity), stop)


def _intervention(rule: str, field: str, asked: float, allowed: float, margin: float = 0.0) -> Intervention:
    return Intervention(
        rule=rule, field=field, asked=float(asked), allowed=float(allowed), margin=float(margin)
    )
