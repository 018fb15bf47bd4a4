"""Start the processes of a run, notice when one dies, and end them all.

Every process is a fresh interpreter (spawn). Its output goes to a log file of its own, whose last lines are shown when
it dies. Should the starter itself be killed, each is asked to end (SIGTERM): the arm brakes, files are closed, and the
addresses are free again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import ReflexarcError, RobotError
from reflexarc.lifeline import end_with
from reflexarc.pool import cap_threads
from reflexarc.wire.clock import keep_in_memory


class Processes:
    """The processes of one run, by name; a context manager that ends them."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        log_dir.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, BaseProcess] = {}
        self._started: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, target: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run `target(*args, **kwargs)` in a process of its own, called `name`."""
        cap_threads()
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_child,
            args=(os.getpid(), self.log_dir / f"{name}.log", target, args, kwargs),
            name=f"reflexarc-{name}",
            daemon=False,
        )
        process.start()
        self._running[name] = process
        self._started[name] = ((target, *args), kwargs)

    def start_loop(self, name: str, target: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The same for a loop with deadlines: where that is allowed its pages stay in memory, from the beginning."""
        self.start(name, _in_memory, target, *args, **kwargs)

    def pid(self, name: str) -> int:
        """Process id of a running process."""
        pid = self._running[name].pid
        assert pid is not None
        return pid

    def dead(self) -> list[str]:
        """Names of the processes that have ended."""
        return [name for name, process in self._running.items() if not process.is_alive()]

    def restart(self, name: str) -> None:
        """Run again what was started as `name` and has ended."""
        self.start(name, *self._started[name][0], **self._started[name][1])

    def check(self) -> None:
        """Raise RobotError naming a process that has died, with the last line it wrote."""
        for name in self.dead():
            code = self._running[name].exitcode
            raise RobotError(f"the {name} process died (exit code {code}): {self.last_line(name)}")

    def last_line(self, name: str) -> str:
        """The last line in the log of a process."""
        path = self.log_dir / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return lines[-1] if lines else f"it wrote nothing to {path}"

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask all to end (SIGTERM), in reverse order of their start; kill those that do not."""
        for process in reversed(self._running.values()):
            if process.is_alive():
                process.terminate()
        deadline = time.monotonic() + timeout_s
        for process in self._running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join(1.0)
        self._running.clear()


def _in_memory(target: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    keep_in_memory()
    target(*args, **kwargs)


def _child(
    parent: int, log: Path, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Run in the child: output to the log, Ctrl-C left to the parent, an error as one line."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        target(*args, **kwargs)
    except ReflexarcError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(1)
