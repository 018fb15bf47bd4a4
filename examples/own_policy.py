"""A policy of your own: two methods and a description. This one draws a square in the air, whatever it is told.

    .venv/bin/python examples/own_policy.py

A policy answers an observation with a chunk of actions: displacements of the tool, metres per step in the base frame,
and an opening of the gripper. When they are due, how they are joined and whether they are safe is not its concern:
the chunk below turns sharp corners at 0.2 m/s, and the report shows what safety made of it.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo, State

SPEC = tcp_delta_spec(horizon=8, step_s=0.1)
STEP_M = 0.02
CORNER_STEPS = 5


class Square:
    """Goes round a square of 10 cm in the horizontal plane, a side every 0.5 s."""

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs (one camera, so that it is asked) and emits."""
        return PolicyInfo(
            t_ns=0,
            model_id="square",
            action_spec=SPEC.model_dump_json(),
            cameras=["front"],
            image_height=96,
            image_width=96,
            tokenizer_id="none",
        )

    def reset(self, session: str) -> None:
        """Nothing is remembered between episodes."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next eight steps, counted from the start of the episode by the observation's own clock."""
        first = observation.t_obs_ns // SPEC.step_ns
        actions = np.zeros((SPEC.horizon, SPEC.size))
        for k in range(SPEC.horizon):
            side = (first + k) // CORNER_STEPS % 4
            actions[k, side % 2] = STEP_M if side < 2 else -STEP_M
        actions[:, 6] = 1.0
        return ActionChunk(
            t_ns=observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=actions,
            bins=np.full(actions.shape, -1, dtype=np.int16),
            policy_tokens=[],
            tokenizer_id="none",
            step_ns=SPEC.step_ns,
            spec_id=SPEC.id,
            model_id="square",
            session=observation.session,
        )


def main() -> None:
    """Run for five simulated seconds and print what the tool did and what safety limited."""
    robot = load_robot("panda")
    world = World("reach", robot)
    policy: Policy = Square()
    session = LockstepSession(world, robot, load_safety("panda"), load_controller("default"), policy)
    states: list[State] = []
    session.subscribers.append(
        lambda topic, message: states.append(message) if isinstance(message, State) else None
    )
    session.reset(seed=0)
    while session.now_ns < 5_000_000_000:
        session.tick()
    result = session.result()
    session.close()
    path = np.array([state.pose_base_tcp[:3] for state in states])
    speed = np.linalg.norm(np.diff(path, axis=0), axis=1) * robot.tick_hz
    width, depth = np.ptp(path[:, :2], axis=0)
    limited = ", ".join(result.rules) or "nothing"
    print(f"the tool moved within {width:.3f} m by {depth:.3f} m, at most {speed.max():.2f} m/s")
    print(f"safety limited {result.interventions} times: {limited}; it is {result.final_safety}")


if __name__ == "__main__":
    main()
