"""Where the tool centre point is and how joints move it, for servo laws that act at the TCP."""

from __future__ import annotations

from reflexarc.configs.robot import RobotConfig
from reflexarc.safety.clearance import scratch
from reflexarc.safety.kinematics import Kinematics
from reflexarc.wire.chain import jacobian, place
from reflexarc.wire.messages import F64


class Tcp:
    """The TCP of one robot; holds scratch memory, so one instance serves one thread."""

    def __init__(self, robot: RobotConfig) -> None:
        self._kinematics = Kinematics(robot)
        self._scratch = scratch(len(robot.joints), 0)

    def at(self, position: F64) -> tuple[F64, F64]:
        """Pose (7,) and Jacobian (6, n), m/rad and rad/rad, in the base frame at joint position (n,) rad."""
        at = self._scratch
        place(self._kinematics.chain, position, at.origin, at.turn)
        jacobian(at.origin, at.turn, at.jacobian)
        return self._kinematics.pose(position), at.jacobian.copy()
