"""What the simulator's processes share: ending on SIGTERM, and no garbage collection in the middle of a tick."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def steady_loop(stop: threading.Event) -> Iterator[None]:
    """SIGTERM sets `stop`; what exists is kept out of garbage collection, which waits for `gc.collect`."""
    main = threading.current_thread() is threading.main_thread()
    earlier = signal.signal(signal.SIGTERM, lambda *_: stop.set()) if main else None
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        if main:
            signal.signal(signal.SIGTERM, earlier)
