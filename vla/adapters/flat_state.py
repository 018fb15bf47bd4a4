"""A robot's state as the one vector that lerobot passes between an environment and a policy, and back.

joint position (n) rad · TCP pose (7), measured and commanded, m and wxyz · gripper opening, measured and commanded
· wrench on the tool (6) N and N·m
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import PolicyError
from reflexarc.wire.messages import State

_FIXED = 7 + 7 + 1 + 1 + 6


def flat_size(joints: int) -> int:
    """Length of the vector of an arm with that many joints."""
    return joints + _FIXED


def flatten(state: State) -> NDArray[np.float32]:
    """(n + 22,) float32."""
    gripper = np.array([state.gripper, state.gripper_commanded])
    parts = [
        state.joint_position,
        state.pose_base_tcp,
        state.pose_base_tcp_commanded,
        gripper,
        state.wrench_tcp,
    ]
    return np.concatenate(parts, dtype=np.float32)


def unflatten(vector: NDArray[np.float32], *, seq: int, t_ns: int) -> State:
    """The state, of the virtual clock. What the vector lacks (velocity, effort) is zero, joints are commanded as
    measured.

    Raises PolicyError if it is too short.
    """
    values = np.asarray(vector, dtype=np.float64)
    joints = values.size - _FIXED
    if values.ndim != 1 or joints < 1:
        raise PolicyError(
            f"a state of shape {values.shape} is not of this layout: joints and {_FIXED} more numbers"
        )
    position, measured, commanded, gripper, wrench = np.split(values, np.cumsum([joints, 7, 7, 2]))
    return State(
        t_ns=t_ns,
        clock="virtual",
        seq=seq,
        t_state_ns=t_ns,
        joint_position=position,
        joint_velocity=np.zeros(joints),
        joint_effort=np.zeros(joints),
        joint_position_commanded=position.copy(),
        joint_velocity_commanded=np.zeros(joints),
        pose_base_tcp=measured,
        pose_base_tcp_commanded=commanded,
        wrench_tcp=wrench,
        gripper=float(gripper[0]),
        gripper_commanded=float(gripper[1]),
        safety="active",
    )
