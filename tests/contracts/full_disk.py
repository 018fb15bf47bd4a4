"""A recorder whose disk is full once it holds some of an episode, as a process's target."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

from reflexarc.datasets.recorder import run_recorder
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.endpoints import Endpoints


def record_on_a_full_disk(folder: Path, endpoints: Endpoints, **options: Any) -> None:
    """`run_recorder`; no file may grow beyond what a log has at its first sync, which to a writer is a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sync = EpisodeWriter.sync

    def sync_and_fill(self: EpisodeWriter) -> None:
        sync(self)
        room = self.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    EpisodeWriter.sync = sync_and_fill  # type: ignore[method-assign]
    run_recorder(folder, endpoints, **options)
