"""A recorder whose disk is full after some bytes, as a process's target."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

from reflexarc.datasets.recorder import run_recorder
from reflexarc.wire.endpoints import Endpoints

ROOM = 60_000


def record_on_a_full_disk(folder: Path, endpoints: Endpoints, **options: Any) -> None:
    """`run_recorder`; a file may not grow beyond ROOM bytes, which to a writer is the same as a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    run_recorder(folder, endpoints, **options)
