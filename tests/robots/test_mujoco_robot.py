"""The simulated arm under the virtual clock passes the contract of every driver."""

from __future__ import annotations

import functools

from contracts.robot_suite import RobotBench, RobotContract
from reflexarc.configs.load import load_robot
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.world import World


@functools.cache
def world() -> World:
    """Compiled once; each test lays it out anew."""
    return World("reach", load_robot("panda"))


class TestMujocoRobot(RobotContract):
    def make(self) -> RobotBench:
        config = load_robot("panda")
        world().reset(0)
        robot = MujocoRobot(world(), config)
        steps = round(1e-9 * config.tick_ns / world().model.opt.timestep)
        return RobotBench(robot=robot, config=config, advance=lambda: _advance(robot, steps))


def _advance(robot: MujocoRobot, steps: int) -> None:
    robot.advance(steps)
