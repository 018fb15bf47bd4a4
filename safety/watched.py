"""An arm as the independent monitor sees it: where every part is and how fast, beside what it must keep away from.

Everything is MuJoCo's own: kinematics, velocities, and distances between the very geoms of the arm's MJCF. The filter
covers these by capsules and has kinematics of its own; the two have the model and the limits in common, and no code.
"""

from __future__ import annotations

import dataclasses
import itertools

import mujoco
import numpy as np

from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import Box, HeldTool, SafetyConfig
from reflexarc.wire.messages import F64

APART = 3
"""Parts with so many joints between them are kept from each other; nearer ones are as near as the arm is built."""
NEAR = 0.05
"""m: two things further apart than this, beyond what must be kept, are not measured exactly."""
ROUND = tuple(int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind}")) for kind in ("SPHERE", "CAPSULE", "CYLINDER"))


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A geom of the arm. link: how many of the arm's joints it hangs on. working: a finger, or held: it may touch."""

    geom: int
    name: str
    link: int
    working: bool


class WatchedArm:
    """One arm, what it holds, and the boxes about it. Not thread-safe: it holds MuJoCo's scratch memory.

    rules: what each row of `beyond` says, in words.
    """

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        spec = mujoco.MjSpec.from_file(str(resolve_asset(robot.mjcf)))
        boxes = (*safety.keep_out, *safety.obstacles)
        for number, box in enumerate(boxes):
            _add_box(spec.body(robot.base_body), f"watched {number}", box)
        if safety.held_tool.radius > 0 or safety.held_tool.length > 0:
            _add_held(spec.site(robot.tcp_site), safety.held_tool)
        self._model = model = spec.compile()
        self._data = mujoco.MjData(model)
        joints = [model.joint(name) for name in robot.joint_names]
        self._qpos = [int(joint.qposadr[0]) for joint in joints]
        self._dof = [int(joint.dofadr[0]) for joint in joints]
        slides = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE)
        self._fingers, self._open = model.jnt_qposadr[slides], model.jnt_range[slides, 1]
        self._site = model.site(robot.tcp_site).id
        self._base = model.body(robot.base_body).id
        self._tcp_box, self._arm_box = _corners(safety.workspace), _corners(safety.arm_box)
        parts = _parts(model, self._base, [int(joint.bodyid[0]) for joint in joints])
        self._moving = [part for part in parts if part.link > 0]
        self._geoms = np.array([part.geom for part in self._moving])
        self._shape()
        self._pair(parts, safety)

    def move(self, position: F64, velocity: F64, opening: float) -> None:
        """Set the arm to joint position (n,) rad and velocity (n,) rad/s, its fingers to an opening 0..1."""
        model, data = self._model, self._data
        data.qpos[self._qpos], data.qvel[self._dof] = position, velocity
        data.qpos[self._fingers] = min(max(opening, 0.0), 1.0) * self._open
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)

    def tcp_speed(self) -> float:
        """Of the TCP, m/s."""
        moved = np.zeros(6)
        mujoco.mj_objectVelocity(self._model, self._data, mujoco.mjtObj.mjOBJ_SITE, self._site, moved, 0)
        return float(np.linalg.norm(moved[3:]))

    def fastest_part(self) -> tuple[float, str]:
        """The highest speed of either end of any part, m/s, and which part that is."""
        model, data, geoms = self._model, self._data, self._geoms
        ends = data.geom_xpos[geoms, None] + self._ends @ data.geom_xmat[geoms].reshape(-1, 3, 3).transpose(
            0, 2, 1
        )
        bodies = model.geom_bodyid[geoms]
        arms = ends - data.subtree_com[model.body_rootid[bodies], None]
        spin, way = data.cvel[bodies, None, :3], data.cvel[bodies, None, 3:]
        speeds = np.linalg.norm(way + np.cross(spin, arms), axis=-1).max(axis=1)
        worst = int(np.argmax(speeds))
        return float(speeds[worst]), self._moving[worst].name

    def beyond(self) -> F64:
        """(K,) m: how far each thing is where it must not be; negative where it is not."""
        data = self._data
        turn, origin = data.xmat[self._base].reshape(3, 3), data.xpos[self._base]
        tcp = (data.site_xpos[self._site] - origin) @ turn
        centers = (data.geom_xpos - origin) @ turn
        axes = turn.T @ data.geom_xmat[self._geoms].reshape(-1, 3, 3)
        along = np.abs(axes[:, :, 2])
        across = np.where(self._flat[:, None], np.sqrt(np.maximum(1 - along**2, 0.0)), 1.0)
        half = np.where(
            self._round[:, None],
            along * self._length[:, None] + across * self._radius[:, None],
            (np.abs(axes) @ self._half[:, :, None])[:, :, 0],
        )
        middle = centers[self._geoms] + (axes @ self._middle[:, :, None])[:, :, 0]
        return np.concatenate(
            [
                [_outside(self._tcp_box, tcp, tcp)],
                _outside(self._arm_box, middle - half, middle + half),
                self._keep - self._distances(centers),
            ]
        )

    def _distances(self, centers: F64) -> F64:
        """(P,) m of each pair: exact where it is near, else at least the distance of the balls or boxes about them."""
        apart = np.abs(centers[self._first] - centers[self._second]) - self._size
        found: F64 = np.linalg.norm(np.maximum(apart, 0.0), axis=1) - self._ball
        for pair in np.flatnonzero(found < self._keep + NEAR):
            a, b = int(self._first[pair]), int(self._second[pair])
            most = float(self._keep[pair]) + NEAR
            found[pair] = mujoco.mj_geomDistance(self._model, self._data, a, b, most, None)
        return found

    def _shape(self) -> None:
        """What of the moving parts' shapes is needed at every look."""
        model, geoms = self._model, self._geoms
        kinds = model.geom_type[geoms]
        self._round, self._flat = np.isin(kinds, ROUND), kinds == ROUND[2]
        self._radius = model.geom_size[geoms, 0]
        self._length = np.where(kinds == ROUND[0], 0.0, model.geom_size[geoms, 1])
        self._middle, self._half = model.geom_aabb[geoms, :3], model.geom_aabb[geoms, 3:]
        self._ends = np.zeros((len(geoms), 2, 3))
        longest = np.where(self._round, 2, np.argmax(self._half, axis=1))
        reach = np.where(self._round, self._length, self._half.max(axis=1))
        for part, axis in enumerate(longest):
            self._ends[part, :, axis] = -reach[part], reach[part]

    def _pair(self, parts: list[_Part], safety: SafetyConfig) -> None:
        """Parts and boxes, and parts among themselves, that must keep apart."""
        model, near = self._model, safety.distance_stop
        pairs: list[tuple[int, int, float, str]] = []
        for number, box in enumerate((*safety.keep_out, *safety.obstacles)):
            wall, forbidden = model.geom(f"watched {number}").id, number < len(safety.keep_out)
            for part in self._moving:
                if forbidden:
                    pairs.append((part.geom, wall, 0.0, f"{part.name} is in keep-out {box.name}"))
                elif not part.working:
                    pairs.append((part.geom, wall, near, f"{part.name} is too near {box.name}"))
        for one, other in itertools.combinations(parts, 2):
            if abs(one.link - other.link) >= APART:
                pairs.append((one.geom, other.geom, near, f"{one.name} is too near {other.name}"))
        self._first, self._second = (np.array([pair[k] for pair in pairs], dtype=int) for k in (0, 1))
        self._keep = np.array([pair[2] for pair in pairs])
        wall_ids = [
            model.geom(f"watched {k}").id for k in range(len(safety.keep_out) + len(safety.obstacles))
        ]
        boxed = np.isin(self._second, wall_ids)
        # About a box of the base frame the box itself, about any part the ball that holds it.
        self._size = np.where(boxed[:, None], model.geom_size[self._second], 0.0)
        self._ball = model.geom_rbound[self._first] + np.where(boxed, 0.0, model.geom_rbound[self._second])
        self.rules = (
            "the TCP is outside its workspace",
            *(f"{part.name} is outside the arm's box" for part in self._moving),
            *(pair[3] for pair in pairs),
        )


def _parts(model: mujoco.MjModel, base: int, arm: list[int]) -> list[_Part]:
    """All geoms at or below the base but the boxes. arm: the bodies of the arm's joints, in their order."""
    found = []
    for geom in range(model.ngeom):
        name = model.geom(geom).name
        body, finger = int(model.geom_bodyid[geom]), name == "held tool"
        called = name or model.body(body).name
        while body not in (0, base, *arm):
            finger = finger or bool(model.body_jntnum[body])
            body = int(model.body_parentid[body])
        if body and not name.startswith("watched "):
            found.append(_Part(geom, called, arm.index(body) + 1 if body in arm else 0, finger))
    return found


def _outside(box: F64, low: F64, high: F64) -> F64:
    """(...) m that something between low and high (..., 3) sticks out of a box (2, 3); negative inside."""
    return np.asarray(np.max(np.maximum(box[0] - low, high - box[1]), axis=-1))


def _corners(box: Box) -> F64:
    return np.array([box.lower, box.upper], dtype=np.float64)


def _add_box(base: mujoco.MjsBody, name: str, box: Box) -> None:
    low, high = _corners(box)
    base.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(low + high) / 2,
        size=(high - low) / 2,
        mass=0.0,
        contype=0,
        conaffinity=0,
    )


def _add_held(tcp: mujoco.MjsSite, held: HeldTool) -> None:
    """A capsule from the TCP onwards, along its z axis."""
    ahead = np.zeros(3)
    mujoco.mju_rotVecQuat(ahead, np.array([0.0, 0.0, 1.0]), np.array(tcp.quat))
    start = np.array(tcp.pos)
    tcp.parent.add_geom(
        name="held tool",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *(start + max(held.length, 1e-6) * ahead)],
        size=[max(held.radius, 1e-3), 0.0, 0.0],
        mass=0.0,
        contype=0,
        conaffinity=0,
    )
