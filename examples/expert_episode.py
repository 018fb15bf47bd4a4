"""One episode on the virtual clock: the scripted expert stacks a block, through controller and safety.

    .venv/bin/python examples/expert_episode.py [task] [seed]

The parts are the ones that run as processes in real time; here they share one loop and simulated time, so the
result is the same on every run.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("MUJOCO_GL", "egl")

from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.sim.experts import make_expert
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World


def main(task: str = "stack", seed: str = "0") -> int:
    """Run the episode and say how it went; returns 0 if it succeeded."""
    robot = load_robot("panda")
    world = World(task, robot)
    session = LockstepSession(
        world, robot, load_safety("panda"), load_controller("default"), make_expert(world)
    )
    result = session.run(int(seed), time_limit_s=20.0)
    session.close()
    outcome = "done" if result.success else "not done"
    print(
        f"{world.instruction!r}: {outcome} in {result.time_s:.1f} s of simulated time, {result.chunks} chunks"
    )
    print(f"safety limited {result.interventions} times: {', '.join(result.rules) or 'nothing'}")
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
