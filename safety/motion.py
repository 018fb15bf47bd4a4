"""One tick of commanded motion: propose a velocity towards the target, accept it, or go on stopping.

A velocity is *accepted* only if moving at it for one tick and stopping from there keeps every limit at every tick:
`judge` rolls that out. The stop of the last accepted state is stored and is always a way out, so by induction from a
legal start no limit is ever left, whatever the target is. How the proposal was made has no part in that: it is
first kept on its path (`project`), then bent away from what is in the way (`barrier`), then shortened towards the stop.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.safety.barrier import bend_away
from reflexarc.safety.block import Fixed, gather
from reflexarc.safety.clearance import clearances, scratch
from reflexarc.safety.judge import (
    BODY_SPEED,
    CLEARANCE,
    FINE,
    JERK,
    TCP_ANGULAR_SPEED,
    TCP_SPEED,
    VELOCITY,
    MotionState,
    Verdict,
)
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import REPORT_FRACTION, Limits
from reflexarc.safety.propose import (
    examine,
    let_through,
    obstructions,
    propose,
    reachable,
    shortened,
    slow_down,
)
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import F64, Intervention

# Halvings between the stop and a refused proposal. 2^-4 of the step in velocity is lost at worst.
BISECTIONS = 4
# Quadratic programs for one proposal: what the first one bends it into may be in the way of something else.
ROUNDS = 2
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
SPEEDS = (TCP_SPEED, TCP_ANGULAR_SPEED, BODY_SPEED)


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
        fixed = Fixed(kinematics.chain, body.capsules, surroundings.table, limits.rates)
        self._block, fixed = gather(fixed)
        kinematics.chain, kinematics.body = fixed.chain, dataclasses.replace(body, capsules=fixed.capsules)
        self.limits = dataclasses.replace(limits, rates=fixed.rates, velocity=fixed.rates.velocity)
        self._kinematics = kinematics
        self._around = dataclasses.replace(surroundings, table=fixed.table)
        self._at = scratch(len(limits.names), len(body.names))
        rows = len(surroundings.rules)
        self._here = np.zeros(rows)
        self._worst = np.zeros(rows)
        self._where = np.zeros((rows, len(limits.names)))
        self.warm_up()

    def warm_up(self) -> None:
        """Compile, or load, every kernel: the first tick of a loop must not wait for that."""
        middle = (self.limits.lower + self.limits.upper) / 2
        state, target = self._kinematics.rest(middle), Target(middle + 0.1, np.zeros_like(middle))
        self._kinematics.advance(state, np.zeros_like(middle), self.limits.dt)
        self._kinematics.view(middle)
        self.step(state, np.zeros((0, len(middle))), target, 1.0)
        still = np.zeros_like(middle)
        refused = self._examine(state, still)._replace(rule=CLEARANCE)
        rows = np.zeros((1, len(middle))), np.zeros(1)
        self._improve(state, still, still, refused, rows, [])
        self._obstructions(state, still, *rows)
        slow_down(self._block, state, still, VELOCITY, 0, 1.0, 1.0, self._at)
        self._shorten(state, np.zeros((0, len(middle))), still)

    def step(self, state: MotionState, stop: F64, target: Target, scale: float) -> Step:
        """The next tick towards `target`. stop: (m, n) as stored by the last step. scale: 1, or less to go slower."""
        found: list[Intervention] = []
        asked, wanted, proposal, notes, normals, least, told, verdict = propose(
            self._block,
            state,
            target.position,
            target.velocity,
            scale,
            self._around.slow,
            self._around.singularity_slow,
            self._at,
            self._here,
            self._worst,
            self._where,
        )
        self._report(notes, found)
        for row, rate, allowed in told.tolist():
            found.append(self._intervention(int(row), rate, allowed))
        if least.size or verdict.rule != FINE:
            proposal, verdict = self._improve(state, wanted, proposal, verdict, (normals, least), found)
        if verdict.rule != FINE:
            proposal, verdict = self._shorten(state, stop, proposal)
        velocity, after = (proposal, verdict.stop) if verdict.rule == FINE else halt(state.velocity, stop)
        return Step(velocity, after, found, let_through(asked, velocity, self.limits.velocity))

    def outside(self, position: F64) -> str:
        """Which limit of place joint position (n,) is outside of, in words; empty if none."""
        body, around = self._kinematics.body, self._around
        clearances(around.table, self._kinematics.chain, body.capsules, position, self._at, self._here)
        row = int(np.argmin(self._here))
        if self._here[row] >= -ROUNDING:
            return ""
        return f"{around.rules[row]} {around.fields[row]}: outside by {-self._here[row]:.4f}"

    def _improve(
        self,
        state: MotionState,
        wanted: F64,
        proposal: F64,
        verdict: Verdict,
        rows: tuple[F64, F64],
        found: list[Intervention],
    ) -> tuple[F64, Verdict]:
        """Slower where the proposal is too fast, bent where it runs into something; judged, perhaps still refused.

        rows: normals (k, n) and least (k,) that the velocity is to keep whatever the verdict says.
        """
        lower, upper = reachable(self._block, state)
        normals, least = rows
        candidate = proposal
        if least.size:
            candidate = bend_away(proposal, lower, upper, normals, least, candidate)
            verdict = self._examine(state, candidate)
        refused = verdict
        for _ in range(ROUNDS):
            if verdict.rule == CLEARANCE:
                normals, least = self._obstructions(state, candidate, normals, least)
            elif verdict.rule in SPEEDS or verdict.rule == VELOCITY:
                numbers = verdict.rule, verdict.which, verdict.asked, verdict.allowed
                wanted, proposal = slow_down(self._block, state, wanted, *numbers, self._at)
            else:
                break
            candidate = (
                bend_away(proposal, lower, upper, normals, least, candidate) if least.size else proposal
            )
            verdict = self._examine(state, candidate)
        if refused.rule != FINE:
            self._note(refused, found)
        return candidate, verdict

    def _examine(self, state: MotionState, candidate: F64) -> Verdict:
        """The verdict, and in `_worst` and `_where` every clearance that is broken."""
        return examine(self._block, state, candidate, self._at, self._here, self._worst, self._where)

    def _obstructions(self, state: MotionState, candidate: F64, normals: F64, least: F64) -> tuple[F64, F64]:
        return obstructions(self._block, state, candidate, self._at, self._worst, self._where, normals, least)

    def _shorten(self, state: MotionState, stop: F64, proposal: F64) -> tuple[F64, Verdict]:
        """As much of the way from the stop to a refused proposal as is accepted."""
        base, _ = halt(state.velocity, stop)
        return shortened(self._block, state, base, proposal, self._at, self._here, BISECTIONS)

    def _report(self, notes: F64, found: list[Intervention]) -> None:
        for rule, index, asked, allowed in notes.tolist():
            if rule != FINE and abs(asked) > abs(allowed) * (1 + REPORT_FRACTION):
                field = self._field(int(rule), int(index))
                found.append(_intervention(RULES[int(rule)], field, asked, allowed))

    def _note(self, verdict: Verdict, found: list[Intervention]) -> None:
        if verdict.rule == CLEARANCE:
            if verdict.asked < -(REPORT_FRACTION**2):
                found.append(self._intervention(verdict.which, verdict.asked, 0.0))
            return
        field = self._field(verdict.rule, verdict.which)
        found.append(_intervention(RULES[verdict.rule], field, verdict.asked, verdict.allowed))

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
