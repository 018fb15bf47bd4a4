"""The processes of a session with a person: those of every run, and the device's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from reflexarc.configs.teleop import LeRobotDevice
from reflexarc.controllers.steering import steering_spec
from reflexarc.processes import Processes
from reflexarc.runner import EpisodeFigures, Runner
from reflexarc.stack import (
    READY_S,
    free_endpoints,
    start_controller,
    start_recorder,
    start_server,
    start_simulated_robot,
    start_teleop,
)
from reflexarc.teleop import Desk, TeleopJob, TeleopSession, preserved_terminal
from reflexarc.terminal_view import TerminalView
from reflexarc.wire.endpoints import Endpoints


def run_session(
    job: TeleopJob, folder: Path, *, port: int, simulated: bool, show: bool, console: Console
) -> list[EpisodeFigures]:
    """Start what is not running, record, stop what was started; the figures of the episodes that were kept.

    port: of a robot (and, with a policy, its server) that runs already; 0 starts both here. simulated: its arm is.
    Raises RobotError naming a process that died, with the last line it wrote: a device that is not there, for one.
    """
    endpoints = Endpoints(base_port=port) if port else free_endpoints()
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved_terminal())
        processes = stack.enter_context(Processes(folder / "processes"))
        with console.status("starting the processes of the session"):
            peers = _start(processes, endpoints, job, folder, attached=bool(port))
            runner = Runner(endpoints, peers, simulated=simulated)
            stack.callback(runner.close)
            view = TerminalView(endpoints, console) if show else None
            desk = Desk(endpoints, console, view)
            stack.callback(desk.close)
            runner.wait_ready(READY_S, processes.check)
        if view is not None:
            stack.callback(view.close)
        return TeleopSession(job, runner, desk, folder, console, processes.check).run()


def _start(
    processes: Processes, endpoints: Endpoints, job: TeleopJob, folder: Path, *, attached: bool
) -> tuple[str, ...]:
    """Start what a session needs; names of those whose heartbeat to wait for."""
    start_teleop(processes, endpoints, job.setup, job.config)
    peers: tuple[str, ...] = ("teleop", "host", "controller", "recorder")
    if not attached:
        peers += start_simulated_robot(processes, endpoints, job.setup, job.task, job.first_seed)
    if job.policy and not attached:
        start_server(processes, endpoints, job.policy)
        peers += ("policy",)
    device = job.config.device
    joints = isinstance(device, LeRobotDevice) and not device.pose
    steering = None if job.policy else steering_spec(job.setup.robot, joints=joints)
    start_controller(processes, endpoints, job.setup, steering)
    start_recorder(processes, endpoints, folder / "episodes", job.setup.recording)
    return tuple(dict.fromkeys(peers))
