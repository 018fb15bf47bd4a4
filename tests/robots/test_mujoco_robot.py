"""The simulated arm under the virtual clock passes the contract of every driver."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import get_args

import pytest

from contracts.robot_suite import RobotBench, RobotContract
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import ServoMode
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.world import World

MODES = get_args(ServoMode)


@functools.cache
def world(mode: str) -> World:
    """Compiled once for each mode; each test lays it out anew."""
    return World("reach", load_robot("panda", [f"servo.mode={mode}"]))


@pytest.mark.parametrize("mode", MODES, scope="class")
class TestMujocoRobot(RobotContract):
    @pytest.fixture
    def bench(self, mode: str) -> Iterator[RobotBench]:
        bench = self.make_in(mode)
        yield bench
        bench.robot.close()

    def make_in(self, mode: str) -> RobotBench:
        config = world(mode).robot
        world(mode).reset(0)
        robot = MujocoRobot(world(mode), config)
        steps = round(1e-9 * config.tick_ns / world(mode).model.opt.timestep)
        return RobotBench(robot=robot, config=config, advance=lambda: _advance(robot, steps))


def _advance(robot: MujocoRobot, steps: int) -> None:
    robot.advance(steps)
