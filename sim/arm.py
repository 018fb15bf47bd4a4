"""Loads an arm's MJCF and finds its joints, servos, gripper and TCP in a compiled model.

Any arm will do whose MJCF has the joints, the base body and the TCP site that its config names and one actuator for
each joint: ours, or one of the MuJoCo Menagerie by path. What differs between such files is made alike on loading:
the servo gains of the config, gravity compensation, a wrist sensor. Knows nothing of scenes and tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import SimulationError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import JointLimits, RobotConfig, ServoMode
from reflexarc.wire.messages import F64

WRIST_SITE = "wrist_ft"
WRIST_FORCE = "wrist_force"
WRIST_TORQUE = "wrist_torque"
"""The site and the two sensors of the wrist. An arm without them is given them on the body of its last joint."""

GRIPPER_ACTUATOR = "gripper"
"""Name of the gripper's actuator; where none is called so, the only one that drives none of the arm's joints."""


def load_arm_spec(robot: RobotConfig) -> mujoco.MjSpec:
    """The arm as an editable spec, ready to have a scene added.

    Raises SimulationError naming the file, or the joint, body, site or actuator it lacks and those it has.
    """
    path = resolve_asset(robot.mjcf)
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise SimulationError(f"robot {robot.name}: cannot load {robot.mjcf}: {reason}") from error
    base = _named(robot, "body", robot.base_body, spec.bodies)
    _named(robot, "site", robot.tcp_site, spec.sites)
    for body in [base, *base.find_all("body")]:
        # An arm that is sent torque bears its weight by that torque.
        body.gravcomp = 0.0 if robot.servo.torque else 1.0
    for joint, stiffness, damping in zip(
        robot.joints, robot.servo.stiffness, robot.servo.damping, strict=True
    ):
        _set_servo(_actuator_spec(spec, robot, joint.name), joint, robot.servo.mode, stiffness, damping)
    last = _named(robot, "joint", robot.joint_names[-1], spec.joints)
    _add_wrist_sensor(spec, last.parent)
    _keep_assets_found(spec, path.parent)
    for key in list(spec.keys):  # sized for the arm alone: they would not fit a scene
        spec.delete(key)
    return spec


@dataclasses.dataclass(frozen=True, slots=True)
class ArmIndex:
    """Where the arm's numbers stand in a model's arrays.

    qpos, dof, actuator: (n,) indices, in the order of the config's joints. gripper_actuator: -1 if there is none;
    gripper_range: its control when closed and when open. fingers: (m,) qpos indices of the gripper's joints;
    finger_closed, finger_open: (m,) their positions. tcp, wrist: site ids.
    """

    qpos: NDArray[np.int64]
    dof: NDArray[np.int64]
    actuator: NDArray[np.int64]
    gripper_actuator: int
    gripper_range: tuple[float, float]
    fingers: NDArray[np.int64]
    finger_closed: F64
    finger_open: F64
    tcp: int
    wrist: int

    @staticmethod
    def find(model: mujoco.MjModel, robot: RobotConfig) -> ArmIndex:
        """Look the names up; raises SimulationError naming the missing one and those the model has."""
        tcp = _find(model, robot, mujoco.mjtObj.mjOBJ_SITE, "site", robot.tcp_site)
        base = _find(model, robot, mujoco.mjtObj.mjOBJ_BODY, "body", robot.base_body)
        joints = [_find(model, robot, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in robot.joint_names]
        actuators = [_actuator_of(model, joint, robot) for joint in joints]
        root = model.body_rootid[base]
        own = [j for j in range(model.njnt) if model.body_rootid[model.jnt_bodyid[j]] == root]
        fingers = [j for j in own if j not in joints]
        gripper = _gripper_of(model, actuators, fingers)
        low, high = model.actuator_ctrlrange[gripper] if gripper >= 0 else (0.0, 0.0)
        return ArmIndex(
            qpos=model.jnt_qposadr[joints].astype(np.int64),
            dof=model.jnt_dofadr[joints].astype(np.int64),
            actuator=np.array(actuators, dtype=np.int64),
            gripper_actuator=gripper,
            gripper_range=(float(low), float(high)),
            fingers=model.jnt_qposadr[fingers].astype(np.int64),
            finger_closed=model.jnt_range[fingers, 0].copy(),
            finger_open=model.jnt_range[fingers, 1].copy(),
            tcp=tcp,
            wrist=_find(model, robot, mujoco.mjtObj.mjOBJ_SITE, "site", WRIST_SITE),
        )

    def opening(self, data: mujoco.MjData) -> float:
        """The gripper's measured opening, 0 closed .. 1 open; 0 for an arm without one."""
        if not self.fingers.size:
            return 0.0
        shares = (data.qpos[self.fingers] - self.finger_closed) / (self.finger_open - self.finger_closed)
        return float(min(1.0, max(0.0, shares.sum() / shares.size)))

    def set_gripper(self, control: F64, opening: float) -> None:
        """Write an opening 0..1 into a model's control (nu,), in place."""
        if self.gripper_actuator >= 0:
            closed, opened = self.gripper_range
            control[self.gripper_actuator] = closed + opening * (opened - closed)

    def place(
        self, model: mujoco.MjModel, data: mujoco.MjData, position: NDArray[np.float64], opening: float
    ) -> None:
        """Put the arm at joint `position` (n,) rad at rest, the gripper at `opening`, and its servos there too."""
        data.qpos[self.qpos] = position
        data.qvel[self.dof] = 0.0
        data.ctrl[self.actuator] = position
        data.qpos[self.fingers] = self.finger_closed + opening * (self.finger_open - self.finger_closed)
        self.set_gripper(data.ctrl, opening)


def _named[T](robot: RobotConfig, kind: str, name: str, elements: Sequence[T]) -> T:
    """The element of a spec with this name."""
    by_name = {str(element.name): element for element in elements}  # type: ignore[attr-defined]
    if name not in by_name:
        raise SimulationError(f"robot {robot.name}: {robot.mjcf}: {unknown(kind, name, by_name)}")
    return by_name[name]


def _actuator_spec(spec: mujoco.MjSpec, robot: RobotConfig, joint: str) -> mujoco.MjsActuator:
    _named(robot, "joint", joint, spec.joints)
    for actuator in spec.actuators:
        if actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT and actuator.target == joint:
            return actuator
    driven = {str(actuator.target) for actuator in spec.actuators}
    raise SimulationError(
        f"robot {robot.name}: {robot.mjcf}: no actuator drives joint {joint!r}; driven: {', '.join(sorted(driven))}"
    )


def _set_servo(
    actuator: mujoco.MjsActuator, joint: JointLimits, mode: ServoMode, stiffness: float, damping: float
) -> None:
    """Make it a servo of that mode, limited by the joint's published torque.

    position: `stiffness·(control - q) - damping·q̇`; velocity: `damping·(control - q̇)`; else the control is torque.
    """
    actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.dyntype = mujoco.mjtDyn.mjDYN_NONE
    actuator.gear = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    gain, place, rate = {
        "position": (stiffness, stiffness, damping),
        "velocity": (damping, 0.0, damping),
    }.get(mode, (1.0, 0.0, 0.0))
    actuator.gainprm = [gain, *[0.0] * 9]
    actuator.biasprm = [0.0, -place, -rate, *[0.0] * 7]
    # Not limited: the velocity feed-forward reaches past the joint's range.
    actuator.ctrllimited = mujoco.mjtLimited.mjLIMITED_FALSE
    actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
    actuator.forcerange = [-joint.effort, joint.effort]


def _add_wrist_sensor(spec: mujoco.MjSpec, last_link: mujoco.MjsBody) -> None:
    if all(site.name != WRIST_SITE for site in spec.sites):
        last_link.add_site(name=WRIST_SITE, group=4)
    present = {sensor.name for sensor in spec.sensors}
    for name, kind in (
        (WRIST_FORCE, mujoco.mjtSensor.mjSENS_FORCE),
        (WRIST_TORQUE, mujoco.mjtSensor.mjSENS_TORQUE),
    ):
        if name not in present:
            spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=WRIST_SITE)


def _keep_assets_found(spec: mujoco.MjSpec, folder: Path) -> None:
    """Meshes and textures are named relative to the file; the spec is compiled from text, which has no place."""
    if len(spec.meshes):
        spec.meshdir = str((folder / spec.meshdir).resolve())
    if len(spec.textures):
        spec.texturedir = str((folder / spec.texturedir).resolve())


def _find(model: mujoco.MjModel, robot: RobotConfig, kind: mujoco.mjtObj, word: str, name: str) -> int:
    found = int(mujoco.mj_name2id(model, kind, name))
    if found < 0:
        count = {"site": model.nsite, "body": model.nbody, "joint": model.njnt}[word]
        names = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise SimulationError(f"robot {robot.name}: {unknown(word, name, names)}")
    return found


def _actuator_of(model: mujoco.MjModel, joint: int, robot: RobotConfig) -> int:
    for index in range(model.nu):
        is_joint = model.actuator_trntype[index] == mujoco.mjtTrn.mjTRN_JOINT
        if is_joint and model.actuator_trnid[index, 0] == joint:
            return index
    raise SimulationError(f"robot {robot.name}: no actuator drives joint {model.joint(joint).name!r}")


def _gripper_of(model: mujoco.MjModel, arm: Sequence[int], fingers: Sequence[int]) -> int:
    """The gripper's actuator: by name, else the only one that is left; -1 if there is none or no finger joint."""
    rest = [i for i in range(model.nu) if i not in arm]
    named = [i for i in rest if model.actuator(i).name == GRIPPER_ACTUATOR]
    if not fingers:
        return -1
    return (named or (rest if len(rest) == 1 else [-1]))[0]
