"""What the arm may carry: a load beyond what its maker publishes is refused before anything moves.

Limits of acceleration and torque are published for an arm that carries no more than that.
"""

from __future__ import annotations

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig


def check_payload(robot: RobotConfig, safety: SafetyConfig) -> None:
    """Raises SafetyError if the configured payload is too heavy and `beyond_published` does not name `payload`."""
    mass, limit = safety.contact.payload.mass, robot.payload
    if limit is not None and mass > limit.mass and "payload" not in safety.beyond_published:
        raise SafetyError(
            f"contact.payload.mass is {mass} kg: beyond {limit.mass} kg, what {robot.name} may carry beside its hand; "
            f"carry less, or name payload in beyond_published if that is meant"
        )
