"""One simulated tabletop: arm, scene and task in one MuJoCo model, laid out anew by each seed.

The model is compiled once, from the text that goes into the episode log, so that a replay compiles the very same
model. Only the initial state and the colours differ between seeds. Knows nothing of controllers, safety or policies.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.arm import ArmIndex, load_arm_spec
from reflexarc.sim.hand import arm_geoms, measure_hand, put_home
from reflexarc.sim.render import SceneRenderer
from reflexarc.sim.scenes import FRONT_CAMERA, add_table, set_arm_bits
from reflexarc.sim.tasks import HOLD_S, Goal, Hand, get_task
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import CameraFrame, ImageEncoding, SimInitial, SimTruth

WRIST_CAMERA = "wrist"
CAMERAS = (FRONT_CAMERA, WRIST_CAMERA)

JUDGE_EVERY = 4
"""Physics steps between two looks at the task's condition (10 ms)."""

SEED_KEY = 0x5CE7E
"""Keeps the layouts' random numbers apart from those of other users of the same seed."""


class World:
    """A task's world. Not thread-safe; `render` must be called from the thread that built it."""

    def __init__(self, task: str, robot: RobotConfig, image_size: tuple[int, int] = (96, 96)) -> None:
        """Compile the model. image_size: (height, width). Raises SimulationError for an unknown task."""
        self.task = get_task(task)()
        self.robot = robot
        self.image_size = image_size
        self.model_xml = scene_text(task, robot)
        self.model = mujoco.MjModel.from_xml_string(self.model_xml)
        self.data = mujoco.MjData(self.model)
        self.arm = ArmIndex.find(self.model, robot)
        self.hand = measure_hand(self.model, robot, self.arm)
        self.task.bind(self.model, Hand(self.arm.tcp, arm_geoms(self.model, robot)))
        self._renderer: SceneRenderer | None = None
        self._hold_steps = round(HOLD_S / self.model.opt.timestep)
        self.reset(0)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that `render` knows."""
        return tuple(self.model.camera(i).name for i in range(self.model.ncam))

    def reset(self, seed: int, *, held_out: bool = False) -> None:
        """Lay out the world by `seed`. held_out: take the wording from the paraphrases kept from training."""
        rng = np.random.default_rng([SEED_KEY, seed])
        self.seed = seed
        mujoco.mj_resetData(self.model, self.data)
        put_home(self.model, self.data, self.robot, self.arm, rng)
        self.goal: Goal = self.task.arrange(self.data, rng)
        self._other_goal = self.task.other(self.goal, rng)
        templates = self.task.templates_held_out if held_out else self.task.templates_train
        self._template = templates[int(rng.integers(len(templates)))]
        mujoco.mj_forward(self.model, self.data)
        self.steps = 0
        self._held = 0
        self._done = False

    @property
    def instruction(self) -> str:
        """What is asked for, in words."""
        return self._template.format(**self.goal.words)

    def other_instruction(self) -> str:
        """The same wording, naming another thing of the same scene: to check that the words matter."""
        return self._template.format(**self._other_goal.words)

    def step(self, control: NDArray[np.float64]) -> None:
        """One physics step with `control` (nu,) as `mjData.ctrl`."""
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data)
        self.steps += 1
        if self.steps % JUDGE_EVERY == 0 and not self._done:
            met = self.task.satisfied(self.data, self.goal)
            self._held = self._held + JUDGE_EVERY if met else 0
            self._done = self._held >= self._hold_steps

    def success(self) -> bool:
        """Whether the asked-for condition has held for HOLD_S, at any time since the reset."""
        return self._done

    def initial(self) -> SimInitial:
        """The present state, as an episode's beginning: call it right after `reset`."""
        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.model, spec))
        mujoco.mj_getState(self.model, self.data, state, spec)
        return SimInitial(
            t_ns=0,
            clock="virtual",
            model_xml=self.model_xml,
            integration_state=state,
            geom_rgba=self.model.geom_rgba.astype(np.float64),
            task=self.task.name,
            seed=self.seed,
            mujoco_version=mujoco.__version__,
        )

    def truth(self, now_ns: int) -> SimTruth:
        """Where the asked-for thing is and where it should go."""
        return SimTruth(t_ns=now_ns, clock="virtual", focus=self.task.focus(self.data, self.goal))

    def render(self, camera: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, a copy. Raises SimulationError for an unknown camera."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.model, *self.image_size)
        return self._renderer.render(self.data, camera)

    def frame(
        self, camera: str, now_ns: int, seq: int, encoding: ImageEncoding = "raw", clock: str = "virtual"
    ) -> CameraFrame:
        """A picture as a message, taken at `now_ns`."""
        return encode_image(
            self.render(camera), camera=camera, seq=seq, t_capture_ns=now_ns, encoding=encoding, clock=clock
        )

    def close(self) -> None:
        """Release the renderer; safe to call twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def scene_text(task: str, robot: RobotConfig) -> str:
    """The MJCF text of an arm with a task's scene."""
    spec = load_arm_spec(robot)
    spec.modelname = f"{robot.name}-{task}"
    set_arm_bits(spec)
    add_table(spec)
    spec.option.timestep = min(spec.option.timestep, robot.tick_ns * 1e-9)
    get_task(task)().build(spec)
    spec.compile()
    return str(spec.to_xml())
