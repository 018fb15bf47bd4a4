"""A config is what its file says, or one line says which key of which file is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reflexarc.configs.base import Config
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ConfigError
from reflexarc.configs.load import (
    ROOT,
    config_hash,
    dump,
    load_controller,
    load_policy,
    load_robot,
    load_safety,
    presets,
    resolve_asset,
)

LOADERS: dict[str, Callable[..., Config]] = {
    "controllers": load_controller,
    "policies": load_policy,
    "robots": load_robot,
    "safety": load_safety,
}


def refusal(load: Callable[..., Config], name: str, *overrides: str) -> str:
    """The one line with which a config is refused."""
    with pytest.raises(ConfigError) as refused:
        load(name, overrides)
    text = str(refused.value)
    assert text.isprintable(), "one line"
    assert len(text) < 700
    return text


@pytest.fixture
def controller_file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a controller file and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("kind", LOADERS)
def test_every_preset_loads_and_what_is_dumped_loads_the_same(kind: str, tmp_path: Path) -> None:
    assert presets(kind)
    for name in presets(kind):
        config = LOADERS[kind](name)
        copy = tmp_path / f"{name}.yaml"
        copy.write_text(dump(config))
        assert LOADERS[kind](str(copy)) == config


@pytest.mark.parametrize("kind", LOADERS)
def test_a_preset_has_the_name_of_its_file(kind: str) -> None:
    for name in presets(kind):
        assert LOADERS[kind](name).model_dump()["name"] == name


def test_an_unknown_preset_lists_the_known() -> None:
    text = refusal(load_safety, "pnada")
    assert text.startswith(
        "unknown safety preset 'pnada'; known: fr3, panda, panda-wide, ur5e; did you mean 'panda'?"
    )


@pytest.mark.parametrize("name", ["", "../safety/panda", "panda.yml", "/no/such.yaml", "."])
def test_a_missing_file_is_refused(name: str) -> None:
    assert "panda" in refusal(load_safety, name)


def test_an_unknown_key_names_file_key_and_alternatives(controller_file: Callable[[str], str]) -> None:
    path = controller_file("name: mine\nrate_hx: 50\n")
    text = refusal(load_controller, path)
    assert text.startswith(f"{path}: unknown key 'rate_hx'; known: ")
    assert "blend_s, " in text
    assert text.endswith("did you mean 'rate_hz'?")


def test_an_unknown_key_deep_down_lists_the_keys_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {vision: {kind: conv, widht: 3}}\n")
    text = refusal(load_policy, str(path))
    assert "unknown key 'model.vision.conv.widht'; known: blocks, kind, width; did you mean 'width'?" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rate_hz: fast", "rate_hz is 'fast': Input should be a valid number"),
        ("rate_hz: 5", "rate_hz is 5: Input should be greater than or equal to 10"),
        ("rate_hz: .nan", "rate_hz is nan: Input should be a finite number"),
        ("rate_hz: .inf", "rate_hz is inf: Input should be"),
        ("rate_hz: [1]", "rate_hz is [1]: Input should be a valid number"),
        ("rate_hz:", "rate_hz is None: Input should be a valid number"),
        (
            "interpolation: quintic",
            "interpolation is 'quintic': Input should be 'linear', 'cubic' or 'ruckig'",
        ),
        ("execute_steps: 1.5", "execute_steps is 1.5: Input should be a valid integer"),
    ],
)
def test_a_wrong_value_names_file_key_value_and_what_is_expected(
    line: str, expected: str, controller_file: Callable[[str], str]
) -> None:
    path = controller_file(line)
    assert refusal(load_controller, path).startswith(f"{path}: {expected}")


def test_a_key_left_out_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "safety" / "panda.yaml").read_text())
    del content["workspace"]["upper"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    assert refusal(load_safety, str(path)) == f"{path}: key 'workspace.upper' is missing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "key 'name' is written twice at line 2, column 1"),
        ("name: [\n", "cannot read"),
        ("name: {a: 1, a: 2}\n", "key 'a' is written twice at line 1"),
        ("- 1\n", "must map keys to values, it holds a list"),
        ("", "must map keys to values, it holds nothing"),
        ("? [a]\n: 2\n", "cannot read"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: \x00\n", "not YAML"),
        ("a: 2020-13-45\n", "not YAML: month must be in 1..12"),
        pytest.param("a: " + "[" * 5000, "not YAML", id="deep"),
        pytest.param("a: " + "1" * 5000, "not YAML", id="long"),
        ("1: 2\n", "Keys should be strings"),
    ],
)
def test_other_files_are_refused(text: str, expected: str, controller_file: Callable[[str], str]) -> None:
    assert expected in refusal(load_controller, controller_file(text))


@given(st.binary(max_size=100))
def test_any_bytes_load_or_are_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load_safety(str(path))


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("tcp_speed=0.3", "tcp_speed", 0.3),
        ("tcp_speed=3e-1", "tcp_speed", 0.3),
        ("wrench_ticks=7", "wrench_ticks", 7),
        ("name=mine", "name", "mine"),
        ("sources={a: b}", "sources", {"a": "b"}),
        ("beyond_published=[velocity_scale]", "beyond_published", ("velocity_scale",)),
    ],
)
def test_an_override_changes_its_key_and_no_other(override: str, field: str, value: Any) -> None:
    before, after = load_safety("panda").model_dump(), load_safety("panda", [override]).model_dump()
    assert after[field] == value
    assert {key for key in before if before[key] != after[key]} <= {field}


def test_overrides_reach_into_sections_and_lists() -> None:
    config = load_safety("panda", ["workspace.lower.2=0.1", "workspace.upper.0=0.9", "sources.tcp_speed=a=b"])
    assert config.workspace.lower == (0.2, -0.45, 0.1)
    assert config.workspace.upper[0] == 0.9
    assert config.sources["tcp_speed"] == "a=b"
    robot = load_robot("panda", ["joints.1.velocity=1.5"])
    assert robot.joints[1].velocity == 1.5
    assert robot.joints[0] == load_robot("panda").joints[0]


def test_the_last_override_wins() -> None:
    assert load_safety("panda", ["tcp_speed=0.1", "tcp_speed=0.2"]).tcp_speed == 0.2


def test_an_override_in_a_section_that_the_file_leaves_out_keeps_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    plain = load_policy(str(path)).model_dump()
    changed = load_policy(str(path), ["model.vision.width=32"]).model_dump()
    assert changed["model"]["vision"].pop("width") == 32
    plain["model"]["vision"].pop("width")
    assert changed == plain


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tcp_sped=1", "override 'tcp_sped=1': unknown key 'tcp_sped'; known: acceleration_scale, "),
        ("workspace.low=1", "unknown key 'low'; known: lower, upper; did you mean 'lower'?"),
        ("workspce.lower=1", "unknown key 'workspce'; known: "),
        ("workspace.lower.3=1", "index '3' is not in 0..2"),
        ("workspace.lower.-1=1", "index '-1' is not in 0..2"),
        ("workspace.lower.x=1", "index 'x' is not in 0..2"),
        ("tcp_speed.x=1", "'x' is below the single value 0.7, not a section"),
        ("tcp_speed", "override 'tcp_speed' must look like key=value"),
        ("=1", "override '=1' must look like key=value"),
        ("tcp_speed=[", "override 'tcp_speed=[': not YAML"),
        ("tcp_speed=2020-13-45", "not YAML: month must be in 1..12"),
        (f"workspace.lower.{'1' * 5000}=1", "is not in 0..2"),
        ("tcp_speed=fast", "safety/panda.yaml: tcp_speed is 'fast': Input should be a valid number"),
        ("workspace.lower.0=0.9", "workspace: box x: lower 0.9 m must be below upper 0.8 m"),
        ("velocity_scale=1.1", "beyond the robot's published limit (1); name it in beyond_published"),
        ("hold_after_s=0.6", "hold_after_s 0.6 s must be below stop_after_s 0.5 s"),
    ],
)
def test_a_bad_override_is_refused(override: str, expected: str) -> None:
    assert expected in refusal(load_safety, "panda", override)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_override_applies_or_is_a_config_error(key: str, value: str) -> None:
    override = f"{key}={value}"
    try:
        config = load_controller("default", [override])
    except ConfigError:
        return
    assert isinstance(config, ControllerConfig)


def test_the_hash_tells_what_matters_and_nothing_else() -> None:
    config = load_safety("panda")
    assert config_hash(config) == config_hash(load_safety("panda", ["tcp_speed=7.0e-1"]))
    assert config_hash(config) != config_hash(load_safety("panda", ["tcp_speed=0.71"]))
    assert len(config_hash(config)) == 64


def test_assets_are_found_beside_the_configs() -> None:
    for name in presets("robots"):
        assert resolve_asset(load_robot(name).mjcf).is_file()
    absolute = ROOT / "safety" / "panda.yaml"
    assert resolve_asset(str(absolute)) == absolute
    with pytest.raises(ConfigError, match=r"file 'mjcf/none\.xml' does not exist"):
        resolve_asset("mjcf/none.xml")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_safety("panda").tcp_speed = 2.0
