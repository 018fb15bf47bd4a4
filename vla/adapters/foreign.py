"""Whose checkpoint a folder is, and its settings. `LOADERS` names the kinds that are not our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import ValidationError

from reflexarc.configs.base import Config
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.foreign import LeRobotConfig, OpenVlaConfig
from reflexarc.configs.placement import Placement
from reflexarc.vla.placement import placed
from reflexarc.wire.contracts import Policy

SETTINGS = "reflexarc.yaml"
CONFIG = "config.json"

Loader = Callable[[Path, int, Placement], Policy]


def load_openvla(path: Path, threads: int, said: Placement) -> Policy:
    """OpenVLA or OpenVLA-OFT."""
    from reflexarc.vla.openvla.policy import OpenVlaPolicy

    settings = placed(read_settings(path, OpenVlaConfig), said)
    return OpenVlaPolicy(checkpoint_folder(path), settings, threads=threads)


def load_lerobot(path: Path, threads: int, said: Placement) -> Policy:
    """A policy of lerobot; π0 in one pass for several robots."""
    try:
        from reflexarc.vla.adapters.lerobot import LeRobotPolicy
        from reflexarc.vla.adapters.pi0_batch import Pi0Policy
    except ImportError as error:
        raise PolicyError(
            f"{path} is a policy of lerobot: pip install 'reflexarc[lerobot]' ({error})"
        ) from error

    settings, folder = placed(read_settings(path, LeRobotConfig), said), checkpoint_folder(path)
    kind = json.loads((folder / CONFIG).read_text())["type"]
    return (Pi0Policy if kind == "pi0" else LeRobotPolicy)(folder, settings, threads=threads)


LOADERS: dict[str, Loader] = {"openvla": load_openvla, "lerobot": load_lerobot}


def foreign_loader(path: Path) -> Loader | None:
    """What loads the checkpoint that `path` is or names; None if it is one of ours.

    Raises PolicyError if config.json is nobody's that we know.
    """
    folder = checkpoint_folder(path)
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return None  # our own loader says what is wrong with it
    if not isinstance(config, dict) or "format" in config:
        return None
    if config.get("model_type") in ("openvla", "prismatic"):
        return LOADERS["openvla"]
    if "type" in config and "output_features" in config:
        return LOADERS["lerobot"]
    if "model_type" in config:
        raise PolicyError(
            f"{folder / CONFIG}: model_type {config['model_type']!r}; known checkpoints: Reflexarc's own (`format`), "
            "OpenVLA's (model_type openvla), lerobot's (`type` and `output_features`)"
        )
    return None


def checkpoint_folder(path: Path) -> Path:
    """The folder that `path` is, or that the settings file `path` names. Raises PolicyError if it is not there."""
    if path.is_dir():
        return path
    named = str(_read(path).get("checkpoint") or "")
    folder = path.parent / named
    if not named or not folder.is_dir():
        raise PolicyError(
            f"{path}: needs `checkpoint: FOLDER`, a folder that exists; it has {named or 'none'}"
        )
    return folder


def read_settings[T: Config](path: Path, schema: type[T]) -> T:
    """The settings of a folder (its `reflexarc.yaml`, defaults without one) or of a settings file.

    Raises PolicyError naming the file and the field.
    """
    path = path / SETTINGS if path.is_dir() else path
    if not path.is_file():
        return schema()
    try:
        return schema.model_validate(_read(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        known = (
            f"; known: {', '.join(sorted(schema.model_fields))}"
            if problem["type"] == "extra_forbidden"
            else ""
        )
        raise PolicyError(f"{path}: {where}: {problem['msg']}{known}") from error


def _read(path: Path) -> dict[str, object]:
    try:
        data = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise PolicyError(f"cannot read the settings file {path}: {error}") from error
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: settings must map names to values")
    return data
