"""Senders that try to drive the arm out of its limits. Each yields what the filter is given at one tick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.memory import Memory
from reflexarc.wire.messages import F64

Numbers = tuple[F64, F64]
"""Joint position (n,) rad and velocity (n,) rad/s asked for."""
Adversary = Callable[[np.random.Generator, int, Memory, RobotConfig], Numbers]

HOSTILE = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, 1e-310, 0.0, 1.0])


def uniform(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Anything, with absurd velocities."""
    n = len(robot.joints)
    return rng.uniform(-4, 4, n), rng.normal(0, 1e3, n)


def random_walk(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Wanders about the commanded position."""
    n = len(robot.joints)
    return memory.position + rng.normal(0, 0.2, n), rng.normal(0, 3, n)


def extremes(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Beyond the joint limits at full speed, another corner now and then."""
    corner = np.where(np.random.default_rng(tick // 60).random(len(robot.joints)) < 0.5, -1.0, 1.0)
    bounds = np.array([joint.upper if sign > 0 else joint.lower for sign, joint in _pairs(corner, robot)])
    return bounds * 1.3, corner * 5


def bang_bang(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Full reversal at every tick."""
    sign = 1.0 if tick % 2 else -1.0
    return memory.position + sign * 3, np.full(len(robot.joints), sign * 10)


def resonance(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Reverses just when the arm has got up to speed."""
    sign = np.where((tick // np.arange(7, 7 + len(robot.joints))) % 2, 1.0, -1.0)
    return memory.position + sign, sign * 2


def wall_seeking(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Drives the TCP straight at a wall or a corner of the box, at top speed."""
    way = np.random.default_rng(tick // 150).normal(0, 1, 3)
    jacobian = memory.view.jacobian
    twist = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(3), way / np.linalg.norm(way))
    return memory.position + twist * 0.1, twist


def limit_seeking(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Each joint towards its nearer position limit, as fast as it can, with the others at random."""
    middle = np.array([(joint.lower + joint.upper) / 2 for joint in robot.joints])
    way = np.sign(memory.position - middle)
    way[tick // 300 % len(way)] *= -1
    return memory.position + way * 0.3 + rng.normal(0, 0.01, len(way)), way * 2


def one_joint(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Stays, but for one joint at a time, the last ones first, that goes to and fro between its limits."""
    n = len(robot.joints)
    index, way = n - 1 - tick // 700 % n, -1.0 if tick // 350 % 2 else 1.0
    position, velocity = memory.position.copy(), np.zeros(n)
    position[index] += way
    velocity[index] = way * 5
    return position, velocity


def hostile_numbers(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """NaN, infinities, denormals and overflows in some places; sometimes a plausible setpoint between."""
    n = len(robot.joints)
    if tick % 3:
        return memory.position + rng.normal(0, 0.05, n), rng.normal(0, 1, n)
    position, velocity = memory.position.copy(), rng.normal(0, 1, n)
    position[rng.integers(n)] = rng.choice(HOSTILE)
    velocity[rng.integers(n)] = rng.choice(HOSTILE)
    return position, velocity


def random_goals(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """To a joint position anywhere within the limits at full speed, through table, walls, itself and singularities."""
    goal = np.random.default_rng(tick // 400)
    lower = np.array([joint.lower for joint in robot.joints])
    upper = np.array([joint.upper for joint in robot.joints])
    position = goal.uniform(lower, upper)
    return position, np.sign(position - memory.position) * goal.exponential(1.0)


def downwards(rng: np.random.Generator, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """Folds the arm, elbow first, onto the table, and stretches it, by turns, with jitter at the tick rate."""
    sign = 1.0 if tick // 250 % 2 else -1.0
    way = np.zeros(len(robot.joints))
    way[1], way[2 if len(way) == 6 else 3] = sign, -sign if tick // 500 % 2 else sign
    jitter = rng.normal(0, 0.02, len(way))
    return memory.position + 0.3 * way + jitter, 3 * way


def searched(genes: F64, tick: int, memory: Memory, robot: RobotConfig) -> Numbers:
    """A square wave on each joint, of whatever amplitude, period, phase and drift a search has come up with: (4, n)."""
    amplitude, period, phase, drift = genes
    beat = np.sign(np.sin(2 * np.pi * (tick / (2 + 40 * np.exp(period)) + phase)))
    way = np.exp(amplitude) * beat + drift
    return memory.position + 0.3 * way, 3 * way


def _pairs(signs: F64, robot: RobotConfig) -> list[tuple[float, object]]:
    return list(zip(signs.tolist(), robot.joints, strict=True))


ADVERSARIES: dict[str, Adversary] = {
    function.__name__: function
    for function in (
        uniform,
        random_walk,
        extremes,
        bang_bang,
        resonance,
        wall_seeking,
        limit_seeking,
        one_joint,
        random_goals,
        downwards,
        hostile_numbers,
    )
}
