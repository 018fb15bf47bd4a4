"""3Dconnexion's 6D mice, by their HID reports.

Report 1 holds the translation, and on newer ones the rotation too; report 2 holds the rotation of older ones; report 3
the buttons, one bit each. Values are signed 16-bit, little-endian, about 350 at full deflection: x right, y
towards the user, z down (3Dconnexion's reports as spacenavd's drivers read them, https://spacenav.sourceforge.net).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from reflexarc.configs.errors import RobotError

VENDOR = 0x256F
"""3Dconnexion; older ones carry Logitech's."""
LOGITECH = 0x046D
MULTI_AXIS = (0x01, 0x08)
"""Usage page Generic Desktop, usage Multi-axis Controller (USB HID Usage Tables)."""
FULL = 350.0
AXES = ("x", "y", "z", "rx", "ry", "rz")
BUTTONS = ("left", "right")
REPORT_BYTES = 64
TRANSLATION, ROTATION, KEYS = 1, 2, 3


class SpaceMouse:
    """`Controls`: x y z rx ry rz from -1 to 1, left and right button."""

    names: tuple[str, ...] = (*AXES, *BUTTONS)

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._device: Any = None
        self._values: dict[str, float] = {}

    def open(self) -> None:
        """Raises RobotError if hidapi is not installed, or naming what was looked for."""
        try:
            import hid
        except ImportError as error:
            raise RobotError(
                f"a SpaceMouse needs hidapi: pip install 'reflexarc[teleop]' ({error})"
            ) from error
        path = self._path.encode() or _find(hid.enumerate())
        device = hid.device()
        try:
            device.open_path(path)
        except OSError as error:
            raise RobotError(
                f"the SpaceMouse at {path.decode()} does not open ({error}); on Linux a udev rule must let you read it"
            ) from error
        device.set_nonblocking(1)
        self._device = device
        self._values = {}

    def poll(self) -> Mapping[str, float]:
        """Where the cap is. Raises RobotError if the device has been unplugged."""
        if self._device is None:
            raise RobotError("the SpaceMouse is not connected")
        try:
            while report := self._device.read(REPORT_BYTES):
                self._values |= parse_report(bytes(report))
        except (OSError, ValueError) as error:
            raise RobotError(f"the SpaceMouse has been unplugged ({error})") from error
        return dict(self._values)

    def close(self) -> None:
        """Release it; safe to call twice."""
        device, self._device = self._device, None
        if device is not None:
            device.close()


def parse_report(report: bytes) -> dict[str, float]:
    """What one HID report says; what is too short or unknown says nothing."""
    if not report:
        return {}
    kind, body = report[0], report[1:]
    if kind == KEYS and body:
        return {name: float(body[0] >> bit & 1) for bit, name in enumerate(BUTTONS)}
    names = {TRANSLATION: AXES if len(body) >= 12 else AXES[:3], ROTATION: AXES[3:]}.get(kind, ())
    if not names or len(body) < 2 * len(names):
        return {}
    counts = struct.unpack_from(f"<{len(names)}h", body)
    return {name: min(max(count / FULL, -1.0), 1.0) for name, count in zip(names, counts, strict=True)}


def _find(devices: list[dict[str, Any]]) -> bytes:
    """The path of the first 6D mouse among HID devices; RobotError if there is none."""
    for each in devices:
        multi_axis = (each["usage_page"], each["usage"]) == MULTI_AXIS
        if each["vendor_id"] in (VENDOR, LOGITECH) and multi_axis:
            path: bytes = each["path"]
            return path
    raise RobotError(
        f"no SpaceMouse: {len(devices)} HID devices, none a multi-axis controller of vendor {VENDOR:#06x} or "
        f"{LOGITECH:#06x}; is it plugged in, and may you read /dev/hidraw*?"
    )
