"""The scripted expert as a person would do it: with a teleoperation device, by rates, at the tempo of its inputs."""

from __future__ import annotations

from collections.abc import Callable

from reflexarc.configs.errors import RobotError
from reflexarc.sim.experts.base import STEP_S, Expert
from reflexarc.wire.contracts import TeleopInput
from reflexarc.wire.messages import Observation, State, TeleopKey


class ExpertByHand:
    """A `Teleoperator` whose hand is an expert's."""

    def __init__(self, expert: Expert, state: Callable[[], State | None]) -> None:
        """state: the robot host's latest, None before the first."""
        self._expert = expert
        self._state = state
        self._connected = False
        self.resting = False
        """Whether it has let go of the device."""

    def connect(self) -> None:
        """There is nothing to open."""
        self._connected = True

    def read(self) -> TeleopInput | None:
        """The first step of what the expert would do now, as a twist."""
        if not self._connected:
            raise RobotError("the scripted hand is not connected")
        state = self._state()
        if state is None or self.resting:
            return None
        observation = Observation(
            t_ns=state.t_ns,
            clock=state.clock,
            seq=0,
            t_obs_ns=state.t_state_ns,
            state=state,
            images={},
            instruction="",
        )
        action = self._expert.act(observation).actions[0]
        return TeleopInput(action[:6] / STEP_S, float(action[6]))

    def keys(self) -> tuple[TeleopKey, ...]:
        """None: who runs the script judges its episodes."""
        return ()

    def close(self) -> None:
        """There is nothing to release."""
        self._connected = False
