"""The simulated tabletop: a seed is a layout, runs repeat to the bit, things lie still and can be seen."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from reflexarc.configs.errors import SimulationError
from reflexarc.configs.load import load_robot
from reflexarc.sim.tasks import HOLD_S, TASKS
from reflexarc.sim.tasks.base import Task
from reflexarc.sim.tasks.blocks import BlockTask
from reflexarc.sim.tasks.button import Button
from reflexarc.sim.tasks.drawer import Drawer
from reflexarc.sim.world import CAMERAS, World


@pytest.fixture(scope="module", params=list(TASKS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param, load_robot("panda"))
    yield world
    world.close()


def things(task: Task) -> list[int]:
    """Geoms that the words of a task name."""
    if isinstance(task, BlockTask):
        return task.geoms
    assert isinstance(task, Button | Drawer)
    return task.caps if isinstance(task, Button) else task.handles


def wiggle(world: World, steps: int) -> np.ndarray:
    """Controls (steps, nu) that move the arm and close the gripper."""
    start = world.data.ctrl.copy()
    wave = 0.1 * np.sin(np.linspace(0, 6, steps))
    controls = np.tile(start, (steps, 1))
    controls[:, world.arm.actuator] += wave[:, None]
    controls[:, world.arm.gripper_actuator] *= np.linspace(1, 0, steps)
    return controls


def test_a_seed_gives_one_layout(world: World) -> None:
    world.reset(5)
    first, told = world.initial(), world.instruction
    world.step(world.data.ctrl + 0.05)
    world.reset(6)
    other = world.initial()
    world.reset(5)
    again = world.initial()
    assert np.array_equal(first.integration_state, again.integration_state)
    assert np.array_equal(first.geom_rgba, again.geom_rgba)
    assert told == world.instruction
    assert not np.array_equal(first.integration_state, other.integration_state)
    assert first.model_xml == other.model_xml


def test_the_logged_text_state_and_controls_repeat_the_run_to_the_bit(world: World) -> None:
    world.reset(3)
    initial, controls = world.initial(), wiggle(world, 150)
    for control in controls:
        world.step(control)
    model = mujoco.MjModel.from_xml_string(initial.model_xml)
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, initial.integration_state, mujoco.mjtState.mjSTATE_INTEGRATION)
    for control in controls:
        data.ctrl[:] = control
        mujoco.mj_step(model, data)
    assert np.array_equal(data.qpos, world.data.qpos)
    assert np.array_equal(data.qvel, world.data.qvel)


def test_everything_rests_until_it_is_touched(world: World) -> None:
    world.reset(8)
    start, control = world.data.qpos.copy(), world.data.ctrl.copy()
    for _ in range(400):
        world.step(control)
    loose = np.ones(world.model.nq, dtype=bool)
    loose[world.arm.fingers] = loose[world.arm.qpos] = False
    assert np.abs(world.data.qpos - start)[loose].max() < 5e-4
    assert np.abs(world.data.qvel).max() < 2e-3


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_front_camera_sees_every_thing(world: World, seed: int) -> None:
    world.reset(seed)
    renderer = mujoco.Renderer(world.model, *world.image_size)
    renderer.enable_segmentation_rendering()
    renderer.update_scene(world.data, CAMERAS[0])
    shown = renderer.render()[..., 0]
    renderer.close()
    for geom in things(world.task):
        assert np.count_nonzero(shown == geom) >= 8, f"{world.model.geom(geom).name} is hidden"


def test_pictures_are_copies_of_the_right_shape(world: World) -> None:
    world.reset(0)
    pictures = [world.render(camera) for camera in CAMERAS]
    before = [picture.copy() for picture in pictures]
    world.reset(1)
    world.render(CAMERAS[0])
    for picture, copy in zip(pictures, before, strict=True):
        assert picture.shape == (96, 96, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, copy)
    frame = world.frame(CAMERAS[1], 700, 2)
    assert (frame.camera, frame.seq, frame.t_capture_ns, frame.clock) == (CAMERAS[1], 2, 700, "virtual")


def test_messages_share_no_memory_with_the_simulator(world: World) -> None:
    world.reset(0)
    initial, truth = world.initial(), world.truth(0)
    rgba, focus = initial.geom_rgba.copy(), truth.focus.copy()
    world.reset(1)
    assert np.array_equal(initial.geom_rgba, rgba)
    assert np.array_equal(truth.focus, focus)
    assert truth.focus.shape == (2, 3)


def test_success_is_a_condition_held_for_half_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reset(0)
    met = [True]
    monkeypatch.setattr(world.task, "satisfied", lambda data, goal: met[0])
    control = world.data.ctrl.copy()
    hold = round(HOLD_S / world.model.opt.timestep)

    def pass_time(steps: int) -> None:
        for _ in range(steps):
            world.step(control)

    pass_time(hold - 8)
    assert not world.success()
    met[0] = False
    pass_time(8)
    met[0] = True
    pass_time(hold - 8)
    assert not world.success()
    pass_time(8)
    assert world.success()
    met[0] = False
    pass_time(20)
    assert world.success()
    world.reset(0)
    assert not world.success()


def test_unknown_names_are_one_line_with_the_alternatives(world: World) -> None:
    with pytest.raises(SimulationError, match=r"unknown task 'lfit'; known: button, drawer, lift"):
        World("lfit", load_robot("panda"))
    with pytest.raises(SimulationError, match=r"unknown camera 'side'; known: front, wrist"):
        world.render("side")
