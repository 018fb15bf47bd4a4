"""A slow level that says a vector, a fast one that acts on the latest: trained as one model, asked apart."""

from __future__ import annotations

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

from contracts.toy_policy import SIZE, STEP, TOY_HEADS, toy_checkpoint, toy_config, toy_data, toy_observation
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import AugmentConfig, PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model, load_checkpoint, load_policy, save_checkpoint
from reflexarc.vla.heads.latent import LatentHead
from reflexarc.vla.planners import TwoLevelPolicy
from reflexarc.vla.planners.latent import LatentPlanner
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.train import TrainingData, train
from reflexarc.vla.train.batch import Batches
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.contracts import BatchPolicy
from reflexarc.wire.messages import ActionChunk, Observation

Z = 16
SLOW = {
    "vision": {"kind": "conv", "width": 16, "blocks": 1},
    "connector": {"kind": "resampler", "tokens": 4, "key_width": 16},
    "language": {"width": 48, "layers": 2, "heads": 2, "mlp_width": 96, "max_words": 8},
    "head": {"kind": "latent", "width": Z},
    "lag": 2,
}


def config(head: str = "parallel", **training: object) -> PolicyConfig:
    values = toy_config(head, **training).model_dump(mode="json")
    values["model"]["slow"] = SLOW
    return PolicyConfig.model_validate(values)


def checkpoint(head: str = "parallel") -> Checkpoint:
    made, told = toy_checkpoint(head), config(head)
    torch.manual_seed(1)
    built = build_model(told, made.spec, made.actions, made.words, made.stats, made.fast)
    return dataclasses.replace(made, config=told, model=built)


def batches(made: Checkpoint) -> Batches:
    parts: Any = {"actions": made.codec, "words": made.words, "stats": made.stats}
    return Batches(toy_data(), made.config.model, **parts)


def at(t_s: float, instruction: str = "go to the red square", **changes: Any) -> Observation:
    observation = toy_observation(instruction=instruction)
    return msgspec.structs.replace(observation, t_obs_ns=round(t_s * 1e9), **changes)


class Gated:
    """A planner whose answers are held back while `gate` is closed; it remembers what it was asked and said."""

    period_s = 0.2

    def __init__(self, planner: LatentPlanner) -> None:
        self._planner, self.cameras = planner, planner.cameras
        self.gate, self.fails = threading.Event(), False
        self.gate.set()
        self.asked: list[float] = []

    def plan(self, observation: Observation) -> Any:
        self.asked.append(observation.t_obs_ns / 1e9)
        self.gate.wait(10)
        if self.fails:
            raise PolicyError("the planner is out of order")
        return self._planner.plan(observation)


class Told:
    """The fast level, remembering the latents that it was told."""

    def __init__(self, policy: VlaPolicy) -> None:
        self._policy, self.info, self.reset = policy, policy.info, policy.reset
        self.latents: list[Any] = []

    def act(self, observation: Observation) -> ActionChunk:
        self.latents.append(observation.latent)
        return self._policy.act(observation)


def levels(**options: Any) -> tuple[TwoLevelPolicy, Gated, Told]:
    fast = VlaPolicy(checkpoint())
    planner, told = Gated(LatentPlanner(fast)), Told(fast)
    return TwoLevelPolicy(planner, told, **options), planner, told


WAYS = {"red": (1.0, 1.0), "green": (-1.0, 1.0), "blue": (-1.0, -1.0)}


def data_of_words() -> TrainingData:
    """All pictures are alike and which way to go stands in the words alone, which the fast level never hears."""
    data = toy_data()
    ways = np.array([WAYS[told.split()[3]] for told in data.instructions])[data.episode]
    actions = np.zeros_like(data.actions)
    actions[:, :, :2] = STEP * ways[:, None]
    grey = np.full((SIZE, SIZE, 3), 200, dtype=np.uint8)
    unknown = np.full_like(data.focus, np.nan)
    return dataclasses.replace(
        data, actions=actions, focus=unknown, images=lambda camera, rows: np.tile(grey, (len(rows), 1, 1, 1))
    )


def test_both_levels_learn_as_one_and_what_the_words_say_goes_through_the_latent(tmp_path: Path) -> None:
    settings: Any = {
        "steps": 60,
        "learning_rate": 8e-3,
        "ema_steps": 5,
        "validation": 0.0,
        "validate_every": 10_000,
    }
    quiet = Console(file=io.StringIO())
    result = train(config(**settings), data_of_words(), tmp_path / "run", console=quiet)
    policy = load_policy(str(result.checkpoint))
    assert isinstance(policy, TwoLevelPolicy)
    assert "says 16 numbers, up to 2 steps old in training" in (result.checkpoint / "README.md").read_text()
    said = {
        colour: policy.act(toy_observation(instruction=f"go to the {colour} square")).actions
        for colour in WAYS
    }
    for colour, way in WAYS.items():
        assert np.allclose(said[colour][:, :2], STEP * np.array(way), atol=0.1 * STEP)
    # The fast level told "red" in a latent does that, whatever the words beside it say.
    latent = policy.planner.plan(toy_observation(instruction="go to the red square"))
    both = toy_observation(instruction="go to the blue square")
    assert not isinstance(latent, str)
    assert np.array_equal(
        policy.policy.act(msgspec.structs.replace(both, latent=latent)).actions, said["red"]
    )


@pytest.mark.parametrize("head", TOY_HEADS)
def test_the_loss_of_every_head_flows_back_into_the_slow_level(head: str) -> None:
    made = checkpoint(head)
    batch = batches(made).make(np.arange(4), AugmentConfig(), np.random.default_rng(0))
    loss, _ = made.model(batch.inputs, batch.labels)
    loss.backward()
    assert made.model.slow is not None
    assert isinstance(made.model.slow.head, LatentHead)
    reached = [
        made.model.slow.trunk.llama.embed_tokens.weight,
        made.model.slow.head.query,
        made.model.told.weight,
    ]
    for each in reached:
        assert each.grad is not None
        assert float(each.grad.abs().max()) > 0
    words = made.model.trunk.llama.embed_tokens.weight.grad
    heard = torch.zeros(0) if words is None else words[3 : made.words.size].abs()
    assert (
        not heard.numel() or float(heard.max()) == 0
    )  # the fast level's own table: only the beginning is read


def test_in_training_the_slow_level_sees_the_same_episode_some_steps_before_changed_alike() -> None:
    made, data, rows = checkpoint(), toy_data(), np.arange(40)
    changes = AugmentConfig(mirror=0.5, recolour=({"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)},))
    batch = batches(made).make(rows, changes, np.random.default_rng(3))
    before = batch.inputs.earlier
    assert before is not None
    assert torch.equal(before.words, batch.inputs.words)
    # A toy's pictures stay the same within an episode: so they do when mirrored and repainted, if that is done alike.
    assert torch.equal(before.images, batch.inputs.images)
    lags = set()
    for row, then in zip(rows, before.tcp - batch.inputs.tcp, strict=True):
        mine = list(range(max(row - 2, row - row % 4), row + 1))
        moved = torch.tensor(data.tcp[mine] - data.tcp[row], dtype=torch.float32)
        distance = torch.minimum(
            *((moved * torch.tensor([1, sign, 1])).sub(then).abs().amax(1) for sign in (1, -1))
        )
        assert float(distance.min()) < 1e-6
        lags.add(int(row) - mine[int(distance.argmin())])
    assert lags == {0, 1, 2}
    stalest = batches(made).make(np.array([0, 1, 3])).inputs
    assert stalest.earlier is not None
    wanted = torch.tensor(data.tcp[[0, 0, 1]], dtype=torch.float32)
    assert torch.equal(stalest.earlier.tcp, wanted)


def test_the_latest_latent_is_acted_on_until_the_next_is_due() -> None:
    policy, planner, told = levels()
    for t_s in (0.0, 0.1, 0.2, 0.35, 0.4):
        policy.act(at(t_s))
    assert planner.asked == [0.0, 0.2, 0.4]
    assert told.latents[0] is told.latents[1]
    assert told.latents[1] is not told.latents[2]
    assert told.latents[0].shape == (Z,)
    policy.act(at(0.45, "go to the blue square"))  # another task is thought about at once
    policy.act(at(0.0, "go to the blue square"))  # and so is another episode, by its clock
    assert planner.asked[3:] == [0.45, 0.0]


def test_the_fast_level_goes_on_with_a_stale_latent_while_the_slow_one_thinks() -> None:
    policy, planner, told = levels(background=True, max_age_s=1.0)
    policy.act(at(0.0))
    planner.gate.clear()
    for t_s in (0.3, 0.6, 0.9):
        policy.act(at(t_s))
    assert planner.asked == [0.0, 0.3]
    assert all(each is told.latents[0] for each in told.latents)
    with pytest.raises(PolicyError, match=r"latest plan is of 1\.1 s ago, .* 1 s \(max_age_s\)"):
        policy.act(at(1.1))
    pending = policy._sessions["a"].pending
    assert pending is not None
    planner.gate.set()
    pending.result(10)
    policy.act(at(1.15))  # an answer that comes late is the latest, while it is not too old
    assert told.latents[-1] is not told.latents[0]


def test_a_planner_that_fails_is_an_error_once_and_asked_again() -> None:
    policy, planner, _ = levels(background=True)
    planner.fails = True
    with pytest.raises(PolicyError, match="out of order"):
        policy.act(at(0.0))
    planner.fails = False
    policy.act(at(0.05))
    planner.gate.clear()
    policy.reset("a")
    hasty, closed, _ = levels(background=True, max_age_s=0.05)
    closed.gate.clear()
    with pytest.raises(PolicyError, match=r"the planner said nothing for 0\.05 s"):
        hasty.act(at(0.0))
    for each in (planner, closed):
        each.gate.set()


def test_without_a_latent_or_with_a_wrong_one_the_fast_level_does_not_act() -> None:
    fast = VlaPolicy(checkpoint())
    for latent, message in (
        (None, r"nothing was said yet: the observation has no latent; .*planner: \{kind: latent\}"),
        (np.zeros(Z + 1), r"latent has shape \(17,\), toy needs \(16,\) finite numbers"),
        (np.full(Z, np.nan), "finite numbers"),
    ):
        with pytest.raises(PolicyError, match=message):
            fast.act(at(0.0, latent=latent))
    good = fast.act_batch([at(0.0), at(0.0, latent=np.zeros(Z)), at(0.0, latent=np.ones(Z))])
    assert [type(each) for each in good] == [PolicyError, ActionChunk, ActionChunk]
    with pytest.raises(PolicyError, match=r"toy has no slow level .*is told words"):
        VlaPolicy(toy_checkpoint()).act(at(0.0, latent=np.zeros(Z)))
    with pytest.raises(PolicyError, match=r"toy has no slow level; .* needs model\.slow"):
        LatentPlanner(VlaPolicy(toy_checkpoint()))


@pytest.mark.parametrize("batches_below", [True, False])
def test_robots_share_a_pass_of_the_fast_level_and_each_has_its_own_plan(batches_below: bool) -> None:
    fast = VlaPolicy(checkpoint())
    planner = Gated(LatentPlanner(fast))
    policy = TwoLevelPolicy(planner, fast if batches_below else Told(fast))
    assert isinstance(policy, BatchPolicy)
    told = ("go to the red square", "go to the blue square")
    robots = [at(0.0, each, session=each) for each in told]
    silent = at(0.0, session="no camera", images={})
    answers = policy.act_batch([robots[0], silent, robots[1]])
    assert [type(each) for each in answers] == [ActionChunk, PolicyError, ActionChunk]
    alone = [TwoLevelPolicy(planner, fast).act(each) for each in robots]
    for answer, one in zip((answers[0], answers[2]), alone, strict=True):
        assert isinstance(answer, ActionChunk)
        assert np.abs(answer.bins.astype(int) - one.bins).max() <= 1
    assert policy.act_batch([]) == []


def test_the_slow_level_thinks_about_several_robots_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = VlaPolicy(checkpoint())
    slow = fast.checkpoint.model.slow
    assert slow is not None
    passes, think = list[int](), slow.latent
    monkeypatch.setattr(slow, "latent", lambda inputs: passes.append(len(inputs.words)) or think(inputs))
    policy = TwoLevelPolicy(LatentPlanner(fast), fast)
    told = ("go to the red square", "go to the blue square", "go")
    robots = [at(0.0, each, session=each) for each in told]
    silent = at(0.0, session="no camera", images={})
    together = policy.plans([robots[0], silent, *robots[1:]])
    assert passes == [3]
    assert isinstance(together.pop(1), PolicyError)
    for robot, plan in zip(robots, together, strict=True):
        assert np.allclose(plan, LatentPlanner(fast).plan(robot), atol=1e-4)  # type: ignore[arg-type]


def test_what_is_asked_apart_is_what_is_computed_at_once() -> None:
    made = checkpoint()
    policy = VlaPolicy(made)
    asked = at(0.0)
    apart = policy.act(msgspec.structs.replace(asked, latent=LatentPlanner(policy).plan(asked)))
    batch = batches(made).make(np.array([5]))
    with torch.inference_mode():
        at_once = made.model.act(dataclasses.replace(batch.inputs, earlier=None)).bins
        assert made.model.slow is not None
        latent = made.model.slow.latent(batch.inputs)
        told = made.model.act(
            dataclasses.replace(batch.inputs, latent=latent, words=batch.inputs.words[:, :1])
        ).bins
    assert torch.equal(at_once, told)  # type: ignore[arg-type]
    again = decode(encode(msgspec.structs.replace(asked, latent=LatentPlanner(policy).plan(asked))))
    assert isinstance(again, Observation)
    assert np.array_equal(policy.act(again).actions, apart.actions)  # a latent may come from another machine


def test_a_folder_with_two_levels_is_loaded_as_such_and_a_settings_file_says_how_often(
    tmp_path: Path,
) -> None:
    for name, made in (("both", checkpoint()), ("one", toy_checkpoint())):
        save_checkpoint(tmp_path / name, made, made.model.state_dict(), "# toy\n")
    alone = load_policy(str(tmp_path / "both"))
    assert isinstance(alone, TwoLevelPolicy)
    assert alone._period_ns == 200_000_000  # two steps of 0.1 s, as it lagged in training
    settings = tmp_path / "two.yaml"
    settings.write_text("planner: {kind: latent}\npolicy: both\nperiod_s: 0.125\nbackground: true\n")
    policy = load_policy(str(settings))
    assert isinstance(policy, TwoLevelPolicy)
    assert policy._period_ns == 125_000_000
    assert isinstance(policy.policy, VlaPolicy)
    assert np.array_equal(policy.act(at(0.0)).actions, alone.act(at(0.0)).actions)
    settings.write_text("planner: {kind: latent}\npolicy: one\n")
    with pytest.raises(PolicyError, match=r"toy has no slow level; .* needs model\.slow"):
        load_policy(str(settings))
    words = tmp_path / "words.yaml"
    words.write_text("planner: {kind: rules, rules: [{say: go to the red square}]}\npolicy: both\n")
    assert np.array_equal(load_policy(str(words)).act(at(0.0)).actions, alone.act(at(0.0)).actions)


def test_settings_that_make_no_two_levels_are_refused() -> None:
    values = config().model_dump(mode="json")
    for change, message in (
        ({"head": {"kind": "latent"}}, r"head latent is that of a slow level; set model\.slow"),
        ({"head": {"kind": "words"}}, "a fast level acts; the head words says what comes next"),
        ({"slow": SLOW | {"head": {"kind": "parallel"}}}, "latent"),
        ({"slow": SLOW | {"lag": 0}}, "greater than or equal to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            PolicyConfig.model_validate(values | {"model": values["model"] | change})
    made = checkpoint().model
    assert made.slow is not None
    batch = batches(checkpoint()).make(np.arange(2))
    with pytest.raises(PolicyError, match="has no labels of its own"):
        made.slow(batch.inputs, batch.labels)


def test_a_checkpoint_keeps_both_levels(tmp_path: Path) -> None:
    made = checkpoint()
    save_checkpoint(tmp_path / "both", made, made.model.state_dict(), "# toy\n")
    read = load_checkpoint(tmp_path / "both")
    assert read.config == made.config
    wanted = made.model.state_dict()
    assert any(name.startswith("slow.trunk.") for name in wanted)
    for name, tensor in read.model.state_dict().items():
        assert torch.allclose(tensor, wanted[name], atol=2e-3), name
