"""From a preset to a device."""

from __future__ import annotations

from collections.abc import Callable

from reflexarc.configs.errors import ConfigError
from reflexarc.configs.teleop import GamepadDevice, KeyboardDevice, LeRobotDevice, TeleopConfig
from reflexarc.robots.teleop.gamepad import Gamepad
from reflexarc.robots.teleop.keyboard import TerminalKeys
from reflexarc.robots.teleop.lerobot_driver import LeRobotTeleoperator
from reflexarc.robots.teleop.mapping import Controls, Mapped
from reflexarc.robots.teleop.paired import Paired
from reflexarc.robots.teleop.spacemouse import SpaceMouse
from reflexarc.wire.contracts import Teleoperator

Load = Callable[[str], TeleopConfig]
"""Finds the preset of a companion."""


def make_teleoperator(config: TeleopConfig, joint_names: tuple[str, ...], load: Load) -> Teleoperator:
    """The device of a preset, not yet connected; nothing is opened or imported for it before `connect`.

    joint_names: the robot's. Raises ConfigError naming a control, a joint or a companion that does not fit.
    """
    device: Teleoperator
    if isinstance(config.device, LeRobotDevice):
        device = LeRobotTeleoperator(config.device, joint_names)
    else:
        device = Mapped(_controls(config), config)
    if not config.companion:
        return device
    companion = load(config.companion)
    if isinstance(companion.device, LeRobotDevice) or companion.companion:
        raise ConfigError(f"preset {companion.name!r} cannot be a companion: it must have keys of its own")
    return Paired(device, Mapped(_controls(companion), companion))


def _controls(config: TeleopConfig) -> Controls:
    device = config.device
    if isinstance(device, KeyboardDevice):
        return TerminalKeys(device.release_s)
    if isinstance(device, GamepadDevice):
        return Gamepad(device.index)
    assert not isinstance(device, LeRobotDevice)
    return SpaceMouse(device.path)
