"""Schema of a robot: its joints with their published limits (each with its source), its TCP, its rates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reflexarc.configs.base import Config


class VelocityNearLimits(Config):
    """How a joint's velocity limit shrinks near its position limits, as the Franka Research 3's does.

    Upwards, at position q: `max(0, sqrt(max(0, slope·(upper - q))) - offset)` rad/s; downwards likewise from
    `lower`. slope: rad/s², twice the deceleration that it leaves. upper, lower: rad. offset: rad/s.
    """

    offset: float = Field(ge=0)
    slope: float = Field(gt=0)
    upper: float
    lower: float


class JointLimits(Config):
    """Published limits of one joint. rad, rad/s, rad/s², rad/s³, N·m, N·m/s; `source`: where the numbers are from."""

    name: str
    lower: float
    upper: float
    velocity: float = Field(gt=0)
    acceleration: float = Field(gt=0)
    jerk: float = Field(gt=0)
    effort: float = Field(gt=0)
    effort_rate: float = Field(gt=0)
    source: str = Field(min_length=8)
    velocity_near_limits: VelocityNearLimits | None = None

    @model_validator(mode="after")
    def _ordered(self) -> JointLimits:
        if not self.lower < self.upper:
            raise ValueError(
                f"joint {self.name}: lower {self.lower} rad must be below upper {self.upper} rad"
            )
        return self


class CartesianLimits(Config):
    """Published limits of the TCP: m/s, m/s², m/s³; rad/s, rad/s², rad/s³."""

    speed: float = Field(gt=0)
    acceleration: float = Field(gt=0)
    jerk: float = Field(gt=0)
    angular_speed: float = Field(gt=0)
    angular_acceleration: float = Field(gt=0)
    angular_jerk: float = Field(gt=0)
    source: str = Field(min_length=8)


class GripperConfig(Config):
    """A parallel gripper. max_width: m between the fingers at opening 1. speed: opening per second."""

    max_width: float = Field(gt=0)
    speed: float = Field(gt=0)
    max_force: float = Field(gt=0)
    source: str = Field(min_length=8)


class PayloadLimit(Config):
    """mass: kg, the most that the arm may carry beyond the hand of its own model."""

    mass: float = Field(gt=0)
    source: str = Field(min_length=8)


ServoMode = Literal["position", "velocity", "joint_impedance", "cartesian_impedance"]


class ImpedanceConfig(Config):
    """Springs of the torque modes. joint_stiffness N·m/rad, joint_damping N·m·s/rad: (n,), also of the null space.

    stiffness: of the TCP, N/m and N·m/rad; damping: N·s/m and N·m·s/rad. posture_share: of the joint springs that
    hold the commanded posture in the null space of the TCP.
    """

    joint_stiffness: tuple[float, ...]
    joint_damping: tuple[float, ...]
    stiffness: tuple[float, float] = (1500.0, 100.0)
    damping: tuple[float, float] = (80.0, 8.0)
    posture_share: float = Field(default=0.1, ge=0, le=1)
    source: str = Field(min_length=8)


class ServoConfig(Config):
    """How a filtered command becomes motion.

    mode: what the arm is sent. `position`: to the arm's own position servo, torque = stiffness·(q_cmd - q) +
    damping·(v_cmd - v), N·m/rad and N·m·s/rad. `velocity`: to its velocity servo, v_cmd + velocity_gain·(q_cmd - q),
    1/s. The impedance modes send torque, which needs `impedance`: a spring and a damper from the command to the
    joints, or to the TCP, on top of the arm's own weight and Coriolis forces by its model.
    """

    stiffness: tuple[float, ...]
    damping: tuple[float, ...]
    mode: ServoMode = "position"
    velocity_gain: float = Field(default=20.0, gt=0)
    impedance: ImpedanceConfig | None = None

    @property
    def torque(self) -> bool:
        """Whether the arm is sent torque."""
        return self.mode in ("joint_impedance", "cartesian_impedance")

    @model_validator(mode="after")
    def _has_impedance(self) -> ServoConfig:
        if self.torque and self.impedance is None:
            raise ValueError(f"mode {self.mode!r} needs servo.impedance: the springs of the torque modes")
        return self


class CameraCalibration(Config):
    """How a camera sees and where it is, as somebody measured it; on record in every episode.

    width, height: of the pictures it holds for, pixels. fx, fy, cx, cy: pixels; distortion: k1 k2 p1 p2 k3 (Brown's
    model, in OpenCV's order). mount: what it is fixed to, the robot's base or its TCP; position: (3,) m and quaternion:
    (4,) wxyz of the camera (x right, y up, looking along -z) in that frame. source: how it was measured, and when.
    """

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    mount: Literal["base", "tcp"]
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    source: str = Field(min_length=8)

    @model_validator(mode="after")
    def _turns(self) -> CameraCalibration:
        length = sum(value * value for value in self.quaternion) ** 0.5
        if abs(length - 1.0) > 1e-3:
            raise ValueError(f"quaternion has length {length:.4g}; it must be 1")
        return self


class RobotConfig(Config):
    """Everything about one robot that is not a choice of the user.

    mjcf: path of the arm's MJCF, relative to the `configs` package or absolute. tcp_site, joints: names in it.
    home: joint position the arm starts and returns to, rad. tick_hz: rate of the host. cpus: processors that the host's
    loop may use; all if empty. stop_category: IEC 60204-1
    category used for a protective stop; 2 (stopped, powered) for arms that would fall without power.
    cartesian: what the maker publishes for the TCP, if anything; payload: the same for what it may carry.
    cameras: calibration by name of the camera, of those that were calibrated; a simulated one stands in the model.
    """

    name: str
    mjcf: str
    base_body: str
    tcp_site: str
    joints: tuple[JointLimits, ...] = Field(min_length=1)
    gripper: GripperConfig
    servo: ServoConfig
    home: tuple[float, ...]
    tick_hz: float = Field(gt=0, le=1000)
    cpus: tuple[int, ...] = ()
    stop_category: Literal[0, 1, 2] = 2
    cartesian: CartesianLimits | None = None
    payload: PayloadLimit | None = None
    cameras: dict[str, CameraCalibration] = {}

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the n joints, in the order of every array."""
        return tuple(joint.name for joint in self.joints)

    @property
    def tick_ns(self) -> int:
        """The host's period in nanoseconds."""
        return round(1e9 / self.tick_hz)

    @model_validator(mode="after")
    def _home_is_legal(self) -> RobotConfig:
        n = len(self.joints)
        for label, values in (
            ("home", self.home),
            ("servo.stiffness", self.servo.stiffness),
            ("servo.damping", self.servo.damping),
            *(
                (f"servo.impedance.{name}", getattr(self.servo.impedance, name))
                for name in ("joint_stiffness", "joint_damping")
                if self.servo.impedance is not None
            ),
        ):
            if len(values) != n:
                raise ValueError(f"{label} has {len(values)} values for {n} joints")
        for joint, position in zip(self.joints, self.home, strict=True):
            if not joint.lower < position < joint.upper:
                raise ValueError(
                    f"home of {joint.name} is {position} rad, outside [{joint.lower}, {joint.upper}]"
                )
        return self
