"""Tasks done by hand, on the virtual clock: inputs go the way a person's do, and their log trains like any other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from contracts.teleop_suite import TeleopBench, TeleopContract
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import sample_episode
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.setup import load_setup
from reflexarc.sim.experts import make_expert
from reflexarc.sim.experts.by_hand import ExpertByHand
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import Event, Message, Setpoint, State, TeleopCommand, TeleopKey

SETUP = load_setup()
SPEC = tcp_delta_spec(4, 0.1)
MS = 1_000_000


class Hand(ExpertByHand):
    """Takes hold and lets go at given times, ns; gives back when it lets go."""

    def __init__(
        self, session_of: list[LockstepSession], world: World, spells: list[tuple[int, int]]
    ) -> None:
        super().__init__(make_expert(world), lambda: session_of[0].state)
        self._session_of = session_of
        self._spells = spells
        self._told: set[int] = set()

    def read(self):  # type: ignore[no-untyped-def]
        now = self._session_of[0].now_ns
        self.resting = not any(start <= now < end for start, end in self._spells)
        return super().read()

    def keys(self) -> tuple[TeleopKey, ...]:
        now = self._session_of[0].now_ns
        over = {end for _, end in self._spells if end <= now} - self._told
        self._told |= over
        return ("give_back",) if over else ()


def play(
    task: str, spells: list[tuple[int, int]], path: Path | None = None, *, policy: bool, seed: int = 0
) -> tuple[bool, list[tuple[str, Message]]]:
    """One episode with a person at these times, beside the scripted expert as a policy or alone."""
    world = World(task, SETUP.robot)
    expert: Policy | None = make_expert(world) if policy else None
    sessions: list[LockstepSession] = []
    session = LockstepSession(
        world,
        SETUP.robot,
        SETUP.safety,
        SETUP.controller,
        expert,
        teleoperator=Hand(sessions, world, spells),
    )
    sessions.append(session)
    seen: list[tuple[str, Message]] = []
    session.subscribers.append(lambda topic, message: seen.append((topic, message)))
    if path is not None:
        writer = EpisodeWriter(path, {"task": task, "instruction": "by hand"}, fsync=False)
        session.subscribers.append(lambda topic, message: writer.write(topic, message))
    result = session.run(seed, time_limit_s=30.0)
    if path is not None:
        writer.close({"success": result.success})
    session.close()
    return result.success, seen


FOREVER = [(0, 1 << 62)]


class TestScriptedHand(TeleopContract):
    def make(self) -> TeleopBench:
        world = World("reach", SETUP.robot)
        sessions: list[LockstepSession] = []
        expert = make_expert(world)
        session = LockstepSession(world, SETUP.robot, SETUP.safety, SETUP.controller, expert)
        sessions.append(session)
        session.reset(0)
        session.tick()
        hand = ExpertByHand(expert, lambda: session.state)
        hand.resting = True
        return TeleopBench(
            device=hand,
            move=lambda: setattr(hand, "resting", False),
            let_go=lambda: setattr(hand, "resting", True),
            unplug=None,
            absent=None,
            has_own_grip=True,
            end=session.close,
        )


@pytest.mark.parametrize("task", ["reach", "lift", "place"])
def test_a_task_is_done_by_hand(task: str) -> None:
    success, seen = play(task, FOREVER, policy=False)
    assert success
    moving = [message for _, message in seen if isinstance(message, Setpoint)][10:]
    assert {setpoint.source for setpoint in moving} == {"teleop"}
    assert {topic for topic, _ in seen} >= {"/teleop", "/camera/front", "/camera/wrist", "/state"}


def test_the_same_hand_moves_the_same_arm_to_the_bit() -> None:
    runs = [
        [
            message.joint_position
            for _, message in play("reach", FOREVER, policy=False)[1]
            if isinstance(message, State)
        ]
        for _ in range(2)
    ]
    assert np.array_equal(runs[0], runs[1])


def test_a_log_by_hand_gives_labels_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "hand.mcap"
    assert play("lift", FOREVER, path, policy=False)[0]
    samples = sample_episode(EpisodeReader(path), SPEC, ["front", "wrist"], sources={"teleop"})
    assert samples.mask[:-5].all()
    assert np.isfinite(samples.actions).all()
    assert np.abs(samples.actions[..., :3]).max() > 0.005
    assert set(np.unique(samples.actions[..., 6])) == {0.0, 1.0}
    assert samples.images["front"].std() > 1.0


def test_frames_of_policy_and_person_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "both.mcap"
    taken, back = 600 * MS, 1500 * MS
    success, seen = play("lift", [(taken, back)], path, policy=True)
    assert success
    who = [(e.t_ns, e.data["source"]) for _, e in seen if isinstance(e, Event) and e.kind == "control"]
    assert [source for _, source in who] == ["expert", "teleop", "hold", "expert"]
    assert who[1][0] == taken
    assert who[2][0] == back
    reader = EpisodeReader(path)
    person, policy, both = (
        sample_episode(reader, SPEC, ["front", "wrist"], sources=sources)
        for sources in ({"teleop"}, {"expert"}, None)
    )
    step_ends = both.t_ns[:, None] + np.arange(1, 5) * SPEC.step_ns
    step_starts = step_ends - SPEC.step_ns
    by_person = (step_starts >= taken) & (step_ends <= back)
    assert person.mask.any()
    assert policy.mask.any()
    assert not (person.mask & policy.mask).any()
    assert by_person[person.mask].all()
    assert np.array_equal(both.by_person, (both.t_ns >= taken) & (both.t_ns < back))
    assert not ((step_ends > taken) & (step_starts < back))[policy.mask].any()


@pytest.mark.parametrize("task", ["lift", "drawer"])
@pytest.mark.parametrize("seed", range(2))
def test_hand_overs_do_not_jump_at_the_host(task: str, seed: int) -> None:
    """No commanded joint moves by more than its published limits allow in one tick, and the task is done."""
    random = np.random.default_rng(seed)
    starts = np.sort(random.integers(10, 200, 3)) * 20 * MS
    spells = [(int(start), int(start) + int(random.integers(5, 30)) * 20 * MS) for start in starts]
    success, seen = play(task, spells, policy=True, seed=seed)
    assert success
    states = [message for _, message in seen if isinstance(message, State)]
    tick_s = SETUP.robot.tick_ns * 1e-9
    speed = np.array([joint.velocity for joint in SETUP.robot.joints])
    acceleration = np.array([joint.acceleration for joint in SETUP.robot.joints])
    place = np.array([state.joint_position_commanded for state in states])
    velocity = np.array([state.joint_velocity_commanded for state in states])
    assert np.all(np.abs(np.diff(place, axis=0)) <= speed * tick_s * (1 + 1e-9))
    assert np.all(np.abs(np.diff(velocity, axis=0)) <= acceleration * tick_s * (1 + 1e-9))
    assert {state.safety for state in states} <= {"ready", "active"}
    setpoints = [message for _, message in seen if isinstance(message, Setpoint)]
    changes = [
        (before, after)
        for before, after in itertools.pairwise(setpoints)
        if (before.source == "teleop") != (after.source == "teleop")
    ]
    assert changes
    for before, after in changes:
        period_s = (after.t_due_ns - before.t_due_ns) * 1e-9
        assert np.all(np.abs(after.joint_position - before.joint_position) <= speed * period_s)
        assert np.all(np.abs(after.joint_velocity - before.joint_velocity) <= acceleration * period_s)


def test_every_input_is_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "hand.mcap"
    play("reach", FOREVER, path, policy=False)
    commands = [
        message
        for _, message in EpisodeReader(path).messages(["/teleop"])
        if isinstance(message, TeleopCommand)
    ]
    assert len(commands) > 20
    assert all(command.engaged for command in commands)
    assert np.unique(np.diff([command.t_ns for command in commands])) == [20 * MS]
