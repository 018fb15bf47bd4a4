"""The robot and the limits that the tests of safety run with: the shipped presets."""

from __future__ import annotations

import pytest

from contracts.filter_bench import FilterBench
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig


@pytest.fixture(scope="session")
def robot() -> RobotConfig:
    return load_robot("panda")


@pytest.fixture(scope="session")
def safety() -> SafetyConfig:
    return load_safety("panda")


@pytest.fixture
def bench(robot: RobotConfig, safety: SafetyConfig) -> FilterBench:
    """A filter in state `ready`, the arm at home."""
    return FilterBench(robot, safety)


@pytest.fixture
def active(bench: FilterBench) -> FilterBench:
    """Enabled, and following a sender that asks it to stay."""
    assert bench.request("enable")
    bench.tick(bench.setpoint())
    assert bench.state == "active"
    return bench
