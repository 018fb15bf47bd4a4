"""An independent judge of commanded motion: finite differences and its own kinematics, nothing from `safety/`."""

from __future__ import annotations

import mujoco
import numpy as np

from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.wire.messages import F64

RELATIVE = 1e-9


def rotation(quaternion: F64) -> F64:
    """Rotation matrix of a unit quaternion (w first)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class Checker:
    """Judges streams of commanded joint positions of one robot under one safety configuration."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        self._robot, self._safety = robot, safety
        self.dt = 1.0 / robot.tick_hz
        self._model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
        self._chain = self._chain_to_tcp()

    def tcp(self, positions: F64) -> F64:
        """(T, 3) m, base frame, for joint positions (T, n): the chain multiplied out, from base to TCP."""
        count = len(positions)
        turn = np.broadcast_to(np.eye(3), (count, 3, 3))
        point = np.zeros((count, 3))
        for offset, fixed, axis, joint in self._chain:
            point = point + turn @ offset
            turn = turn @ fixed
            if joint >= 0:
                turn = turn @ _axis_turns(axis, positions[:, joint])
        return point

    def violations(self, positions: F64, gripper: F64 | None = None) -> dict[str, float]:
        """Every broken limit and by how much, as a fraction; empty if none. The stream starts at rest."""
        joints, safety, dt = self._robot.joints, self._safety, self.dt
        margin = safety.position_margin_rad
        lower = np.array([joint.lower for joint in joints]) + margin
        upper = np.array([joint.upper for joint in joints]) - margin
        top_speed = np.array([joint.velocity for joint in joints]) * safety.velocity_scale
        top_acceleration = np.array([joint.acceleration for joint in joints]) * safety.acceleration_scale
        velocity = np.diff(positions, axis=0) / dt
        acceleration = np.diff(np.vstack([np.zeros(len(joints)), velocity]), axis=0) / dt
        points = self.tcp(positions)
        speed = np.linalg.norm(np.diff(points, axis=0), axis=1) / dt
        box_low, box_high = np.array(safety.workspace.lower), np.array(safety.workspace.upper)
        worst = {
            "finite": 0.0 if np.isfinite(positions).all() else 1.0,
            "joint_position": float(np.max([positions - upper, lower - positions])),
            "joint_velocity": float(np.max(np.abs(velocity) / top_speed)) - 1,
            "joint_acceleration": float(np.max(np.abs(acceleration) / top_acceleration)) - 1,
            "tcp_speed": float(np.max(speed)) / safety.tcp_speed - 1,
            "workspace": float(np.max([points - box_high, box_low - points])),
        }
        if gripper is not None:
            rate = np.max(np.abs(np.diff(gripper))) / dt
            worst["gripper"] = float(rate) / self._robot.gripper.speed - 1
            worst["opening"] = float(np.max([gripper - 1, -gripper]))
        return {rule: value for rule, value in worst.items() if not value <= RELATIVE}

    def _chain_to_tcp(self) -> list[tuple[F64, F64, F64, int]]:
        """(offset, fixed rotation, joint axis, joint index or -1) from the base body to the TCP site."""
        model = self._model
        site = model.site(self._robot.tcp_site)
        chain = [(np.array(site.pos), np.eye(3), np.zeros(3), -1)]
        body = int(model.site_bodyid[site.id])
        base = int(model.body(self._robot.base_body).id)
        names = self._robot.joint_names
        while body != base:
            joint, axis = -1, np.zeros(3)
            if model.body_jntnum[body]:
                index = int(model.body_jntadr[body])
                joint = names.index(model.joint(index).name)
                axis = np.array(model.jnt_axis[index])
                assert not model.jnt_pos[index].any()
            chain.append((model.body_pos[body].copy(), rotation(model.body_quat[body]), axis, joint))
            body = int(model.body_parentid[body])
        return chain[::-1]


def _axis_turns(axis: F64, angles: F64) -> F64:
    """(T, 3, 3) rotations about a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sines, cosines = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) + sines * cross + (1 - cosines) * (cross @ cross)
