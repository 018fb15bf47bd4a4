"""How smooth the joints are commanded where one chunk gives way to the next: ours against what others do.

    .venv/bin/python benchmarks/seams.py --json runs/seams.json --picture docs/seams.png

Chunks of `reflexarc-tiny` and of the expert are recorded under the virtual clock, with the latency of a model injected,
as waypoints of the TCP. The same chunks, arriving at the same times, then go through each way of joining them:

- `jerk_limited`, `ensemble`, `switch`: this controller's own seams, at 100 Hz;
- `lerobot`: its `ActionQueue` in RTC mode (a new chunk replaces the queue, less the steps that passed) and its
  `ActionInterpolator`, ten times the policy's rate, before the same IK. The guidance of RTC inside a flow model is not
  part of it: that changes what is in the chunks, not how they are joined.

Told are the largest second and third differences of the joints' setpoints. Success is measured apart, on the same
seeds: `reflexarc eval --set controller.seam=switch` and the like.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reflexarc.collect import EVALUATION_SEED_BASE
from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.controller import Controller
from reflexarc.controllers.ik import ArmKinematics
from reflexarc.policies import open_policy
from reflexarc.sim.latency import Latency
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.tasks import get_task
from reflexarc.sim.world import World
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, ActionChunk, CameraFrame, Message, Observation, State

TICK_NS, STEP_NS = 10_000_000, 100_000_000
SEAMS = ("jerk_limited", "ensemble", "switch")
LEROBOT = "lerobot"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One chunk as it arrived. poses: (H, 7) waypoints, gripper (H,)."""

    t_obs_ns: int
    arrival_ns: int
    poses: F64
    gripper: F64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """The chunks of one episode, the joints (n,) it began at and how long it took."""

    start: F64
    end_ns: int
    chunks: list[Recorded]


def record(policy: str, task: str, latency_s: float, count: int) -> Iterator[Episode]:
    """Chunks of `count` episodes of a task, as waypoints composed onto what was commanded at each observation."""
    robot = load_robot("panda")
    world = World(task, robot)
    opened = open_policy(policy, world)
    latency = Latency([latency_s])
    session = LockstepSession(
        world, robot, load_safety("panda"), load_controller("default"), opened, latency=latency
    )
    asked: dict[int, Observation] = {}
    chunks: list[Recorded] = []
    states: list[State] = []

    def take(topic: str, message: Message) -> None:
        if isinstance(message, State):
            states.append(message)
        elif isinstance(message, ActionChunk):
            chunks.append(_waypoints(message, asked[message.obs_seq].state, states[-1].t_ns))

    act = opened.act

    def remember(observation: Observation) -> ActionChunk:
        asked[observation.seq] = observation
        return act(observation)

    opened.act = remember  # type: ignore[method-assign]
    session.subscribers.append(take)
    for index in range(count):
        chunks.clear()
        states.clear()
        session.run(EVALUATION_SEED_BASE + index, time_limit_s=get_task(task).time_limit_s)
        yield Episode(states[0].joint_position_commanded, states[-1].t_ns, list(chunks))
    session.close()


def _waypoints(chunk: ActionChunk, state: State, now_ns: int) -> Recorded:
    pose = np.array(state.pose_base_tcp_commanded)
    poses = []
    for action in chunk.actions:
        pose = geometry.apply_delta(pose, action[:6])
        poses.append(pose)
    return Recorded(chunk.t_obs_ns, now_ns, np.array(poses), chunk.actions[:, 6])


def absolute_spec(horizon: int) -> ActionSpec:
    """The policies' action space with poses in place of displacements."""
    delta = tcp_delta_spec(horizon, STEP_NS * 1e-9)
    dims = [dim.model_copy(update={"delta": False, "lower": -10.0, "upper": 10.0}) for dim in delta.dims[:-1]]
    return delta.model_copy(update={"id": f"tcp-{horizon}", "dims": (*dims, delta.dims[-1])})


def through_controller(episode: Episode, seam: str, robot: RobotConfig, kinematics: ArmKinematics) -> F64:
    """Setpoints (T, n) of this controller with that seam, before a host that follows them."""
    spec = absolute_spec(len(episode.chunks[0].poses))
    config = ControllerConfig.model_validate({"seam": seam, "execute_steps": 1})
    controller = Controller(config, robot, spec, ("front",), "virtual")
    controller.reset("", "")
    joints, told = episode.start, []
    velocity: F64 = np.zeros(len(robot.joints))
    observed: dict[int, Recorded] = {chunk.t_obs_ns: chunk for chunk in episode.chunks}
    waiting: list[tuple[int, ActionChunk]] = []
    for now in range(0, episode.end_ns, TICK_NS):
        controller.on_state(_state(now, joints, velocity, kinematics))
        if now in observed:
            controller.on_frame(_picture(now))
            observation = controller.observation(now)
            if observation is not None:
                chunk = observed[now]
                waiting.append((chunk.arrival_ns, _chunk(chunk, observation.seq, spec)))
        while waiting and waiting[0][0] <= now:
            controller.on_chunk(waiting.pop(0)[1], now)
        setpoint = controller.tick(now).setpoint
        assert setpoint is not None
        joints, velocity = setpoint.joint_position, setpoint.joint_velocity
        told.append(joints)
    return np.array(told)


def through_lerobot(episode: Episode, robot: RobotConfig, kinematics: ArmKinematics) -> F64:
    """Setpoints (T, n) of lerobot's queue and interpolator, and the same IK."""
    import torch
    from lerobot.policies.rtc.action_queue import ActionQueue
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.utils.action_interpolator import ActionInterpolator

    queue, interpolator = ActionQueue(RTCConfig(enabled=True)), ActionInterpolator(STEP_NS // TICK_NS)
    joints: F64 = episode.start
    told, arrivals = [], list(episode.chunks)
    start = kinematics.forward(joints)
    pose = start
    interpolator.add(torch.zeros(6, dtype=torch.float64))
    interpolator.get()
    for now in range(0, episode.end_ns, TICK_NS):
        while arrivals and arrivals[0].arrival_ns <= now:
            chunk = arrivals.pop(0)
            rows = [
                np.concatenate([p[:3] - start[:3], geometry.difference(p[3:], start[3:])])
                for p in chunk.poses
            ]
            actions = torch.from_numpy(np.array(rows))
            queue.merge(actions, actions, round((chunk.arrival_ns - chunk.t_obs_ns) / STEP_NS))
        if interpolator.needs_new_action() and (action := queue.get()) is not None:
            interpolator.add(action)
        given = interpolator.get()
        if given is not None:
            offset = given.numpy()
            quat = geometry.multiply(geometry.exp(offset[3:]), start[3:])
            pose = geometry.pose(start[:3] + offset[:3], quat)
        joints = kinematics.solve(pose, joints, TICK_NS * 1e-9).joint_position
        told.append(joints)
    return np.array(told)


def roughness(joints: F64) -> tuple[F64, F64]:
    """Acceleration rad/s² and jerk rad/s³ as differences of setpoints (T, n)."""
    dt = TICK_NS * 1e-9
    return np.diff(joints, 2, axis=0) / dt**2, np.diff(joints, 3, axis=0) / dt**3


def _state(now: int, joints: F64, velocity: F64, kinematics: ArmKinematics) -> State:
    pose = kinematics.forward(joints)
    return State(
        t_ns=now,
        clock="virtual",
        seq=now // TICK_NS,
        t_state_ns=now,
        joint_position=joints,
        joint_velocity=velocity,
        joint_effort=np.zeros_like(joints),
        joint_position_commanded=joints,
        joint_velocity_commanded=velocity,
        pose_base_tcp=pose,
        pose_base_tcp_commanded=pose,
        wrench_tcp=np.zeros(6),
        gripper=1.0,
        gripper_commanded=1.0,
        safety="active",
    )


def _picture(now: int) -> CameraFrame:
    return CameraFrame(
        t_ns=now,
        clock="virtual",
        camera="front",
        seq=now // TICK_NS,
        t_capture_ns=now,
        height=1,
        width=1,
        encoding="raw",
        data=(now // TICK_NS).to_bytes(3, "little"),
    )


def _chunk(chunk: Recorded, obs_seq: int, spec: ActionSpec) -> ActionChunk:
    rotvecs = np.array([geometry.log(pose[3:]) for pose in chunk.poses])
    actions = np.column_stack([chunk.poses[:, :3], rotvecs, chunk.gripper])
    return ActionChunk(
        t_ns=chunk.t_obs_ns,
        clock="virtual",
        obs_seq=obs_seq,
        t_obs_ns=chunk.t_obs_ns,
        actions=actions,
        bins=np.full(actions.shape, -1, dtype=np.int16),
        policy_tokens=[],
        tokenizer_id="none",
        step_ns=STEP_NS,
        spec_id=spec.id,
        model_id="recorded",
    )


def compare(episodes: list[Episode]) -> tuple[dict[str, Any], dict[str, F64]]:
    """Figures of each way over all episodes, and its setpoints in the first."""
    robot = load_robot("panda")
    kinematics = ArmKinematics(robot, ControllerConfig())
    figures: dict[str, Any] = {}
    first: dict[str, F64] = {}
    for way in (*SEAMS, LEROBOT):
        peaks = []
        for episode in track(episodes, description=way):
            joints = (
                through_lerobot(episode, robot, kinematics)
                if way == LEROBOT
                else through_controller(episode, way, robot, kinematics)
            )
            first.setdefault(way, joints)
            acceleration, jerk = (np.abs(values) for values in roughness(joints))
            peaks.append((acceleration.max(), jerk.max(), np.sqrt(np.mean(jerk**2))))
        largest = np.max(peaks, axis=0)
        figures[way] = {
            "peak_acceleration": float(largest[0]),
            "peak_jerk": float(largest[1]),
            "median_episode_peak_jerk": float(np.median([peak[1] for peak in peaks])),
            "rms_jerk": float(np.mean([peak[2] for peak in peaks])),
        }
    return figures, first


def draw(first: dict[str, F64], arrivals: list[int], path: Path) -> None:
    """Joint 2's velocity and jerk in the first episode, by way; lines where chunks arrived."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(10, 6), sharex=True)
    dt = TICK_NS * 1e-9
    for way, joints in first.items():
        t = dt * np.arange(len(joints))
        _, jerk = roughness(joints)
        axes[0].plot(t[1:], np.diff(joints[:, 1]) / dt, lw=1.2, label=way)
        axes[1].semilogy(t[3:], np.abs(jerk).max(axis=1) + 1.0, lw=1.0)
    for axis in axes:
        for arrival in arrivals:
            axis.axvline(arrival * 1e-9, color="0.85", lw=0.8, zorder=0)
    axes[0].set_ylabel("joint 2, rad/s")
    axes[1].set_ylabel("largest jerk of a joint, rad/s³")
    axes[1].set_xlabel("s; grey: a chunk arrives")
    axes[0].legend(loc="best", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Record, replay, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=4, help="of each task, policy and latency")
    parser.add_argument("--task", nargs="+", default=["push", "lift"])
    parser.add_argument("--latency", nargs="+", type=float, default=[0.1, 0.2, 0.3], help="s")
    parser.add_argument("--policy", nargs="+", default=["reflexarc-tiny", "expert"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    episodes = [
        episode
        for policy in given.policy
        for latency in given.latency
        for task in given.task
        for episode in record(policy, task, latency, given.episodes)
    ]
    figures, first = compare(episodes)
    table = Table(title=f"Commanded joints, {len(episodes)} episodes, the same chunks")
    for column in ("seam", "peak rad/s²", "peak rad/s³", "median peak", "rms", "peak, ratio"):
        table.add_column(column, justify="left" if column == "seam" else "right")
    ours = figures["jerk_limited"]["peak_jerk"]
    for way, row in figures.items():
        table.add_row(
            way,
            f"{row['peak_acceleration']:.1f}",
            f"{row['peak_jerk']:.0f}",
            f"{row['median_episode_peak_jerk']:.0f}",
            f"{row['rms_jerk']:.0f}",
            f"{row['peak_jerk'] / ours:.1f}",
        )
    Console().print(table)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"episodes": len(episodes), "ways": figures}, indent=1))
    if given.picture:
        draw(first, [chunk.arrival_ns for chunk in episodes[0].chunks], given.picture)


if __name__ == "__main__":
    main()
