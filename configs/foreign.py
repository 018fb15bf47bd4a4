"""Settings of checkpoints that others published: what their files leave unsaid about robot, cameras and actions.

A checkpoint says what its numbers are, not which camera it saw or whether 1 means an open gripper. These settings
stand in `reflexarc.yaml` inside the checkpoint folder, or in a YAML file of their own that names the folder.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reflexarc.configs.base import Config
from reflexarc.configs.engine import EngineConfig, Pi0EngineConfig
from reflexarc.configs.placement import Device, Precision

StateFeature = Literal[
    "position", "rotvec", "euler_xyz", "quat_wxyz", "joint_position", "gripper", "gripper_fingers"
]
"""What a foreign policy may feel: measured TCP position (3), its rotation as a rotation vector, as roll-pitch-yaw (3
each) or as a quaternion (4), joint positions (n), gripper opening (1), in the units of `StateUnits`; both fingers'
joints (2) as [w, -w], w of `finger_open_m`."""


class StateUnits(Config):
    """In what numbers a foreign policy was told our state in training.

    position_scale: m a unit. rotation_scale: rad a unit, of joints too, not of quaternions. gripper_closed,
    gripper_open: the values that mean it.
    """

    position_scale: float = Field(default=1.0, gt=0)
    rotation_scale: float = Field(default=1.0, gt=0)
    gripper_closed: float = 0.0
    gripper_open: float = 1.0

    @model_validator(mode="after")
    def _two_values(self) -> StateUnits:
        if self.gripper_closed == self.gripper_open:
            raise ValueError(f"gripper_closed and gripper_open are both {self.gripper_open}; name two values")
        return self


class ActionConvention(StateUnits):
    """How the numbers that a foreign policy emits become ours: units as above, and beside them

    space: `tcp_delta` [dx dy dz, rotation, gripper] a step, or `joint` [n positions, gripper]. rotation: `rotvec`, or
    `euler_xyz` for roll, pitch, yaw about fixed axes. frame: of the deltas; `tool` is the commanded TCP at each step.
    binarize_gripper: whichever of its two values is nearer.
    """

    space: Literal["tcp_delta", "joint"] = "tcp_delta"
    rotation: Literal["rotvec", "euler_xyz"] = "rotvec"
    frame: Literal["base", "tool"] = "base"
    binarize_gripper: bool = False


class ForeignConfig(Config):
    """What every foreign checkpoint needs.

    checkpoint: the folder, where these settings stand elsewhere. cameras: ours, in the order the policy was trained
    with. image_size: pixels of a side that cameras are asked for. rotate_180: turn every image upside down (LIBERO's
    are). step_s: duration of one action, s. horizon: actions of a chunk that are used; by default all that the
    checkpoint emits. state: what it feels, in order. state_units: in what numbers; by default see `felt_units`.
    finger_open_m: what each finger's joint reads where the gripper is open.
    """

    checkpoint: str = ""
    cameras: tuple[str, ...] = Field(default=("front",), min_length=1)
    image_size: int = Field(default=224, ge=16)
    rotate_180: bool = False
    step_s: float = Field(default=0.2, gt=0, le=2)
    horizon: int | None = Field(default=None, ge=1, le=128)
    state: tuple[StateFeature, ...] = ()
    state_units: StateUnits | None = None
    finger_open_m: float = Field(default=0.04, gt=0)
    action: ActionConvention = ActionConvention()
    device: Device = "auto"

    @property
    def felt_units(self) -> StateUnits:
        """`state_units`; by default the action's where that is positions, as the state is (space `joint`), and m, rad
        and 0..1 where it is deltas.
        """
        return self.state_units or (self.action if self.action.space == "joint" else StateUnits())


class OpenVlaConfig(ForeignConfig):
    """OpenVLA and OpenVLA-OFT.

    statistics: which data set's statistics turn outputs into actions; may be left out where there is one only.
    bounds: `q01_q99`, or `min_max` (some of OFT's). center_crop: for models fine-tuned with image augmentation: nine
    tenths of the area (OpenVLA-OFT). resize: `bicubic` is the published processor's; `lanczos3` goes through JPEG and
    Lanczos as the training data of LIBERO did. chunk: actions the parallel decoder emits (OFT: LIBERO 8, Bridge
    5). precision: `auto` is bfloat16 on a GPU, as published, and float32 on the CPU. state: OFT's on LIBERO.
    engine: how the model is run.
    """

    state: tuple[StateFeature, ...] = ("position", "rotvec", "gripper_fingers")
    statistics: str | None = None
    bounds: Literal["q01_q99", "min_max"] = "q01_q99"
    center_crop: bool = False
    resize: Literal["bicubic", "lanczos3"] = "bicubic"
    chunk: int | None = Field(default=None, ge=1, le=128)
    precision: Precision = "auto"
    engine: EngineConfig = EngineConfig()


class LeRobotConfig(ForeignConfig):
    """A policy of lerobot.

    image_keys: its image features in the order of `cameras`; by default those of its configuration, in their order.
    precision: in place of the configuration's `dtype` (π0, π0.5, π0-FAST, X-VLA); others have none and take `auto`
    only. engine: how π0 is run; the others are run by lerobot's own code.
    """

    cameras: tuple[str, ...] = Field(default=("front", "wrist"), min_length=1)
    image_keys: tuple[str, ...] = ()
    precision: Precision = "auto"
    engine: Pi0EngineConfig = Pi0EngineConfig()
    state: tuple[StateFeature, ...] = ("joint_position", "gripper")
