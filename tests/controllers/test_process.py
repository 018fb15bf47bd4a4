"""The real-time process over real sockets: rate, a policy that dies and returns, and what goes wrong at the start."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from contracts.controller_bench import HOST_NS, FollowingHost, answer, moves, panda
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError, WireError
from reflexarc.controllers.process import PEER, run_controller
from reflexarc.wire.clock import Rate, monotonic_ns
from reflexarc.wire.endpoints import NAMES, Endpoints
from reflexarc.wire.messages import (
    SPEED_EVENT,
    ActionChunk,
    CameraFrame,
    EpisodeStart,
    EpisodeStop,
    Event,
    Heartbeat,
    Message,
    Observation,
    PolicyInfo,
    PolicyInfoRequest,
    Setpoint,
    State,
)
from reflexarc.wire.sockets import Publisher, Pull, Responder, Subscriber

SPEC = tcp_delta_spec(8, 0.1)
CONFIG = ControllerConfig(policy_timeout_s=0.5)


def free_endpoints() -> Endpoints:
    """Endpoints on ports that are free now."""
    base = 20000
    while True:
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + len(NAMES)):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                base += len(NAMES)
                continue
            return Endpoints(base_port=base)


class Policy(threading.Thread):
    """A policy server that moves 1 cm up at each step."""

    def __init__(self, endpoints: Endpoints, spec_json: str = SPEC.model_dump_json()) -> None:
        super().__init__(daemon=True)
        self._address = endpoints.policy
        self._spec_json = spec_json
        self.stop = threading.Event()
        self.asked: list[Observation] = []

    def run(self) -> None:
        with Responder(self._address, PolicyInfoRequest, Observation) as server:
            while not self.stop.is_set():
                server.wait(0.01)
                for client, request in server.poll():
                    server.reply(client, self._answer(request))

    def _answer(self, request: Message) -> Message:
        if isinstance(request, Observation):
            self.asked.append(request)
            return answer(request, moves(8, (0.0, 0.0, 0.01)), SPEC)
        return PolicyInfo(
            t_ns=monotonic_ns(),
            model_id="up",
            action_spec=self._spec_json,
            cameras=["front"],
            image_height=1,
            image_width=1,
            tokenizer_id="",
        )

    def end(self) -> None:
        self.stop.set()
        self.join(2.0)


class Surroundings(threading.Thread):
    """Host, camera, runner and recorder in one thread: publishes, and keeps all that the controller sends."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self.stop = threading.Event()
        self.say: list[Message] = []
        self.host_says: list[Message] = []
        self.sent: list[Message] = []
        self.setpoints: list[tuple[int, Setpoint]] = []
        self.beats: list[Heartbeat] = []
        self.height = 0.0

    def run(self) -> None:
        host, ends, setpoint = FollowingHost(panda()), self._endpoints, None
        with contextlib.ExitStack() as stack:
            states = stack.enter_context(Publisher(ends.state))
            frames = stack.enter_context(Publisher(ends.frames))
            runner = stack.enter_context(Publisher(ends.runner))
            inlet = stack.enter_context(Pull(ends.setpoint, Setpoint))
            beats = stack.enter_context(Pull(ends.heartbeat, Heartbeat))
            listener: Subscriber[Message] = stack.enter_context(Subscriber(ends.controller))
            rate, tick = Rate(HOST_NS), 0
            while not self.stop.is_set():
                rate.sleep()
                now = monotonic_ns()
                for received in inlet.drain():
                    setpoint = received
                    self.setpoints.append((now, received))
                state = host.tick(now, setpoint)
                self.height = float(state.pose_base_tcp[2])
                states.send(on_our_clock(state))
                if tick % 20 == 0:
                    frames.send(small_picture(now))
                while self.say:
                    runner.send(self.say.pop(0))
                while self.host_says:
                    states.send(self.host_says.pop(0))
                self.sent.extend(listener.drain())
                self.beats.extend(beats.drain())
                tick += 1

    def events(self, kind: str) -> list[Event]:
        """Events of a kind so far."""
        return [each for each in list(self.sent) if isinstance(each, Event) and each.kind == kind]

    def await_event(self, kind: str, timeout_s: float = 5.0) -> Event:
        """The latest event of a kind, waiting until there is one."""
        deadline = time.monotonic() + timeout_s
        while not self.events(kind):
            assert time.monotonic() < deadline, f"no {kind} within {timeout_s} s"
            time.sleep(0.01)
        return self.events(kind)[-1]


def on_our_clock(state: State) -> State:
    return msgspec.structs.replace(state, clock="monotonic")


def small_picture(now_ns: int) -> CameraFrame:
    return CameraFrame(
        t_ns=now_ns,
        camera="front",
        seq=0,
        t_capture_ns=now_ns,
        height=1,
        width=1,
        encoding="raw",
        data=(now_ns >> 16 & 0xFFFFFF).to_bytes(3, "little"),  # a camera that repeats itself is not believed
    )


def start_message(session: str = "s1") -> EpisodeStart:
    return EpisodeStart(t_ns=0, episode=session, instruction="go up", session=session, metadata="{}")


@pytest.fixture
def endpoints() -> Endpoints:
    return free_endpoints()


@pytest.fixture
def around(endpoints: Endpoints) -> Iterator[Surroundings]:
    surroundings = Surroundings(endpoints)
    surroundings.start()
    yield surroundings
    surroundings.stop.set()
    surroundings.join(2.0)


@contextlib.contextmanager
def controller(endpoints: Endpoints) -> Iterator[None]:
    """A controller process, in a thread."""
    stop = threading.Event()
    thread = threading.Thread(
        target=run_controller, args=(CONFIG, panda(), endpoints), kwargs={"stop": stop}, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)
        assert not thread.is_alive()


def test_it_drives_survives_the_policys_death_and_goes_on(endpoints: Endpoints, around: Surroundings) -> None:
    policy = Policy(endpoints)
    policy.start()
    with controller(endpoints):
        around.await_event("loop_stats")
        # Before an episode it holds and asks nothing.
        assert policy.asked == []
        assert {setpoint.source for _, setpoint in around.setpoints} == {"hold"}
        low = around.height
        around.say.append(start_message())
        time.sleep(1.0)
        assert around.height > low + 0.05
        assert policy.asked[0].instruction == "go up"
        assert policy.asked[0].session == "s1"

        policy.end()
        lost = around.await_event("peer_lost")
        assert lost.data["peer"] == "policy"
        assert "the policy server is lost" in lost.text
        time.sleep(0.6)
        held = around.height
        time.sleep(0.2)
        assert around.height == pytest.approx(held, abs=1e-6)
        assert around.setpoints[-1][1].source == "hold"

        policy = Policy(endpoints)
        policy.start()
        around.await_event("peer_returned")
        time.sleep(0.5)
        assert around.height > held + 0.01

        around.say.append(EpisodeStop(t_ns=0, episode="s1", outcome="{}"))
        time.sleep(1.2)
        asked, held = len(policy.asked), around.height
        time.sleep(0.3)
        assert len(policy.asked) == asked
        assert around.height == pytest.approx(held, abs=1e-6)
    policy.end()
    check_what_was_published(around)


def check_what_was_published(around: Surroundings) -> None:
    """The recorder's view, and the steadiness of the loop."""
    observations = [each for each in around.sent if isinstance(each, Observation)]
    assert observations
    assert all(each.images == {} for each in observations)
    assert any(isinstance(each, ActionChunk) for each in around.sent)
    assert len([each for each in around.sent if isinstance(each, Setpoint)]) > 300
    assert {beat.peer for beat in around.beats} == {PEER}
    assert around.events("wire_fault") == []
    # Due times are a grid of 10 ms, whatever the jitter of the machine.
    due = [setpoint.t_due_ns for _, setpoint in around.setpoints]
    assert {(later - due[0]) % CONFIG.tick_ns for later in due} == {0}
    assert [event.data["source"] for event in around.events("control")] == ["policy"]
    figures = around.events("loop_stats")[-1].data
    assert figures["count"] > 300
    assert set(figures) >= {"late", "p50_us", "p99_us", "max_us", "work_p50_us", "work_p99_us", "overruns"}
    assert figures["work_p50_us"] < 5_000


def test_the_speed_that_the_hosts_console_passes_on_is_taken(
    endpoints: Endpoints, around: Surroundings
) -> None:
    policy = Policy(endpoints)
    policy.start()
    with controller(endpoints):
        around.await_event("loop_stats")
        for scale in (0.5, 1.5):
            around.host_says.append(
                Event(t_ns=monotonic_ns(), kind=SPEED_EVENT, source="host", data={"scale": scale})
            )
        refused = around.await_event("speed_refused")
        assert "speed_scale is 1.5" in refused.text
        assert len(around.events("speed_refused")) == 1
    policy.end()


def test_a_host_that_falls_silent_is_named(endpoints: Endpoints, around: Surroundings) -> None:
    policy = Policy(endpoints)
    policy.start()
    with controller(endpoints):
        around.await_event("loop_stats")
        around.stop.set()
        around.join(2.0)
        listener: Subscriber[Message] = Subscriber(endpoints.controller, Event, Setpoint, Observation)
        deadline, found = time.monotonic() + 3.0, []
        while not found and time.monotonic() < deadline:
            listener.wait(0.1)
            found = [e for e in listener.drain() if isinstance(e, Event) and e.kind == "peer_lost"]
        listener.close()
    policy.end()
    assert found[0].data["peer"] == "robot host"
    assert "has published no state for 0.5" in found[0].text


def test_its_first_heartbeat_says_that_it_can_move(endpoints: Endpoints, around: Surroundings) -> None:
    """While it is built, seconds where its kernels are compiled, it would be silent, and taken for lost."""
    with pytest.raises(ControlError):
        run_controller(CONFIG, panda(), endpoints, policy_wait_s=1.2)
    assert not around.beats


def test_no_policy_server_is_one_line(endpoints: Endpoints) -> None:
    with pytest.raises(ControlError, match=r"policy server at tcp://.* told no action space within 0\.6 s"):
        run_controller(CONFIG, panda(), endpoints, policy_wait_s=0.6)


def test_a_policy_for_another_robot_is_refused(endpoints: Endpoints) -> None:
    other = SPEC.model_copy(update={"dims": SPEC.dims[3:]})
    policy = Policy(endpoints, other.model_dump_json())
    policy.start()
    with pytest.raises(ControlError, match=r"unknown action space .*drx"):
        run_controller(CONFIG, panda(), endpoints)
    policy.end()


def test_a_policy_that_tells_nonsense_is_refused(endpoints: Endpoints) -> None:
    policy = Policy(endpoints, "{}")
    policy.start()
    with pytest.raises(ControlError, match=r"policy 'up' tells no valid action space: .*required"):
        run_controller(CONFIG, panda(), endpoints)
    policy.end()


def test_an_occupied_port_is_named(endpoints: Endpoints) -> None:
    with (
        Publisher(endpoints.controller),
        pytest.raises(WireError, match=r"cannot bind controller at tcp://.*in use"),
    ):
        run_controller(CONFIG, panda(), endpoints)
