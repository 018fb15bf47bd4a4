"""An episode as a Rerun recording (.rrd): cameras, 3D paths, plots, action bins, safety and latencies on one time line.

Open it with `rerun FILE.rrd`. Needs the extra `view`. The time line is `time`, seconds since the first message of the
log; base frame, metres, z up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import write_aside
from reflexarc.wire.geometry import apply_delta
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import (
    ActionChunk,
    CameraFrame,
    Event,
    Message,
    SafetyReport,
    Setpoint,
    SimTruth,
    State,
)

try:
    import rerun as rr
    import rerun.blueprint as rrb
except ImportError as error:
    raise LogError("a Rerun recording needs rerun-sdk: pip install 'reflexarc[view]'") from error

TIMELINE = "time"

_MEASURED = (66, 133, 244)
_COMMANDED = (251, 140, 0)
_PLANNED = (171, 71, 188)
_TARGET = (67, 160, 71)
_STATE_COLOURS = {
    "off": 0x9E9E9EFF,
    "ready": 0x90CAF9FF,
    "active": 0x43A047FF,
    "reduced": 0xC0CA33FF,
    "hold": 0xFDD835FF,
    "protective_stop": 0xFB8C00FF,
    "e_stop": 0xE53935FF,
    "recovery": 0x8E24AAFF,
}
_LEVELS = {"e_stop": "ERROR", "protective_stop": "ERROR", "underrun": "WARN", "peer_lost": "ERROR"}


def write_rrd(reader: EpisodeReader, path: Path) -> None:
    """Write the recording of one episode, whole or cut; raises LogError if the log holds no message."""
    starts = [raw.log_time_ns for raw in reader.raw_messages()]
    if not starts:
        raise LogError(f"{reader.path}: the log holds no message to show")

    def write(target: Path) -> None:
        recording = rr.RecordingStream("reflexarc", recording_id=reader.path.stem)
        rr.set_log_time_enabled(False, recording)
        recording.save(target, default_blueprint=_blueprint(reader))
        _Episode(reader, recording, min(starts)).send()
        recording.flush()
        recording.disconnect()

    write_aside(path, write, (OSError, RuntimeError))


class _Episode:
    """Sends one log to one recording, topic by topic, in columns."""

    def __init__(self, reader: EpisodeReader, recording: rr.RecordingStream, start_ns: int) -> None:
        self._reader = reader
        self._recording = recording
        self._start_ns = start_ns

    def send(self) -> None:
        """Everything the log has; topics that are missing are left out."""
        states = self._all(State, "/state")
        chunks = self._all(ActionChunk, "/chunk")
        self._about()
        for camera in self._reader.cameras:
            self._camera(camera)
        if states:
            self._arm(states)
            self._timing(states)
        if states and chunks:
            self._plans(states, chunks)
        if chunks:
            self._policy(chunks)
        self._safety(states)
        self._events()
        self._targets()

    def _all[M: Message](self, kind: type[M], *topics: str) -> list[M]:
        return [message for _, message in self._reader.messages(topics) if isinstance(message, kind)]

    def _time(self, times_ns: Sequence[int] | NDArray[np.int64]) -> list[rr.TimeColumn]:
        since = np.asarray(times_ns, dtype=np.int64) - self._start_ns
        return [rr.TimeColumn(TIMELINE, duration=since.astype("timedelta64[ns]"))]

    def _columns(
        self, entity: str, times_ns: Sequence[int] | NDArray[np.int64], columns: rr.ComponentColumnList
    ) -> None:
        self._recording.send_columns(entity, self._time(times_ns), columns, strict=True)

    def _plot(
        self, entity: str, times_ns: Sequence[int] | NDArray[np.int64], values: object, names: Sequence[str]
    ) -> None:
        """A plot of len(names) lines; values: (T, lines)."""
        table = np.asarray(values, dtype=np.float64).reshape(len(times_ns), len(names))
        self._static(entity, rr.SeriesLines(names=list(names)))
        self._columns(entity, times_ns, rr.Scalars.columns(scalars=table))

    def _static(self, entity: str, archetype: rr.AsComponents) -> None:
        self._recording.log(entity, archetype, static=True, strict=True)

    def _about(self) -> None:
        """What the episode was, as text."""
        metadata = self._reader.metadata
        rows: dict[str, object] = {
            key: metadata[key]
            for key in ("task", "seed", "policy", "clock", "git_revision")
            if key in metadata
        }
        rows["outcome"] = "cut short" if self._reader.is_cut else self._reader.outcome
        rows |= metadata.get("versions", {})
        table = "\n".join(f"| {key} | `{value}` |" for key, value in rows.items())
        text = f"# {self._reader.instruction or self._reader.path.stem}\n\n| | |\n|---|---|\n{table}\n"
        self._static("about", rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))

    def _camera(self, name: str) -> None:
        frames = self._all(CameraFrame, CAMERA_PREFIX + name)
        for frame in frames:
            self._recording.set_time(TIMELINE, duration=(frame.t_capture_ns - self._start_ns) * 1e-9)
            self._recording.log(f"camera/{name}", rr.Image(decode_image(frame)), strict=True)
        self._recording.reset_time()

    def _arm(self, states: Sequence[State]) -> None:
        """The TCP in 3D and as plots, joints, gripper and wrench; measured beside commanded."""
        times = [state.t_state_ns for state in states]
        measured = np.stack([state.pose_base_tcp for state in states])
        commanded = np.stack([state.pose_base_tcp_commanded for state in states])
        for label, poses, colour in (("measured", measured, _MEASURED), ("commanded", commanded, _COMMANDED)):
            path = rr.LineStrips3D([poses[:, :3]], colors=[colour], radii=[0.001])
            self._static(f"world/tcp_{label}/path", path)
            point = f"world/tcp_{label}/now"
            self._static(point, rr.Points3D.from_fields(colors=[colour], radii=[0.008]))
            self._columns(point, times, rr.Points3D.columns(positions=poses[:, :3]))
        axes = "world/tcp_axes"
        self._static(axes, rr.TransformAxes3D(0.06))
        self._columns(
            axes,
            times,
            rr.Transform3D.columns(translation=measured[:, :3], quaternion=measured[:, [4, 5, 6, 3]]),
        )
        self._static("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        self._plot("tcp/measured", times, measured[:, :3], ("x", "y", "z"))
        self._plot("tcp/commanded", times, commanded[:, :3], ("x cmd", "y cmd", "z cmd"))
        error_mm = 1e3 * np.linalg.norm(measured[:, :3] - commanded[:, :3], axis=1)
        self._plot("tcp_error", times, error_mm, ("|measured − commanded| mm",))
        names = self._joint_names(len(states[0].joint_position))
        self._plot("joints/position", times, [state.joint_position for state in states], names)
        goals = [state.joint_position_commanded for state in states]
        self._plot("joints/commanded", times, goals, [f"{name} cmd" for name in names])
        self._plot("joints_velocity", times, [state.joint_velocity for state in states], names)
        self._plot(
            "wrench/force", times, [state.wrench_tcp[:3] for state in states], ("fx N", "fy N", "fz N")
        )
        openings = [(state.gripper, state.gripper_commanded) for state in states]
        self._plot("gripper", times, openings, ("opening", "commanded"))

    def _joint_names(self, count: int) -> list[str]:
        robot = self._reader.metadata.get("configs", {}).get("robot", {})
        names = [str(joint.get("name")) for joint in robot.get("joints", [])]
        return names if len(names) == count else [f"joint{index + 1}" for index in range(count)]

    def _plans(self, states: Sequence[State], chunks: Sequence[ActionChunk]) -> None:
        """Each chunk as the way it asks for, from the TCP target commanded when its picture was taken."""
        times = np.array([state.t_state_ns for state in states])
        places, strips = [], []
        for chunk in chunks:
            index = int(np.searchsorted(times, chunk.t_obs_ns, side="right")) - 1
            if index < 0 or chunk.actions.ndim != 2 or chunk.actions.shape[1] < 6:
                continue
            pose = states[index].pose_base_tcp_commanded
            way = [pose[:3]]
            for action in chunk.actions:
                pose = apply_delta(pose, action[:6])
                way.append(pose[:3])
            places.append(chunk.t_ns)
            strips.append(np.stack(way))
        if strips:
            self._static("world/plan", rr.LineStrips3D.from_fields(colors=[_PLANNED], radii=[0.003]))
            self._columns("world/plan", places, rr.LineStrips3D.columns(strips=strips))

    def _policy(self, chunks: Sequence[ActionChunk]) -> None:
        """Bins as heat maps (one a chunk, and the first action of each over the episode), tokens, latencies."""
        for chunk in chunks:
            self._recording.set_time(TIMELINE, duration=(chunk.t_ns - self._start_ns) * 1e-9)
            if np.any(chunk.bins >= 0):
                tensor = rr.Tensor(chunk.bins, dim_names=("step", "dimension"), value_range=(0, 255))
                self._recording.log("policy/bins", tensor, strict=True)
            if chunk.policy_tokens:
                tokens = " ".join(map(str, chunk.policy_tokens))
                self._recording.log("policy/tokens", rr.TextLog(tokens, level="TRACE"), strict=True)
        self._recording.reset_time()
        first = [chunk.bins[0] for chunk in chunks if np.any(chunk.bins >= 0)]
        if first and len({row.shape for row in first}) == 1:
            history = rr.Tensor(np.stack(first), dim_names=("chunk", "dimension"), value_range=(0, 255))
            self._static("policy/bins_history", history)
        for stage in sorted({stage for chunk in chunks for stage in chunk.latency_ns}):
            timed = [(chunk.t_ns, chunk.latency_ns[stage]) for chunk in chunks if stage in chunk.latency_ns]
            times, spent = zip(*timed, strict=True)
            self._plot(f"latency/{stage}", times, np.array(spent) * 1e-6, (f"{stage} ms",))

    def _timing(self, states: Sequence[State]) -> None:
        """How regular the loops were, and how old the chunk was that moved the arm."""
        self._period("timing/host_period", [state.t_ns for state in states], "host period ms")
        setpoints = [setpoint.t_ns for setpoint in self._all(Setpoint, "/setpoint")]
        self._period("timing/controller_period", setpoints, "controller period ms")
        aged = [(state.t_ns, state.chunk_age_ns) for state in states if state.chunk_age_ns >= 0]
        if aged:
            times, ages = zip(*aged, strict=True)
            self._plot("latency/chunk_age", times, np.array(ages) * 1e-6, ("age of the chunk ms",))

    def _period(self, entity: str, times_ns: Sequence[int], name: str) -> None:
        if len(times_ns) > 1:
            self._plot(entity, times_ns[1:], np.diff(times_ns) * 1e-6, (name,))

    def _safety(self, states: Sequence[State]) -> None:
        """The state as a coloured lane; each thing that was limited as a line of text."""
        reports = self._all(SafetyReport, "/safety")
        lane = [(state.t_state_ns, state.safety) for state in states]
        self._lane(
            "lanes/safety", lane or [(report.t_ns, report.state) for report in reports], _STATE_COLOURS
        )
        for report in reports:
            for text, level in _report_lines(report):
                self._text("log/safety", report.t_ns, text, level)

    def _events(self) -> None:
        """Events as text, and who was in control as a coloured lane."""
        events = self._all(Event, "/event")
        control = [
            (event.t_ns, str(event.data.get("source", ""))) for event in events if event.kind == "control"
        ]
        self._lane("lanes/control", control, {})
        for event in events:
            details = " ".join(f"{key}={value}" for key, value in event.data.items())
            text = " ".join(part for part in (f"{event.source}: {event.kind}", event.text, details) if part)
            self._text("log/event", event.t_ns, text, _LEVELS.get(event.kind, "INFO"))

    def _targets(self) -> None:
        """What the instruction is about: only the simulator knows."""
        truths = self._all(SimTruth, "/sim/truth")
        if truths:
            points = np.stack([truth.focus for truth in truths])  # (T, 2, 3)
            for index, label in enumerate(("object", "goal")):
                entity = f"world/focus/{label}"
                style = rr.Points3D.from_fields(
                    colors=[_TARGET], radii=[0.012 - 0.004 * index], labels=[label]
                )
                self._static(entity, style)
                self._columns(
                    entity, [truth.t_ns for truth in truths], rr.Points3D.columns(positions=points[:, index])
                )

    def _lane(self, entity: str, values: Sequence[tuple[int, str]], colours: dict[str, int]) -> None:
        """Log a state where it changes."""
        if colours:
            self._static(entity, rr.StateConfiguration(values=list(colours), colors=list(colours.values())))
        changed = [
            pair for pair, before in zip(values, [None, *values[:-1]], strict=False) if _is_new(pair, before)
        ]
        for t_ns, value in changed:
            self._recording.set_time(TIMELINE, duration=(t_ns - self._start_ns) * 1e-9)
            self._recording.log(entity, rr.StateChange(state=value), strict=True)
        self._recording.reset_time()

    def _text(self, entity: str, t_ns: int, text: str, level: str) -> None:
        self._recording.set_time(TIMELINE, duration=(t_ns - self._start_ns) * 1e-9)
        self._recording.log(entity, rr.TextLog(text, level=level), strict=True)
        self._recording.reset_time()


def _is_new(pair: tuple[int, str], before: tuple[int, str] | None) -> bool:
    return before is None or before[1] != pair[1]


def _report_lines(report: SafetyReport) -> Iterator[tuple[str, str]]:
    """(text, level) of a safety report: its change of state, then what it limited."""
    if report.state != report.previous_state:
        level = _LEVELS.get(report.state, "INFO")
        yield f"{report.previous_state} → {report.state}: {report.reason}", level
    for item in report.interventions:
        yield (
            f"{item.rule} {item.field}: asked {item.asked:.4g}, allowed {item.allowed:.4g}, "
            f"margin {item.margin:.3g}",
            "WARN",
        )


def _blueprint(reader: EpisodeReader) -> rrb.Blueprint:
    """Pictures and 3D to the left, plots to the right, lanes and texts below."""
    cameras = [rrb.Spatial2DView(origin=f"camera/{name}", name=name) for name in reader.cameras]
    scene = rrb.Spatial3DView(
        origin="world",
        name="TCP: measured blue, commanded orange, planned purple",
        eye_controls=rrb.EyeControls3D(position=(1.3, -0.7, 0.8), look_target=(0.5, 0.0, 0.1)),
    )
    left = rrb.Vertical(rrb.Horizontal(*cameras), scene, row_shares=[2, 3]) if cameras else scene
    motion = rrb.Tabs(
        rrb.Vertical(
            rrb.TimeSeriesView(origin="tcp", name="TCP position, m"),
            rrb.TimeSeriesView(origin="tcp_error", name="TCP tracking error, mm"),
            rrb.TimeSeriesView(origin="gripper", name="Gripper opening"),
            name="TCP",
        ),
        rrb.Vertical(
            rrb.TimeSeriesView(origin="joints", name="Joint positions, rad"),
            rrb.TimeSeriesView(origin="joints_velocity", name="Joint velocities, rad/s"),
            rrb.TimeSeriesView(origin="wrench", name="Wrist force, N"),
            name="Joints",
        ),
        rrb.Horizontal(
            rrb.TensorView(origin="policy/bins", name="Bins of the chunk"),
            rrb.TensorView(origin="policy/bins_history", name="First action of every chunk"),
            name="Action bins",
        ),
        rrb.Vertical(
            rrb.TimeSeriesView(origin="latency", name="Latency, ms"),
            rrb.TimeSeriesView(origin="timing", name="Loop periods, ms"),
            name="Timing",
        ),
        rrb.TextDocumentView(origin="about", name="About"),
        active_tab=0,
    )
    below = rrb.Horizontal(
        rrb.StateTimelineView(origin="lanes", name="Safety state and who is in control"),
        rrb.TextLogView(origin="log", name="Safety and events"),
    )
    return rrb.Blueprint(
        rrb.Vertical(rrb.Horizontal(left, motion), below, row_shares=[4, 1]),
        rrb.TimePanel(timeline=TIMELINE, expanded=False),
        rrb.SelectionPanel(expanded=False),
        rrb.BlueprintPanel(expanded=False),
    )
