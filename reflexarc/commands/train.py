"""`reflexarc train`: a policy from logged episodes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from reflexarc.commands.options import JsonPath, Set, console, run_folder, write_json


def train(
    data: Path,
    policy: str = "reflexarc-tiny",
    out: Path | None = None,
    cache: Path = Path("runs/cache"),
    minutes: float | None = None,
    resume: bool = False,
    workers: int = os.cpu_count() or 1,
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Train a policy on logged episodes; Ctrl-C saves, --resume goes on exactly where it stopped.

    Example: reflexarc train --data runs/demos --minutes 60 --out runs/tiny

    Args:
        data: folder with episode logs (.mcap), searched in depth; its `glances/` are used too if there are any.
        policy: preset or file of the model and its training.
        out: folder for checkpoints, metrics and the learning curve.
        cache: folder for the sampled episodes; new logs are added to it.
        minutes: end the schedule after this wall time.
        resume: go on with the unfinished training in `out`.
        workers: processes that sample episodes.
    """
    from reflexarc.configs.action import tcp_delta_spec
    from reflexarc.configs.load import load_policy
    from reflexarc.datasets.cache import build_cache
    from reflexarc.vla.train import from_cache
    from reflexarc.vla.train import train as run_train
    from reflexarc.vla.train.glances import from_glances, together

    settings = overrides if minutes is None else (*overrides, f"train.minutes={minutes}")
    config = load_policy(policy, list(settings))
    spec = tcp_delta_spec(config.horizon, config.step_s)
    samples = build_cache(data, cache, spec, config.model.cameras, workers=workers)
    console.print(f"{len(samples.episodes)} episodes, {len(samples)} samples")
    rows = from_cache(samples, config.model)
    if (data / "glances").is_dir():
        looked = from_glances(data / "glances", spec, config.model)
        rows = together(rows, looked)
        console.print(f"{len(looked)} glances")
    folder = run_folder("train", out)
    result = run_train(config, rows, folder, resume=resume, console=console)
    console.print(f"checkpoint: {result.checkpoint}")
    write_json(json, dataclasses.asdict(result) | {"checkpoint": str(result.checkpoint)})
