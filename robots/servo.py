"""The servo law of an arm that is commanded by position: what is written to its position servo.

The servo's torque is `kp (control - q) - kv qdot`. With `control = q_cmd + (kv / kp) v_cmd` that is
`kp (q_cmd - q) + kv (v_cmd - qdot)`: damping acts on the error alone, and steady motion is followed without lag.
"""

from __future__ import annotations

import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64, JointCommand


def position_servo_control(command: JointCommand, config: RobotConfig) -> F64:
    """The (n,) position servo inputs, rad, for a filtered command."""
    stiffness = np.asarray(config.servo.stiffness, dtype=np.float64)
    damping = np.asarray(config.servo.damping, dtype=np.float64)
    control: F64 = command.joint_position + damping / stiffness * command.joint_velocity
    return control
