"""Faults planted into a real log: its messages written again, each changed as a broken recording would have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import decode
from reflexarc.wire.messages import ActionChunk, CameraFrame, Message, Setpoint, State

S = 1_000_000_000
MS = 1_000_000
Item = tuple[str, Any, int]
"""(topic, message, when it was recorded in ns)."""
Change = Callable[[list[Item]], Iterable[Item]]


def items_of(log: Path) -> list[Item]:
    """Everything in a log, in the order it was recorded."""
    return [(raw.topic, decode(raw.data), raw.log_time_ns) for raw in EpisodeReader(log).raw_messages()]


def rewrite(
    log: Path, out: Path, change: Change, outcome: dict[str, Any] | None = None, **metadata: object
) -> Path:
    """Write the messages of `log` again as `change` makes them, with the same outcome if no other is given."""
    reader = EpisodeReader(log)
    writer = EpisodeWriter(out, reader.metadata | metadata, fsync=False)
    for topic, message, recorded_ns in change(items_of(log)):
        writer.write(topic, message, recorded_ns)
    writer.close(outcome or reader.outcome or {})
    return out


@dataclass(frozen=True)
class Fault:
    """name: of the fault. rule: that must find it, and no other. at_s: where; None where that is not one instant."""

    name: str
    rule: str
    at_s: float | None
    change: Change


def frames(edit: Callable[[CameraFrame], CameraFrame | None], camera: str = "front") -> Change:
    """Change or leave out (None) the pictures of one camera."""

    def change(items: list[Item]) -> Iterator[Item]:
        for topic, message, recorded in items:
            edited = edit(message) if topic == f"/camera/{camera}" else message
            if edited is not None:
                yield topic, edited, recorded

    return change


def each[M: Message](kind: type[M], edit: Callable[[M], M]) -> Change:
    """Change every message of one kind."""

    def change(items: list[Item]) -> Iterator[Item]:
        for topic, message, recorded in items:
            yield topic, edit(message) if isinstance(message, kind) else message, recorded

    return change


def after(*changes: Change) -> Change:
    """One change after the other."""

    def change(items: list[Item]) -> Iterable[Item]:
        for one in changes:
            items = list(one(items))
        return items

    return change


def shifted_camera(by_ns: int) -> Change:
    """The front camera's computer is off by that much: the pictures and their arrival, in its own time."""

    def change(items: list[Item]) -> Iterator[Item]:
        for topic, message, recorded in items:
            if topic == "/camera/front" and message.t_capture_ns + by_ns >= 0:
                t_ns = message.t_capture_ns + by_ns
                yield topic, replace(message, t_ns=t_ns, t_capture_ns=t_ns), t_ns
            elif topic != "/camera/front":
                yield topic, message, recorded

    return change


def frozen(items: list[Item]) -> Iterator[Item]:
    """From its ninth picture to its seventeenth the front camera repeats one."""
    stuck: bytes | None = None
    for topic, message, recorded in items:
        if topic == "/camera/front" and 8 <= message.seq <= 16:
            stuck = message.data if stuck is None else stuck
            message = replace(message, data=stuck)
        yield topic, message, recorded


def dark(noise: int) -> Change:
    """From its thirteenth picture on the front camera is covered; `noise` grey levels at most are left."""
    random = np.random.default_rng(0)

    def edit(frame: CameraFrame) -> CameraFrame:
        if frame.seq < 12:
            return frame
        pixels = random.integers(0, noise + 1, frame.height * frame.width * 3, dtype=np.uint8)
        return replace(frame, data=pixels.tobytes())

    return frames(edit)


def commanded_late(by_ns: int) -> Change:
    """States tell what was commanded `by_ns` before."""

    def change(items: list[Item]) -> Iterator[Item]:
        states = [message for topic, message, _ in items if topic == "/state"]
        times = np.array([state.t_state_ns for state in states])
        for topic, message, recorded in items:
            if topic == "/state":
                index = max(0, int(np.searchsorted(times, message.t_state_ns - by_ns, side="right")) - 1)
                message = replace(
                    message,
                    joint_position_commanded=states[index].joint_position_commanded,
                    pose_base_tcp_commanded=states[index].pose_base_tcp_commanded,
                )
            yield topic, message, recorded

    return change


def saturated(chunk: ActionChunk) -> ActionChunk:
    """For half a second the policy asks for more than the action space holds."""
    if not S <= chunk.t_ns < 3 * S // 2:
        return chunk
    actions = chunk.actions.copy()
    actions[:, 0] = 0.1
    return replace(chunk, actions=actions)


def at_top_speed(items: list[Item]) -> Iterator[Item]:
    """For 0.3 s the wrist is asked to turn at its published 2.61 rad/s; then it comes back to where it should be."""
    begin = next(m.joint_position[6] for topic, m, _ in items if topic == "/setpoint" and m.t_due_ns >= S)
    for topic, message, recorded in items:
        if topic == "/setpoint" and message.t_due_ns >= S:
            t = (message.t_due_ns - S) / S
            joints = message.joint_position.copy()
            fast = begin + 2.61 * t if t <= 0.3 else begin + 2.61 * 0.3
            share = np.clip((t - 0.3) / 0.8, 0.0, 1.0)
            joints[6] = (1.0 - share) * fast + share * joints[6]
            message = replace(message, joint_position=joints)
        yield topic, message, recorded


def jumping_setpoint(setpoint: Setpoint) -> Setpoint:
    """One setpoint is 0.3 rad off."""
    off = 0.3 * (setpoint.t_due_ns == S) * np.eye(7)[3]
    return replace(setpoint, joint_position=setpoint.joint_position + off)


def jumping_tool(state: State) -> State:
    """From one tick to the next the commanded tool is 5 cm further, and stays there."""
    off = 0.05 * (state.t_state_ns >= S) * np.eye(7)[0]
    return replace(state, pose_base_tcp_commanded=state.pose_base_tcp_commanded + off)


def jumping_chunk(chunk: ActionChunk) -> ActionChunk:
    """One chunk goes back and forth from bound to bound."""
    if chunk.t_ns != S:
        return chunk
    actions = chunk.actions.copy()
    actions[:, 1] = 0.09 * (-1.0) ** np.arange(len(actions))
    return replace(chunk, actions=actions)


def gripper(turn: Callable[[float], float], *, measured: bool, asked: bool) -> Change:
    """What is measured, or asked for and commanded, by another convention."""

    def edit_state(state: State) -> State:
        value, commanded = state.gripper, state.gripper_commanded
        return replace(
            state,
            gripper=turn(value) if measured else value,
            gripper_commanded=turn(commanded) if asked else commanded,
        )

    def edit_setpoint(setpoint: Setpoint) -> Setpoint:
        return replace(setpoint, gripper=turn(setpoint.gripper)) if asked else setpoint

    return after(each(State, edit_state), each(Setpoint, edit_setpoint))


def idle(by_ns: int, *, head: bool) -> Change:
    """The arm stands still for `by_ns` before or after the episode, while everything is recorded."""
    periods = {"/state": 5 * MS, "/camera/front": 100 * MS, "/camera/wrist": 100 * MS}

    def before(items: list[Item]) -> Iterator[Item]:
        first = {topic: message for topic, message, _ in reversed(items)}
        for topic, period in periods.items():
            for number in range(by_ns // period):
                message = moved(first[topic], number * period, number)
                yield topic, message, message.t_ns
        for topic, message, recorded in items:
            yield topic, moved(message, by_ns, by_ns // periods.get(topic, by_ns)), recorded + by_ns

    def behind(items: list[Item]) -> Iterator[Item]:
        yield from items
        last = {topic: message for topic, message, _ in items}
        for topic, period in periods.items():
            for number in range(1, by_ns // period + 1):
                message = moved(last[topic], number * period, number)
                yield topic, message, message.t_ns

    return before if head else behind


def until(end_ns: int) -> Change:
    """The recording stops early."""
    return lambda items: [item for item in items if item[2] < end_ns]


def wandering(state: State) -> State:
    """The tool goes astray: 12 cm to and fro, once a second."""
    away = 0.12 * np.sin(2 * np.pi * state.t_state_ns / S) * np.eye(7)[1]
    return replace(state, pose_base_tcp=state.pose_base_tcp + away)


def moved(message: Any, by_ns: int, numbers: int) -> Any:
    """The message `by_ns` later, its sequence number `numbers` higher."""
    names = ("t_ns", "t_state_ns", "t_capture_ns", "t_obs_ns", "t_due_ns")
    changed = {name: getattr(message, name) + by_ns for name in names if hasattr(message, name)}
    if isinstance(message, State | CameraFrame):
        changed["seq"] = message.seq + numbers
    return replace(message, **changed)


FAULTS = (
    Fault(
        "three pictures are lost", "dropped_frames", 0.9, frames(lambda f: None if 10 <= f.seq < 13 else f)
    ),
    Fault(
        "a camera pauses",
        "late_frames",
        0.9,
        frames(
            lambda f: None if f.seq in (10, 11) else replace(f, seq=f.seq - 2 * (f.seq > 11)), camera="wrist"
        ),
    ),
    Fault(
        "a camera dies",
        "camera_silent",
        1.0,
        frames(lambda f: None if f.t_capture_ns > S else f, camera="wrist"),
    ),
    Fault("a camera wakes late", "camera_silent", 0.0, frames(lambda f: None if f.t_capture_ns < S else f)),
    Fault(
        "no state for 0.1 s",
        "state_gap",
        1.0,
        lambda items: [i for i in items if not (i[0] == "/state" and S < i[1].t_state_ns < S + 100 * MS)],
    ),
    Fault(
        "a camera's stamps are 50 ms in the future",
        "clock_skew",
        None,
        frames(lambda f: replace(f, t_capture_ns=f.t_capture_ns + 50 * MS)),
    ),
    Fault(
        "a camera's stamps are 0.3 s old",
        "clock_skew",
        None,
        after(
            lambda items: [(t, m, r + 300 * MS) if t == "/camera/front" else (t, m, r) for t, m, r in items],
        ),
    ),
    Fault(
        "a camera's clock loses 1%",
        "clock_skew",
        None,
        frames(lambda f: replace(f, t_capture_ns=round(0.99 * f.t_capture_ns))),
    ),
    Fault("a camera's computer is 0.2 s ahead", "picture_lag", None, shifted_camera(200 * MS)),
    Fault("a camera's computer is 0.2 s behind", "picture_lag", None, shifted_camera(-200 * MS)),
    Fault(
        "actions are stamped 0.15 s late",
        "action_lag",
        None,
        each(Setpoint, lambda m: replace(m, t_due_ns=m.t_due_ns + 150 * MS)),
    ),
    Fault(
        "actions are stamped 0.15 s early",
        "action_lag",
        None,
        each(Setpoint, lambda m: replace(m, t_due_ns=m.t_due_ns - 150 * MS)),
    ),
    Fault("states tell late what was commanded", "action_lag", None, commanded_late(150 * MS)),
    Fault("a camera hangs", "frozen_camera", 0.8, frozen),
    Fault("a camera is black", "blank_camera", 1.2, dark(0)),
    Fault("a camera's lens is covered", "blank_camera", 1.2, dark(4)),
    Fault("actions are cut off at the bound", "saturated_action", 1.0, each(ActionChunk, saturated)),
    Fault("a joint is asked for its top speed", "saturated_action", 1.0, at_top_speed),
    Fault("a setpoint jumps", "jumping_action", 1.0, each(Setpoint, jumping_setpoint)),
    Fault("the commanded tool jumps", "jumping_action", 1.0, each(State, jumping_tool)),
    Fault("a chunk jumps", "jumping_action", 1.0, each(ActionChunk, jumping_chunk)),
    Fault(
        "the gripper is measured upside down",
        "gripper_polarity",
        None,
        gripper(lambda v: 1.0 - v, measured=True, asked=False),
    ),
    Fault(
        "the gripper is upside down everywhere",
        "gripper_polarity",
        None,
        gripper(lambda v: 1.0 - v, measured=True, asked=True),
    ),
    Fault(
        "the gripper goes from -1 to 1",
        "gripper_polarity",
        None,
        gripper(lambda v: 2.0 * v - 1.0, measured=True, asked=True),
    ),
    Fault("1.5 s of nothing before", "idle_head", 0.0, idle(1500 * MS, head=True)),
    Fault("1.5 s of nothing after", "idle_tail", None, idle(1500 * MS, head=False)),
    Fault("only half a second", "too_short", 0.0, until(500 * MS)),
)
"""What is wrong within one episode."""
