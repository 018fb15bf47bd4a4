"""The tasks of the suite: fair layouts, words that ask for one thing, judges that take nothing else for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from reflexarc.configs.errors import SimulationError
from reflexarc.configs.load import load_robot
from reflexarc.sim.scenes import BLOCK_HALF
from reflexarc.sim.tasks import TASKS, all_instructions, get_suite, get_task, instructions, vocabulary
from reflexarc.sim.tasks.base import Goal
from reflexarc.sim.tasks.blocks import BlockTask
from reflexarc.sim.tasks.button import Button
from reflexarc.sim.tasks.drawer import Drawer
from reflexarc.sim.tasks.lift import Lift
from reflexarc.sim.tasks.place import Place
from reflexarc.sim.tasks.push import Push
from reflexarc.sim.tasks.reach import Reach
from reflexarc.sim.tasks.stack import Stack
from reflexarc.sim.world import World

SEEDS = range(60)


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    found = {name: World(name, load_robot("panda")) for name in TASKS}
    yield found
    for world in found.values():
        world.close()


@pytest.fixture(params=list(TASKS))
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    found = worlds[request.param]
    found.reset(0)
    return found


def count(world: World) -> int:
    """How many things of the scene a target is drawn from."""
    task = world.task
    if isinstance(task, BlockTask):
        return len(task.shapes)
    assert isinstance(task, Button | Drawer)
    return len(task.colors)


def put(world: World, index: int, position: tuple[float, float, float]) -> None:
    """Put a block somewhere, level and at rest."""
    start = world.model.joint(f"block{index}").qposadr[0]
    world.data.qpos[start : start + 7] = (*position, 1, 0, 0, 0)
    mujoco.mj_forward(world.model, world.data)


def satisfied(world: World) -> bool:
    return world.task.satisfied(world.data, world.goal)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_templates_are_many_and_some_are_kept_from_training(task: type) -> None:
    assert len(task.templates_train) >= 6
    assert len(task.templates_held_out) >= 2
    trained = set(instructions(task, task.templates_train))
    held_out = set(instructions(task, task.templates_held_out))
    assert not trained & held_out
    assert all(text == " ".join(text.lower().split()) for text in trained | held_out)


def test_paraphrases_use_no_word_that_training_lacks() -> None:
    trained = {
        word
        for task in TASKS.values()
        for text in instructions(task, task.templates_train)
        for word in text.split()
    }
    assert set(vocabulary()) == trained


def test_instructions_come_from_the_closed_list(world: World) -> None:
    known = set(all_instructions())
    for seed in SEEDS:
        world.reset(seed)
        told, other = world.instruction, world.other_instruction()
        assert {told, other} <= known
        assert told in instructions(type(world.task), world.task.templates_train)
        assert told != other
        world.reset(seed, held_out=True)
        assert world.instruction in instructions(type(world.task), world.task.templates_held_out)


def test_held_out_wording_leaves_the_scene_as_it_is(world: World) -> None:
    world.reset(4)
    first, goal = world.initial(), world.goal
    world.reset(4, held_out=True)
    assert np.array_equal(first.integration_state, world.initial().integration_state)
    assert goal == world.goal


def test_every_thing_and_every_colour_is_asked_for_alike(world: World) -> None:
    targets: Counter[int] = Counter()
    colors: Counter[str] = Counter()
    for seed in range(300):
        world.reset(seed)
        targets[world.goal.target] += 1
        colors[world.goal.words["color"]] += 1
        named = world.task.colors
        assert len(set(named)) == len(named) == count(world)
        assert named[world.goal.target] == world.goal.words["color"]
    for counter, kinds in ((targets, count(world)), (colors, 5)):
        assert len(counter) == kinds
        assert min(counter.values()) > 0.6 * 300 / kinds


def test_scenes_have_enough_things_to_tell_apart(world: World) -> None:
    bins = len(world.task.bins) if isinstance(world.task, Place) else 0
    assert count(world) + bins >= (4 if isinstance(world.task, Stack) else 5)


def test_layouts_keep_their_distance_and_the_working_area(world: World) -> None:
    for seed in SEEDS:
        world.reset(seed)
        focus = world.task.focus(world.data, world.goal)
        assert np.all((focus[:, 0] > 0.30) & (focus[:, 0] < 0.70) & (np.abs(focus[:, 1]) < 0.30))
        if isinstance(world.task, BlockTask):
            points = np.array([world.task.position(world.data, i)[:2] for i in range(count(world))])
            apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points))
            assert apart.min() > 0.075


def test_nothing_is_done_at_the_start(world: World) -> None:
    for seed in SEEDS:
        world.reset(seed)
        assert not satisfied(world)


def test_the_home_pose_points_straight_down_at_its_place(world: World) -> None:
    tcp = world.task.hand.position(world.data)
    assert np.allclose(tcp, (0.45, 0.0, 0.25), atol=0.04)
    assert world.hand.down[1] == pytest.approx(1.0, abs=1e-3)


def move_hand(world: World, point: np.ndarray) -> None:
    """Let the arm's TCP be at `point` by moving the whole arm: enough for a judge that only looks at the TCP."""
    offset = point - world.task.hand.position(world.data)
    world.model.body_pos[world.model.body("link0").id] += offset
    mujoco.mj_forward(world.model, world.data)


def test_reach_wants_the_named_block() -> None:
    world = World("reach", load_robot("panda"))
    task = world.task
    assert isinstance(task, Reach)
    for index in range(5):
        move_hand(world, task.position(world.data, index) + (0.0, 0.01, 0.07))
        assert satisfied(world) == (index == world.goal.target)
    move_hand(world, task.point(world.data, world.goal) + (0.0, 0.0, 0.03))
    assert not satisfied(world)


def test_lift_wants_the_named_block(worlds: dict[str, World]) -> None:
    world = worlds["lift"]
    assert isinstance(world.task, Lift)
    for index in range(5):
        world.reset(2)
        put(world, index, (0.5, 0.25, 0.12))
        assert satisfied(world) == (index == world.goal.target)
    put(world, world.goal.target, (0.5, 0.25, 0.09))
    assert not satisfied(world)


def test_push_wants_the_named_block_on_the_named_side_and_on_the_table(worlds: dict[str, World]) -> None:
    world = worlds["push"]
    task = world.task
    assert isinstance(task, Push)
    for index in range(5):
        for side in (1.0, -1.0):
            world.reset(2)
            put(world, index, (0.4, side * 0.17, BLOCK_HALF))
            assert satisfied(world) == (index == world.goal.target and side == task.sign(world.goal))
    world.reset(2)
    put(world, world.goal.target, (0.4, task.sign(world.goal) * 0.17, 0.1))
    assert not satisfied(world)


def test_place_wants_the_named_block_in_the_named_bin_and_the_hand_off_it(
    worlds: dict[str, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds["place"]
    task = world.task
    assert isinstance(task, Place)
    for index in range(4):
        for target_bin in range(2):
            world.reset(7)
            put(world, index, (*task.bin_position(world.data, target_bin)[:2], 0.024))
            asked = (world.goal.target, world.goal.destination)
            assert satisfied(world) == ((index, target_bin) == asked)
    x, y, _ = task.bin_position(world.data, world.goal.destination)
    put(world, world.goal.target, (x, y, 0.06))
    assert not satisfied(world)
    put(world, world.goal.target, (x + 0.07, y, 0.024))
    assert not satisfied(world)
    put(world, world.goal.target, (x, y, 0.024))
    monkeypatch.setattr(type(task.hand), "touches", lambda self, data, geom: True)
    assert not satisfied(world)


def test_stack_wants_the_named_pair_that_way_up(worlds: dict[str, World]) -> None:
    world = worlds["stack"]
    task = world.task
    assert isinstance(task, Stack)
    for upper in range(4):
        for lower in range(4):
            if upper == lower:
                continue
            world.reset(7)
            x, y, z = task.position(world.data, lower)
            put(world, upper, (x, y, z + 0.04))
            asked = (world.goal.target, world.goal.destination)
            assert satisfied(world) == ((upper, lower) == asked)
    x, y, z = task.position(world.data, world.goal.destination)
    put(world, world.goal.target, (x + 0.03, y, z + 0.04))
    assert not satisfied(world)


@pytest.mark.parametrize("name", ["button", "drawer"])
def test_a_pressed_button_or_an_open_drawer_must_be_the_named_one(
    worlds: dict[str, World], name: str
) -> None:
    world = worlds[name]
    task = world.task
    assert isinstance(task, Button | Drawer)
    full = 0.012 if isinstance(task, Button) else 0.1
    for index in range(5):
        world.reset(3)
        world.data.qpos[task.travel[index]] = full
        assert satisfied(world) == (index == world.goal.target)
        world.data.qpos[task.travel[index]] = full / 2
        assert not satisfied(world)


def test_pressing_everything_is_no_answer(worlds: dict[str, World]) -> None:
    world = worlds["button"]
    assert isinstance(world.task, Button)
    world.reset(3)
    world.data.qpos[world.task.travel] = 0.012
    assert not satisfied(world)


def test_a_button_takes_less_than_15_newton(worlds: dict[str, World]) -> None:
    world = worlds["button"]
    world.reset(0)
    joint = world.model.joint("button0")
    stroke = joint.range[1] - world.model.qpos_spring[joint.qposadr[0]]
    assert 2.0 < world.model.jnt_stiffness[joint.id] * stroke < 15.0


def test_an_other_goal_names_another_thing(world: World) -> None:
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        world.reset(seed)
        other: Goal = world.task.other(world.goal, rng)
        assert other.target != world.goal.target
        assert other.words["color"] != world.goal.words["color"]


def test_unknown_tasks_and_suites_are_named() -> None:
    with pytest.raises(SimulationError, match=r"unknown task 'fly'; known: button, .*stack"):
        get_task("fly")
    with pytest.raises(SimulationError, match=r"unknown suite 'kitchen'; known: tabletop"):
        get_suite("kitchen")
    assert get_suite("tabletop") == tuple(TASKS)
