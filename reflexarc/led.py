"""An arm that a policy leads through the controller, by pictures of a camera: for faults of any of them, in mid-chunk.

Policy server, controller and camera are processes of their own, as in a run; the policy goes round in a circle, and the
camera shows noise, so that no two pictures are the same until a file says that they shall be.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflexarc.circling import serve_circling
from reflexarc.configs.errors import RobotError
from reflexarc.configs.load import load_controller
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.process import run_controller
from reflexarc.processes import Processes
from reflexarc.wire.clock import Rate, monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import EpisodeStart, Setpoint
from reflexarc.wire.sockets import Publisher, Subscriber

CAMERA = "front"
SIDE = 32
"""Pixels."""
PICTURE_NS = 100_000_000
READY_S = 60.0
SAME_PICTURE = "same picture"
"""What the file says for the camera to repeat itself."""


class PolicyLead:
    """The processes, and the episode in which the policy is asked."""

    def __init__(self, processes: Processes, endpoints: Endpoints, robot: RobotConfig, flag: Path) -> None:
        """flag: the file that a fault is written into."""
        processes.start("policy", serve_circling, endpoints, cameras=(CAMERA,))
        processes.start("camera", run_noise_camera, endpoints, flag)
        processes.start_loop("controller", run_controller, load_controller("default"), robot, endpoints)
        self._runner = Publisher(endpoints.runner, name="runner")
        self._setpoints: Subscriber[Setpoint] = Subscriber(endpoints.controller, Setpoint)

    def start(self) -> None:
        """Let the policy be asked, once the controller runs. Raises RobotError if it does not within a minute."""
        deadline = time.monotonic() + READY_S
        while not self._setpoints.drain():
            if time.monotonic() > deadline:
                raise RobotError(f"the controller sent no setpoint within {READY_S:.0f} s")
            time.sleep(0.05)
        self._runner.send(
            EpisodeStart(
                t_ns=monotonic_ns(), episode="fault", instruction="go round", session="fault", metadata="{}"
            )
        )

    def stop(self) -> None:
        """Release the sockets."""
        self._runner.close()
        self._setpoints.close()


def run_noise_camera(endpoints: Endpoints, flag: Path) -> None:
    """Publish pictures of noise, ten a second, until the process is ended."""
    out = Publisher(endpoints.frames, name="pictures")
    random = np.random.default_rng(0)
    rate, seq = Rate(PICTURE_NS), 0
    picture: NDArray[np.uint8] = np.zeros((SIDE, SIDE, 3), np.uint8)
    while True:
        rate.sleep()
        seq += 1
        if not flag.exists() or flag.read_text() != SAME_PICTURE:
            picture = random.integers(0, 256, picture.shape, np.uint8)
        out.send(encode_image(picture, camera=CAMERA, seq=seq, t_capture_ns=monotonic_ns()))
