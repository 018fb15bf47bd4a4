"""Everything that crosses a process boundary, as frozen structs.

All arrays are NumPy, SI units and radians; poses are `[x y z qw qx qy qz]` (7,) float64, metres and unit
quaternion (w first), expressed in the robot's base frame. Every message says when it was made (`t_ns`) and
by which clock (`clock`: `"monotonic"` for the host's monotonic clock, `"virtual"` for simulated time).
A gripper value is the opening in [0, 1]: 0 closed, 1 open. This file knows nothing of sockets.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

WIRE_VERSION = 1

F64 = NDArray[np.float64]

SafetyState = Literal["off", "ready", "active", "reduced", "hold", "protective_stop", "e_stop", "recovery"]
"""`active` is the design's `active(normal)`, `reduced` its `active(reduced)`."""

ImageEncoding = Literal["raw", "jpeg", "png"]
SetpointSource = Literal["policy", "teleop", "expert", "perturb", "replay", "hold", "home"]
TeleopKind = Literal["twist", "offset", "joint_offset"]
TeleopKey = Literal["start", "success", "fail", "redo", "delete", "give_back", "quit"]
PolicyAction = Literal["status", "swap", "drain"]
HostAction = Literal["enable", "disable", "reduce", "reset", "hold", "e_stop", "status", "speed", "shutdown"]
SPEED_EVENT = "speed_scale"
"""Kind of the robot host's event that sets the controller's pace, `data["scale"]`: a person asked for it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", eq=False):
    """What every message carries.

    t_ns: when it was made, in nanoseconds of `clock`.
    """

    t_ns: int
    clock: str = "monotonic"
    version: int = WIRE_VERSION


class State(Message, frozen=True, kw_only=True, tag="state", eq=False):
    """What the robot host publishes at every tick.

    joint_position, joint_velocity: (n,) measured, rad and rad/s. joint_effort: (n,) N·m.
    joint_position_commanded, joint_velocity_commanded: (n,) what safety let through for this tick.
    pose_base_tcp: (7,) measured. pose_base_tcp_commanded: (7,) forward kinematics of the commanded position.
    wrench_tcp: (6,) force N and torque N·m on the tool in the TCP frame, gravity removed.
    """

    seq: int
    t_state_ns: int
    joint_position: F64
    joint_velocity: F64
    joint_effort: F64
    joint_position_commanded: F64
    joint_velocity_commanded: F64
    pose_base_tcp: F64
    pose_base_tcp_commanded: F64
    wrench_tcp: F64
    gripper: float
    gripper_commanded: float
    safety: SafetyState
    chunk_age_ns: int = -1


class CameraFrame(Message, frozen=True, kw_only=True, tag="camera_frame", eq=False):
    """One image. Decoded shape (height, width, 3) uint8 RGB; `t_capture_ns` is when the shutter closed."""

    camera: str
    seq: int
    t_capture_ns: int
    height: int
    width: int
    encoding: ImageEncoding
    data: bytes


class Observation(Message, frozen=True, kw_only=True, tag="observation", eq=False):
    """What a policy sees.

    `t_obs_ns` is the capture time of the oldest image; `state` is the latest state at or before it, so
    `state.pose_base_tcp_commanded` is the TCP target that was commanded when the picture was taken.

    committed: (K, D) float64, what the arm goes on with from `t_obs_ns` as actions of the policy's spec, one a step,
    until an answer arrives; None where the controller does not ask for chunks that go on from it. frozen_steps: how
    many of them are expected to have begun by then: these are what executes, whatever the answer says.

    latent: (Z,) float64, the latest that a slow planner said in numbers, of this observation or of one before; None
    where nothing was said so.
    """

    seq: int
    t_obs_ns: int
    state: State
    images: dict[str, CameraFrame]
    instruction: str
    session: str = ""
    committed: F64 | None = None
    frozen_steps: int = 0
    latent: F64 | None = None


class ActionChunk(Message, frozen=True, kw_only=True, tag="action_chunk", eq=False):
    """A policy's answer to one observation.

    actions: (H, D) float64, decoded, in the units of the spec; these are what executes.
    bins: (H, D) int16, for log and view; -1 where a head has none. policy_tokens: see `PolicyInfo.tokens`.
    step_ns: duration of one action. latency_ns: nanoseconds by stage.
    """

    obs_seq: int
    t_obs_ns: int
    actions: F64
    bins: NDArray[np.int16]
    policy_tokens: list[int]
    tokenizer_id: str
    step_ns: int
    spec_id: str
    model_id: str
    source: SetpointSource = "policy"
    latency_ns: dict[str, int] = {}
    session: str = ""


class Setpoint(Message, frozen=True, kw_only=True, tag="setpoint", eq=False):
    """What a controller asks of the robot host: never torque.

    joint_position (n,) rad and joint_velocity (n,) rad/s are due at `t_due_ns`.
    gripper: opening 0..1. chunk_obs_seq, chunk_age_ns: which observation this motion answers and how old that
    observation is at `t_ns` (-1: none).
    """

    seq: int
    t_due_ns: int
    joint_position: F64
    joint_velocity: F64
    gripper: float
    source: SetpointSource
    chunk_obs_seq: int = -1
    chunk_age_ns: int = -1


class TeleopCommand(Message, frozen=True, kw_only=True, tag="teleop_command", eq=False):
    """What a person asks of the controller, several times a second for as long as the device is there.

    engaged: the dead-man is held; otherwise the arm is to stand still and `motion` counts for nothing.
    motion: by `kind`, base frame: "twist" (6,) m/s and rad/s; "offset" (6,) m and rotation vector, where the device is
    from an origin of its own, of which only the changes since it was engaged count; "joint_offset" (n,) rad, the same
    for the robot's joints.
    gripper: opening 0..1, None to leave it as it is. keys: episode keys that were pressed since the last command.
    """

    seq: int
    device: str
    engaged: bool
    kind: TeleopKind
    motion: F64
    gripper: float | None = None
    keys: list[TeleopKey] = []


class Intervention(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that safety changed: the rule, where, what was asked, what was allowed, the margin left.

    asked, allowed, margin are in the unit of the rule (rad, rad/s, rad/s², m, m/s, N, ns).
    """

    rule: str
    field: str
    asked: float
    allowed: float
    margin: float


class SafetyReport(Message, frozen=True, kw_only=True, tag="safety_report", eq=False):
    """What the safety filter did at one host tick; published when it did anything or changed state.

    speed_scale: how much of the motion that was asked for was allowed, along its own direction: 1 all of it, 0 none.
    A controller slows its time by it instead of running ahead of an arm that is being limited.
    """

    seq: int
    state: SafetyState
    previous_state: SafetyState
    interventions: list[Intervention]
    reason: str = ""
    speed_scale: float = 1.0


class Event(Message, frozen=True, kw_only=True, tag="event", eq=False):
    """Something that happened once: episode start/stop, success, e-stop, reset, underrun, peer lost, note."""

    kind: str
    source: str
    text: str = ""
    data: dict[str, str | float | int | bool] = {}


class EpisodeStart(Message, frozen=True, kw_only=True, tag="episode_start", eq=False):
    """From the runner to everybody: a new episode with this instruction begins.

    metadata: JSON of everything a reader needs (task, seed, configs, versions, limit-file hash, scene).
    """

    episode: str
    instruction: str
    session: str
    metadata: str


class EpisodeStop(Message, frozen=True, kw_only=True, tag="episode_stop", eq=False):
    """From the runner to everybody: the episode ended, with its outcome as JSON."""

    episode: str
    outcome: str


class HostRequest(Message, frozen=True, kw_only=True, tag="host_request", eq=False):
    """A request to the robot host's console socket; limits and resets come only from there.

    key: of the role that may ask for this action, see `wire.roles`; never logged. speed_scale: for `speed`, the pace of
    the controller's path from now on, in (0, 1] of the policy's own. from_state: all but an `e_stop` is refused in any
    other one, if given: who decides by what it last saw must not undo what came since.
    """

    action: HostAction
    seq: int
    source: str = "console"
    key: str = ""
    speed_scale: float = 1.0
    from_state: SafetyState | None = None


class HostReply(Message, frozen=True, kw_only=True, tag="host_reply", eq=False):
    """The host's answer to a `HostRequest`."""

    seq: int
    ok: bool
    safety: SafetyState
    text: str = ""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat", eq=False):
    """`peer` is alive."""

    peer: str
    seq: int


class PolicyInfoRequest(Message, frozen=True, kw_only=True, tag="policy_info_request", eq=False):
    """Ask a policy server what it serves."""


class TokenRange(msgspec.Struct, frozen=True, kw_only=True):
    """Which `policy_tokens` a chunk may hold: ids `first` to `end` - 1, at most `most` of them. By default none."""

    first: int = 0
    end: int = 0
    most: int = 0


class PolicyInfo(Message, frozen=True, kw_only=True, tag="policy_info", eq=False):
    """What a policy needs and emits. `action_spec` is the JSON of `configs.action.ActionSpec`.

    tokens: what its tokenizer can say; a chunk that holds anything else is refused whole.
    """

    model_id: str
    action_spec: str
    cameras: list[str]
    image_height: int
    image_width: int
    tokenizer_id: str
    tokens: TokenRange = TokenRange()


class PolicyControl(Message, frozen=True, kw_only=True, tag="policy_control", eq=False):
    """A request to a policy server's console: `status`, `drain`, or `swap` to the model named `policy`."""

    action: PolicyAction
    policy: str = ""


class PolicyControlReply(Message, frozen=True, kw_only=True, tag="policy_control_reply", eq=False):
    """The answer to a `PolicyControl`, in one line."""

    ok: bool
    text: str


class ErrorReply(Message, frozen=True, kw_only=True, tag="error_reply", eq=False):
    """A peer could not serve a request; `text` is the one-line reason."""

    text: str
    obs_seq: int = -1


class SimSteps(Message, frozen=True, kw_only=True, tag="sim_steps", eq=False):
    """The simulator's controls of k consecutive physics steps, and the state after the last.

    control: (k, nu) as written to `mjData.ctrl`. qpos (nq,), qvel (nv,) after the last of the k steps.
    """

    first_step: int
    control: F64
    qpos: F64
    qvel: F64


class SimInitial(Message, frozen=True, kw_only=True, tag="sim_initial", eq=False):
    """Where a simulated episode began: enough, with the controls, to repeat it to the bit.

    model_xml: the MJCF text that the model was compiled from. integration_state: (n,)
    `mj_getState(mjSTATE_INTEGRATION)`. geom_rgba: (ngeom, 4) colours of this episode (no effect on physics).
    """

    model_xml: str
    integration_state: F64
    geom_rgba: F64
    task: str
    seed: int
    mujoco_version: str


class SimTruth(Message, frozen=True, kw_only=True, tag="sim_truth", eq=False):
    """Privileged state of the simulator at a camera's shutter; for auxiliary training losses and for views only.

    focus: (2, 3) float64 m, base frame: the thing the instruction asks to act on, and where it should go
    (the same point twice where there is no destination).
    """

    focus: F64


class SimQuery(Message, frozen=True, kw_only=True, tag="sim_query", eq=False):
    """From the runner to the simulated arm: `reset` to a seed, or ask for `success` (privileged)."""

    query: Literal["reset", "success", "shutdown"]
    seq: int
    task: str = ""
    seed: int = 0


class SimAnswer(Message, frozen=True, kw_only=True, tag="sim_answer", eq=False):
    """The simulated arm's answer to a `SimQuery`."""

    seq: int
    ok: bool
    success: bool = False
    instruction: str = ""
    sim_time_ns: int = 0
    text: str = ""


class ArmCommand(Message, frozen=True, kw_only=True, tag="arm_command", eq=False):
    """From the robot host's driver to the arm process: the filtered command, and nothing else moves it.

    servo_input: as in `JointCommand`.
    """

    seq: int
    joint_position: F64
    joint_velocity: F64
    gripper: float
    halt: bool = False
    servo_input: F64 | None = None


class ArmStop(Message, frozen=True, kw_only=True, tag="arm_stop", eq=False):
    """From the independent monitor to the arm, past the robot host: brake and follow no command; or release that."""

    seq: int
    stop: bool
    reason: str = ""


class ArmState(Message, frozen=True, kw_only=True, tag="arm_state", eq=False):
    """From the arm process: the raw sensors. wrench_tcp: (6,) as sensed, gravity of the hand removed."""

    seq: int
    joint_position: F64
    joint_velocity: F64
    joint_effort: F64
    wrench_tcp: F64
    gripper: float
    braked: bool = False
    episode_seq: int = 0


class Measured(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One reading of a robot's sensors, taken at `t_ns`; shapes and units as in `State`."""

    t_ns: int
    joint_position: F64
    joint_velocity: F64
    joint_effort: F64
    wrench_tcp: F64
    gripper: float


class JointCommand(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What safety lets through to a driver: position (n,) rad, velocity (n,) rad/s, gripper opening 0..1.

    servo_input: (n,) what the host's servo law made of it, for an arm that is sent velocity, rad/s, or torque, N·m.
    """

    joint_position: F64
    joint_velocity: F64
    gripper: float
    servo_input: F64 | None = None
