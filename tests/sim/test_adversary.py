"""The adversary, a few episodes of each kind; and that what it measures would show a filter that lets it."""

from __future__ import annotations

import numpy as np
import pytest

from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.monitor import PRESSED
from reflexarc.sim.adversary import KINDS, STIFFNESS, Arena, Kind, attack

TOLERANCE_M = 0.006
"""The servo's tracking error at working speed; benchmarks/adversary.py has the same."""


@pytest.fixture(scope="module")
def robot() -> RobotConfig:
    return load_robot("panda")


@pytest.fixture(scope="module")
def safety() -> SafetyConfig:
    return load_safety("panda")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_entered_and_nothing_is_pressed(
    kind: Kind, robot: RobotConfig, safety: SafetyConfig
) -> None:
    arena = Arena(kind, robot, safety)
    found = [attack(arena, seed) for seed in range(2)]
    assert max(item.penetration for item in found) <= TOLERANCE_M
    assert max(item.sustained for item in found) <= safety.force_ceiling
    assert max(item.excess for item in found) <= 1.2
    # The monitor takes nothing of it for a failure, but what hits a stiff thing at full speed may be that.
    alarms = {reason for item in found for reason in item.trips}
    assert alarms <= ({PRESSED} if kind in STIFFNESS else set())
    if kind in STIFFNESS:
        assert sum(item.contacts for item in found) > 0, "it never touched anything"
    rules = set().union(*(item.rules for item in found))
    expected = {"table": "workspace", "keep_out": "keep_out", "itself": "joint_velocity"}
    assert expected.get(kind, "wrist_force") in rules


@pytest.mark.parametrize("name", ["fr3", "ur5e"])
def test_the_other_arms_are_attacked_as_well(name: str) -> None:
    limits = load_safety(name)
    for kind in ("table", "body"):
        found = attack(Arena(kind, load_robot(name), limits), 1)
        assert found.penetration <= TOLERANCE_M
        assert max(found.sustained, found.sustained_links) <= limits.force_ceiling
        assert found.excess <= 1.2
        assert found.rules


def test_what_is_entered_is_measured_from_the_skin(robot: RobotConfig, safety: SafetyConfig) -> None:
    """The side of the hand is in the box as soon as it is, while the TCP and the middle of every part are outside."""
    arena = Arena("keep_out", robot, safety)
    assert arena.penetration() == 0.0
    for base in np.arange(0.0, 0.9, 0.01):
        arena.place(np.array([base, *robot.home[1:]]))
        if arena.penetration() > 0:
            break
    assert arena.penetration() < 0.01
    middles = arena.data.geom_xpos[arena.all, 1]
    assert max(arena.tcp[1], *middles) < arena.keep_out[0, 1]


def test_an_episode_is_the_same_again(robot: RobotConfig, safety: SafetyConfig) -> None:
    arena = Arena("body", robot, safety)
    assert attack(arena, 3, 1.0) == attack(arena, 3, 1.0)


def test_with_limits_that_are_wide_the_harm_is_seen(robot: RobotConfig) -> None:
    wide = load_safety("panda-wide")
    body = [attack(Arena("body", robot, wide), seed) for seed in range(3)]
    assert max(item.sustained for item in body) > load_safety("panda").force_ceiling
    table = [attack(Arena("table", robot, wide), seed) for seed in range(3)]
    assert max(item.peak for item in table) > 100


def test_the_impact_of_a_known_mass_is_predicted(robot: RobotConfig, safety: SafetyConfig) -> None:
    """The effective mass against finite differences: a push along a direction, and the acceleration that follows."""
    arena = Arena("body", robot, safety)
    import mujoco

    from reflexarc.sim.adversary import Felt

    normal = np.array([0.0, 0.0, 1.0])
    geom = arena.fingers[0]
    point = np.array(arena.data.geom_xpos[geom])
    speed, into, mass = arena.impact(Felt(normal, point, normal, geom), np.zeros(arena.model.nv))
    assert speed == into == 0.0
    push = np.zeros(arena.model.nv)
    body = int(arena.model.geom_bodyid[geom])
    mujoco.mj_applyFT(arena.model, arena.data, 1e-3 * normal, np.zeros(3), point, body, push)
    solved = np.zeros(arena.model.nv)
    full = np.zeros((arena.model.nv, arena.model.nv))
    mujoco.mj_fullM(arena.model, arena.data, full)
    dof = arena.index.dof
    solved[dof] = np.linalg.solve(full[np.ix_(dof, dof)], push[dof])
    jacobian = np.zeros((3, arena.model.nv))
    mujoco.mj_jac(arena.model, arena.data, jacobian, None, point, body)
    assert mass == pytest.approx(1e-3 / float(normal @ jacobian @ solved), rel=1e-6)
    assert 1.0 < mass < 20.0
