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
from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError, PolicyError, ReflexarcError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import TCP_DIMS, sample_episode
from reflexarc.suspects import Suspect, resized, suspects, unit_suspects
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.messages import F64, CameraFrame, Observation, State

Verdict = Literal["clean", "mistaken", "unexplained"]

LEAST_GAIN = 0.1
"""A suspect must lower the error by this share of it..."""
LEAST_T = 3.0
"""...and by this many standard errors of the paired difference."""
LEAST_EXPLAINED = 0.05
"""A policy must beat the average of the demonstrations by this share, or it is none for this robot and task."""
MOST_ROUNDS = 3
"""Mistakes that are looked for at the same time."""
FITTED, FITTED_SHARE = "other statistics", 0.7
"""The one suspect with numbers of its own, fitted to the demonstrations; and how much better that must be."""
OTHER_SCALE = 1.5
"""Amounts that differ by less than this factor are a policy's caution, not other statistics."""
_BATCH = 16
_WORST = 3.0
_PARTS = (slice(0, 3), slice(3, 6))
_STILL_RAD = 2e-3
"""Demonstrations that turn less than this a step say nothing about rotation."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Demonstrated:
    """N instants: what was seen, and the actions (N, H, 7) that followed, where mask (N, H) is true."""

    observations: list[Observation]
    actions: F64
    mask: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """One suspect. error: with it. gain: share of the error that it takes away. t: of the paired difference."""

    name: str
    error: float
    gain: float
    t: float
    found: str
    cure: str

    @property
    def convincing(self) -> bool:
        """Whether it is named."""
        return self.gain >= LEAST_GAIN and self.t >= LEAST_T


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


def run_preflight(policy: str, episodes: Sequence[Path], *, instants: int, json_path: Path | None) -> int:
    """Check a policy by name, print the table, write the figures; returns 0 only where nothing is wrong."""
    from reflexarc.policies import open_policy

    console = Console()
    opened = open_policy(policy)
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
        logs += sorted(place.rglob("*.mcap")) if place.is_dir() else [place]
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

    Raises PolicyError if the policy's actions are not TCP deltas, or if it refuses an observation; LogError naming
    what a log lacks.
    """
    demonstrated = demonstrations(policy, logs, instants)
    measure = Measure(demonstrated)
    ask = Asker(policy, demonstrated.observations, step)
    errors = measure.errors(ask(None))
    start, found, first_round = float(errors.mean()), list[Tried](), list[Tried]()
    accepted: list[Suspect] = []
    for _ in range(rounds):
        candidates = [each for each in suspects(policy) if each.name not in {one.name for one in accepted}]
        candidates += measure.amounts(ask(*accepted))
        tried = [_tried(each, errors, measure.errors(ask(*accepted, each))) for each in candidates]
        tried.sort(key=lambda each: each.error)
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
    return named[0] if named else None


def demonstrations(policy: Policy, logs: Sequence[Path], instants: int) -> Demonstrated:
    """About `instants` instants, evenly from all logs, with the actions that followed by the one label function."""
    info = policy.info
    spec = ActionSpec.model_validate_json(info.action_spec)
    if tuple(dim.name for dim in spec.dims) != TCP_DIMS:
        raise PolicyError(
            f"{info.model_id}: action space {spec.id}; preflight compares {', '.join(TCP_DIMS)} only"
        )
    each = max(1, math.ceil(instants / len(logs)))
    observations: list[Observation] = []
    actions, masks = [], []
    for path in logs:
        reader = EpisodeReader(path)
        samples = sample_episode(reader, spec, info.cameras)
        rows = np.flatnonzero(samples.mask[:, 0])
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, each).round().astype(int))] if len(rows) else rows
        observations += _observations(
            reader, samples.t_ns[rows], info.cameras, info.image_height, info.image_width
        )
        actions.append(samples.actions[rows])
        masks.append(samples.mask[rows])
    if not observations:
        raise LogError(f"no action in {len(logs)} logs counts as a demonstration")
    return Demonstrated(observations, np.concatenate(actions), np.concatenate(masks))


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
                session=f"{reader.path.name}/{index}",
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
        """(N, H, 7) answers, with the suspects applied in order."""
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

    Position, rotation and gripper count alike, each relative to how much the demonstrations themselves vary, and none
    for more than three times that, so that one wild answer does not decide.
    """

    def __init__(self, demonstrated: Demonstrated) -> None:
        self._actions, self._mask = demonstrated.actions, demonstrated.mask
        done = self._actions[self._mask]
        spread = [float(np.sqrt((done[:, part] ** 2).sum(1).mean())) for part in _PARTS]
        self._scales = [max(spread[0], 1e-4), max(spread[1], _STILL_RAD), max(float(done[:, 6].std()), 0.25)]
        self._weights = np.array([1.0, float(spread[1] > _STILL_RAD), 1.0])
        average = np.broadcast_to(np.median(done, axis=0), self._actions.shape)
        self.average = float(self.errors(average).mean())

    def errors(self, answers: F64) -> F64:
        """(N,) the error at each instant, averaged over its actions."""
        off = answers - self._actions
        parts = [
            np.linalg.norm(off[..., :3], axis=-1),
            np.linalg.norm(off[..., 3:6], axis=-1),
            np.abs(off[..., 6]),
        ]
        relative = np.stack([part / scale for part, scale in zip(parts, self._scales, strict=True)], axis=-1)
        each = np.nan_to_num(relative, nan=_WORST).clip(0, _WORST) @ self._weights / self._weights.sum()
        return np.asarray((each * self._mask).sum(1) / self._mask.sum(1))

    def amounts(self, answers: F64) -> list[Suspect]:
        """Other units, or other statistics, unknown which: what goes the right way by other amounts, scaled and
        shifted.

        The latter is fitted to every other instant, so that the rest can speak against it; neither where the amounts
        are about right.
        """
        sizes = [float(np.sqrt((answers[self._mask][:, part] ** 2).sum(1).mean())) for part in _PARTS]
        units = unit_suspects(sizes[0] / self._scales[0], sizes[1] / self._scales[1])
        half = np.zeros_like(self._mask)
        half[::2] = self._mask[::2]
        gains, shifts, told = np.ones(7), np.zeros(7), []
        for dim, name in enumerate(TCP_DIMS[:6]):
            done, said = self._actions[half][:, dim], answers[half][:, dim]
            if said.std() < 1e-9 or done.std() < 1e-9 or np.corrcoef(done, said)[0, 1] < 0.3:
                continue
            gains[dim] = done.std() / said.std()
            shifts[dim] = done.mean() - gains[dim] * said.mean()
            if not 1 / OTHER_SCALE < gains[dim] < OTHER_SCALE or abs(shifts[dim]) > done.std():
                told.append(f"{name} ×{gains[dim]:.2g} {shifts[dim]:+.2g}")
        if not told:
            return units
        return [
            *units,
            Suspect(
                FITTED,
                f"actions are scaled by other statistics than the demonstrations': {', '.join(told)}",
                "set `statistics` to the robot's data set, or `action.position_scale` and `rotation_scale`",
                answer=lambda actions, observation: actions * gains + shifts,
            ),
        ]


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
    lines = [f"{each.found}: {each.cure}" for each in result.found]
    share = 1 - result.explained / result.average
    if result.verdict == "unexplained":
        lines.append(
            f"nothing makes {policy} explain these demonstrations (error {result.explained:.3f}, the average "
            f"{result.average:.3f}): another robot, task or control rate, or weights that were not loaded"
        )
    elif result.verdict == "clean":
        lines.append(f"{policy} explains {share:.0%} of what was demonstrated; nothing is the wrong way")
    return lines
