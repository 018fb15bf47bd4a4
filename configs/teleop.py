"""Schema of teleoperation: which device, what each of its controls does, and how fast the arm may then go."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from reflexarc.configs.base import Config
from reflexarc.configs.errors import unknown

MOTIONS = ("x", "y", "z", "roll", "pitch", "yaw")
"""Of the TCP in the base frame: x forward, y to the left, z up, and about them."""

Key = Literal["start", "success", "fail", "redo", "delete", "give_back", "quit"]
"""What a person tells the episode, rather than the arm."""

KEYS: tuple[str, ...] = get_args(Key)
GRIPPER = ("open", "close", "toggle", "gripper")
PACE = ("slower", "faster")
HOLDS = ("deadman", "clutch")
"""`deadman`: the arm follows while it is pressed. `clutch`: pressing switches between following and not."""

ACTIONS = (*(sign + name for name in MOTIONS for sign in "+-"), *GRIPPER, *PACE, *HOLDS, *KEYS)


class KeyboardDevice(Config):
    """The keyboard of the terminal. A terminal tells of no release: a key is held for `release_s` after its last
    repeat."""

    kind: Literal["keyboard"]
    release_s: float = Field(default=0.15, gt=0.02, le=1.0)


class GamepadDevice(Config):
    """A gamepad that SDL knows. index: which of several."""

    kind: Literal["gamepad"]
    index: int = Field(default=0, ge=0)


class SpaceMouseDevice(Config):
    """A 3Dconnexion 6D mouse. path: of its HID device; the first one that is found if empty."""

    kind: Literal["spacemouse"]
    path: str = ""


class LeRobotDevice(Config):
    """A device that lerobot drives. type, options: of lerobot's own `TeleoperatorConfig`.

    pose: the device tells a pose, as lerobot's phone does, and not joints. joints: by joint of the robot, the value of
    lerobot's action it follows and the factor that makes radians of it, with its sign. gripper: the value that is the
    gripper's, and what it reads when closed and when open.
    """

    kind: Literal["lerobot"]
    type: str
    options: dict[str, str | int | float | bool] = {}
    pose: bool = False
    joints: dict[str, tuple[str, float]] = {}
    gripper: tuple[str, float, float] | None = None

    @model_validator(mode="after")
    def _moves_something(self) -> LeRobotDevice:
        if self.pose == bool(self.joints):
            raise ValueError("a lerobot device tells either a pose (pose: true) or joints")
        if self.gripper is not None and self.gripper[1] == self.gripper[2]:
            raise ValueError(f"gripper reads {self.gripper[1]} both closed and open")
        return self


Device = Annotated[
    KeyboardDevice | GamepadDevice | SpaceMouseDevice | LeRobotDevice, Field(discriminator="kind")
]


class TeleopConfig(Config):
    """One way to teleoperate.

    bindings: by name of a control, what it does (`ACTIONS`); an axis bound to `+x` drives x by its value, to `-x`
    by the opposite. Without a `deadman` or `clutch` a control is its own dead-man: the arm follows while one of
    motion or gripper is used. companion: another preset whose device has the episode keys (and the clutch) that this
    one lacks. linear_speed m/s, angular_speed rad/s: of a control at full deflection at the fastest pace.
    speeds: shares of them to choose from with `slower` and `faster`. deadband: share of an axis that counts as rest.
    rearm_s: a key must have been up for so long to count anew (terminals repeat keys that are held). rate_hz: of
    inputs.
    """

    name: str
    device: Device
    bindings: dict[str, str] = {}
    companion: str = ""
    linear_speed: float = Field(default=0.2, gt=0, le=1.0)
    angular_speed: float = Field(default=0.8, gt=0, le=3.0)
    speeds: tuple[float, ...] = Field(default=(0.25, 0.5, 1.0), min_length=1)
    deadband: float = Field(default=0.1, ge=0, lt=1)
    rearm_s: float = Field(default=0.0, ge=0)
    rate_hz: float = Field(default=50.0, ge=10, le=200)

    @field_validator("bindings")
    @classmethod
    def _known(cls, bindings: dict[str, str]) -> dict[str, str]:
        for control, action in bindings.items():
            if action not in ACTIONS:
                raise ValueError(f"{control}: {unknown('action', action, ACTIONS)}")
        return bindings

    @field_validator("speeds")
    @classmethod
    def _shares(cls, speeds: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in speeds) or list(speeds) != sorted(speeds):
            raise ValueError(f"{list(speeds)} must be shares in (0, 1] from slow to fast")
        return speeds
