"""What a controller tells a policy that the arm goes on with is what the arm then does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.controller_bench import CONTROL_NS, HOST_NS, STEP_NS, STEP_S, Drive, Rig, moves
from reflexarc.configs.action import ActionDim, ActionSpec, tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.controllers.chunk import Anchor, Space, compose, decompose
from reflexarc.wire import geometry
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.messages import F64, Observation

HORIZON = 8


def rig(latency_steps: float, *, told: bool, swerve: float = 0.0, seam: str = "switch") -> Rig:
    """A policy that changes its mind: chunks lead to one side and to the other in turn, `swerve` m a step.

    Told what the arm goes on with, it begins with that. Paths are switched, so that nothing else hides a seam.
    """
    spec = tcp_delta_spec(HORIZON, STEP_S)

    def policy(observation: Observation) -> F64:
        side = swerve * (-1) ** observation.seq
        actions = moves(HORIZON, (0.008, side, 0.0))
        if observation.committed is not None:
            actions[: observation.frozen_steps] = observation.committed[: observation.frozen_steps]
        return actions

    config = ControllerConfig.model_validate({"real_time_chunking": told, "execute_steps": 3, "seam": seam})
    return Rig(policy, spec, round(latency_steps * STEP_NS), config)


def spec_of(space: Space, *, delta: bool) -> ActionSpec:
    if space == "tcp":
        whole = tcp_delta_spec(4, STEP_S)
        dims = tuple(dim.model_copy(update={"delta": delta and dim.unit != "opening"}) for dim in whole.dims)
        return whole.model_copy(update={"dims": dims})
    joints = [
        ActionDim(name=f"q{k}", unit="rad", frame="joint", delta=delta, lower=-3, upper=3) for k in range(5)
    ]
    return ActionSpec(
        id="joints", dims=(*joints, tcp_delta_spec(4, STEP_S).dims[-1]), step_s=STEP_S, horizon=4
    )


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("space", ["tcp", "joint"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_decomposing_is_composing_backwards(space: Space, delta: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    spec = spec_of(space, delta=delta)
    actions = np.hstack([generator.uniform(-0.4, 0.4, (4, spec.size - 1)), generator.uniform(0, 1, (4, 1))])
    quat = geometry.exp(generator.uniform(-1, 1, 3)) if space == "tcp" else geometry.identity_pose()[3:]
    point = generator.uniform(-1, 1, 3 if space == "tcp" else 5)
    anchor = Anchor(0, point, quat, np.zeros_like(point), np.zeros(3))
    knots = compose(actions, spec, space, anchor, 0)
    np.testing.assert_allclose(
        decompose(knots.points, knots.quats, actions[:, -1], spec, space), actions, atol=1e-9
    )


@pytest.mark.parametrize(("seam", "within_m"), [("switch", 5e-4), ("jerk_limited", 3e-3)])
@pytest.mark.parametrize("latency_steps", [0.3, 1.0, 2.4])
def test_what_is_told_as_committed_is_what_the_arm_does(
    latency_steps: float, seam: str, within_m: float
) -> None:
    """Jerk-limited joints lag a little behind the path that they are told of."""
    log = rig(latency_steps, told=True, swerve=0.003, seam=seam).run(2.0)
    told = [each for each in log.observations if each.committed is not None]
    assert len(told) >= 3
    for observation in told[1:]:  # the first answer's time was not known when it was asked for
        assert observation.committed is not None
        begun = observation.frozen_steps
        assert begun == np.ceil(latency_steps)
        expected = observation.state.pose_base_tcp_commanded[:3] + np.cumsum(
            observation.committed[:begun, :3], axis=0
        )
        for step in range(begun):
            due = observation.t_obs_ns + (step + 1) * STEP_NS
            if due + HOST_NS < log.times[-1]:
                np.testing.assert_allclose(place(log, due), expected[step], atol=within_m)


def place(log: Drive, t_ns: int) -> F64:
    """Where the tool was commanded to be at `t_ns`; setpoints are due one control period after they are made."""
    return log.path[np.searchsorted(log.times, t_ns)]


def jolt(log: Drive) -> float:
    """The largest change of the tool's velocity from one control period to the next, m/s."""
    velocity = np.diff(log.path[:: CONTROL_NS // HOST_NS], axis=0) / (CONTROL_NS * 1e-9)
    return float(np.max(np.linalg.norm(np.diff(velocity, axis=0), axis=1)[20:]))


def test_a_policy_that_goes_on_from_what_is_committed_jumps_less() -> None:
    def drive(*, told: bool) -> float:
        return jolt(rig(1.0, told=told, swerve=0.006).run(2.0))

    assert drive(told=True) < 0.5 * drive(told=False)


def test_nothing_is_told_unless_it_is_asked_for() -> None:
    log = rig(1.0, told=False).run(1.0)
    assert len(log.observations) > 2
    assert all(each.committed is None and each.frozen_steps == 0 for each in log.observations)


def test_the_first_observation_has_nothing_committed() -> None:
    assert rig(1.0, told=True).run(0.1).observations[0].committed is None


def test_more_than_is_left_cannot_be_frozen() -> None:
    log = rig(7.0, told=True).run(4.0)
    for each in log.observations:
        assert each.committed is None or each.frozen_steps <= len(each.committed) <= HORIZON


def test_it_survives_the_wire() -> None:
    observation = rig(1.0, told=True).run(1.0).observations[-1]
    again = decode(encode(observation))
    assert isinstance(again, Observation)
    assert observation.committed is not None
    assert again.committed is not None
    np.testing.assert_array_equal(again.committed, observation.committed)
    assert again.frozen_steps == observation.frozen_steps
