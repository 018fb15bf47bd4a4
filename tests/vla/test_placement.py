"""Where models of our own run and in what numbers: in bfloat16 they say the same, and nothing stays on the processor.

No GPU is needed: tensors of torch's device `meta` know shape, dtype and device only, and whatever would meet a tensor
of another device is an error there as it would be on a GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.toy_policy import HORIZON, SIZE, TOY_HEADS, toy_checkpoint, toy_observation
from reflexarc.cli import main
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.foreign import LeRobotConfig, OpenVlaConfig
from reflexarc.configs.placement import Placement
from reflexarc.configs.policy import PolicyConfig
from reflexarc.policies import open_policy
from reflexarc.vla.checkpoint import Checkpoint, build_model, load_policy, save_checkpoint
from reflexarc.vla.commitment import commitment
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.labels import Answer
from reflexarc.vla.placement import place, placed
from reflexarc.vla.planners import TwoLevelPolicy
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import ActionChunk, Observation

SMALL = {"width": 24, "layers": 1, "heads": 2, "patch": 8}
FUSED = {"kind": "fused", "parts": [{"kind": "dinov2", "registers": 4, **SMALL}, {"kind": "siglip", **SMALL}]}
SLOW = {
    "language": {"width": 48, "layers": 2, "heads": 2, "mlp_width": 96, "max_words": 8},
    "head": {"kind": "latent", "width": 16},
}
MODELS: dict[str, dict[str, Any]] = {
    **{head: {"head": {"kind": head, **TOY_HEADS[head]}} for head in TOY_HEADS},
    "adaptive norm": {"head": {"kind": "flow", "time": "adarms", **TOY_HEADS["flow"]}},
    "fused towers, perceiver, Gemma": {
        "vision": FUSED,
        "connector": {"kind": "perceiver", "tokens": 4, "heads": 2, "layers": 1},
        "language": SLOW["language"] | {"kind": "gemma"},
        "head": {"kind": "regression"},
    },
    "Q-Former, Qwen": {
        "vision": {"kind": "vit", **SMALL},
        "connector": {"kind": "qformer", "tokens": 4, "heads": 2, "layers": 1},
        "language": SLOW["language"] | {"kind": "qwen"},
        "head": {"kind": "autoregressive"},
    },
    "gates, state as text": {
        "vision": {"kind": "siglip", **SMALL},
        "connector": {"kind": "gated"},
        "state": "text",
        "head": {"kind": "regression"},
    },
    "words first": {
        "language": SLOW["language"] | {"words_first": True},
        "head": {"kind": "regression"},
    },
    "two levels": {"slow": SLOW, "head": {"kind": "regression"}},
}
"""All parts in a few models: by what is changed of the toy's."""


def checkpoint(name: str) -> Checkpoint:
    change = MODELS[name]
    kind = change["head"]["kind"]
    made = toy_checkpoint(kind)
    values = made.config.model_dump(mode="json")
    values["model"] |= change
    config = PolicyConfig.model_validate(values)
    torch.manual_seed(1)
    built = build_model(config, made.spec, made.actions, made.words, made.stats, made.fast)
    return dataclasses.replace(made, config=config, model=built.eval())


def observation(seed: int = 0) -> Observation:
    generator = np.random.default_rng(seed)
    images = {
        name: generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for name in ("front", "wrist")
    }
    return toy_observation(images=images, seq=seed)


def committed(seed: int = 0) -> Observation:
    going = np.full((3, 7), 0.004)
    return msgspec.structs.replace(observation(seed), committed=going, frozen_steps=2)


def said(policy: VlaPolicy, asked: Observation) -> Tensor:
    """The head's numbers in full, before any of them is rounded to a token."""
    model: Any = policy.checkpoint.model
    with policy.computing():
        inputs = model.tell(policy.inputs([policy.raw(asked)]))
        prefix, plan, _ = model.think(inputs, *model.see(inputs))
        kind = model.config.head.kind
        if kind == "autoregressive":
            given = torch.zeros(1, HORIZON, 7, dtype=torch.int64)
        elif kind == "fast":
            given = torch.zeros(1, 5, dtype=torch.int64)
        elif kind == "parallel":
            return model.head(model.trunk, prefix, plan).float()  # type: ignore[no-any-return]
        else:
            return model.head.decode(model.trunk, prefix, plan).values.float()  # type: ignore[no-any-return]
        return model.head(model.trunk, prefix, plan, given).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
def test_in_bfloat16_every_part_says_what_it_says_in_float32(name: str) -> None:
    whole, half = VlaPolicy(checkpoint(name)), VlaPolicy(checkpoint(name), precision="bfloat16")
    expected, found = said(whole, observation()), said(half, observation())
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert not torch.equal(found, expected)  # it was computed otherwise
    held = {each.dtype for each in half.checkpoint.model.parameters()}
    assert held == {torch.bfloat16, torch.float32}
    for asked in (observation(1), committed(1)):
        if name != "two levels":
            assert half.act(asked).actions.shape == whole.act(asked).actions.shape


def test_most_numbers_are_held_in_bfloat16_and_the_engine_runs_on_them() -> None:
    policy = VlaPolicy(checkpoint("autoregressive"), precision="bfloat16")
    model = policy.checkpoint.model
    for part in (model.trunk.llama.layers, model.tower):
        assert isinstance(part, nn.Module)
        products = [each for each in part.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
        assert products
        assert all(each.weight.dtype is torch.bfloat16 for each in products)
    steps = model.trunk.steps
    assert steps is not None
    assert steps._decoder is not None
    assert steps._decoder.cache.keys.dtype is torch.bfloat16


def test_the_shipped_policy_acts_alike_in_bfloat16() -> None:
    whole, half = (
        load_policy("reflexarc-tiny", placement=Placement(precision=each)) for each in ("float32", "bfloat16")
    )
    assert isinstance(whole, VlaPolicy)
    assert isinstance(half, VlaPolicy)
    bounds = np.ptp(whole.checkpoint.actions.centers, axis=1)
    generator = np.random.default_rng(0)
    for seed in range(3):
        images = {
            name: generator.integers(0, 256, (96, 96, 3), dtype=np.uint8) for name in ("front", "wrist")
        }
        asked = toy_observation(images=images, instruction="lift the red cube", seq=seed)
        off = np.abs(whole.act(asked).actions - half.act(asked).actions)[:, :6] / bounds[:6]
        assert off.max() < 0.1
        assert np.median(off) < 0.02


def answered(model: Any, inputs: Inputs, going: Any) -> Answer:
    """What the model says, as a policy asks it; FAST's and a planner's end depends on what was said: one pass."""
    inputs = model.tell(inputs)
    prefix, plan, _ = model.think(inputs, *model.see(inputs))
    if model.config.head.kind == "fast":
        return Answer(tokens=model.head(model.trunk, prefix, plan, inputs.words).argmax(-1))
    answer: Answer = model.head.decode(model.trunk, prefix, plan, going)
    return answer


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_every_tensor_of_an_answer_is_where_the_model_is(
    name: str, going: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, meta = checkpoint(name), torch.device("meta")
    policy = VlaPolicy(made)
    model, asked = made.model, committed() if going else observation()
    model.trunk.kept = model.trunk.steps = None  # what they keep was made on the processor
    inputs = policy.inputs([policy.raw(asked)])
    here = commitment([asked], made.spec, made.codec.grid)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    model.to(meta)
    answer = answered(model, inputs.to(meta), here and here.to(meta))
    assert next(each for each in vars_of(answer) if each is not None).device == meta
    if here is not None and name == "parallel":
        with pytest.raises(RuntimeError, match="device meta"):
            answered(model, inputs.to(meta), here)  # the check does find a tensor that was left behind


def vars_of(answer: Answer) -> list[Tensor | None]:
    """Its fields."""
    return [getattr(answer, field.name) for field in dataclasses.fields(answer)]


def test_a_device_or_a_precision_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place("auto", "auto") == (torch.device("cpu"), torch.float32)
    assert place("cpu", "bfloat16") == (torch.device("cpu"), torch.bfloat16)
    with pytest.raises(PolicyError, match="device cuda: torch finds no GPU; set `device: cpu`"):
        load_policy("reflexarc-tiny", placement=Placement(device="cuda"))
    for command in (
        ["serve", "--policy", "reflexarc-tiny"],
        ["eval", "--policy", "reflexarc-tiny", "--task", "reach"],
        ["doctor", "policy", "reflexarc-tiny", "--episodes", "nowhere"],
        ["replay", "nowhere.mcap", "--policy", "reflexarc-tiny"],
    ):
        assert main([*command, "--device", "cuda"]) != 0
        told = " ".join(capsys.readouterr().err.split())
        assert "device cuda: torch finds no GPU" in told
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(PolicyError, match="bfloat16: Tesla T4 has none; set `precision: float32`"):
        place("auto", "auto")
    assert place("cuda", "float32") == (torch.device("cuda"), torch.float32)


def test_what_a_command_says_stands_in_place_of_the_settings() -> None:
    settings = OpenVlaConfig(device="cpu", precision="float32")
    assert placed(settings, Placement()) == settings
    assert placed(settings, Placement(precision="bfloat16")).precision == "bfloat16"
    assert placed(LeRobotConfig(), Placement(precision="bfloat16")).precision == "bfloat16"
    with pytest.raises(PolicyError, match="the scripted expert has no model"):
        open_policy("expert", placement=Placement(device="cpu"))


def test_settings_of_our_own_checkpoints(tmp_path: Path) -> None:
    made = toy_checkpoint()
    save_checkpoint(tmp_path / "toy", made, made.model.state_dict(), "# toy\n")
    file = tmp_path / "half.yaml"
    file.write_text("checkpoint: toy\nprecision: bfloat16\n")

    def precision(name: Path, **said: Any) -> torch.dtype:
        policy = load_policy(str(name), placement=Placement(**said))
        assert isinstance(policy, VlaPolicy)
        return policy._dtype

    assert precision(tmp_path / "toy") is torch.float32
    assert precision(file) is torch.bfloat16
    assert precision(file, precision="float32") is torch.float32
    (tmp_path / "toy" / "reflexarc.yaml").write_text("precision: bfloat16\n")
    assert precision(tmp_path / "toy") is torch.bfloat16
    file.write_text("checkpoint: toy\nimage_size: 8\n")
    with pytest.raises(
        PolicyError, match=r"half\.yaml: image_size: .*; known: checkpoint, device, precision"
    ):
        load_policy(str(file))


def test_a_slow_level_thinks_where_its_policy_is(tmp_path: Path) -> None:
    made = checkpoint("two levels")
    save_checkpoint(tmp_path / "two", made, made.model.state_dict(), "# toy\n")
    whole, half = (
        load_policy(str(tmp_path / "two"), placement=Placement(precision=each))
        for each in ("float32", "bfloat16")
    )
    for each in (whole, half):
        assert isinstance(each, TwoLevelPolicy)
    latents = [np.asarray(each.latest(observation())) for each in (whole, half)]  # type: ignore[attr-defined]
    assert np.abs(latents[0] - latents[1]).max() < 0.1
    assert not np.array_equal(*latents)
    assert isinstance(half.act(observation()), ActionChunk)
