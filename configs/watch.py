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
    malformed_setpoints: so many different ones in a row are a stop: their sender is broken. ahead_s: a setpoint that is
    stamped so far ahead of the host's clock is of another clock. tracking_rad: a joint that is so far from where it was
    commanded to be, with nothing that presses, is a stop. resume_rad: a joint that stands further than this from its
    command is told to stand where it does, once somebody resets.
    monitor_silence_s, monitor_loss: how long the independent monitor may be silent, and what happens then.
    """

    encoder_noise_rad: float = Field(default=1e-5, gt=0)
    encoder_motion_rad: float = Field(default=0.03, gt=0)
    overrun_ticks: int = Field(default=20, ge=1)
    clock_jump_s: float = Field(default=0.5, gt=0)
    malformed_setpoints: int = Field(default=3, ge=1, le=100)
    ahead_s: float = Field(default=0.05, gt=0, le=1)
    tracking_rad: float = Field(default=0.2, gt=0, le=1)
    resume_rad: float = Field(default=0.01, gt=0, le=0.1)
    monitor_silence_s: float = Field(default=0.5, gt=0)
    monitor_loss: Literal["ignore", "hold", "stop"] = "stop"

    @model_validator(mode="after")
    def _motion_is_no_noise(self) -> IntegrityConfig:
        if not self.encoder_noise_rad < self.encoder_motion_rad:
            raise ValueError(
                f"encoder_noise_rad {self.encoder_noise_rad} rad must be below encoder_motion_rad "
                f"{self.encoder_motion_rad} rad"
            )
        return self


class MonitorConfig(Config):
    """What the independent monitor lets pass before it stops the arm, past the host.

    It judges what is measured, so each tolerance is what a servo may be off, and no more. joint_tolerance: rad beyond a
    joint's published range. place_tolerance: m that any part may be beyond the boxes, keep-outs and distances of the
    limits. speed_factor: of a limit of speed, and speed_tolerance m/s beside it. force_factor: of the transient ceiling
    of the wrist: the filter stops at one. readings: in a row that must be beyond; a spike of a sensor is no motion.
    still: rad/s, an arm whose fastest joint is slower stands. settle_s: an arm stands so long after the host says that
    it stopped. host_silence_s: a host that says nothing for so long has died. blind_s: a monitor that has had no new
    reading of the arm for so long is blind, and falls silent.
    """

    joint_tolerance: float = Field(default=0.02, gt=0, le=0.2)
    place_tolerance: float = Field(default=0.01, gt=0, le=0.1)
    speed_factor: float = Field(default=1.1, ge=1, le=2)
    speed_tolerance: float = Field(default=0.05, gt=0, le=0.5)
    force_factor: float = Field(default=3.0, ge=1)
    readings: int = Field(default=4, ge=1, le=100)
    still: float = Field(default=0.05, gt=0, le=0.5)
    settle_s: float = Field(default=1.0, gt=0)
    host_silence_s: float = Field(default=0.25, gt=0)
    blind_s: float = Field(default=0.1, gt=0)


class CameraWatchConfig(Config):
    """When a camera has stalled; judged by the controller, before a policy is shown a picture.

    silence_s: without a new picture for so long; by default ten pictures missed at 10 Hz. moved_rad: the same picture
    while a joint moved by so much; by default more than a camera that sees the arm could miss.
    """

    silence_s: float = Field(default=1.0, gt=0)
    moved_rad: float = Field(default=0.1, gt=0, le=1)


class EStopConfig(Config):
    """Emergency stop inputs of the host, beside its console.

    files: whose content must be `closed`, as `value` of a GPIO line; looked at every file_period_s, and one that has
    not answered for file_silence_s, as on a disk or network that hangs, is a stop. heartbeat: name of another process
    that has the button and sends heartbeats to the endpoint `estop` while it is not pressed; silent for heartbeat_s, or
    never heard, is a stop.
    """

    files: tuple[str, ...] = ()
    closed: str = "1"
    file_period_s: float = Field(default=0.005, gt=0)
    file_silence_s: float = Field(default=0.1, gt=0)
    heartbeat: str = ""
    heartbeat_s: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _looks_often_enough(self) -> EStopConfig:
        if self.file_period_s > self.file_silence_s / 2:
            raise ValueError(
                f"file_period_s {self.file_period_s} s must be at most half of file_silence_s {self.file_silence_s} s"
            )
        return self
