"""What safety watches beside the commanded motion: contact, the payload, and whether what it is told can be true."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reflexarc.configs.base import Config


class Payload(Config):
    """What the hand holds or wears beyond the robot's own model: its weight and inertia are no contact.

    mass: kg. center: of mass, m, in the TCP frame. inertia: kg·m² about the centre, along the axes of the TCP frame.
    """

    mass: float = Field(default=0.0, ge=0)
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inertia: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @model_validator(mode="after")
    def _a_body_can_have_it(self) -> Payload:
        a, b, c = sorted(self.inertia)
        if a < 0 or a + b < c:
            raise ValueError(
                f"payload inertia {self.inertia} kg·m² belongs to no body: one is above the sum of the others"
            )
        if self.mass == 0 and c > 0:
            raise ValueError(f"payload inertia {self.inertia} kg·m² without a mass")
        return self


class ContactConfig(Config):
    """Beside `force_ceiling` and `torque_ceiling` of the wrist, which may be exceeded for less than `sustained_s` only.

    yield_share: of a ceiling, from which the arm gives way: it takes a moment until that tells. transient_factor: so
    many times a ceiling is a stop at once; 2, and 0.5 s, are how ISO/TS 15066 (annex A, table A.2) tells transient from
    quasi-static contact. joint_torque: N·m that a joint's motor may differ from the model; 20 is the collision
    threshold of the maker's own examples (libfranka, examples/examples_common.cpp). joint_filter_s: time constant of
    that difference, s. gripper_force: N that the fingers may squeeze with, None for what the gripper can do;
    gripper_stiffness: N for each whole opening (1) that it was told to close further than it has. payload_tolerance: N
    that the weight felt at rest may differ from the payload's without a note.
    """

    yield_share: float = Field(default=0.75, gt=0, le=1)
    transient_factor: float = Field(default=2.0, ge=1)
    sustained_s: float = Field(default=0.5, gt=0)
    joint_torque: float = Field(default=20.0, gt=0)
    joint_filter_s: float = Field(default=0.02, gt=0)
    gripper_force: float | None = Field(default=None, gt=0)
    gripper_stiffness: float | None = Field(default=None, gt=0)
    payload: Payload = Payload()
    payload_tolerance: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _a_force_can_be_kept(self) -> ContactConfig:
        if self.gripper_force is not None and self.gripper_stiffness is None:
            raise ValueError(
                f"gripper_force {self.gripper_force} N needs gripper_stiffness (N for a whole opening): fingers are "
                f"told an opening, and by it alone that becomes a force"
            )
        return self


class IntegrityConfig(Config):
    """Whether readings and time can be true.

    encoder_noise_rad: a joint that changes by less has not moved. encoder_motion_rad: a joint that was commanded so
    far while its encoder did not move is frozen, or stuck. overrun_ticks: so many late ticks of the host in a row are a
    stop. clock_jump_s: a tick so long after the one before is a stop: the clock was set, or the host stood still.
    monitor_silence_s, monitor_loss: how long the independent monitor may be silent, and what happens then.
    """

    encoder_noise_rad: float = Field(default=1e-5, gt=0)
    encoder_motion_rad: float = Field(default=0.03, gt=0)
    overrun_ticks: int = Field(default=20, ge=1)
    clock_jump_s: float = Field(default=0.5, gt=0)
    monitor_silence_s: float = Field(default=0.5, gt=0)
    monitor_loss: Literal["ignore", "hold", "stop"] = "stop"


class EStopConfig(Config):
    """Emergency stop inputs of the host, beside its console.

    files: whose content must be `closed`, as `value` of a GPIO line. heartbeat: name of another process that has the
    button and sends heartbeats to the endpoint `estop` while it is not pressed; silent for heartbeat_s, or never heard,
    is a stop.
    """

    files: tuple[str, ...] = ()
    closed: str = "1"
    heartbeat: str = ""
    heartbeat_s: float = Field(default=0.1, gt=0)
