"""A table, the arm and perhaps a block: the least world for the simulated arm, with inverse kinematics."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.robot import GripperConfig, JointLimits, RobotConfig, ServoConfig
from reflexarc.sim.arm import ArmIndex, load_arm_spec
from reflexarc.sim.scenes.collide import SOLID, set_arm_bits
from reflexarc.wire.geometry import difference
from reflexarc.wire.messages import F64, JointCommand

BLOCK_MASS = 0.05


class ArmStand:
    """The arm at home over a table. A block of 4 cm and 50 g stands between the fingers if asked for."""

    def __init__(self, robot: RobotConfig, *, block: bool = False) -> None:
        spec = load_arm_spec(robot)
        spec.option.timestep = 0.0025
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        set_arm_bits(spec)
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], **SOLID)
        if block:
            body = spec.worldbody.add_body(name="block", pos=[0.45, 0.0, 0.25])
            body.add_freejoint()
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[0.02, 0.02, 0.02],
                mass=BLOCK_MASS,
                friction=[1.0, 0.02, 0.001],
                **SOLID,
            )
        spec.compile()
        self.model = mujoco.MjModel.from_xml_string(spec.to_xml())
        self.data = mujoco.MjData(self.model)
        self.robot = robot
        self._scratch_data = mujoco.MjData(self.model)
        self.index = ArmIndex.find(self.model, robot)
        self.index.place(self.model, self.data, np.array(robot.home), 1.0)
        mujoco.mj_forward(self.model, self.data)

    def step(self, control: NDArray[np.float64]) -> None:
        """One physics step."""
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data)

    def place(self, position: F64) -> None:
        """Put the arm somewhere, at rest."""
        self.index.place(self.model, self.data, position, 1.0)
        mujoco.mj_forward(self.model, self.data)

    def tcp(self, position: F64) -> F64:
        """(7,) pose of the TCP at a joint position."""
        scratch = self._scratch(position)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, scratch.site_xmat[self.index.tcp])
        return np.concatenate([scratch.site_xpos[self.index.tcp], quat])

    def inverse(self, seed: F64, pose: F64) -> F64:
        """A joint position (n,) that puts the TCP at `pose` (7,), near `seed`."""
        position = seed.copy()
        for _ in range(30):
            now = self.tcp(position)
            error = np.concatenate([pose[:3] - now[:3], difference(pose[3:], now[3:])])
            if np.abs(error).max() < 1e-10:
                break
            position = position + np.linalg.pinv(self._jacobian(position)) @ error
        return position

    def _jacobian(self, position: F64) -> F64:
        scratch = self._scratch(position)
        mujoco.mj_comPos(self.model, scratch)
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], self.index.tcp)
        return jacobian[:, self.index.dof]

    def _scratch(self, position: F64) -> mujoco.MjData:
        scratch = self._scratch_data
        scratch.qpos[self.index.qpos] = position
        mujoco.mj_kinematics(self.model, scratch)
        return scratch


def command(position: F64, velocity: F64 | None = None, gripper: float = 1.0) -> JointCommand:
    """A joint command, at rest unless told."""
    still = np.zeros_like(position) if velocity is None else velocity
    return JointCommand(joint_position=position, joint_velocity=still, gripper=gripper)


FOREIGN_LINKS = (
    ("0 0 0.1", "0 0 1"),
    ("0 0 0.1", "0 1 0"),
    ("0 0 0.3", "0 1 0"),
    ("0.3 0 0", "0 1 0"),
    ("0.08 0 0", "1 0 0"),
    ("0.05 0 0", "0 1 0"),
)
"""Offset from the link before, m, and axis, of each of six joints."""


def foreign_mjcf(folder: Path) -> Path:
    """Write an arm in the manner of the MuJoCo Menagerie: other names, motors, a mesh, a key frame, no wrist sensor.

    Its gripper's actuator takes 0 to 255, its geoms have MuJoCo's default contact bits.
    """
    (folder / "assets").mkdir(exist_ok=True)
    faces = "f 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    (folder / "assets" / "tip.obj").write_text("v 0 0 0\nv 0.02 0 0\nv 0 0.02 0\nv 0 0 0.02\n" + faces)
    opening = "".join(
        f'<body name="part_{k}" pos="{offset}"><joint name="axis_{k}" axis="{axis}" range="-3 3" armature="0.1"/>'
        f'<geom type="capsule" size="0.03" fromto="0 0 0 0 0 0.04" mass="{2 - 0.3 * k}"/>'
        for k, (offset, axis) in enumerate(FOREIGN_LINKS)
    )
    jaws = "".join(
        f'<body name="jaw_{side}"><joint name="jaw_{side}" type="slide" axis="0 {sign} 0" range="0 0.03"/>'
        f'<geom type="box" size="0.01 0.005 0.02" pos="0.06 {0.005 * sign} 0" mass="0.02"/></body>'
        for side, sign in (("left", 1), ("right", -1))
    )
    motors = "".join(f'<motor name="m{k}" joint="axis_{k}" gear="50"/>' for k in range(6))
    path = folder / "foreign.xml"
    path.write_text(f"""<mujoco model="foreign"><compiler angle="radian" meshdir="assets"/>
    <asset><mesh name="tip" file="tip.obj"/></asset>
    <worldbody><body name="pedestal"><geom type="box" size="0.05 0.05 0.02"/>{opening}
      <site name="attachment" pos="0.08 0 0"/><geom type="mesh" mesh="tip" mass="0.01"/>{jaws}
    {"</body>" * 6}</body></worldbody>
    <equality><joint joint1="jaw_left" joint2="jaw_right"/></equality>
    <actuator>{motors}
      <general name="fingers" joint="jaw_left" ctrlrange="0 255" gainprm="0.06" biastype="affine" biasprm="0 -500 -5"/>
    </actuator>
    <keyframe><key name="home" qpos="0 0 0 0 0 0 0 0"/></keyframe></mujoco>""")
    return path


def foreign_robot(path: Path, **changes: object) -> RobotConfig:
    """The config of the arm in `foreign_mjcf`."""
    joints = tuple(
        JointLimits(
            name=f"axis_{k}",
            lower=-3.0,
            upper=3.0,
            velocity=2.0,
            acceleration=10.0,
            jerk=1000.0,
            effort=100.0,
            effort_rate=1000.0,
            source="made up for a test",
        )
        for k in range(6)
    )
    values: dict[str, object] = {
        "name": "foreign",
        "mjcf": str(path),
        "base_body": "pedestal",
        "tcp_site": "attachment",
        "joints": joints,
        "gripper": GripperConfig(max_width=0.06, speed=1.0, max_force=20.0, source="made up for a test"),
        "servo": ServoConfig(stiffness=(3000.0,) * 6, damping=(200.0,) * 6),
        "home": (0.0, 0.2, 0.4, 0.4, 0.0, 0.0),
        "tick_hz": 200,
    }
    return RobotConfig.model_validate(values | changes)
