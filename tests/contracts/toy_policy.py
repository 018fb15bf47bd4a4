"""A task a model of a few thousand weights learns in seconds: go towards the square of the colour that is named."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model
from reflexarc.vla.preprocess import proprio_features
from reflexarc.vla.stats import Stats
from reflexarc.vla.tokenizers import FastTokenizer, UniformTokenizer, WordTokenizer
from reflexarc.vla.train.data import TrainingData
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import F64, Observation, State

SIZE, HORIZON = 32, 4
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
STEP = 0.02
TOY_HEADS: dict[str, dict[str, object]] = {
    "parallel": {},
    "autoregressive": {"scramble": 0.2},
    "regression": {},
    "flow": {"width": 32, "mlp_width": 64},
    "fast": {"vocabulary": 128},
}
"""The sizes of every head of the toy; names are kinds."""


def toy_config(head: str = "parallel", **train: object) -> PolicyConfig:
    """A tiny model and its training."""
    settings = {
        "batch": 16,
        "steps": 60,
        "learning_rate": 4e-3,
        "validation": 0.1,
        "validate_every": 50,
        "save_every": 50,
        "validation_samples": 32,
        "ema_steps": 10,
        "threads": 1,
        "precision": "float32",
        "augment": {"word_dropout": 0.0, "blank": 0.0},
    }
    return PolicyConfig.model_validate(
        {
            "name": "toy",
            "horizon": HORIZON,
            "model": {
                "image_size": SIZE,
                "condition_width": 32,
                "vision": {"kind": "conv", "width": 16, "blocks": 1},
                "connector": {"kind": "resampler", "tokens": 4, "key_width": 16},
                "language": {"width": 48, "layers": 2, "heads": 2, "mlp_width": 96, "max_words": 8},
                "head": {"kind": head} | TOY_HEADS[head],
            },
            "train": settings | train,
        }
    )


def toy_data(episodes: int = 24, rows: int = 4, seed: int = 0) -> TrainingData:
    """Two squares of different colours; the arm stands in the middle and should move towards the one named."""
    generator = np.random.default_rng(seed)
    spec = tcp_delta_spec(HORIZON, 0.1)
    count = episodes * rows
    images = {name: np.full((count, SIZE, SIZE, 3), 200, dtype=np.uint8) for name in ("front", "wrist")}
    pose = np.tile([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0], (count, 1))
    actions, focus = np.zeros((count, HORIZON, 7)), np.zeros((count, 2, 3))
    instructions = []
    for episode in range(episodes):
        named, other = generator.permutation(list(COLOURS))[:2]
        place, distractor = generator.permutation(np.array([[x, y] for x in (6, 24) for y in (6, 24)]))[:2]
        mine = slice(episode * rows, (episode + 1) * rows)
        for colour, (x, y) in ((named, place), (other, distractor)):
            images["front"][mine, y - 3 : y + 4, x - 3 : x + 4] = COLOURS[str(colour)]
        goal = np.array([0.5 + (15 - place[1]) * 0.01, (15 - place[0]) * 0.01, 0.05])
        pose[mine, :3] += generator.normal(0, 0.01, (rows, 3))
        focus[mine] = goal
        actions[mine, :, :2] = STEP * np.sign(goal[:2])[None, None]
        actions[mine, :, 0] = STEP * np.sign(goal[0] - 0.5)
        actions[mine, :, 6] = float(named == "red")
        instructions.append(f"go to the {named} square")
    gripper = generator.integers(0, 2, count).astype(np.float64)
    return TrainingData(
        spec=spec,
        images=lambda camera, chosen: images[camera][chosen],
        proprio=proprio_features(
            toy_config().model.proprio,
            pose=pose,
            pose_commanded=pose,
            gripper=gripper,
            gripper_commanded=gripper,
            wrench=np.zeros((count, 6)),
        ),
        tcp=pose[:, :3],
        gripper_commanded=gripper,
        actions=actions,
        mask=np.ones((count, HORIZON), dtype=bool),
        focus=focus,
        episode=np.repeat(np.arange(episodes), rows),
        instructions=tuple(instructions),
        task=np.arange(episodes) % 2,
        tasks=("even", "odd"),
    )


def toy_checkpoint(head: str = "parallel") -> Checkpoint:
    """An untrained policy that fits `toy_data`; always the same."""
    torch.manual_seed(0)
    config, data = toy_config(head), toy_data()
    actions = UniformTokenizer.fit(data.spec, data.actions.reshape(-1, 7))
    words = WordTokenizer.fit(data.instructions, config.model.language.max_words)
    stats = Stats.fit(config.model.proprio, data.proprio, data.focus)
    fast = None
    if head == "fast":
        fast = FastTokenizer.fit(actions.normalise(data.actions)[..., actions.varies], vocabulary=128)
    model = build_model(config, data.spec, actions, words, stats, fast)
    return Checkpoint(config, data.spec, actions, words, stats, model, fast)


def toy_spec() -> ActionSpec:
    """The action space of the toy."""
    return tcp_delta_spec(HORIZON, 0.1)


def toy_observation(
    *,
    instruction: str = "go to the red square",
    seq: int = 0,
    session: str = "a",
    pose: F64 | None = None,
    images: dict[str, NDArray[np.uint8]] | None = None,
    cameras: tuple[str, ...] = ("front", "wrist"),
    size: int = SIZE,
) -> Observation:
    """An observation of the shape the toy policy takes."""
    pose = np.array([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0]) if pose is None else pose
    blank = np.full((size, size, 3), 200, dtype=np.uint8)
    images = images or dict.fromkeys(cameras, blank)
    zeros = np.zeros(7)
    state = State(
        t_ns=1_000_000,
        clock="virtual",
        seq=seq,
        t_state_ns=1_000_000,
        joint_position=zeros,
        joint_velocity=zeros,
        joint_effort=zeros,
        joint_position_commanded=zeros,
        joint_velocity_commanded=zeros,
        pose_base_tcp=pose,
        pose_base_tcp_commanded=pose,
        wrench_tcp=np.zeros(6),
        gripper=1.0,
        gripper_commanded=1.0,
        safety="active",
    )
    frames = {
        name: encode_image(image, camera=name, seq=seq, t_capture_ns=1_000_000, clock="virtual")
        for name, image in images.items()
    }
    return Observation(
        t_ns=1_000_000,
        clock="virtual",
        seq=seq,
        t_obs_ns=1_000_000,
        state=state,
        images=frames,
        instruction=instruction,
        session=session,
    )
