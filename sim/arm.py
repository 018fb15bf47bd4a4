"""Finds a robot's joints, actuators, TCP and gripper in a MuJoCo model, by the names in its config.

Any arm will do whose model has the named joints, one position-servo actuator for each, and a TCP site: ours, or one
of the MuJoCo Menagerie by path.
"""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import SimulationError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig


def load_arm_spec(robot: RobotConfig) -> mujoco.MjSpec:
    """The arm's MJCF as an editable spec; raises SimulationError naming the file."""
    path = resolve_asset(robot.mjcf)
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise SimulationError(f"robot {robot.name}: cannot load {robot.mjcf}: {error}") from error


@dataclasses.dataclass(frozen=True, slots=True)
class ArmIndex:
    """Where the arm's numbers stand in a model's arrays.

    qpos, dof, actuator: (n,) indices. gripper_actuator, fingers (qpos indices): of the gripper; -1 and empty if the
    model has none. tcp, wrist: site ids (wrist -1 if there is no `wrist_ft`).
    """

    qpos: NDArray[np.int64]
    dof: NDArray[np.int64]
    actuator: NDArray[np.int64]
    gripper_actuator: int
    fingers: NDArray[np.int64]
    finger_range: float
    tcp: int
    wrist: int

    @staticmethod
    def find(model: mujoco.MjModel, robot: RobotConfig) -> ArmIndex:
        """Look the names up; raises SimulationError naming the missing one and those the model has."""
        joints = [_joint(model, name) for name in robot.joint_names]
        actuators = [_actuator_of(model, joint, robot) for joint in joints]
        gripper = _id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, "gripper")
        finger_ids = [
            j for j in range(model.njnt) if (model.joint(j).name or "").startswith("finger_joint")
        ]
        tcp = _id(model, mujoco.mjtObj.mjOBJ_SITE, robot.tcp_site)
        if tcp < 0:
            names = [model.site(i).name for i in range(model.nsite)]
            raise SimulationError(f"robot {robot.name}: {unknown('site', robot.tcp_site, names)}")
        return ArmIndex(
            qpos=model.jnt_qposadr[joints].astype(np.int64),
            dof=model.jnt_dofadr[joints].astype(np.int64),
            actuator=np.array(actuators, dtype=np.int64),
            gripper_actuator=gripper,
            fingers=model.jnt_qposadr[finger_ids].astype(np.int64),
            finger_range=float(model.jnt_range[finger_ids[0], 1]) if finger_ids else 0.0,
            tcp=tcp,
            wrist=_id(model, mujoco.mjtObj.mjOBJ_SITE, "wrist_ft"),
        )

    def place(
        self, model: mujoco.MjModel, data: mujoco.MjData, position: NDArray[np.float64], opening: float
    ) -> None:
        """Put the arm at joint `position` (n,) rad at rest, the gripper at `opening`, and its servos there too."""
        data.qpos[self.qpos] = position
        data.qvel[self.dof] = 0.0
        data.ctrl[self.actuator] = position
        if self.gripper_actuator >= 0:
            data.qpos[self.fingers] = opening * self.finger_range
            data.ctrl[self.gripper_actuator] = opening * model.actuator_ctrlrange[self.gripper_actuator, 1]


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return int(mujoco.mj_name2id(model, kind, name))


def _joint(model: mujoco.MjModel, name: str) -> int:
    found = _id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if found < 0:
        raise SimulationError(unknown("joint", name, [model.joint(i).name for i in range(model.njnt)]))
    return found


def _actuator_of(model: mujoco.MjModel, joint: int, robot: RobotConfig) -> int:
    for index in range(model.nu):
        is_joint = model.actuator_trntype[index] == mujoco.mjtTrn.mjTRN_JOINT
        if is_joint and model.actuator_trnid[index, 0] == joint:
            return index
    raise SimulationError(f"robot {robot.name}: no actuator drives joint {model.joint(joint).name!r}")
