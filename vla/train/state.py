"""The state of an unfinished training run, on disk: enough to go on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reflexarc.configs.errors import PolicyError

STATE = "training-state.pt"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TrainState:
    """weights, averaged: by tensor name. optimizer: its state_dict. torch_generator: state of the generator.

    bookkeeping: JSON-ready (step, elapsed seconds, NumPy generator, place in the data, the configuration).
    """

    weights: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizer: dict[str, Any]
    torch_generator: Tensor
    bookkeeping: dict[str, Any]


def save_state(folder: Path, state: TrainState) -> None:
    """Replace the state in `folder`, whole or not at all. Raises PolicyError if the disk does not take it."""
    aside = folder / (STATE + ".unfinished")
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    values["bookkeeping"] = json.dumps(state.bookkeeping)
    try:
        with aside.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / STATE)
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        raise PolicyError(f"cannot write the training state to {folder}: {error}") from error


def load_state(folder: Path) -> TrainState:
    """Read the state in `folder`. Raises PolicyError if there is none, or it is damaged."""
    path = folder / STATE
    if not path.is_file():
        raise PolicyError(f"{folder} has no {STATE}: there is no training to resume")
    try:
        values = torch.load(path, weights_only=True)
        values["bookkeeping"] = json.loads(values["bookkeeping"])
        return TrainState(**values)
    except Exception as error:
        raise PolicyError(f"{path}: not a whole training state: {error}") from error
