"""Kinematics, covers and distances of the filter against MuJoCo's own, on every arm that ships."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reflexarc.configs.load import load_robot, load_safety, resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.clearance import SINGULAR, arrange, clearances, gradient, scratch
from reflexarc.safety.distance import segment_to_box, segment_to_segment
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.chain import jacobian, place, twist_step
from reflexarc.wire.geometry import to_matrix
from reflexarc.wire.messages import F64

ROBOTS = ("panda", "fr3", "ur5e")


@pytest.fixture(scope="module", params=ROBOTS)
def arm(request: pytest.FixtureRequest) -> RobotConfig:
    return load_robot(request.param)


def positions(robot: RobotConfig, count: int) -> F64:
    """(count, n) anywhere within the limits."""
    lower = np.array([joint.lower for joint in robot.joints])
    upper = np.array([joint.upper for joint in robot.joints])
    return np.random.default_rng(3).uniform(lower, upper, (count, len(lower)))


def test_frames_and_jacobian_are_mujocos(arm: RobotConfig) -> None:
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(arm.mjcf)))
    data = mujoco.MjData(model)
    site = model.site(arm.tcp_site).id
    dof = [int(model.joint(name).dofadr[0]) for name in arm.joint_names]
    kinematics, n = Kinematics(arm), len(arm.joints)
    at, found, linear, angular = (
        scratch(n, 0),
        np.zeros((6, n)),
        np.zeros((3, model.nv)),
        np.zeros((3, model.nv)),
    )
    for position in positions(arm, 30):
        data.qpos[[int(model.joint(name).qposadr[0]) for name in arm.joint_names]] = position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, linear, angular, site)
        place(kinematics.chain, position, at.origin, at.turn)
        jacobian(at.origin, at.turn, found)
        assert np.abs(at.origin[-1] - data.site_xpos[site]).max() < 1e-12
        assert np.abs(at.turn[-1] - data.site_xmat[site].reshape(3, 3)).max() < 1e-12
        assert np.abs(found - np.vstack([linear[:, dof], angular[:, dof]])).max() < 1e-12
        assert np.abs(to_matrix(kinematics.pose(position)[3:]) - at.turn[-1]).max() < 1e-9


def test_a_twist_is_the_jacobian_times_a_small_step(arm: RobotConfig) -> None:
    kinematics, n = Kinematics(arm), len(arm.joints)
    before, after, moved = scratch(n, 0), scratch(n, 0), np.empty(6)
    for position in positions(arm, 10):
        step = np.random.default_rng(0).normal(0, 1e-6, n)
        place(kinematics.chain, position, before.origin, before.turn)
        place(kinematics.chain, position + step, after.origin, after.turn)
        jacobian(before.origin, before.turn, before.jacobian)
        twist_step(before.origin[-1], before.turn[-1], after.origin[-1], after.turn[-1], moved)
        assert np.abs(moved - before.jacobian @ step).max() < 1e-10


def test_capsules_contain_every_geom_with_fingers_anywhere(arm: RobotConfig) -> None:
    """Points on the geoms' surfaces, by MuJoCo, are inside the capsule of the same geom."""
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(arm.mjcf)))
    data = mujoco.MjData(model)
    kinematics, rng = Kinematics(arm), np.random.default_rng(1)
    capsules = kinematics.body.capsules
    at = scratch(len(arm.joints), len(kinematics.body.names))
    qpos = [int(model.joint(name).qposadr[0]) for name in arm.joint_names]
    fingers = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE]
    assert model.ngeom == len(kinematics.body.names)
    for position in positions(arm, 10):
        for joint in fingers:
            data.qpos[model.jnt_qposadr[joint]] = rng.uniform(*model.jnt_range[joint])
        data.qpos[qpos] = position
        mujoco.mj_kinematics(model, data)
        arrange(kinematics.chain, capsules, position, at)
        for geom in range(model.ngeom):
            surface = data.geom_xpos[geom] + _surface(model, geom, rng) @ data.geom_xmat[geom].reshape(3, 3).T
            distance = [_to_segment(point, *at.ends[geom]) for point in surface]
            assert max(distance) <= capsules.radius[geom] + 1e-9, kinematics.body.names[geom]


def test_reach_bounds_how_far_any_part_moves(arm: RobotConfig) -> None:
    kinematics = Kinematics(arm)
    parts = len(kinematics.body.names)
    before, after = scratch(len(arm.joints), parts), scratch(len(arm.joints), parts)
    rng = np.random.default_rng(2)
    for position in positions(arm, 50):
        step = rng.normal(0, 0.3, len(arm.joints))
        arrange(kinematics.chain, kinematics.body.capsules, position, before)
        arrange(kinematics.chain, kinematics.body.capsules, position + step, after)
        travel = kinematics.reach @ np.abs(step)
        assert np.linalg.norm(after.ends - before.ends, axis=-1).max() <= travel + 1e-12
        assert np.linalg.norm(after.origin[-1] - before.origin[-1]) <= travel + 1e-12


def test_no_clearance_is_used_up_faster_than_its_pace_says(arm: RobotConfig) -> None:
    """What lets the rollout skip a clearance: |change| ≤ travel / pace, for moves of every size."""
    safety, kinematics = load_safety(arm.name), Kinematics(arm)
    limits = Limits.of(arm, safety, kinematics.reach)
    around = Surroundings.of(arm, safety, kinematics, limits.lower, limits.upper)
    at = scratch(len(arm.joints), len(kinematics.body.names))
    before, after = np.empty(len(around.rules)), np.empty(len(around.rules))
    rng = np.random.default_rng(4)
    for position in positions(arm, 200):
        step = rng.normal(0, 1, len(arm.joints)) * 10 ** rng.uniform(-4, -0.5)
        clearances(around.table, kinematics.chain, kinematics.body.capsules, position, at, before)
        clearances(around.table, kinematics.chain, kinematics.body.capsules, position + step, at, after)
        travel = kinematics.reach @ np.abs(step)
        # A box further away than need be is only known to be far: the bound that is given there may jump upwards.
        assert ((before - after) * around.table.pace <= travel + 1e-7).all()


def test_gradients_predict_small_moves(arm: RobotConfig) -> None:
    safety, kinematics = load_safety(arm.name), Kinematics(arm)
    limits = Limits.of(arm, safety, kinematics.reach)
    around = Surroundings.of(arm, safety, kinematics, limits.lower, limits.upper)
    body, out = kinematics.body.capsules, np.empty(len(arm.joints))
    at = scratch(len(arm.joints), len(kinematics.body.names))
    before, after = np.empty(len(around.rules)), np.empty(len(around.rules))
    rng = np.random.default_rng(5)
    # Not at home: there links lie level, and which end of a level link is nearest changes with the sign of a step.
    position, step = arm.home + rng.normal(0, 0.1, len(arm.joints)), rng.normal(0, 1e-5, len(arm.joints))
    clearances(around.table, kinematics.chain, body, position, at, before)
    clearances(around.table, kinematics.chain, body, position + step, at, after)
    rows = [0, *np.flatnonzero(around.table.kind >= SINGULAR - 3)[::7], len(around.rules) - 1]
    for row in rows:
        gradient(int(row), around.table, kinematics.chain, body, position, at, out)
        assert after[row] - before[row] == pytest.approx(out @ step, abs=1e-7)


def test_segments_are_as_far_apart_as_mujoco_says() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        ends = rng.uniform(-1, 1, (2, 2, 3))
        if rng.random() < 0.2:
            ends[0, 1] = ends[0, 0]
        if rng.random() < 0.2:
            ends[1, 1] = ends[1, 0] + (ends[0, 1] - ends[0, 0])
        best = min(_to_segment(point, *ends[1]) for point in _along(ends[0], 400))
        found = segment_to_segment(ends, 0, 1)
        assert found <= best + 1e-12
        assert found >= best - np.linalg.norm(ends[0, 1] - ends[0, 0]) / 400


def test_a_box_is_never_nearer_than_said() -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        ends = rng.uniform(-1.5, 1.5, (1, 2, 3))
        low = rng.uniform(-1, 0, 3)
        boxes = np.array([[low, low + rng.uniform(0.01, 1, 3)]])
        points = _along(ends[0], 2000)
        gaps = points - np.clip(points, boxes[0, 0], boxes[0, 1])
        best = float(np.linalg.norm(gaps, axis=1).min())
        found = segment_to_box(ends, 0, boxes, 0, 100.0)
        assert best - np.linalg.norm(ends[0, 1] - ends[0, 0]) / 2000 <= found + 1e-6
        assert found <= best + 1e-12
        enough = rng.uniform(0, 1)
        bound = segment_to_box(ends, 0, boxes, 0, enough)
        assert bound <= best + 1e-12
        assert bound > enough or bound == pytest.approx(found, abs=1e-12)


def test_singular_values_are_those_of_numpy() -> None:
    rng = np.random.default_rng(8)
    for size in (6, 7, 9):
        for _ in range(100):
            matrix = rng.normal(0, 1, (6, size))
            matrix[5] *= 10 ** rng.uniform(-3, 0)
            largest, smallest = extreme_singular_values(matrix)
            expected = np.linalg.svd(matrix, compute_uv=False)
            assert largest == pytest.approx(expected[0], rel=1e-12)
            assert smallest == pytest.approx(expected[-1], abs=1e-7)
    assert extreme_singular_values(np.zeros((6, 7))) == (0.0, 0.0)


def _along(segment: F64, count: int) -> F64:
    return np.asarray(segment[0] + np.linspace(0, 1, count + 1)[:, None] * (segment[1] - segment[0]))


def _to_segment(point: F64, start: F64, end: F64) -> float:
    way = end - start
    square = float(way @ way)
    share = min(max(float((point - start) @ way) / square, 0.0), 1.0) if square else 0.0
    return float(np.linalg.norm(point - start - share * way))


def _surface(model: mujoco.MjModel, geom: int, rng: np.random.Generator) -> F64:
    """(40, 3) points on a geom, in its own frame."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    ways = rng.normal(0, 1, (40, 3))
    ways /= np.linalg.norm(ways, axis=1)[:, None]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return np.asarray(np.sign(ways) * size)
    height = rng.choice([-1.0, 1.0], 40)[:, None] * [0, 0, 1]
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        flat = ways[:, :2] / np.linalg.norm(ways[:, :2], axis=1)[:, None]
        return np.asarray(np.hstack([flat * size[0], np.zeros((40, 1))]) + height * size[1])
    assert kind == mujoco.mjtGeom.mjGEOM_CAPSULE
    return np.asarray(ways * size[0] + height * size[1])
