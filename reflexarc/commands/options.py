"""Options that several commands share, spelled the same way everywhere."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from reflexarc.configs.errors import ConfigError
from reflexarc.configs.placement import Placement

Set = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        name="set", metavar="KEY=VALUE", help="override a setting, e.g. safety.tcp_speed=0.3; repeatable"
    ),
    tyro.conf.UseAppendAction,
]
JsonPath = Annotated[Path | None, tyro.conf.arg(name="json", metavar="PATH", help="also write the figures")]

Placed = Annotated[Placement, tyro.conf.arg(name="")]
"""`--device` and `--precision`, wherever a policy is named."""
AS_SET = Placement()

console = Console()


def run_folder(command: str, out: Path | None) -> Path:
    """`out`, or a new `runs/<command>-<time>/`."""
    folder = _named(command, out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the output folder {folder}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def fresh_folder(command: str, out: Path | None) -> Iterator[Path]:
    """As `run_folder`; what had to be made and is still empty after an error is removed."""
    folder = _named(command, out)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    run_folder(command, folder)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # there is something in it
            for each in made:
                each.rmdir()
        raise


def _named(command: str, out: Path | None) -> Path:
    return out or Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def tracked[T](items: Sequence[T], what: str) -> Iterator[T]:
    """`items` with a bar of progress, where somebody can see it."""
    from rich.progress import track

    return iter(track(items, what, console=console, transient=True, disable=not console.is_terminal))


def write_json(path: Path | None, figures: Any) -> None:
    """Write the figures of a command, whole or not at all."""
    if path is None:
        return
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(figures, indent=2) + "\n")
        unfinished.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise ConfigError(f"cannot write the figures to {path}: {error.strerror}") from error
    console.print(f"figures: {path}")
