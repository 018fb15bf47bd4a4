"""The learning rate over a training run that may end by steps or by wall time."""

from __future__ import annotations

import math

from reflexarc.configs.policy import TrainConfig


def progress(config: TrainConfig, step: int, elapsed_s: float) -> float:
    """How much of the run is done, 0 to 1: by steps or by wall time, whichever is further."""
    by_time = elapsed_s / (60.0 * config.minutes) if config.minutes is not None else 0.0
    return min(1.0, max(step / config.steps, by_time))


def learning_rate(config: TrainConfig, done: float) -> float:
    """Linear warm-up, then half a cosine down to a hundredth. `done`: from `progress`."""
    if done < config.warmup:
        return config.learning_rate * max(done / config.warmup, 1e-3)
    fraction = (done - config.warmup) / (1.0 - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * fraction)))
