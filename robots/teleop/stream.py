"""From a device to the commands on the wire, and the process that sends them at a steady rate.

A device that fails is a released dead-man, said once, and tried again every second; a process that fails is silence.
Either way the controller brakes and holds.
"""

from __future__ import annotations

import signal
import threading

import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.wire.clock import Rate, monotonic_ns
from reflexarc.wire.contracts import Teleoperator, TeleopInput
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, TeleopCommand
from reflexarc.wire.sockets import Heartbeats, Publisher

PEER = "teleop"
"""This process's name in heartbeats and events."""
RETRY_NS = 1_000_000_000
"""A device that has gone is looked for this often."""


class TeleopStream:
    """Reads a device; every reading becomes a command, also that there is nothing to read."""

    def __init__(self, device: Teleoperator, name: str, clock: str = "monotonic") -> None:
        """device: connected. name: of the preset. clock: of every `now_ns`."""
        self._device = device
        self._name = name
        self._clock = clock
        self._seq = 0
        self._lost_ns: int | None = None

    def read(self, now_ns: int) -> tuple[TeleopCommand, Event | None]:
        """The command of this moment; an event `device_lost` or `device_returned` when that has happened."""
        event = None
        given: TeleopInput | None = None
        try:
            if self._lost_ns is not None and now_ns - self._lost_ns >= RETRY_NS:
                self._lost_ns = now_ns
                self._device.connect()
                self._lost_ns = None
                event = self._event(now_ns, "device_returned", "is back")
            if self._lost_ns is None:
                given = self._device.read()
        except RobotError as error:
            if self._lost_ns is None:
                event = self._event(now_ns, "device_lost", f"is lost, holding: {error}")
            self._lost_ns = now_ns
            self._device.close()
        return self._command(now_ns, given), event

    def _command(self, now_ns: int, given: TeleopInput | None) -> TeleopCommand:
        self._seq += 1
        return TeleopCommand(
            t_ns=now_ns,
            clock=self._clock,
            seq=self._seq,
            device=self._name,
            engaged=given is not None,
            kind="twist" if given is None else given.kind,
            motion=np.zeros(6) if given is None else given.motion,
            gripper=None if given is None else given.gripper,
            keys=list(self._device.keys()),
        )

    def _event(self, now_ns: int, kind: str, text: str) -> Event:
        return Event(
            t_ns=now_ns, clock=self._clock, kind=kind, source=PEER, text=f"teleop device {self._name} {text}"
        )


def run_teleop(
    device: Teleoperator,
    name: str,
    rate_hz: float,
    endpoints: Endpoints,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Open the device and send commands until SIGTERM (or `stop`), then release it.

    Raises RobotError naming what was tried if the device is not there, WireError if the address is occupied.
    """
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    device.connect()
    try:
        with Publisher(endpoints.teleop, name="teleoperator") as publisher:
            _run(TeleopStream(device, name), publisher, rate_hz, endpoints, stop)
    finally:
        device.close()


def _run(
    stream: TeleopStream,
    publisher: Publisher,
    rate_hz: float,
    endpoints: Endpoints,
    stop: threading.Event,
) -> None:
    heartbeats = Heartbeats(endpoints.heartbeat, PEER)
    rate = Rate(round(1e9 / rate_hz))
    try:
        while not stop.is_set():
            rate.sleep()
            now_ns = monotonic_ns()
            command, event = stream.read(now_ns)
            publisher.send(command)
            if event is not None:
                publisher.send(event)
            heartbeats.beat(now_ns)
    finally:
        heartbeats.close()
