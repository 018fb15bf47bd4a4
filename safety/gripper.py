"""How hard the fingers may squeeze: a gripper that is commanded by opening is a spring between command and fingers.

Its force is the stiffness times how much further it was told to close than it has. So the opening that is commanded is
kept near enough to the measured one.
"""

from __future__ import annotations

from reflexarc.configs.robot import GripperConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.wire.messages import Intervention


def least_opening(gripper: GripperConfig, safety: SafetyConfig, measured: float) -> float:
    """The smallest opening 0..1 that may be commanded while the fingers stand at `measured`."""
    contact = safety.contact
    if contact.gripper_force is None or contact.gripper_stiffness is None:
        return 0.0
    force = min(contact.gripper_force, gripper.max_force)
    return max(0.0, measured - force / contact.gripper_stiffness)


def squeezed(asked: float, allowed: float) -> Intervention:
    """The report of an opening that was kept from `asked`, for that force."""
    return Intervention(rule="gripper_force", field="gripper", asked=asked, allowed=allowed, margin=0.0)
