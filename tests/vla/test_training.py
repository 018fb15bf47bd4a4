"""Training: batches, losses, the schedule, and runs that stop and go on."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from contracts.toy_policy import TOY_HEADS, toy_checkpoint, toy_config, toy_data
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.load import load_policy as load_config
from reflexarc.configs.policy import AugmentConfig, TrainConfig
from reflexarc.vla.checkpoint import load_checkpoint
from reflexarc.vla.loss import masked_mean, smoothed_cross_entropy
from reflexarc.vla.train import Trainer, train
from reflexarc.vla.train.batch import Batches
from reflexarc.vla.train.data import Draw, TrainingData
from reflexarc.vla.train.schedule import learning_rate, progress
from reflexarc.vla.train.state import STATE

QUIET = Console(file=io.StringIO())


def batches_of(data: TrainingData) -> Batches:
    checkpoint = toy_checkpoint()
    return Batches(
        data,
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )


def test_the_preset_is_valid() -> None:
    assert load_config("reflexarc-tiny", ["train.minutes=55"]).train.minutes == 55


SLOWEST_TO_LEARN = ("autoregressive", "regression")
"""They take as long as the other heads together; by hand, like `benchmarks/overfit.py`, which asks it of the arm."""


@pytest.mark.parametrize(
    "head",
    [pytest.param(head, marks=[pytest.mark.slow] * (head in SLOWEST_TO_LEARN)) for head in TOY_HEADS],
)
def test_a_head_overfits_a_few_episodes(head: str, tmp_path: Path) -> None:
    data = toy_data(episodes=12, rows=2)
    steps = {"autoregressive": 400, "regression": 340, "fast": 120}.get(head, 240)
    config = toy_config(
        head,
        steps=steps,
        learning_rate=8e-3 if head == "fast" else 4e-3,
        ema_steps=5,
        validation=0.0,
        validate_every=10_000,
        save_every=10_000,
    )
    result = train(config, data, tmp_path, console=QUIET)
    assert result.finished
    checkpoint = load_checkpoint(result.checkpoint)
    batch = batches_of(data).make(np.arange(len(data)))
    said = checkpoint.codec.read(checkpoint.model.act(batch.inputs))
    near = np.abs(said.bins - batch.labels.bins.numpy()) <= (25 if head == "flow" else 2)
    assert near.mean(axis=(0, 1)).min() >= 0.9


def test_a_resumed_run_ends_like_one_that_never_stopped(tmp_path: Path) -> None:
    data, config = (
        toy_data(),
        toy_config(steps=24, validate_every=8, augment=AugmentConfig(blank=0.1).model_dump()),
    )
    whole = Trainer(config, data, tmp_path / "whole")
    whole.run(QUIET)
    part = Trainer(config, data, tmp_path / "parts")
    original = part._one_step

    def stop_at_11() -> float:
        part.stop = part.step == 10
        return original()

    part._one_step = stop_at_11  # type: ignore[method-assign]
    assert not part.run(QUIET).finished
    assert (tmp_path / "parts" / STATE).is_file()
    resumed = Trainer(config, data, tmp_path / "parts", resume=True)
    assert resumed.step == 11
    assert resumed.run(QUIET).finished
    for name, tensor in whole._averaged.items():
        assert torch.equal(tensor, resumed._averaged[name]), name
    reports = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert [row["step"] for row in reports[0]] == [row["step"] for row in reports[1]] == [8, 16, 24]
    assert reports[0][-1]["validation"] == reports[1][-1]["validation"]


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    data = toy_data()
    with pytest.raises(PolicyError, match="there is no training to resume"):
        Trainer(toy_config(), data, tmp_path, resume=True)
    stopped = Trainer(toy_config(), data, tmp_path)
    stopped.stop = True
    stopped.run(QUIET)
    with pytest.raises(PolicyError, match="holds an unfinished training"):
        Trainer(toy_config(), data, tmp_path)
    with pytest.raises(PolicyError, match="is of another model or other data"):
        Trainer(toy_config("autoregressive"), data, tmp_path, resume=True)
    (tmp_path / STATE).write_bytes(b"PK")
    with pytest.raises(PolicyError, match="not a whole training state"):
        Trainer(toy_config(), data, tmp_path, resume=True)


def test_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config = toy_config()
    with pytest.raises(
        PolicyError, match=r"the data have H = 4 and steps of 0\.1 s; the policy toy needs H = 8"
    ):
        Trainer(config.model_copy(update={"horizon": 8}), toy_data(), tmp_path)
    with pytest.raises(PolicyError, match="unknown task 'lfit'; known: even, odd"):
        Trainer(toy_config(weights={"lfit": 1.0}), toy_data(), tmp_path)


def test_no_row_of_a_held_out_episode_is_trained_on() -> None:
    data = toy_data()
    rows, held_out = data.split(0.25, seed=3)
    episodes, other = set(data.episode[rows]), set(data.episode[held_out])
    assert not episodes & other
    assert len(episodes | other) == len(data.task)
    assert {int(data.task[e]) for e in other} == {0, 1}


def test_drawing_passes_over_every_row_before_repeating_one_and_honours_weights() -> None:
    data = toy_data()
    draw = Draw(data, np.arange(len(data)), {"even": 0.0}, seed=0)
    odd = np.flatnonzero(data.task[data.episode] == 1)
    generator = np.random.default_rng(0)
    drawn = np.concatenate([draw.batch(len(odd) // 4, generator) for _ in range(8)])
    assert sorted(drawn[: len(odd)]) == sorted(drawn[len(odd) :]) == odd.tolist()
    balanced = Draw(data, np.arange(len(data)), {"odd": 3.0}, seed=0)
    share = np.mean(data.task[data.episode[balanced.batch(4000, generator)]] == 1)
    assert abs(share - 0.75) < 0.03


def test_a_blanked_instruction_is_labelled_with_holding_still() -> None:
    data = toy_data()
    config = AugmentConfig(blank=0.5)
    rows = np.arange(60)
    batch = batches_of(data).make(rows, config, np.random.default_rng(0))
    blank = (batch.inputs.words[:, 1:] == 0).all(dim=1).numpy()
    assert 15 < blank.sum() < 45
    actions = batch.actions.numpy()
    assert np.all(actions[blank][:, :, :6] == 0)
    assert np.allclose(actions[blank][:, :, 6], data.gripper_commanded[rows][blank][:, None])
    assert not batch.focus_mask.numpy()[blank].any()
    assert np.allclose(actions[~blank], data.actions[rows][~blank])
    assert batch.focus_mask.numpy()[~blank].all()


def test_augmentation_leaves_the_data_alone_and_images_in_place() -> None:
    data = toy_data()
    before = data.images("front", np.arange(4)), data.proprio.copy()
    batch = batches_of(data).make(np.arange(4), AugmentConfig(), np.random.default_rng(0))
    plain = batches_of(data).make(np.arange(4))
    assert np.array_equal(before[0], data.images("front", np.arange(4)))
    assert np.array_equal(before[1], data.proprio)
    correlation = np.corrcoef(batch.inputs.images.flatten(), plain.inputs.images.flatten())[0, 1]
    assert correlation > 0.9
    assert not torch.equal(batch.inputs.images, plain.inputs.images)
    moved = (batch.inputs.tcp - plain.inputs.tcp).abs().max()
    assert 0 < moved < 0.006


def test_unknown_focus_is_not_trained_on() -> None:
    data = toy_data()
    focus = data.focus.copy()
    focus[::2, 1, 2] = np.nan
    batch = batches_of(dataclasses.replace(data, focus=focus)).make(np.arange(8))
    assert batch.focus_mask.tolist() == [[True, row % 2 == 1] for row in range(8)]
    assert torch.isfinite(batch.focus).all()


def test_smoothed_cross_entropy_is_least_at_the_true_bin_and_grows_with_the_distance() -> None:
    bins = torch.arange(256)
    logits = -0.5 * ((bins[None, :] - bins[:, None]) / 3.0) ** 2
    losses = smoothed_cross_entropy(logits, torch.full((256,), 100), sigma=2.0)
    assert int(losses.argmin()) == 100
    assert torch.all(losses[100:].diff() > 0)
    assert torch.all(losses[:101].diff() < 0)
    plain = smoothed_cross_entropy(logits, bins, sigma=0.0)
    assert torch.allclose(plain, torch.nn.functional.cross_entropy(logits.float(), bins, reduction="none"))


def test_masked_values_do_not_count() -> None:
    values = torch.tensor([1.0, torch.inf, 3.0])
    assert masked_mean(values, torch.tensor([True, False, True])) == 2.0
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0.0


def test_the_schedule_ends_by_steps_or_by_time_and_falls_after_warming_up() -> None:
    config = TrainConfig(steps=1000, minutes=10, warmup=0.1)
    assert progress(config, 500, 0.0) == 0.5
    assert progress(config, 500, 540.0) == 0.9
    assert progress(config, 1000, 0.0) == progress(config, 0, 601.0) == 1.0
    rates = [learning_rate(config, done / 100) for done in range(101)]
    assert rates[10] == pytest.approx(config.learning_rate)
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
