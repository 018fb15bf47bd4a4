"""The monitor's own line to the simulated arm: its sensors, and its stop input, past the robot host."""

from __future__ import annotations

from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ArmState, ArmStop, Measured
from reflexarc.wire.sockets import Push, Subscriber


class ArmStopLine:
    """A `StopLine` whose arm is `sim.arm_process`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._states: Subscriber[ArmState] = Subscriber(
            endpoints.arm_state, ArmState, name="the monitor's view of the arm"
        )
        self._push = Push(endpoints.arm_stop, name="stop input of the simulated arm")
        self._measured: Measured | None = None
        self._seq = 0

    def read(self) -> Measured | None:
        """The newest reading, None before the first."""
        state = self._states.latest()
        if state is not None:
            self._measured = Measured(
                t_ns=state.t_ns,
                joint_position=state.joint_position,
                joint_velocity=state.joint_velocity,
                joint_effort=state.joint_effort,
                wrench_tcp=state.wrench_tcp,
                gripper=state.gripper,
            )
        return self._measured

    def stop(self, reason: str) -> None:
        """Brake, and follow no command until released."""
        self._send(True, reason)

    def release(self) -> None:
        """Let the arm follow commands again; it stays braked until one comes that begins where it is."""
        self._send(False, "")

    def close(self) -> None:
        """Release the sockets; safe to call twice."""
        self._states.close()
        self._push.close()

    def _send(self, stop: bool, reason: str) -> None:
        self._seq += 1
        self._push.send(ArmStop(t_ns=monotonic_ns(), seq=self._seq, stop=stop, reason=reason))
