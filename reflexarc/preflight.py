"""Before a policy moves an arm: does it do what demonstrations of the same robot did, and if not, why not?

Instants of recorded demonstrations are put to the policy, and its answers are compared with what was done then. Then
each suspect is tried in turn; one that explains the demonstrations clearly better is named, and the search goes on from
there, since mistakes come in company. The figure is an error relative to the demonstrations' own spread: 0 is
perfect; "the average" in the table is what always doing the same, the median of what was done, would give.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from reflexarc.commands.options import write_json
from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.errors import LogError, PolicyError, ReflexarcError
from reflexarc.configs.placement import Placement
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import TCP_DIMS, sample_episode
from reflexarc.datasets.session import episode_logs
from reflexarc.suspects import UNIT_RATIO, Suspect, joint_degrees, resized, suspects, unit_suspects
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.messages import F64, CameraFrame, Observation, State

Verdict = Literal["clean", "mistaken", "unexplained"]

LEAST_GAIN = 0.1
"""A suspect must lower the error by this share of it..."""
LEAST_T = 3.0
"""...and by this many standard errors of the paired difference."""
LARGE_GAIN, LARGE_T = 0.5, 2.0
"""What takes away half of the error or more needs fewer: where a mistake shows at few instants (a colour taken for
another at the grasp), these are what spreads the differences."""
LEAST_EXPLAINED = 0.05
"""A policy must beat the average of the demonstrations by this share, or it is none for this robot and task."""
ALIKE = 2
"""Suspects whose gains are the same to so many digits explain as much."""
MOST_ROUNDS = 3
"""Mistakes that are looked for at the same time."""
FITTED, FITTED_SHARE = "other statistics", 0.7
"""The one suspect with numbers of its own, fitted to the demonstrations; and how much better that must be."""
OTHER_SCALE = 1.5
"""Amounts that differ by less than this factor are a policy's caution, not other statistics."""
_BATCH = 16
_WORST = 3.0
_STILL_M, _STILL_RAD, _STILL_OPENING = 1e-4, 2e-3, 0.25
"""Demonstrations that move or turn less than this a step say nothing about it; openings count as if varying by this."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Demonstrated:
    """N instants: what was seen, and the actions (N, H, D) that followed, where mask (N, H) is true.

    names: of the D dimensions. start: (N, 1, D) what an action is measured from: zero for deltas, the commanded joint
    positions for absolute ones.
    """

    observations: list[Observation]
    actions: F64
    mask: NDArray[np.bool_]
    names: tuple[str, ...]
    start: F64

    @property
    def joints(self) -> bool:
        """Whether actions are joint positions."""
        return self.names != TCP_DIMS


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """One suspect. error: with it. gain: share of the error that it takes away. t: of the paired difference.

    alike: others that explain as much, if it is named.
    """

    name: str
    error: float
    gain: float
    t: float
    found: str
    cure: str
    alike: tuple[str, ...] = ()

    @property
    def convincing(self) -> bool:
        """Whether it is named."""
        return self.gain >= LEAST_GAIN and self.t >= (LARGE_T if self.gain >= LARGE_GAIN else LEAST_T)


@dataclasses.dataclass(frozen=True, slots=True)
class Preflight:
    """error: as things are; explained: with all that was found undone. average: of always doing the average."""

    verdict: Verdict
    instants: int
    error: float
    explained: float
    average: float
    found: list[Tried]
    tried: list[Tried]


def run_preflight(
    policy: str,
    episodes: Sequence[Path],
    *,
    instants: int,
    json_path: Path | None,
    placement: Placement | None = None,
) -> int:
    """Check a policy by name, print the table, write the figures; returns 0 only where nothing is wrong."""
    from reflexarc.policies import open_policy

    console = Console()
    opened = open_policy(policy, placement=placement)
    logs = find_logs(episodes)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("asking the policy", total=None)
        result = preflight(opened, logs, instants=instants, step=lambda: progress.advance(task))
    console.print(table(result))
    for line in conclusion(result, policy):
        console.print(escape(line))
    write_json(
        json_path, {"policy": policy, "episodes": [str(each) for each in logs]} | dataclasses.asdict(result)
    )
    return 0 if result.verdict == "clean" else 1


def find_logs(places: Sequence[Path]) -> list[Path]:
    """Episode logs: files as they are, folders searched. Raises LogError if there are none."""
    logs: list[Path] = []
    for place in places:
        logs += episode_logs(place) if place.is_dir() else [place]
    if not logs:
        where = ", ".join(map(str, places)) or "nowhere"
        raise LogError(f"no episode logs (.mcap) in {where}; record some with `reflexarc collect`")
    return logs


def preflight(
    policy: Policy,
    logs: Sequence[Path],
    *,
    instants: int = 96,
    rounds: int = MOST_ROUNDS,
    step: Callable[[], None] = lambda: None,
) -> Preflight:
    """Try every suspect, and `rounds` times in all what else is wrong. step: called after each answer of the policy.

    Raises PolicyError if its actions are neither TCP deltas nor joint positions, or if it refuses an observation;
    LogError naming what a log lacks.
    """
    demonstrated = demonstrations(policy, logs, instants)
    measure = Measure(demonstrated)
    ask = Asker(policy, demonstrated.observations, step)
    errors = measure.errors(ask(None))
    start, found, first_round = float(errors.mean()), list[Tried](), list[Tried]()
    accepted: list[Suspect] = []
    for _ in range(rounds):
        named = {each.name for each in accepted}
        candidates = [each for each in suspects(policy, joints=demonstrated.joints) if each.name not in named]
        candidates += measure.amounts(ask(*accepted))
        tried = [_tried(each, errors, measure.errors(ask(*accepted, each))) for each in candidates]
        # What explains as much keeps its order: a hand that points down is half a turn, and that its own reverse.
        tried.sort(key=lambda each: -round(each.gain, ALIKE))
        first_round = first_round or tried
        best = choose(tried)
        if best is None:
            break
        found.append(best)
        accepted.append(next(each for each in candidates if each.name == best.name))
        errors = measure.errors(ask(*accepted))
    explained = float(errors.mean())
    useless = explained > (1 - LEAST_EXPLAINED) * measure.average
    verdict: Verdict = "unexplained" if useless else "mistaken" if found else "clean"
    return Preflight(verdict, len(errors), start, explained, measure.average, found, first_round)


def choose(tried: Sequence[Tried]) -> Tried | None:
    """The best of those that convince. What was fitted to the data must be clearly better than what was not."""
    convincing = [each for each in tried if each.convincing]
    named = [each for each in convincing if each.name != FITTED]
    fitted = [each for each in convincing if each.name == FITTED]
    if fitted and (not named or fitted[0].error < FITTED_SHARE * named[0].error):
        return fitted[0]
    if not named:
        return None
    best, others = named[0], named[1:]
    alike = (each.name for each in others if round(each.gain, ALIKE) == round(best.gain, ALIKE))
    return dataclasses.replace(best, alike=tuple(alike))


def demonstrations(policy: Policy, logs: Sequence[Path], instants: int) -> Demonstrated:
    """About `instants` instants, evenly from all logs, with the actions that followed by the one label function.

    Raises PolicyError if the policy's actions are neither TCP deltas nor joint positions.
    """
    info = policy.info
    spec = ActionSpec.model_validate_json(info.action_spec)
    names = tuple(dim.name for dim in spec.dims)
    absolute_joints = all(dim.frame == "joint" and not dim.delta for dim in spec.dims[:-1])
    if names != TCP_DIMS and not absolute_joints:
        raise PolicyError(
            f"{info.model_id}: action space {spec.id}; preflight compares {', '.join(TCP_DIMS)}, or joint positions"
        )
    grid = tcp_delta_spec(spec.horizon, spec.step_s, spec.alignment)
    each = max(1, math.ceil(instants / len(logs)))
    observations: list[Observation] = []
    actions, masks = [], []
    for path in logs:
        reader = EpisodeReader(path)
        samples = sample_episode(reader, grid, info.cameras)
        rows = np.flatnonzero(samples.mask[:, 0])
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, each).round().astype(int))] if len(rows) else rows
        t_ns, done = samples.t_ns[rows], samples.actions[rows]
        observations += _observations(reader, t_ns, info.cameras, info.image_height, info.image_width)
        actions.append(done if names == TCP_DIMS else _joint_actions(reader, t_ns, spec, done[..., -1:]))
        masks.append(samples.mask[rows])
    if not observations:
        raise LogError(f"no action in {len(logs)} logs counts as a demonstration")
    whole = np.concatenate(actions)
    start = np.zeros((len(whole), 1, len(names)))
    if names != TCP_DIMS:
        start[:, 0, :-1] = [each.state.joint_position_commanded for each in observations]
    return Demonstrated(observations, whole, np.concatenate(masks), names, start)


def _joint_actions(reader: EpisodeReader, t_ns: NDArray[np.int64], spec: ActionSpec, gripper: F64) -> F64:
    """(T, H, n + 1): the joint positions commanded at the end of each step, and `gripper` (T, H, 1)."""
    states = reader.columns(["/state"])["/state"]
    ends = t_ns[:, None] + spec.step_ns * np.arange(1, spec.horizon + 1)
    needed, place = np.unique(states.latest(ends), return_inverse=True)
    positions = []
    for index in needed.tolist():
        state = states.message(index)
        assert isinstance(state, State)
        positions.append(state.joint_position_commanded)
    if len(positions[0]) != spec.size - 1:
        raise PolicyError(
            f"{spec.id} has {spec.size - 1} joints, the robot of {reader.path.name} {len(positions[0])}"
        )
    return np.concatenate([np.stack(positions)[place.reshape(ends.shape)], gripper], axis=-1)


def _observations(
    reader: EpisodeReader, t_ns: NDArray[np.int64], cameras: Sequence[str], height: int, width: int
) -> list[Observation]:
    columns = reader.columns(["/state", *(CAMERA_PREFIX + name for name in cameras)])
    result = []
    for index, t in enumerate(t_ns.tolist()):
        at = np.array([t])
        state = columns["/state"].message(int(columns["/state"].latest(at)[0]))
        images = {}
        for name in cameras:
            column = columns[CAMERA_PREFIX + name]
            frame = column.message(int(column.latest(at)[0]))
            assert isinstance(frame, CameraFrame)
            images[name] = resized(frame, height, width)
        assert isinstance(state, State)
        result.append(
            Observation(
                t_ns=t,
                clock=state.clock,
                seq=index,
                t_obs_ns=t,
                state=state,
                images=images,
                instruction=reader.instruction,
                session=f"{reader.path}/{index}",
            )
        )
    return result


class Asker:
    """Answers of a policy to all observations under suspects; each distinct way of seeing is asked for once."""

    def __init__(self, policy: Policy, observations: list[Observation], step: Callable[[], None]) -> None:
        self._policy = policy
        self._observations = observations
        self._step = step
        self._known: dict[tuple[str, ...], F64] = {}

    def __call__(self, *applied: Suspect | None) -> F64:
        """(N, H, D) answers, with the suspects applied in order."""
        changes = [each for each in applied if each is not None]
        seeing = [each for each in changes if each.see is not None or each.policy is not None]
        key = tuple(each.name for each in seeing)
        if key not in self._known:
            self._known[key] = self._answers(seeing)
        answers = self._known[key]
        for each in changes:
            if each.answer is not None:
                rows = zip(answers, self._observations, strict=True)
                answers = np.stack([each.answer(row, observation) for row, observation in rows])
        return answers

    def _answers(self, seeing: Sequence[Suspect]) -> F64:
        policy = next((each.policy for each in reversed(seeing) if each.policy is not None), self._policy)
        rows = []
        for first in range(0, len(self._observations), _BATCH):
            batch = self._observations[first : first + _BATCH]
            for each in seeing:
                batch = [each.see(observation) for observation in batch] if each.see else batch
            rows += self._act(policy, batch)
        return np.stack(rows)

    def _act(self, policy: Policy, batch: list[Observation]) -> list[F64]:
        """Each observation is the first of a session: nothing is remembered from the one before."""
        for observation in batch:
            policy.reset(observation.session)
        if isinstance(policy, BatchPolicy):
            chunks = policy.act_batch(batch)
        else:
            chunks = [policy.act(observation) for observation in batch]
        actions = []
        for chunk in chunks:
            if isinstance(chunk, ReflexarcError):
                raise chunk
            actions.append(chunk.actions)
            self._step()
        return actions


class Measure:
    """How far answers are from what was demonstrated.

    Position, rotation and gripper (or joints and gripper) count alike, each relative to how much the demonstrations
    themselves vary, and none for more than three times that, so that one wild answer does not decide.
    """

    def __init__(self, demonstrated: Demonstrated) -> None:
        self._of, self._mask = demonstrated, demonstrated.mask
        self._moved = demonstrated.actions - demonstrated.start
        last = len(demonstrated.names) - 1
        self._parts = [slice(0, last)] if demonstrated.joints else [slice(0, 3), slice(3, 6)]
        least = [_STILL_RAD] if demonstrated.joints else [_STILL_M, _STILL_RAD]
        done = self._moved[self._mask]
        sizes = [_size(done[:, part]) for part in self._parts]
        self._scales = [max(size, low) for size, low in zip(sizes, least, strict=True)]
        self._scales.append(max(float(done[:, last].std()), _STILL_OPENING))
        self._weights = np.array([*(float(size > low) for size, low in zip(sizes, least, strict=True)), 1.0])
        self._parts.append(slice(last, last + 1))
        average = np.broadcast_to(np.median(done, axis=0), self._moved.shape)
        self.average = float(self.errors(average + demonstrated.start).mean())

    def errors(self, answers: F64) -> F64:
        """(N,) the error at each instant, averaged over its actions. answers: (N, H, D)."""
        off = answers - self._of.start - self._moved
        parts = [np.linalg.norm(off[..., part], axis=-1) for part in self._parts]
        relative = np.stack([part / scale for part, scale in zip(parts, self._scales, strict=True)], axis=-1)
        each = np.nan_to_num(relative, nan=_WORST).clip(0, _WORST) @ self._weights / self._weights.sum()
        return np.asarray((each * self._mask).sum(1) / self._mask.sum(1))

    def amounts(self, answers: F64) -> list[Suspect]:
        """Other units, or other statistics, unknown which: what goes the right way by other amounts.

        The latter is fitted to every other instant, so that the rest can speak against it; neither where the amounts
        are about right.
        """
        if self._of.joints:
            size, usual = (_size(each[self._mask][:, :-1]) for each in (answers, self._of.actions))
            return [joint_degrees()] if size > UNIT_RATIO * usual else []
        said = answers[self._mask]
        ratios = [
            _size(said[:, part]) / scale
            for part, scale in zip(self._parts[:2], self._scales[:2], strict=True)
        ]
        return [*unit_suspects(ratios[0], ratios[1]), *self._rescaled(answers)]

    def _rescaled(self, answers: F64) -> list[Suspect]:
        half = np.zeros_like(self._mask)
        half[::2] = self._mask[::2]
        gains, shifts, told = np.ones(7), np.zeros(7), []
        for dim, name in enumerate(TCP_DIMS[:6]):
            done, said = self._moved[half][:, dim], answers[half][:, dim]
            if said.std() < 1e-9 or done.std() < 1e-9 or np.corrcoef(done, said)[0, 1] < 0.3:
                continue
            gains[dim] = done.std() / said.std()
            shifts[dim] = done.mean() - gains[dim] * said.mean()
            if not 1 / OTHER_SCALE < gains[dim] < OTHER_SCALE or abs(shifts[dim]) > done.std():
                told.append(f"{name} ×{gains[dim]:.2g} {shifts[dim]:+.2g}")
        if not told:
            return []
        return [
            Suspect(
                FITTED,
                f"actions are scaled by other statistics than the demonstrations': {', '.join(told)}",
                "set `statistics` to the robot's data set, or `action.position_scale` and `rotation_scale`",
                answer=lambda actions, observation: actions * gains + shifts,
            )
        ]


def _size(rows: F64) -> float:
    """Root mean square length of rows (N, k)."""
    return float(np.sqrt((rows**2).sum(axis=1).mean()))


def _tried(suspect: Suspect, before: F64, after: F64) -> Tried:
    difference = before - after
    spread = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    t = float(difference.mean()) / max(spread, 1e-12)
    gain = float(difference.mean() / max(before.mean(), 1e-12))
    return Tried(suspect.name, float(after.mean()), gain, t, suspect.found, suspect.cure)


def table(result: Preflight) -> Table:
    """The error as it is, and with each of the suspects that come closest."""
    view = Table(title=f"{result.instants} instants of demonstrations")
    for column in ("with", "error", "better by", "standard errors"):
        view.add_column(column, justify="left" if column == "with" else "right")
    view.add_row("things as they are", f"{result.error:.3f}", "", "")
    view.add_row("the average", f"{result.average:.3f}", "", "")
    for each in result.tried[:8]:
        name = f"[bold]{escape(each.name)}[/bold]" if each.convincing else escape(each.name)
        view.add_row(name, f"{each.error:.3f}", f"{each.gain:+.0%}", f"{each.t:.1f}")
    return view


def conclusion(result: Preflight, policy: str) -> list[str]:
    """In words."""
    lines = []
    for each in result.found:
        also = f" (as well explained by: {', '.join(each.alike)})" if each.alike else ""
        lines.append(f"{each.found}: {each.cure}{also}")
    share = 1 - result.explained / result.average
    if result.verdict == "unexplained":
        lines.append(
            f"nothing makes {policy} explain these demonstrations (error {result.explained:.3f}, the average "
            f"{result.average:.3f}): another robot, task or control rate, or weights that were not loaded"
        )
    elif result.verdict == "clean":
        lines.append(f"{policy} explains {share:.0%} of what was demonstrated; nothing is the wrong way")
    return lines
