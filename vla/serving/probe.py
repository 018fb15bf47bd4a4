"""A question that any policy can answer: to warm it up, or to measure how long it takes."""

from __future__ import annotations

import numpy as np

from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import Observation, PolicyInfo, State


def grey_observation(info: PolicyInfo, *, seq: int = 0, session: str = "", joints: int = 7) -> Observation:
    """An arm at rest before grey cameras, with images of the size that `info` asks for."""
    image = np.full((info.image_height, info.image_width, 3), 128, dtype=np.uint8)
    still, pose = np.zeros(joints), np.array([0.5, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0])
    state = State(
        t_ns=0,
        seq=seq,
        t_state_ns=0,
        joint_position=still,
        joint_velocity=still,
        joint_effort=still,
        joint_position_commanded=still,
        joint_velocity_commanded=still,
        pose_base_tcp=pose,
        pose_base_tcp_commanded=pose,
        wrench_tcp=np.zeros(6),
        gripper=1.0,
        gripper_commanded=1.0,
        safety="active",
    )
    frames = {name: encode_image(image, camera=name, seq=seq, t_capture_ns=0) for name in info.cameras}
    return Observation(
        t_ns=0,
        seq=seq,
        t_obs_ns=0,
        state=state,
        images=frames,
        instruction="reach the red ball",
        session=session,
    )
