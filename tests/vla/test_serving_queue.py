"""The queue of a policy server: who is let in, who waits for whom, whose answer would come too late."""

from __future__ import annotations

from contracts.toy_policy import toy_observation
from reflexarc.configs.serving import ServingConfig
from reflexarc.vla.serving.queue import MOST_KNOWN, Queue

MS = 1_000_000
OBSERVATION = toy_observation()


def queue(**changes: float) -> Queue[str]:
    settings = {
        "max_batch": 4,
        "max_wait_s": 0.004,
        "max_clients": 8,
        "max_age_s": 1.0,
        "forget_client_s": 10.0,
    }
    return Queue(ServingConfig.model_validate(settings | changes))


def test_one_robot_alone_never_waits() -> None:
    line = queue()
    assert line.wait_ns(0) is None
    for tick in range(5):
        line.put("a", OBSERVATION, tick * 100 * MS)
        assert line.wait_ns(tick * 100 * MS) == 0
        batch, late = line.take(tick * 100 * MS, 0)
        assert [item.key for item in batch] == ["a"]
        assert late == []


def test_a_batch_waits_for_a_robot_that_is_due_but_no_longer_than_it_may() -> None:
    line = queue()
    for tick in range(4):
        for key in ("a", "b"):
            line.put(key, OBSERVATION, tick * 100 * MS)
        line.take(tick * 100 * MS, 0)
    now = 400 * MS
    line.put("a", OBSERVATION, now)
    assert line.wait_ns(now) == 4 * MS
    assert line.wait_ns(now + 4 * MS) == 0
    line.put("b", OBSERVATION, now + MS)
    assert line.wait_ns(now + MS) == 0
    assert [item.key for item in line.take(now + MS, 0)[0]] == ["a", "b"]


def test_a_robot_that_has_gone_is_not_waited_for() -> None:
    line = queue()
    for tick in range(4):
        for key in ("a", "gone"):
            line.put(key, OBSERVATION, tick * 100 * MS)
        line.take(tick * 100 * MS, 0)
    line.put("a", OBSERVATION, 1000 * MS)
    assert line.wait_ns(1000 * MS) == 0


def test_a_batch_is_no_larger_than_allowed_and_keeps_the_order() -> None:
    line = queue(max_batch=3)
    for key in "abcde":
        line.put(key, OBSERVATION, 0)
    assert [item.key for item in line.take(0, 0)[0]] == ["a", "b", "c"]
    assert [item.key for item in line.take(0, 0)[0]] == ["d", "e"]


def test_a_newer_observation_keeps_its_robots_place() -> None:
    line = queue(max_batch=1)
    line.put("a", toy_observation(seq=1), 0)
    line.put("b", toy_observation(seq=2), MS)
    older = line.put("a", toy_observation(seq=3), 2 * MS)
    assert older is not None
    assert older.observation.seq == 1
    first = line.take(3 * MS, 0)[0][0]
    assert (first.key, first.observation.seq, first.arrived_ns) == ("a", 3, 2 * MS)


def test_an_answer_that_would_come_too_late_is_not_made() -> None:
    line = queue(max_age_s=0.5)
    line.put("late", OBSERVATION, 0)
    line.put("good", OBSERVATION, 300 * MS)
    batch, late = line.take(450 * MS, answer_ns=100 * MS)
    assert [item.key for item in batch] == ["good"]
    assert [item.key for item in late] == ["late"]


def test_a_full_server_refuses_the_next_robot_until_one_has_gone() -> None:
    line = queue(max_clients=2, forget_client_s=1.0)
    line.put("a", OBSERVATION, 0)
    line.put("b", OBSERVATION, 900 * MS)
    assert line.refusal("a", 900 * MS) == ""
    assert "serves 2 robots (max_clients)" in line.refusal("c", 950 * MS)
    assert line.refusal("c", 1001 * MS) == ""
    assert line.clients(1001 * MS) == 1
    assert line.clients(1901 * MS) == 0  # nobody has to ask for them to be forgotten


def test_who_comes_under_ever_new_names_locks_no_robot_out() -> None:
    line, now = queue(max_clients=4), 0
    for stranger in range(MOST_KNOWN + 100):
        now += MS
        for key in ("a", "b", f"stranger {stranger}"):
            assert line.refusal(key, now) == ""
            line.put(key, OBSERVATION, now)
        line.take(now, 0)
    assert line.clients(now) == 2
    assert len(line._robots) == MOST_KNOWN
    for key in "cdcdabcd":
        now += MS
        assert line.refusal(key, now) == ""
        line.put(key, OBSERVATION, now)
        line.take(now, 0)
    assert "full" in line.refusal("one stranger more", now)


def test_of_too_many_robots_those_that_asked_twice_first_stay() -> None:
    line = queue(max_clients=2)
    refused: list[tuple[int, str]] = []
    for tick in range(3):
        for key in "abcd":
            now = tick * 100 * MS
            if line.refusal(key, now):
                refused.append((tick, key))
            else:
                line.put(key, OBSERVATION, now)
                line.take(now, 0)
    assert refused == [(1, "c"), (1, "d"), (2, "c"), (2, "d")]
