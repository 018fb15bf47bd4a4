"""From the buttons and axes of a device to what they mean: motion, gripper, pace, dead-man, episode keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import numpy as np

from reflexarc.configs.errors import ConfigError, unknown
from reflexarc.configs.teleop import GRIPPER, KEYS, MOTIONS, PACE, TeleopConfig
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.contracts import TeleopInput
from reflexarc.wire.messages import F64, TeleopKey

PRESSED = 0.5
"""A control that reads more than this counts as a pressed button."""
MOVING = frozenset({*(sign + name for name in MOTIONS for sign in "+-"), *GRIPPER})
"""Actions that a device without a dead-man is engaged by."""
FAR_NS = 1 << 62
NEW_EPISODE = ("start", "redo", "give_back")
"""Keys after which what was asked of the gripper before means nothing any more."""


class Controls(Protocol):
    """A device of buttons (0 or 1) and axes (-1 to 1, 0 at rest)."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of all its controls; None where any name may occur, as on a keyboard."""

    def open(self) -> None:
        """Open the device; raises RobotError naming what was tried if it is not there."""

    def poll(self) -> Mapping[str, float]:
        """The controls now; those left out are at rest. Never blocks; raises RobotError if the device has gone."""

    def close(self) -> None:
        """Release the device; safe to call twice."""


class Mapped:
    """A `Teleoperator` of the controls of a device."""

    _keys: list[TeleopKey]
    _held: set[str]
    _down_ns: dict[str, int]
    _gripper: float | None

    def __init__(
        self, controls: Controls, config: TeleopConfig, clock: Callable[[], int] = monotonic_ns
    ) -> None:
        """Raises ConfigError if the preset binds a control that the device does not have."""
        for name in config.bindings:
            if controls.names is not None and name not in controls.names:
                raise ConfigError(f"preset {config.name!r}: {unknown('control', name, controls.names)}")
        self._controls = controls
        self._config = config
        self._clock = clock
        self.gates = not {"deadman", "clutch"}.isdisjoint(config.bindings.values())
        """Whether it has a dead-man or a clutch at all."""
        self._forget()

    @property
    def engaged(self) -> bool:
        """Whether the dead-man was held, or the clutch closed, at the last `read`."""
        return self._engaged

    def connect(self) -> None:
        """Open the device. Raises RobotError naming what was tried."""
        self._controls.open()
        self._forget()

    def read(self) -> TeleopInput | None:
        """What the controls ask for; None while the dead-man is released. Raises RobotError if the device has gone."""
        now_ns = self._clock()
        asked: dict[str, float] = {}
        held = set()
        for control, value in self._controls.poll().items():
            action = self._config.bindings.get(control)
            if action is None:
                continue
            asked[action] = asked.get(action, 0.0) + self._beyond_rest(value)
            if value > PRESSED:
                held.add(control)
                if control not in self._held:
                    self._press(action, rested_ns=now_ns - self._down_ns.get(control, -FAR_NS))
                self._down_ns[control] = now_ns
        self._held = held
        motion = self._motion(asked)
        self._follow_grip(asked.get("gripper", 0.0))
        self._engaged = self._is_engaged(asked)
        return TeleopInput(motion, self._gripper) if self._engaged else None

    def keys(self) -> tuple[TeleopKey, ...]:
        """Episode keys pressed since this was last asked."""
        keys, self._keys = tuple(self._keys), []
        return keys

    def close(self) -> None:
        """Release the device; safe to call twice."""
        self._controls.close()

    def _forget(self) -> None:
        self._keys = []
        self._held = set()
        self._down_ns = {}
        self._pace = len(self._config.speeds) // 2
        self._gripper = None
        self._clutched = False
        self._engaged = False

    def _beyond_rest(self, value: float) -> float:
        """`value` with the deadband taken out, so that motion sets in gently at its edge."""
        deadband = self._config.deadband
        size = (abs(value) - deadband) / (1.0 - deadband)
        return math.copysign(min(max(size, 0.0), 1.0), value)

    def _press(self, action: str, rested_ns: int) -> None:
        """A button went down, `rested_ns` after it was last seen down."""
        if action in PACE:
            step = 1 if action == "faster" else -1
            self._pace = min(max(self._pace + step, 0), len(self._config.speeds) - 1)
        elif action in ("open", "close"):
            self._gripper = float(action == "open")
        elif action == "clutch" and self._clutched:
            self._clutched = False  # letting go is never refused
        elif rested_ns > self._config.rearm_s * 1e9:
            self._press_once(action)

    def _press_once(self, action: str) -> None:
        """What a button that is held, and repeated by a terminal, must do once only."""
        if action == "clutch":
            self._clutched = True
        elif action == "toggle":
            self._gripper = 1.0 if self._gripper == 0.0 else 0.0
        elif action in KEYS:
            self._keys.append(cast(TeleopKey, action))
            if action in NEW_EPISODE:
                self._gripper, self._clutched = None, False

    def _follow_grip(self, pulled: float) -> None:
        """An analogue gripper closes as far as it is pulled, from when it first is."""
        if pulled > 0.0 or (self._gripper is not None and "gripper" in self._config.bindings.values()):
            self._gripper = 1.0 - min(max(pulled, 0.0), 1.0)

    def _motion(self, asked: Mapping[str, float]) -> F64:
        """(6,) m/s and rad/s at the present pace."""
        share = self._config.speeds[self._pace]
        deflection = [asked.get(f"+{name}", 0.0) - asked.get(f"-{name}", 0.0) for name in MOTIONS]
        fastest = [self._config.linear_speed] * 3 + [self._config.angular_speed] * 3
        twist: F64 = share * np.clip(deflection, -1.0, 1.0) * np.array(fastest)
        return twist

    def _is_engaged(self, asked: Mapping[str, float]) -> bool:
        if self.gates:
            return self._clutched or asked.get("deadman", 0.0) > PRESSED
        return any(value != 0.0 for action, value in asked.items() if action in MOVING)
