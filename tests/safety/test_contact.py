"""Contact: transient and sustained, which way leads out, what the payload and the motion themselves explain."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.configs.watch import Payload
from reflexarc.safety.contact import NOTHING_FELT, Contact
from reflexarc.safety.dynamics import Dynamics
from reflexarc.safety.states import latched_by
from reflexarc.sim.arm import load_arm_spec
from reflexarc.wire.messages import F64, Measured


def base_to_tool(bench: FilterBench, vector: tuple[float, float, float]) -> F64:
    """A vector of the base frame in the TCP's."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, bench.memory.view.pose[3:])
    turned: F64 = matrix.reshape(3, 3).T @ np.asarray(vector)
    return turned


def step_along(bench: FilterBench, direction: tuple[float, float, float], length: float) -> F64:
    """A joint position (n,) that moves the TCP by `length` m along `direction`."""
    move = np.asarray(direction) * length
    target: F64 = bench.memory.position + np.linalg.pinv(bench.memory.view.jacobian) @ move
    return target


def test_a_force_that_needs_no_giving_way_may_last(active: FilterBench, safety: SafetyConfig) -> None:
    active.wrench[2] = 0.99 * safety.contact.yield_share * safety.force_ceiling
    active.move(400)
    assert active.state == "active"


def test_a_force_just_below_the_ceiling_is_given_way_to_and_is_no_stop(
    active: FilterBench, safety: SafetyConfig
) -> None:
    active.wrench[2] = 0.99 * safety.force_ceiling
    active.move(400)
    assert active.state == "hold"
    active.wrench[2] = 0.0
    active.move(100)
    assert active.state == "active"


def test_a_force_for_too_long_stops(active: FilterBench, safety: SafetyConfig) -> None:
    active.wrench[2] = 1.2 * safety.force_ceiling
    for _ in range(15):
        active.tick(active.setpoint())
    assert active.state == "active", "standing still presses no more"
    for _ in range(20):
        active.tick(active.setpoint())
    assert active.state == "hold", "but it must have helped by now"
    for _ in range(round(2 * safety.contact.sustained_s * active.robot.tick_hz)):
        active.tick(active.setpoint())
    assert active.state == "protective_stop"
    assert "wrist force 24.0 above its ceiling 20 N for 0.5" in active.memory.reason
    assert "wrist_force" in active.rules


def test_a_blow_stops_after_so_many_readings(active: FilterBench, safety: SafetyConfig) -> None:
    active.wrench[0] = 2.1 * safety.force_ceiling
    for _ in range(safety.wrench_ticks - 1):
        active.tick(active.setpoint())
    active.wrench[0] = 0.0
    for _ in range(10):
        active.tick(active.setpoint())
    assert active.state == "active", "a spike of the sensor is no contact"
    active.wrench[0] = 2.1 * safety.force_ceiling
    for _ in range(safety.wrench_ticks + 1):
        active.tick(active.setpoint())
    assert active.state == "hold"
    assert active.memory.giving_way
    active.wrench[0] = 0.0
    active.tick(active.setpoint())
    assert active.state == "protective_stop"
    assert "by more than 2 times (wrist)" in active.memory.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_force_that_is_not_known_is_the_highest(value: float, active: FilterBench) -> None:
    active.wrench[4] = value
    active.idle(0.7, None)
    for _ in range(150):
        active.tick(active.setpoint())
    assert active.state == "protective_stop"


@pytest.mark.parametrize(("direction", "follows"), [((0, 0, -1.0), False), ((0, 0, 1.0), True)])
def test_only_motion_away_from_what_presses_is_followed(
    direction: tuple[float, float, float], follows: bool, active: FilterBench, safety: SafetyConfig
) -> None:
    """The table pushes the hand upwards."""
    active.wrench[:3] = base_to_tool(active, (0, 0, 1.5 * safety.force_ceiling))
    start = active.memory.view.point[2]
    for _ in range(19):
        active.tick(active.setpoint(step_along(active, direction, 0.01)))
    moved = (active.memory.view.point[2] - start) * direction[2]
    if follows:
        assert moved > 0.001
        assert active.state == "active"
    else:
        assert moved < 1e-4
        assert active.state == "hold"
        assert "wrist_force" in active.rules


def test_while_pressed_the_arm_gives_way_to_where_it_is(active: FilterBench, safety: SafetyConfig) -> None:
    """The command stands 5 mm inside the wall: holding that would keep the force."""
    stuck = active.memory.position.copy()
    stuck[3] += 0.02
    active.wrench[:3] = base_to_tool(active, (0, 0, 3 * safety.force_ceiling))
    for _ in range(60):
        measured = active.reading(stuck, 1.0)
        _, active.memory, _ = active.filter.filter(active.memory, measured, active.setpoint(), active.now_ns)
        active.now_ns += active.robot.tick_ns
    assert active.state == "hold"
    assert abs(active.memory.position[3] - stuck[3]) < 0.005


def push(bench: FilterBench, by: float, ticks: int) -> F64:
    """Somebody moves joint 1 by so many rad and lets go; where the arm then is, (n,) rad."""
    home = bench.memory.position.copy()
    place = home.copy()
    bench.wrench[:3] = base_to_tool(bench, (0, 17.0, 0))
    for tick in range(ticks):
        place[0] = home[0] + by * (tick + 1) / ticks
        asked = bench.setpoint(home - np.eye(7)[0] * 0.02)  # towards him
        measured = bench.reading(place, 1.0)
        _, bench.memory, _ = bench.filter.filter(bench.memory, measured, asked, bench.now_ns)
        bench.now_ns += bench.robot.tick_ns
    assert bench.state == "hold"
    bench.wrench[:] = 0
    return place


def test_an_arm_that_was_pushed_does_not_go_back_by_itself(active: FilterBench, safety: SafetyConfig) -> None:
    home = active.memory.position.copy()
    place = push(active, 0.9 * safety.start_mismatch_rad, 60)
    last = active.stamped(active.setpoint(home), seq=active.memory.last_seq)
    active.idle(0.05, last)
    np.testing.assert_allclose(active.memory.position, place, atol=1e-9)
    assert active.state == "hold"
    for _ in range(40):
        active.tick(active.setpoint(place - np.eye(7)[0] * 0.15))
    np.testing.assert_allclose(active.memory.position, place, atol=1e-9)
    for _ in range(40):
        active.tick(active.setpoint(place - np.eye(7)[0] * 0.01))
    assert active.state == "active", "whoever leads it began from where it is"
    assert active.memory.position[0] < place[0] - 0.005


def test_an_arm_that_was_pushed_far_waits_for_a_person(active: FilterBench, safety: SafetyConfig) -> None:
    place = push(active, 4 * safety.start_mismatch_rad, 200)
    for _ in range(100):
        active.tick(active.setpoint(place))
    assert active.state == "hold"
    assert "pushed far away" in active.memory.reason
    np.testing.assert_allclose(active.memory.position, place, atol=1e-9)
    assert active.request("enable")
    for _ in range(20):
        active.tick(active.setpoint(place - np.eye(7)[0] * 0.02))
    assert active.state == "active"
    assert active.memory.position[0] < place[0]


def test_an_arm_that_is_pushed_out_of_its_limits_stops_and_may_only_come_back(
    active: FilterBench, safety: SafetyConfig
) -> None:
    """Giving way has no limits; what it led to has."""
    pushed = active.memory.position.copy()
    pushed[0] += 1.2  # the TCP beside its workspace
    assert "workspace" in active.filter.outside(pushed)
    active.wrench[2] = 1.5 * safety.force_ceiling
    for _ in range(60):
        measured = active.reading(pushed, 1.0)
        _, active.memory, report = active.filter.filter(
            active.memory, measured, active.setpoint(), active.now_ns
        )
        active.reports.append(report)
        active.now_ns += active.robot.tick_ns
    assert active.state == "protective_stop"
    assert active.memory.reason.startswith("pushed out of the limits: workspace")
    stop = next(report for report in active.reports if report.state == "protective_stop")
    assert latched_by(stop) == "pushed_out"
    assert stop.interventions[-1].field == "wrist_force"
    active.wrench[:] = 0
    active.idle(0.1)
    assert active.request("reset")
    assert active.request("enable")
    assert active.state == "recovery"


def feel(contact: Contact, readings: list[Measured], jacobian: F64, quat: F64) -> list[float]:
    """Load after each reading."""
    touch, loads = NOTHING_FELT, []
    for reading in readings:
        touch = contact.feel(touch, reading, jacobian, quat)
        loads.append(touch.load)
    return loads


def swing(robot: RobotConfig, dynamics: Dynamics, excess: F64) -> list[Measured]:
    """Readings of a moving arm whose motors do what `dynamics` says, and `excess` (n,) N·m more."""
    readings = []
    home = np.array(robot.home)
    amplitude, rate = 0.2, 3.0
    for tick in range(300):
        t = tick * robot.tick_ns * 1e-9
        position = home + amplitude * (1 - np.cos(rate * t))
        velocity = np.full_like(home, amplitude * rate * np.sin(rate * t))
        acceleration = np.full_like(home, amplitude * rate**2 * np.cos(rate * t))
        effort = dynamics.effort(position, velocity, acceleration)
        readings.append(
            Measured(
                t_ns=tick * robot.tick_ns,
                joint_position=position,
                joint_velocity=velocity,
                joint_effort=effort + excess,
                wrench_tcp=dynamics.payload_wrench(),
                gripper=1.0,
            )
        )
    return readings


def test_motion_and_payload_are_no_contact(robot: RobotConfig, safety: SafetyConfig) -> None:
    payload = Payload(mass=2.0, center=(0.0, 0.01, 0.05), inertia=(0.004, 0.004, 0.002))
    readings = swing(robot, Dynamics(robot, payload), np.zeros(7))
    jacobian, quat = np.zeros((3, 7)), np.array([0.0, 1.0, 0.0, 0.0])
    told = safety.contact.model_copy(update={"payload": payload})
    knows = Contact(robot, safety.model_copy(update={"contact": told}))
    assert max(feel(knows, readings, jacobian, quat)[1:]) < 0.01
    ignorant = Contact(robot, safety)
    assert min(feel(ignorant, readings, jacobian, quat)[50:]) > 0.5


def test_a_torque_beyond_the_model_is_a_contact(robot: RobotConfig, safety: SafetyConfig) -> None:
    excess = np.zeros(7)
    excess[1] = -1.5 * safety.contact.joint_torque
    contact = Contact(robot, safety)
    touch = NOTHING_FELT
    for reading in swing(robot, Dynamics(robot, Payload()), excess):
        touch = contact.feel(touch, reading, np.zeros((3, 7)), np.array([1.0, 0, 0, 0]))
    assert (touch.rule, touch.field) == ("joint_torque", "joint2")
    assert touch.asked == pytest.approx(1.5 * safety.contact.joint_torque, rel=0.05)
    assert touch.push is not None
    assert touch.push[1] > 0, "motors pull down, so the contact pushes up"
    assert "joint torque" in contact.verdict(touch)


def test_the_payload_is_what_mujoco_s_own_sensor_feels(robot: RobotConfig) -> None:
    """Another way: MuJoCo's own force and torque sensors at the hand, with the load and without it."""
    payload = Payload(mass=1.5, center=(0.02, -0.01, 0.06), inertia=(0.003, 0.002, 0.002))
    home = np.array(robot.home)
    velocity, acceleration = np.full(7, 0.8), np.linspace(-3, 3, 7)
    felt = []
    for loaded in (True, False):
        spec = load_arm_spec(robot)
        if loaded:
            site = next(site for site in spec.sites if site.name == robot.tcp_site)
            body = site.parent.add_body(pos=site.pos, quat=site.quat)
            body.mass, body.ipos, body.inertia = payload.mass, payload.center, payload.inertia
            body.explicitinertial = True
        model = spec.compile()
        data = mujoco.MjData(model)
        joints = [model.joint(name) for name in robot.joint_names]
        for k, joint in enumerate(joints):
            data.qpos[joint.qposadr[0]], data.qvel[joint.dofadr[0]] = home[k], velocity[k]
            data.qacc[joint.dofadr[0]] = acceleration[k]
        mujoco.mj_inverse(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        mujoco.mj_sensorAcc(model, data)
        felt.append((data.sensor("wrist_force").data.copy(), data.sensor("wrist_torque").data.copy()))
        to_tcp = data.site(robot.tcp_site).xmat.reshape(3, 3).T @ data.site("wrist_ft").xmat.reshape(3, 3)
        lever = data.site("wrist_ft").xmat.reshape(3, 3).T @ (
            data.site("wrist_ft").xpos - data.site(robot.tcp_site).xpos
        )
    # The sensor feels what the arm exerts on the hand; the payload pulls the other way.
    force = -(felt[0][0] - felt[1][0])
    torque = -(felt[0][1] - felt[1][1]) + np.cross(lever, force)
    dynamics = Dynamics(robot, payload)
    dynamics.effort(home, velocity, acceleration)
    expected = np.concatenate([to_tcp @ force, to_tcp @ torque])
    np.testing.assert_allclose(dynamics.payload_wrench(), expected, atol=1e-6)


def test_an_enable_tells_of_a_weight_that_nobody_named(bench: FilterBench) -> None:
    bench.wrench[2] = 9.81
    bench.tick()
    bench.memory, granted, text = bench.filter.request(bench.memory, "enable", bench.now_ns)
    assert granted
    assert "9.8 N at the wrist beside the payload of 0 kg" in text
