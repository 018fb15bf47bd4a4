"""From what a foreign policy emits to the canonical action, and from our state to what it feels.

Nothing else in the project turns a rotation, scales an action or flips a gripper.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.configs.action import ActionDim, ActionSpec, Alignment, tcp_delta_spec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.foreign import ActionConvention, ForeignConfig, StateFeature
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, State

TCP_SIZE = 7
"""`[dx dy dz, three of rotation, gripper]`."""

MOST_JOINTS = 7
"""Of one arm; a policy that emits more numbers moves two (ALOHA: 14)."""


def foreign_spec(convention: ActionConvention, size: int, horizon: int, step_s: float) -> ActionSpec:
    """The action spec of a policy that emits `size` numbers a step. Raises PolicyError where that does not fit.

    A single action starts when it arrives, as OpenVLA's does; a chunk at its observation.
    """
    alignment: Alignment = "on_arrival" if horizon == 1 else "at_observation"
    if convention.space == "tcp_delta":
        if size != TCP_SIZE:
            raise PolicyError(
                f"action space: the policy emits {size} numbers a step, tcp_delta has {TCP_SIZE}; "
                "for joint positions set `action: {space: joint}`"
            )
        return tcp_delta_spec(horizon, step_s, alignment)
    if size - 1 > MOST_JOINTS:
        raise PolicyError(
            f"action space: the policy emits {size} numbers a step; `joint` is one arm of at most {MOST_JOINTS} joints "
            "and its gripper: two arms (ALOHA) are not supported"
        )
    bound = 2.0 * math.pi
    dims = [
        ActionDim(name=f"q{i + 1}", unit="rad", frame="joint", delta=False, lower=-bound, upper=bound)
        for i in range(size - 1)
    ]
    dims.append(ActionDim(name="gripper", unit="opening", frame="gripper", delta=False, lower=0.0, upper=1.0))
    spec_id = f"joint-{size - 1}/h{horizon}/{round(step_s * 1000)}ms"
    return ActionSpec(id=spec_id, dims=tuple(dims), step_s=step_s, horizon=horizon, alignment=alignment)


def to_canonical(actions: F64, convention: ActionConvention, pose_base_tcp: F64) -> F64:
    """(H, D) as emitted to (H, D) as in the spec. pose_base_tcp: (7,) commanded when the picture was taken."""
    result = np.asarray(actions, dtype=np.float64).copy()
    span = convention.gripper_open - convention.gripper_closed
    opening = (result[:, -1] - convention.gripper_closed) / span
    result[:, -1] = np.round(opening.clip(0, 1)) if convention.binarize_gripper else opening.clip(0, 1)
    if convention.space == "joint":
        result[:, :-1] *= convention.rotation_scale
        return result
    result[:, :3] *= convention.position_scale
    result[:, 3:6] *= convention.rotation_scale
    if convention.rotation == "euler_xyz":
        result[:, 3:6] = np.stack([geometry.log(euler_xyz_to_quat(row)) for row in result[:, 3:6]])
    return from_tool(result, pose_base_tcp) if convention.frame == "tool" else result


def euler_xyz_to_quat(angles: F64) -> F64:
    """The rotation by roll about x, then pitch about y, then yaw about z, axes fixed: Rz(yaw)·Ry(pitch)·Rx(roll)."""
    roll, pitch, yaw = (geometry.exp(axis * angle) for axis, angle in zip(np.eye(3), angles, strict=True))
    return geometry.multiply(yaw, geometry.multiply(pitch, roll))


def quat_to_euler_xyz(quat: F64) -> F64:
    """(3,) roll, pitch, yaw of a rotation; `euler_xyz_to_quat` undoes it."""
    matrix = geometry.to_matrix(quat)
    pitch = math.asin(float(np.clip(-matrix[2, 0], -1.0, 1.0)))
    return np.array([math.atan2(matrix[2, 1], matrix[2, 2]), pitch, math.atan2(matrix[1, 0], matrix[0, 0])])


def state_vector(state: State, config: ForeignConfig) -> F64:
    """(P,) what the policy feels, in the order of `config.state` and in its own units: what `to_canonical` undoes.

    Raises PolicyError on values that are not finite.
    """
    pose, units = state.pose_base_tcp, config.felt_units
    width = state.gripper * config.finger_open_m
    gripper = units.gripper_closed + state.gripper * (units.gripper_open - units.gripper_closed)
    columns: dict[StateFeature, F64] = {
        "position": pose[:3] / units.position_scale,
        "rotvec": geometry.log(pose[3:]) / units.rotation_scale,
        "euler_xyz": quat_to_euler_xyz(pose[3:]) / units.rotation_scale,
        "quat_wxyz": pose[3:],
        "joint_position": state.joint_position / units.rotation_scale,
        "gripper": np.array([gripper]),
        "gripper_fingers": np.array([width, -width]),
    }
    parts = [columns[name] for name in config.state]
    vector = np.concatenate(parts) if parts else np.zeros(0)
    if not np.isfinite(vector).all():
        raise PolicyError("the observation's state holds values that are not finite")
    return vector


def from_tool(actions: F64, pose: F64) -> F64:
    """(H, 7) deltas in the tool's own frame to deltas in the base frame, each from where the one before led to.

    pose: (7,) of the tool at the start.
    """
    result = actions.copy()
    for row in result:
        row[:3] = geometry.rotate(pose[3:], row[:3])
        row[3:6] = geometry.rotate(pose[3:], row[3:6])
        pose = geometry.apply_delta(pose, row[:6])
    return result
