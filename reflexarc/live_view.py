"""A running robot in Rerun: whatever its processes publish, forwarded a few times a second, to a viewer or a file.

It only listens, so nobody waits for it, and any number of them can come and go. Sockets of a run are on loopback: it
runs on the robot's computer (or at the end of a tunnel), and it is Rerun's own stream that leads elsewhere.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import rerun as rr

from reflexarc.configs.errors import LogError, RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.datasets.format import CAMERA_PREFIX, topic_of
from reflexarc.datasets.rerun_layout import blueprint
from reflexarc.datasets.rerun_view import TIMELINE, EpisodeView
from reflexarc.wire.clock import give_way_to_loops
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Message, State
from reflexarc.wire.sockets import Subscriber

SOURCES = ("state", "controller", "frames", "arm_state", "runner", "teleop", "monitor")
"""Names of the endpoints that publish what can be shown."""
PERIOD_S = 0.1
READY_S = 10.0
TRAIL_S = 10.0
"""Of the way behind the TCP, and of chunks."""
CAMERAS_S = 1.0
"""After so long every camera that there is has sent a picture, and has its place in the layout."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sink:
    """Where to: a file, a viewer or server at an address, or a viewer that is started here; one of them."""

    file: Path | None = None
    connect: str = ""
    spawn: bool = False

    @property
    def where(self) -> str:
        """In words."""
        if self.connect:
            return f"at {self.connect}"
        return "in a viewer" if self.spawn else f"in {self.file}"


class Batch:
    """What arrived since the last one; a `Source` of `EpisodeView`."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._found = [(topic, message) for message in messages if (topic := topic_of(message)) is not None]
        names = {topic for topic, _ in self._found if topic.startswith(CAMERA_PREFIX)}
        self.cameras = tuple(sorted(name.removeprefix(CAMERA_PREFIX) for name in names))

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, Message]]:
        """(topic, message), all or of some topics, by the time they were made."""
        wanted = None if topics is None else frozenset(topics)
        return (each for each in self._found if wanted is None or each[0] in wanted)

    def __len__(self) -> int:
        return len(self._found)


class LiveView:
    """Listens at the endpoints of a run and shows what comes; a context manager."""

    def __init__(self, endpoints: Endpoints, robot: RobotConfig, sink: Sink) -> None:
        """robot: for the shape of an arm that is not simulated."""
        self._endpoints = endpoints
        self._robot = robot.model_dump(mode="json")
        self._sink = sink
        self._subscribers: list[Subscriber[Message]] = [
            Subscriber(getattr(endpoints, name), Message, name=f"{name} to the view") for name in SOURCES
        ]
        self._recording = rr.RecordingStream("reflexarc-live")
        rr.set_log_time_enabled(False, self._recording)

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        for subscriber in self._subscribers:
            subscriber.close()
        self._recording.flush()
        self._recording.disconnect()

    def run(self, seconds: float) -> int:
        """Show for so long, or until Ctrl-C; how many messages were. RobotError if no robot host is heard."""
        give_way_to_loops()
        first = self._first()
        cameras = {name for batch in first for name in batch.cameras}
        self._open(sorted(cameras))
        start_ns = min(message.t_ns for batch in first for _, message in batch.messages())
        view = EpisodeView(self._recording, start_ns, self._robot, TRAIL_S)
        shown = 0
        try:
            for batch in self._batches(first, seconds):
                view.send(batch)
                shown += len(batch)
        except KeyboardInterrupt:
            pass
        view.send(Batch([]), last=True)
        return shown

    def _batches(self, first: list[Batch], seconds: float) -> Iterator[Batch]:
        end = time.monotonic() + seconds
        yield from first
        while time.monotonic() < end:
            time.sleep(PERIOD_S)
            yield self._take()

    def _first(self) -> list[Batch]:
        """What comes until the host and the cameras were heard."""
        batches: list[Batch] = []
        begun = time.monotonic()
        heard = False
        while not heard or time.monotonic() - begun < CAMERAS_S:
            time.sleep(PERIOD_S)
            batches.append(self._take())
            heard = heard or any(isinstance(message, State) for _, message in batches[-1].messages())
            if not heard and time.monotonic() - begun > READY_S:
                raise RobotError(
                    f"no robot host publishes at {self._endpoints.state}; start one (`reflexarc robot`), or name "
                    f"its --port"
                )
        return batches

    def _take(self) -> Batch:
        messages = [message for subscriber in self._subscribers for message in subscriber.drain()]
        return Batch(sorted(messages, key=lambda message: message.t_ns))

    def _open(self, cameras: list[str]) -> None:
        layout = blueprint(cameras, TIMELINE)
        try:
            if self._sink.connect:
                self._recording.connect_grpc(self._sink.connect, default_blueprint=layout)
            elif self._sink.spawn:
                self._recording.spawn(default_blueprint=layout)
            else:
                assert self._sink.file is not None
                self._recording.save(self._sink.file, default_blueprint=layout)
        except (RuntimeError, ValueError, OSError) as error:
            raise LogError(f"cannot show the robot {self._sink.where}: {error}") from error
