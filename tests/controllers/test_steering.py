"""A person in control: takes over and gives back without a jump, stops when silent, and says who it was."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.controller_bench import CONTROL_NS, Rig, moves, panda
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.controllers.controller import TELEOP_SILENT_NS, TickStatus
from reflexarc.controllers.steering import TETHER_M, steering_spec
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, Setpoint, TeleopCommand, TeleopKey, TeleopKind

MS = 1_000_000
SPEC = tcp_delta_spec(4, 0.1)


def command(
    now_ns: int,
    motion: F64 | None = None,
    *,
    kind: TeleopKind = "twist",
    gripper: float | None = None,
    keys: tuple[TeleopKey, ...] = (),
) -> TeleopCommand:
    """An input; without a `motion` the dead-man is released."""
    return TeleopCommand(
        t_ns=now_ns,
        clock="virtual",
        seq=now_ns,
        device="test",
        engaged=motion is not None,
        kind=kind,
        motion=np.zeros(6) if motion is None else motion,
        gripper=gripper,
        keys=list(keys),
    )


ELSEWHERE = np.array([1.0, -2.0, 0.5, 0.0, 0.0, 1.0])
"""Where a device may happen to be: its origin means nothing."""


def since(now_ns: int, start_ns: int) -> float:
    """A share that rises from 0 to 1 within half a second from `start_ns`."""
    return min(max((now_ns - start_ns) / (500 * MS), 0.0), 1.0)


def steered(twist: tuple[float, ...], **options: object) -> Rig:
    """A rig without a policy, whose person asks for `twist` all the time."""
    rig = Rig(lambda _: moves(1, (0.0,)), spec=steering_spec(panda(), joints=False), cameras=(), **options)  # type: ignore[arg-type]
    rig.mute = True
    wanted = np.array([*twist, *np.zeros(6 - len(twist))])
    rig.person = lambda now: command(now, wanted)
    return rig


def worst_jump(setpoints: list[Setpoint]) -> tuple[float, float]:
    """The largest change of position and of velocity from one setpoint to the next, as shares of what the robot's
    published velocity and acceleration allow in one tick."""
    limits = panda().joints
    speed = np.array([joint.velocity for joint in limits])
    acceleration = np.array([joint.acceleration for joint in limits])
    places = np.array([each.joint_position for each in setpoints])
    speeds = np.array([each.joint_velocity for each in setpoints])
    tick_s = CONTROL_NS * 1e-9
    moved = np.abs(np.diff(places, axis=0)) / (speed * tick_s)
    changed = np.abs(np.diff(speeds, axis=0)) / (acceleration * tick_s)
    return float(moved.max()), float(changed.max())


def test_a_twist_moves_the_tcp_at_that_velocity_and_release_stops_it() -> None:
    rig = steered((0.1, 0.0, -0.05))
    rig.run(1.0)
    before = rig.log.path[-1]
    rig.run(0.5)
    assert (rig.log.path[-1] - before) / 0.5 == pytest.approx([0.1, 0.0, -0.05], abs=2e-3)
    assert {each.source for each in rig.log.setpoints[10:]} == {"teleop"}
    rig.person = command
    rig.run(0.5)
    stopped = rig.log.path[-1]
    rig.run(1.0)
    assert rig.log.statuses[-1] is TickStatus.HOLDING
    assert np.abs(rig.log.path[-1] - stopped).max() < 1e-6
    assert worst_jump(rig.log.setpoints)[1] <= ControllerConfig().acceleration_share + 1e-9


def test_a_turn_turns_the_tcp() -> None:
    rig = steered((0.0, 0.0, 0.0, 0.0, 0.0, 0.5))
    rig.run(0.5)
    before = rig.log.poses[-1]
    rig.run(0.4)
    turned = geometry.difference(rig.log.poses[-1][3:], before[3:])
    assert turned == pytest.approx([0.0, 0.0, 0.2], abs=0.01)


@pytest.mark.parametrize("kind", ["twist", "offset"])
def test_a_device_that_falls_silent_is_a_hold(kind: TeleopKind) -> None:
    rig = steered((0.1,))
    far = np.array([0.25, 0.0, 0.0, 0.0, 0.0, 0.0])
    rig.person = lambda now: command(now, 0.4 * far if kind == "twist" else far * (now > 0), kind=kind)
    rig.run(0.5)
    rig.person = lambda now: None
    silent_from = rig.log.path[-1][0]
    rig.run(1.0)
    assert "teleop_silent" in rig.log.kinds()
    at_rest = rig.log.path[-1][0]
    rig.run(0.5)
    assert rig.log.path[-1][0] == pytest.approx(at_rest, abs=1e-6)
    # At the speed it may have (0.3 m/s): until it counts as silent, then the stop at 1 m/s².
    assert at_rest - silent_from < 0.3 * TELEOP_SILENT_NS * 1e-9 + 0.3**2 / 2 + 0.01
    assert rig.log.setpoints[-1].source == "hold"
    assert rig.log.setpoints[-1].chunk_age_ns > 1_000 * MS  # the host sees the silence too


def test_an_offset_is_reached_from_where_it_was_engaged() -> None:
    rig = steered((0.0,))
    offset = np.array([0.05, 0.02, 0.0, 0.0, 0.0, 0.3])
    rig.run(0.2)
    start = rig.log.poses[-1]
    rig.person = command
    rig.run(0.1)
    rig.person = lambda now: command(now, since(now, 300 * MS) * offset + ELSEWHERE, kind="offset")
    rig.run(1.5)
    assert geometry.delta_between(start, rig.log.poses[-1]) == pytest.approx(offset, abs=1e-3)
    # Released, moved back by hand and engaged again: nothing happens until it moves again.
    rig.person = command
    rig.run(0.3)
    rig.person = lambda now: command(now, np.zeros(6), kind="offset")
    rig.run(1.0)
    assert geometry.delta_between(start, rig.log.poses[-1]) == pytest.approx(offset, abs=2e-3)


@pytest.mark.parametrize("joint_space", [True, False])
def test_a_leader_arm_moves_the_joints(joint_space: bool) -> None:
    robot = panda()
    spec = steering_spec(robot, joints=True) if joint_space else SPEC
    rig = Rig(lambda _: moves(4, (0.0,)), spec=spec, cameras=())
    rig.mute = True
    offset = np.array([0.2, 0.1, 0.0, -0.1, 0.0, 0.1, 0.3])
    rig.person = lambda now: command(now, 0.5 + since(now, 0) * offset, kind="joint_offset", gripper=0.25)
    rig.run(2.0)
    if joint_space:
        assert rig.host.joints == pytest.approx(np.array(robot.home) + offset, abs=1e-3)
    wanted = rig.host.kinematics.forward(np.array(robot.home) + offset)
    assert rig.log.poses[-1][:3] == pytest.approx(wanted[:3], abs=1e-3)
    assert rig.log.setpoints[-1].gripper == 0.25
    assert max(worst_jump(rig.log.setpoints)) < 1.0


@pytest.mark.parametrize("kind", ["twist", "offset"])
def test_the_tcp_can_be_steered_in_joint_space(kind: TeleopKind) -> None:
    rig = Rig(lambda _: moves(1, (0.0,)), spec=steering_spec(panda(), joints=True), cameras=())
    rig.mute = True
    motion = np.array([0.05, 0.0, 0.0, 0.0, 0.0, 0.0])
    rig.person = lambda now: command(now, motion * (now > 0 or kind == "twist"), kind=kind)
    rig.run(1.0)
    moved = rig.log.path[-1] - rig.log.path[0]
    assert moved[0] == pytest.approx(0.05, abs=0.01)
    assert np.abs(moved[1:]).max() < 2e-3


def test_against_a_limit_the_target_does_not_run_away() -> None:
    rig = steered((0.2,))
    rig.run(0.5)
    rig.host.max_step = 0.0  # as if safety let nothing pass
    rig.run(2.0)
    ahead = rig.host.kinematics.forward(rig.log.setpoints[-1].joint_position) - rig.log.poses[-1]
    assert np.linalg.norm(ahead[:3]) < TETHER_M + 0.01


def test_the_gripper_stays_as_it_is_until_the_person_asks() -> None:
    rig = Rig(lambda _: moves(4, (0.0,), gripper=0.0), spec=SPEC)
    rig.run(0.5)
    rig.person = lambda now: command(now, np.zeros(6))
    rig.run(0.5)
    assert rig.log.setpoints[-1].gripper == 0.0
    rig.person = lambda now: command(now, np.zeros(6), gripper=1.0)
    rig.run(0.1)
    assert rig.log.setpoints[-1].gripper == 1.0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros(5), "shape (5,)"),
        (np.array([np.nan, 0, 0, 0, 0, 0]), "must be finite"),
        (np.array([np.inf, 0, 0, 0, 0, 0]), "must be finite"),
    ],
)
def test_an_input_that_makes_no_sense_moves_nothing(bad: F64, said: str) -> None:
    rig = steered((0.0,))
    rig.person = lambda now: command(now, bad)
    rig.run(0.3)
    assert {event.kind for event in rig.log.events} == {"teleop_rejected"}
    assert said in rig.log.events[0].text
    assert np.abs(rig.log.path[-1] - rig.log.path[0]).max() < 1e-9


def test_while_a_person_is_in_control_no_policy_is_asked_and_afterwards_it_is() -> None:
    rig = Rig(lambda _: moves(4, (0.0, 0.005, 0.0)), spec=SPEC, latency_ns=60 * MS)
    rig.run(1.0)
    asked = len(rig.log.observations)
    rig.person = lambda now: command(now, np.array([0.1, 0, 0, 0, 0, 0]))
    rig.run(1.0)
    assert len(rig.log.observations) == asked
    rig.person = command  # let go: still the person's
    rig.run(0.5)
    assert len(rig.log.observations) == asked
    rig.person = lambda now: command(now, keys=("give_back",)) if now == 2500 * MS else command(now)
    rig.run(1.0)
    assert len(rig.log.observations) > asked
    assert rig.log.observations[asked].t_obs_ns > 2500 * MS  # of pictures taken after that
    who = [(event.t_ns, event.data["source"]) for event in rig.log.events if event.kind == "control"]
    assert [source for _, source in who] == ["policy", "teleop", "hold", "policy"]
    assert [t_ns for t_ns, _ in who[1:3]] == [1000 * MS, 2500 * MS]
    for setpoint in rig.log.setpoints:
        if 1000 * MS <= setpoint.t_ns < 2500 * MS:
            assert setpoint.source == "teleop"
    assert rig.log.setpoints[-1].source == "policy"


def test_an_answer_on_its_way_when_the_person_takes_over_is_dropped() -> None:
    rig = Rig(lambda _: moves(4, (0.01,)), spec=SPEC, latency_ns=200 * MS)
    rig.run(0.1)
    rig.person = lambda now: command(now, np.zeros(6))
    rig.run(0.5)
    assert rig.log.chunk_statuses == ["ignored"]
    assert np.abs(rig.log.path[-1] - rig.log.path[0]).max() < 1e-6


def test_after_a_stop_the_person_takes_hold_anew() -> None:
    rig = steered((0.0,))
    rig.person = lambda now: command(now, np.array([1e-10 * now, 0, 0, 0, 0, 0]), kind="offset")
    rig.run(1.0)
    rig.host.safety = "protective_stop"
    rig.run(0.2)
    stopped = rig.log.path[-1]
    rig.host.safety = "active"
    rig.person = lambda now: command(now, np.zeros(6), kind="offset")
    rig.run(1.0)
    assert np.abs(rig.log.path[-1] - stopped).max() < 1e-3


def test_a_new_episode_begins_with_the_policy() -> None:
    rig = Rig(lambda _: moves(4, (0.0, 0.005, 0.0)), spec=SPEC)
    rig.person = lambda now: command(now, np.zeros(6))
    rig.run(0.5)
    asked = len(rig.log.observations)
    assert asked <= 1  # before the first input
    rig.person = command
    rig.controller.reset("again", "s2")
    rig.run(0.5)
    assert len(rig.log.observations) > asked


@pytest.mark.parametrize("kind", ["twist", "offset"])
@pytest.mark.parametrize("seed", range(10))
def test_no_hand_over_jumps(seed: int, kind: TeleopKind) -> None:
    """From the take-over to the policy's first chunk, no setpoint differs by more than one tick's limit from the last.

    In place by the robot's velocity limit, in velocity by its acceleration limit.
    """
    random = np.random.default_rng(seed)
    policy = tuple(random.uniform(-1, 1, 6) * [0.005, 0.005, 0.005, 0.008, 0.008, 0.008])
    motion = random.uniform(-1, 1, 6) * [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]
    latency_ns = int(random.integers(0, 30)) * 10 * MS
    taken = int(random.integers(5, 25)) * 20 * MS
    back = taken + int(random.integers(1, 40)) * 20 * MS
    holding_on = bool(random.integers(2))
    rig = Rig(lambda _: moves(4, policy), spec=SPEC, latency_ns=latency_ns)

    def person(now: int) -> TeleopCommand:
        share = min(1.0, (now - taken) * 1e-9) if kind == "offset" else 1.0
        asked = share * motion if taken <= now < back or (now == back and holding_on) else None
        return command(now, asked, kind=kind, keys=("give_back",) if now == back else ())

    rig.person = person
    log = rig.run(1e-9 * back + 0.8)
    who = [event.data["source"] for event in log.events if event.kind == "control"]
    assert who[-3:] == ["teleop", "hold", "policy"]
    returned = max(event.t_ns for event in log.events if event.kind == "control")
    over = [each for each in log.setpoints if taken - 20 * MS <= each.t_ns <= returned + 200 * MS]
    moved, changed = worst_jump(over)
    assert moved <= 1.0
    assert changed <= 1.0
