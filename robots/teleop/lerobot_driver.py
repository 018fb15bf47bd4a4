"""Leader arms and phones through lerobot's own `Teleoperator` drivers, imported when one is chosen.

What they tell is where the device is; that only its *changes* since it was engaged count is the controller's business.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.configs.errors import ConfigError, RobotError, unknown
from reflexarc.configs.teleop import LeRobotDevice
from reflexarc.wire.contracts import TeleopInput
from reflexarc.wire.messages import F64, TeleopKey

PHONE_TO_BASE = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""A phone calibrated with its top edge forward and its screen up: its -y is forward, its x to the left, as in lerobot's
`MapPhoneActionToRobotAction`."""
GRIPPER_NEWS = 0.1
"""A gripper that is read all the time counts once it was moved by this much since it was engaged."""


class LeRobotTeleoperator:
    """A `Teleoperator` around one of lerobot's. `motion` is a `joint_offset` or, of a phone, an `offset`."""

    def __init__(self, device: LeRobotDevice, joint_names: tuple[str, ...], driver: Any = None) -> None:
        """driver: one of lerobot's, already built; else it is built when connecting.

        Raises ConfigError if a joint is none of `joint_names`, the robot's.
        """
        for joint in device.joints:
            if joint not in joint_names:
                raise ConfigError(f"teleop device {device.type!r}: {unknown('joint', joint, joint_names)}")
        self._device = device
        self._joint_names = joint_names
        self._driver = driver
        self._first_grip: float | None = None
        self._gripper: float | None = None

    def connect(self) -> None:
        """Open it. Raises RobotError naming what was tried, or that it must be calibrated first.

        A leader arm is not calibrated here: that asks questions at a terminal, and moves what is a zero. A phone's
        calibration is part of connecting it.
        """
        if self._driver is None:
            self._driver = _make_driver(self._device)
        try:
            if not self._driver.is_connected:
                self._open()
        except RobotError:
            raise
        except Exception as error:  # drivers raise whatever their bus raises
            raise RobotError(f"lerobot's {self._device.type!r} does not connect: {_line(error)}") from error
        self._first_grip = self._gripper = None

    def _open(self) -> None:
        if "calibrate" not in inspect.signature(self._driver.connect).parameters:
            self._driver.connect()
            return
        self._driver.connect(calibrate=False)
        if not self._driver.is_calibrated:
            self._driver.disconnect()
            options = {"type": self._device.type, **self._device.options}
            told = " ".join(f"--teleop.{name}={value}" for name, value in options.items())
            raise RobotError(
                f"lerobot's {self._device.type!r} is not calibrated, or not as its file says; run "
                f"`lerobot-calibrate {told}`"
            )

    def read(self) -> TeleopInput | None:
        """Where the device is; None while a phone's button is up. Raises RobotError if it does not answer."""
        if self._driver is None or not self._driver.is_connected:
            raise RobotError(f"lerobot's {self._device.type!r} is not connected")
        try:
            action = self._driver.get_action()
        except Exception as error:
            raise RobotError(f"lerobot's {self._device.type!r} does not answer: {_line(error)}") from error
        if self._device.pose:
            return self._read_pose(action)
        return TeleopInput(self._joints(action), self._grip(action), "joint_offset")

    def keys(self) -> tuple[TeleopKey, ...]:
        """None: episode keys come from a companion."""
        return ()

    def close(self) -> None:
        """Release it; safe to call twice."""
        if self._driver is not None and self._driver.is_connected:
            with contextlib.suppress(Exception):  # it may be gone already
                self._driver.disconnect()

    def _read_pose(self, action: dict[str, Any]) -> TeleopInput | None:
        if not action or not action["phone.enabled"]:
            return None
        turn = PHONE_TO_BASE @ np.asarray(action["phone.rot"].as_rotvec(), dtype=np.float64)
        moved = PHONE_TO_BASE @ np.asarray(action["phone.pos"], dtype=np.float64)
        return TeleopInput(np.concatenate([moved, turn]), self._grip(action["phone.raw_inputs"]), "offset")

    def _joints(self, action: dict[str, Any]) -> F64:
        offset = np.zeros(len(self._joint_names))
        for joint, (source, factor) in self._device.joints.items():
            offset[self._joint_names.index(joint)] = factor * self._value(action, source)
        return offset

    def _grip(self, action: dict[str, Any]) -> float | None:
        if self._device.gripper is None:
            return None
        source, closed, opened = self._device.gripper
        opening = (self._value(action, source) - closed) / (opened - closed)
        opening = min(max(opening, 0.0), 1.0)
        if self._first_grip is None:
            self._first_grip = opening
        if self._gripper is not None or abs(opening - self._first_grip) > GRIPPER_NEWS:
            self._gripper = opening
        return self._gripper

    def _value(self, action: dict[str, Any], source: str) -> float:
        try:
            return float(action[source])
        except KeyError:
            raise RobotError(
                f"lerobot's {self._device.type!r}: {unknown('value', source, map(str, action))}"
            ) from None


def _make_driver(device: LeRobotDevice) -> Any:
    """The driver that lerobot has for `device`. Raises RobotError naming the extra, ConfigError the types known."""
    try:
        import lerobot.teleoperators as teleoperators
    except ImportError as error:
        raise RobotError(
            f"device {device.type!r} needs lerobot: pip install 'reflexarc[lerobot]' ({error})"
        ) from error
    for found in pkgutil.iter_modules(teleoperators.__path__):
        with contextlib.suppress(ImportError):  # of a device whose own libraries are not installed
            importlib.import_module(f"{teleoperators.__name__}.{found.name}")
    known = teleoperators.TeleoperatorConfig.get_known_choices()
    if device.type not in known:
        raise ConfigError(unknown("lerobot teleoperator", device.type, known))
    try:
        config_class = known[device.type]
        hints = typing.get_type_hints(config_class)
        options = {name: _as_hinted(hints.get(name), value) for name, value in device.options.items()}
        return teleoperators.make_teleoperator_from_config(config_class(**options))
    except Exception as error:
        raise RobotError(f"lerobot's {device.type!r} cannot be made: {_line(error)}") from error


def _as_hinted(hint: Any, value: Any) -> Any:
    """An option as the type that lerobot's config gives it, where YAML has only its value."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    return Path(value) if Path in (hint, *typing.get_args(hint)) and isinstance(value, str) else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
