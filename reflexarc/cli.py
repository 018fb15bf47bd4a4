"""The command line: `reflexarc <command>`. Parses, calls the command, turns an error into one line.

The commands live in `reflexarc/commands/`, one file each; heavy imports stay inside them so that `--help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl" if sys.platform == "linux" else "glfw")

import tyro
import yaml

from reflexarc.commands.collect import collect
from reflexarc.commands.config import config
from reflexarc.commands.console import console
from reflexarc.commands.dataset import DATASET_COMMANDS, dataset
from reflexarc.commands.demo import demo
from reflexarc.commands.doctor import doctor
from reflexarc.commands.evaluate import evaluate
from reflexarc.commands.policy import policy
from reflexarc.commands.replay import replay
from reflexarc.commands.robot import robot
from reflexarc.commands.run import run
from reflexarc.commands.safety import safety
from reflexarc.commands.serve import serve
from reflexarc.commands.sim import sim
from reflexarc.commands.teleop import teleop
from reflexarc.commands.train import train
from reflexarc.commands.view import view
from reflexarc.configs.errors import ConfigError, ReflexarcError

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "eval": evaluate,
    "collect": collect,
    "teleop": teleop,
    "train": train,
    "serve": serve,
    "policy": policy,
    "robot": robot,
    "console": console,
    "run": run,
    "replay": replay,
    "safety": safety,
    "dataset": dataset,
    "view": view,
    "sim": sim,
    "config": config,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 for an error, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands, prog = COMMANDS, "reflexarc"
    description = "Words and pixels move a robot arm, through a controller and a safety layer."
    if arguments[:1] == ["dataset"]:
        commands, prog, description = DATASET_COMMANDS, "reflexarc dataset", str(dataset.__doc__)
        arguments = arguments[1:]
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, prog=prog, description=description, args=with_config_file(arguments)
        )
    except ReflexarcError as error:
        print(f"reflexarc: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("reflexarc: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def with_config_file(arguments: list[str]) -> list[str]:
    """Replace `--config FILE` by the options that the YAML file names; options given on the line win.

    Raises ConfigError if the file is missing or is not a mapping of options to values.
    """
    if "--config" not in arguments:
        return arguments
    at = arguments.index("--config")
    if at + 1 >= len(arguments):
        raise ConfigError("--config needs a YAML file of options")
    path = Path(arguments[at + 1])
    try:
        options = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"config file {path} must map options to values, e.g. `episodes: 50`")
    flags: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{str(name).replace('_', '-')}", *(str(item) for item in values)]
    rest = arguments[:at] + arguments[at + 2 :]
    return [*rest[:1], *flags, *rest[1:]]


if __name__ == "__main__":
    sys.exit(main())
