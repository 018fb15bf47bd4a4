"""What a training run shows and leaves behind: a live line, one JSON line a report, a picture of the curve."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

METRICS, CURVE = "metrics.jsonl", "curve.png"


class Report:
    """Writes to `folder`; shows on `console`. Use as a context."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._path = folder / METRICS
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def live(self, done: float, text: str) -> None:
        """Update the bar: `done` 0..1."""
        self._bar.update(self._task, completed=done, text=text)

    def write(self, figures: dict[str, Any]) -> None:
        """Add a line to the metrics and show its gist."""
        with self._path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        self._console.print(_gist(figures), highlight=False)

    def forget_after(self, step: int) -> None:
        """Drop reports later than `step`: training goes on from there."""
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= step]
            self._path.write_text("".join(line + "\n" for line in kept))

    def history(self) -> list[dict[str, Any]]:
        """All reports so far."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def draw_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Loss, action error and focus error against training time, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, errors, focus = figure.subplots(1, 3)
    minutes = [row["elapsed_s"] / 60 for row in history]
    losses.plot(minutes, [row["train_loss"] for row in history], label="training")
    held_out = [(t, row["validation"]) for t, row in zip(minutes, history, strict=True) if row["validation"]]
    times = [t for t, _ in held_out]
    if held_out:
        losses.plot(times, [figures["loss"] for _, figures in held_out], label="held-out episodes")
        for name in held_out[0][1]["error"]:
            scale = 1000 if name in ("dx", "dy", "dz") else 1
            label = f"{name}, mm" if scale == 1000 else name
            errors.plot(times, [figures["error"][name] * scale for _, figures in held_out], label=label)
        if held_out[0][1]["error"]:
            errors.legend()
        if "focus_cm" in held_out[0][1]:
            for point, label in enumerate(("thing", "destination")):
                focus.plot(times, [figures["focus_cm"][point] for _, figures in held_out], label=label)
            focus.legend()
    losses.legend()
    titles = ("loss", "mean absolute error of an action", "error of the focus, cm")
    for axes, title in zip((losses, errors, focus), titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("minutes")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _gist(figures: dict[str, Any]) -> str:
    text = (
        f"step {figures['step']:6d}  {figures['elapsed_s'] / 60:5.1f} min  {figures['samples_per_s']:4.0f} samples/s  "
        f"loss {figures['train_loss']:.3f}"
    )
    validation = figures["validation"]
    if not validation:
        return text
    accuracy = " ".join(f"{name} {value:.0%}" for name, value in validation["accuracy"].items())
    text += f"  held out {validation['loss']:.3f}  tokens {accuracy}"
    if "focus_cm" in validation:
        text += "  focus " + " ".join(f"{value:.1f}" for value in validation["focus_cm"]) + " cm"
    return text
