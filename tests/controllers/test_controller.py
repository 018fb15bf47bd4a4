"""The controller against a host that follows perfectly: what is travelled, when it looks, what trouble does."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from contracts.controller_bench import (
    CONTROL_NS,
    HOST_NS,
    STEP_NS,
    STEP_S,
    Drive,
    Rig,
    answer,
    moves,
    panda,
    picture,
)
from reflexarc.configs.action import ActionDim, ActionSpec, tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError
from reflexarc.controllers.controller import (
    ASTRAY_RAD,
    ChunkStatus,
    Controller,
    TickStatus,
)
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, ErrorReply, Observation

ALONG = np.array([0.6, 0.8, 0.0])
STEP_M = 0.01
LINE = tuple(STEP_M * ALONG)


def line_rig(horizon: int, latency: float, interpolation: str = "cubic", **config: object) -> Rig:
    """A policy that always says: go on along the line, 1 cm a step."""
    alignment = "on_arrival" if horizon == 1 else "at_observation"
    spec = tcp_delta_spec(horizon, STEP_S, alignment)
    settings = ControllerConfig.model_validate({"interpolation": interpolation, **config})
    return Rig(lambda _: moves(horizon, LINE), spec, round(latency * STEP_NS), settings)


def travelled(log: Drive) -> tuple[F64, F64]:
    """How far along the line, (T,) m, and how far beside it, (T,) m."""
    offset = log.path - log.path[0]
    along = offset @ ALONG
    return along, np.linalg.norm(offset - np.outer(along, ALONG), axis=1)


def speeds(log: Drive) -> F64:
    """TCP speed over each controller period, (T, 3) m/s."""
    result: F64 = np.diff(log.path[::2], axis=0) / 0.01
    return result


# The line: whatever the latency and the horizon, the same path, none of it twice.


MODES = [
    ("cubic", "jerk_limited"),
    ("linear", "jerk_limited"),
    ("ruckig", "jerk_limited"),
    ("cubic", "ensemble"),
    ("cubic", "switch"),
]


@pytest.mark.parametrize(("interpolation", "seam"), MODES)
@pytest.mark.parametrize("latency", [0.0, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("horizon", [4, 16])
def test_the_same_line_is_travelled_whatever_the_latency(
    horizon: int, latency: float, interpolation: str, seam: str
) -> None:
    log = line_rig(horizon, latency, interpolation, seam=seam).run(2.4 + 1e-9 * HOST_NS)
    along, beside = travelled(log)
    assert beside.max() < 4e-3
    assert np.diff(along).min() > -2e-4
    # None of it twice: the arm is never further than the steps that are due.
    due = STEP_M * np.array(log.times) / STEP_NS
    brakes = 0.5 * (STEP_M / STEP_S) ** 2 / ControllerConfig().hold_deceleration
    assert np.max(along - due) < brakes + 1e-3
    # None of it lost: with each chunk the arm is a whole number of steps further than with the one before.
    begun = np.array([along[seen.t_obs_ns // HOST_NS] for seen in log.observations])
    if (horizon, latency) == (16, 3.0) or latency < 1.0 or seam != "jerk_limited":
        assert along[-1] == pytest.approx(24 * STEP_M, abs=2.5e-3)
    else:  # one that ran out has braked in between
        assert np.diff(begun).min() > 4 * STEP_M - 1e-3


@pytest.mark.parametrize(("interpolation", "seam"), MODES)
@pytest.mark.parametrize("latency", [0.0, 0.4, 1.0, 3.0])
def test_single_actions_start_on_arrival_and_are_travelled_whole(
    latency: float, interpolation: str, seam: str
) -> None:
    log = line_rig(1, latency, interpolation, seam=seam).run(3.0)
    along, beside = travelled(log)
    assert beside.max() < 8e-3
    assert np.diff(along).min() > -5e-4
    # One action each time: asked, answered after the latency, travelled, asked at the next picture at rest.
    begun = [along[seen.t_obs_ns // HOST_NS] for seen in log.observations]
    assert len(begun) >= 3.0 / (STEP_S * (3 + int(np.ceil(latency)))) - 1
    np.testing.assert_allclose(begun, STEP_M * np.arange(len(begun)), atol=2e-3)
    assert "underrun" not in log.kinds()


@pytest.mark.parametrize("execute", [0, 1, 2, 3])
def test_chunks_that_overlap_are_not_done_twice(execute: int) -> None:
    log = line_rig(8, 0.4, execute_steps=execute).run(2.0 + 1e-9 * HOST_NS)
    along, beside = travelled(log)
    assert beside.max() < 1e-3
    assert np.diff(along).min() > -1e-5
    assert along[-1] == pytest.approx(20 * STEP_M, abs=2e-3)
    # A picture or two of an arm that is still behind are passed over at the start.
    assert 0 <= len(range(0, 21, max(execute, 1))) - len(log.observations) <= 2


@pytest.mark.parametrize("delay_ms", [20, 60])
def test_pictures_may_take_their_time_too(delay_ms: int) -> None:
    spec, latency = tcp_delta_spec(16, STEP_S), round(0.4 * STEP_NS)
    rig = Rig(lambda _: moves(16, LINE), spec, latency, picture_delay_ns=delay_ms * 1_000_000)
    log = rig.run(2.0 + 1e-9 * HOST_NS)
    along, beside = travelled(log)
    assert [observation.t_obs_ns // STEP_NS for observation in log.observations] == [0, 4, 8, 12, 16]
    assert beside.max() < 1e-3
    assert np.diff(along).min() > -1e-5
    for step in range(6, 21):  # the first ones are made up for
        assert along[step * STEP_NS // HOST_NS] == pytest.approx(step * STEP_M, abs=2e-3)


def test_turning_is_composed_like_moving() -> None:
    spec = tcp_delta_spec(4, STEP_S)
    rig = Rig(lambda _: moves(4, (0, 0, 0, 0, 0, 0.05)), spec, round(0.4 * STEP_NS))
    log = rig.run(1.0 + 1e-9 * HOST_NS)
    turned = geometry.difference(log.poses[-1][3:], log.poses[0][3:])
    np.testing.assert_allclose(turned, [0, 0, 0.5], atol=4e-3)
    assert np.abs(log.path - log.path[0]).max() < 1e-3


# Smoothness


@pytest.mark.parametrize("latency", [0.0, 0.4, 1.0])
def test_velocity_does_not_jump_at_the_seams(latency: float) -> None:
    log = line_rig(8, latency, execute_steps=4).run(2.0)
    change = np.linalg.norm(np.diff(speeds(log), axis=0), axis=1)
    # 1 cm made up for in the 6 or more periods until the next waypoint: below 6·(1 cm)/(60 ms)², per period.
    assert change.max() < 0.17


def test_what_was_missed_is_made_up_for_no_faster_than_allowed() -> None:
    config = ControllerConfig(catch_up_speed=0.2)
    log = Rig(lambda _: moves(16, LINE), tcp_delta_spec(16, STEP_S), 3 * STEP_NS, config).run(1.0)
    along, _ = travelled(log)
    # 3 cm late at 0.3 s: the path's 0.1 m/s, and at most 0.2 m/s more.
    assert np.diff(along).max() / (HOST_NS * 1e-9) < 0.1 + 0.2 + 0.005
    assert along[8 * STEP_NS // HOST_NS] == pytest.approx(8 * STEP_M, abs=2e-3)
    assert along[4 * STEP_NS // HOST_NS] < 4 * STEP_M - 0.005


def test_opposite_chunks_are_taken_over_without_a_step() -> None:
    turn = 0

    def zigzag(_: Observation) -> F64:
        nonlocal turn
        turn += 1
        return moves(8, LINE if turn % 2 else (-0.006, 0.0, 0.008))

    config = ControllerConfig(execute_steps=3)
    log = Rig(zigzag, tcp_delta_spec(8, STEP_S), 30_000_000, config).run(2.0)
    moved = np.linalg.norm(np.diff(log.path, axis=0), axis=1)
    assert moved.max() / (HOST_NS * 1e-9) < 0.35
    # 0.2 m/s turned round, and 0.3 cm made up for, in no less than 70 ms.
    assert np.linalg.norm(np.diff(speeds(log), axis=0), axis=1).max() < 0.15


def test_setpoint_velocities_are_those_of_the_positions() -> None:
    log = line_rig(8, 0.0, execute_steps=4).run(1.0)
    positions = np.array([setpoint.joint_position for setpoint in log.setpoints])
    velocities = np.array([setpoint.joint_velocity for setpoint in log.setpoints])
    middle = (positions[2:] - positions[:-2]) / (2 * CONTROL_NS * 1e-9)
    np.testing.assert_allclose(velocities[1:-1], middle, atol=0.02)
    assert [setpoint.t_due_ns - setpoint.t_ns for setpoint in log.setpoints] == [CONTROL_NS] * len(positions)
    assert np.all(np.diff([setpoint.seq for setpoint in log.setpoints]) == 1)


def test_the_arm_does_not_move_before_the_first_chunk() -> None:
    rig = line_rig(4, 0.0)
    rig.mute = True
    log = rig.run(1.0)
    assert np.ptp(log.path, axis=0).max() == 0.0
    assert {setpoint.source for setpoint in log.setpoints} == {"hold"}
    assert set(log.statuses) == {TickStatus.HOLDING}


def test_the_same_run_gives_the_same_setpoints() -> None:
    logs = [line_rig(4, 0.4).run(1.0) for _ in range(2)]
    for one, other in zip(logs[0].setpoints, logs[1].setpoints, strict=True):
        np.testing.assert_array_equal(one.joint_position, other.joint_position)
        np.testing.assert_array_equal(one.joint_velocity, other.joint_velocity)


# Underrun


def test_a_chunk_that_runs_out_ends_in_a_bounded_stop() -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.35)
    rig.mute = True
    log = rig.run(1.0)
    assert log.kinds().count("underrun") == 1
    event = next(event for event in log.events if event.kind == "underrun")
    assert event.text == "chunk 0 has run out and no newer one is here; braking to a hold"
    assert event.t_ns == 4 * STEP_NS
    speed = np.linalg.norm(speeds(log), axis=1)
    braking = np.diff(speed[4 * STEP_NS // CONTROL_NS :]) / 0.01
    assert braking.min() > -1.3
    assert speed[-1] < 1e-6
    along, _ = travelled(log)
    # 4 cm, and v²/2a of 0.1 m/s at 1 m/s².
    assert along[-1] == pytest.approx(0.045, abs=2e-4)
    assert log.statuses[-1] is TickStatus.HOLDING
    assert TickStatus.BRAKING in log.statuses
    last = log.setpoints[-1]
    assert last.source == "hold"
    assert not last.joint_velocity.any()
    # The age of the dead policy's chunk is told for ever.
    assert last.chunk_obs_seq == 0
    assert last.chunk_age_ns == last.t_ns


def test_a_wholly_stale_chunk_is_an_underrun_and_moves_nothing() -> None:
    rig = line_rig(4, 4.0)
    log = rig.run(1.0)
    assert log.chunk_statuses == ["stale", "stale"]
    assert "chunk 0 is wholly stale: it ended 0.0 ms ago" in [event.text for event in log.events]
    assert np.ptp(log.path, axis=0).max() == 0.0
    assert len(log.observations) == 3


# Trouble


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        ({"actions": np.full((4, 7), np.nan)}, "actions[0].dx is nan, it must be finite"),
        ({"actions": np.zeros((5, 7))}, "actions have shape (5, 7), tcp-delta-7/h4/100ms has (4, 7)"),
        ({"actions": np.zeros((4, 8))}, "actions have shape (4, 8), tcp-delta-7/h4/100ms has (4, 7)"),
        ({"spec_id": "joints"}, "spec_id is 'joints', this controller executes 'tcp-delta-7/h4/100ms'"),
        ({"t_obs_ns": 7}, "t_obs_ns is 7, observation 1 has 400000000"),
    ],
)
def test_a_bad_chunk_is_rejected_and_the_old_path_goes_on(spoil: dict[str, object], text: str) -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.4)
    bad = answer(rig.log.observations[0], moves(4, LINE), rig.spec)
    rig.controller.on_frame(picture("front", 4 * STEP_NS))
    rig.controller.on_state(rig.host.state(4 * STEP_NS))
    asked = rig.controller.observation(4 * STEP_NS)
    assert asked is not None
    bad = msgspec.structs.replace(bad, **{"obs_seq": asked.seq, "t_obs_ns": asked.t_obs_ns, **spoil})
    assert rig.controller.on_chunk(bad, 4 * STEP_NS) is ChunkStatus.REJECTED
    rig.mute = True
    log = rig.run(0.5)
    rejected = [event for event in log.events if event.kind == "chunk_rejected"]
    assert [event.text for event in rejected] == [f"chunk 1 of test: {text}"]
    along, _ = travelled(log)
    assert along[-1] == pytest.approx(0.045, abs=2e-4)
    assert log.statuses[-1] is TickStatus.HOLDING


def test_after_a_bad_chunk_the_policy_is_asked_again() -> None:
    rig = line_rig(4, 0.0)
    rig.policy = lambda o: np.full((4, 7), np.nan) if o.seq == 0 else moves(4, LINE)
    log = rig.run(0.5 + 1e-9 * HOST_NS)
    assert log.chunk_statuses[:2] == ["rejected", "accepted"]
    along, _ = travelled(log)
    assert along[-1] == pytest.approx(0.04, abs=1e-4)


def test_values_beyond_the_spec_are_clipped_and_told() -> None:
    rig = Rig(lambda _: moves(4, (0.0,), gripper=3.0))
    log = rig.run(0.1)
    assert log.kinds() == ["chunk_clipped", "control"]
    assert {setpoint.gripper for setpoint in log.setpoints} == {1.0}


def test_an_answer_nobody_asked_for_is_not_executed() -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.1)
    again = answer(rig.log.observations[0], moves(4, LINE), rig.spec)
    assert rig.controller.on_chunk(again, rig.now_ns) is ChunkStatus.UNEXPECTED
    foreign = msgspec.structs.replace(again, session="another")
    assert rig.controller.on_chunk(foreign, rig.now_ns) is ChunkStatus.UNEXPECTED


def test_a_dead_policy_is_named_once_and_one_that_comes_back_goes_on() -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.4)
    rig.mute = True
    log = rig.run(5.0)
    lost = [event for event in log.events if event.kind == "peer_lost"]
    assert len(lost) == 1
    assert lost[0].data == {"peer": "policy"}
    assert "has not answered observation 1 for 2.0 s; holding" in lost[0].text
    held = log.path[-1]
    np.testing.assert_array_equal(log.path[-100], held)
    rig.mute = False
    log = rig.run(3.0)
    assert log.kinds().count("peer_returned") == 1
    assert (log.path[-1] - held) @ ALONG > 0.05
    assert log.statuses[-1] is TickStatus.TRACKING


def test_a_refusal_is_told_and_the_next_pictures_are_sent() -> None:
    rig = line_rig(4, 0.0)
    rig.mute = True
    rig.run(0.05)
    rig.controller.on_error(ErrorReply(t_ns=rig.now_ns, text="no camera 'top'", obs_seq=0), rig.now_ns)
    rig.mute = False
    log = rig.run(0.1)
    assert log.events[0].text == "the policy server refused observation 0: no camera 'top'"
    assert [observation.seq for observation in log.observations] == [0, 1]


def test_no_number_in_a_chunk_can_make_a_tick_raise() -> None:
    drawn = np.random.default_rng(0)

    def wild(_: Observation) -> F64:
        return drawn.normal(size=(4, 7)) * 10.0 ** drawn.uniform(-300, 300, size=(4, 7))

    for interpolation in ("linear", "cubic", "ruckig"):
        config = ControllerConfig.model_validate({"interpolation": interpolation, "execute_steps": 1})
        log = Rig(wild, config=config).run(2.0)
        positions = np.array([setpoint.joint_position for setpoint in log.setpoints])
        assert np.all(np.isfinite(positions))
        robot = panda()
        lower = np.array([joint.lower for joint in robot.joints])
        upper = np.array([joint.upper for joint in robot.joints])
        assert np.all((positions > lower) & (positions < upper))
        fastest = np.array([joint.velocity for joint in robot.joints])
        # A reseed after the perfect host... there is none: every step is within the joints' speed.
        assert np.all(np.abs(np.diff(positions, axis=0)) <= fastest * 0.01 * (1 + 1e-6))


# The host


def test_without_a_state_nothing_is_sent() -> None:
    controller = Controller(ControllerConfig(), panda(), tcp_delta_spec(4, STEP_S), ("front",), "virtual")
    tick = controller.tick(0)
    assert tick.status is TickStatus.WAITING
    assert tick.setpoint is None
    assert controller.observation(0) is None


def test_a_stopped_host_gets_its_own_command_back_and_the_plan_is_dropped() -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.3)
    rig.host.safety = "protective_stop"
    before = len(rig.log.observations)
    log = rig.run(1.0)
    assert log.statuses[-1] is TickStatus.STOPPED
    np.testing.assert_array_equal(log.setpoints[-1].joint_position, rig.host.joints)
    assert not log.setpoints[-1].joint_velocity.any()
    assert log.setpoints[-1].chunk_age_ns == -1
    assert len(log.observations) == before
    stood = log.path[-1]
    rig.host.safety = "active"
    log = rig.run(0.4 + 1e-9 * HOST_NS)
    # It goes on from where it stands, by a new chunk.
    assert (log.path[-1] - stood) @ ALONG == pytest.approx(0.04, abs=2e-4)


def test_a_host_that_is_held_back_is_not_run_away_from() -> None:
    rig = line_rig(16, 0.0, execute_steps=16)
    rig.run(0.2)
    rig.host.max_step = 1e-4
    log = rig.run(1.2)
    assert "reseed" in log.kinds()
    ahead = [np.abs(setpoint.joint_position - rig.host.joints).max() for setpoint in log.setpoints[-5:]]
    assert max(ahead) < 2 * ASTRAY_RAD


@pytest.mark.parametrize(
    ("joints", "text"),
    [(np.zeros(6), "shapes (6,), (7,); panda has 7 joints"), (np.full(7, np.nan), "that are not all finite")],
)
def test_a_state_of_another_arm_is_told_once_and_not_followed(joints: F64, text: str) -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.1)
    for _ in range(3):
        state = msgspec.structs.replace(rig.host.state(rig.now_ns), joint_position_commanded=joints)
        rig.controller.on_state(state)
    events = rig.controller.tick(rig.now_ns).events
    assert [event.kind for event in events] == ["state_rejected"]
    assert text in events[0].text


def test_a_target_out_of_reach_is_told_once_and_harms_nothing() -> None:
    rig = Rig(lambda _: moves(8, (0.08, 0.0, 0.0)), tcp_delta_spec(8, STEP_S))
    log = rig.run(4.0)
    assert TickStatus.IK_SINGULAR in log.statuses
    # Each chunk starts from what was reached, so each may be missed anew, and is told once.
    assert 1 <= log.kinds().count("ik_singular") <= len(log.observations)
    event = next(event for event in log.events if event.kind == "ik_singular")
    assert "the target is missed by" in event.text
    assert np.all(np.isfinite(log.setpoints[-1].joint_position))
    # It comes back as soon as it is asked to.
    rig.policy = lambda _: moves(8, (-0.02, 0.0, 0.0))
    log = rig.run(2.0)
    assert log.statuses[-1] is TickStatus.TRACKING


def test_reset_starts_over_but_setpoints_count_on() -> None:
    rig = line_rig(4, 0.0)
    rig.run(0.3)
    seq = rig.log.setpoints[-1].seq
    rig.controller.reset("something else", "s2")
    log = rig.run(0.2)
    assert log.setpoints[-1].seq > seq
    assert log.observations[-1].instruction == "something else"
    assert log.observations[-1].session == "s2"
    assert log.observations[-1].seq == 0


# When it looks


def test_a_new_chunk_is_asked_for_after_execute_steps() -> None:
    log = line_rig(8, 0.4, execute_steps=3).run(2.0)
    assert [observation.t_obs_ns // STEP_NS for observation in log.observations] == [0, 3, 6, 9, 12, 15, 18]


def test_only_one_request_is_open() -> None:
    log = line_rig(16, 2.5, execute_steps=0).run(2.0)
    asked = [observation.t_ns / STEP_NS for observation in log.observations]
    assert min(np.diff(asked)) >= 2.5
    # What it shows is the newest picture then, not the one after the last answer.
    assert all(0 <= o.t_ns - o.t_obs_ns < STEP_NS for o in log.observations)


def test_an_observation_waits_for_all_cameras_and_carries_the_state_of_its_oldest_picture() -> None:
    rig = Rig(lambda _: moves(4, LINE), cameras=("front", "wrist"))
    controller = rig.controller
    for t in range(0, 100_000_000, HOST_NS):
        controller.on_state(rig.host.tick(t, None))
    controller.on_frame(picture("front", 52_000_000))
    assert controller.observation(95_000_000) is None
    controller.on_frame(picture("elsewhere", 50_000_000))
    assert controller.observation(95_000_000) is None
    controller.on_frame(picture("wrist", 61_000_000))
    observation = controller.observation(95_000_000)
    assert observation is not None
    assert observation.t_obs_ns == 52_000_000
    assert observation.state.t_state_ns == 50_000_000
    assert set(observation.images) == {"front", "wrist"}


def test_the_deltas_start_from_what_was_commanded_when_the_picture_was_taken() -> None:
    log = line_rig(8, 0.4, execute_steps=2).run(1.0)
    for observation in log.observations:
        at = observation.t_obs_ns // HOST_NS
        np.testing.assert_array_equal(observation.state.pose_base_tcp_commanded, log.poses[at])


def test_a_policy_without_cameras_is_asked_each_step() -> None:
    rig = Rig(lambda _: moves(4, LINE), config=ControllerConfig(execute_steps=1), cameras=())
    log = rig.run(1.0)
    asked = [observation.t_obs_ns for observation in log.observations]
    assert asked == [k * STEP_NS for k in range(10)]
    assert all(observation.images == {} for observation in log.observations)


# Grippers and other action spaces


def test_the_grippers_step_is_kept_whatever_the_latency() -> None:
    def closing(_: Observation) -> F64:
        actions = moves(8, (0.0,))
        actions[3:, -1] = 0.0
        return actions

    config = ControllerConfig(execute_steps=8)
    for latency in (0, 40_000_000, 100_000_000):
        log = Rig(closing, tcp_delta_spec(8, STEP_S), latency, config).run(0.7)
        closed = [setpoint.t_due_ns for setpoint in log.setpoints if setpoint.gripper == 0.0]
        assert min(closed) == 3 * STEP_NS


def joint_spec(robot_joints: int) -> ActionSpec:
    dims = [
        ActionDim(name=f"q{i}", unit="rad", frame="joint", delta=False, lower=-3.2, upper=4.0)
        for i in range(robot_joints)
    ]
    gripper = ActionDim(name="gripper", unit="opening", frame="gripper", delta=False, lower=0, upper=1)
    return ActionSpec(id="joint-position", dims=(*dims, gripper), step_s=STEP_S, horizon=4)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "ruckig"])
def test_joint_positions_are_followed_as_they_are(interpolation: str) -> None:
    home = np.array(panda().home)

    def bend(observation: Observation) -> F64:
        start = observation.state.joint_position_commanded
        rows = [np.append(start + 0.02 * (k + 1), 1.0) for k in range(4)]
        return np.array(rows)

    config = ControllerConfig.model_validate({"interpolation": interpolation})
    rig = Rig(bend, joint_spec(7), 0, config)
    rig.run(0.4 + 1e-9 * HOST_NS)
    np.testing.assert_allclose(rig.host.joints, home + 0.08, atol=2e-3)


def test_an_action_space_that_does_not_fit_the_robot_is_refused() -> None:
    with pytest.raises(ControlError, match="7 joints in rad"):
        Controller(ControllerConfig(), panda(), joint_spec(6), (), "virtual")
