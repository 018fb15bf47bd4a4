"""The label function, on motions whose labels are known by hand."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.episode_bench import MS, control, motion, picture, written
from reflexarc.configs.action import ActionDim, ActionSpec, tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import Samples, _grid, row_pictures, sample_episode
from reflexarc.wire.geometry import apply_delta, exp, multiply
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import F64, Message

SPEC = tcp_delta_spec(4, 0.1)
CAMERAS = ("front", "wrist")
DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # half a turn about x: the gripper points down


def glide(t: float) -> F64:
    """5 cm/s along x, 2 cm/s down, 0.3 rad/s about the base's z, of a gripper that points down."""
    position = np.array([0.4 + 0.05 * t, 0.0, 0.3 - 0.02 * t])
    return np.concatenate([position, multiply(exp(np.array([0.0, 0.0, 0.3 * t])), DOWN)])


def sampled(path: Path, messages: Iterable[tuple[str, Message]], **options: object) -> Samples:
    return sample_episode(written(path, messages), SPEC, CAMERAS, **options)  # type: ignore[arg-type]


def arrays(samples: Samples) -> list[np.ndarray]:
    return [
        value
        for name in ("t_ns", "joint_position", "gripper", "gripper_commanded", "actions", "mask", "focus")
        for value in (getattr(samples, name),)
    ] + [samples.pose_base_tcp, samples.pose_base_tcp_commanded, samples.wrench, *samples.images.values()]


def test_a_known_motion_gives_the_known_deltas(tmp_path: Path) -> None:
    samples = sampled(tmp_path / "e.mcap", motion(glide, 1.0))
    assert samples.t_ns.tolist() == [100 * MS * k for k in range(11)]
    assert samples.actions.shape == (11, 4, 7)
    # Turned about the base's z, not about the gripper's, which points the other way: +0.03, not -0.03.
    expected = np.array([0.005, 0.0, -0.002, 0.0, 0.0, 0.03, 1.0])
    np.testing.assert_allclose(
        samples.actions[samples.mask], np.tile(expected, (samples.mask.sum(), 1)), atol=1e-12
    )
    assert samples.mask.tolist() == [[k + j + 1 <= 10 for j in range(4)] for k in range(11)]


def test_rows_hold_what_was_seen_and_felt_at_their_instant(tmp_path: Path) -> None:
    samples = sampled(tmp_path / "e.mcap", motion(glide, 0.5))
    for k in range(6):
        np.testing.assert_array_equal(samples.pose_base_tcp_commanded[k], glide(0.1 * k))
        np.testing.assert_allclose(samples.pose_base_tcp[k], glide(0.1 * k) - [0, 1e-3, 0, 0, 0, 0, 0])
        np.testing.assert_allclose(samples.joint_position[k], 0.1 * k)
        np.testing.assert_allclose(samples.focus[k], 0.1 * k)
        assert samples.images["front"][k].max() == samples.images["front"][k].min() == k
        assert samples.images["wrist"][k].max() == k
    np.testing.assert_array_equal(samples.wrench, np.tile(np.arange(6.0), (6, 1)))
    assert samples.instruction == "lift the red cube"
    assert samples.images["front"].dtype == np.uint8


def test_beyond_the_end_an_action_is_a_hold_and_does_not_count(tmp_path: Path) -> None:
    samples = sampled(tmp_path / "e.mcap", motion(glide, 0.5))
    past = samples.actions[~samples.mask]
    assert len(past) == 10
    np.testing.assert_array_equal(past[:, :6], 0.0)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_labels_played_from_a_row_give_the_motion_that_was_commanded(seed: int) -> None:
    random = np.random.default_rng(seed)
    reach, turn = random.normal(0, 0.2, (2, 3)), random.normal(0, 1.0, (2, 3))
    begin = random.normal(size=4)
    begin /= np.linalg.norm(begin)

    def wander(t: float) -> F64:
        rotation = multiply(exp(turn[0] * t), multiply(exp(turn[1] * t), begin))
        return np.concatenate([reach[0] * t + reach[1] * np.sin(3 * t), rotation])

    with tempfile.TemporaryDirectory() as folder:
        samples = sampled(Path(folder) / "e.mcap", motion(wander, 1.0, cameras=CAMERAS))
    for k, j in itertools.product(range(11), range(4)):
        if samples.mask[k, j]:
            pose = samples.pose_base_tcp_commanded[k]
            for action in samples.actions[k, : j + 1]:
                pose = apply_delta(pose, action[:6])
            target = wander(0.1 * (k + j + 1))
            np.testing.assert_allclose(pose[:3], target[:3], atol=1e-9)
            assert abs(pose[3:] @ target[3:]) > 1 - 1e-9


@pytest.mark.parametrize("shift_ms", [-30, 0, 30])
def test_the_gripper_is_what_was_asked_for_during_the_step(tmp_path: Path, shift_ms: int) -> None:
    """Setpoints run a tick ahead, so near the end of a step they may ask for the next one; a late policy's lag."""
    closes = 0.3 + shift_ms * 1e-3
    messages = motion(glide, 1.0, gripper_at=lambda t: 1.0 if t < closes else 0.0)
    samples = sampled(tmp_path / "e.mcap", messages)
    for k, j in itertools.product(range(11), range(4)):
        if samples.mask[k, j]:
            assert samples.actions[k, j, 6] == (1.0 if k + j < 3 else 0.0)


def test_without_setpoints_the_gripper_is_what_the_host_commanded(tmp_path: Path) -> None:
    messages = [
        (topic, msgspec.structs.replace(message, gripper_commanded=0.25) if topic == "/state" else message)
        for topic, message in motion(glide, 0.5)
        if topic != "/setpoint"
    ]
    samples = sampled(tmp_path / "e.mcap", messages)
    assert np.all(samples.actions[..., 6] == 0.25)


@pytest.mark.parametrize(
    ("sources", "good"),
    [
        (None, lambda name: name != "perturb"),
        (("expert",), lambda name: name == "expert"),
        (("expert", "policy", "perturb"), lambda name: name != ""),
    ],
)
def test_steps_of_another_source_and_what_follows_them_do_not_count(
    tmp_path: Path, sources: tuple[str, ...] | None, good: Callable[[str], bool]
) -> None:
    changes = [(100, "expert"), (450, "perturb"), (600, "expert"), (1000, "policy")]
    events = [("/event", control(ms * MS, source)) for ms, source in changes]
    samples = sampled(tmp_path / "e.mcap", [*motion(glide, 1.5), *events], sources=sources)

    def who(start_ms: int) -> set[str]:
        """Everyone in control during the step, by asking every millisecond."""
        names = set()
        for ms in range(start_ms, start_ms + 100):
            names.add(next((name for at, name in reversed(changes) if at <= ms), ""))
        return names

    for k in range(16):
        alive = True
        for j in range(4):
            alive = alive and k + j + 1 <= 15 and all(good(name) for name in who(100 * (k + j)))
            assert samples.mask[k, j] == alive, (k, j)


def test_a_hole_in_the_states_does_not_become_a_label(tmp_path: Path) -> None:
    hole = range(330 * MS, 520 * MS)
    messages = [(topic, m) for topic, m in motion(glide, 1.0) if not (topic == "/state" and m.t_ns in hole)]
    samples = sampled(tmp_path / "e.mcap", messages)
    fresh = {edge: not (380 < edge < 520) for edge in range(0, 1001, 100)}
    for k in range(11):
        alive = True
        for j in range(4):
            begin, end = 100 * (k + j), 100 * (k + j + 1)
            alive = alive and end <= 1000 and fresh[begin] and fresh[end]
            assert samples.mask[k, j] == alive, (k, j)
    assert np.allclose(samples.actions[samples.mask][:, 0], 0.005)


def test_jittering_late_and_missing_pictures_keep_labels_exact(tmp_path: Path) -> None:
    """The grid follows the first camera; steps still last exactly one step from the row's own instant."""
    captures = [10, 103, 214, 305, 398, 620, 700]  # one is missing
    messages = [(t, m) for t, m in motion(glide, 1.5) if not t.startswith("/camera")]
    messages += [("/camera/front", picture(ms * MS, "front", ms)) for ms in captures]
    messages += [("/camera/wrist", picture(ms * MS, "wrist", ms)) for ms in (100, 200, 205, 640)]
    samples = sampled(tmp_path / "e.mcap", messages)
    assert samples.t_ns.tolist() == [ms * MS for ms in captures[1:]]  # at 10 ms no wrist picture was there
    assert [image.max() for image in samples.images["wrist"]] == [100, 205, 205, 205, 205, 640 % 256]
    assert [image.max() for image in samples.images["front"]] == [ms % 256 for ms in captures[1:]]
    # The wrist's pictures usually come 100 ms apart: at 398 and 620 ms its last one is too old for a label.
    assert samples.mask[:, 0].tolist() == [True, True, True, False, False, True]
    # A state is at most one 5 ms tick old, and so is the other: a label is off by one tick's motion at most.
    error = np.abs(samples.actions[samples.mask][:, :6] - [0.005, 0, -0.002, 0, 0, 0.03])
    assert error.max() <= 0.3 * 0.005 + 1e-9


@pytest.mark.parametrize(("period_ms", "last_ms"), [(33, 900), (100, 900), (300, 1000)])
def test_rows_after_a_camera_died_have_no_label(tmp_path: Path, period_ms: int, last_ms: int) -> None:
    """From 1.5 steps on, or 1.5 of its intervals where those are longer."""
    messages = [(t, m) for t, m in motion(glide, 2.0) if t != "/camera/wrist"]
    captures = range(0, 801, period_ms)
    messages += [("/camera/wrist", picture(ms * MS, "wrist", n)) for n, ms in enumerate(captures)]
    samples = sampled(tmp_path / "e.mcap", messages)
    assert samples.mask[:, 0].tolist() == [t <= last_ms * MS and t < 2000 * MS for t in samples.t_ns]
    assert samples.rows_to_learn == last_ms // 100 + 1
    np.testing.assert_array_equal(samples.mask.any(axis=1), samples.mask[:, 0])


@pytest.mark.parametrize(
    ("rate_hz", "apart_ms"), [(10, 100), (15, 133), (20, 100), (25, 80), (30, 100), (50, 100), (60, 100)]
)
def test_a_faster_camera_is_thinned_to_the_pictures_nearest_to_the_grid(
    tmp_path: Path, rate_hz: int, apart_ms: int
) -> None:
    messages = [(t, m) for t, m in motion(glide, 1.2) if not t.startswith("/camera")]
    for number in range(rate_hz + 1):
        t_ns = number * 1000 * MS // rate_hz
        messages += [(f"/camera/{name}", picture(t_ns, name, number)) for name in CAMERAS]
    samples = sampled(tmp_path / "e.mcap", messages)
    assert {round(apart / MS) for apart in np.diff(samples.t_ns)[:-1].tolist()} == {apart_ms}


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=30), st.sampled_from([10, 20, 30]))
def test_jitter_takes_no_picture_from_the_grid(jitter_ms: list[int], rate_hz: int) -> None:
    """Rows stand at every n-th picture, whatever the jitter."""
    every = rate_hz // 10
    captures = np.array([100 * MS * n // every + ms * MS for n, ms in enumerate(jitter_ms)])
    rows = _grid(captures, 100 * MS)
    last = captures[-1]
    np.testing.assert_array_equal(rows[rows < last], [t for t in captures[::every].tolist() if t < last])


def test_the_order_in_the_file_does_not_matter_and_sampling_changes_nothing(tmp_path: Path) -> None:
    messages = [*motion(glide, 1.0), ("/event", control(300 * MS, "perturb"))]
    once = sampled(tmp_path / "a.mcap", messages)
    shuffled = list(messages)
    np.random.default_rng(0).shuffle(shuffled)  # type: ignore[arg-type]
    twice = sampled(tmp_path / "b.mcap", shuffled)
    content = (tmp_path / "a.mcap").read_bytes()
    again = sample_episode(EpisodeReader(tmp_path / "a.mcap"), SPEC, CAMERAS)
    assert (tmp_path / "a.mcap").read_bytes() == content
    for one, two, three in zip(arrays(once), arrays(twice), arrays(again), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_pictures_of_rows_come_one_by_one_and_are_the_samples(tmp_path: Path) -> None:
    samples = sampled(tmp_path / "e.mcap", motion(glide, 0.5))
    reader = EpisodeReader(tmp_path / "e.mcap")
    numbers = sample_episode(reader, SPEC, CAMERAS, pictures=False)
    assert numbers.images == {}
    for one, other in zip(arrays(samples), arrays(numbers), strict=False):
        np.testing.assert_array_equal(one, other)
    rows = list(row_pictures(reader, CAMERAS, numbers.t_ns))
    for camera in CAMERAS:
        np.testing.assert_array_equal(np.stack([images[camera] for images in rows]), samples.images[camera])
    larger = encode_image(
        np.zeros((32, 32, 3), np.uint8), camera="front", seq=5, t_capture_ns=500 * MS, clock="virtual"
    )
    changing = [
        (t, larger if t == "/camera/front" and m.t_ns == larger.t_ns else m) for t, m in motion(glide, 0.5)
    ]
    pictures = row_pictures(written(tmp_path / "c.mcap", changing), CAMERAS, numbers.t_ns)
    with pytest.raises(LogError, match=r"/camera/front changes its image size .*\(16, 16, 3\), then \(32"):
        list(pictures)
    with pytest.raises(LogError, match="changes its image size"):
        sampled(tmp_path / "d.mcap", changing)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    reader = written(tmp_path / "e.mcap", motion(glide, 0.3, cameras=("front",)))
    with pytest.raises(LogError, match=r"unknown camera 'wrist'; known: front"):
        sample_episode(reader, SPEC, CAMERAS)
    with pytest.raises(LogError, match="no camera to sample"):
        sample_episode(reader, SPEC, ())
    joints = ActionSpec(
        id="joints",
        dims=tuple(
            ActionDim(name=f"joint{i}", unit="rad", frame="joint", delta=False, lower=-3, upper=3)
            for i in range(7)
        ),
        step_s=0.1,
        horizon=4,
    )
    with pytest.raises(LogError, match="action spec 'joints' cannot be sampled; its dimensions must be dx"):
        sample_episode(reader, joints, ("front",))
    stateless = [(t, m) for t, m in motion(glide, 0.3) if t != "/state"]
    with pytest.raises(LogError, match="no /state in the log"):
        sampled(tmp_path / "stateless.mcap", stateless)
    early = [(t, m) for t, m in motion(glide, 0.3) if t != "/camera/wrist"]
    early.append(("/camera/wrist", picture(900 * MS, "wrist")))
    with pytest.raises(LogError, match="no instant has an image of every camera"):
        sampled(tmp_path / "early.mcap", early)
