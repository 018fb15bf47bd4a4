"""A device and, beside it, another that has the keys it lacks: a leader arm and the keyboard."""

from __future__ import annotations

from reflexarc.robots.teleop.mapping import Mapped
from reflexarc.wire.contracts import Teleoperator, TeleopInput
from reflexarc.wire.messages import TeleopKey


class Paired:
    """A `Teleoperator`: motion of `device`, keys of both; engaged only while the companion's clutch is, if any."""

    def __init__(self, device: Teleoperator, companion: Mapped) -> None:
        self._device = device
        self._companion = companion

    def connect(self) -> None:
        """Open both, or none. Raises RobotError naming what was tried."""
        self._companion.connect()
        try:
            self._device.connect()
        except BaseException:
            self._companion.close()
            raise

    def read(self) -> TeleopInput | None:
        """The device's input; None while the companion's clutch is open. Raises RobotError if either has gone."""
        self._companion.read()
        given = self._device.read()
        return given if self._companion.engaged or not self._companion.gates else None

    def keys(self) -> tuple[TeleopKey, ...]:
        """Keys of both, the companion's first."""
        return self._companion.keys() + self._device.keys()

    def close(self) -> None:
        """Release both; safe to call twice."""
        self._device.close()
        self._companion.close()
