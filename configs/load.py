"""Find a preset or a file, apply overrides, check it: YAML in, a frozen config out.

Errors are one line: the file, the key, the value, what was expected and the valid alternatives.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from reflexarc.configs.base import Config
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ConfigError, unknown
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig

ROOT = Path(__file__).resolve().parent


def presets(kind: str) -> list[str]:
    """Names of the presets in `configs/<kind>/`."""
    return sorted(path.stem for path in (ROOT / kind).glob("*.yaml"))


def resolve_asset(path: str) -> Path:
    """A file named in a config: absolute, or relative to the `configs` package. Raises ConfigError if missing."""
    found = Path(path) if Path(path).is_absolute() else ROOT / path
    if not found.is_file():
        raise ConfigError(f"file {path!r} does not exist; relative paths start at the configs package")
    return found


def load[C: Config](schema: type[C], kind: str, name_or_path: str, overrides: Sequence[str] = ()) -> C:
    """The preset or file `name_or_path`, with `a.b=value` overrides (values are YAML), checked by `schema`."""
    path = _find(kind, name_or_path)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must map keys to values, it holds a {type(content).__name__}")
    for override in overrides:
        _override(content, override, schema)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, path)) from error


def load_robot(name_or_path: str, overrides: Sequence[str] = ()) -> RobotConfig:
    """A robot from `configs/robots/` or a file."""
    return load(RobotConfig, "robots", name_or_path, overrides)


def load_safety(name_or_path: str, overrides: Sequence[str] = ()) -> SafetyConfig:
    """Safety limits from `configs/safety/` or a file."""
    return load(SafetyConfig, "safety", name_or_path, overrides)


def load_controller(name_or_path: str, overrides: Sequence[str] = ()) -> ControllerConfig:
    """A controller from `configs/controllers/` or a file."""
    return load(ControllerConfig, "controllers", name_or_path, overrides)


def dump(config: BaseModel) -> str:
    """The config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_hash(config: BaseModel) -> str:
    """sha256 of the config's canonical JSON."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _find(kind: str, name_or_path: str) -> Path:
    if name_or_path in presets(kind):
        return ROOT / kind / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"{kind} file {name_or_path!r} does not exist")
        return path
    raise ConfigError(unknown(f"{kind} preset", name_or_path, presets(kind)) + "; or name a .yaml file")


def _override(content: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} must look like key=value, e.g. {next(iter(schema.model_fields))}=…")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML") from error
    node: Any = content
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, dict):
            node = node.setdefault(part, {})
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise ConfigError(f"override {override!r}: {part!r} is not a section of {schema.__name__}")
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    else:
        raise ConfigError(f"override {override!r}: there is no {last!r} to set")


def _explain(error: ValidationError, schema: type[BaseModel], path: Path) -> str:
    """The first problem of a validation error, in one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(schema, problem["loc"][:-1])
        name = str(problem["loc"][-1])
        near = difflib.get_close_matches(name, fields, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{path.name}: {unknown('key', where, fields)}{hint}"
    if problem["type"] == "missing":
        return f"{path.name}: key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path.name}: {where or schema.__name__} = {problem['input']!r}: {message}"[:600]


def _fields_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the (sub-)model at `location`."""
    model: Any = schema
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)
