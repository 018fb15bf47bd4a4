"""The fake arm passes the contract of every driver."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import pytest

from contracts.robot_suite import RobotBench, RobotContract
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import ServoMode
from reflexarc.robots.fake import FakeRobot

MODES = get_args(ServoMode)


@pytest.mark.parametrize("mode", MODES, scope="class")
class TestFakeRobot(RobotContract):
    @pytest.fixture
    def bench(self, mode: str) -> Iterator[RobotBench]:
        bench = self.make_in(mode)
        yield bench
        bench.robot.close()

    def make_in(self, mode: str) -> RobotBench:
        config = load_robot("panda", [f"servo.mode={mode}"])
        ticks = itertools.count()
        now = [next(ticks)]

        def advance() -> None:
            now[0] = next(ticks) * config.tick_ns

        return RobotBench(robot=FakeRobot(config, lambda: now[0]), config=config, advance=advance)
