"""The Gymnasium environments: they pass Gymnasium's own checker, and the same seed and actions repeat to the bit."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reflexarc.configs.errors import SimulationError
from reflexarc.sim.envs import TabletopEnv, env_id
from reflexarc.sim.tasks import TASKS


def make(task: str) -> TabletopEnv:
    env = gymnasium.make(env_id(task), render_mode="rgb_array").unwrapped
    assert isinstance(env, TabletopEnv)
    return env


@pytest.mark.parametrize("task", list(TASKS))
def test_gymnasium_finds_nothing_to_complain_about(task: str) -> None:
    env = make(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    env.close()


@pytest.mark.parametrize("task", ["lift", "drawer"])
def test_the_same_seed_and_actions_repeat_to_the_bit(task: str) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform((-0.03,) * 6 + (0.0,), (0.03,) * 6 + (1.0,), (12, 7)).astype(np.float32)
    runs = []
    for env in (make(task), make(task)):
        sights = [env.reset(seed=4)[0]]
        sights += [env.step(action)[0] for action in actions]
        runs.append((sights, env.world.data.qpos.copy(), env.world.data.qvel.copy()))
        env.close()
    (first, *states), (second, *others) = runs
    for before, after in zip(first, second, strict=True):
        for key, value in before.items():
            assert np.array_equal(value, after[key]), key
    for before, after in zip(states, others, strict=True):
        assert np.array_equal(before, after)


def test_an_action_moves_the_hand_as_it_says_and_the_gripper() -> None:
    env = make("reach")
    sight, _ = env.reset(seed=1)
    start = sight["tcp_pose"][:3].astype(np.float64)
    action = np.array([0.005, 0.01, -0.005, 0, 0, 0, 0.0], dtype=np.float32)
    for _ in range(4):
        sight, *_ = env.step(action)
    for _ in range(3):
        sight, *_ = env.step(np.zeros(7, dtype=np.float32))
    # Steps from rest to 0.12 m/s and back, which the joints round off: the controller counts 3 mm as arrived.
    np.testing.assert_allclose(sight["tcp_pose"][:3] - start, 4 * action[:3], atol=4e-3)
    assert sight["gripper"][0] < 0.3
    env.close()


def test_resets_differ_without_a_seed_and_a_layout_can_be_named() -> None:
    env = make("button")
    env.reset(seed=1)
    layouts = {env.reset()[1]["layout"] for _ in range(3)}
    assert len(layouts) == 3
    assert env.reset(options={"layout": 17})[1]["layout"] == 17
    env.close()


def test_a_broken_action_does_not_move_the_arm() -> None:
    env = make("reach")
    sight, _ = env.reset(seed=1)
    after, reward, over, _, info = env.step(np.full(7, np.nan, dtype=np.float32))
    assert np.allclose(after["tcp_pose"], sight["tcp_pose"], atol=1e-4)
    assert (reward, over, info["safety"]) == (0.0, False, "active")
    env.close()


def test_the_time_limit_is_the_tasks() -> None:
    env = gymnasium.make(env_id("reach"))
    assert env.spec is not None
    assert env.spec.max_episode_steps == round(10 * TASKS["reach"].time_limit_s)
    env.close()


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(SimulationError, match="unknown task 'fly'; known: button"):
        env_id("fly")
