"""Glances: single pictures of fresh scenes with the arm anywhere, and where the thing asked for is.

In a demonstration the arm soon gives away where it is going, and a network that watches it need not read the words.
In a glance the arm stands at a random place: only words and pixels tell. A glance costs two rendered frames, a
demonstration fifty and the physics between them. Where the arm is at home, the expert's first actions are labels too.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.robot import RobotConfig
from reflexarc.pool import run_jobs
from reflexarc.setup import Setup

SEED_BASE = 500_000_000
"""Seeds of glances: apart from those of demonstrations and of evaluation."""

AT_HOME = 0.35
"""Share of glances with the arm at home, as an episode begins."""

REACH = ((0.30, 0.66), (-0.28, 0.28), (0.10, 0.30))
"""Where the TCP is put in the others: x, y, z, m."""

POSES = 300
SOLVER_STEPS = 60
SETTLED_M = 2e-3

LABELS = (
    "gripper",
    "gripper_commanded",
    "pose_base_tcp",
    "pose_base_tcp_commanded",
    "wrench",
    "focus",
    "actions",
)


@dataclasses.dataclass(frozen=True, slots=True)
class GlanceJob:
    """Glances `first` .. `first + count - 1` of one task."""

    task: str
    seed: int
    first: int
    count: int
    horizon: int
    out: Path
    setup: Setup


def glance(
    tasks: tuple[str, ...],
    *,
    count: int,
    seed: int,
    horizon: int,
    out: Path,
    setup: Setup,
    workers: int,
    batch: int = 1000,
) -> int:
    """Take `count` glances of each task into shards below `out`; shards that are there already are kept."""
    jobs = [
        GlanceJob(task, seed, first, min(batch, count - first), horizon, out, setup)
        for first in range(0, count, batch)
        for task in tasks
    ]
    return sum(taken for _, taken in run_jobs(take_glances, jobs, workers=workers, title="glancing"))


def take_glances(job: GlanceJob) -> int:
    """Run one job in this process; returns how many glances its shard holds."""
    from reflexarc.sim.world import World

    shard = job.out / f"{job.task}-{job.seed:03d}-{job.first:06d}"
    if shard.exists():
        return job.count
    world = World(job.task, job.setup.robot)
    poses = arm_poses(world.model, world.data, job.setup.robot, world.hand.down, seed=job.seed)
    rows = [
        _take(world, poses, SEED_BASE + job.seed * 1_000_000 + index, job.horizon)
        for index in range(job.first, job.first + job.count)
    ]
    world.close()
    _write(shard, job.task, rows)
    return len(rows)


def arm_poses(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    robot: RobotConfig,
    down: NDArray[np.float64],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """(P, n) joint positions that put the TCP at random places of REACH, pointing as at home."""
    from reflexarc.configs.controller import ControllerConfig
    from reflexarc.controllers.ik import ArmKinematics

    kinematics = ArmKinematics(robot, ControllerConfig())
    rng = np.random.default_rng([0x61A, seed])
    found: list[NDArray[np.float64]] = []
    while len(found) < POSES:
        place = np.array([rng.uniform(low, high) for low, high in REACH])
        joints = np.asarray(robot.home, dtype=np.float64)
        target = np.concatenate([place, down])
        for _ in range(SOLVER_STEPS):
            joints = kinematics.solve(target, joints, 0.1).joint_position
        if np.linalg.norm(kinematics.forward(joints)[:3] - place) < SETTLED_M:
            found.append(joints)
    return np.array(found)


def _take(world: Any, poses: NDArray[np.float64], seed: int, horizon: int) -> dict[str, Any]:
    """One glance as a row of arrays."""
    from reflexarc.sim.experts import make_expert

    rng = np.random.default_rng([0x6A2E, seed])
    world.reset(seed)
    at_home = bool(rng.random() < AT_HOME)
    opening = 1.0
    if not at_home:
        opening = 1.0 if rng.random() < 0.7 else float(rng.random())
        world.arm.place(world.model, world.data, poses[rng.integers(len(poses))], opening)
        mujoco.mj_forward(world.model, world.data)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, world.data.site_xmat[world.arm.tcp])
    pose = np.concatenate([world.data.site_xpos[world.arm.tcp], quaternion])
    actions, mask = np.zeros((horizon, 7)), np.zeros(horizon, dtype=bool)
    if at_home:
        expert = make_expert(world)
        chunk = expert.act(_observation(pose, opening)).actions[:horizon]
        actions[: len(chunk)], mask[: len(chunk)] = chunk, True
    return {
        "images": {camera: world.render(camera) for camera in world.cameras},
        "instruction": world.instruction,
        "gripper": opening,
        "gripper_commanded": opening,
        "pose_base_tcp": pose,
        "pose_base_tcp_commanded": pose,
        "wrench": np.zeros(6),
        "focus": world.truth(0).focus,
        "actions": actions,
        "mask": mask,
    }


def _observation(pose: NDArray[np.float64], opening: float) -> Any:
    """What an expert needs of an observation: where the TCP is."""
    from reflexarc.wire.messages import Observation, State

    still = np.zeros(7)
    state = State(
        t_ns=0,
        clock="virtual",
        seq=0,
        t_state_ns=0,
        joint_position=still,
        joint_velocity=still,
        joint_effort=still,
        joint_position_commanded=still,
        joint_velocity_commanded=still,
        pose_base_tcp=pose,
        pose_base_tcp_commanded=pose,
        wrench_tcp=np.zeros(6),
        gripper=opening,
        gripper_commanded=opening,
        safety="active",
    )
    return Observation(t_ns=0, clock="virtual", seq=0, t_obs_ns=0, state=state, images={}, instruction="")


def _write(shard: Path, task: str, rows: list[dict[str, Any]]) -> None:
    """Write a shard whole or not at all."""
    aside = shard.with_name(f".{shard.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    for camera in rows[0]["images"]:
        np.save(aside / f"images-{camera}.npy", np.stack([row["images"][camera] for row in rows]))
    for name in LABELS:
        np.save(aside / f"{name}.npy", np.array([row[name] for row in rows], dtype=np.float32))
    np.save(aside / "mask.npy", np.stack([row["mask"] for row in rows]))
    words = {"task": task, "instructions": [row["instruction"] for row in rows]}
    (aside / "words.json").write_text(json.dumps(words))
    aside.rename(shard)
