"""One tick of commanded motion: propose a velocity towards the target, accept it, or go on stopping.

A velocity is *accepted* only if moving at it for one tick and stopping from there keeps every limit at every tick:
`judge` rolls that out. The stop of the last accepted state is stored and is always a way out, so by induction from a
legal start no limit is ever left, whatever the target is. How the proposal was made has no part in that: it is
first kept on its path (`project`), then bent away from what is in the way (`barrier`), then shortened towards the stop.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.safety.barrier import barrier_rows, bend_away
from reflexarc.safety.chain import jacobian, place
from reflexarc.safety.clearance import SINGULAR, clearances, gradient, scratch
from reflexarc.safety.judge import (
    BODY_SPEED,
    CLEARANCE,
    FINE,
    JERK,
    TCP_ANGULAR_SPEED,
    TCP_SPEED,
    VELOCITY,
    MotionState,
    Rates,
    Verdict,
    judge,
    shorten,
)
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.project import project
from reflexarc.safety.propose import propose
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import F64, Intervention

# A limit exceeded by less than this fraction is enforced but not reported: it is rounding, not a decision.
REPORT_FRACTION = 1e-4
# Halvings between the stop and a refused proposal. 2^-4 of the step in velocity is lost at worst.
BISECTIONS = 4
# Quadratic programs for one proposal: what the first one bends it into may be in the way of something else.
ROUNDS = 2
# What is too fast is proposed again at so much of what would have been allowed.
BELOW = 0.98
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
    """Limits motion for one robot. Holds scratch memory but no history."""

    def __init__(self, kinematics: Kinematics, limits: Limits, surroundings: Surroundings) -> None:
        self._kinematics = kinematics
        self._limits = limits
        self._around = surroundings
        self._at = scratch(len(limits.names), len(kinematics.body.names))
        rows = len(surroundings.rules)
        self._here = np.zeros(rows)
        self._worst = np.zeros(rows)
        self._where = np.zeros((rows, len(limits.names)))
        self.warm_up()

    def warm_up(self) -> None:
        """Compile, or load, every kernel: the first tick of a loop must not wait for that."""
        middle = (self._limits.lower + self._limits.upper) / 2
        state, target = self._kinematics.rest(middle), Target(middle + 0.1, np.zeros_like(middle))
        self._kinematics.advance(state, np.zeros_like(middle), self._limits.dt)
        self.step(state, np.zeros((0, len(middle))), target, 1.0)
        self._gradient(0, middle)
        self._singular_share(middle)
        still = np.zeros_like(middle)
        self._judge(state, still)
        self._barrier_rows(state, still)
        self._shorten(state, np.zeros((0, len(middle))), still)

    def step(self, state: MotionState, stop: F64, target: Target, scale: float) -> Step:
        """The next tick towards `target`. stop: (m, n) as stored by the last step. scale: 1, or less to go slower."""
        found: list[Intervention] = []
        kinematics, around = self._kinematics, self._around
        notes = np.empty((3, 4))
        asked, wanted, proposal, verdict = propose(
            kinematics.chain,
            kinematics.body.capsules,
            around.table,
            self._limits.rates,
            state,
            target.position,
            target.velocity,
            scale,
            self._at,
            self._here,
            notes,
            self._worst,
            self._where,
        )
        self._report(notes, found)
        slowing = self._slow_rows(state.position, wanted, found)
        if slowing[1].size or verdict.rule != FINE:
            proposal, verdict = self._improve(state, wanted, proposal, verdict, slowing, found)
        if verdict.rule != FINE:
            proposal, verdict = self._shorten(state, stop, proposal)
        velocity, after = (proposal, verdict.stop) if verdict.rule == FINE else halt(state.velocity, stop)
        return Step(velocity, after, found, self._scale(velocity, asked))

    def outside(self, position: F64) -> str:
        """Which limit of place joint position (n,) is outside of, in words; empty if none."""
        self._clearances(position)
        row = int(np.argmin(self._here))
        if self._here[row] >= -ROUNDING:
            return ""
        around = self._around
        return f"{around.rules[row]} {around.fields[row]}: outside by {-self._here[row]:.4f}"

    def _clearances(self, position: F64) -> None:
        body, around = self._kinematics.body, self._around
        clearances(around.table, self._kinematics.chain, body.capsules, position, self._at, self._here)

    def _judge(self, state: MotionState, proposal: F64) -> Verdict:
        """The verdict, and in `_worst` and `_where` every clearance that is broken."""
        kinematics = self._kinematics
        return judge(
            kinematics.chain,
            kinematics.body.capsules,
            self._around.table,
            self._limits.rates,
            state,
            proposal,
            self._here,
            self._at,
            self._worst,
            self._where,
        )

    def _barrier_rows(self, state: MotionState, candidate: F64) -> tuple[F64, F64]:
        kinematics = self._kinematics
        return barrier_rows(
            kinematics.chain,
            kinematics.body.capsules,
            self._around.table,
            state.position,
            candidate,
            self._worst,
            self._where,
            self._at,
            self._limits.dt,
        )

    def _project(self, state: MotionState, wanted: F64, notes: F64) -> F64:
        return project(self._kinematics.chain, self._limits.rates, state, wanted, self._at, notes)

    def _gradient(self, row: int, position: F64) -> F64:
        out = np.empty(len(self._limits.names))
        kinematics = self._kinematics
        gradient(row, self._around.table, kinematics.chain, kinematics.body.capsules, position, self._at, out)
        return out

    def _slow_rows(self, position: F64, wanted: F64, found: list[Intervention]) -> tuple[F64, F64]:
        """Where the arm is near something and approaches: only a share of that, none at the distance to keep.

        Rows normal·v ≥ least, (k, n) and (k,).
        """
        normals: list[F64] = []
        least: list[float] = []
        shares = self._here / self._around.slow
        for row in np.flatnonzero(shares < 1).tolist():
            share = float(shares[row])
            if self._around.table.kind[row] == SINGULAR:
                share = self._singular_share(position)
                if share >= 1:
                    continue
            normal = self._gradient(row, position)
            rate = float(normal @ wanted)
            allowed = max(share, 0.0) * rate
            if rate < 0:
                normals.append(normal)
                least.append(allowed)
            if rate < allowed - REPORT_FRACTION:
                found.append(self._intervention(row, rate, allowed))
        return np.reshape(normals, (-1, wanted.size)), np.array(least)

    def _singular_share(self, position: F64) -> float:
        at, slow, stop = self._at, self._around.singularity_slow, self._around.table.keep[-1]
        place(self._kinematics.chain, position, at.origin, at.turn)
        jacobian(at.origin, at.turn, at.jacobian)
        largest, smallest = extreme_singular_values(at.jacobian)
        return float((stop - largest / max(smallest, 1e-9)) / (stop - slow))

    def _improve(
        self,
        state: MotionState,
        wanted: F64,
        proposal: F64,
        verdict: Verdict,
        slowing: tuple[F64, F64],
        found: list[Intervention],
    ) -> tuple[F64, Verdict]:
        """Slower where the proposal is too fast, bent where it runs into something; judged, perhaps still refused."""
        lower, upper = reachable(state, self._limits.rates)
        normals, least = slowing
        candidate = proposal
        if least.size:
            candidate = bend_away(proposal, lower, upper, normals, least, candidate)
            verdict = self._judge(state, candidate)
        refused = verdict
        for _ in range(ROUNDS):
            if verdict.rule == CLEARANCE:
                more = self._barrier_rows(state, candidate)
                normals, least = np.concatenate([normals, more[0]]), np.concatenate([least, more[1]])
            elif verdict.rule in SPEEDS or verdict.rule == VELOCITY:
                wanted = slower(wanted, verdict)
                proposal = self._project(state, wanted, np.empty((1, 4)))
            else:
                break
            candidate = (
                bend_away(proposal, lower, upper, normals, least, candidate) if least.size else proposal
            )
            verdict = self._judge(state, candidate)
        if refused.rule != FINE:
            self._note(refused, found)
        return candidate, verdict

    def _shorten(self, state: MotionState, stop: F64, proposal: F64) -> tuple[F64, Verdict]:
        """As much of the way from the stop to a refused proposal as is accepted."""
        kinematics = self._kinematics
        return shorten(
            kinematics.chain,
            kinematics.body.capsules,
            self._around.table,
            self._limits.rates,
            state,
            halt(state.velocity, stop)[0],
            proposal,
            self._here,
            self._at,
            BISECTIONS,
        )

    def _scale(self, velocity: F64, asked: F64) -> float:
        """How much of the velocity that was asked for is there, along its direction, joints weighed by their limits."""
        weighed = asked / self._limits.velocity**2
        whole = float(weighed @ asked)
        return min(max(float(weighed @ velocity) / whole, 0.0), 1.0) if whole > 1e-12 else 1.0

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
            return self._limits.names[index]
        return self._kinematics.body.names[index] if rule == BODY_SPEED else "tcp"

    def _intervention(self, row: int, asked: float, allowed: float) -> Intervention:
        around = self._around
        return _intervention(around.rules[row], around.fields[row], asked, allowed, float(self._here[row]))


def halt(velocity: F64, stop: F64) -> tuple[F64, F64]:
    """Velocity (n,) of the next tick of a stored stop (m, n), and what is left of it."""
    return (stop[0], stop[1:]) if len(stop) else (np.zeros_like(velocity), stop)


def reachable(state: MotionState, rates: Rates) -> tuple[F64, F64]:
    """Bounds (n,), (n,) rad/s of the next tick's velocity by each joint's velocity, acceleration and jerk."""
    low = state.velocity + np.maximum(-rates.change, state.change - rates.step)
    high = state.velocity + np.minimum(rates.change, state.change + rates.step)
    low = np.minimum(np.maximum(low, -rates.velocity), rates.velocity)
    return low, np.maximum(np.minimum(high, rates.velocity), low)


def slower(wanted: F64, verdict: Verdict) -> F64:
    """`wanted` (n,), slower by what a refusal for speed says: all of it, or the one joint that is near its end."""
    share = BELOW * verdict.allowed / max(abs(verdict.asked), 1e-12)
    if verdict.rule != VELOCITY:
        return wanted * share
    changed = wanted.copy()
    changed[verdict.which] *= share
    return changed


def _intervention(rule: str, field: str, asked: float, allowed: float, margin: float = 0.0) -> Intervention:
    return Intervention(
        rule=rule, field=field, asked=float(asked), allowed=float(allowed), margin=float(margin)
    )
