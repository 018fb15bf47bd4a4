"""Emergency stop inputs of the host: a contact that must be seen closed. What cannot be read counts as pressed.

This is a software input. It does not replace an emergency stop that cuts the drives' power by hardware alone, which
every real arm needs (IEC 60204-1, ISO 13850).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from reflexarc.configs.watch import EStopConfig
from reflexarc.wire.messages import Heartbeat
from reflexarc.wire.sockets import Pull


class EStopInput(Protocol):
    """What the host asks at every tick."""

    name: str

    def pressed(self, now_ns: int) -> bool:
        """Whether the arm must stop; True as well if that cannot be told. Never blocks, never raises."""

    def close(self) -> None:
        """Release the device; safe to call twice."""


class FileInput:
    """A level in a file: `value` of a GPIO line under /sys/class/gpio, or what a USB button's service writes."""

    def __init__(self, path: Path, closed: str = "1") -> None:
        """closed: the content that means "not pressed"; with a normally closed contact a cut wire then stops too."""
        self.name = str(path)
        self._path = path
        self._closed = closed

    def pressed(self, now_ns: int) -> bool:
        """Whether the content is anything but `closed`, or the file cannot be read."""
        try:
            return self._path.read_text().strip() != self._closed
        except (OSError, UnicodeDecodeError):
            return True

    def close(self) -> None:
        """Nothing is held open."""


class HeartbeatInput:
    """The heartbeat of another process, which has the button: it sends while the button is not pressed."""

    def __init__(self, address: str, peer: str, silence_s: float) -> None:
        """Raises WireError if the address is occupied."""
        self.name = f"heartbeat of {peer}"
        self._pull: Pull[Heartbeat] = Pull(address, Heartbeat, name=f"emergency stop {peer}")
        self._peer = peer
        self._silence_ns = round(silence_s * 1e9)
        self._heard_ns: int | None = None

    def pressed(self, now_ns: int) -> bool:
        """Whether its last heartbeat is too old, or none has come yet."""
        if any(beat.peer == self._peer for beat in self._pull.drain()):
            self._heard_ns = now_ns
        return self._heard_ns is None or now_ns - self._heard_ns > self._silence_ns

    def close(self) -> None:
        """Release the socket."""
        self._pull.close()


def open_inputs(config: EStopConfig, address: str) -> list[EStopInput]:
    """The inputs that a config names. Raises WireError if the heartbeat's address is occupied."""
    inputs: list[EStopInput] = [FileInput(Path(path), config.closed) for path in config.files]
    if config.heartbeat:
        inputs.append(HeartbeatInput(address, config.heartbeat, config.heartbeat_s))
    return inputs
