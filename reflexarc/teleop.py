"""Episodes with a person: keys say when one begins, how it went and whether it is kept; the recorder does the rest.

The person drives alone, or beside a policy that goes on until the first touch. Nothing a person discards is destroyed:
it is moved to `discarded/`, out of the session's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from rich.console import Console

from reflexarc.configs.errors import LogError
from reflexarc.configs.teleop import TeleopConfig
from reflexarc.datasets.session import DISCARDED, discard
from reflexarc.runner import POLL_S, EpisodeFigures, LatchedError, Runner, Verdict
from reflexarc.setup import Setup
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, Message, TeleopCommand, TeleopKey
from reflexarc.wire.sockets import Subscriber

RECORDED_S = 10.0
"""A recorder closes a log at once; longer than this it has a reason to be asked about."""
VERDICTS = ("success", "fail", "redo", "quit")


class Desk:
    """What the person tells the episode, and what there is to tell the person."""

    def __init__(
        self, endpoints: Endpoints, console: Console, draw: Callable[[], None] | None = None
    ) -> None:
        """draw: called again and again, to show what there is to see."""
        self._commands: Subscriber[Message] = Subscriber(endpoints.teleop, TeleopCommand, Event, name="keys")
        self._recorder: Subscriber[Event] = Subscriber(endpoints.recorder, Event, name="recorder's notes")
        self._controller: Subscriber[Message] = Subscriber(endpoints.controller, name="who is in control")
        self._console = console
        self._draw = draw
        self._recorded: dict[str, Path] = {}

    def verdict(self) -> Verdict:
        """The first word on the running episode since this was last asked."""
        said = [key for key in self.keys() if key in VERDICTS]
        return cast(Verdict, said[0]) if said else ""

    def wait_for(self, *keys: TeleopKey, check: Callable[[], None]) -> TeleopKey:
        """Wait for one of these keys; `check` raises if a process has died meanwhile."""
        while True:
            for key in self.keys():
                if key in keys:
                    return key
            check()
            time.sleep(POLL_S)

    def keys(self) -> list[TeleopKey]:
        """Keys pressed since this was last asked; says what else the device and the recorder have to say."""
        pressed: list[TeleopKey] = []
        for message in self._commands.drain():
            if isinstance(message, TeleopCommand):
                pressed += message.keys
            elif isinstance(message, Event):
                self._console.print(f"  {message.text}", style="yellow", markup=False)
        for event in self._recorder.drain():
            if event.kind == "recorded":
                path = Path(str(event.data["path"]))
                self._recorded[path.stem] = path
            elif event.kind in ("recorder_error", "recorder_drop"):
                self._console.print(f"  recorder: {event.text}", style="red", markup=False)
        for message in self._controller.drain():
            if isinstance(message, Event) and message.kind in ("control", "teleop_silent"):
                who = {"teleop": "you have the arm", "hold": "nobody has the arm"}
                source = str(message.data.get("source", ""))
                self._console.print(
                    f"  {message.text or who.get(source, f'the {source} has the arm')}", style="cyan"
                )
        if self._draw is not None:
            self._draw()
        return pressed

    def recorded(self, episode: str, check: Callable[[], None]) -> Path:
        """The log of a finished episode. Raises LogError if the recorder does not close it in time."""
        deadline = time.monotonic() + RECORDED_S
        while episode not in self._recorded:
            if time.monotonic() > deadline:
                raise LogError(
                    f"episode {episode} was not recorded within {RECORDED_S:.0f} s; see recorder.log"
                )
            self.keys()
            check()
            time.sleep(POLL_S)
        return self._recorded[episode]

    def forget(self, episode: str) -> None:
        """The log of this episode was moved away: the name may come again."""
        self._recorded.pop(episode, None)

    def close(self) -> None:
        """Release the sockets."""
        for socket in (self._commands, self._recorder, self._controller):
            socket.close()


@dataclasses.dataclass(frozen=True, slots=True)
class TeleopJob:
    """What to record. first_seed: of the first layout; instruction: instead of the task's own. policy: who drives until
    the person does, "" for nobody. own_arm: simulated and started for this session, where the person's start resets a
    protective stop."""

    task: str
    episodes: int
    first_seed: int
    instruction: str
    time_limit_s: float
    policy: str
    config: TeleopConfig
    setup: Setup
    own_arm: bool


class TeleopSession:
    """Episode after episode into `folder/episodes`, until there are enough or the person has had enough."""

    def __init__(
        self,
        job: TeleopJob,
        runner: Runner,
        desk: Desk,
        folder: Path,
        console: Console,
        check: Callable[[], None],
    ) -> None:
        self._job = job
        self._runner = runner
        self._desk = desk
        self._folder = folder
        self._console = console
        self._check = check
        self._kept: list[tuple[EpisodeFigures, Path]] = []

    def run(self) -> list[EpisodeFigures]:
        """The figures of the episodes that were kept."""
        while len(self._kept) < self._job.episodes:
            number = self._next_number()
            self._say(f"{self._name(number)}: start begins it; delete drops the last one, quit ends")
            key = self._desk.wait_for("start", "delete", "quit", check=self._check)
            if key == "delete":
                self._delete_last()
            elif key == "quit" or self._try(number) == "quit":
                break
        return [figures for figures, _ in self._kept]

    def _try(self, number: int) -> str:
        """Record one episode if the arm may be enabled; how it ended."""
        try:
            return self._record(number)
        except LatchedError as error:
            self._say(str(error))
            return "latched"

    def _record(self, number: int) -> str:
        """Record one episode; how it ended. In simulation a redo lays out and begins again, elsewhere a person does."""
        job, name = self._job, self._name(number)
        seed = job.first_seed + number if self._runner.simulated else -1
        metadata = job.setup.metadata(
            task=job.task,
            seed=seed,
            policy=job.policy or "teleop",
            clock="monotonic",
            teleop=job.config,
        )
        while True:
            self._say(f"{name}: running")
            figures = self._runner.episode(
                name,
                task=job.task,
                seed=seed,
                instruction=job.instruction,
                time_limit_s=job.time_limit_s,
                metadata=metadata,
                check=self._check,
                verdict=self._desk.verdict,
                reset_protective_stop=job.own_arm,
            )
            path = self._desk.recorded(name, self._check)
            if figures.end not in ("redo", "quit"):
                break
            self._discard(path)
            self._say(f"{name}: {figures.end} after {figures.time_s:.1f} s, discarded")
            if figures.end == "quit" or not self._runner.simulated:
                return figures.end
        self._kept.append((figures, path))
        words = {True: "success", False: f"failed ({figures.end})", None: f"not judged ({figures.end})"}
        verdict = words[figures.success]
        self._say(f'{name}: "{figures.instruction}": {verdict} after {figures.time_s:.1f} s, kept')
        return figures.end

    def _delete_last(self) -> None:
        if not self._kept:
            self._say("there is no episode of this session to delete")
            return
        figures, path = self._kept.pop()
        self._discard(path)
        self._say(f"{figures.episode}: discarded")

    def _discard(self, path: Path) -> None:
        """Move a log out of the session."""
        discard(path, self._folder / DISCARDED)
        self._desk.forget(path.stem)

    def _next_number(self) -> int:
        """The first number whose log is not there yet: a session in the same folder goes on."""
        number = 0
        while (self._folder / "episodes" / f"{self._name(number)}.mcap").exists():
            number += 1
        return number

    def _name(self, number: int) -> str:
        return f"{self._job.task}-{number:04d}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def preserved_terminal() -> Iterator[None]:
    """Give the terminal back as it was, also when the process that reads its keys was killed."""
    try:
        before = termios.tcgetattr(sys.stdin.fileno())
    except (OSError, ValueError, termios.error):  # no terminal
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
