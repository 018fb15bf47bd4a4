"""What Rerun is given to show, read back: the arm where it was, plans and what came of them, limits, a window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import mujoco
import numpy as np
import pytest
import rerun as rr
from rerun.chunk import RrdReader

from contracts.episode_bench import MS, motion, state, written
from reflexarc.configs.errors import LogError
from reflexarc.configs.load import load_robot, resolve_asset
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.rerun_arm import ArmScene
from reflexarc.datasets.rerun_view import AT_S, TIMELINE, EpisodeView, write_rrd
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.geometry import rotate
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    EpisodeStart,
    Intervention,
    Message,
    SafetyReport,
    SimInitial,
    SimSteps,
)

PANDA = load_robot("panda")
HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
HOME = np.array(PANDA.home)


def values(path: Path, entity: str, component: str) -> tuple[F64, list[Any]]:
    """(T,) s and T values of a component of an entity, of which each row holds one; static ones at NaN."""
    times, found = [], []
    for chunk in RrdReader(str(path)).stream():
        if str(chunk.entity_path) != f"/{entity}":
            continue
        batch = chunk.to_record_batch()
        if component not in batch.schema.names:
            continue
        column = batch.column(batch.schema.names.index(component)).to_pylist()
        stamps = batch.column(TIMELINE).to_numpy() if TIMELINE in batch.schema.names else [None] * len(column)
        for stamp, value in zip(stamps, column, strict=True):
            if value is not None:
                times.append(np.nan if stamp is None else stamp.astype(np.int64) * 1e-9)
                found.append(value[0])
    order = np.argsort(times, kind="stable")
    return np.array(times)[order], [found[index] for index in order]


def entities(path: Path) -> set[str]:
    return {str(chunk.entity_path) for chunk in RrdReader(str(path)).stream()}


def panda_log(path: Path, messages: list[tuple[str, Message]]) -> EpisodeReader:
    """A log of the Panda, whose metadata name it."""
    metadata = {"task": "lift", "instruction": "lift it", "configs": {"robot": PANDA.model_dump(mode="json")}}
    with EpisodeWriter(path, metadata, fsync=False) as writer:
        for topic, message in messages:
            writer.write(topic, message)
        writer.close({"success": True})
    return EpisodeReader(path)


def moving(seconds: float) -> list[tuple[str, Message]]:
    """States of an arm whose first joint turns at 1 rad/s from home, and whose gripper closes."""
    found: list[tuple[str, Message]] = []
    for tick in range(round(seconds * 200) + 1):
        t = tick * 0.005
        joints = HOME + np.array([t, 0, 0, 0, 0, 0, 0])
        message = state(tick * 5 * MS, commanded=HERE + [0.1 * t, 0, 0, 0, 0, 0, 0], gripper=1 - t, seq=tick)
        found.append(("/state", msgspec.structs.replace(message, joint_position=joints)))
    return found


def kinematics(joints: F64, body: str, opening: float = 1.0) -> F64:
    """(3,) where MuJoCo has a body of the Panda, base frame."""
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(PANDA.mjcf)))
    data = mujoco.MjData(model)
    for name, position in zip(PANDA.joint_names, joints, strict=True):
        data.qpos[model.joint(name).qposadr] = position
    for joint in range(model.njnt):
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE:
            data.qpos[model.jnt_qposadr[joint]] = opening * model.jnt_range[joint, 1]
    mujoco.mj_kinematics(model, data)
    return np.array(data.body(body).xpos)


def test_the_arm_stands_where_its_joints_say(tmp_path: Path) -> None:
    write_rrd(panda_log(tmp_path / "e.mcap", moving(0.5)), tmp_path / "e.rrd")
    for body in ("link4", "hand", "left_finger"):
        times, places = values(tmp_path / "e.rrd", f"world/scene/{body}", "Transform3D:translation")
        assert np.all(np.diff(times) > 0.019)  # 50 Hz are enough for the eye
        for time, place in list(zip(times, places, strict=True))[::6]:
            expected = kinematics(HOME + np.array([time, 0, 0, 0, 0, 0, 0]), body, 1 - time)
            np.testing.assert_allclose(place, expected, atol=1e-5)
    shapes = [name for name in entities(tmp_path / "e.rrd") if name.startswith("/world/scene/link3/")]
    assert len(shapes) == 2  # its two capsules


SCENE = """<mujoco><asset><mesh name="wedge" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset><worldbody>
<geom name="table" type="plane" size="1 1 .1"/>
<body name="base" pos="1 0 0"><geom type="cylinder" size=".1 .2"/>
<body name="arm"><joint name="j" axis="0 0 1"/><geom type="capsule" size=".05" fromto="0 0 0 .3 0 0"/>
<geom type="ellipsoid" size=".1 .2 .3"/><geom type="mesh" mesh="wedge" pos="0 0 1"/></body></body>
<body name="cube" pos="0 0 1"><freejoint/><geom type="box" size=".02 .03 .04" rgba="1 0 0 1"/>
<geom type="sphere" size=".01" group="4"/></body></worldbody></mujoco>"""


def test_a_simulated_scene_is_shown_with_what_lies_in_it(tmp_path: Path) -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    initial = SimInitial(
        t_ns=0,
        clock="virtual",
        model_xml=SCENE,
        integration_state=np.zeros(3),
        geom_rgba=np.tile([0.0, 1.0, 0.0, 1.0], (model.ngeom, 1)),
        task="lift",
        seed=0,
        mujoco_version="4.0.0",
    )
    qpos = np.array([0.3, 0.5, 0.1, 0.7, 1.0, 0.0, 0.0, 0.0])
    steps = SimSteps(
        t_ns=10 * MS, clock="virtual", first_step=0, control=np.zeros((1, 0)), qpos=qpos, qvel=np.zeros(7)
    )
    metadata = {"configs": {"robot": {"joints": [{"name": "j"}], "base_body": "base", "mjcf": ""}}}
    path = tmp_path / "e.mcap"
    with EpisodeWriter(path, metadata, fsync=False) as writer:
        writer.write("/sim/initial", initial)
        writer.write("/sim/steps", steps)
        writer.close({})
    write_rrd(EpisodeReader(path), tmp_path / "e.rrd")
    _, places = values(tmp_path / "e.rrd", "world/scene/cube", "Transform3D:translation")
    np.testing.assert_allclose(places[-1], qpos[1:4], atol=1e-6)
    _, origin = values(tmp_path / "e.rrd", "world/scene", "Transform3D:translation")
    np.testing.assert_allclose(origin[-1], [-1.0, 0.0, 0.0])  # everything is shown in the base frame
    shown = {name.rsplit("/", 1)[1] for name in entities(tmp_path / "e.rrd") if name.count("/") == 4}
    hidden = next(geom for geom in range(model.ngeom) if model.geom_group[geom] == 4)
    assert shown == {str(geom) for geom in range(model.ngeom)} - {str(hidden)}
    _, colours = values(tmp_path / "e.rrd", f"world/scene/cube/{hidden - 1}", "Boxes3D:colors")
    assert colours[0] == 0x00FF00FF


def test_shapes_are_placed_as_mujoco_places_them() -> None:
    scene = ArmScene(mujoco.MjModel.from_xml_string(SCENE), ["j"], "base")
    shapes = dict(scene.shapes())
    capsule = next(shape for shape in shapes.values() if isinstance(shape, rr.Capsules3D))
    assert capsule.translations is not None
    assert capsule.quaternions is not None
    begin = np.array(capsule.translations.pa_array.to_pylist()[0])
    x, y, z, w = capsule.quaternions.pa_array.to_pylist()[0]
    end = begin + rotate(np.array([w, x, y, z]), np.array([0.0, 0.0, 0.3]))
    ends = sorted([begin.tolist(), end.tolist()])
    np.testing.assert_allclose(ends, [[0, 0, 0], [0.3, 0, 0]], atol=1e-6)
    mesh = next(shape for shape in shapes.values() if isinstance(shape, rr.Mesh3D))
    assert mesh.vertex_positions is not None
    corners = np.array(mesh.vertex_positions.pa_array.to_pylist()).round(5)
    np.testing.assert_allclose(
        sorted(corners.tolist()), [[0, 0, 1], [0, 0, 2], [0, 1, 1], [1, 0, 1]], atol=1e-6
    )
    with pytest.raises(LogError, match="the model of the arm has no joint elbow"):
        ArmScene(mujoco.MjModel.from_xml_string(SCENE), ["elbow"], "base")


def chunk(t_ns: int, dx: float, tokens: list[int]) -> ActionChunk:
    """Four steps of 100 ms, each `dx` m forward."""
    return ActionChunk(
        t_ns=t_ns + 20 * MS,
        clock="virtual",
        obs_seq=0,
        t_obs_ns=t_ns,
        actions=np.tile([dx, 0, 0, 0, 0, 0, 1.0], (4, 1)),
        bins=np.full((4, 7), 128, dtype=np.int16),
        policy_tokens=tokens,
        tokenizer_id="uniform",
        step_ns=100 * MS,
        spec_id="tcp-delta-7/h4/100ms",
        model_id="m",
        latency_ns={"vision": 3 * MS},
    )


def test_a_plan_is_compared_with_what_was_done_and_tokens_are_a_heat_map(tmp_path: Path) -> None:
    # The arm moves at 0.1 m/s: the first plan asks for just that, the second for 5 mm more a step.
    messages = moving(1.2)
    messages += [("/chunk", chunk(0, 0.01, [5, 6, 7])), ("/chunk", chunk(400 * MS, 0.015, [8, 9]))]
    write_rrd(panda_log(tmp_path / "e.mcap", messages), tmp_path / "e.rrd")
    times, off = values(tmp_path / "e.rrd", "tcp_error/plan", "Scalars:scalars")
    np.testing.assert_allclose(times, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], atol=1e-9)
    np.testing.assert_allclose(off, [0, 0, 0, 0, 5, 10, 15, 20], atol=1e-4)
    _, done = values(tmp_path / "e.rrd", "world/done", "LineStrips3D:strips")
    np.testing.assert_allclose(done[0][-1], HERE[:3] + [0.04, 0, 0], atol=1e-6)
    _, tokens = values(tmp_path / "e.rrd", "policy/tokens_history", "Tensor:data")
    assert tokens[0]["shape"] == [2, 3]
    assert tokens[0]["buffer"] == [5, 6, 7, 8, 9, -1]


def test_limits_are_a_lane_that_ends_when_they_do(tmp_path: Path) -> None:
    def report(t_ns: int, rule: str, scale: float) -> tuple[str, Message]:
        item = Intervention(rule=rule, field="joint1", asked=3.0, allowed=2.0, margin=0.0)
        message = SafetyReport(
            t_ns=t_ns,
            clock="virtual",
            seq=0,
            state="active",
            previous_state="active",
            interventions=[item],
            speed_scale=scale,
        )
        return "/safety", message

    messages = moving(1.0)
    messages += [report(t * MS, "tcp_speed", 0.5) for t in range(200, 260, 5)]
    messages.append(report(800 * MS, "workspace", 0.2))
    write_rrd(panda_log(tmp_path / "e.mcap", messages), tmp_path / "e.rrd")
    times, states = values(tmp_path / "e.rrd", "lanes/limited", "StateChange:state")
    assert states == ["tcp_speed", "nothing", "workspace", "nothing"]
    np.testing.assert_allclose(times, [0.2, 0.305, 0.8, 0.85], atol=1e-6)
    times, shares = values(tmp_path / "e.rrd", "safety/speed_scale", "Scalars:scalars")
    assert set(shares) == {0.5, 0.2}


def test_a_window_shows_what_is_around_an_instant_on_the_same_time_line(tmp_path: Path) -> None:
    reader = panda_log(tmp_path / "e.mcap", moving(6.0))
    write_rrd(reader, tmp_path / "at.rrd", 3.2)
    times, _ = values(tmp_path / "at.rrd", "tcp/measured", "Scalars:scalars")
    assert (times[0], times[-1]) == pytest.approx((3.2 - AT_S, 3.2 + AT_S), abs=0.006)
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-vvv"]
    printed = subprocess.run(
        [*command, str(tmp_path / "at.rrd")], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "[{min: 3100000000, max: 3300000000}]" in printed  # marked on the time line, ns
    assert "TimePanelBlueprint:loop_mode" in printed  # and played again and again
    with pytest.raises(LogError, match=r"--at 7 is not within the log's 0\.\.6\.00 s"):
        write_rrd(reader, tmp_path / "late.rrd", 7.0)
    assert not (tmp_path / "late.rrd").exists()


class Part:
    """Some messages, as a live view has them."""

    def __init__(self, messages: list[tuple[str, Message]]) -> None:
        self._messages = messages
        self.cameras = tuple(
            sorted({topic.removeprefix("/camera/") for topic, _ in messages if "/camera/" in topic})
        )

    def messages(self, topics: Any = None) -> Any:
        return (each for each in self._messages if topics is None or each[0] in set(topics))


def test_a_stream_in_parts_shows_what_the_whole_log_shows(tmp_path: Path) -> None:
    messages = [*motion(lambda t: HERE + [0.1 * t, 0, 0, 0, 0, 0, 0], 1.0)]
    messages += [("/chunk", chunk(200 * MS, 0.01, [5, 6]))]
    messages.sort(key=lambda each: each[1].t_ns)
    assert isinstance(messages[0][1], EpisodeStart)
    reader = panda_log(tmp_path / "e.mcap", messages)
    write_rrd(reader, tmp_path / "whole.rrd")

    recording = rr.RecordingStream("parts")
    rr.set_log_time_enabled(False, recording)
    recording.save(tmp_path / "parts.rrd")
    view = EpisodeView(recording, 0, PANDA.model_dump(mode="json"), keep_s=10.0)
    for begin in range(0, len(messages), 37):
        view.send(Part(messages[begin : begin + 37]))
    view.send(Part([]), last=True)
    recording.flush()
    recording.disconnect()
    assert entities(tmp_path / "parts.rrd") - {"/__properties"} == entities(tmp_path / "whole.rrd") - {
        "/__properties",
        "/about",
    }
    for entity, component in (
        ("tcp/measured", "Scalars:scalars"),
        ("tcp_error/plan", "Scalars:scalars"),
        ("timing/host_period", "Scalars:scalars"),
        ("world/scene/hand", "Transform3D:translation"),
        ("lanes/safety", "StateChange:state"),
    ):
        whole, parts = (values(tmp_path / f"{name}.rrd", entity, component) for name in ("whole", "parts"))
        np.testing.assert_array_equal(parts[0], whole[0])
        assert parts[1] == whole[1]


def test_what_cannot_be_shown_is_said_in_the_recording(tmp_path: Path) -> None:
    metadata = {"configs": {"robot": {"joints": [{"name": "j"}], "base_body": "base", "mjcf": "/gone.xml"}}}
    broken = SimInitial(
        t_ns=0,
        clock="virtual",
        model_xml="<mujoco><nothing/></mujoco>",
        integration_state=np.zeros(3),
        geom_rgba=np.zeros((1, 4)),
        task="lift",
        seed=0,
        mujoco_version="9",
    )
    joints = msgspec.structs.replace(chunk(0, 0.01, []), actions=np.zeros((4, 8)), spec_id="joint-8/h4/100ms")
    with EpisodeWriter(tmp_path / "e.mcap", metadata, fsync=False) as writer:
        writer.write("/sim/initial", broken)
        for topic, message in [*moving(0.5), ("/chunk", joints)]:
            writer.write(topic, message)
        writer.close({})
    write_rrd(EpisodeReader(tmp_path / "e.mcap"), tmp_path / "e.rrd")
    _, said = values(tmp_path / "e.rrd", "log/event", "TextLog:text")
    assert any("the arm is not shown: file '/gone.xml' does not exist" in line for line in said)
    assert any("the simulated scene is not shown: its model is none here" in line for line in said)
    assert "/world/plan" not in entities(tmp_path / "e.rrd")  # joints are no way of the TCP


def test_a_log_whose_arm_is_unknown_is_shown_without_it(tmp_path: Path) -> None:
    reader = written(tmp_path / "e.mcap", [*motion(lambda _: HERE, 0.2)])
    write_rrd(reader, tmp_path / "e.rrd")
    shown = entities(tmp_path / "e.rrd")
    assert "/world/tcp_measured/path" in shown
    assert not [name for name in shown if name.startswith("/world/scene")]
