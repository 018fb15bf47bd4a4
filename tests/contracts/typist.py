"""A person at a terminal: starts a command on a pseudo-terminal of its own, watches the arm, and presses keys.

One key at a time, as terminals repeat only the last one that is held.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import F64, Message, SimTruth, State
from reflexarc.wire.sockets import Subscriber

REPEAT_S = 0.03
"""A terminal's usual rate."""
TAP_S = 0.3
SAFE_S = 100.0
DIRECTIONS = ("ws", "ad", "rf")
"""Keys of the keyboard preset towards plus and minus of x, y and z."""


class Typist:
    """Runs `reflexarc ARGUMENTS` in a terminal."""

    def __init__(self, arguments: list[str], endpoints: Endpoints) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.execvp(sys.executable, [sys.executable, "-m", "reflexarc.cli", *arguments])
        self._seen: Subscriber[Message] = Subscriber(endpoints.state, State)
        self._truth: Subscriber[Message] = Subscriber(endpoints.arm_state, SimTruth)
        self.state: State | None = None
        self.focus = np.zeros((2, 3))
        self.shown = ""
        self.exit_code: int | None = None

    def look(self) -> None:
        """Take in what the terminal shows and where the arm is."""
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the command has ended
                break
            if not data:
                break
            self.shown += data.decode("utf-8", "replace")
        for message in self._seen.drain():
            assert isinstance(message, State)
            self.state = message
        for message in self._truth.drain():
            assert isinstance(message, SimTruth)
            self.focus = message.focus
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_code = os.waitstatus_to_exitcode(status) if pid else None

    def type(self, keys: str) -> None:
        """Press keys, once each."""
        os.write(self._master, keys.encode())

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait."""
        deadline = time.monotonic() + SAFE_S
        while not condition():
            self.look()
            assert time.monotonic() < deadline, (
                f"waited for {what}; the terminal shows:\n{self.shown[-2000:]}"
            )
            assert self.exit_code is None or condition(), self.shown[-2000:]
            time.sleep(0.01)

    def until_shown(self, text: str) -> None:
        """Wait until the terminal shows `text` below what it has shown when this was last asked."""
        self.until(lambda: text in self.shown, f"{text!r}")
        self.shown = self.shown.split(text, 1)[1]

    @property
    def terminal(self) -> int:
        """A file descriptor of the terminal."""
        return self._master

    def is_still(self) -> bool:
        """Whether the arm is commanded to stand."""
        return self.state is not None and not np.any(np.abs(self.state.joint_velocity_commanded) > 1e-4)

    @property
    def is_over(self) -> bool:
        """Whether the terminal says that the episode was kept."""
        return "kept" in self.shown

    @property
    def tcp(self) -> F64:
        """(3,) m: where the TCP was last seen."""
        assert self.state is not None
        return self.state.pose_base_tcp[:3]

    def go_to(self, goal: Callable[[], F64], tolerance: float) -> None:
        """Drive the TCP to `goal()` (3,) m by the key of the farthest axis, held while it is far and tapped near it."""
        deadline = time.monotonic() + SAFE_S
        while True:
            self.look()
            gap = goal() - self.tcp
            axis = int(np.argmax(np.abs(gap)))
            if abs(gap[axis]) < tolerance or self.is_over:
                return
            assert time.monotonic() < deadline, f"{gap} m left; the terminal shows:\n{self.shown[-2000:]}"
            self.type(DIRECTIONS[axis][int(gap[axis] < 0)])
            time.sleep(REPEAT_S if abs(gap[axis]) > 0.04 else TAP_S)

    def hold(self, key: str, seconds: float) -> None:
        """Keep a key down."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_over:
            self.type(key)
            self.look()
            time.sleep(REPEAT_S)

    def end(self) -> None:
        """End the command, if it has not."""
        self.look()
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
                os.waitpid(self.pid, 0)
        os.close(self._master)
        self._master = -1
        self._seen.close()
        self._truth.close()
