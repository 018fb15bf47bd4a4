"""An independent judge of commanded motion: finite differences and MuJoCo's own kinematics, nothing from `safety/`.

It knows the limits only from the two configs, derives from the arm's MJCF what belongs to which link, and measures
distances between the very geoms (the filter uses capsules around them) by `mj_geomDistance`.
"""

from __future__ import annotations

import itertools

import mujoco
import numpy as np

from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import JointLimits, RobotConfig
from reflexarc.configs.safety import Box, SafetyConfig
from reflexarc.wire.messages import F64

RELATIVE = 1e-9
EPS = float(np.finfo(np.float64).eps)
APART = 3
"""The arm is kept from itself where two parts have so many joints between them."""

WORLD_ROUNDING = 8.0
"""m: times eps, the rounding of a Cartesian position that is the product of some ten matrices."""


class Checker:
    """Judges streams of commanded joint positions of one robot under one safety configuration."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        self._robot, self._safety = robot, safety
        self.dt = 1.0 / robot.tick_hz
        spec = mujoco.MjSpec.from_file(str(resolve_asset(robot.mjcf)))
        self._boxes = [*safety.keep_out, *safety.obstacles]
        for number, box in enumerate(self._boxes):
            _add_box(spec, robot, f"checked box {number}", box)
        if safety.held_tool.radius:
            _add_held(spec, robot, safety)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._joints = [self._model.joint(name) for name in robot.joint_names]
        self._qpos = np.array([int(joint.qposadr[0]) for joint in self._joints])
        self._dof = np.array([int(joint.dofadr[0]) for joint in self._joints])
        self._site = int(self._model.site(robot.tcp_site).id)
        self._find_parts()

    def violations(self, positions: F64, gripper: F64 | None = None, context: int = 0) -> dict[str, float]:
        """Every broken limit and by how much, as a fraction or in m or rad; empty if none. See `worst`."""
        return self.broken(self.worst(positions, gripper, context))

    @staticmethod
    def broken(worst: dict[str, float]) -> dict[str, float]:
        """Those of `worst` that are more than rounding; a NaN is one."""
        return {rule: value for rule, value in worst.items() if not value <= RELATIVE}

    def worst(self, positions: F64, gripper: F64 | None = None, context: int = 0) -> dict[str, float]:
        """The worst of each limit, above 0 where it is broken: a fraction, m or rad.

        positions: (T, n) that start at rest, or whose first `context` (3 or more) ticks only give the motion before.
        """
        worst = self._joint_space(positions, context) | self._place(positions, context)
        if gripper is not None:
            rate = np.max(np.abs(np.diff(gripper))) / self.dt
            worst["gripper"] = float(rate) / self._robot.gripper.speed - 1
            worst["opening"] = float(np.max([gripper - 1, -gripper]))
        return worst

    def tcp(self, positions: F64) -> F64:
        """(T, 3) m, base frame, for joint positions (T, n)."""
        return self._poses(positions)[0]

    def _joint_space(self, positions: F64, context: int) -> dict[str, float]:
        joints, safety, dt = self._robot.joints, self._safety, self.dt
        margin = safety.position_margin_rad
        lower = np.array([joint.lower for joint in joints]) + margin
        upper = np.array([joint.upper for joint in joints]) - margin
        velocity, acceleration, jerk = (each[context:] for each in _derivatives(positions, dt))
        positions = positions[context:]
        after = positions[1:]
        most = np.array([joint.acceleration for joint in joints]) * safety.acceleration_scale
        most_jerk = np.array([joint.jerk for joint in joints]) * safety.jerk_scale
        rounding = 8 * EPS * np.abs(positions).max() / dt**3
        near = [_speed_bounds(joint, safety, after[:, i]) for i, joint in enumerate(joints)]
        down, up = np.array([low for low, _ in near]).T, np.array([high for _, high in near]).T
        top = np.array([joint.velocity for joint in joints]) * safety.velocity_scale
        return {
            "finite": 0.0 if np.isfinite(positions).all() else 1.0,
            "joint_position": float(np.max([positions - upper, lower - positions])),
            "joint_velocity": float(np.max(np.maximum(velocity - up, -down - velocity) / top)),
            "joint_acceleration": float(np.max(np.abs(acceleration) / most)) - 1,
            "joint_jerk": float(np.max((np.abs(jerk) - rounding) / most_jerk)) - 1,
        }

    def _place(self, positions: F64, context: int) -> dict[str, float]:
        safety, dt = self._safety, self.dt
        points, turns, gram, centers, axes = self._poses(positions)
        angular = _angular_steps(turns) / dt
        linear = np.diff(points, axis=0) / dt
        tcp_box, arm_box = safety.workspace, safety.arm_box
        extents = self._extents(axes)
        condition = np.linalg.eigvalsh(gram)
        ends = axes[:, :, :, 2] * self._half_length[:, None]
        moved = [np.diff(centers + sign * ends, axis=0)[:, self._moving] for sign in (-1, 1)]
        found = {
            "workspace": _out_of(tcp_box, points, points),
            "arm_box": _out_of(
                arm_box, (centers - extents)[:, self._moving], (centers + extents)[:, self._moving]
            ),
            "body_speed": float(np.max(np.linalg.norm(moved, axis=-1))) / dt / safety.body_speed - 1,
        }
        for name, rates in (("tcp", linear), ("tcp_angular", angular)):
            accelerations = np.diff(np.vstack([np.zeros(3), rates]), axis=0) / dt
            jerks = np.diff(np.vstack([np.zeros(3), accelerations]), axis=0) / dt
            for rule, values, order in (
                ("speed", rates, 1),
                ("acceleration", accelerations, 2),
                ("jerk", jerks, 3),
            ):
                limit = getattr(safety, f"{name}_{rule}")
                rounding = 2**order * WORLD_ROUNDING * EPS / dt**order
                largest = float(np.linalg.norm(values[context:], axis=1).max())
                found[f"{name}_{rule}"] = (largest - rounding) / limit - 1
        if len(self._robot.joints) >= 6:
            least = np.sqrt(np.maximum(condition[:, 0], 0))
            found["singularity"] = float(np.max(np.sqrt(condition[:, -1]) / safety.singularity_stop - least))
        return found | self._distances(positions, centers)

    def _poses(self, positions: F64) -> tuple[F64, F64, F64, F64, F64]:
        """TCP points (T, 3), its rotations (T, 3, 3), J·Jᵀ (T, 6, 6), centres and rotations of all geoms."""
        model, data, count = self._model, self._data, len(positions)
        points, turns = np.empty((count, 3)), np.empty((count, 3, 3))
        gram = np.empty((count, 6, 6))
        centers, axes = np.empty((count, model.ngeom, 3)), np.empty((count, model.ngeom, 3, 3))
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        for tick in range(count):
            data.qpos[self._qpos] = positions[tick]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, linear, angular, self._site)
            both = np.vstack([linear[:, self._dof], angular[:, self._dof]])
            points[tick], turns[tick] = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
            gram[tick] = both @ both.T
            centers[tick], axes[tick] = data.geom_xpos, data.geom_xmat.reshape(-1, 3, 3)
        return points, turns, gram, centers, axes

    def _find_parts(self) -> None:
        model = self._model
        arm = {int(joint.bodyid[0]): number + 1 for number, joint in enumerate(self._joints)}
        links, fingers = [], []
        for geom in range(model.ngeom):
            body, link, finger = int(model.geom_bodyid[geom]), 0, False
            while body and body not in arm:
                finger = finger or bool(model.body_jntnum[body])
                body = int(model.body_parentid[body])
            link = arm.get(body, 0)
            name = model.geom(geom).name
            links.append(-1 if name.startswith("checked box") else link)
            fingers.append(finger or name == "held tool")
        self._links = np.array(links)
        self._moving = self._links > 0
        round_ = np.isin(
            model.geom_type, [int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER)]
        )
        self._half_length = np.where(round_, model.geom_size[:, 1], 0.0)
        geoms = range(model.ngeom)
        safety = self._safety
        keep = len(safety.keep_out)
        self._pairs = [
            (a, b, 0.0 if box < keep else safety.distance_stop, "keep_out" if box < keep else "distance")
            for box, b in enumerate(np.flatnonzero(self._links < 0).tolist())
            for a in geoms
            if self._links[a] > 0 and not (box >= keep and fingers[a])
        ]
        self._pairs += [
            (a, b, safety.distance_stop, "self_distance")
            for a, b in itertools.combinations(geoms, 2)
            if min(self._links[a], self._links[b]) >= 0 and abs(self._links[a] - self._links[b]) >= APART
        ]

    def _distances(self, positions: F64, centers: F64) -> dict[str, float]:
        """How much nearer than allowed two geoms come, m; only where their bounding spheres (or boxes) say they may."""
        model, data = self._model, self._data
        found = {"keep_out": -1.0, "distance": -1.0, "self_distance": -1.0}
        near: list[tuple[int, int]] = []
        for pair, (a, b, keep, _) in enumerate(self._pairs):
            if self._links[b] < 0:
                corner = np.abs(centers[:, a] - centers[:, b]) - model.geom_size[b]
                apart = np.linalg.norm(np.maximum(corner, 0.0), axis=1) - model.geom_rbound[a]
            else:
                reach = model.geom_rbound[a] + model.geom_rbound[b]
                apart = np.linalg.norm(centers[:, a] - centers[:, b], axis=1) - reach
            near += [(tick, pair) for tick in np.flatnonzero(apart < keep + 1e-6).tolist()]
        for tick, pairs in itertools.groupby(sorted(near), key=lambda item: item[0]):
            data.qpos[self._qpos] = positions[tick]
            mujoco.mj_kinematics(model, data)
            for _, pair in pairs:
                a, b, keep, rule = self._pairs[pair]
                distance = mujoco.mj_geomDistance(model, data, a, b, keep + 0.01, None)
                found[rule] = max(found[rule], keep - distance)
        return found

    def _extents(self, axes: F64) -> F64:
        """(T, G, 3) m: half sizes of the axis-aligned boxes around the geoms."""
        model = self._model
        found = np.empty(axes.shape[:3])
        for geom in range(model.ngeom):
            size, turn = model.geom_size[geom], np.abs(axes[:, geom])
            kind = int(model.geom_type[geom])
            if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
                found[:, geom] = size[0]
            elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
                found[:, geom] = turn[:, :, 2] * size[1] + size[0]
            elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
                across = np.sqrt(np.maximum(1 - turn[:, :, 2] ** 2, 0))
                found[:, geom] = turn[:, :, 2] * size[1] + across * size[0]
            else:
                found[:, geom] = turn @ model.geom_aabb[geom, 3:]
        return found


def _derivatives(positions: F64, dt: float) -> tuple[F64, F64, F64]:
    """Velocity, acceleration and jerk of every tick of a stream (T, n) that starts at rest: (T-1, n) each."""
    zero = np.zeros(positions.shape[1])
    velocity = np.diff(positions, axis=0) / dt
    acceleration = np.diff(np.vstack([zero, velocity]), axis=0) / dt
    return velocity, acceleration, np.diff(np.vstack([zero, acceleration]), axis=0) / dt


def _speed_bounds(joint: JointLimits, safety: SafetyConfig, position: F64) -> tuple[F64, F64]:
    """Largest speed downwards and upwards at positions (T,), by the formula that Franka publishes for the FR3."""
    top = np.full(len(position), joint.velocity)
    near = joint.velocity_near_limits
    if near is None:
        return top * safety.velocity_scale, top * safety.velocity_scale
    up = np.sqrt(near.slope * np.maximum(near.upper - position, 0)) - near.offset
    down = np.sqrt(near.slope * np.maximum(position - near.lower, 0)) - near.offset
    bounds = (np.minimum(top, np.maximum(values, 0)) * safety.velocity_scale for values in (down, up))
    low, high = bounds
    return low, high


def _angular_steps(turns: F64) -> F64:
    """(T-1, 3) rad, base frame: rotation vectors from each rotation (T, 3, 3) to the next."""
    relative = turns[1:] @ turns[:-1].transpose(0, 2, 1)
    skew = (relative - relative.transpose(0, 2, 1)) / 2
    vector = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1)
    sine = np.linalg.norm(vector, axis=1)
    angle = np.arcsin(np.minimum(sine, 1.0))
    return vector * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-300), 1.0)[:, None]


def _out_of(box: Box, low: F64, high: F64) -> float:
    return float(np.max([np.max(high - np.array(box.upper)), np.max(np.array(box.lower) - low)]))


def _add_box(spec: mujoco.MjSpec, robot: RobotConfig, name: str, box: Box) -> None:
    low, high = np.array(box.lower), np.array(box.upper)
    base = next(body for body in spec.bodies if body.name == robot.base_body)
    base.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(low + high) / 2,
        size=(high - low) / 2,
        mass=0.0,
        contype=0,
        conaffinity=0,
    )


def _add_held(spec: mujoco.MjSpec, robot: RobotConfig, safety: SafetyConfig) -> None:
    site = next(site for site in spec.sites if site.name == robot.tcp_site)
    held = safety.held_tool
    start = np.array(site.pos)
    site.parent.add_geom(
        name="held tool",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *(start + [0.0, 0.0, max(held.length, 1e-6)])],
        size=[held.radius, 0.0, 0.0],
        mass=0.0,
        contype=0,
        conaffinity=0,
    )
