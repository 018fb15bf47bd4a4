"""What a robot's question must be before any policy is given it: arrays of the promised shapes, words of sane length.

The codec sees to types. A policy trusts shapes, and one question that it breaks on would be everybody's trouble.
"""

from __future__ import annotations

from reflexarc.wire.messages import Observation, State

LONGEST_INSTRUCTION, LONGEST_NAME = 4096, 256
"""Characters of an instruction, and of a session's or a camera's name: beyond any in use, and quick to read."""

_POSES, _WRENCH = ("pose_base_tcp", "pose_base_tcp_commanded"), "wrench_tcp"
_JOINTS = (
    "joint_position",
    "joint_velocity",
    "joint_effort",
    "joint_position_commanded",
    "joint_velocity_commanded",
)


def objection(observation: Observation) -> str:
    """What is wrong with it, empty if nothing is."""
    text = _state_objection(observation.state)
    if text:
        return text
    for name, dims in (("committed", 2), ("latent", 1)):
        array = getattr(observation, name)
        if array is not None and array.ndim != dims:
            return f"{name} has shape {array.shape}; it must have {dims} dimensions"
    words = [("instruction", observation.instruction, LONGEST_INSTRUCTION)]
    names = [("session", observation.session), *(("a camera's name", name) for name in observation.images)]
    for what, given, most in (*words, *((what, name, LONGEST_NAME) for what, name in names)):
        if len(given) > most:
            return f"{what} has {len(given)} characters; at most {most} are read"
    return ""


def _state_objection(state: State) -> str:
    joints = state.joint_position.size
    wanted = dict.fromkeys(_JOINTS, (joints,)) | dict.fromkeys(_POSES, (7,)) | {_WRENCH: (6,)}
    for name, shape in wanted.items():
        found = getattr(state, name).shape
        if found != shape or not joints:
            return f"state.{name} has shape {found}; it must be {shape if joints else '(n,), n joints'}"
    return ""
