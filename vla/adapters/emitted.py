"""The way back from canonical actions to what a policy would have emitted: for logs, which show its own bins."""

from __future__ import annotations

import numpy as np

from reflexarc.configs.foreign import ActionConvention
from reflexarc.vla.adapters.convention import quat_to_euler_xyz
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64


def to_emitted(actions: F64, convention: ActionConvention, pose_base_tcp: F64) -> F64:
    """(H, D) as in the spec to (H, D) as emitted; `to_canonical` undoes it. pose_base_tcp: (7,) as there."""
    result = np.asarray(actions, dtype=np.float64).copy()
    span = convention.gripper_open - convention.gripper_closed
    result[:, -1] = convention.gripper_closed + result[:, -1] * span
    if convention.space == "joint":
        result[:, :-1] /= convention.rotation_scale
        return result
    if convention.frame == "tool":
        result = _to_tool(result, pose_base_tcp)
    if convention.rotation == "euler_xyz":
        result[:, 3:6] = np.stack([quat_to_euler_xyz(geometry.exp(row)) for row in result[:, 3:6]])
    result[:, :3] /= convention.position_scale
    result[:, 3:6] /= convention.rotation_scale
    return result


def _to_tool(actions: F64, pose: F64) -> F64:
    """(H, 7) deltas in the base frame to deltas in the tool's, each from where the one before led to."""
    result = actions.copy()
    for row in result:
        turn, pose = geometry.conjugate(pose[3:]), geometry.apply_delta(pose, row[:6])
        row[:3] = geometry.rotate(turn, row[:3])
        row[3:6] = geometry.rotate(turn, row[3:6])
    return result
