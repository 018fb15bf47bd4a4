"""Put the observations of a log to a checkpoint and compare its answers with those of the log.

The policy of the log itself must give the very same tokens and actions; what another machine, another precision, a
refactored model or a pruned one gives instead stands here step by step: a golden test for each of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError, PolicyError, ReflexarcError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, CameraFrame, Observation


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One observation of the log, answered twice.

    time_s: since the first one. tokens: how many of them differ, of how many. error: the largest difference of an
    action in units of its bounds, `dim`: whose it is. metres, radians, opening: the largest differences by unit.
    Differences are infinite where an action of either is not finite.
    """

    obs_seq: int
    time_s: float
    tokens_differ: int
    tokens: int
    error: float
    dim: str
    metres: float
    radians: float
    opening: float


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyReplay:
    """All answers of one log. logged, asked: the models."""

    log: Path
    logged: str
    asked: str
    answers: list[Answer]

    @property
    def worst(self) -> Answer:
        """The answer that differs most."""
        return max(self.answers, key=lambda answer: answer.error)

    @property
    def same(self) -> int:
        """How many answers are equal to the bit."""
        return sum(answer.error == 0.0 and answer.tokens_differ == 0 for answer in self.answers)


def replay_policy(log: Path, policy: Policy) -> PolicyReplay:
    """Ask `policy` what the log's policy was asked.

    Raises LogError if the log holds no answered observation, PolicyError if the two speak of different actions or the
    policy cannot answer.
    """
    spec = ActionSpec.model_validate_json(policy.info.action_spec)
    reader = EpisodeReader(log)
    answers: list[Answer] = []
    logged, first_ns = "", 0
    for observation, chunk in answered(reader):
        if chunk.spec_id != spec.id:
            raise PolicyError(
                f"{log} holds actions of {chunk.spec_id!r}, {policy.info.model_id} gives {spec.id!r}: "
                "they cannot be compared"
            )
        if not answers:
            policy.reset(observation.session)
            first_ns, logged = observation.t_obs_ns, chunk.model_id
        try:
            answer = policy.act(observation)
        except ReflexarcError as error:
            raise PolicyError(f"{log}: observation {observation.seq} was refused: {error}") from error
        answers.append(_compared(chunk, answer, spec, (observation.t_obs_ns - first_ns) * 1e-9))
    if not answers:
        raise LogError(f"{log}: no observation with its pictures and an answer in it; no policy was asked")
    return PolicyReplay(log, logged, policy.info.model_id, answers)


def answered(reader: EpisodeReader) -> Iterator[tuple[Observation, ActionChunk]]:
    """The observations of a log, with their pictures, and what was answered, in order."""
    topics = ["/observation", "/chunk", *(CAMERA_PREFIX + camera for camera in reader.cameras)]
    frames: dict[tuple[str, int], CameraFrame] = {}
    asked: dict[int, Observation] = {}
    chunks: list[ActionChunk] = []
    for _, message in reader.messages(topics):
        if isinstance(message, CameraFrame):
            frames[message.camera, message.t_capture_ns] = message
        elif isinstance(message, Observation):
            asked[message.seq] = message
        elif isinstance(message, ActionChunk):
            chunks.append(message)
    for chunk in chunks:
        observation = asked.get(chunk.obs_seq)
        if observation is None:
            continue
        keys = {name: (name, frame.t_capture_ns) for name, frame in observation.images.items()}
        if all(key in frames for key in keys.values()):
            images = {name: frames[key] for name, key in keys.items()}
            yield msgspec.structs.replace(observation, images=images), chunk


def _compared(logged: ActionChunk, answer: ActionChunk, spec: ActionSpec, time_s: float) -> Answer:
    if logged.actions.shape != answer.actions.shape:
        raise PolicyError(
            f"the log's chunks have shape {logged.actions.shape}, the policy's {answer.actions.shape}"
        )
    finite = np.isfinite(answer.actions) & np.isfinite(logged.actions)
    apart = np.full(finite.shape, np.inf)
    np.abs(np.subtract(answer.actions, logged.actions, where=finite, out=apart), out=apart)
    bounds = np.array([dim.upper - dim.lower for dim in spec.dims])
    relative = np.max(apart / bounds, axis=0)
    by_unit = {
        unit: max(
            (float(apart[:, k].max()) for k, dim in enumerate(spec.dims) if dim.unit == unit), default=0.0
        )
        for unit in ("m", "rad", "opening")
    }
    one, other = logged.policy_tokens, answer.policy_tokens
    differ = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
    return Answer(
        obs_seq=logged.obs_seq,
        time_s=time_s,
        tokens_differ=differ,
        tokens=max(len(one), len(other)),
        error=float(relative.max()),
        dim=spec.dims[int(relative.argmax())].name,
        metres=by_unit["m"],
        radians=by_unit["rad"],
        opening=by_unit["opening"],
    )


def figures(done: PolicyReplay) -> dict[str, Any]:
    """For JSON."""
    return {
        "log": str(done.log),
        "logged": done.logged,
        "asked": done.asked,
        "equal": done.same,
        "answers": [dataclasses.asdict(answer) for answer in done.answers],
    }


def draw(done: PolicyReplay, path: Path) -> None:
    """How far the answers are apart over the episode, and how many tokens differ, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    times = [answer.time_s for answer in done.answers]
    upper.plot(times, [answer.metres * 1e3 for answer in done.answers], "o-", label="mm", markersize=3)
    upper.plot(times, [answer.radians * 1e3 for answer in done.answers], "s-", label="mrad", markersize=3)
    upper.set_ylabel("largest difference")
    upper.legend(fontsize=8)
    shares = [100 * answer.tokens_differ / max(answer.tokens, 1) for answer in done.answers]
    lower.bar(times, shares, width=0.05, color="#555555")
    lower.set_ylabel("tokens that differ, %")
    lower.set_xlabel("s")
    upper.set_title(f"{done.log.name}: {done.asked} against {done.logged}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
