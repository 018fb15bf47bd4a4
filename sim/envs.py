"""Gymnasium environments of the suite: each step is one policy step through the same controller and safety as ever.

`import reflexarc.sim.envs` registers `reflexarc/tabletop-<task>-v0`. An action is one row of the canonical action space
(TCP deltas in the base frame, gripper opening), in its own units. Reward 1 ends the episode at success.
"""

from __future__ import annotations

import string
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.shutter import CAMERA_NS
from reflexarc.sim.tasks import TASKS, all_instructions, get_task
from reflexarc.sim.world import CAMERAS, World
from reflexarc.wire.messages import F64, ActionChunk, Observation, PolicyInfo, State

STEP_S = CAMERA_NS * 1e-9
STOPPED = ("protective_stop", "e_stop")

Sight = dict[str, Any]
"""What an agent sees: pictures by camera, `joint_position`, `joint_velocity`, `tcp_pose`, `gripper`, `instruction`."""


class TabletopEnv(gymnasium.Env[Sight, NDArray[np.float32]]):
    """One task of the suite."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / STEP_S)}  # noqa: RUF012 - gymnasium's own

    def __init__(
        self,
        task: str,
        robot: str = "panda",
        safety: str = "panda",
        controller: str = "default",
        image_size: tuple[int, int] = (96, 96),
        render_mode: str | None = None,
    ) -> None:
        """`robot`, `safety`, `controller`: presets or files. Raises SimulationError for an unknown task."""
        self.render_mode = render_mode
        config = load_robot(robot)
        self.world = World(task, config, image_size)
        self._agent = _Agent(tcp_delta_spec(1, STEP_S), image_size)
        overrides = ("execute_steps=1",)
        self._session = LockstepSession(
            self.world, config, load_safety(safety), load_controller(controller, overrides), self._agent
        )
        self._ticks = CAMERA_NS // config.tick_ns
        self.action_space = _action_space(self._agent.spec)
        self.observation_space = _observation_space(len(config.joints), image_size)

    @property
    def state(self) -> State:
        """The robot's whole state, as a policy is given it."""
        return self._session.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Sight, dict[str, Any]]:
        """A new layout, drawn by `seed`, or that of `options["layout"]`; one policy step passes at rest."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        layout = int((options or {}).get("layout", drawn))
        self._session.reset(layout)
        self._advance(np.array([0.0] * 6 + [1.0]))
        return self._see(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Sight, float, bool, bool, dict[str, Any]]:
        """One policy step. Ends at success, or when safety has latched a stop."""
        self._advance(np.asarray(action, dtype=np.float64))
        success = self.world.success()
        over = success or self._session.state.safety in STOPPED
        return self._see(), float(success), over, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera's picture, (H, W, 3) uint8, in mode `rgb_array`."""
        return self.world.render(CAMERAS[0]) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the renderer and the link."""
        self._session.close()
        self.world.close()

    def _advance(self, action: F64) -> None:
        self._agent.action = action
        for _ in range(self._ticks):
            self._session.tick()

    def _see(self) -> Sight:
        state = self._session.state
        return {
            **{camera: self.world.render(camera) for camera in CAMERAS},
            "joint_position": state.joint_position.astype(np.float32),
            "joint_velocity": state.joint_velocity.astype(np.float32),
            "tcp_pose": state.pose_base_tcp.astype(np.float32),
            "gripper": np.array([state.gripper], dtype=np.float32),
            "instruction": self.world.instruction,
        }

    def _info(self) -> dict[str, Any]:
        return {
            "success": self.world.success(),
            "safety": self._session.state.safety,
            "layout": self.world.seed,
            "time_s": self._session.now_ns * 1e-9,
        }


class _Agent:
    """Stands in the policy's place and answers with the action that `step` was given."""

    def __init__(self, spec: ActionSpec, image_size: tuple[int, int]) -> None:
        self.spec = spec
        self.action: F64 = np.zeros(spec.size)
        self._info = PolicyInfo(
            t_ns=0,
            clock="virtual",
            model_id="gymnasium",
            action_spec=spec.model_dump_json(),
            cameras=[],
            image_height=image_size[0],
            image_width=image_size[1],
            tokenizer_id="",
        )

    @property
    def info(self) -> PolicyInfo:
        return self._info

    def reset(self, session: str) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(
            t_ns=observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=self.action[None, :].copy(),
            bins=np.full((1, self.spec.size), -1, dtype=np.int16),
            policy_tokens=[],
            tokenizer_id="",
            step_ns=self.spec.step_ns,
            spec_id=self.spec.id,
            model_id="gymnasium",
            session=observation.session,
        )


def _action_space(spec: ActionSpec) -> spaces.Space[NDArray[np.float32]]:
    lower = np.array([dim.lower for dim in spec.dims], dtype=np.float32)
    upper = np.array([dim.upper for dim in spec.dims], dtype=np.float32)
    return cast(spaces.Space[NDArray[np.float32]], spaces.Box(lower, upper, dtype=np.float32))


def _observation_space(joints: int, image_size: tuple[int, int]) -> spaces.Dict:
    def within(bound: float, size: int) -> spaces.Box:
        return spaces.Box(-bound, bound, (size,), np.float32)

    longest = max(len(text) for text in all_instructions())
    return spaces.Dict(
        {
            **{camera: spaces.Box(0, 255, (*image_size, 3), np.uint8) for camera in CAMERAS},
            "joint_position": within(2 * np.pi, joints),
            "joint_velocity": within(10.0, joints),
            "tcp_pose": within(2.0, 7),
            "gripper": spaces.Box(0.0, 1.0, (1,), np.float32),
            "instruction": spaces.Text(longest, charset=string.ascii_lowercase + " "),
        }
    )


def env_id(task: str) -> str:
    """The Gymnasium id of a task; raises SimulationError listing the known tasks."""
    return f"reflexarc/tabletop-{get_task(task).name}-v0"


for _task in TASKS.values():
    gymnasium.register(
        id=env_id(_task.name),
        entry_point="reflexarc.sim.envs:TabletopEnv",
        kwargs={"task": _task.name},
        max_episode_steps=round(_task.time_limit_s / STEP_S),
    )
