"""Nothing is compiled while the loops run: controller and filter are ready when they are made."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from reflexarc.setup import load_setup
from reflexarc.sim.experts import make_expert
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World

setup = load_setup(overrides=["controller.interpolation={interpolation}"])
world = World("lift", setup.robot)
session = LockstepSession(world, setup.robot, setup.safety, setup.controller, make_expert(world))
kernels = {
    kernel
    for name, module in sys.modules.items()
    if name.startswith("reflexarc.")
    for kernel in vars(module).values()
    if hasattr(kernel, "signatures")
}
made = {kernel: len(kernel.signatures) for kernel in kernels}
assert session.run(3, time_limit_s=8.0).success
print(len(made), [kernel.__name__ for kernel in kernels if len(kernel.signatures) > made[kernel]])
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
    count, late = done.stdout.split("\n")[-2].split(" ", 1)
    assert int(count) > 40
    assert late == "[]"
