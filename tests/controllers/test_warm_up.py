"""Nothing is compiled while the loop runs: a controller is ready when it is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from reflexarc.controllers import kernels
from reflexarc.setup import load_setup
from reflexarc.sim.experts import make_expert
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World

KERNELS = [kernels.cubic_at, kernels.beside]
setup = load_setup(overrides=["controller.interpolation={interpolation}"])
world = World("lift", setup.robot)
session = LockstepSession(world, setup.robot, setup.safety, setup.controller, make_expert(world))
made = [len(kernel.signatures) for kernel in KERNELS]
assert session.run(3, time_limit_s=8.0).success
print(made, [len(kernel.signatures) for kernel in KERNELS])
"""


@pytest.mark.parametrize("interpolation", ["cubic", "linear", "ruckig"])
def test_an_episode_compiles_nothing(interpolation: str) -> None:
    """In an interpreter of its own: here other tests have compiled for whatever they needed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{interpolation}", interpolation)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[-2] == "[1, 1] [1, 1]"
