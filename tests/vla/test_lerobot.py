"""Policies of lerobot as policies of ours: with their own processing, without the hub, and nothing loaded in part."""

from __future__ import annotations

import json
import shutil
import socket
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.lerobot_folders import KINDS, SIZE, make_folder, small_sizes, stats
from contracts.toy_policy import toy_observation
from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.foreign import ActionConvention, LeRobotConfig, OpenVlaConfig
from reflexarc.configs.placement import Placement
from reflexarc.vla.adapters.convention import foreign_spec, state_vector, to_canonical
from reflexarc.vla.adapters.flows import GuidedSampler, going_on
from reflexarc.vla.adapters.lerobot import LeRobotPolicy, _no_foreign_code, seed_of
from reflexarc.vla.adapters.pi0 import Sampler
from reflexarc.vla.adapters.pi0_batch import Pi0Policy
from reflexarc.vla.checkpoint import load_policy
from reflexarc.vla.commitment import continued
from reflexarc.vla.engine.guidance import euler
from reflexarc.vla.sessions import key_among
from reflexarc.vla.tokenizers import FastTokenizer
from reflexarc.wire import geometry
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import ActionChunk, Observation


@pytest.fixture(scope="module", autouse=True)
def _alone() -> Iterator[None]:
    """No connection to anywhere: what asks the hub fails."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise OSError(f"a test wanted to connect to {address}")

    with pytest.MonkeyPatch.context() as patch, small_sizes():
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make_folder(tmp_path_factory.mktemp("lerobot") / kind, kind) for kind in KINDS}


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def seen(seq: int = 1, session: str = "a", size: int = SIZE, t_ns: int = 1_000_000) -> Observation:
    images = {"front": picture(seq, size), "wrist": picture(100 + seq, size)}
    given = toy_observation(instruction="lift the red cube", seq=seq, session=session, images=images)
    return msgspec.structs.replace(given, t_obs_ns=t_ns)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_policy(folders: dict[str, Path], kind: str) -> None:
    policy = load_policy(str(folders[kind]))
    assert isinstance(policy, Policy)
    assert policy.info.model_id == f"lerobot-{kind}/{kind}"
    spec = ActionSpec.model_validate_json(policy.info.action_spec)
    chunk = policy.act(seen())
    assert chunk.actions.shape == (spec.horizon, 7)
    assert np.isfinite(chunk.actions).all()
    assert (chunk.spec_id, chunk.step_ns) == (spec.id, spec.step_ns)
    stages = {"vision", "action"} if kind == "pi0" else {"model"}
    assert set(chunk.latency_ns) == {"preprocess"} | stages
    again = decode(encode(chunk))
    assert isinstance(again, ActionChunk)
    assert np.array_equal(again.actions, chunk.actions)
    assert np.array_equal(policy.act(seen()).actions, chunk.actions), "the same observation, another chunk"
    assert not np.allclose(policy.act(seen(seq=2)).actions, chunk.actions)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "diffusion"])
def test_a_chunk_is_what_lerobots_own_pipeline_gives(folders: dict[str, Path], kind: str) -> None:
    """Preprocessor, policy and postprocessor called by hand, as lerobot's documentation does."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    folder, observation = folders[kind], seen()
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = "cpu"
    policy = get_policy_class(kind).from_pretrained(folder, config=config)
    overrides = (
        {"tokenizer_processor": {"tokenizer_name": str(folder)}}
        if (folder / "tokenizer.json").is_file()
        else {}
    )
    before, after = make_pre_post_processors(
        config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )
    state = observation.state
    batch = {
        f"observation.images.{name}": torch.from_numpy(decode_image(frame).copy()).permute(2, 0, 1) / 255
        for name, frame in observation.images.items()
    }
    batch["observation.state"] = torch.tensor([*state.joint_position, state.gripper], dtype=torch.float32)
    batch["task"] = observation.instruction
    torch.manual_seed(zlib.crc32(f"{observation.session}/{observation.seq}".encode()))
    with torch.inference_mode():
        theirs = torch.stack([after(each[None])[0] for each in policy.predict_action_chunk(before(batch))[0]])
    theirs = theirs[: config.n_action_steps].double().numpy()
    ours = load_policy(str(folder)).act(observation).actions
    assert np.allclose(ours[:, :6], theirs[:, :6], atol=1e-6)
    assert np.allclose(ours[:, 6], theirs[:, 6].clip(0, 1), atol=1e-6)


def test_a_policy_with_a_past_gets_it_as_from_lerobots_queues(folders: dict[str, Path]) -> None:
    """Diffusion looks at two instants: the same as `select_action` twice, its queue filled with the first."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    folder = folders["diffusion"]
    config = PreTrainedConfig.from_pretrained(folder)
    config.device, config.n_action_steps = "cpu", 1
    policy = get_policy_class("diffusion").from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    step_ns = 200_000_000
    both = [seen(1, t_ns=step_ns), seen(2, t_ns=2 * step_ns)]
    theirs = []
    for observation in both:
        batch = {
            f"observation.images.{name}": torch.from_numpy(decode_image(frame).copy()).permute(2, 0, 1) / 255
            for name, frame in observation.images.items()
        }
        state = observation.state
        batch["observation.state"] = torch.tensor([*state.joint_position, state.gripper], dtype=torch.float32)
        batch["task"] = observation.instruction
        torch.manual_seed(zlib.crc32(f"{observation.session}/{observation.seq}".encode()))
        theirs.append(after(policy.select_action(before(batch)))[0].double().numpy())
    ours = LeRobotPolicy(folder, LeRobotConfig())
    for observation, expected in zip(both, theirs, strict=True):
        assert np.allclose(ours.act(observation).actions[0, :6], expected[:6], atol=1e-6)
    ours.reset("a")
    assert np.allclose(ours.act(both[0]).actions[0, :6], theirs[0][:6], atol=1e-6), "a reset forgets"


def test_robots_that_ask_in_turn_do_not_share_a_past(folders: dict[str, Path]) -> None:
    ours, alone = (LeRobotPolicy(folders["diffusion"], LeRobotConfig()) for _ in range(2))
    ours.act(seen(1, "a", t_ns=1))
    ours.act(seen(7, "b", t_ns=1))
    alone.act(seen(1, "a", t_ns=1))
    later = seen(2, "a", t_ns=200_000_001)
    assert np.array_equal(ours.act(later).actions, alone.act(later).actions)


def test_images_of_another_size_are_brought_to_the_policys(folders: dict[str, Path]) -> None:
    policy = LeRobotPolicy(folders["act"], LeRobotConfig())
    assert (policy.info.image_height, policy.info.image_width) == (SIZE, SIZE)
    assert policy.act(seen(size=96)).actions.shape == (4, 7)


# Errors


@pytest.fixture
def act_folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["act"], tmp_path / "act"))


def refusal(folder: Path, settings: str = "") -> str:
    if settings:
        (folder / "reflexarc.yaml").write_text(settings)
    with pytest.raises(PolicyError) as caught:
        load_policy(str(folder)).act(seen())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["act", "pi0", "smolvla"])
def test_a_missing_tensor_is_an_error_that_names_it(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(folders[kind], tmp_path / kind))
    tensors = load_file(folder / "model.safetensors")
    gone = next(
        name
        for name in sorted(tensors)
        if name.endswith("action_out_proj.weight" if kind != "act" else "action_head.weight")
    )
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors")
    text = refusal(folder)
    assert "model.safetensors" in text
    assert gone in text


def test_an_extra_tensor_and_a_wrong_shape_are_named(act_folder: Path) -> None:
    path = act_folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"model.surplus": torch.zeros(2)}, path)
    assert "model.surplus" in refusal(act_folder)
    save_file(tensors | {"model.action_head.bias": torch.zeros(9)}, path)
    text = refusal(act_folder)
    assert "model.action_head.bias" in text
    assert "9" in text


def test_a_torn_file_and_missing_processors_are_named(act_folder: Path) -> None:
    (act_folder / "policy_postprocessor.json").unlink()
    text = refusal(act_folder)
    assert "has no policy_postprocessor.json" in text
    assert "there is config.json, model.safetensors" in text
    (act_folder / "model.safetensors").write_bytes(b"{}")
    assert "model.safetensors: not a whole safetensors file" in refusal(act_folder)


@pytest.fixture(scope="module")
def fast_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("lerobot") / "pi0_fast", "pi0_fast")


def test_pi0_fast_says_chunks_in_fast_tokens_of_the_folder_and_runs_nobodys_code(fast_folder: Path) -> None:
    """The same tokens, read by our own tokenizer, are the actions that come out of lerobot's."""
    policy = load_policy(str(fast_folder))
    assert isinstance(policy, LeRobotPolicy)
    said: list[list[int]] = []
    model = policy._policy
    before = model.decode_actions_with_fast
    model.decode_actions_with_fast = lambda ids, **sizes: said.append(ids[0].tolist()) or before(ids, **sizes)
    chunk = policy.act(seen())
    other = policy.act(seen(seq=2))
    assert chunk.actions.shape == (5, 7)
    assert said[0] != said[1]
    assert not np.allclose(chunk.actions, other.actions)
    fast = FastTokenizer.load(fast_folder / "fast")
    assert all(0 <= each < fast.size for each in said[0])
    ours = fast.decode(said[0], 5, 7)
    spread, mean = stats()["action"]["std"].numpy(), stats()["action"]["mean"].numpy()
    inside = np.abs(ours) < 1.0  # ours keeps within the bounds, theirs does not
    theirs = (chunk.actions - mean) / spread
    assert inside[:, :6].mean() > 0.2
    assert np.allclose(ours[:, :6][inside[:, :6]], theirs[:, :6][inside[:, :6]], atol=1e-5)


def test_pi0_fast_without_its_tokenizers_or_with_words_for_actions_is_refused(
    fast_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(fast_folder, tmp_path / "pi0_fast"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validate_action_token_prefix": True}))
    assert "pi0_fast said no actions: Token sequence does not start with" in refusal(folder)
    (folder / "fast" / "tokenizer.json").unlink()
    assert "fast has no tokenizer.json; a FAST tokenizer needs it" in refusal(folder)
    shutil.rmtree(folder / "fast")
    assert "put processor_config.json and tokenizer.json of the FAST tokenizer there" in refusal(folder)
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer_config.json; put the two files" in refusal(folder)


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """lerobot asks `transformers` to trust it; a folder that brings some is refused, and nothing of it runs."""
    from transformers import AutoConfig

    code = {"model_type": "bad", "auto_map": {"AutoConfig": "bad.Bad"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "bad.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Bad: pass\n")
    with (
        pytest.raises(PolicyError, match=r"wants to run Bad of .*, code that is not lerobot's: refused"),
        _no_foreign_code(tmp_path),
    ):
        AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(AttributeError):  # unguarded, it runs
        AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_no_tokenizer_is_said_with_what_to_do(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["pi0"], tmp_path / "pi0"))
    (folder / "tokenizer.json").unlink()
    text = refusal(folder)
    assert "policy_preprocessor.json" in text
    assert "put its tokenizer.json into the folder" in text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            "cameras: [front]",
            "sees observation.images.front, observation.images.wrist, the settings give front",
        ),
        ("image_keys: [observation.images.top, observation.images.wrist]", "set `cameras`, one for each"),
        ("state: [position]", "state: position are 3 numbers, observation.state has 8"),
        ("horizon: 50", "horizon 50: this policy emits 4 actions at a time"),
        ("action: {gripper_open: 0.0}", "gripper_closed and gripper_open are both 0.0"),
        (
            "state_units: {gripper_open: 0.0}",
            "state_units: Value error, gripper_closed and gripper_open are both",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(act_folder: Path, settings: str, text: str) -> None:
    assert text in refusal(act_folder, settings)


def test_an_unknown_type_lists_the_known(act_folder: Path) -> None:
    path = act_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"type": "magic"}))
    text = refusal(act_folder)
    assert "config.json: Policy type 'magic'" in text
    assert "diffusion" in text


# Conventions


def test_conventions_end_at_the_edge() -> None:
    pose = geometry.pose(np.array([0.4, 0.0, 0.3]), geometry.exp(np.array([0.0, 0.0, np.pi / 2])))
    raw = np.array([[10.0, 0.0, 0.0, 0.0, 0.0, 90.0, -1.0]])
    convention = ActionConvention(
        position_scale=0.001, rotation_scale=np.pi / 180, frame="tool", gripper_closed=1.0, gripper_open=-1.0
    )
    action = to_canonical(raw, convention, pose)[0]
    assert np.allclose(action, [0.0, 0.01, 0.0, 0.0, 0.0, np.pi / 2, 1.0])


def test_the_state_is_told_in_the_units_of_a_joint_action() -> None:
    """Three numbers by hand: half a turn, a quarter, half open, in degrees and of a gripper with 100 closed."""
    state = msgspec.structs.replace(seen().state, joint_position=np.array([np.pi, -np.pi / 2]), gripper=0.25)
    told = {
        "action": {"space": "joint", "rotation_scale": np.pi / 180, "gripper_closed": 100, "gripper_open": 0}
    }

    def felt(**settings: Any) -> np.ndarray:
        return state_vector(state, LeRobotConfig.model_validate(settings))

    assert np.allclose(felt(**told), [180, -90, 75])
    back = to_canonical(felt(**told)[None], LeRobotConfig.model_validate(told).action, state.pose_base_tcp)
    assert np.allclose(back, [[np.pi, -np.pi / 2, 0.25]]), "the same number means the same on both sides"
    assert np.allclose(felt(**told, state_units={"gripper_open": 2}), [np.pi, -np.pi / 2, 0.5])


def test_the_state_of_a_policy_of_deltas_is_told_as_it_is_unless_said() -> None:
    """LIBERO's scales are of deltas: its state is in m and rad."""
    pose = geometry.pose(np.array([0.4, 0.0, 0.3]), geometry.exp(np.array([0.0, 0.0, np.pi / 2])))
    state = msgspec.structs.replace(seen().state, pose_base_tcp=pose, gripper=0.5)
    libero: dict[str, Any] = {
        "action": {"position_scale": 0.05, "rotation_scale": 0.5, "gripper_closed": 1, "gripper_open": -1}
    }
    usual = state_vector(state, OpenVlaConfig.model_validate(libero))
    assert np.allclose(usual, [0.4, 0, 0.3, 0, 0, np.pi / 2, 0.02, -0.02])
    libero |= {"state_units": {"position_scale": 0.001, "rotation_scale": np.pi / 180}, "finger_open_m": 0.08}
    said = state_vector(state, OpenVlaConfig.model_validate(libero))
    assert np.allclose(said, [400, 0, 300, 0, 0, 90, 0.04, -0.04])


def test_deltas_of_a_tool_that_turns_follow_it() -> None:
    """Two steps ahead with a quarter turn between: the second goes to the side."""
    raw = np.array([[0.1, 0, 0, 0, 0, np.pi / 2, 0.0], [0.1, 0, 0, 0, 0, 0, 1.0]])
    actions = to_canonical(raw, ActionConvention(frame="tool"), geometry.identity_pose())
    assert np.allclose(actions[:, :3], [[0.1, 0, 0], [0, 0.1, 0]])


def test_roll_pitch_yaw_become_one_rotation_vector() -> None:
    raw = np.array([[0, 0, 0, 0.3, -0.2, 0.5, 0.5]])
    turned = to_canonical(raw, ActionConvention(rotation="euler_xyz"), geometry.identity_pose())[0, 3:6]

    def about(axis: int, angle: float) -> np.ndarray:
        return geometry.to_matrix(geometry.exp(np.eye(3)[axis] * angle))

    expected = about(2, 0.5) @ about(1, -0.2) @ about(0, 0.3)
    assert np.allclose(geometry.to_matrix(geometry.exp(turned)), expected)


def test_joint_policies_get_a_joint_spec() -> None:
    spec = foreign_spec(ActionConvention(space="joint"), 8, 10, 0.05)
    assert [dim.name for dim in spec.dims][-2:] == ["q7", "gripper"]
    assert spec.alignment == "at_observation"
    with pytest.raises(PolicyError, match="emits 8 numbers a step, tcp_delta has 7"):
        foreign_spec(ActionConvention(), 8, 10, 0.05)
    with pytest.raises(PolicyError, match="emits 14 numbers a step; `joint` is one arm of at most 7"):
        foreign_spec(ActionConvention(space="joint"), 14, 10, 0.05)


@pytest.mark.parametrize("kind", ["act", "pi0"])
def test_a_chunk_begins_with_what_is_committed(folders: dict[str, Path], kind: str) -> None:
    policy = load_policy(str(folders[kind]))
    going = np.full((3, 7), 0.01)
    told = msgspec.structs.replace(seen(), committed=going, frozen_steps=2)
    chunk = policy.act(told)
    np.testing.assert_array_equal(chunk.actions[:2], going[:2])
    with pytest.raises(PolicyError, match=r"frozen_steps is 4, 3 actions are committed"):
        policy.act(msgspec.structs.replace(told, frozen_steps=4))


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """As near as the order of adding up lets two equal chunks be."""
    return bool(np.allclose(one, other, rtol=0, atol=1e-5 * np.ptp(other)))


def test_pi0_answers_several_robots_in_one_pass_as_each_alone(folders: dict[str, Path]) -> None:
    policy = load_policy(str(folders["pi0"]))
    assert isinstance(policy, BatchPolicy)
    assert not hasattr(LeRobotPolicy, "act_batch"), "what is answered one by one is not waited for together"
    asked = [seen(seq, session=f"robot {seq}") for seq in range(1, 5)]
    asked[2] = msgspec.structs.replace(asked[2], instruction="lift the red cube now")  # a pass of its own
    blind = msgspec.structs.replace(asked[3], images={})
    lone = [policy.act(each).actions for each in asked]
    assert isinstance(policy, Pi0Policy)
    engine = policy._sampler
    assert isinstance(engine, Sampler)
    sizes: list[int] = []
    sample = policy._policy.predict_action_chunk
    policy._policy.predict_action_chunk = lambda batch, **noise: (
        sizes.append(len(noise["noise"])) or sample(batch, **noise)
    )
    *answers, refused = policy.act_batch([*asked, blind])
    assert sizes == [3, 1]
    assert isinstance(refused, PolicyError)
    assert "no image of camera 'front'" in str(refused)
    for each, alone in zip(answers, lone, strict=True):
        assert isinstance(each, ActionChunk)
        assert near(each.actions, alone)
    assert not near(lone[0], lone[1])

    later = [
        msgspec.structs.replace(
            seen(seq + 4, session=f"robot {seq}", t_ns=1_000_000 + policy._spec.step_ns),
            committed=lone[seq - 1][1:],
        )
        for seq in (1, 2)
    ]
    together = policy.act_batch(later)
    policy.act_batch(asked[:2])
    for observation, each in zip(later, together, strict=True):
        assert isinstance(each, ActionChunk)
        assert near(each.actions, policy.act(observation).actions), "going on from what was said, too"


def test_relative_actions_in_a_batch_start_at_each_robots_own_state(tmp_path: Path) -> None:
    policy = load_policy(str(make_folder(tmp_path / "pi0", "pi0", use_relative_actions=True)))
    assert isinstance(policy, BatchPolicy)
    asked = [seen(1, "a"), seen(2, "b")]
    state = msgspec.structs.replace(asked[1].state, joint_position=np.full(7, 0.5))
    asked[1] = msgspec.structs.replace(asked[1], state=state)
    for observation, answer in zip(asked, policy.act_batch(asked), strict=True):
        assert isinstance(answer, ActionChunk)
        assert near(answer.actions, policy.act(observation).actions)


def test_noise_does_not_depend_on_the_key_that_a_server_gives_a_session() -> None:
    key = key_among("a", {"a"})
    assert key != "a"
    assert seed_of(seen(session=key)) == seed_of(seen(session="a")) != seed_of(seen(session="b"))


@pytest.mark.parametrize("kind", ["pi0", "pi05", "smolvla"])
def test_a_flow_goes_on_from_what_it_said(folders: dict[str, Path], kind: str) -> None:
    """The second chunk's actions, which the first one said too, are nearer to these than without."""
    policy = LeRobotPolicy(folders[kind], LeRobotConfig())
    step = policy._spec.step_ns
    first = policy.act(seen(seq=1))
    left = first.actions[1:]
    later = seen(seq=2, t_ns=1_000_000 + step)
    told = msgspec.structs.replace(later, committed=left, frozen_steps=0)
    bent = policy.act(told).actions
    policy.reset("a")
    free = policy.act(later).actions

    def miss(actions: np.ndarray) -> float:
        return float(np.abs(actions[:3] - left[:3]).mean())

    assert miss(bent) < 0.8 * miss(free)
    policy.reset(
        "a"
    )  # nothing was said before in this session: the model is not guided, its chunk is only joined
    assert np.array_equal(policy.act(told).actions, continued(free, told, policy._spec))


def test_precision_stands_in_place_of_the_dtype_of_a_checkpoint(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    usual = load_policy(str(folders["pi0"])).act(seen()).actions
    half = load_policy(str(folders["pi0"]), placement=Placement(precision="bfloat16"))
    assert isinstance(half, LeRobotPolicy)
    assert next(half._policy.model.paligemma_with_expert.gemma_expert.parameters()).dtype == torch.bfloat16
    other = half.act(seen()).actions
    assert np.isfinite(other).all()
    assert 0 < np.abs(usual - other).max() < 0.05 * np.ptp(usual)
    folder = Path(shutil.copytree(folders["act"], tmp_path / "act"))
    assert "precision float32: lerobot's act has no `dtype`" in refusal(folder, "precision: float32")


def test_how_pi0_is_run_stands_in_the_settings_and_is_pi0s_alone(folders: dict[str, Path]) -> None:
    usual = LeRobotPolicy(folders["pi0"], LeRobotConfig()).act(seen()).actions
    fp8 = LeRobotConfig.model_validate({"engine": {"weights": "fp8"}})
    other = LeRobotPolicy(folders["pi0"], fp8).act(seen()).actions
    assert not np.array_equal(usual, other)
    assert np.abs(usual - other).max() < 0.05 * np.ptp(usual)
    with pytest.raises(PolicyError, match="`engine` is for π0; lerobot's act is run by lerobot's code"):
        LeRobotPolicy(folders["act"], fp8)


def test_lerobots_loop_is_guided_as_our_own() -> None:
    """Its Euler steps with our hook in them, for a velocity whose gradient is no identity."""
    from lerobot.policies.common.flow_matching import euler_integrate

    torch.manual_seed(0)
    mix, noise, earlier = torch.randn(8, 8) * 0.5, torch.randn(1, 6, 8), torch.randn(1, 6, 8)

    class Flow(torch.nn.Module):
        config, rtc_processor = types.SimpleNamespace(rtc_config=None), None

        def sample_actions(self) -> torch.Tensor:
            on = self.config.rtc_config.enabled
            return euler_integrate(
                lambda x, time: x @ mix, noise, 5, rtc_processor=self.rtc_processor, rtc_enabled=on
            )

    model = Flow()
    assert GuidedSampler.fits(model)
    sampler = GuidedSampler(model)
    free = euler(lambda x, _: x @ mix, noise, 5)
    bent = euler(lambda x, _: x @ mix, noise, 5, going_on(earlier, 2, 1))
    with torch.no_grad():
        torch.testing.assert_close(model.sample_actions(), free)
        sampler.go_on(going_on(earlier, 2, 1))
        torch.testing.assert_close(model.sample_actions(), bent)
        torch.testing.assert_close(model.sample_actions(), free)  # one sample is guided and no other
    assert not torch.allclose(bent, free, atol=0.1)
