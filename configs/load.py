"""Find a preset or a file, apply overrides, check it: YAML in, a frozen config out.

Errors are one line: the file or the override, the key, its value, what was expected and the valid alternatives.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined, to_jsonable_python

from reflexarc.configs.base import Config
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ConfigError, unknown
from reflexarc.configs.policy import PolicyConfig
from reflexarc.configs.recording import RecordingConfig
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.configs.teleop import TeleopConfig

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
    """The preset or file `name_or_path`, with `a.b=value` overrides (values are YAML), checked by `schema`.

    Raises ConfigError for an unknown preset, file, key or override, and for a wrong type or value.
    """
    path = _find(kind, name_or_path)
    label = f"{kind}/{path.name}" if path.parent == ROOT / kind else str(path)
    content = _read(path, label)
    for override in overrides:
        _override(content, override, schema)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{label}: {_explain(error.errors(), schema)}") from error


def load_robot(name_or_path: str, overrides: Sequence[str] = ()) -> RobotConfig:
    """A robot from `configs/robots/` or a file."""
    return load(RobotConfig, "robots", name_or_path, overrides)


def load_safety(name_or_path: str, overrides: Sequence[str] = ()) -> SafetyConfig:
    """Safety limits from `configs/safety/` or a file."""
    return load(SafetyConfig, "safety", name_or_path, overrides)


def load_controller(name_or_path: str, overrides: Sequence[str] = ()) -> ControllerConfig:
    """A controller from `configs/controllers/` or a file."""
    return load(ControllerConfig, "controllers", name_or_path, overrides)


def load_policy(name_or_path: str, overrides: Sequence[str] = ()) -> PolicyConfig:
    """A policy's model and training from `configs/policies/` or a file."""
    return load(PolicyConfig, "policies", name_or_path, overrides)


def load_recording(name_or_path: str, overrides: Sequence[str] = ()) -> RecordingConfig:
    """How pictures are kept, from `configs/recording/` or a file."""
    return load(RecordingConfig, "recording", name_or_path, overrides)


def load_teleop(name_or_path: str, overrides: Sequence[str] = ()) -> TeleopConfig:
    """A way to teleoperate from `configs/teleop/` or a file."""
    return load(TeleopConfig, "teleop", name_or_path, overrides)


def dump(config: BaseModel) -> str:
    """The config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_hash(config: BaseModel) -> str:
    """sha256 of the config's canonical JSON, as 64 hexadecimal digits."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _find(kind: str, name_or_path: str) -> Path:
    known = presets(kind)
    if name_or_path in known:
        return ROOT / kind / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        reason = unknown(f"{kind} preset", name_or_path, known) + _did_you_mean(name_or_path, known)
        raise ConfigError(f"{reason}; or name a .yaml file")
    if not path.is_file():
        raise ConfigError(f"{kind} file {name_or_path!r} does not exist; presets: {', '.join(known)}")
    return path


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which plain YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is written twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse(text: str) -> Any:
    """YAML as plain data; raises ConfigError saying what is wrong and where, in one line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(_one_line(f"not YAML: {error.problem}{where}")) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45 looks like a date
        raise ConfigError(_one_line(f"not YAML: {error}")) from error


def _read(path: Path, label: str) -> dict[str, Any]:
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"cannot read {label}: {_one_line(str(error))}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{label} must map keys to values, it holds {held}")
    return content


def _override(content: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    """Set one `a.b.0.c=value` in `content`; a section the file leaves out starts as the schema's default."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        example = next(iter(schema.model_fields))
        raise ConfigError(f"override {_short(override)} must look like key=value, e.g. {example}=...")
    try:
        value = _parse(text)
    except ConfigError as error:
        raise ConfigError(f"override {_short(override)}: {error}") from error
    node: Any = content
    models = [schema]
    *parents, last = key.split(".")
    for part in parents:
        index = _index(node, part, models, override)
        if isinstance(node, dict) and index not in node:
            node[index] = _default(models, part)
        node = node[index]
        models = _step(models, part)
    node[_index(node, last, models, override)] = value


def _index(node: Any, part: str, models: list[type[BaseModel]], override: str) -> str | int:
    """`part` as a key or an index of `node`. Raises ConfigError listing the alternatives if it is neither."""
    if isinstance(node, dict):
        fields = _fields(models)
        if fields and part not in fields:
            raise ConfigError(
                f"override {_short(override)}: {unknown('key', part, fields)}{_did_you_mean(part, fields)}"
            )
        return part
    if isinstance(node, list):
        if not (part.isdecimal() and len(part) < 10 and int(part) < len(node)):
            raise ConfigError(
                f"override {_short(override)}: index {_short(part)} is not in 0..{len(node) - 1}"
            )
        return int(part)
    raise ConfigError(
        f"override {_short(override)}: {_short(part)} is below the single value {_short(node)}, not a section"
    )


def _default(models: list[type[BaseModel]], part: str) -> Any:
    """The default of field `part` as plain data; an empty section if it has none."""
    for model in models:
        if part in model.model_fields:
            default = model.model_fields[part].get_default(call_default_factory=True, validated_data={})
            return {} if default is PydanticUndefined or default is None else to_jsonable_python(default)
    return {}


def _explain(problems: list[ErrorDetails], schema: type[BaseModel]) -> str:
    """The first problem of a validation error, in one line, and how many more there are."""
    problem = problems[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = _one_line(problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        models = [schema]
        for part in problem["loc"][:-1]:
            models = _step(models, part)
        fields = _fields(models)
        text = unknown("key", where, fields) + _did_you_mean(name, fields)
    elif problem["type"] == "missing":
        text = f"key {where!r} is missing"
    elif problem["type"] == "value_error" and isinstance(problem["input"], dict):
        text = f"{where}: {message}" if where else message
    else:
        text = f"{where} is {_short(problem['input'])}: {message}"
    more = len(problems) - 1
    return f"{text} (and {more} more)" if more else text


def _fields(models: Iterable[type[BaseModel]]) -> list[str]:
    return sorted({name for model in models for name in model.model_fields})


def _step(models: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]]:
    """The models that may stand at `part` of one of `models`: a field, an index, or the tag of a union."""
    if isinstance(part, int) or part.isdecimal():
        return models
    below = [model.model_fields[part].annotation for model in models if part in model.model_fields]
    if below:
        return [found for annotation in below for found in _models_in(annotation)]
    return [model for model in models if _has_tag(model, part)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models named anywhere within a type annotation."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    """Whether one of the model's `Literal` fields may be `tag`."""
    annotations = (field.annotation for field in model.model_fields.values())
    return any(get_origin(each) is Literal and tag in get_args(each) for each in annotations)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _one_line(text: str) -> str:
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= 300 else line[:297] + "..."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
