"""Deadlines do not drift; histograms tell percentiles within a bin's width."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from reflexarc.configs.errors import ConfigError, WireError
from reflexarc.wire import clock
from reflexarc.wire.clock import Histogram, Rate, monotonic_ns, tie_to_cpus

BIN = 10 ** (1 / Histogram.PER_DECADE)
DURATIONS = st.lists(st.integers(0, 10**11), min_size=1, max_size=100)


class FakeTime:
    """A clock that moves only by sleeping, and oversleeps by `oversleep_ns`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, oversleep_ns: int = 0) -> None:
        self.now_ns = 1_000_000_000
        self.oversleep_ns = oversleep_ns
        monkeypatch.setattr(clock, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ns += round(seconds * 1e9) + self.oversleep_ns


def test_deadlines_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime(monkeypatch, oversleep_ns=700)
    start = fake.now_ns
    rate = Rate(10_000)
    assert [rate.sleep() for _ in range(5)] == [700] * 5
    assert fake.now_ns == start + 5 * 10_000 + 700
    assert rate.overruns == 0


def test_missed_deadlines_are_skipped_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime(monkeypatch)
    start = fake.now_ns
    rate = Rate(10_000)
    fake.now_ns += 35_000
    assert rate.sleep() == 25_000
    assert rate.overruns == 2
    assert rate.sleep() == 0
    assert fake.now_ns == start + 40_000


def test_a_clock_that_is_set_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of the old time would be ten seconds away; those of the new one go on at the same period."""
    time_ = FakeTime(monkeypatch)
    rate = Rate(1_000_000)
    rate.sleep()
    for step_ns in (-10_000_000_000, 10_000_000_000):
        time_.now_ns += step_ns
        rate.sleep()
        before = time_.now_ns
        assert [rate.sleep() for _ in range(5)] == [0] * 5
        assert time_.now_ns - before == 5_000_000


def test_real_sleep_keeps_the_period() -> None:
    period_ns = 2_000_000
    start = monotonic_ns()
    rate = Rate(period_ns)
    lateness = [rate.sleep() for _ in range(50)]
    elapsed = monotonic_ns() - start
    assert min(lateness) >= 0
    due = (
        50 + rate.overruns
    ) * period_ns  # late wake-ups do not add up: each is counted from its own deadline
    assert due - period_ns < elapsed - lateness[-1] % period_ns < due + 500_000_000


@given(DURATIONS, st.floats(1, 100))
def test_percentile_is_within_one_bin(durations: list[int], percent: float) -> None:
    histogram = Histogram()
    for each in durations:
        histogram.add(each)
    exact = float(np.percentile(durations, percent, method="inverted_cdf"))
    assert exact * (1 - 1e-9) <= histogram.percentile_ns(percent) <= max(exact * BIN * (1 + 1e-9), 1000)


@given(DURATIONS, DURATIONS)
def test_merging_is_counting_both(first: list[int], second: list[int]) -> None:
    merged, other, both = Histogram(5000), Histogram(5000), Histogram(5000)
    for histogram, durations in ((merged, first), (other, second), (both, first + second)):
        for each in durations:
            histogram.add(each)
    merged.merge(other)
    assert merged.to_dict() == both.to_dict()
    assert merged.late == sum(each > 5000 for each in first + second)


@given(DURATIONS)
def test_dictionary_round_trip(durations: list[int]) -> None:
    histogram = Histogram(late_ns=10_000)
    for each in durations:
        histogram.add(each)
    again = Histogram.from_dict(histogram.to_dict())
    assert again.to_dict() == histogram.to_dict()
    assert again.summary() == histogram.summary()


@pytest.mark.parametrize(
    "data",
    [{}, {"late_ns": 0, "late": 0, "max_ns": 0, "counts": {"9999": 1}}, {"late_ns": "x"}],
)
def test_other_dictionaries_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(WireError, match="not a histogram"):
        Histogram.from_dict(data)


def test_an_empty_histogram_says_zero() -> None:
    assert Histogram().summary() == {"count": 0, "late": 0, "p50_us": 0.0, "p99_us": 0.0, "max_us": 0.0}


def denied(*_: object) -> None:
    raise PermissionError("denied")


def policy_of(thread: int) -> int:
    """Scheduling policy, without the flag that says children do not inherit it."""
    return os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK


def in_thread(call: Callable[[], object]) -> list[object]:
    """What `call` returned, and the scheduling policy afterwards, from a thread whose priority nobody else has."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend((call(), policy_of(0))))
    thread.start()
    thread.join()
    return found


def test_a_loop_runs_before_others_as_far_as_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    granted, policy = in_thread(lambda: clock.prefer_this_process(clock.HOST_PRIORITY))
    assert (granted == "fifo") == (policy == os.SCHED_FIFO)
    monkeypatch.setattr(os, "sched_setscheduler", denied)
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    assert in_thread(lambda: clock.prefer_this_process(clock.HOST_PRIORITY)) == ["nice", os.SCHED_OTHER]
    monkeypatch.setattr(os, "setpriority", denied)
    assert in_thread(lambda: clock.prefer_this_process(clock.HOST_PRIORITY)) == ["none", os.SCHED_OTHER]


LOCKED = """
from reflexarc.wire import clock
def locked():
    status = open("/proc/self/status").read()
    return int(status.split("VmLck:")[1].split()[0]) > 0
print(clock.may_keep_in_memory(), locked(), clock.keep_in_memory(), locked())
"""


def test_a_loop_keeps_its_pages_as_far_as_it_is_allowed() -> None:
    """In a process of its own: this one is large."""
    done = subprocess.run([sys.executable, "-c", LOCKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["True", "False", "True", "True"], ["False"] * 4)


def test_what_carries_a_loops_messages_runs_with_it() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB):
        deadline = time.monotonic() + 10
        while not (threads := clock._socket_threads()):  # a thread names itself once it runs
            assert time.monotonic() < deadline
        granted, _ = in_thread(lambda: clock.prefer_this_process(clock.HOST_PRIORITY))
        policies = {policy_of(thread) for thread in threads}
        assert policies == {os.SCHED_FIFO if granted == "fifo" else os.SCHED_OTHER}
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def test_a_loop_may_be_tied_to_processors_that_there_are() -> None:
    before = os.sched_getaffinity(0)
    try:
        tie_to_cpus(())
        assert os.sched_getaffinity(0) == before
        tie_to_cpus((min(before),))
        assert os.sched_getaffinity(0) == {min(before)}
        with pytest.raises(
            ConfigError, match=rf"cpus \[4095\]: \[4095\] may not be used here; .*{min(before)}"
        ):
            tie_to_cpus((4095,))
    finally:
        os.sched_setaffinity(0, before)
