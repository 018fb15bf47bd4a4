"""`reflexarc doctor policy`: every mistake that is planted between reflexarc-tiny and its demonstrations is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.demonstrations import record_demonstrations
from reflexarc.cli import main
from reflexarc.configs.errors import LogError, PolicyError, ReflexarcError
from reflexarc.configs.foreign import ActionConvention
from reflexarc.policies import open_policy
from reflexarc.preflight import Measure, Preflight, demonstrations, find_logs, preflight
from reflexarc.suspects import cropped, uncropped
from reflexarc.vla.adapters.convention import foreign_spec
from reflexarc.wire import geometry
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.images import decode_image, encode_image
from reflexarc.wire.messages import F64, ActionChunk, CameraFrame, Observation, PolicyInfo

INSTANTS = 12

Change = Callable[[F64, Observation], F64]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return find_logs([record_demonstrations(tmp_path_factory.mktemp("demonstrations"), episodes=1)])


@pytest.fixture(scope="module")
def tiny() -> BatchPolicy:
    policy = open_policy("reflexarc-tiny")
    assert isinstance(policy, BatchPolicy)
    return Remembering(policy)


class Remembering:
    """Asks a policy that has no memory only once about the same pictures and gripper of an instant."""

    def __init__(self, inner: BatchPolicy) -> None:
        self._inner, self._known = inner, dict[object, ActionChunk | ReflexarcError]()

    @property
    def info(self) -> PolicyInfo:
        return self._inner.info

    def reset(self, session: str) -> None:
        self._inner.reset(session)

    def act(self, observation: Observation) -> ActionChunk:
        return self._inner.act(observation)

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        keys = [
            (each.session, each.state.gripper, *(hash(frame.data) for frame in each.images.values()))
            for each in observations
        ]
        new = {key: each for key, each in zip(keys, observations, strict=True) if key not in self._known}
        if new:
            self._known |= zip(new, self._inner.act_batch(list(new.values())), strict=True)
        return [self._known[key] for key in keys]


class Mistaken:
    """A policy with something wrong on the way in or on the way out."""

    def __init__(
        self,
        inner: BatchPolicy,
        *,
        image: Callable[[np.ndarray], np.ndarray] | None = None,
        cameras: tuple[str, ...] = ("front", "wrist"),
        order: Mapping[str, str] | None = None,
        answer: Change | None = None,
        others: Mapping[str, Policy] | None = None,
    ) -> None:
        self._inner, self._image, self._cameras = inner, image, cameras
        self._order, self._answer, self._others = order or {}, answer, dict(others or {})

    @property
    def info(self) -> PolicyInfo:
        return self._inner.info

    def reset(self, session: str) -> None:
        self._inner.reset(session)

    def variants(self) -> dict[str, Policy]:
        return self._others

    def act(self, observation: Observation) -> ActionChunk:
        chunk = self.act_batch([observation])[0]
        assert isinstance(chunk, ActionChunk)
        return chunk

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        answers = self._inner.act_batch([self._seen(each) for each in observations])
        return [self._said(each, seen) for each, seen in zip(answers, observations, strict=True)]

    def _said(
        self, chunk: ActionChunk | ReflexarcError, observation: Observation
    ) -> ActionChunk | ReflexarcError:
        if self._answer is None or isinstance(chunk, ReflexarcError):
            return chunk
        return msgspec.structs.replace(chunk, actions=self._answer(chunk.actions, observation))

    def _seen(self, observation: Observation) -> Observation:
        images = {}
        for name in observation.images:
            images[name] = self._frame(observation.images[self._order.get(name, name)], name)
        return msgspec.structs.replace(observation, images=images)

    def _frame(self, frame: CameraFrame, name: str) -> CameraFrame:
        image = decode_image(frame)
        if self._image is not None and name in self._cameras:
            image = np.ascontiguousarray(self._image(image))
        return encode_image(
            image, camera=name, seq=frame.seq, t_capture_ns=frame.t_capture_ns, clock=frame.clock
        )


def into_tool_frame(actions: F64, observation: Observation) -> F64:
    """What a policy that was trained on deltas in the tool's frame would emit."""
    pose, result = observation.state.pose_base_tcp_commanded, actions.copy()
    for row, given in zip(result, actions, strict=True):
        back = geometry.conjugate(pose[3:])
        row[:3], row[3:6] = geometry.rotate(back, given[:3]), geometry.rotate(back, given[3:6])
        pose = geometry.apply_delta(pose, given[:6])
    return result


def absolute(actions: F64, observation: Observation) -> F64:
    """Where each action leads instead of how far."""
    result = actions.copy()
    result[:, :3] = observation.state.pose_base_tcp_commanded[:3] + np.cumsum(actions[:, :3], axis=0)
    return result


def flipped(actions: F64, observation: Observation) -> F64:
    return np.concatenate([actions[:, :6], 1 - actions[:, 6:]], axis=1)


def rescaled(actions: F64, observation: Observation) -> F64:
    """Another data set's statistics: each dimension by another amount."""
    return actions * np.array([4.0, 3.0, 2.5, 1.0, 1.0, 2.0, 1.0])


def turned(actions: F64, observation: Observation) -> F64:
    """In a base frame that stands turned by 90° about z: its x is our -y."""
    parts = [
        actions[:, 1:2],
        -actions[:, 0:1],
        actions[:, 2:3],
        actions[:, 4:5],
        -actions[:, 3:4],
        actions[:, 5:],
    ]
    return np.concatenate(parts, axis=1)


def check(policy: Policy, logs: list[Path], rounds: int = 1) -> Preflight:
    return preflight(policy, logs, instants=INSTANTS, rounds=rounds)


def test_the_right_configuration_gets_a_clean_bill(tiny: BatchPolicy, logs: list[Path]) -> None:
    result = check(tiny, logs)
    assert result.verdict == "clean"
    assert not result.found
    assert result.error < 0.35 * result.average


@pytest.mark.parametrize(
    ("image", "cameras", "named"),
    [
        (lambda image: image[::-1, ::-1], ("front", "wrist"), "images rotated 180°"),
        (lambda image: image[::-1, ::-1], ("front",), "images of front rotated 180°"),
        (lambda image: image[..., ::-1], ("front", "wrist"), "images BGR"),
        (lambda image: cropped(image, 0.75), ("front", "wrist"), "images uncropped to the middle"),
        (lambda image: uncropped(image, 0.75), ("front", "wrist"), "images cropped to the middle"),
    ],
)
def test_what_is_wrong_with_images_is_named(
    tiny: BatchPolicy,
    logs: list[Path],
    image: Callable[[np.ndarray], np.ndarray],
    cameras: tuple[str, ...],
    named: str,
) -> None:
    result = check(Mistaken(tiny, image=image, cameras=cameras), logs)
    assert result.verdict == "mistaken"
    assert result.found[0].name == named


def test_exchanged_cameras_are_named(tiny: BatchPolicy, logs: list[Path]) -> None:
    result = check(Mistaken(tiny, order={"front": "wrist", "wrist": "front"}), logs)
    assert [each.name for each in result.found][:1] == ["cameras wrist, front"]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (flipped, "gripper polarity"),
        (into_tool_frame, "tool frame"),
        (absolute, "absolute targets"),
        (turned, "base turned 90°"),
        (rescaled, "other statistics"),
        (lambda actions, _: actions * np.array([1000.0] * 3 + [1.0] * 4), "millimetres"),
    ],
)
def test_what_is_wrong_with_actions_is_named(
    tiny: BatchPolicy, logs: list[Path], answer: Change, named: str
) -> None:
    result = check(Mistaken(tiny, answer=answer), logs)
    assert result.verdict == "mistaken"
    assert result.found[0].name == named
    # The hand points down in these: half a turn, there and back, cannot be told apart.
    assert result.found[0].alike == (("base frame",) if named == "tool frame" else ())


def test_a_wrong_statistics_key_is_named_by_the_right_one(tiny: BatchPolicy, logs: list[Path]) -> None:
    others = {"statistics simulated_panda": tiny, "statistics kuka": Mistaken(tiny, answer=absolute)}
    result = check(Mistaken(tiny, answer=rescaled, others=others), logs, rounds=2)
    assert [each.name for each in result.found] == ["statistics simulated_panda"]


def test_two_mistakes_at_once_are_both_named(tiny: BatchPolicy, logs: list[Path]) -> None:
    result = check(Mistaken(tiny, image=lambda image: image[::-1, ::-1], answer=flipped), logs, rounds=3)
    assert {each.name for each in result.found} == {"images rotated 180°", "gripper polarity"}
    assert result.explained < 0.35 * result.average


def test_a_policy_that_has_nothing_to_do_with_it_is_not_excused(tiny: BatchPolicy, logs: list[Path]) -> None:
    def noise(actions: F64, observation: Observation) -> F64:
        return np.random.default_rng(observation.seq).normal(0, 0.02, actions.shape)

    assert check(Mistaken(tiny, answer=noise), logs).verdict == "unexplained"


def test_always_doing_the_average_scores_as_the_average(tiny: BatchPolicy, logs: list[Path]) -> None:
    demonstrated = demonstrations(tiny, logs, INSTANTS)
    measure = Measure(demonstrated)
    average = np.median(demonstrated.actions[demonstrated.mask], axis=0)
    errors = measure.errors(np.broadcast_to(average, demonstrated.actions.shape))
    assert errors.mean() == pytest.approx(measure.average)
    assert measure.errors(demonstrated.actions).max() == 0.0


def test_the_command_prints_writes_and_says_by_its_exit_code(
    logs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "preflight.json"
    episodes = str(logs[0].parent.parent)
    code = main(
        [
            "doctor",
            "policy",
            "reflexarc-tiny",
            "--episodes",
            episodes,
            "--instants",
            "8",
            "--json",
            str(figures),
        ]
    )
    assert code == 0
    assert "nothing is the wrong way" in " ".join(capsys.readouterr().out.split())
    data = json.loads(figures.read_text())
    assert data["verdict"] == "clean"
    assert len(data["tried"]) > 25


class Recalling:
    """A policy in joint space that knows the demonstrations by heart; `answer` is what is wrong with it.

    states: what it should be told, by session.
    """

    def __init__(self, tiny: BatchPolicy, logs: list[Path]) -> None:
        spec = foreign_spec(ActionConvention(space="joint"), 8, 4, 0.1)
        self._info = msgspec.structs.replace(
            tiny.info, action_spec=spec.model_dump_json(), model_id="recalling"
        )
        self._spec, self.answer = spec, lambda actions, _: actions
        done = demonstrations(self, logs, INSTANTS)
        self.states = {each.session: each.state for each in done.observations}
        self._known = {each.session: row for each, row in zip(done.observations, done.actions, strict=True)}

    @property
    def info(self) -> PolicyInfo:
        return self._info

    def reset(self, session: str) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> ActionChunk:
        actions = self._known[observation.session] + 0.002
        return ActionChunk(
            t_ns=observation.t_ns,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=self.answer(actions, observation),
            bins=np.full(actions.shape, -1, dtype=np.int16),
            policy_tokens=[],
            tokenizer_id="none",
            step_ns=self._spec.step_ns,
            spec_id=self._spec.id,
            model_id="recalling",
        )


def test_a_policy_in_joint_space_is_checked_too(tiny: BatchPolicy, logs: list[Path]) -> None:
    """What it is told about its joints and gripper goes into its answers, in part."""
    policy = Recalling(tiny, logs)
    assert check(policy, logs).verdict == "clean"

    def changed(joints: F64, gripper: F64) -> F64:
        return np.concatenate([joints, gripper], axis=1)

    def degrees(actions: F64, observation: Observation) -> F64:
        off = observation.state.joint_position - np.degrees(policy.states[observation.session].joint_position)
        return changed(np.degrees(actions[:, :-1]) + 0.3 * off, actions[:, -1:])

    def opposite(actions: F64, observation: Observation) -> F64:
        off = observation.state.gripper - (1 - policy.states[observation.session].gripper)
        return changed(actions[:, :-1], 1 - actions[:, -1:] + 0.3 * off)

    def relative(actions: F64, observation: Observation) -> F64:
        return changed(actions[:, :-1] - observation.state.joint_position_commanded, actions[:, -1:])

    def feels(joints: Callable[[F64], F64]) -> Change:
        def answer(actions: F64, observation: Observation) -> F64:
            true = policy.states[observation.session].joint_position
            return changed(
                actions[:, :-1] + 0.3 * (joints(observation.state.joint_position) - true), actions[:, -1:]
            )

        return answer

    def grips(opening: Callable[[float], float]) -> Change:
        def answer(actions: F64, observation: Observation) -> F64:
            off = opening(observation.state.gripper) - policy.states[observation.session].gripper
            return changed(actions[:, :-1], actions[:, -1:] + 0.8 * off)

        return answer

    for answer, named in (
        (degrees, "degrees"),
        (opposite, "gripper polarity"),
        (relative, "relative joints"),
        (feels(np.radians), "state degrees"),
        (feels(np.degrees), "state radians"),
        (grips(lambda opening: 1 - opening), "state gripper polarity"),
        (grips(lambda opening: opening / 100), "state gripper percent"),
    ):
        policy.answer = answer
        found = check(policy, logs).found
        assert [each.name for each in found] == [named]
        assert not found[0].alike


def test_no_episodes_and_other_spaces_are_refused_in_words(
    tmp_path: Path, tiny: BatchPolicy, logs: list[Path]
) -> None:
    with pytest.raises(LogError, match="no episode logs"):
        find_logs([tmp_path])
    spec = json.loads(tiny.info.action_spec)
    spec["dims"][0]["name"] = "up"
    with pytest.raises(PolicyError, match="preflight compares dx, dy, dz"):
        demonstrations(Described(tiny, json.dumps(spec)), logs, 4)


class Described(Mistaken):
    """A policy that says another action space of itself."""

    def __init__(self, inner: BatchPolicy, action_spec: str) -> None:
        super().__init__(inner)
        self._told = msgspec.structs.replace(inner.info, action_spec=action_spec)

    @property
    def info(self) -> PolicyInfo:
        return self._told
