"""What action tokenizers cost on recorded episodes: tokens for a chunk, and how far from the truth it comes back.

Each place of episodes is a data set of its own. Grid and FAST tokens are fitted to four fifths of its episodes and
measured on the others: what was fitted flatters itself. A published FAST tokenizer is taken as it is, on the same grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reflexarc.commands.options import write_json
from reflexarc.configs.action import ActionSpec, tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.configs.policy import FastHeadConfig
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import sample_episode
from reflexarc.preflight import find_logs
from reflexarc.vla.actions import ActionCodec
from reflexarc.vla.tokenizers import FastTokenizer, UniformTokenizer
from reflexarc.vla.tokenizers.report import RoundTrip, round_trip
from reflexarc.wire.messages import F64

HELD_OUT = 5
"""Every fifth episode is measured, the others are fitted to."""


def run_report(places: Sequence[Path], *, fast: Path | None, horizon: int, json_path: Path | None) -> int:
    """Print the table, write the figures; returns 0. Raises LogError where there are too few episodes."""
    spec = tcp_delta_spec(horizon, 0.1)
    console = Console()
    figures = {str(place): report(find_logs([place]), spec, fast, console) for place in places}
    if not figures:
        find_logs(())
    console.print(table(figures, spec))
    write_json(
        json_path,
        {
            name: {kind: dataclasses.asdict(row) for kind, row in rows.items()}
            for name, rows in figures.items()
        },
    )
    return 0


def report(
    logs: Sequence[Path], spec: ActionSpec, fast: Path | None, console: Console | None = None
) -> dict[str, RoundTrip]:
    """Of one data set: `uniform`, `fast`, and `published` where `fast` names its folder."""
    if len(logs) < 2:
        raise LogError(f"{logs[0]}: one episode; fitting and measuring a tokenizer need two at least")
    episodes = [_chunks(path, spec) for path in track(logs, "reading", console=console, transient=True)]
    measured = np.concatenate(episodes[::HELD_OUT])
    fitted = np.concatenate([each for index, each in enumerate(episodes) if index % HELD_OUT])
    if not len(measured) or not len(fitted):
        raise LogError(f"{logs[0].parent}: no whole chunk of {spec.horizon} actions in these episodes")
    grid = UniformTokenizer.fit(spec, fitted.reshape(-1, spec.size))
    rows = {"uniform": round_trip(ActionCodec(grid, spec.horizon), measured)}
    settings = FastHeadConfig(kind="fast")
    values = grid.normalise(fitted)[..., grid.varies]
    trained = FastTokenizer.fit(values, scale=settings.scale, vocabulary=settings.vocabulary)
    rows["fast"] = round_trip(ActionCodec(grid, spec.horizon, trained), measured)
    if fast is not None:
        rows["published"] = round_trip(ActionCodec(grid, spec.horizon, FastTokenizer.load(fast)), measured)
    return rows


def table(figures: dict[str, dict[str, RoundTrip]], spec: ActionSpec) -> Table:
    """A row for each data set and tokenizer."""
    shown = Table(title=f"{spec.horizon} × {spec.size} numbers a chunk; tokens: mean/most; error: mean/worst")
    for column in ("data", "tokenizer", "chunks", "tokens", "mm", "mrad", "opening", "clipped"):
        shown.add_column(column, justify="left" if column in ("data", "tokenizer") else "right")
    for name, rows in figures.items():
        for kind, row in rows.items():
            errors = [
                _error(row, spec, unit, scale) for unit, scale in (("m", 1e3), ("rad", 1e3), ("opening", 1.0))
            ]
            tokens = f"{row.mean_tokens:.1f}/{row.most_tokens}"
            shown.add_row(Path(name).name, kind, str(row.chunks), tokens, *errors, f"{row.clipped:.1%}")
    return shown


def _error(row: RoundTrip, spec: ActionSpec, unit: str, scale: float) -> str:
    names = [dim.name for dim in spec.dims if dim.unit == unit]
    mean = float(np.mean([row.mean_error[name] for name in names]))
    worst = max(row.worst_error[name] for name in names)
    return f"{scale * mean:.2g}/{scale * worst:.2g}"


def _chunks(path: Path, spec: ActionSpec) -> F64:
    """(N, H, D): the chunks of an episode all of whose actions are labels."""
    reader = EpisodeReader(path)
    samples = sample_episode(reader, spec, reader.cameras[:1])
    chunks: F64 = samples.actions[samples.mask.all(axis=1)]
    return chunks
