"""What is often wrong between a policy and a robot, each as a change that would undo it.

A suspect changes what the policy sees, or what is made of its answer; `preflight.py` finds out which of them explains
demonstrations better than things as they are. The list is what cost others most: images upside down or in BGR, a crop
that training had and acting has not (or the reverse), cameras exchanged, the gripper the other way round, statistics of
another data set, deltas or the state in another frame or unit, absolute targets taken for deltas.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.vla.adapters.convention import from_tool
from reflexarc.wire import geometry
from reflexarc.wire.contracts import Policy
from reflexarc.wire.images import decode_image, encode_image
from reflexarc.wire.messages import F64, CameraFrame, Observation

Pixels = NDArray[np.uint8]
See = Callable[[Observation], Observation]
Answer = Callable[[F64, Observation], F64]
"""(H, 7) canonical actions and what they answer, to (H, 7)."""

CROP_SIDES = {"slightly": math.sqrt(0.9), "to the middle": 0.75}
"""Nine tenths of the area, the crop of OpenVLA's augmentation; three quarters of a side, as a 4:3 picture made
square.
"""
UNIT_RATIO = 20.0
"""Degrees are 57 times as many as radians, millimetres 1000 times as many as metres."""
MOST_CAMERAS = 3
"""Orders of more cameras than this are not all tried."""


@runtime_checkable
class HasVariants(Protocol):
    """A policy that can also be had with other settings, at no cost of loading."""

    def variants(self) -> Mapping[str, Policy]:
        """By what differs, e.g. `statistics kuka`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Suspect:
    """name: short. found: what would be wrong. cure: what to do then. What undoes it is see, answer, both or policy."""

    name: str
    found: str
    cure: str
    see: See | None = None
    answer: Answer | None = None
    policy: Policy | None = None


def suspects(policy: Policy, *, joints: bool = False) -> list[Suspect]:
    """All that are tried on `policy`. joints: its actions are joint positions, not TCP deltas."""
    cameras = policy.info.cameras
    variants = policy.variants() if isinstance(policy, HasVariants) else {}
    return [
        *_image_suspects(cameras),
        *_camera_orders(cameras),
        *(
            Suspect(name, f"the policy is loaded with other settings than {name}", f"set {name}", policy=each)
            for name, each in variants.items()
        ),
        *_state_suspects(),
        *(_joint_suspects() if joints else _answer_suspects()),
    ]


def resized(frame: CameraFrame, height: int, width: int) -> CameraFrame:
    """The frame as a camera of another resolution would have given it."""
    if (frame.height, frame.width) == (height, width):
        return frame
    image = Image.fromarray(decode_image(frame)).resize((width, height), Image.Resampling.BILINEAR)
    return _framed(np.asarray(image), frame)


def _image_suspects(cameras: Sequence[str]) -> list[Suspect]:
    changes: list[tuple[str, Callable[[Pixels], Pixels], str, str]] = [
        ("rotated 180°", lambda image: image[::-1, ::-1], "upside down", "turn them by 180° (`rotate_180`)"),
        ("mirrored", lambda image: image[:, ::-1], "mirrored left to right", "mirror them back"),
        ("flipped", lambda image: image[::-1], "flipped top to bottom", "flip them back"),
        ("BGR", lambda image: image[..., ::-1], "in BGR", "exchange red and blue"),
    ]
    for name, side in CROP_SIDES.items():
        told = f"the middle {side:.0%} of each side"
        crop, undo = functools.partial(cropped, side=side), functools.partial(uncropped, side=side)
        changes += [
            (f"cropped {name}", crop, "without the crop that training had", f"crop {told} (`center_crop`)"),
            (
                f"uncropped {name}",
                undo,
                "cropped as they were not in training",
                f"do not crop {told} (`center_crop`)",
            ),
        ]
    groups = [tuple(cameras), *((name,) for name in cameras)] if len(cameras) > 1 else [tuple(cameras)]
    result = []
    for group, (name, change, found, cure) in itertools.product(groups, changes):
        whose = "" if len(group) == len(cameras) else f" of {group[0]}"
        see = _on_images(change, group)
        result.append(
            Suspect(f"images{whose} {name}", f"images{whose} reach the policy {found}", cure, see=see)
        )
    return result


def _camera_orders(cameras: Sequence[str]) -> list[Suspect]:
    if not 1 < len(cameras) <= MOST_CAMERAS:
        return []
    result = []
    for order in list(itertools.permutations(cameras))[1:]:
        told = ", ".join(order)
        found = f"the cameras reach the policy in another order than {told}"
        see = _in_order(dict(zip(cameras, order, strict=True)))
        result.append(Suspect(f"cameras {told}", found, f"give its cameras as [{told}]", see=see))
    return result


def _state_suspects() -> list[Suspect]:
    changes: list[tuple[str, See, str, str]] = [
        (
            "degrees",
            _on_state(joint_position=np.degrees),
            "joint positions are told in radians, in training they were in degrees",
            "rotation_scale: 0.0174533",
        ),
        (
            "gripper polarity",
            _on_state(gripper=_opposite),
            "the gripper is told the other way round than in training",
            "gripper_closed: 1, gripper_open: 0",
        ),
        (
            "gripper percent",
            _on_state(gripper=lambda opening: 100 * opening),
            "the gripper is told in 0..1, in training it was in 0..100",
            "gripper_open: 100",
        ),
    ]
    return [
        Suspect(f"state {name}", found, f"set `state_units: {{{units}}}`", see=see)
        for name, see, found, units in changes
    ]


def _joint_suspects() -> list[Suspect]:
    """Where the state's units are the action's unless told apart, what is wrong with one is with the other."""
    relative = "joint positions are relative to the present ones and are taken for absolute"
    cure = "let the policy's postprocessor add the present position (lerobot: use_relative_actions)"
    return [
        dataclasses.replace(_gripper_suspect(), see=_on_state(gripper=_opposite)),
        Suspect("relative joints", relative, cure, answer=_relative_to_absolute),
        Suspect(
            "state radians",
            "joint positions are told in degrees, in training they were in radians",
            "set `state_units: {rotation_scale: 1}`",
            see=_on_state(joint_position=np.radians),
        ),
    ]


def _gripper_suspect() -> Suspect:
    cure = "exchange `gripper_closed` and `gripper_open`"
    return Suspect(
        "gripper polarity", "the gripper opens where it should close", cure, answer=_gripper_flipped
    )


def joint_degrees() -> Suspect:
    """Of joint positions, where they are many times as large as the demonstrations'."""
    cure = "set `action.rotation_scale: 0.0174533`, which holds for the state, too"

    def answer(actions: F64, observation: Observation) -> F64:
        return np.concatenate([np.radians(actions[:, :-1]), actions[:, -1:]], axis=1)

    see = _on_state(joint_position=np.degrees)
    return Suspect("degrees", "joint positions are in degrees", cure, see=see, answer=answer)


def _answer_suspects() -> list[Suspect]:
    turns = [
        Suspect(
            f"base turned {degrees}°",
            f"deltas are in a base frame turned by {degrees}° about z",
            f"turn actions by {degrees}° about z, or mount the frame as the demonstrations have it",
            answer=_turned(math.radians(degrees)),
        )
        for degrees in (90, 180, 270)
    ]
    return [
        _gripper_suspect(),
        Suspect(
            "tool frame",
            "deltas are in the tool's frame and are taken for the base's",
            "set `action.frame: tool`",
            answer=_tool_to_base,
        ),
        Suspect(
            "base frame",
            "deltas are in the base frame and were turned as if in the tool's",
            "set `action.frame: base`",
            answer=_base_to_tool,
        ),
        *turns,
        Suspect(
            "absolute targets",
            "positions are absolute and are taken for deltas",
            "subtract the commanded position",
            answer=_absolute_to_delta,
        ),
    ]


def cropped(image: Pixels, side: float) -> Pixels:
    """The middle of the image, `side` of its height and width, scaled up to its size."""
    height, width = image.shape[:2]
    inner = (height * (1 - side) / 2, width * (1 - side) / 2)
    box = (inner[1], inner[0], width - inner[1], height - inner[0])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


def uncropped(image: Pixels, side: float) -> Pixels:
    """The image scaled down so that a crop gives it back; its border continues the outermost pixels."""
    height, width = image.shape[:2]
    small = (round(width * side), round(height * side))
    inner = np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BILINEAR))
    top, left = (height - small[1]) // 2, (width - small[0]) // 2
    pad = ((top, height - small[1] - top), (left, width - small[0] - left), (0, 0))
    return np.pad(inner, pad, mode="edge")


def _framed(image: Pixels, like: CameraFrame) -> CameraFrame:
    return encode_image(
        np.ascontiguousarray(image),
        camera=like.camera,
        seq=like.seq,
        t_capture_ns=like.t_capture_ns,
        clock=like.clock,
    )


def _on_images(change: Callable[[Pixels], Pixels], cameras: Sequence[str]) -> See:
    def see(observation: Observation) -> Observation:
        images = dict(observation.images)
        for name in cameras:
            images[name] = _framed(change(decode_image(images[name])), images[name])
        return msgspec.structs.replace(observation, images=images)

    return see


def _in_order(whose: Mapping[str, str]) -> See:
    """Each camera shows what another one saw."""

    def see(observation: Observation) -> Observation:
        images = {
            name: msgspec.structs.replace(observation.images[whose.get(name, name)], camera=name)
            for name in observation.images
        }
        return msgspec.structs.replace(observation, images=images)

    return see


def _on_state(**changes: Callable[[Any], Any]) -> See:
    """Fields of the state are told as `changes` make them."""

    def see(observation: Observation) -> Observation:
        state = observation.state
        told = {name: change(getattr(state, name)) for name, change in changes.items()}
        return msgspec.structs.replace(observation, state=msgspec.structs.replace(state, **told))

    return see


def _opposite(opening: float) -> float:
    return 1.0 - opening


def _gripper_flipped(actions: F64, observation: Observation) -> F64:
    return np.concatenate([actions[:, :-1], 1.0 - actions[:, -1:]], axis=1)


def _relative_to_absolute(actions: F64, observation: Observation) -> F64:
    now = observation.state.joint_position_commanded
    return np.concatenate([now + actions[:, :-1], actions[:, -1:]], axis=1)


def _tool_to_base(actions: F64, observation: Observation) -> F64:
    return from_tool(actions, observation.state.pose_base_tcp_commanded)


def _base_to_tool(actions: F64, observation: Observation) -> F64:
    """The reverse: the orientation follows the deltas as they were given."""
    pose, result = observation.state.pose_base_tcp_commanded, actions.copy()
    for row, given in zip(result, actions, strict=True):
        back = geometry.conjugate(pose[3:])
        row[:3], row[3:6] = geometry.rotate(back, given[:3]), geometry.rotate(back, given[3:6])
        pose = geometry.apply_delta(pose, given[:6])
    return result


def _turned(angle: float) -> Answer:
    matrix = geometry.to_matrix(geometry.exp(np.array([0.0, 0.0, angle])))

    def answer(actions: F64, observation: Observation) -> F64:
        return np.concatenate([actions[:, :3] @ matrix.T, actions[:, 3:6] @ matrix.T, actions[:, 6:]], axis=1)

    return answer


def _absolute_to_delta(actions: F64, observation: Observation) -> F64:
    before = np.vstack([observation.state.pose_base_tcp_commanded[:3], actions[:-1, :3]])
    return np.concatenate([actions[:, :3] - before, actions[:, 3:]], axis=1)


def unit_suspects(position_ratio: float, rotation_ratio: float) -> list[Suspect]:
    """Of answers that are that many times as large as what was done: only there, or a small unit makes anything
    timid.
    """
    result = []
    if position_ratio > UNIT_RATIO:
        cure = "set `action.position_scale: 0.001`"
        result.append(Suspect("millimetres", "positions are in mm", cure, answer=_scaled(1e-3, 1.0)))
    if rotation_ratio > UNIT_RATIO:
        cure = "set `action.rotation_scale: 0.0174533`"
        result.append(
            Suspect("degrees", "rotations are in degrees", cure, answer=_scaled(1.0, math.pi / 180))
        )
    return result


def _scaled(position: float, rotation: float) -> Answer:
    factors = np.array([position] * 3 + [rotation] * 3 + [1.0])
    return lambda actions, observation: actions * factors
