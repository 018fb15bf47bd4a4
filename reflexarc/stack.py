"""The processes of a real-time run, and how they are started: each one the same in simulation and on a real arm,
but for the driver inside the robot host.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from pathlib import Path

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import ConfigError
from reflexarc.configs.recording import RecordingConfig
from reflexarc.configs.teleop import TeleopConfig
from reflexarc.processes import Processes
from reflexarc.setup import Setup
from reflexarc.wire.endpoints import BASE_PORT, NAMES, Endpoints
from reflexarc.wire.roles import Keys

LAST_PORT = 32700
"""Below those that Linux gives to outgoing connections (`ip_local_port_range`): one of these would occupy a run's."""
READY_S = 120.0
"""Importing torch on a busy machine takes tens of seconds."""


def free_endpoints(base_port: int = 0) -> Endpoints:
    """Endpoints from `base_port`, or from the first run of free ports; raises ConfigError naming an occupied one."""
    if base_port:
        taken = _first_taken(base_port)
        if taken:
            raise ConfigError(
                f"port {taken} is occupied; the run needs {len(NAMES)} ports from --port {base_port}, name another"
            )
        return Endpoints(base_port=base_port)
    for base in range(BASE_PORT, LAST_PORT, 100):
        if not _first_taken(base):
            return Endpoints(base_port=base)
    raise ConfigError(f"no run of free ports between {BASE_PORT} and {LAST_PORT} on 127.0.0.1")


def _first_taken(base_port: int) -> int:
    """The first occupied port of a run of ports, 0 if all are free."""
    for port in range(base_port, base_port + len(NAMES)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return port
    return 0


def start_server(processes: Processes, endpoints: Endpoints, policy: str) -> None:
    """The policy server."""
    from reflexarc.commands.serve import serve_policy

    processes.start("policy", serve_policy, policy, endpoints)


def start_simulated_robot(
    processes: Processes,
    endpoints: Endpoints,
    setup: Setup,
    task: str,
    seed: int = 0,
    *,
    cameras: Callable[[Endpoints], None] | None = None,
) -> tuple[str, ...]:
    """Arm, cameras, host and the monitor beside it; returns the names under which they send heartbeats.

    cameras: what publishes pictures until SIGTERM, in place of the renderer.
    """
    from reflexarc.robots.host_process import run_host
    from reflexarc.robots.monitor_process import run_monitor
    from reflexarc.sim.arm_client import ArmClient
    from reflexarc.sim.arm_process import run_arm
    from reflexarc.sim.arm_stop import ArmStopLine
    from reflexarc.sim.camera_process import run_cameras

    processes.start_loop("arm", run_arm, task, setup.robot, endpoints, seed=seed)
    processes.start("cameras", cameras or run_cameras, endpoints)
    driver = functools.partial(ArmClient, setup.robot, endpoints)
    processes.start_loop(
        "host", run_host, driver, setup.robot, setup.safety, endpoints, keys=Keys(), monitored=True
    )
    line = functools.partial(ArmStopLine, endpoints)
    processes.start_loop("monitor", run_monitor, line, setup.robot, setup.safety, endpoints)
    return ("arm", "cameras", "host", "monitor")


def start_controller(
    processes: Processes, endpoints: Endpoints, setup: Setup, steering: ActionSpec | None = None
) -> None:
    """The controller; it asks the policy server what it serves, or is steered by a person alone in `steering`."""
    from reflexarc.controllers.process import run_controller

    processes.start_loop(
        "controller", run_controller, setup.controller, setup.robot, endpoints, steering=steering
    )


def start_teleop(processes: Processes, endpoints: Endpoints, setup: Setup, config: TeleopConfig) -> None:
    """The teleoperation device of a preset, in a process that is told by it when it is not there."""
    from reflexarc.configs.load import load_teleop
    from reflexarc.robots.teleop.devices import make_teleoperator
    from reflexarc.robots.teleop.stream import run_teleop

    device = make_teleoperator(config, setup.robot.joint_names, load_teleop)
    processes.start("teleop", run_teleop, device, config.name, config.rate_hz, endpoints)


def start_recorder(
    processes: Processes, endpoints: Endpoints, folder: Path, recording: RecordingConfig | None = None
) -> None:
    """The recorder, writing one log an episode into `folder`; pictures as `recording` says."""
    from reflexarc.datasets.recorder import run_recorder

    processes.start("recorder", run_recorder, folder, endpoints, recording=recording)
