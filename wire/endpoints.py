"""The address of every socket of a run, from one base port. Loopback only, until there are keys.

| name | bound by | pattern | carries |
| --- | --- | --- | --- |
| `state` | robot host | PUB | State, SafetyReport, Event |
| `setpoint` | robot host | PULL | Setpoint, the latest wins |
| `console` | robot host | ROUTER | HostRequest, HostReply |
| `policy` | policy server | ROUTER | Observation, PolicyInfoRequest and their answers |
| `frames` | cameras | PUB | CameraFrame |
| `arm_command` | simulated arm | PULL | ArmCommand, the latest wins |
| `arm_state` | simulated arm | PUB | ArmState, SimInitial, SimSteps, SimTruth, Event |
| `sim` | simulated arm | ROUTER | SimQuery, SimAnswer |
| `controller` | controller | PUB | Observation, ActionChunk, Setpoint, Event, for the recorder |
| `runner` | runner | PUB | EpisodeStart, EpisodeStop, Event |
| `heartbeat` | runner | PULL | Heartbeat |
| `recorder` | recorder | PUB | Event |
| `teleop` | teleoperator | PUB | TeleopCommand, Event |
| `policy_console` | policy server | ROUTER | PolicyControl, PolicyControlReply |
| `arm_stop` | simulated arm | PULL | ArmStop |
| `monitor` | monitor | PUB | Heartbeat, Event |
| `estop` | robot host | PULL | Heartbeat of an emergency stop input |
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from reflexarc.configs.base import Config

BASE_PORT = 27100
"""First of the consecutive ports of a run, below the ephemeral ones; a second run on the same machine takes another."""

NAMES = (
    "state",
    "setpoint",
    "console",
    "policy",
    "frames",
    "arm_command",
    "arm_state",
    "sim",
    "controller",
    "runner",
    "heartbeat",
    "recorder",
    "teleop",
    "policy_console",
    "arm_stop",
    "monitor",
    "estop",
)
"""In the order of their ports."""

_LOOPBACK = re.compile(r"tcp://127\.0\.0\.1:(\d{1,5}|\*)|ipc://.+")


def not_loopback(address: str) -> str:
    """Why `address` is refused, empty if it is `tcp://127.0.0.1:<port>` or `ipc://<path>`."""
    found = _LOOPBACK.fullmatch(address)
    if found:
        port = found[1]
        fits = port in (None, "*") or 1 <= int(port) <= 65535
        return "" if fits else f"address {address!r} is refused: port {port} is not within 1..65535"
    return (
        f"address {address!r} is refused: messages are not authenticated (keys do not exist yet), "
        f"so only tcp://127.0.0.1:<port> and ipc://<path> are allowed"
    )


class Endpoints(Config):
    """`Endpoints(base_port=27100)` names all sockets; any of them may be given another loopback address."""

    base_port: int = Field(default=BASE_PORT, ge=1024, le=65535 - len(NAMES))
    state: str = ""
    setpoint: str = ""
    console: str = ""
    policy: str = ""
    frames: str = ""
    arm_command: str = ""
    arm_state: str = ""
    sim: str = ""
    controller: str = ""
    runner: str = ""
    heartbeat: str = ""
    recorder: str = ""
    teleop: str = ""
    policy_console: str = ""
    arm_stop: str = ""
    monitor: str = ""
    estop: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Give every name that was left out its port: `base_port`, `base_port + 1`, ..."""
        base = data.get("base_port", BASE_PORT) if isinstance(data, dict) else None
        if not isinstance(base, int):
            return data
        return {name: f"tcp://127.0.0.1:{base + k}" for k, name in enumerate(NAMES)} | data

    @field_validator(*NAMES)
    @classmethod
    def _is_loopback(cls, address: str) -> str:
        problem = not_loopback(address)
        if problem:
            raise ValueError(problem)
        return address

    @model_validator(mode="after")
    def _distinct(self) -> Endpoints:
        owner: dict[str, str] = {}
        for name in NAMES:
            other = owner.setdefault(getattr(self, name), name)
            if other != name:
                raise ValueError(f"{other} and {name} have the same address {getattr(self, name)}")
        return self
