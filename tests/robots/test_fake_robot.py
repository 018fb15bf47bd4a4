"""The fake arm passes the contract of every driver."""

from __future__ import annotations

import itertools

from contracts.robot_suite import RobotBench, RobotContract
from reflexarc.configs.load import load_robot
from reflexarc.robots.fake import FakeRobot


class TestFakeRobot(RobotContract):
    def make(self) -> RobotBench:
        config = load_robot("panda")
        ticks = itertools.count()
        now = [next(ticks)]

        def advance() -> None:
            now[0] = next(ticks) * config.tick_ns

        return RobotBench(robot=FakeRobot(config, lambda: now[0]), config=config, advance=advance)
