"""The bodies of a MuJoCo model as Rerun entities, posed by joint positions: arm, gripper, table and what lies on it.

Of a simulated log it is the very scene that was simulated; of another the arm that its metadata name. Base frame,
metres. Which geoms are shown follows MuJoCo's own viewer: groups 0 to 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import rerun as rr
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError
from reflexarc.wire.messages import SimInitial, State

ROOT = "world/scene"
_SHOWN_GROUPS = 3
_THIN_M = 1e-3
"""Half the thickness of a plane, which has none."""
_Geom = mujoco.mjtGeom


class ArmScene:
    """One model. Its joints other than the arm's are moved where they are fingers: slides, by the gripper's opening."""

    def __init__(self, model: mujoco.MjModel, joint_names: Sequence[str], base_body: str) -> None:
        """Raises LogError naming a joint that the model lacks. A base body that it lacks stands in the origin."""
        self._model = model
        self._data = mujoco.MjData(model)
        missing = [name for name in joint_names if _id(model, mujoco.mjtObj.mjOBJ_JOINT, name) < 0]
        if missing:
            raise LogError(f"the model of the arm has no joint {', '.join(missing)}")
        self._arm = [int(model.joint(name).qposadr[0]) for name in joint_names]
        slides = [
            joint for joint in range(model.njnt) if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE
        ]
        self._fingers = model.jnt_qposadr[slides]
        self._finger_range = model.jnt_range[slides]
        self._base = max(_id(model, mujoco.mjtObj.mjOBJ_BODY, base_body), 0)
        self._bodies = [body for body in range(model.nbody) if self._geoms(body)]

    @classmethod
    def simulated(cls, initial: SimInitial, joint_names: Sequence[str], base_body: str) -> ArmScene:
        """The scene of a simulated episode, in its colours. Raises LogError if it is no model, or of another MuJoCo."""
        try:
            model = mujoco.MjModel.from_xml_string(initial.model_xml)
            model.geom_rgba[:] = initial.geom_rgba
        except ValueError as error:
            raise LogError(f"its model is none here: {error}") from error
        return cls(model, joint_names, base_body)

    @classmethod
    def from_file(cls, mjcf: Path, joint_names: Sequence[str], base_body: str) -> ArmScene:
        """The arm alone. Raises LogError if the file is no model."""
        try:
            model = mujoco.MjModel.from_xml_path(str(mjcf))
        except ValueError as error:
            raise LogError(f"{mjcf}: not a model: {error}") from error
        return cls(model, joint_names, base_body)

    @property
    def size(self) -> int:
        """Numbers in a qpos of this model."""
        return int(self._model.nq)

    def shapes(self) -> Iterator[tuple[str, rr.AsComponents]]:
        """(entity, archetype) of every geom that is shown, in the frame of its body; and where the base is."""
        mujoco.mj_kinematics(self._model, self._data)
        turn = self._data.xmat[self._base].reshape(3, 3)
        place = -turn.T @ self._data.xpos[self._base]
        yield ROOT, rr.Transform3D(translation=place, mat3x3=turn.T)
        for body in self._bodies:
            for geom in self._geoms(body):
                yield f"{self._entity(body)}/{geom}", self._shape(geom)

    def qpos_of(self, states: Sequence[State]) -> NDArray[np.float64]:
        """(T, nq) of what the robot host measured; what is no part of the arm stays where the model has it."""
        qpos = np.tile(self._model.qpos0, (len(states), 1))
        qpos[:, self._arm] = np.stack([state.joint_position for state in states])
        opening = np.array([state.gripper for state in states])[:, None]
        low, high = self._finger_range.T
        qpos[:, self._fingers] = low + opening * (high - low)
        return qpos

    def poses(self, qpos: NDArray[np.float64]) -> Iterator[tuple[str, rr.ComponentColumnList]]:
        """(entity, poses over time) of every body for positions (T, nq)."""
        places = np.empty((len(qpos), len(self._bodies), 3))
        turns = np.empty((len(qpos), len(self._bodies), 4))
        for row, position in enumerate(qpos):
            self._data.qpos[:] = position
            mujoco.mj_kinematics(self._model, self._data)
            places[row] = self._data.xpos[self._bodies]
            turns[row] = self._data.xquat[self._bodies]
        for index, body in enumerate(self._bodies):
            columns = rr.Transform3D.columns(
                translation=places[:, index], quaternion=turns[:, index][:, [1, 2, 3, 0]]
            )
            yield self._entity(body), columns

    def _geoms(self, body: int) -> list[int]:
        first = int(self._model.body_geomadr[body])
        every = range(first, first + int(self._model.body_geomnum[body]))
        return [
            geom for geom in every if self._model.geom_group[geom] < _SHOWN_GROUPS and self._rgba(geom)[3] > 0
        ]

    def _entity(self, body: int) -> str:
        return f"{ROOT}/{self._model.body(body).name or body}"

    def _rgba(self, geom: int) -> NDArray[np.float64]:
        material = int(self._model.geom_matid[geom])
        return np.asarray(
            self._model.mat_rgba[material] if material >= 0 else self._model.geom_rgba[geom], dtype=np.float64
        )

    def _shape(self, geom: int) -> rr.AsComponents:
        """One geom in the frame of its body."""
        model, kind = self._model, self._model.geom_type[geom]
        size, place = model.geom_size[geom], model.geom_pos[geom]
        turn = model.geom_quat[geom][[1, 2, 3, 0]]
        colour = np.round(self._rgba(geom) * 255).astype(np.uint8)
        look: dict[str, Any] = {
            "quaternions": [turn],
            "colors": [colour],
            "fill_mode": rr.components.FillMode.Solid,
        }
        if kind == _Geom.mjGEOM_MESH:
            return self._mesh(geom, colour)
        if kind == _Geom.mjGEOM_CAPSULE:
            end = place - size[1] * _z_axis(model.geom_quat[geom])  # Rerun's begins in its origin
            return rr.Capsules3D(lengths=[2 * size[1]], radii=[size[0]], translations=[end], **look)
        if kind == _Geom.mjGEOM_CYLINDER:
            return rr.Cylinders3D(lengths=[2 * size[1]], radii=[size[0]], centers=[place], **look)
        if kind in (_Geom.mjGEOM_SPHERE, _Geom.mjGEOM_ELLIPSOID):
            half = size if kind == _Geom.mjGEOM_ELLIPSOID else np.full(3, size[0])
            return rr.Ellipsoids3D(half_sizes=[half], centers=[place], **look)
        half = np.array([*size[:2], _THIN_M]) if kind == _Geom.mjGEOM_PLANE else size
        return rr.Boxes3D(half_sizes=[half], centers=[place], **look)

    def _mesh(self, geom: int, colour: NDArray[np.uint8]) -> rr.Mesh3D:
        model, mesh = self._model, int(self._model.geom_dataid[geom])
        points = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, model.geom_quat[geom])
        vertices = model.mesh_vert[points] @ matrix.reshape(3, 3).T + model.geom_pos[geom]
        return rr.Mesh3D(
            vertex_positions=vertices, triangle_indices=model.mesh_face[faces], albedo_factor=colour
        )


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return int(mujoco.mj_name2id(model, kind, name))


def _z_axis(quat: NDArray[np.float64]) -> NDArray[np.float64]:
    axis = np.empty(3)
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, 1.0]), quat)
    return axis
