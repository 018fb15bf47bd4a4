"""Emergency stop inputs of the host: a contact that must be seen closed. What cannot be read counts as pressed.

This is a software input. It does not replace an emergency stop that cuts the drives' power by hardware alone, which
every real arm needs (IEC 60204-1, ISO 13850).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from reflexarc.configs.watch import EStopConfig
from reflexarc.wire.clock import HOST_PRIORITY, monotonic_ns, prefer_this_process
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
    """A level in a file: `value` of a GPIO line under /sys/class/gpio, or what a USB button's service writes.

    A thread reads it, so that a disk or a network that hangs keeps no tick waiting; what has not answered for
    `silence_s` counts as pressed.
    """

    def __init__(
        self, path: Path, closed: str = "1", *, period_s: float = 0.005, silence_s: float = 0.1
    ) -> None:
        """closed: the content that means "not pressed"; with a normally closed contact a cut wire then stops too.

        Waits for the first answer, but for no longer than `silence_s`.
        """
        self.name = str(path)
        self._path = path
        self._closed = closed
        self._silence_ns = round(silence_s * 1e9)
        self._seen: tuple[bool, int] | None = None  # whether it was pressed, and when that was asked
        self._called_ns = self._resumed_ns = monotonic_ns()
        self._answered, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(period_s,), daemon=True)
        self._thread.start()
        self._answered.wait(silence_s)

    def pressed(self, now_ns: int) -> bool:
        """Whether the newest content is anything but `closed`, the file cannot be read, or has not answered."""
        # A process that stood still as a whole knows nothing of the file yet, which is another fault than this one.
        if now_ns - self._called_ns > self._silence_ns:
            self._resumed_ns = now_ns
        self._called_ns = now_ns
        if self._seen is None:
            return True
        pressed, asked_ns = self._seen
        return pressed or now_ns - max(asked_ns, self._resumed_ns) > self._silence_ns

    def close(self) -> None:
        """End the thread; one that hangs in the file is left to end with the process."""
        self._ended.set()

    def _watch(self, period_s: float) -> None:
        # It holds the interpreter for moments: the host must not wait for it because others keep it from running.
        prefer_this_process(HOST_PRIORITY)
        while not self._ended.is_set():
            asked_ns = monotonic_ns()
            self._seen = self._read(), asked_ns
            self._answered.set()
            self._ended.wait(period_s)

    def _read(self) -> bool:
        try:
            return self._path.read_text().strip() != self._closed
        except (OSError, UnicodeDecodeError):
            return True


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
    inputs: list[EStopInput] = [
        FileInput(Path(path), config.closed, period_s=config.file_period_s, silence_s=config.file_silence_s)
        for path in config.files
    ]
    if config.heartbeat:
        inputs.append(HeartbeatInput(address, config.heartbeat, config.heartbeat_s))
    return inputs
