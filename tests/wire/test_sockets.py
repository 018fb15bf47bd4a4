"""Sockets never wait, never raise on what arrives, and never take one answer for another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from reflexarc.configs.errors import WireError
from reflexarc.wire.codec import MAX_MESSAGE_BYTES, encode
from reflexarc.wire.messages import (
    ErrorReply,
    Event,
    Heartbeat,
    HostReply,
    HostRequest,
    PolicyInfoRequest,
)
from reflexarc.wire.sockets import (
    Heartbeats,
    PeerWatch,
    Publisher,
    Pull,
    Push,
    Requester,
    Responder,
    Socket,
    Subscriber,
    wait_any,
)

ANY_PORT = "tcp://127.0.0.1:*"
SECOND = 1_000_000_000


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes the sockets of a test."""
    with ExitStack() as stack:
        yield stack


def beat(seq: int, peer: str = "arm") -> Heartbeat:
    return Heartbeat(t_ns=0, peer=peer, seq=seq)


def ask(seq: int) -> HostRequest:
    return HostRequest(t_ns=0, action="status", seq=seq)


def answer(seq: int) -> HostReply:
    return HostReply(t_ns=0, seq=seq, ok=True, safety="ready")


def eventually(condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"did not come true within {timeout_s} s")


def collect(into: list[Any], receive: Callable[[], list[Any]], count: int) -> None:
    """Receive until there are `count`."""

    def enough() -> bool:
        into.extend(receive())
        return len(into) >= count

    eventually(enough)


def published(publisher: Publisher, subscriber: Subscriber[Any]) -> None:
    """Publish until it is heard: a subscriber joins after a moment."""
    eventually(lambda: publisher.send(beat(-1)) and subscriber.wait(0.01))
    time.sleep(0.02)
    subscriber.drain()


def raw_sender(opened: ExitStack, kind: int, address: str) -> zmq.Socket[bytes]:
    sender: zmq.Socket[bytes] = opened.enter_context(zmq.Context.instance().socket(kind))
    sender.setsockopt(zmq.LINGER, 0)
    sender.connect(address)
    return sender


def test_published_messages_arrive_in_order(opened: ExitStack) -> None:
    publisher = opened.enter_context(Publisher(ANY_PORT))
    subscriber = opened.enter_context(Subscriber(publisher.address, Heartbeat))
    published(publisher, subscriber)
    for seq in range(100):
        assert publisher.send(beat(seq))
    received: list[Heartbeat] = []
    collect(received, subscriber.drain, 100)
    assert [each.seq for each in received] == list(range(100))
    assert subscriber.drain() == []


def test_latest_wins_and_the_rest_is_gone(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat))
    push = opened.enter_context(Push(pull.address))
    eventually(lambda: push.send(beat(-1)))
    for seq in range(50):
        assert push.send(beat(seq))
    taken: list[int] = []

    def newest_of_all() -> bool:
        message = pull.latest()
        taken.extend([] if message is None else [message.seq])
        return 49 in taken

    eventually(newest_of_all)
    assert taken == sorted(taken), "never back in time"
    assert pull.latest() is None


def test_latest_skips_what_is_bad(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat, name="setpoint"))
    sender = raw_sender(opened, zmq.PUSH, pull.address)
    sender.send(encode(beat(7)))
    sender.send(b"garbage")
    sender.send_multipart([encode(beat(8)), b"more"])
    sender.send(encode(ask(1)))
    taken: list[int] = []

    def all_seen() -> bool:
        message = pull.latest()
        taken.extend([] if message is None else [message.seq])
        return pull.faults == 3

    eventually(all_seen)
    assert taken == [7]
    assert pull.take_fault().startswith("setpoint: 3 bad, last: cannot decode 7 bytes")
    assert pull.take_fault() == ""


def test_the_wrong_message_is_counted_and_named(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat, Event))
    push = opened.enter_context(Push(pull.address))
    eventually(lambda: push.send(ask(1)))
    eventually(lambda: pull.drain() or pull.faults)
    assert "got HostRequest, expected Heartbeat, Event" in pull.take_fault()


def test_a_flood_of_garbage_does_not_hold_the_receiver_up(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat, queue=100))
    sender = raw_sender(opened, zmq.PUSH, pull.address)
    for _ in range(500):
        sender.send(b"\xff" * 100)
    assert pull.wait(5.0)
    start = time.perf_counter()
    assert pull.drain() == []
    assert time.perf_counter() - start < 1.0
    assert 1 <= pull.faults <= 100, "no more than the queue holds in one go"


def test_an_oversized_message_is_not_received(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat))
    raw_sender(opened, zmq.PUSH, pull.address).send(bytes(MAX_MESSAGE_BYTES + 1))
    push = opened.enter_context(Push(pull.address))
    eventually(lambda: push.send(beat(1)))
    assert [each.seq for each in eventually(pull.drain)] == [1]


@pytest.mark.parametrize("kind", [Publisher, Pull, Responder])
def test_an_occupied_address_is_named(opened: ExitStack, kind: type[Any]) -> None:
    first = opened.enter_context(kind(ANY_PORT))
    with pytest.raises(
        WireError, match=rf"cannot bind console at {first.address}: it is in use; .* base_port"
    ):
        kind(first.address, name="console")


def test_an_occupied_ipc_path_is_not_taken_over(opened: ExitStack, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    pull = opened.enter_context(Pull(address, Heartbeat))
    with pytest.raises(WireError, match="it is in use"):
        Pull(address, Heartbeat)
    push = opened.enter_context(Push(address))
    eventually(lambda: push.send(beat(3)))
    assert [each.seq for each in eventually(pull.drain)] == [3]


def test_an_ipc_path_left_by_a_dead_process_is_used_again(opened: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    opened.enter_context(Pull(f"ipc://{tmp_path}/s", Heartbeat))


def test_a_port_is_free_again_after_close() -> None:
    first = Pull(ANY_PORT, Heartbeat)
    first.close()
    first.close()
    reopened(first.address).close()


def reopened(address: str) -> Pull[Heartbeat]:
    """The port is released a moment after its socket was closed."""

    def attempt() -> Pull[Heartbeat] | None:
        with contextlib.suppress(WireError):
            return Pull(address, Heartbeat)
        return None

    pull: Pull[Heartbeat] = eventually(attempt)
    return pull


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:27100", "tcp://*:*", "tcp://10.0.0.1:27100", "nonsense"])
@pytest.mark.parametrize("bind", [True, False])
def test_only_loopback(address: str, bind: bool) -> None:
    with pytest.raises(WireError, match="keys do not exist yet"):
        Pull(address, Heartbeat, bind=bind)


def test_a_port_that_cannot_be_is_a_wire_error() -> None:
    with pytest.raises(WireError, match=r"tcp://127\.0\.0\.1:99999.*port 99999 is not within 1\.\.65535"):
        Pull("tcp://127.0.0.1:99999", Heartbeat, name="setpoint")


def test_nothing_is_kept_for_a_receiver_that_is_away(opened: ExitStack) -> None:
    pull = Pull(ANY_PORT, Heartbeat)
    address = pull.address
    pull.close()
    push = opened.enter_context(Push(address))
    assert [push.send(beat(seq)) for seq in range(20)] == [False] * 20
    assert push.dropped == 20
    again = opened.enter_context(reopened(address))
    eventually(lambda: push.send(beat(100)))
    assert [each.seq for each in eventually(again.drain)] == [100]


def test_sending_without_a_reader_never_waits(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat, queue=10))
    push = opened.enter_context(Push(pull.address, queue=10))
    publisher = opened.enter_context(Publisher(ANY_PORT, queue=10))
    opened.enter_context(Subscriber(publisher.address, Event, queue=10))
    eventually(lambda: push.send(beat(0)))
    note = Event(t_ns=0, kind="note", source="test", text="x" * 100_000)
    start = time.perf_counter()
    for _ in range(500):
        publisher.send(note)
        push.send(note)
    assert time.perf_counter() - start < 5.0
    assert push.dropped > 0


def test_sending_on_a_closed_socket_says_so() -> None:
    publisher = Publisher(ANY_PORT, name="state")
    publisher.close()
    with pytest.raises(WireError, match="state: cannot send"):
        publisher.send(beat(0))


def test_wait_ends_when_something_arrives_on_any(opened: ExitStack) -> None:
    quiet = opened.enter_context(Pull(ANY_PORT, Heartbeat))
    busy = opened.enter_context(Pull(ANY_PORT, Heartbeat))
    push = opened.enter_context(Push(busy.address))
    assert not wait_any([quiet, busy], 0.02)
    eventually(lambda: push.send(beat(0)))
    assert wait_any([quiet, busy], 5.0)
    assert busy.wait(0.0)
    assert not quiet.wait(0.0)


def test_request_and_answer(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    requester = opened.enter_context(Requester(responder.address, HostReply))
    eventually(lambda: requester.send(ask(1)))
    assert requester.send(ask(2))
    requests: list[Any] = []
    collect(requests, responder.poll, 2)
    for client, message in reversed(requests):  # in any order
        assert responder.reply(client, answer(message.seq))
    received: list[HostReply] = []
    collect(received, requester.poll, 2)
    assert [each.seq for each in received] == [2, 1]


def test_a_request_times_out_naming_who_did_not_answer(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    requester = opened.enter_context(Requester(responder.address, HostReply, name="console"))
    eventually(lambda: requester.send(ask(0)))
    start = time.perf_counter()
    with pytest.raises(
        WireError, match=f"console: no answer to HostRequest from {responder.address} within 0.1 s"
    ):
        requester.request(ask(1), timeout_s=0.1)
    assert 0.08 < time.perf_counter() - start < 2.0


def test_a_request_to_nobody_times_out(opened: ExitStack) -> None:
    gone = Pull(ANY_PORT, Heartbeat)
    gone.close()
    requester = opened.enter_context(Requester(gone.address, HostReply, name="policy"))
    with pytest.raises(WireError, match=f"policy: nobody at {gone.address} took HostRequest within 0.05 s"):
        requester.request(ask(1), timeout_s=0.05)


def test_a_late_answer_is_not_taken_for_the_next(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    requester = opened.enter_context(Requester(responder.address, HostReply))
    eventually(lambda: requester.send(ask(0)))
    eventually(responder.poll)
    with pytest.raises(WireError):
        requester.request(ask(1), timeout_s=0.05)
    for client, message in eventually(responder.poll):
        responder.reply(client, answer(message.seq))
    assert requester.send(ask(2))
    for client, message in eventually(responder.poll):
        responder.reply(client, answer(message.seq))
    assert [each.seq for each in eventually(requester.poll)] == [2]


def test_a_refusal_is_an_error_unless_it_is_expected(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest, name="host"))
    plain = opened.enter_context(Requester(responder.address, HostReply, name="console"))
    frank = opened.enter_context(Requester(responder.address, HostReply, ErrorReply))
    eventually(lambda: plain.send(PolicyInfoRequest(t_ns=0)))
    eventually(lambda: frank.send(PolicyInfoRequest(t_ns=0)))
    eventually(lambda: responder.poll() or responder.faults == 2)
    eventually(lambda: plain.poll() or plain.faults)
    assert plain.take_fault() == "console: 1 bad, last: got PolicyInfoRequest, expected HostRequest"
    (refusal,) = eventually(frank.poll)
    assert isinstance(refusal, ErrorReply)


def test_the_asker_of_another_version_is_told(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    requester = opened.enter_context(Requester(responder.address, HostReply, ErrorReply))
    old = HostRequest(t_ns=0, action="status", seq=1, version=99)
    eventually(lambda: requester.send(old))
    eventually(lambda: responder.poll() or responder.faults)
    (refusal,) = eventually(requester.poll)
    assert "wire version 99" in refusal.text


def test_bad_frames_do_not_disturb_a_responder(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    stranger = raw_sender(opened, zmq.DEALER, responder.address)
    for frames in ([b"x"], [b"1", b"2", b"3"], [b"", b"\x81"]):
        stranger.send_multipart(frames)
    requester = opened.enter_context(Requester(responder.address, HostReply))
    eventually(lambda: requester.send(ask(1)))
    ((client, message),) = eventually(responder.poll)
    assert responder.reply(client, answer(message.seq))
    eventually(lambda: responder.poll() or responder.faults == 3)


def test_an_answer_to_a_client_that_has_gone_is_refused(opened: ExitStack) -> None:
    responder = opened.enter_context(Responder(ANY_PORT, HostRequest))
    requester = Requester(responder.address, HostReply)
    eventually(lambda: requester.send(ask(1)))
    ((client, _),) = eventually(responder.poll)
    requester.close()
    eventually(lambda: not responder.reply(client, answer(1)))


def test_the_watch_names_who_died_and_who_came_back(opened: ExitStack) -> None:
    watch = PeerWatch(ANY_PORT, ("controller", "policy", "arm"), lost_after_s=1.0)
    opened.callback(watch.close)
    beats = {name: Heartbeats(watch.address, name) for name in ("controller", "policy")}
    for each in beats.values():
        opened.callback(each.close)
    now = SECOND
    assert watch.waiting == ("controller", "policy", "arm")

    def heard() -> bool:
        nonlocal now
        now += SECOND // 5
        for each in beats.values():
            each.beat(now)
        assert watch.update(now) == ()
        return watch.waiting == ("arm",)

    eventually(heard)
    for _ in range(8):  # only the controller goes on
        now += SECOND // 5
        beats["controller"].beat(now)
        time.sleep(0.02)
        events = watch.update(now)
        if events:
            break
    (event,) = events
    assert (event.kind, event.data["peer"]) == ("peer_lost", "policy")
    assert event.text == "policy has been silent for 1.20 s (limit 1.00 s)"
    assert watch.lost == ("policy",)
    assert list(watch.waiting) == ["arm"]
    now += SECOND // 10
    assert watch.update(now) == (), "a loss is told once"
    beats["policy"].beat(now + SECOND)
    beats["controller"].beat(now + SECOND)
    time.sleep(0.05)
    (event,) = watch.update(now + SECOND)
    assert (event.kind, event.data["peer"]) == ("peer_returned", "policy")
    assert not watch.lost


def test_a_heartbeat_is_sent_once_a_period(opened: ExitStack) -> None:
    pull = opened.enter_context(Pull(ANY_PORT, Heartbeat))
    heartbeats = Heartbeats(pull.address, "arm", period_s=0.1)
    opened.callback(heartbeats.close)
    now = 0

    def heard() -> list[Heartbeat]:
        nonlocal now
        now += SECOND
        heartbeats.beat(now)
        return pull.drain() if pull.wait(0.02) else []

    eventually(heard)
    received: list[Heartbeat] = []
    for _ in range(100):  # one second in steps of 10 ms
        now += SECOND // 100
        heartbeats.beat(now)
        received.extend(pull.drain())
        time.sleep(0.001)
    collect(received, pull.drain, 10)
    assert len(received) == 10
    assert len({each.seq for each in received}) == 10
    assert {each.peer for each in received} == {"arm"}


def test_every_queue_is_bounded_and_nothing_lingers(opened: ExitStack) -> None:
    sockets: list[Socket] = [Publisher(ANY_PORT), Pull(ANY_PORT, Event), Responder(ANY_PORT, Event)]
    for each in sockets:
        opened.enter_context(each)
        assert 0 < int(each._zmq.getsockopt(zmq.RCVHWM)) <= 1000
        assert 0 < int(each._zmq.getsockopt(zmq.SNDHWM)) <= 1000
        assert each._zmq.getsockopt(zmq.LINGER) == 0
        assert each._zmq.getsockopt(zmq.MAXMSGSIZE) == MAX_MESSAGE_BYTES
