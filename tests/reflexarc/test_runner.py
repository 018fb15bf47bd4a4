"""The runner beside the recorder: a recording that breaks off ends no episode, and is told."""

from __future__ import annotations

import time

from reflexarc.runner import EpisodeFigures, Runner
from reflexarc.stack import free_endpoints
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.messages import Event
from reflexarc.wire.sockets import Publisher


def test_what_the_recorder_cannot_write_stands_in_the_figures() -> None:
    endpoints = free_endpoints()
    figures = EpisodeFigures("e", "lift", "lift it")
    runner = Runner(endpoints, (), simulated=False)
    try:
        with Publisher(endpoints.recorder, name="recorder") as recorder:
            deadline = time.monotonic() + 10
            while not figures.unrecorded and time.monotonic() < deadline:
                for kind, text in (("recorded", "e is in e.mcap"), ("recorder_error", "No space left")):
                    recorder.send(Event(t_ns=monotonic_ns(), kind=kind, source="recorder", text=text))
                time.sleep(0.02)
                runner._watch_recorder(figures)
    finally:
        runner.close()
    assert figures.unrecorded == "No space left"
    assert set(figures.events) == {"recorder_error: No space left"}
    assert figures.end == ""
