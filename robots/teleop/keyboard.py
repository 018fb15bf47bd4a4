"""The keyboard of a terminal: no window, no X server, and it works over ssh.

A terminal sends a byte when a key goes down, and again while it repeats, but nothing when it comes up. So a key counts
as held for a moment after its last byte: what lets go of the keyboard, or of the line, lets go of the arm.
"""

from __future__ import annotations

import contextlib
import os
import re
import termios
import tty
from collections.abc import Callable, Mapping

from reflexarc.configs.errors import RobotError
from reflexarc.wire.clock import monotonic_ns

TERMINAL = "/dev/tty"
"""The terminal a process was started from, whatever its standard input is."""
READ_BYTES = 256
ESCAPE = "\x1b"
NAMED = {
    " ": "space",
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\b": "backspace",
    ESCAPE: "escape",
}
SEQUENCES = {"A": "up", "B": "down", "C": "right", "D": "left"}
"""Last letter of the sequences of cursor keys, `ESC [ A` or `ESC O A` (ECMA-48, xterm control sequences)."""

_UNFINISHED = re.compile(rb"\x1b([\[O][^@-~]*)?$")
SEQUENCE_NS = 200_000_000
"""A sequence of which nothing has come for so long ends there; a terminal sends it at once, a line may split it."""


class TerminalKeys:
    """`Controls`: each key that is held reads 1. Keys are called by their character, or up, down, space, enter, ..."""

    names = None

    def __init__(
        self, release_s: float, path: str = TERMINAL, clock: Callable[[], int] = monotonic_ns
    ) -> None:
        self._release_ns = round(release_s * 1e9)
        self._path = path
        self._clock = clock
        self._fd = -1
        self._down_ns: dict[str, int] = {}
        self._begun = b""
        self._begun_ns = 0

    def open(self) -> None:
        """Take keys one by one, unechoed. Raises RobotError if there is no terminal."""
        try:
            # A file description of our own: reading without waiting must not change how others read.
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSANOW)
            termios.tcflush(self._fd, termios.TCIFLUSH)  # what was typed before was not meant for an arm
        except (OSError, termios.error) as error:
            self.close()
            raise RobotError(
                f"keyboard teleoperation needs a terminal, and {self._path} is none ({error.args[-1]}); "
                f"run it in one, or choose another --device"
            ) from error
        self._down_ns.clear()
        self._begun = b""

    def poll(self) -> Mapping[str, float]:
        """The keys that are held. Raises RobotError if the terminal has gone."""
        if self._fd < 0:
            raise RobotError("the keyboard is not connected")
        now_ns = self._clock()
        try:
            data = os.read(self._fd, READ_BYTES)
            if not data:
                raise RobotError(f"the terminal {self._path} has gone")
        except BlockingIOError:
            data = b""
        except OSError as error:
            raise RobotError(f"the terminal {self._path} has gone: {error.strerror}") from error
        for name in self._names(data, now_ns):
            self._down_ns[name] = now_ns
        self._down_ns = {
            name: down_ns for name, down_ns in self._down_ns.items() if now_ns - down_ns < self._release_ns
        }
        return dict.fromkeys(self._down_ns, 1.0)

    def close(self) -> None:
        """Give the terminal back as it was; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError, termios.error, AttributeError):
            termios.tcsetattr(fd, termios.TCSANOW, self._before)
        os.close(fd)

    def _names(self, data: bytes, now_ns: int) -> list[str]:
        """The keys in what was read. What may be the beginning of a sequence waits for its end, though not for ever.

        Else an arrow that a slow line brings in two pieces would be Escape and a letter: D deletes an episode.
        """
        if data:
            self._begun_ns = now_ns
        data = self._begun + data
        unfinished = _UNFINISHED.search(data)
        whole = data if unfinished is None else data[: unfinished.start()]
        self._begun = data[len(whole) :]
        if self._begun and now_ns - self._begun_ns >= SEQUENCE_NS:
            whole, self._begun = data, b""
        return key_names(whole.decode("utf-8", "replace"))


def key_names(text: str) -> list[str]:
    """The keys in what a terminal sent, in their order; sequences that are not known are left out whole."""
    names, at = [], 0
    while at < len(text):
        if text[at] == ESCAPE and text[at + 1 : at + 2] in ("[", "O"):
            end = at + 2
            while end < len(text) and not ("@" <= text[end] <= "~"):
                end += 1
            names.append(SEQUENCES.get(text[end : end + 1], ""))
            at = end + 1
        else:
            names.append(NAMED.get(text[at], text[at] if text[at].isprintable() else ""))
            at += 1
    return [name for name in names if name]
