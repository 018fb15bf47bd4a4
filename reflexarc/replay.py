"""Replay a simulated episode from its log: the initial state and the controls, nothing else.

The logged states are there to compare with; a log that has lost every one of them replays just the same. On the same
MuJoCo build, CPU type and thread count the result is equal to the bit.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.wire.messages import SimInitial, SimSteps


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayResult:
    """max_qpos_error: largest |Δqpos| against the log (m or rad), infinite where one of the two is not finite; None if
    the log holds no state to compare with. note: what the figures do not tell; empty if there is nothing."""

    steps: int
    compared: int
    max_qpos_error: float | None
    final_qpos: NDArray[np.float64]
    note: str


def open_initial(reader: EpisodeReader) -> tuple[mujoco.MjModel, mujoco.MjData, SimInitial]:
    """The model of the log and its initial state; raises LogError if the episode was not simulated."""
    initial = next((m for _, m in reader.messages(["/sim/initial"])), None)
    if not isinstance(initial, SimInitial):
        raise LogError(f"{reader.path}: no /sim/initial in the log: it was not recorded from the simulator")
    model = mujoco.MjModel.from_xml_string(initial.model_xml)
    model.geom_rgba[:] = initial.geom_rgba
    data = mujoco.MjData(model)
    expected = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION)
    if initial.integration_state.size != expected:
        raise LogError(
            f"{reader.path}: the initial state has {initial.integration_state.size} numbers, the model {expected}; "
            f"recorded with MuJoCo {initial.mujoco_version}, this is {mujoco.__version__}"
        )
    mujoco.mj_setState(model, data, np.array(initial.integration_state), mujoco.mjtState.mjSTATE_INTEGRATION)
    return model, data, initial


def resimulate(model: mujoco.MjModel, data: mujoco.MjData, reader: EpisodeReader) -> Iterator[SimSteps]:
    """Apply the logged controls; yields each logged batch after its physics steps were done in `data`.

    Raises LogError if a batch is missing.
    """
    expected = 0
    begun = False
    for _, message in reader.messages(["/sim/initial", "/sim/steps"]):
        begun = begun or isinstance(message, SimInitial)
        if not begun or not isinstance(message, SimSteps):
            continue  # steps of the episode before, still on their way when this log was opened
        if message.first_step != expected:
            raise LogError(
                f"{reader.path}: physics steps {expected} to {message.first_step - 1} are missing from the log; "
                f"the replay stops there"
            )
        for control in message.control:
            data.ctrl[:] = control
            mujoco.mj_step(model, data)
        expected += len(message.control)
        yield message


def replay(path: Path) -> ReplayResult:
    """Re-simulate the episode and compare it with what was logged."""
    reader = EpisodeReader(path)
    model, data, initial = open_initial(reader)
    steps = compared = 0
    worst: float | None = None
    times_ns = [initial.t_ns]
    for message in resimulate(model, data, reader):
        steps += len(message.control)
        times_ns.append(message.t_ns)
        if message.qpos.size == model.nq:
            compared += 1
            worst = max(worst or 0.0, largest_difference(data.qpos, message.qpos))
    notes = []
    if initial.mujoco_version != mujoco.__version__:
        notes.append(
            f"recorded with MuJoCo {initial.mujoco_version}, replayed with {mujoco.__version__}: not bit-exact"
        )
    if untold_s := _after_physics_s(reader, times_ns):
        notes.append(
            f"the log's physics ends {untold_s:.2f} s before its last state: nothing after it was replayed"
        )
    return ReplayResult(steps, compared, worst, data.qpos.copy(), "; ".join(notes))


def largest_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest |one - other| of two arrays of one shape; infinite if a number of either is not finite."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return math.inf
    return float(np.max(np.abs(one - other), initial=0.0))


def _after_physics_s(reader: EpisodeReader, times_ns: list[int]) -> float:
    """For how long states go on after the last physics; 0 if that is no longer than between two batches of it."""
    states = reader.ends(["/state"])
    if not states:
        return 0.0
    after_ns = states["/state"][1].content_ns - times_ns[-1]
    between_ns = max((later - earlier for earlier, later in itertools.pairwise(times_ns)), default=0)
    return after_ns * 1e-9 if after_ns > between_ns else 0.0
