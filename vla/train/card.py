"""The card of a trained policy: what it is, what it saw, how well it did."""

from __future__ import annotations

from typing import Any

import numpy as np

from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.train.data import TrainingData


def write_card(
    config: PolicyConfig,
    data: TrainingData,
    parameters: int,
    steps: int,
    elapsed_s: float,
    validation: dict[str, Any],
) -> str:
    """The README.md of a checkpoint folder."""
    model, train = config.model, config.train
    episodes = ", ".join(f"{name} {int((data.task == index).sum())}" for index, name in enumerate(data.tasks))
    binned = model.head.kind in ("parallel", "autoregressive")
    bins = ", 256 bins a dimension" if binned else ""
    numbers = "a subtask" if model.head.kind == "words" else "a chunk of actions"
    out = "a chunk of binned action tokens" if binned else numbers
    lines = [
        f"# {config.name}",
        "",
        "A vision-language-action model of Reflexarc: camera images, an instruction and the arm's state in, "
        f"{out} out.",
        "",
        "| | |",
        "| --- | --- |",
        f"| parameters | {parameters / 1e6:.2f} M, stored in half precision |",
        f"| vision | {model.vision.kind}, cameras {', '.join(model.cameras)}, {model.image_size}² pixels |",
        f"| connector | {model.connector.kind} |",
        f"| language model | {model.language.kind}, {model.language.layers} layers of {model.language.width} |",
        f"| head | {model.head.kind}, {data.spec.horizon} actions of {data.spec.step_s:g} s{bins} |",
        f"| actions | {', '.join(dim.name for dim in data.spec.dims)} |",
        f"| trained on | {len(data.task)} simulated episodes ({episodes}), {len(data)} rows |",
        f"| training | {steps} steps of {train.batch}, {elapsed_s / 60:.1f} minutes, {train.threads} threads, "
        f"seed {train.seed} |",
    ]
    if model.slow is not None:
        slow = model.slow
        lines.append(
            f"| slow level | {slow.vision.kind}, {slow.connector.kind}, {slow.language.kind} of {slow.language.layers} "
            f"layers of {slow.language.width}; says {slow.head.width} numbers, up to {slow.lag} steps old in training |"
        )
    if validation.get("error"):
        error = ", ".join(f"{name} {value:.2g}" for name, value in validation["error"].items())
        lines.append(f"| held-out episodes | mean absolute error of an action: {error} (m, rad, opening) |")
        if "focus_cm" in validation:
            focus = " and ".join(f"{value:.1f}" for value in validation["focus_cm"])
            lines.append(f"| held-out grounding | thing and destination found within {focus} cm |")
    lines += [
        "",
        "It was trained from nothing on this project's own simulated demonstrations and knows only the words in "
        "`vocabulary.json` and the scenes of the simulator; it is not fit to move a real arm.",
        "",
    ]
    if not np.isfinite(data.focus).any():
        lines.insert(-2, "No grounding truth was on record; the focus tokens were not trained.")
    return "\n".join(lines)
