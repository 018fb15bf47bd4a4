"""The scripted experts, through the same controller and safety as a policy; 200 seeds a task are in the slow test."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from reflexarc.collect import RollIn
from reflexarc.configs.action import ActionSpec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.sim.experts import EXPERTS, make_expert
from reflexarc.sim.experts.base import SNAP, approach, limited
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.perturb import LOWER, MAX_DISPLACEMENT, UPPER, Perturbation
from reflexarc.sim.tasks import TASKS
from reflexarc.sim.world import World
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Message, Observation, State

CLOSED_LOOP = load_controller("default").model_copy(update={"execute_steps": 1})
FASTEST = 0.35
"""m/s that the commanded TCP may reach: the travel speed, and what the interpolation adds in a curve."""


class Spy:
    """A policy that keeps what passes through it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.info = policy.info
        self.seen: list[tuple[Observation, ActionChunk]] = []

    def reset(self, session: str) -> None:
        self._policy.reset(session)

    def act(self, observation: Observation) -> ActionChunk:
        chunk = self._policy.act(observation)
        self.seen.append((observation, chunk))
        return chunk


def session(world: World, policy: Policy, controller: ControllerConfig | None = None) -> LockstepSession:
    robot = load_robot("panda")
    return LockstepSession(
        world, robot, load_safety("panda"), controller or load_controller("default"), policy
    )


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param, load_robot("panda"))
    yield world
    world.close()


every_task = pytest.mark.parametrize("world", list(TASKS), indirect=True)


def test_there_is_an_expert_for_every_task() -> None:
    assert set(EXPERTS) == set(TASKS)


@every_task
def test_the_expert_does_its_task_slowly_and_inside_the_working_area(world: World) -> None:
    spy = Spy(make_expert(world))
    run = session(world, spy)
    poses: list[np.ndarray] = []

    def record(topic: str, message: Message) -> None:
        if isinstance(message, State):
            poses.append(message.pose_base_tcp_commanded)

    run.subscribers.append(record)
    limit = world.task.time_limit_s
    for seed in (11, 12):
        poses.clear()
        result = run.run(seed, time_limit_s=limit)
        assert result.success, f"seed {seed}"
        assert result.time_s < 0.6 * limit
        points = np.array(poses)[:, :3]
        assert np.all((points > (0.26, -0.34, 0.01)) & (points < (0.74, 0.34, 0.36)))
        speed = np.linalg.norm(np.diff(points, axis=0), axis=1) / 0.005
        assert speed.max() < FASTEST
    spec = ActionSpec.model_validate_json(spy.info.action_spec)
    lower, upper = [d.lower for d in spec.dims], [d.upper for d in spec.dims]
    for _, chunk in spy.seen:
        assert chunk.actions.shape == (spec.horizon, spec.size)
        assert np.all((chunk.actions >= lower) & (chunk.actions <= upper))
        assert chunk.source == "expert"


@every_task
def test_the_expert_finds_its_way_back_from_disturbances(world: World) -> None:
    expert = make_expert(world)
    disturbance = Perturbation(expert.info)
    policy = RollIn(expert, disturbance, spells=(2, 2), length=(3, 5))
    run = session(world, policy, CLOSED_LOOP)
    policy.begin(21, typical_steps=20)
    disturbance.reseed(21)
    assert run.run(21, time_limit_s=1.6 * world.task.time_limit_s).success


@pytest.mark.parametrize("world", ["lift"], indirect=True)
def test_the_expert_has_no_memory_and_is_deterministic(world: World) -> None:
    spy = Spy(make_expert(world))
    run = session(world, spy)
    run.reset(1)
    for _ in range(100):
        run.tick()
    observation = spy.seen[-1][0]
    first = make_expert(world).act(observation).actions
    assert np.array_equal(first, make_expert(world).act(observation).actions)


@pytest.mark.parametrize("world", ["lift"], indirect=True)
def test_the_expert_turns_a_tilted_hand_upright(world: World) -> None:
    spy = Spy(make_expert(world))
    run = session(world, spy)
    run.reset(1)
    run.tick()
    observation = spy.seen[-1][0]
    pose = observation.state.pose_base_tcp_commanded.copy()
    pose[3:] = (0.0, np.cos(0.1), np.sin(0.1), 0.0)  # turned by 0.2 rad about the vertical
    state = msgspec.structs.replace(observation.state, pose_base_tcp_commanded=pose)
    turn = make_expert(world).act(msgspec.structs.replace(observation, state=state)).actions[:, 3:6]
    assert np.all(np.abs(turn[:, :2]) < 1e-3)
    assert np.all(np.diff(np.abs(turn[:, 2])) < 1e-9)
    assert 0.15 < abs(turn[:, 2].sum()) < 0.2


def test_steps_are_limited_and_end_at_the_goal() -> None:
    point, goal = np.zeros(3), np.array([0.11, -0.05, 0.02])
    longest = 0.0
    for _ in range(40):
        step = limited(goal - point, 0.028)
        longest = max(longest, float(np.linalg.norm(step)))
        point = point + step
    assert longest == pytest.approx(0.028)
    assert np.array_equal(point, goal) or np.linalg.norm(point - goal) < 1e-12
    assert np.linalg.norm(limited(np.array([0.0, 0.0, 1.5 * SNAP]), 1.0)) >= SNAP - 1e-12


@pytest.mark.parametrize("start", [(0.3, 0.2, 0.02), (0.6, -0.2, 0.3), (0.45, 0.05, 0.05)])
def test_a_goal_is_approached_from_above(start: tuple[float, float, float]) -> None:
    point, goal = np.array(start), np.array([0.45, 0.0, 0.02])
    for _ in range(80):
        aside = np.linalg.norm((point - goal)[:2])
        target = approach(point, goal, hover=0.08)
        step = limited(target - point, 0.028)
        if aside > 0.03 and point[2] < 0.05:
            assert step[2] > 0.0, "low and far aside, it must rise"
        point = point + step
    assert np.allclose(point, goal, atol=1e-3)


@pytest.mark.parametrize("world", ["reach"], indirect=True)
def test_disturbances_are_short_bounded_and_repeatable(world: World) -> None:
    expert = make_expert(world)
    run = session(world, Spy(expert))
    spy = run.policy
    assert isinstance(spy, Spy)
    run.reset(1)
    run.tick()
    observation = spy.seen[-1][0]
    ways = []
    for seed in range(60):
        source = Perturbation(expert.info, seed)
        again = Perturbation(expert.info, seed)
        way, point = np.zeros(3), observation.state.pose_base_tcp_commanded[:3]
        for step in range(5):
            later = msgspec.structs.replace(observation, t_obs_ns=step * 100_000_000)
            chunk = source.act(later)
            assert np.array_equal(chunk.actions, again.act(later).actions)
            assert chunk.source == "perturb"
            if source._burst is not None and source._burst.begin_ns > 0:
                break
            way += chunk.actions[0, :3]
        assert np.linalg.norm(way) <= MAX_DISPLACEMENT + 1e-9
        assert np.all((point + way >= np.array(LOWER) - 1e-9) & (point + way <= np.array(UPPER) + 1e-9))
        ways.append(way)
    assert np.linalg.norm(ways, axis=1).max() > 0.05
    assert np.std(ways, axis=0).min() > 0.01


@pytest.mark.slow
@pytest.mark.timeout(7200)
@every_task
def test_the_expert_succeeds_on_at_least_98_of_100_seeds(world: World) -> None:
    run = session(world, make_expert(world))
    limit = world.task.time_limit_s
    failed = [seed for seed in range(200) if not run.run(seed, time_limit_s=limit).success]
    assert len(failed) <= 4, f"failed seeds: {failed}"
