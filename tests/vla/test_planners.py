"""Two levels: rules, a planner that looks, and the policy that does the latest of what was said."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

from contracts.toy_policy import toy_checkpoint, toy_config, toy_data, toy_observation
from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.configs.planner import SubtaskRule
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import build_model, load_checkpoint, load_policy, save_checkpoint
from reflexarc.vla.planners import RulePlanner, TwoLevelPolicy
from reflexarc.vla.planners.two_level import _Session
from reflexarc.vla.planners.vlm import VlmPlanner
from reflexarc.vla.preprocess import to_inputs
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.train import train
from reflexarc.vla.train.batch import Batches
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo

RULES = (
    SubtaskRule(say="open the gripper", gripper_below=0.5),
    SubtaskRule(say="now {task}", height_above=0.1),
)


class Told:
    """A policy that only remembers what it was told."""

    def __init__(self) -> None:
        self._inner = VlaPolicy(toy_checkpoint())
        self.told: list[str] = []

    @property
    def info(self) -> PolicyInfo:
        return self._inner.info

    def reset(self, session: str) -> None:
        self.told.append(f"reset {session}")

    def act(self, observation: Observation) -> ActionChunk:
        self.told.append(observation.instruction)
        return self._inner.act(observation)


class Counting:
    """A planner that counts; `gate` holds its answers back."""

    cameras = ("front", "top")
    period_s = 1.0

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def plan(self, observation: Observation) -> str:
        self.asked += 1
        number = self.asked
        self.gate.wait(10)
        return f"{observation.instruction} {number}"


def at(t_s: float, instruction: str = "go", session: str = "a") -> Observation:
    observation = toy_observation(instruction=instruction, session=session)
    return msgspec.structs.replace(observation, t_obs_ns=round(t_s * 1e9))


def test_the_first_rule_that_holds_speaks_and_the_task_itself_where_none_does() -> None:
    planner = RulePlanner(RULES)
    assert planner.say("lift it", gripper=0.2, height=0.3) == "open the gripper"
    assert planner.say("lift it", gripper=0.9, height=0.3) == "now lift it"
    assert planner.say("lift it", gripper=0.9, height=0.05) == "lift it"
    observation = toy_observation(instruction="lift it")
    assert planner.plan(observation) == "now lift it"  # opening 1, height 0.2


def test_the_policy_does_the_latest_subtask_and_the_planner_is_asked_once_a_period() -> None:
    planner, fast = Counting(), Told()
    policy = TwoLevelPolicy(planner, fast, period_s=0.5)
    assert isinstance(policy, Policy)
    assert policy.info.cameras == ["front", "wrist", "top"]
    for t_s in (0.0, 0.2, 0.4, 0.5, 0.9):
        policy.act(at(t_s))
    assert fast.told == ["go 1", "go 1", "go 1", "go 2", "go 2"]
    policy.act(at(1.0, "stop"))  # another task is planned at once
    policy.act(at(1.0, session="b"))
    policy.reset("a")
    policy.act(at(1.1, "stop"))
    assert fast.told[5:] == ["stop 3", "go 4", "reset a", "stop 5"]


def test_in_the_background_the_policy_never_waits_for_a_later_subtask() -> None:
    planner, fast = Counting(), Told()
    policy = TwoLevelPolicy(planner, fast, period_s=0.5, background=True)
    policy.act(at(0.0))
    planner.gate.clear()
    policy.act(at(0.6))
    policy.act(at(1.2))  # still thinking: not asked again
    assert fast.told == ["go 1"] * 3
    assert planner.asked == 2
    pending = policy._sessions["a"].pending
    assert pending is not None
    planner.gate.set()
    pending.result(10)
    policy.act(at(1.3))
    assert fast.told[-1] == "go 2"


class Together(Counting):
    """A planner that plans for several at once, and remembers for how many."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def plan_batch(self, observations: Sequence[Observation]) -> list[str | ReflexarcError]:
        self.sizes.append(len(observations))
        refusal = PolicyError("nothing to see")
        return [self.plan(each) if each.images else refusal for each in observations]


def test_robots_whose_time_it_is_are_planned_for_in_one_pass() -> None:
    planner, fast = Together(), Told()
    policy = TwoLevelPolicy(planner, fast, period_s=0.5)
    policy.act(at(0.3, "stop", session="c"))
    blind = msgspec.structs.replace(at(0.6, session="d"), images={})
    twice = at(0.6, session="b")
    answers = policy.act_batch([at(0.6), twice, at(0.6, "stop", session="c"), blind, twice])
    assert planner.sizes == [1, 3]  # the plan of c is not old, that of b is asked for once
    assert fast.told == ["stop 1", "go 2", "go 3", "stop 1", "go 3"]
    assert [type(each) for each in answers] == [ActionChunk] * 3 + [PolicyError, ActionChunk]


def test_robots_wait_for_a_planner_that_hangs_once_together(monkeypatch: pytest.MonkeyPatch) -> None:
    planner, hear, patience = Together(), _Session.hear, list[float]()
    monkeypatch.setattr(_Session, "hear", lambda self, s: patience.append(s) or hear(self, s))
    planner.gate.clear()
    policy = TwoLevelPolicy(planner, Told(), background=True, max_age_s=0.1)
    refused = policy.act_batch([at(0.0, session=str(index)) for index in range(4)])
    planner.gate.set()
    assert all("the planner said nothing for 0.1 s" in str(each) for each in refused)
    assert 0.0 < patience[0] <= 0.1
    assert patience[1:] == [0.0] * 3


def test_robots_that_ask_while_the_planner_thinks_are_planned_for_together_next() -> None:
    planner, fast = Together(), Told()
    policy = TwoLevelPolicy(planner, fast, period_s=0.5, background=True)
    for session in "abc":
        policy.act(at(0.0, session=session))
    assert planner.sizes == [1, 1, 1]
    planner.gate.clear()
    policy.act(at(0.6, session="a"))
    while len(planner.sizes) == 3:  # until it thinks about a
        time.sleep(0.001)
    for session in "bc":
        policy.act(at(0.6, session=session))
    pending = policy._sessions["c"].pending
    assert pending is not None
    planner.gate.set()
    pending.result(10)
    assert planner.sizes == [1, 1, 1, 1, 2]


def planner_config() -> PolicyConfig:
    values = toy_config(steps=100, learning_rate=8e-3, ema_steps=5, validation=0.25).model_dump(mode="json")
    values["model"]["head"] = {"kind": "words"}
    values["train"]["subtasks"] = [rule.model_dump() for rule in RULES]
    return PolicyConfig.model_validate(values)


def test_a_planner_learns_to_say_what_the_rules_say_and_a_policy_is_told_it(tmp_path: Path) -> None:
    data = toy_data()
    result = train(planner_config(), data, tmp_path / "run", console=Console(file=io.StringIO()))
    assert result.validation["accuracy"]["subtask"] >= 0.8
    checkpoint = load_checkpoint(result.checkpoint)
    planner, rules = VlmPlanner(VlaPolicy(checkpoint)), RulePlanner(RULES)
    observation = toy_observation(
        images={name: data.images(name, np.array([0]))[0] for name in ("front", "wrist")}
    )
    for opening in (0.0, 1.0):
        state = msgspec.structs.replace(observation.state, gripper=opening, gripper_commanded=opening)
        asked = msgspec.structs.replace(observation, state=state, instruction=data.instructions[0])
        assert planner.plan(asked) == rules.plan(asked)
        blind = msgspec.structs.replace(asked, images={})
        together = planner.plan_batch([asked, blind, asked])
        assert [together[0], together[2]] == [rules.plan(asked)] * 2
        assert isinstance(together[1], PolicyError)
    fast = toy_checkpoint()
    save_checkpoint(tmp_path / "fast", fast, fast.model.state_dict(), "# toy\n")
    settings = tmp_path / "two.yaml"
    settings.write_text("planner: {kind: vlm, checkpoint: run/policy}\npolicy: fast\nperiod_s: 0.3\n")
    policy = load_policy(str(settings))
    assert isinstance(policy, TwoLevelPolicy)
    assert policy.latest(asked) == rules.plan(asked)
    assert policy.act(asked).actions.shape == (4, 7)


def test_what_rows_are_told_is_their_subtask_and_a_planners_label() -> None:
    data, fast = toy_data(), toy_checkpoint()
    words = type(fast.words)((*fast.words.words, "gripper", "now", "open"), 8)
    rows = np.flatnonzero(data.gripper_commanded == 0)[:2]
    parts = {"actions": fast.codec, "words": words, "stats": fast.stats, "subtasks": RULES}
    told = Batches(data, fast.config.model, **parts).make(rows)  # type: ignore[arg-type]
    assert [words.decode(row) for row in told.inputs.words.tolist()] == ["open the gripper"] * 2
    assert told.labels.words is None
    config = fast.config.model.model_copy(update={"head": planner_config().model.head})
    said = Batches(data, config, **parts).make(rows)  # type: ignore[arg-type]
    assert said.labels.words is not None
    assert [words.decode(row) for row in said.labels.words.tolist()] == ["open the gripper"] * 2
    assert words.decode(said.inputs.words[0].tolist()) == data.instructions[data.episode[rows[0]]]


def test_what_is_no_planner_or_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="toy says parallel; a planner needs the head `words`"):
        VlmPlanner(VlaPolicy(toy_checkpoint()))
    settings = tmp_path / "two.yaml"
    for text, message in (
        ("planner: {kind: oracle}\npolicy: x\n", "planner: .*'rules', 'vlm'"),
        ("planner: {kind: rules, rules: []}\npolicy: x\n", "planner.rules.rules: .*at least 1"),
        ("planner: {kind: rules, rules: [{say: a}]}\npolicy: nobody\n", "unknown policy 'nobody'"),
    ):
        settings.write_text(text)
        with pytest.raises(PolicyError, match=message):
            load_policy(str(settings))
    values = planner_config().model_dump(mode="json")
    values["train"]["subtasks"] = []
    with pytest.raises(ValueError, match=r"learns from train\.subtasks"):
        PolicyConfig.model_validate(values)


def test_words_end_where_the_padding_begins() -> None:
    """What stands behind the end of a sentence has no say in the loss."""
    data, base = toy_data(), toy_checkpoint()
    model = build_model(planner_config(), base.spec, base.actions, base.words, base.stats).eval()
    batches = Batches(data, base.config.model, actions=base.codec, words=base.words, stats=base.stats)
    batch = batches.make(np.arange(2))
    inputs = to_inputs(VlaPolicy(base).raw(toy_observation()), base.stats)
    tokens, keep = model.see(inputs)
    prefix, plan, _ = model.think(inputs, tokens, keep)
    said = torch.tensor([[4, 5, 0, 0, 0, 0, 0, 0]])
    long = torch.tensor([[4, 5, 0]])
    losses = []
    for words in (said, long):
        prefix.cache.crop(prefix.keep.shape[1])
        losses.append(
            model.head.loss(model.trunk, prefix, plan, dataclasses.replace(batch.labels, words=words))
        )
    assert torch.allclose(*losses)
