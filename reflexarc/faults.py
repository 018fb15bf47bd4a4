"""Faults put into a running robot: real processes for arm, host and monitor, who leads them, and what happens.

It is led by a sender of setpoints, which can garble them, or by a policy through the controller (`reflexarc.led`).
Every fault gets processes of its own. The arm is brought into motion, the fault happens, and the arm's own sensors say
how far it still goes and whether it comes to rest. What answers first, the host, the controller or the arm itself, is
told by their own words and their own times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.configs.watch import EStopConfig
from reflexarc.led import SAME_PICTURE, PolicyLead
from reflexarc.processes import Processes
from reflexarc.safety.kinematics import Kinematics
from reflexarc.sim.arm_client import ArmClient
from reflexarc.stack import free_endpoints
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    F64,
    ArmState,
    Event,
    HostAction,
    HostReply,
    HostRequest,
    JointCommand,
    Measured,
    Setpoint,
    State,
)
from reflexarc.wire.roles import Keys, find_key
from reflexarc.wire.sockets import Push, Requester, Subscriber

READY_S = 180.0
"""The first time ever the loops compile their kernels, which takes more than a minute on a busy machine."""
REST_RAD_S = 0.01
"""A joint slower than this stands."""
AMPLITUDE_RAD, PERIOD_S = 0.15, 3.0
"""Of the motion during which the fault happens: joints 1 and 4."""
CLOCK_STEP_S = {"clock ahead": 10.0, "clock back": -10.0}
"""What the file says for the host's clock to be set, and by how much."""
STOPPED = ("protective_stop", "e_stop")
TOLD = ("camera_stalled", "peer_lost")
"""Events of the controller that say what it has detected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a fault led to. detected_ms: until one of them reacted, None if neither had to. by: who did, and in what
    words. final: the host's state (`gone` without one), and whether the arm's own brake is on. travelled_mm: of the TCP
    from the fault until rest, or in all if it goes on. moving: whether it still moves at the end."""

    fault: str
    detected_ms: float | None
    by: str
    final: str
    braked: bool
    travelled_mm: float
    moving: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """do: what happens. ends: the states that are right. seconds: how long it is watched. moves: it may go on.
    led: by a policy, through the controller. overrides: of the limits, for this fault. clock_step_s: by how much the
    host's clock is set."""

    do: Callable[[FaultStand], None]
    ends: tuple[str, ...]
    seconds: float = 2.0
    moves: bool = False
    led: bool = False
    overrides: tuple[str, ...] = ()
    clock_step_s: float = 0.0


class FlawedClient(ArmClient):
    """The driver of the simulated arm; when a file says so its encoders freeze, its release fails, it runs away, or the
    clock of its process is set."""

    def __init__(self, robot: RobotConfig, endpoints: Endpoints, flag: Path) -> None:
        super().__init__(robot, endpoints)
        self._flag = flag
        self._frozen: Measured | None = None
        self._strayed = 0.0
        self._clock_set = False

    def write(self, command: JointCommand) -> None:
        """Pass a command on; running away, turn the base by half a radian per second more than it says, unfiltered."""
        if self._flag.exists() and self._flag.read_text() == "runaway":
            self._strayed += 0.5 / self._robot.tick_hz
            turned = command.joint_position.copy()
            turned[0] += self._strayed
            command = msgspec.structs.replace(command, joint_position=turned)
        super().write(command)

    def read(self) -> Measured:
        """The newest reading, with the joints of the moment when they froze."""
        flaw = self._flag.read_text() if self._flag.exists() else ""
        if flaw in CLOCK_STEP_S and not self._clock_set:
            self._clock_set = True
            _set_clock(CLOCK_STEP_S[flaw])
        measured = super().read()
        if flaw != "frozen":
            return measured
        self._frozen = self._frozen or measured
        return msgspec.structs.replace(
            measured,
            joint_position=self._frozen.joint_position.copy(),
            joint_velocity=np.zeros_like(measured.joint_velocity),
        )

    def close(self) -> None:
        """Release, or fail in doing so."""
        super().close()
        if self._flag.exists() and self._flag.read_text() == "teardown":
            raise RobotError("the device failed while it was released")


class FaultStand:
    """Arm, host and monitor as processes, and who leads the arm: a sender of setpoints at 100 Hz, or a policy."""

    def __init__(
        self, folder: Path, overrides: tuple[str, ...] = (), *, robot: str = "panda", led: bool = False
    ) -> None:
        """robot: preset of the arm and of its limits; overrides: of these, as for `--set`. led: by a policy."""
        from reflexarc.robots.host_process import run_host
        from reflexarc.robots.monitor_process import run_monitor
        from reflexarc.sim.arm_process import run_arm
        from reflexarc.sim.arm_stop import ArmStopLine

        self.robot = load_robot(robot)
        self.flag, self.button = folder / "flaw", folder / "button"
        self.button.write_text("1")
        safety: SafetyConfig = load_safety(robot, list(overrides))
        safety = safety.model_copy(update={"estop": EStopConfig(files=(str(self.button),))})
        self.endpoints = free_endpoints()
        self.processes = Processes(folder / "processes")
        self.processes.start_loop("arm", run_arm, "reach", self.robot, self.endpoints)
        driver = functools.partial(FlawedClient, self.robot, self.endpoints, self.flag)
        self.processes.start_loop(
            "host", run_host, driver, self.robot, safety, self.endpoints, keys=Keys(), monitored=True
        )
        line = functools.partial(ArmStopLine, self.endpoints)
        self.processes.start_loop("monitor", run_monitor, line, self.robot, safety, self.endpoints)
        self.kinematics = Kinematics(self.robot)
        self.states: Subscriber[State | Event] = Subscriber(self.endpoints.state, State, Event)
        self.arm: Subscriber[ArmState | Event] = Subscriber(self.endpoints.arm_state, ArmState, Event)
        self.console: Requester[HostReply] = Requester(self.endpoints.console, HostReply)
        self.controller: Subscriber[Event] = Subscriber(self.endpoints.controller, Event)
        self.sender = Sender(self.endpoints, np.array(self.robot.home))
        self.lead: Sender | PolicyLead = self.sender
        if led:
            self.lead = PolicyLead(self.processes, self.endpoints, self.robot, self.flag)
        self.helpers: list[multiprocessing.Process] = []

    def start(self) -> None:
        """Enable, and wait until the arm moves. Raises RobotError if it does not."""
        deadline = time.monotonic() + READY_S
        while not self._enabled():
            self.processes.check()
            if time.monotonic() > deadline:
                raise RobotError(f"the host did not enable the arm within {READY_S:.0f} s")
            time.sleep(0.1)
        self.lead.start()
        while not any(isinstance(s, ArmState) and _speed(s) > 0.15 for s in self.arm.drain()):
            if time.monotonic() > deadline:
                raise RobotError("the arm does not move")
            time.sleep(0.005)
        time.sleep(0.3)

    def ask(self, action: HostAction) -> HostReply:
        """A supervisor's request."""
        key = find_key(self.endpoints.console, "supervisor")
        return self.console.request(HostRequest(t_ns=monotonic_ns(), action=action, seq=0, key=key), 1.0)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one of the processes."""
        os.kill(self.processes.pid(name), number)

    def watch(self, name: str, fault: Fault) -> Result:
        """Let the fault happen and see."""
        for item in (self.states, self.arm, self.controller):
            item.drain()
        began = monotonic_ns()
        fault.do(self)
        detected: int | None = None
        by, final, braked, travelled = "", "gone", False, 0.0
        before = None
        moving, heard = False, began
        over = False
        while not over:
            time.sleep(0.002)
            # Asked before the last look: while this process itself stood still, the others went on.
            over = monotonic_ns() - began > fault.seconds * 1e9
            for message in self.states.drain():
                if isinstance(message, Event):
                    if message.kind == "safety_state" and not by and "-> active" not in message.text:
                        by = f"host: {message.text}"
                    continue
                final, heard = message.safety, monotonic_ns()
                if message.safety in ("hold", *STOPPED) and detected is None:
                    detected = message.t_ns
                    if abs(heard - detected) > abs(fault.clock_step_s) * 5e8:
                        detected -= round(
                            fault.clock_step_s * 1e9
                        )  # the host's own time, since its clock was set
            for told in self.controller.drain():
                if told.kind in TOLD and detected is None:
                    detected, by = told.t_ns, f"controller: {told.text}"
            for felt in self.arm.drain():
                if isinstance(felt, Event):
                    if felt.kind == "arm_stopped" or (felt.kind == "arm_braked" and not by):
                        by = f"arm: {felt.text}"
                    continue
                point = self.kinematics.pose(felt.joint_position)[:3]
                if before is not None:
                    travelled += float(np.linalg.norm(point - before))
                before, braked, moving = point, felt.braked, _speed(felt) > REST_RAD_S
                if felt.braked and (detected is None or felt.t_ns < detected):
                    detected = felt.t_ns
        if monotonic_ns() - heard > 500_000_000:
            final = "gone"
        return Result(
            fault=name,
            detected_ms=None if detected is None else max(0, detected - began) * 1e-6,
            by=by,
            final=final,
            braked=braked,
            travelled_mm=1e3 * travelled,
            moving=moving,
        )

    def close(self) -> None:
        """End everything, what was stopped included."""
        self.sender.stop()
        if isinstance(self.lead, PolicyLead):
            self.lead.stop()
        for helper in self.helpers:
            helper.kill()
            helper.join()
        for name in ("arm", "host", "monitor"):
            with contextlib.suppress(ProcessLookupError):
                self.signal(name, signal.SIGCONT)
        self.processes.stop()
        for item in (self.states, self.arm, self.controller, self.console):
            item.close()

    def _enabled(self) -> bool:
        with contextlib.suppress(Exception):
            return self.ask("enable").ok
        return False


class Sender:
    """Sends a smooth motion at 100 Hz; `mangle` turns each setpoint into those that are sent instead of it."""

    def __init__(self, endpoints: Endpoints, home: F64) -> None:
        self.mangle: Callable[[Setpoint], list[Setpoint]] = lambda setpoint: [setpoint]
        self._home = home
        self._push = Push(endpoints.setpoint, queue=64)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin at home, at rest."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing any more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._push.close()

    def silence(self) -> None:
        """As if the sender had died."""
        self.mangle = lambda setpoint: []

    def _run(self) -> None:
        began, seq = monotonic_ns(), 0
        rate = 2 * np.pi / PERIOD_S
        while not self._ended.wait(0.01):
            now = monotonic_ns()
            t = (now - began) * 1e-9
            seq += 1
            position, velocity = self._home.copy(), np.zeros_like(self._home)
            for joint in (0, 3):
                position[joint] += AMPLITUDE_RAD * (1 - np.cos(rate * t))
                velocity[joint] = AMPLITUDE_RAD * rate * np.sin(rate * t)
            setpoint = Setpoint(
                t_ns=now,
                seq=seq,
                t_due_ns=now + 10_000_000,
                joint_position=position,
                joint_velocity=velocity,
                gripper=1.0,
                source="teleop",
            )
            for item in self.mangle(setpoint):
                self._push.send(item)


def _speed(state: ArmState) -> float:
    return float(np.max(np.abs(state.joint_velocity)))


def _signals(name: str, *numbers: int) -> Callable[[FaultStand], None]:
    def do(stand: FaultStand) -> None:
        for number in numbers:
            stand.signal(name, number)
            time.sleep(0.02)

    return do


def _stall(name: str, seconds: float) -> Callable[[FaultStand], None]:
    def do(stand: FaultStand) -> None:
        stand.signal(name, signal.SIGSTOP)
        timer = threading.Timer(seconds, lambda: stand.signal(name, signal.SIGCONT))
        timer.daemon = True
        timer.start()

    return do


def _mangled(make: Callable[[], Callable[[Setpoint], list[Setpoint]]]) -> Callable[[FaultStand], None]:
    def do(stand: FaultStand) -> None:
        stand.sender.mangle = make()

    return do


def _dropped() -> Callable[[Setpoint], list[Setpoint]]:
    return lambda setpoint: [setpoint] if setpoint.seq % 4 == 0 else []


def _reordered() -> Callable[[Setpoint], list[Setpoint]]:
    waiting: list[Setpoint] = []

    def mangle(setpoint: Setpoint) -> list[Setpoint]:
        waiting.append(setpoint)
        if len(waiting) < 3:
            return []
        out = [waiting[2], waiting[0], waiting[1]]
        waiting.clear()
        return out

    return mangle


def _replayed() -> Callable[[Setpoint], list[Setpoint]]:
    """The first setpoint again and again, with fresh numbers: recorded once, sent for ever."""
    kept: list[Setpoint] = []

    def mangle(setpoint: Setpoint) -> list[Setpoint]:
        kept[1:] = []
        kept.append(setpoint) if not kept else None
        return [msgspec.structs.replace(kept[0], seq=setpoint.seq)]

    return mangle


def _late(by_s: float) -> Callable[[], Callable[[Setpoint], list[Setpoint]]]:
    def make() -> Callable[[Setpoint], list[Setpoint]]:
        waiting: list[Setpoint] = []

        def mangle(setpoint: Setpoint) -> list[Setpoint]:
            waiting.append(setpoint)
            due = setpoint.t_ns - round(by_s * 1e9)
            out = [item for item in waiting if item.t_ns <= due]
            del waiting[: len(out)]
            return out

        return mangle

    return make


def _clock_step(by_s: float) -> Callable[[], Callable[[Setpoint], list[Setpoint]]]:
    step = round(by_s * 1e9)
    return lambda: lambda s: [msgspec.structs.replace(s, t_ns=s.t_ns + step, t_due_ns=s.t_due_ns + step)]


def _set_clock(by_s: float) -> None:
    """From now on this process sees another time of the monotonic clock, as after a virtual machine was moved."""
    true, step = time.monotonic_ns, round(by_s * 1e9)
    time.monotonic_ns = lambda: true() + step


def _poisoned() -> Callable[[Setpoint], list[Setpoint]]:
    return lambda s: [msgspec.structs.replace(s, joint_position=np.full_like(s.joint_position, np.nan))]


def _half_open(stand: FaultStand) -> None:
    """A stranger opens the setpoint's port, says half a greeting and stays; the sender's own end dies silently."""
    host, port = stand.endpoints.setpoint.removeprefix("tcp://").split(":")
    stranger = socket.create_connection((host, int(port)))
    stranger.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03")
    threading.Timer(30.0, stranger.close).start()
    stand.sender.silence()


def _stress(stand: FaultStand) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(2 * (os.cpu_count() or 1)):
        helper = context.Process(target=_burn, daemon=True)
        helper.start()
        stand.helpers.append(helper)  # type: ignore[arg-type]


def _burn() -> None:
    while True:
        sum(range(10_000))


def _flaw(text: str) -> Callable[[FaultStand], None]:
    def do(stand: FaultStand) -> None:
        stand.flag.write_text(text)

    return do


def _teardown(stand: FaultStand) -> None:
    stand.flag.write_text("teardown")
    stand.signal("host", signal.SIGTERM)


def _press_console(stand: FaultStand) -> None:
    stand.ask("e_stop")


def _press_button(stand: FaultStand) -> None:
    stand.button.write_text("0")


def _hang_button(stand: FaultStand) -> None:
    """Whoever opens the button's file waits for ever, as on a network that is gone."""
    pipe = stand.button.with_suffix(".pipe")
    os.mkfifo(pipe)
    pipe.replace(stand.button)


WALL = "keep_out=[{name: wall, lower: [0.2, 0.3, 0.0], upper: [0.8, 0.6, 0.6], source: a box of this fault}]"
"""Where the hand comes to before the TCP leaves its workspace."""

FAULTS: dict[str, Fault] = {
    "host SIGKILL": Fault(_signals("host", signal.SIGKILL), ("gone",)),
    "host SIGSTOP": Fault(_signals("host", signal.SIGSTOP), ("gone",)),
    "host stalls for 5 s": Fault(_stall("host", 5.0), STOPPED, 7.0),
    "host Ctrl-C twice": Fault(_signals("host", signal.SIGINT, signal.SIGINT), ("gone",)),
    "exception while the host ends": Fault(_teardown, ("gone",)),
    "monitor SIGKILL": Fault(_signals("monitor", signal.SIGKILL), STOPPED),
    "monitor SIGSTOP": Fault(_signals("monitor", signal.SIGSTOP), STOPPED),
    "arm stalls for 5 s": Fault(_stall("arm", 5.0), STOPPED, 7.0),
    "sender dies": Fault(lambda stand: stand.sender.silence(), STOPPED),
    "half-open socket": Fault(_half_open, STOPPED),
    "3 of 4 messages dropped": Fault(_mangled(_dropped), ("active",), moves=True),
    "messages duplicated": Fault(_mangled(lambda: lambda s: [s, s]), ("active",), moves=True),
    "messages reordered": Fault(_mangled(_reordered), ("active",), moves=True),
    "messages replayed": Fault(_mangled(_replayed), STOPPED),
    "messages 50 ms late": Fault(_mangled(_late(0.05)), ("active",), moves=True),
    "messages 300 ms late": Fault(_mangled(_late(0.3)), ("hold",)),
    "messages 1 s late": Fault(_mangled(_late(1.0)), STOPPED),
    "sender's clock steps back 10 s": Fault(_mangled(_clock_step(-10.0)), STOPPED),
    "NaN setpoints": Fault(_mangled(_poisoned), STOPPED),
    "processor overloaded": Fault(_stress, ("active", "hold", *STOPPED), 4.0, moves=True),
    "the host's own safety fails": Fault(_flaw("runaway"), STOPPED, 4.0),
    "it fails beside a keep-out": Fault(_flaw("runaway"), STOPPED, 4.0, overrides=(WALL,)),
    "host's clock steps ahead 10 s": Fault(_flaw("clock ahead"), STOPPED, clock_step_s=10.0),
    "host's clock steps back 10 s": Fault(_flaw("clock back"), STOPPED, clock_step_s=-10.0),
    "encoders frozen": Fault(_flaw("frozen"), STOPPED),
    "emergency stop, console": Fault(_press_console, ("e_stop",)),
    "emergency stop, button": Fault(_press_button, ("e_stop",)),
    "emergency stop, its file hangs": Fault(_hang_button, ("e_stop",)),
    "emergency stop in mid-chunk": Fault(_press_console, ("e_stop",), led=True),
    "identical pictures": Fault(_flaw(SAME_PICTURE), ("hold",), 7.0, led=True),
    "policy SIGKILL": Fault(_signals("policy", signal.SIGKILL), ("hold",), 5.0, led=True),
    "policy SIGSTOP": Fault(_signals("policy", signal.SIGSTOP), ("hold",), 5.0, led=True),
    "controller SIGKILL": Fault(_signals("controller", signal.SIGKILL), STOPPED, led=True),
}


def run_fault(name: str, folder: Path, overrides: tuple[str, ...] = (), *, robot: str = "panda") -> Result:
    """One fault on processes of its own. Raises RobotError if the arm cannot be brought into motion."""
    folder.mkdir(parents=True, exist_ok=True)
    fault = FAULTS[name]
    with stand_in(folder, (*fault.overrides, *overrides), robot=robot, led=fault.led) as stand:
        stand.start()
        return stand.watch(name, fault)


@contextlib.contextmanager
def stand_in(
    folder: Path, overrides: tuple[str, ...] = (), *, robot: str = "panda", led: bool = False
) -> Iterator[FaultStand]:
    """A stand that is ended whatever happens."""
    stand = FaultStand(folder, overrides, robot=robot, led=led)
    try:
        yield stand
    finally:
        stand.close()


def judge(result: Result) -> str:
    """What is wrong with how a fault ended, empty if nothing is."""
    fault = FAULTS[result.fault]
    if result.final not in fault.ends:
        return f"{result.fault}: ended in {result.final}, expected {' or '.join(fault.ends)}"
    if result.moving and not fault.moves:
        return f"{result.fault}: the arm still moves"
    if result.final == "gone" and not result.braked:
        return f"{result.fault}: the host is gone and the arm's brake is not on"
    return ""
