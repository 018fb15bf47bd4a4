"""The training loop: draw, augment, step, average, validate, save; stoppable at any step and resumable exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.actions import repeat_last
from reflexarc.vla.checkpoint import Checkpoint, build_model, save_checkpoint
from reflexarc.vla.loss import masked_mean, smoothed_cross_entropy
from reflexarc.vla.stats import Stats
from reflexarc.vla.tokenizers import GRIDS, FastTokenizer, UniformTokenizer, WordTokenizer
from reflexarc.vla.train.batch import Batch, Batches, row_subtasks
from reflexarc.vla.train.card import write_card
from reflexarc.vla.train.data import Draw, TrainingData
from reflexarc.vla.train.gaze import Gaze
from reflexarc.vla.train.progress import CURVE, Report, draw_curve
from reflexarc.vla.train.schedule import learning_rate, progress
from reflexarc.vla.train.state import STATE, TrainState, load_state, save_state
from reflexarc.vla.train.validate import validate

POLICY_FOLDER = "policy"
ATTENTION = {
    "cpu": [SDPBackend.MATH],
    "cuda": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}
"""On a CPU the fused kernel's way back takes a quarter of a step, for sequences as short as these."""
LIVE_EVERY = 10
NO_DECAY = ("norm", "bias", "queries", "slots", "query", "place", "camera", "slot", "begin", "embed_tokens")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. checkpoint: the policy's folder. validation: the last figures on held-out episodes."""

    checkpoint: Path
    steps: int
    elapsed_s: float
    finished: bool
    validation: dict[str, Any]


class Trainer:
    """One run. `out` takes the training state, the metrics and the policy's folder."""

    def __init__(self, config: PolicyConfig, data: TrainingData, out: Path, *, resume: bool = False) -> None:
        """Raises PolicyError if the data do not fit the configuration, or what is to be resumed is not there."""
        if data.spec.horizon != config.horizon or abs(data.spec.step_s - config.step_s) > 1e-9:
            raise PolicyError(
                f"the data have H = {data.spec.horizon} and steps of {data.spec.step_s} s; "
                f"the policy {config.name} needs H = {config.horizon} and {config.step_s} s"
            )
        if (out / STATE).exists() and not resume:
            raise PolicyError(f"{out} holds an unfinished training; resume it, or name another folder")
        self.config, self.data, self.out = config, data, out
        train = config.train
        torch.set_num_threads(train.threads)
        torch.manual_seed(train.seed)
        self._generator = np.random.default_rng([0x7A1, train.seed])
        self._rows, self._held_out = data.split(train.validation, train.seed)
        self._draw = Draw(data, self._rows, train.weights, train.seed)
        actions = GRIDS[config.model.bins].fit(data.spec, data.actions[self._rows][data.mask[self._rows]])
        told = {data.instructions[index] for index in np.unique(data.episode[self._rows])}
        if train.subtasks:
            told.update(row_subtasks(data, train.subtasks))
        words = WordTokenizer.fit(told, config.model.language.max_words)
        stats = Stats.fit(config.model.proprio, data.proprio[self._rows], self._focus_for_stats())
        fast = self._fast(actions)
        model = build_model(config, data.spec, actions, words, stats, fast)
        self.checkpoint = Checkpoint(config, data.spec, actions, words, stats, model, fast)
        self._device = torch.device(_device(train.device))
        self.model = model.to(self._device)
        self._precision = _precision(train.precision, self._device)
        self._batches = Batches(
            data,
            config.model,
            actions=self.checkpoint.codec,
            words=words,
            stats=stats,
            smoothing=train.smoothing,
            subtasks=train.subtasks,
        )
        self._gaze = Gaze(train.gaze, config.model) if train.gaze else None
        self._optimizer = torch.optim.AdamW(
            _groups(self.model, train.weight_decay), lr=train.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self._averaged = {name: each.detach().clone() for name, each in self.model.state_dict().items()}
        self.step, self._elapsed_s = 0, 0.0
        self.stop = False
        if resume:
            self._restore()

    def run(self, console: Console) -> TrainResult:
        """Train until the schedule ends or `stop` is set; saves either way."""
        self._prepare_folder()
        train, started = self.config.train, time.monotonic() - self._elapsed_s
        validation: dict[str, Any] = {}
        with Report(self.out, console) as report:
            report.forget_after(self.step)
            losses: list[float] = []
            since, since_step = time.monotonic(), self.step
            while self._done() < 1.0 and not self.stop:
                losses.append(self._one_step())
                self._elapsed_s = time.monotonic() - started
                if self.step % LIVE_EVERY == 0:
                    report.live(self._done(), f"step {self.step}, loss {np.mean(losses[-50:]):.3f}")
                if self.step % train.validate_every == 0 or self._done() >= 1.0:
                    rate = (self.step - since_step) * train.batch / (time.monotonic() - since)
                    validation = self.validate()
                    self._elapsed_s = time.monotonic() - started
                    report.write(self._figures(losses, rate, validation))
                    losses, since, since_step = [], time.monotonic(), self.step
                if self.step % train.save_every == 0:
                    self.save(report, validation)
            self.save(report, validation)
        finished = self._done() >= 1.0
        if finished:
            (self.out / STATE).unlink()
        return TrainResult(self.out / POLICY_FOLDER, self.step, self._elapsed_s, finished, validation)

    def validate(self) -> dict[str, Any]:
        """Figures of the averaged weights on held-out episodes; empty if none were held out."""
        own = {name: each.detach().clone() for name, each in self.model.state_dict().items()}
        self.model.load_state_dict(self._averaged)
        figures = validate(self.model, self._held_out_batches(), self.checkpoint.codec)
        self.model.load_state_dict(own)
        return figures

    def save(self, report: Report, validation: dict[str, Any]) -> None:
        """Write the training state, the policy's folder and the curve."""
        save_state(self.out, self._state())
        history = report.history()
        card = write_card(
            self.config, self.data, self.model.parameter_count(), self.step, self._elapsed_s, validation
        )
        save_checkpoint(self.out / POLICY_FOLDER, self.checkpoint, self._averaged, card)
        if history:
            draw_curve(history, self.out / CURVE)

    def _one_step(self) -> float:
        train = self.config.train
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(train, self._done())
        rows = self._draw.batch(train.batch, self._generator)
        batch = self._batches.make(rows, train.augment, self._generator).to(self._device)
        self.model.train()
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            raise PolicyError(f"the loss became {float(loss)} at step {self.step}; lower train.learning_rate")
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip)
        self._optimizer.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def _loss(self, batch: Batch) -> Tensor:
        train = self.config.train
        enabled = self._precision is torch.bfloat16
        with (
            torch.autocast(self._device.type, self._precision, enabled=enabled),
            sdpa_kernel(ATTENTION[self._device.type]),
        ):
            loss: Tensor
            loss, focus_logits = self.model(batch.inputs, batch.labels)
        if focus_logits is not None and train.focus_weight:
            focus = smoothed_cross_entropy(focus_logits, batch.focus_bins, train.smoothing)
            loss = loss + train.focus_weight * masked_mean(focus.mean(-1), batch.focus_mask)
        if self._gaze is not None:
            loss = loss + train.gaze_weight * self._gaze.loss(self.model, batch)
        return loss

    def _average(self) -> None:
        keep = min(1.0 - 1.0 / self.config.train.ema_steps, (1.0 + self.step) / (10.0 + self.step))
        own = self.model.state_dict()
        torch._foreach_lerp_(
            [self._averaged[name] for name in own], [each.detach() for each in own.values()], 1.0 - keep
        )

    def _held_out_batches(self) -> Iterator[Batch]:
        train = self.config.train
        count = min(train.validation_samples, len(self._held_out))
        chosen = np.random.default_rng(train.seed).permutation(self._held_out)[:count]
        for start in range(0, count, train.batch):
            yield self._batches.make(chosen[start : start + train.batch]).to(self._device)

    def _done(self) -> float:
        return progress(self.config.train, self.step, self._elapsed_s)

    def _figures(self, losses: list[float], rate: float, validation: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": self.step,
            "elapsed_s": round(self._elapsed_s, 2),
            "samples_per_s": round(rate, 1),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "train_loss": float(np.mean(losses)) if losses else 0.0,
            "validation": validation,
        }

    def _fast(self, actions: UniformTokenizer) -> FastTokenizer | None:
        head = self.config.model.head
        if head.kind != "fast":
            return None
        if head.folder is not None:
            return FastTokenizer.load(Path(head.folder))
        whole = repeat_last(self.data.actions[self._rows], self.data.mask[self._rows])
        chunks = actions.normalise(whole)[..., actions.varies]
        return FastTokenizer.fit(chunks, scale=head.scale, vocabulary=head.vocabulary)

    def _focus_for_stats(self) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        return self.data.focus[self._rows] if self.config.model.focus else None

    def _prepare_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PolicyError(f"cannot make the training folder {self.out}: {error.strerror}") from error

    def _state(self) -> TrainState:
        return TrainState(
            weights=self.model.state_dict(),
            averaged=self._averaged,
            optimizer=self._optimizer.state_dict(),
            torch_generator=torch.get_rng_state(),
            bookkeeping={
                "step": self.step,
                "elapsed_s": self._elapsed_s,
                "generator": self._generator.bit_generator.state,
                "draw": self._draw.state(),
                "model": self.config.model.model_dump(mode="json"),
                "rows": len(self._rows),
            },
        )

    def _restore(self) -> None:
        state = load_state(self.out)
        book = state.bookkeeping
        if book["model"] != self.config.model.model_dump(mode="json") or book["rows"] != len(self._rows):
            raise PolicyError(
                f"{self.out / STATE} is of another model or other data ({book['rows']} rows, here {len(self._rows)})"
            )
        self.model.load_state_dict(state.weights)
        self._averaged = {name: each.to(self._device) for name, each in state.averaged.items()}
        self._optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.torch_generator)
        self.step, self._elapsed_s = int(book["step"]), float(book["elapsed_s"])
        self._generator.bit_generator.state = book["generator"]
        self._draw.restore(book["draw"])


def train(
    config: PolicyConfig,
    data: TrainingData,
    out: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> TrainResult:
    """Train `config` on `data`; SIGINT and SIGTERM save and end the run after the step in progress."""
    trainer = Trainer(config, data, out, resume=resume)
    with _stop_on_signals(trainer):
        return trainer.run(console or Console())


@contextlib.contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        trainer.stop = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _device(choice: str) -> str:
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise PolicyError("train.device is cuda, but torch finds no GPU; use cpu or auto")
    return choice


def _precision(choice: str, device: torch.device) -> torch.dtype:
    """bf16 products where the device multiplies them natively, else float32."""
    if choice != "auto":
        return torch.bfloat16 if choice == "bfloat16" else torch.float32
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases, embeddings and learned queries do not."""
    named = list(model.named_parameters())
    exempt = [each for name, each in named if any(part in name for part in NO_DECAY)]
    rest = [each for name, each in named if not any(part in name for part in NO_DECAY)]
    return [{"params": rest, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
