"""Training from logged episodes."""

from reflexarc.vla.train.data import TrainingData, from_cache
from reflexarc.vla.train.trainer import Trainer, TrainResult, train

__all__ = ["TrainResult", "Trainer", "TrainingData", "from_cache", "train"]
