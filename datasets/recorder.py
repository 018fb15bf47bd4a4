"""The recorder process: listens to everything that is published in a run and logs it, one file an episode.

It can fall behind, freeze or die without touching a loop: publishers never wait for it. Receiving and writing are two
threads with a bounded backlog between them, so that a disk that takes its time costs pictures at worst. One that hangs
ends the episode's recording before the memory is full, and is told by an event.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from reflexarc.configs.errors import LogError
from reflexarc.configs.recording import RecordingConfig
from reflexarc.datasets.format import topic_of
from reflexarc.datasets.recording import Backlog, EpisodeRecorder
from reflexarc.wire.clock import give_way_to_loops, monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import EpisodeStart, EpisodeStop, Event, Message
from reflexarc.wire.sockets import Heartbeats, Publisher, Subscriber, wait_any

PEER = "recorder"
SOURCES = ("runner", "state", "controller", "arm_state", "frames", "teleop", "monitor")
"""Names of the endpoints that publish what is logged."""

_BATCH_S = 0.005
"""Messages are taken in batches this far apart: one wake-up for several, on a machine with few cores."""
_IDLE_S = 0.05
_TELL_DROPS_NS = 1_000_000_000
_QUEUE = 8000

_Data = dict[str, str | float | int | bool]


def run_recorder(
    folder: Path,
    endpoints: Endpoints,
    *,
    fsync: bool = True,
    recording: RecordingConfig | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Record into `folder` until SIGTERM, or until `stop` says so; the open episode is closed then.

    recording: how pictures are kept; default as they come. Takes over this process: its SIGTERM handler and its
    priority. Raises LogError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(f"{folder}: the folder for episode logs cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise LogError(f"{folder}: the folder for episode logs cannot be written")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    give_way_to_loops()
    recorder = _RecorderProcess(folder, endpoints, fsync, recording)
    try:
        while not ended.is_set() and not (stop is not None and stop()):
            recorder.turn()
    finally:
        recorder.close()


class _RecorderProcess:
    """The receiving thread's side: sockets and heartbeat; the writing thread has the files."""

    def __init__(
        self, folder: Path, endpoints: Endpoints, fsync: bool, recording: RecordingConfig | None
    ) -> None:
        self._subscribers: list[Subscriber[Message]] = [
            Subscriber(getattr(endpoints, name), Message, queue=_QUEUE, name=f"{name} to the recorder")
            for name in SOURCES
        ]
        self._publisher = Publisher(endpoints.recorder, name="recorder")
        self._heartbeats = Heartbeats(endpoints.heartbeat, PEER)
        self._folder = folder
        self._backlog = Backlog()
        self._notices: SimpleQueue[tuple[str, str, _Data]] = SimpleQueue()
        self._stall_told = False
        self._ending = threading.Event()
        self._recorder = EpisodeRecorder(
            folder,
            lambda kind, text, data: self._notices.put((kind, text, data)),
            fsync=fsync,
            recording=recording,
        )
        self._thread = threading.Thread(target=self._write_loop, name="episode-log", daemon=True)
        self._thread.start()

    def turn(self) -> None:
        """Take what has arrived, say that we live, publish what there is to tell."""
        if wait_any(self._subscribers, _IDLE_S):
            time.sleep(_BATCH_S)
        now = monotonic_ns()
        batch = [message for subscriber in self._subscribers for message in subscriber.drain()]
        # One host, one clock: by time, so that a stop does not overtake what other sockets had sent before it.
        for message in sorted(batch, key=lambda message: message.t_ns):
            topic = topic_of(message)
            if topic is not None and not self._backlog.put(topic, message, now) and self._backlog.stalled:
                self._tell_stall(message)
        self._stall_told = self._stall_told and self._backlog.stalled
        for subscriber in self._subscribers:
            fault = subscriber.take_fault()
            if fault:
                self._notices.put(("bad_message", fault, {}))
        self._publish_notices(now)
        if not self._thread.is_alive():
            raise LogError("the recorder's writing thread has died; its traceback stands above")
        self._heartbeats.beat(now)

    def close(self) -> None:
        """Write what has arrived, close the open episode, release the sockets."""
        self._ending.set()
        self._thread.join()
        self._publish_notices(monotonic_ns())
        time.sleep(_BATCH_S)  # ZMQ drops what it has not sent when a socket closes
        for subscriber in self._subscribers:
            subscriber.close()
        self._publisher.close()
        self._heartbeats.close()

    def _tell_stall(self, refused: Message) -> None:
        """Say once that the disk hangs, and of every episode that begins meanwhile that it is not recorded."""
        if isinstance(refused, EpisodeStart):
            episode = refused.episode
            self._notices.put(
                ("recorder_error", f"{episode} is not recorded: {self._hangs()}", {"episode": episode})
            )
        elif not self._stall_told:
            episode = self._recorder.episode
            self._notices.put(
                ("recorder_error", f"recording {episode} ends: {self._hangs()}", {"episode": episode})
            )
        self._stall_told = True

    def _hangs(self) -> str:
        limit = self._backlog.size_limit
        return (
            f"the disk of {self._folder} takes nothing; commands, safety reports and events that wait have "
            f"reached {limit} bytes, the limit; see to the disk, then begin a new episode"
        )

    def _publish_notices(self, now_ns: int) -> None:
        while True:
            try:
                kind, text, data = self._notices.get_nowait()
            except Empty:
                return
            event = Event(t_ns=now_ns, kind=kind, source=PEER, text=text, data=data)
            self._publisher.send(event)
            self._backlog.put("/event", event, now_ns)
            print(f"{kind}: {text}", flush=True)

    def _write_loop(self) -> None:
        """The writing thread: ends when it is told to and nothing is left."""
        told_ns = 0
        untold: Counter[str] = Counter()
        while True:
            item = self._backlog.get(_IDLE_S)
            drops = self._backlog.take_drops()
            self._recorder.count_drops(drops)
            untold.update(drops)
            if item is None:
                is_over = self._backlog.stalled or self._ending.is_set()
            else:
                is_over = isinstance(item[1], EpisodeStop)
            if untold and (is_over or monotonic_ns() - told_ns > _TELL_DROPS_NS):
                told_ns = monotonic_ns()
                self._tell_drops(untold)
                untold.clear()
            if item is not None:
                self._recorder.handle(*item)
            elif self._backlog.stalled:
                self._recorder.stop(self._hangs())
                self._backlog.resume()
            elif self._ending.is_set():
                self._recorder.stop("the recorder was stopped during the episode")
                return
            else:
                self._recorder.sync_if_due()

    def _tell_drops(self, drops: Counter[str]) -> None:
        text = ", ".join(f"{topic} {count}" for topic, count in sorted(drops.items()))
        self._notices.put(("recorder_drop", f"the disk is too slow; dropped: {text}", {**drops}))
