"""An episode in Rerun: cameras, the arm itself, plans, plots, tokens, safety and latencies on one time line.

To a file (.rrd, opened with `rerun FILE.rrd`), or batch by batch to wherever a recording stream leads, while the
episode is still going on: `EpisodeView` takes messages and does not care where from. Needs the extra `view`. The time
line is `time`, seconds since the first message; base frame, metres, z up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError, ReflexarcError
from reflexarc.configs.load import resolve_asset
from reflexarc.datasets.format import CAMERA_PREFIX, content_time_ns
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import write_aside
from reflexarc.wire.geometry import apply_delta
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    CameraFrame,
    EpisodeStart,
    Event,
    Message,
    SafetyReport,
    Setpoint,
    SimInitial,
    SimSteps,
    SimTruth,
    State,
)

try:
    import rerun as rr
except ImportError as error:
    raise LogError("a Rerun recording needs rerun-sdk: pip install 'reflexarc[view]'") from error

from reflexarc.datasets.rerun_arm import ROOT, ArmScene
from reflexarc.datasets.rerun_layout import blueprint

TIMELINE = "time"
AT_S = 1.5
"""What is shown before and after an instant that somebody wants to look at."""
MARK_S = 0.1
"""Around that instant, marked on the time line."""
POSES_HZ = 50.0
"""The arm is posed no more often: nobody sees more, and files are smaller."""
TRAIL_POINTS = 500
"""Of the way behind the TCP, which is sent anew with every batch."""
_LIMITED_NS = 50_000_000
"""A limit that is not reported again for so long is over."""
TCP_DELTAS = "tcp-delta"
"""Begin of the ids of action spaces whose chunks are a way of the TCP; one of joints is not drawn."""
_ALWAYS = (SimInitial, EpisodeStart)
"""Messages that tell what all the others are about, whenever they were made."""

_MEASURED = (66, 133, 244)
_COMMANDED = (251, 140, 0)
_PLANNED = (171, 71, 188)
_DONE = (38, 198, 218)
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


class Source(Protocol):
    """Where messages come from: a log, a part of one, or what has just arrived."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that have images."""

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, Message]]:
        """(topic, message), all or of some topics, in the order they were recorded."""


class Window:
    """The part of a log between two instants, ns of its clock."""

    def __init__(self, reader: EpisodeReader, begin_ns: int, end_ns: int) -> None:
        self._reader = reader
        self._begin_ns, self._end_ns = begin_ns, end_ns
        self.cameras = reader.cameras

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, Message]]:
        """As a `Source`; what the others are about is never left out."""
        for topic, message in self._reader.messages(topics):
            if isinstance(message, _ALWAYS) or self._begin_ns <= content_time_ns(message) <= self._end_ns:
                yield topic, message


def start_of(reader: EpisodeReader) -> tuple[int, int]:
    """(first, last) ns of the log's time line; LogError if the log holds no message."""
    times = [raw.log_time_ns for raw in reader.raw_messages()]
    if not times:
        raise LogError(f"{reader.path}: the log holds no message to show")
    return min(times), max(times)


def window_at(reader: EpisodeReader, at_s: float) -> Window:
    """AT_S before and after an instant of the log, s on its time line; LogError if the log does not reach so far."""
    begin, end = start_of(reader)
    if not 0.0 <= at_s <= (end - begin) * 1e-9:
        raise LogError(
            f"{reader.path}: --at {at_s:g} is not within the log's 0..{(end - begin) * 1e-9:.2f} s"
        )
    at_ns = begin + round(at_s * 1e9)
    return Window(reader, at_ns - round(AT_S * 1e9), at_ns + round(AT_S * 1e9))


def write_rrd(reader: EpisodeReader, path: Path, at_s: float | None = None) -> None:
    """Write the recording of one episode, whole or cut; raises LogError if the log holds no message.

    at_s: only what is around this instant of the time line, which is marked.
    """
    begin, _ = start_of(reader)
    source = reader if at_s is None else window_at(reader, at_s)
    marked = None if at_s is None else (max(at_s - MARK_S, 0.0), at_s + MARK_S)

    def write(target: Path) -> None:
        recording = rr.RecordingStream("reflexarc", recording_id=reader.path.stem)
        rr.set_log_time_enabled(False, recording)
        recording.save(target, default_blueprint=blueprint(reader.cameras, TIMELINE, marked))
        view = EpisodeView(recording, begin, reader.metadata.get("configs", {}).get("robot", {}))
        view.tell_about(reader)
        view.send(source, last=True)
        recording.flush()
        recording.disconnect()

    write_aside(path, write, (OSError, RuntimeError))


class EpisodeView:
    """Sends messages to one recording, batch by batch, topic by topic, in columns."""

    def __init__(
        self,
        recording: rr.RecordingStream,
        start_ns: int,
        robot: dict[str, Any],
        keep_s: float = float("inf"),
    ) -> None:
        """robot: the configuration of the arm as plain data, empty if it is not known: then it is shown only where the
        simulator says what it is. keep_s: how much of the way behind the TCP is drawn."""
        self._recording = recording
        self._start_ns = start_ns
        self._names = [str(joint.get("name")) for joint in robot.get("joints", [])]
        self._base = str(robot.get("base_body", ""))
        self._keep_ns = keep_s * 1e9
        self._source: Source | None = None
        self._scene = self._open_scene(str(robot.get("mjcf", "")))
        self._simulated = False
        self._posed_ns = -1
        self._styled: set[str] = set()
        self._shown: dict[str, str] = {}
        self._ended: dict[str, int] = {}
        self._states: list[State] = []
        self._chunks: list[ActionChunk] = []
        self._pending: list[tuple[ActionChunk, F64]] = []
        self._limited_ns: int | None = None

    def tell_about(self, reader: EpisodeReader) -> None:
        """What the episode was, as text."""
        metadata = reader.metadata
        rows: dict[str, object] = {
            key: metadata[key]
            for key in ("task", "seed", "policy", "clock", "git_revision")
            if key in metadata
        }
        rows["outcome"] = "cut short" if reader.is_cut else reader.outcome
        rows |= metadata.get("versions", {})
        table = "\n".join(f"| {key} | `{value}` |" for key, value in rows.items())
        text = f"# {reader.instruction or reader.path.stem}\n\n| | |\n|---|---|\n{table}\n"
        self._static("about", rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))

    def send(self, source: Source, *, last: bool = False) -> None:
        """Everything the batch has; topics that are missing are left out. last: nothing follows."""
        self._source = source
        states = self._all(State, "/state")
        chunks = self._all(ActionChunk, "/chunk")
        self._remember(states, chunks)
        for camera in source.cameras:
            self._camera(camera)
        if states:
            self._arm(states)
            self._timing(states)
        self._bodies(states)
        self._plans(chunks, last)
        if chunks:
            self._policy(chunks)
        self._safety(states, last)
        self._events()
        self._targets()

    def _open_scene(self, mjcf: str) -> ArmScene | None:
        """The arm that the configuration names; None, and a line that says why, if it cannot be shown."""
        if not mjcf:
            return None
        try:
            return ArmScene.from_file(resolve_asset(mjcf), self._names, self._base)
        except ReflexarcError as error:
            self._text("log/event", self._start_ns, f"the arm is not shown: {error}", "WARN")
            return None

    def _remember(self, states: Sequence[State], chunks: Sequence[ActionChunk]) -> None:
        """What later batches refer to."""
        self._states += states
        self._chunks += chunks
        if self._states:
            oldest = self._states[-1].t_state_ns - self._keep_ns
            self._states = [state for state in self._states if state.t_state_ns >= oldest]
            self._chunks = [chunk for chunk in self._chunks if chunk.t_ns >= oldest]

    def _bodies(self, states: Sequence[State]) -> None:
        """The arm, or the whole simulated scene, where it was."""
        initial = next(iter(self._all(SimInitial, "/sim/initial")), None)
        if initial is not None:
            self._take_scene(initial)
        if self._scene is None:
            return
        steps = [step for step in self._all(SimSteps, "/sim/steps") if step.qpos.size == self._scene.size]
        if self._simulated and steps:
            times = np.array([step.t_ns for step in steps], dtype=np.int64)
            qpos = np.stack([step.qpos for step in steps])
        elif states:
            times = np.array([state.t_state_ns for state in states], dtype=np.int64)
            qpos = self._scene.qpos_of(states)
        else:
            return
        self._shapes(self._scene, int(times[0]))
        rows = self._thinned(times)
        for entity, columns in self._scene.poses(qpos[rows]):
            self._columns(entity, times[rows], columns)

    def _take_scene(self, initial: SimInitial) -> None:
        """From now on the simulated scene is shown; the arm alone, and a line that says why, if it cannot be."""
        try:
            self._scene = ArmScene.simulated(initial, self._names, self._base)
        except LogError as error:
            self._text("log/event", initial.t_ns, f"the simulated scene is not shown: {error}", "WARN")
            return
        self._simulated = True
        self._styled.discard(ROOT)

    def _shapes(self, scene: ArmScene, time_ns: int) -> None:
        """What the bodies look like from now on; another scene takes the place of the one before."""
        if ROOT in self._styled:
            return
        self._styled.add(ROOT)
        self._at(time_ns)
        self._recording.log(ROOT, rr.Clear(recursive=True), strict=True)
        for entity, shape in scene.shapes():
            self._recording.log(entity, shape, strict=True)
        self._recording.reset_time()

    def _thinned(self, times_ns: NDArray[np.int64]) -> list[int]:
        """The rows that are POSES_HZ apart, also from batch to batch."""
        rows = []
        for row, time_ns in enumerate(times_ns.tolist()):
            if self._posed_ns < 0 or time_ns - self._posed_ns >= 1e9 / POSES_HZ:
                rows.append(row)
                self._posed_ns = time_ns
        return rows

    def _all[M: Message](self, kind: type[M], *topics: str) -> list[M]:
        assert self._source is not None
        return [message for _, message in self._source.messages(topics) if isinstance(message, kind)]

    def _time(self, times_ns: Sequence[int] | NDArray[np.int64]) -> list[rr.TimeColumn]:
        since = np.asarray(times_ns, dtype=np.int64) - self._start_ns
        return [rr.TimeColumn(TIMELINE, duration=since.astype("timedelta64[ns]"))]

    def _at(self, time_ns: int) -> None:
        self._recording.set_time(TIMELINE, duration=(time_ns - self._start_ns) * 1e-9)

    def _columns(
        self, entity: str, times_ns: Sequence[int] | NDArray[np.int64], columns: rr.ComponentColumnList
    ) -> None:
        self._recording.send_columns(entity, self._time(times_ns), columns, strict=True)

    def _plot(
        self, entity: str, times_ns: Sequence[int] | NDArray[np.int64], values: object, names: Sequence[str]
    ) -> None:
        """A plot of len(names) lines; values: (T, lines)."""
        table = np.asarray(values, dtype=np.float64).reshape(len(times_ns), len(names))
        self._style(entity, rr.SeriesLines(names=list(names)))
        self._columns(entity, times_ns, rr.Scalars.columns(scalars=table))

    def _style(self, entity: str, archetype: rr.AsComponents) -> None:
        """How an entity looks: said once."""
        if entity not in self._styled:
            self._styled.add(entity)
            self._static(entity, archetype)

    def _static(self, entity: str, archetype: rr.AsComponents) -> None:
        self._recording.log(entity, archetype, static=True, strict=True)

    def _camera(self, name: str) -> None:
        frames = self._all(CameraFrame, CAMERA_PREFIX + name)
        for frame in frames:
            self._at(frame.t_capture_ns)
            self._recording.log(f"camera/{name}", rr.Image(decode_image(frame)), strict=True)
        self._recording.reset_time()

    def _arm(self, states: Sequence[State]) -> None:
        """The TCP in 3D and as plots, joints, gripper and wrench; measured beside commanded."""
        times = [state.t_state_ns for state in states]
        measured = np.stack([state.pose_base_tcp for state in states])
        commanded = np.stack([state.pose_base_tcp_commanded for state in states])
        kept = self._states[:: len(self._states) // TRAIL_POINTS + 1]
        ways = {
            "measured": (measured, [state.pose_base_tcp[:3] for state in kept], _MEASURED),
            "commanded": (commanded, [state.pose_base_tcp_commanded[:3] for state in kept], _COMMANDED),
        }
        for label, (poses, way, colour) in ways.items():
            path = rr.LineStrips3D([np.stack(way)], colors=[colour], radii=[0.001])
            self._static(f"world/tcp_{label}/path", path)
            point = f"world/tcp_{label}/now"
            self._style(point, rr.Points3D.from_fields(colors=[colour], radii=[0.008]))
            self._columns(point, times, rr.Points3D.columns(positions=poses[:, :3]))
        axes = "world/tcp_axes"
        self._style(axes, rr.TransformAxes3D(0.06))
        self._columns(
            axes,
            times,
            rr.Transform3D.columns(translation=measured[:, :3], quaternion=measured[:, [4, 5, 6, 3]]),
        )
        self._style("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP)
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
        found = self._names
        return found if len(found) == count else [f"joint{index + 1}" for index in range(count)]

    def _plans(self, chunks: Sequence[ActionChunk], last: bool) -> None:
        """Each chunk as the way it asks for, from the TCP target commanded when its picture was taken; and, as soon as
        its time is over, the way the TCP really took meanwhile and how far that was off."""
        if not self._states:
            return
        times = np.array([state.t_state_ns for state in self._states])
        places, strips = [], []
        for chunk in chunks:
            index = int(np.searchsorted(times, chunk.t_obs_ns, side="right")) - 1
            if index < 0 or chunk.actions.ndim != 2 or not chunk.spec_id.startswith(TCP_DELTAS):
                continue
            pose = self._states[index].pose_base_tcp_commanded
            way = [pose[:3]]
            for action in chunk.actions:
                pose = apply_delta(pose, action[:6])
                way.append(pose[:3])
            places.append(chunk.t_ns)
            strips.append(np.stack(way))
            self._pending.append((chunk, strips[-1]))
        if strips:
            self._style("world/plan", rr.LineStrips3D.from_fields(colors=[_PLANNED], radii=[0.003]))
            self._columns("world/plan", places, rr.LineStrips3D.columns(strips=strips))
        over = [each for each in self._pending if last or _end_ns(each[0]) <= times[-1]]
        self._pending = [each for each in self._pending if not any(each is done for done in over)]
        self._done(over, times)

    def _done(self, over: Sequence[tuple[ActionChunk, F64]], times: NDArray[np.int64]) -> None:
        """What became of chunks whose time is over, up to the next one, which takes their place."""
        places = np.stack([state.pose_base_tcp[:3] for state in self._states])
        begins, strips, due, off = [], [], [], []
        for chunk, way in over:
            later = [other.t_ns for other in self._chunks if other.t_ns > chunk.t_ns]
            end = min([_end_ns(chunk), times[-1], *later])
            inside = places[(times >= chunk.t_obs_ns) & (times <= end)]
            if len(inside) > 1:
                begins.append(chunk.t_ns)
                strips.append(inside)
            for step, place in enumerate(way[1:], start=1):
                instant = chunk.t_obs_ns + step * chunk.step_ns
                if chunk.t_ns <= instant <= end:
                    index = int(np.searchsorted(times, instant, side="right")) - 1
                    due.append(instant)
                    off.append(1e3 * float(np.linalg.norm(places[index] - place)))
        if strips:
            self._style("world/done", rr.LineStrips3D.from_fields(colors=[_DONE], radii=[0.002]))
            self._columns("world/done", begins, rr.LineStrips3D.columns(strips=strips))
        if due:
            self._plot("tcp_error/plan", due, off, ("|measured − planned| mm",))

    def _policy(self, chunks: Sequence[ActionChunk]) -> None:
        """Bins as heat maps (one a chunk, and the first action of each over the episode), tokens, latencies."""
        for chunk in chunks:
            self._at(chunk.t_ns)
            if np.any(chunk.bins >= 0):
                tensor = rr.Tensor(chunk.bins, dim_names=("step", "dimension"), value_range=(0, 255))
                self._recording.log("policy/bins", tensor, strict=True)
            if chunk.policy_tokens:
                tokens = " ".join(map(str, chunk.policy_tokens))
                self._recording.log("policy/tokens", rr.TextLog(tokens, level="TRACE"), strict=True)
        self._recording.reset_time()
        first = [chunk.bins[0] for chunk in self._chunks if np.any(chunk.bins >= 0)]
        if first and len({row.shape for row in first}) == 1:
            history = rr.Tensor(np.stack(first), dim_names=("chunk", "dimension"), value_range=(0, 255))
            self._static("policy/bins_history", history)
        self._tokens()
        for stage in sorted({stage for chunk in chunks for stage in chunk.latency_ns}):
            timed = [(chunk.t_ns, chunk.latency_ns[stage]) for chunk in chunks if stage in chunk.latency_ns]
            times, spent = zip(*timed, strict=True)
            self._plot(f"latency/{stage}", times, np.array(spent) * 1e-6, (f"{stage} ms",))

    def _tokens(self) -> None:
        """The tokens of every chunk so far as a heat map, a row a chunk; rows that are shorter end in -1."""
        rows = [chunk.policy_tokens for chunk in self._chunks if chunk.policy_tokens]
        if not rows:
            return
        table = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
        for row, tokens in enumerate(rows):
            table[row, : len(tokens)] = tokens
        low = min(min(tokens) for tokens in rows)
        tensor = rr.Tensor(table, dim_names=("chunk", "token"), value_range=(low - 1, table.max() + 1))
        self._static("policy/tokens_history", tensor)

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
        if not times_ns:
            return
        before = self._ended.get(entity)
        self._ended[entity] = times_ns[-1]
        every = times_ns if before is None else [before, *times_ns]
        if len(every) > 1:
            self._plot(entity, every[1:], np.diff(every) * 1e-6, (name,))

    def _safety(self, states: Sequence[State], last: bool) -> None:
        """The state as a coloured lane, what is limited as another and as lines of text, and how much was allowed."""
        reports = self._all(SafetyReport, "/safety")
        lane = [(state.t_state_ns, state.safety) for state in states]
        self._lane(
            "lanes/safety", lane or [(report.t_ns, report.state) for report in reports], _STATE_COLOURS
        )
        self._limits(reports, states[-1].t_ns if states else None, last)
        if reports:
            times, shares = [report.t_ns for report in reports], [report.speed_scale for report in reports]
            self._plot("safety/speed_scale", times, shares, ("share of the motion allowed",))
        for report in reports:
            for text, level in _report_lines(report):
                self._text("log/safety", report.t_ns, text, level)

    def _limits(self, reports: Sequence[SafetyReport], now_ns: int | None, last: bool) -> None:
        """Which rules limit the motion, as a lane that is empty while none does."""
        lane: list[tuple[int, str]] = []
        for report in reports:
            if self._limited_ns is not None and report.t_ns - self._limited_ns > _LIMITED_NS:
                lane.append((self._limited_ns + _LIMITED_NS, "nothing"))
                self._limited_ns = None
            rules = sorted({item.rule for item in report.interventions})
            if rules:
                lane.append((report.t_ns, ", ".join(rules)))
                self._limited_ns = report.t_ns
        now = self._limited_ns if now_ns is None else now_ns
        if (
            self._limited_ns is not None
            and now is not None
            and (last or now - self._limited_ns > _LIMITED_NS)
        ):
            lane.append((self._limited_ns + _LIMITED_NS, "nothing"))
            self._limited_ns = None
        self._lane("lanes/limited", lane, {})

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
                self._style(entity, style)
                self._columns(
                    entity, [truth.t_ns for truth in truths], rr.Points3D.columns(positions=points[:, index])
                )

    def _lane(self, entity: str, values: Sequence[tuple[int, str]], colours: dict[str, int]) -> None:
        """Log a state where it changes."""
        if colours:
            self._style(entity, rr.StateConfiguration(values=list(colours), colors=list(colours.values())))
        for t_ns, value in values:
            if self._shown.get(entity) != value:
                self._shown[entity] = value
                self._at(t_ns)
                self._recording.log(entity, rr.StateChange(state=value), strict=True)
        self._recording.reset_time()

    def _text(self, entity: str, t_ns: int, text: str, level: str) -> None:
        self._at(t_ns)
        self._recording.log(entity, rr.TextLog(text, level=level), strict=True)
        self._recording.reset_time()


def _end_ns(chunk: ActionChunk) -> int:
    """When the last of its actions is over."""
    return chunk.t_obs_ns + len(chunk.actions) * chunk.step_ns


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
