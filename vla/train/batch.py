"""One training batch: raw rows, changed a little, as the model's inputs and the labels' bins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reflexarc.configs.planner import SubtaskRule
from reflexarc.configs.policy import AugmentConfig, ModelConfig
from reflexarc.vla.actions import ActionCodec
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.labels import Labels
from reflexarc.vla.planners.rules import RulePlanner
from reflexarc.vla.preprocess import Raw, to_inputs
from reflexarc.vla.stats import FEATURE_NAMES, Stats
from reflexarc.vla.tokenizers import WordTokenizer
from reflexarc.vla.tokenizers.text import BEGIN, PAD, UNKNOWN
from reflexarc.vla.train.data import Rows, TrainingData
from reflexarc.vla.train.symmetry import Mirror, Recolour, require_tcp_deltas
from reflexarc.wire.messages import F64


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """focus_bins: (B, 2, 3) int64. focus_mask: (B, 2) bool.

    actions: (B, H, D) float32 and focus: (B, 2, 3) float32 m are the labels in the units of the world.
    """

    inputs: Inputs
    labels: Labels
    actions: Tensor
    focus_bins: Tensor
    focus_mask: Tensor
    focus: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A batch before it is turned into tensors. actions: (B, H, D). mask: (B, H). focus: (B, 2, 3) m."""

    raw: Raw
    actions: F64
    mask: NDArray[np.bool_]
    focus: F64


class Batches:
    """Makes batches of rows; with a generator they are augmented, without one they are as a policy would see them."""

    def __init__(
        self,
        data: TrainingData,
        config: ModelConfig,
        *,
        actions: ActionCodec,
        words: WordTokenizer,
        stats: Stats,
        smoothing: float = 0.0,
        subtasks: Sequence[SubtaskRule] = (),
    ) -> None:
        self._data, self._config = data, config
        self._actions, self._stats, self._smoothing = actions, stats, smoothing
        self._words = np.stack([words.encode(text) for text in data.instructions])[data.episode]
        self._subtasks: NDArray[np.int64] | None = None
        if subtasks:
            said = [words.encode(text) for text in row_subtasks(data, subtasks)]
            if config.head.kind == "words":
                self._subtasks = np.stack(said)[:, 1:]
            else:
                self._words = np.stack(said)
        self._vocabulary = words
        names = [name for feature in config.proprio for name in FEATURE_NAMES[feature]]
        self._places = {
            feature: [names.index(name) for name in FEATURE_NAMES[feature]] for feature in config.proprio
        }
        dims = data.spec.dims
        self._still = np.array([dim.delta for dim in dims])
        self._opening = np.array([dim.unit == "opening" for dim in dims])

    def make(
        self, rows: Rows, augment: AugmentConfig | None = None, generator: np.random.Generator | None = None
    ) -> Batch:
        """The batch of `rows`; where there is a slow level, with what it saw before, changed in the same way."""
        slow = self._config.slow
        if slow is None:
            return self._make(rows, augment, generator)
        lag: Rows = np.full(len(rows), slow.lag)  # as stale as it may be, where nothing is drawn
        seed = None
        if generator is not None:
            lag, seed = generator.integers(0, slow.lag + 1, len(rows)), int(generator.integers(2**63))
        now, before = (
            self._make(each, augment, seed if seed is None else np.random.default_rng(seed))
            for each in (rows, self._earlier(rows, lag))
        )
        return dataclasses.replace(now, inputs=dataclasses.replace(now.inputs, earlier=before.inputs))

    def _earlier(self, rows: Rows, lag: Rows) -> Rows:
        """Rows of the same episodes, `lag` before, or their first."""
        first = np.searchsorted(self._data.episode, self._data.episode[rows])
        earlier: Rows = np.maximum(rows - lag, first)
        return earlier

    def _make(
        self, rows: Rows, augment: AugmentConfig | None, generator: np.random.Generator | None
    ) -> Batch:
        data = self._data
        images = np.stack([data.images(name, rows) for name in self._config.cameras], axis=1)
        drawn = _Drawn(
            Raw(
                images,
                np.ones(images.shape[:2], dtype=bool),
                self._words[rows],
                data.proprio[rows],
                data.tcp[rows],
            ),
            data.actions[rows],
            data.mask[rows],
            data.focus[rows],
        )
        if augment is None or generator is None:
            return self._batch(drawn, to_inputs(drawn.raw, self._stats), rows)
        which = generator.random(len(rows)) < augment.mirror
        drawn = self._exchange(drawn, augment, which, generator)
        drawn = self._blank(drawn, self._hold(rows), augment, generator)
        raw = self._blind(self._feel_noisily(drawn.raw, augment, generator), augment, generator)
        inputs = to_inputs(raw, self._stats)
        if which.any():
            self._mirror(augment).images(inputs.images, which)
        _change_images(inputs.images, augment, generator)
        return self._batch(drawn, inputs, rows)

    def _batch(self, drawn: _Drawn, inputs: Inputs, rows: Rows) -> Batch:
        focus = drawn.focus
        known: NDArray[np.bool_] = np.isfinite(focus.sum(axis=2))
        if self._stats.focus is None:
            known = np.zeros_like(known)
        labels = self._actions.labels(drawn.actions, drawn.mask, self._smoothing)
        if self._subtasks is not None:
            labels = dataclasses.replace(labels, words=torch.from_numpy(self._subtasks[rows]))
        return Batch(
            inputs=inputs,
            labels=labels,
            actions=torch.from_numpy(drawn.actions.astype(np.float32)),
            focus_bins=torch.from_numpy(self._focus_bins(focus, known)),
            focus_mask=torch.from_numpy(known),
            focus=torch.from_numpy(np.where(known[..., None], focus, 0.0).astype(np.float32)),
        )

    def _focus_bins(self, focus: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
        if self._stats.focus is None:
            return np.zeros(focus.shape, dtype=np.int64)
        filled = np.where(known[..., None], focus, 0.0)
        return self._stats.focus.encode(filled.reshape(len(focus), -1)).reshape(focus.shape)

    def _hold(self, rows: Rows) -> NDArray[np.float64]:
        """(B, H, D) actions that hold still: no motion, the gripper as commanded; absolute joints as they would be."""
        data = self._data
        opening = data.gripper_commanded[rows][:, None, None]
        return np.where(self._still, 0.0, np.where(self._opening, opening, data.actions[rows][:, :1]))

    def _exchange(
        self,
        drawn: _Drawn,
        augment: AugmentConfig,
        which: NDArray[np.bool_],
        generator: np.random.Generator,
    ) -> _Drawn:
        """Other colours, and left for right in the rows `which`."""
        raw = drawn.raw
        if augment.recolour:
            recolour = Recolour(augment.recolour, self._vocabulary)
            images, words = recolour(raw.images, raw.words, generator)
            raw = dataclasses.replace(raw, images=images, words=words)
        actions, focus = drawn.actions, drawn.focus
        if which.any():
            raw, actions, focus = self._mirror(augment)(raw, actions, focus, which)
        return _Drawn(raw, actions, drawn.mask, focus)

    def _mirror(self, augment: AugmentConfig) -> Mirror:
        require_tcp_deltas([dim.name for dim in self._data.spec.dims])
        return Mirror(augment, self._config.proprio, self._vocabulary)

    def _blank(
        self, drawn: _Drawn, hold: F64, augment: AugmentConfig, generator: np.random.Generator
    ) -> _Drawn:
        """Some words unknown; some instructions blank, and then the label is to hold still."""
        raw, blank = _change_words(drawn.raw, augment, generator)
        some = blank[:, None, None]
        return _Drawn(
            raw,
            np.where(some, hold, drawn.actions),
            drawn.mask | blank[:, None],
            np.where(some, np.nan, drawn.focus),
        )

    def _blind(self, raw: Raw, augment: AugmentConfig, generator: np.random.Generator) -> Raw:
        """Cameras that may be missing are, now and then."""
        config = self._config
        if not config.may_miss:
            return raw
        may = np.array([name in config.may_miss for name in config.cameras])
        return dataclasses.replace(raw, seen=~((generator.random(raw.seen.shape) < augment.blind) & may))

    def _feel_noisily(self, raw: Raw, augment: AugmentConfig, generator: np.random.Generator) -> Raw:
        proprio, tcp = raw.proprio.copy(), raw.tcp
        if "position" in self._places:
            proprio[:, self._places["position"]] += generator.normal(0, augment.position_noise, tcp.shape)
        if "position_commanded" in self._places:
            noise = generator.normal(0, augment.position_noise, tcp.shape)
            proprio[:, self._places["position_commanded"]] += noise
            tcp = tcp + noise
        for name in ("gripper", "gripper_commanded"):
            if name in self._places:
                noise = generator.normal(0, augment.opening_noise, (len(tcp), 1))
                proprio[:, self._places[name]] += noise
        if "wrench" in self._places:
            numb = generator.random(len(tcp)) < augment.wrench_dropout
            for place in self._places["wrench"]:
                proprio[numb, place] = self._stats.mean[place]
        return dataclasses.replace(raw, proprio=proprio, tcp=tcp)


def row_subtasks(data: TrainingData, rules: Sequence[SubtaskRule]) -> list[str]:
    """What comes next at each row, by the rules."""
    planner = RulePlanner(rules)
    return [
        planner.say(data.instructions[episode], gripper=float(gripper), height=float(tcp[2]))
        for episode, gripper, tcp in zip(data.episode, data.gripper_commanded, data.tcp, strict=True)
    ]


def _change_words(
    raw: Raw, augment: AugmentConfig, generator: np.random.Generator
) -> tuple[Raw, NDArray[np.bool_]]:
    """Some words unknown, some instructions blank; also which (B,) are blank."""
    words = raw.words.copy()
    forgotten = (generator.random(words.shape) < augment.word_dropout) & (words > UNKNOWN)
    words[forgotten] = UNKNOWN
    blank = generator.random(len(words)) < augment.blank
    words[blank] = PAD
    words[blank, 0] = BEGIN
    return dataclasses.replace(raw, words=words), blank


def _change_images(images: Tensor, augment: AugmentConfig, generator: np.random.Generator) -> None:
    """Shift whole images and change their brightness, in place. images: (B, C, 3, S, S) in [-1, 1]."""
    batch, cameras = images.shape[:2]
    if augment.shift:
        moves = generator.integers(-augment.shift, augment.shift + 1, (batch, cameras, 2))
        for b in range(batch):
            for c in range(cameras):
                images[b, c] = _shift(images[b, c], *moves[b, c].tolist())
    gain = 1.0 + generator.uniform(-augment.gain, augment.gain, (batch, cameras, 1))
    gain = gain * (1.0 + generator.uniform(-augment.channel_gain, augment.channel_gain, (batch, cameras, 3)))
    factor = torch.from_numpy(gain.astype(np.float32))[..., None, None]
    images.add_(1.0).mul_(factor).sub_(1.0)


def _shift(image: Tensor, down: int, right: int) -> Tensor:
    """The image moved, its edge repeated. image: (3, S, S)."""
    size = image.shape[-1]
    rows = (torch.arange(size) - down).clamp(0, size - 1)
    columns = (torch.arange(size) - right).clamp(0, size - 1)
    return image[:, rows][:, :, columns]
