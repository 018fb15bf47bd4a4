"""`reflexarc config show`: every preset, with overrides applied, as YAML."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from reflexarc.commands.options import Set, console


def config(
    action: tyro.conf.Positional[Literal["show", "list"]] = "list",
    kind: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KIND")] = "",
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = "",
    overrides: Set = (),
) -> None:
    """List the presets, or show one with its overrides applied.

    Example: reflexarc config show safety panda --set tcp_speed=0.3

    Args:
        action: `list` the presets of a kind (or of all), or `show` one.
        kind: robots, safety, controllers, policies, teleop or recording.
        name: of the preset, or a file.
    """
    from reflexarc.configs import load
    from reflexarc.configs.errors import ConfigError, unknown

    loaders = {
        "robots": load.load_robot,
        "safety": load.load_safety,
        "controllers": load.load_controller,
        "policies": load.load_policy,
        "teleop": load.load_teleop,
        "recording": load.load_recording,
    }
    if kind and kind not in loaders:
        raise ConfigError(unknown("kind of configuration", kind, loaders))
    if action == "list":
        for each in [kind] if kind else loaders:
            console.print(f"{each}: {', '.join(load.presets(each))}")
        return
    if not kind or not name:
        raise ConfigError("config show needs a kind and a name, e.g. `reflexarc config show safety panda`")
    console.print(load.dump(loaders[kind](name, list(overrides))), end="", highlight=False, markup=False)
