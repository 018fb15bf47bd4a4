"""The policy of a log answers it again to the bit, and so does its physics; anything else is told apart."""

from __future__ import annotations

import json
import re
import shutil
from math import inf
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.episode_bench import written
from contracts.openvla_folder import SMALL_TOWERS, write_folder
from reflexarc.cli import main
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.evaluate import EvalJob, evaluate_batch
from reflexarc.policies import open_policy
from reflexarc.policy_replay import replay_policy
from reflexarc.replay import replay
from reflexarc.setup import load_setup
from reflexarc.vla.checkpoint import find
from reflexarc.vla.openvla import layout
from reflexarc.wire.messages import ActionChunk, CameraFrame, Message, Observation, SimSteps


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One episode that the embedded policy has driven."""
    folder = tmp_path_factory.mktemp("logs")
    command = [
        "eval",
        "--policy",
        "reflexarc-tiny",
        "--task",
        "button",
        "--episodes",
        "1",
        "--log",
        str(folder),
    ]
    assert main(command) == 0
    return next(folder.rglob("*.mcap"))


def test_a_policy_gives_its_own_answers_again(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "f.json"
    command = ["replay", str(log), "--policy", "reflexarc-tiny", "--json", str(figures)]
    assert main([*command, "--picture", str(tmp_path / "plots")]) == 0
    (found,) = json.loads(figures.read_text())
    assert found["equal"] == len(found["answers"]) > 3
    assert all(answer["tokens"] > 0 for answer in found["answers"])
    told = capsys.readouterr().out
    for answer in found["answers"]:  # the table has a line for each
        line = rf"│ {answer['time_s']:.2f} s *│ 0 of {answer['tokens']} *│ 0 *│ 0 *│ 0 *│ 0 *│ *│"
        assert re.search(line, told), told
    assert (tmp_path / "plots" / f"{log.stem}.png").stat().st_size > 5000


def test_changed_weights_are_told_and_measured(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(find("reflexarc-tiny"), folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    changed = {
        name: value + 0.02 * value.std() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.numel() > 1
        else value
        for name, value in weights.items()
    }
    save_file(changed, folder / "model.safetensors")
    result = replay_policy(log, open_policy(str(folder)))
    assert 0 < result.worst.error < 1
    assert result.same < len(result.answers)
    assert main(["replay", str(log), "--policy", str(folder)]) == 1
    told = capsys.readouterr()
    assert "differs from" in told.err
    at = [f"│ {answer.time_s:.2f} s" for answer in result.answers if answer.error > 0]
    assert at
    assert all(line in told.out for line in at)
    assert f"{result.worst.metres * 1e3:.3g}" in told.out
    assert main(["replay", str(log), "--policy", str(folder), "--tolerance", "1.0"]) == 0


def test_an_answer_that_is_no_number_is_infinitely_wrong(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = open_policy("reflexarc-tiny")
    act = policy.act

    def broken(observation: Observation) -> ActionChunk:
        chunk = act(observation)
        actions = chunk.actions.copy()
        actions[1, 2] = np.nan
        return msgspec.structs.replace(chunk, actions=actions)

    monkeypatch.setattr(policy, "act", broken)
    monkeypatch.setattr("reflexarc.policies.open_policy", lambda *_, **__: policy)
    command = ["replay", str(log), "--policy", "broken", "--picture", str(tmp_path)]
    assert main([*command, "--tolerance", "1000"]) == 1
    assert "by inf of the bounds of dz" in capsys.readouterr().err
    result = replay_policy(log, policy)
    assert result.same == 0
    assert {(answer.error, answer.metres, answer.radians) for answer in result.answers} == {(inf, inf, 0.0)}
    monkeypatch.setattr(policy, "act", act)
    assert main([*command, "--tolerance", "nan"]) == 1


def test_physics_that_is_no_number_or_ends_early_is_told(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = list(EpisodeReader(log).messages())
    batches = [message for _, message in messages if isinstance(message, SimSteps)]
    kept = {id(batch) for batch in batches[: len(batches) // 3]}
    empty = [msgspec.structs.replace(batch, qpos=batch.qpos * np.nan) for batch in batches]
    changes: dict[str, list[tuple[str, Message]]] = {
        "early": [item for item in messages if item[0] != "/sim/steps" or id(item[1]) in kept],
        "nan": [item for item in messages if item[0] != "/sim/steps"]
        + [("/sim/steps", each) for each in empty],
    }
    for name, changed in changes.items():
        written(tmp_path / f"{name}.mcap", changed)
    whole, early = replay(log), replay(tmp_path / "early.mcap")
    assert (whole.max_qpos_error, whole.note) == (0.0, "")
    assert (early.max_qpos_error, early.compared) == (0.0, len(kept))
    assert "before its last state: nothing after it was replayed" in early.note
    assert replay(tmp_path / "nan.mcap").max_qpos_error == inf
    assert main(["replay", str(tmp_path / "nan.mcap")]) == 1
    told = capsys.readouterr()
    assert "= inf" in told.out
    assert "a replay differs from its log" in told.err


def test_what_leaving_image_tokens_out_costs_is_seen_in_a_log_of_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OpenVLA folder drives; then the same observations with a tenth of the image tokens (FastV)."""
    for name, shape in SMALL_TOWERS.items():
        monkeypatch.setitem(layout.TOWERS, name, shape)
    write_folder(tmp_path / "openvla")
    settings = {"full": "engine: {}", "pruned": "engine: {visual_share: 0.1, prune_layer: 1}"}
    for name, engine in settings.items():
        told = f"checkpoint: openvla\nstatistics: bridge_orig\nimage_size: 48\n{engine}\n"
        (tmp_path / f"{name}.yaml").write_text(told)
    full_settings = str(tmp_path / "full.yaml")
    evaluate_batch(EvalJob("reach", full_settings, 0, 0, 1, "given", "0.1", load_setup(), tmp_path / "logs"))
    log = next((tmp_path / "logs").rglob("*.mcap"))
    full = replay_policy(log, open_policy(full_settings))
    assert full.same == len(full.answers) > 3
    pruned = replay_policy(log, open_policy(str(tmp_path / "pruned.yaml")))
    assert len(pruned.answers) == len(full.answers)
    assert 0 < pruned.worst.error <= 1


def test_a_log_without_a_policy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect = ["collect", "--task", "button", "--episodes", "1", "--out", str(tmp_path / "e")]
    assert main([*collect, "--set", "recording.images=png"]) == 0
    expert = next((tmp_path / "e").rglob("*.mcap"))
    frames = [message for _, message in EpisodeReader(expert).messages(["/camera/front"])]
    assert {frame.encoding for frame in frames if isinstance(frame, CameraFrame)} == {"png"}
    assert main(["replay", str(expert), "--policy", "reflexarc-tiny"]) == 1
    assert "reflexarc: " in capsys.readouterr().err
