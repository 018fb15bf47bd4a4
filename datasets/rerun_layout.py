"""How an episode is laid out in Rerun's viewer: which entities stand beside which."""

from __future__ import annotations

from collections.abc import Sequence

import rerun as rr
import rerun.blueprint as rrb


def blueprint(
    cameras: Sequence[str], timeline: str, selection: tuple[float, float] | None = None
) -> rrb.Blueprint:
    """Pictures and 3D to the left, plots to the right, lanes and texts below.

    selection: (from, to) s on the time line to be marked; the viewer opens there, and plays it again and again.
    """
    pictures = [rrb.Spatial2DView(origin=f"camera/{name}", name=name) for name in cameras]
    marked = None
    if selection is not None:
        begin, end = (rr.TimeInt(seconds=instant) for instant in selection)
        marked = rrb.components.AbsoluteTimeRange(begin, end)
    scene = rrb.Spatial3DView(
        origin="world",
        name="TCP: measured blue, commanded orange, planned purple, done cyan",
        eye_controls=rrb.EyeControls3D(position=(1.3, -0.7, 0.8), look_target=(0.5, 0.0, 0.1)),
    )
    left = rrb.Vertical(rrb.Horizontal(*pictures), scene, row_shares=[2, 3]) if pictures else scene
    motion = rrb.Tabs(
        rrb.Vertical(
            rrb.TimeSeriesView(origin="tcp", name="TCP position, m"),
            rrb.TimeSeriesView(origin="tcp_error", name="TCP off its command, and off the plan, mm"),
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
            rrb.TensorView(origin="policy/tokens_history", name="Tokens of every chunk"),
            name="Action tokens",
        ),
        rrb.Vertical(
            rrb.StateTimelineView(origin="lanes", name="What safety limits, and its state"),
            rrb.TimeSeriesView(origin="safety", name="Share of the motion that safety allows"),
            name="Safety",
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
        rrb.TimePanel(
            timeline=timeline,
            expanded=False,
            time_selection=marked,
            loop_mode=None if marked is None else "selection",
            play_state=None if marked is None else "playing",
        ),
        rrb.SelectionPanel(expanded=False),
        rrb.BlueprintPanel(expanded=False),
    )
