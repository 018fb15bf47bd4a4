"""From a stream of messages to one log an episode: what to keep, what to drop when the disk is slow, when to begin.

No socket and no clock of its own: the recorder process feeds it. Between episodes the simulator's initial state and
controls are held back, because an arm is reset shortly before its episode is announced.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import LogError, WireError
from reflexarc.configs.recording import RecordingConfig
from reflexarc.datasets.format import CAMERA_PREFIX, topic_of
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import encode
from reflexarc.wire.messages import (
    CameraFrame,
    EpisodeStart,
    EpisodeStop,
    Message,
    Setpoint,
    SimInitial,
    SimSteps,
    State,
    TeleopCommand,
)

BACKLOG_MESSAGES = 20_000
"""Half a minute of everything at 200 Hz, and below 500 MB of 96x96 pictures."""
BACKLOG_IMAGES = 600
BACKLOG_BYTES = 64 * 1024 * 1024
"""Of what is never dropped, as it will be written: ten minutes of commands and reports at 200 Hz, and some three times
as much memory. A disk that has taken nothing for so long hangs, and memory must not be what ends the recording."""
PREROLL_MESSAGES = 30_000
"""Half a minute of physics at 1 kHz between a reset and the start of its episode."""
_NUMBERED = State, Setpoint, CameraFrame, TeleopCommand
"""Whoever publishes these counts them: a number that is missing is a message that was lost on its way here."""
_MOST_LOST = 2**63 - 1
"""Numbers that jump further are made up; the count must still fit into an event."""
_ESSENTIAL = frozenset({"/setpoint", "/chunk", "/safety", "/event", "/episode", "/sim/initial"})

Item = tuple[str, Message, int]
"""(topic, message, when it was received in ns)."""


class Backlog:
    """A bounded queue between the receiving and the writing thread; never blocks the one that puts.

    When it is full images are dropped first, then states and physics; commands, safety and events never are. When
    those alone have come to `size` bytes it is `stalled`: nothing is taken any more, so that what stands in it has no
    gap, until whoever writes has written that and says `resume`.
    """

    def __init__(
        self, messages: int = BACKLOG_MESSAGES, images: int = BACKLOG_IMAGES, size: int | None = None
    ) -> None:
        self._items: deque[tuple[Item, int, Counter[str]]] = deque()
        self._ready = threading.Condition()
        self._limits = messages, images
        self._images = 0
        self.size_limit = BACKLOG_BYTES if size is None else size
        self._size = 0
        self._stalled = False
        self._drops: Counter[str] = Counter()
        self._drops_before: Counter[str] = Counter()

    @property
    def stalled(self) -> bool:
        """Whether what is never dropped has reached its bound."""
        return self._stalled

    def put(self, topic: str, message: Message, received_ns: int) -> bool:
        """Queue a message; False if it was dropped, which is counted."""
        messages, images = self._limits
        is_image = topic.startswith(CAMERA_PREFIX)
        size = len(encode(message)) if topic in _ESSENTIAL else 0
        with self._ready:
            self._stalled = self._stalled or self._size + size > self.size_limit
            full = not size and (len(self._items) >= messages or (is_image and self._images >= images))
            if self._stalled or full:
                self._drops[topic] += 1
                return False
            self._images += is_image
            self._size += size
            self._items.append(((topic, message, received_ns), size, self._drops))
            self._drops = Counter()
            self._ready.notify()
        return True

    def resume(self) -> None:
        """Take messages again."""
        with self._ready:
            self._stalled = False

    def get(self, timeout_s: float) -> Item | None:
        """The oldest message; None if there is none within the timeout."""
        with self._ready:
            if not self._items:
                self._ready.wait(timeout_s)
            if not self._items:
                return None
            item, size, drops = self._items.popleft()
            self._drops_before += drops
            self._images -= item[0].startswith(CAMERA_PREFIX)
            self._size -= size
            return item

    def take_drops(self) -> dict[str, int]:
        """Messages dropped, by topic, before what was taken last, since this was last asked.

        So they are counted to the episode they belong to, however long its end waits here.
        """
        with self._ready:
            if not self._items:
                self._drops_before, self._drops = self._drops_before + self._drops, Counter()
            drops, self._drops_before = dict(self._drops_before), Counter()
            return drops

    def __len__(self) -> int:
        with self._ready:
            return len(self._items)


class EpisodeRecorder:
    """Writes `<folder>/<episode>.mcap` from each `EpisodeStart` to its `EpisodeStop`.

    report: called with (kind, text, data) when something is worth an event. A disk that fails ends that episode's
    recording, not the recorder. A message that no log can hold, by its time or size, is left out alone: counted by
    topic in the outcome (`refused`), and told once a topic.
    """

    def __init__(
        self,
        folder: Path,
        report: Callable[[str, str, dict[str, str | float | int | bool]], None],
        *,
        fsync: bool = True,
        recording: RecordingConfig | None = None,
    ) -> None:
        self._folder = folder
        self._report = report
        self._fsync = fsync
        self._recording = recording
        self._writer: EpisodeWriter | None = None
        self._episode = ""
        self._drops: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self._preroll: deque[Item] = deque()

    @property
    def episode(self) -> str:
        """Name of the episode being recorded; empty between episodes."""
        return self._episode if self._writer is not None else ""

    def handle(self, topic: str, message: Message, received_ns: int) -> None:
        """Take one message."""
        if isinstance(message, EpisodeStart):
            self._begin(message, received_ns)
        elif self._writer is None:
            self._hold_back(topic, message, received_ns)
        else:
            self._write(topic, message, received_ns)
            if isinstance(message, EpisodeStop) and message.episode == self._episode:
                self._end(_as_object(message.outcome, "outcome"))

    def count_drops(self, drops: dict[str, int]) -> None:
        """Add to the episode's count of messages that the backlog has dropped, which stands in its outcome."""
        self._drops.update(drops)

    def sync_if_due(self) -> None:
        """Sync the open log to disk if a second has passed; call it while no message arrives."""
        self._guard(lambda writer: writer.sync_if_due())

    def stop(self, reason: str) -> None:
        """Close the open log, if there is one, as not finished."""
        if self._writer is not None:
            self._end({"error": reason})

    def _begin(self, start: EpisodeStart, received_ns: int) -> None:
        self.stop(f"episode {start.episode} began before this one was stopped")
        metadata = _as_object(start.metadata, "metadata") | {
            "episode": start.episode,
            "instruction": start.instruction,
            "session": start.session,
        }
        path = self._folder / f"{_file_name(start.episode)}.mcap"
        for counts in (self._drops, self._gaps, self._refused, self._numbers):
            counts.clear()
        try:
            self._writer = EpisodeWriter(path, metadata, fsync=self._fsync, recording=self._recording)
        except LogError as error:
            self._report("recorder_error", str(error), {"episode": start.episode})
            return
        self._episode = start.episode
        topic = topic_of(start)
        assert topic is not None
        self._write(topic, start, received_ns)
        for item in self._preroll:
            self._write(*item)
        self._preroll.clear()

    def _hold_back(self, topic: str, message: Message, received_ns: int) -> None:
        """Keep the physics since the last reset."""
        if isinstance(message, SimInitial):
            self._preroll.clear()
        elif not (isinstance(message, SimSteps) and self._preroll):
            return
        self._preroll.append((topic, message, received_ns))
        if len(self._preroll) > PREROLL_MESSAGES:
            self._preroll.clear()
            text = (
                f"more than {PREROLL_MESSAGES} messages of physics before the episode: it cannot be replayed"
            )
            self._report("recorder_drop", text, {})

    def _write(self, topic: str, message: Message, received_ns: int) -> None:
        if isinstance(message, _NUMBERED):
            before = self._numbers.get(topic, message.seq - 1)
            self._gaps[topic] += max(0, message.seq - before - 1)
            self._numbers[topic] = max(before, message.seq)
        log_time = received_ns if message.clock == "monotonic" else None
        if refused := self._guard(lambda writer: writer.write(topic, message, log_time)):
            self._refused[topic] += 1
            if self._refused[topic] == 1:
                text = f"left out of the log, as any more on {topic} in this episode: {refused}"
                self._report("bad_message", text, {"episode": self._episode})

    def _end(self, outcome: dict[str, Any]) -> None:
        outcome = outcome | {"dropped": dict(self._drops)}
        if self._refused:
            outcome["refused"] = dict(self._refused)
        lost = {
            topic: min(gap - self._drops[topic], _MOST_LOST)
            for topic, gap in self._gaps.items()
            if gap > self._drops[topic]
        }
        if lost:
            outcome["never_arrived"] = lost
            text = ", ".join(f"{topic} {count}" for topic, count in sorted(lost.items()))
            self._report("recorder_drop", f"never arrived at the recorder: {text}", {**lost})
        if refused := self._guard(lambda writer: writer.close(outcome)):
            self._guard(lambda writer: writer.close({"error": refused}))
        writer, self._writer = self._writer, None
        if writer is not None:
            data: dict[str, str | float | int | bool] = {
                "path": str(writer.path),
                "messages": writer.message_count,
                "dropped": sum(self._drops.values()),
            }
            self._report("recorded", f"{self._episode} is in {writer.path}", data)

    def _guard(self, use: Callable[[EpisodeWriter], None]) -> str:
        """Use the open writer; returns why it refused what it was given, empty if it took it.

        A disk that fails ends this episode's recording, and is reported.
        """
        writer = self._writer
        if writer is None:
            return ""
        try:
            use(writer)
        except (LogError, WireError) as error:
            if writer.is_open:
                return str(error)
            self._writer = None
            self._report("recorder_error", str(error), {"episode": self._episode})
        return ""


def _as_object(text: str, name: str) -> dict[str, Any]:
    """JSON text as an object; whatever else it is stands under `name`, so that nothing is lost."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = text
    return values if isinstance(values, dict) else {name: values}


def _file_name(episode: str) -> str:
    """The episode's name with everything that is not safe in a file name replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", episode).strip(".") or "episode"
