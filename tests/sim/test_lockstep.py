"""The virtual clock: the same result every time, over memory or sockets, and to the bit from the log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reflexarc.configs.errors import SimulationError, WireError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.replay import replay
from reflexarc.setup import load_setup
from reflexarc.sim.experts import make_expert
from reflexarc.sim.latency import Latency
from reflexarc.sim.link import CodecLink, Link, SocketLink
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World
from reflexarc.wire.messages import Heartbeat, Message, SimSteps


def run_lift(link: Link, latency_s: float = 0.05) -> tuple[bool, list[SimSteps]]:
    """One expert episode; its success and every physics batch."""
    setup = load_setup()
    world = World("lift", setup.robot)
    steps: list[SimSteps] = []

    def keep(topic: str, message: Message) -> None:
        if isinstance(message, SimSteps):
            steps.append(message)

    session = LockstepSession(
        world,
        setup.robot,
        setup.safety,
        setup.controller,
        make_expert(world),
        latency=Latency([latency_s]),
        link=link,
        subscribers=[keep],
    )
    result = session.run(11, time_limit_s=8.0)
    session.close()
    world.close()
    return result.success, steps


def test_over_sockets_the_trajectory_is_the_same_to_the_bit() -> None:
    in_memory, over_sockets = run_lift(CodecLink()), run_lift(SocketLink())
    assert in_memory[0]
    assert over_sockets[0]
    assert len(in_memory[1]) == len(over_sockets[1]) > 100
    for one, other in zip(in_memory[1], over_sockets[1], strict=True):
        np.testing.assert_array_equal(one.qpos, other.qpos)
        np.testing.assert_array_equal(one.control, other.control)


def test_latency_changes_the_trajectory() -> None:
    fast, slow = run_lift(CodecLink(), 0.0)[1], run_lift(CodecLink(), 0.2)[1]
    assert not np.array_equal(fast[60].qpos, slow[60].qpos)


def test_replay_needs_only_the_beginning_and_the_controls(tmp_path: Path) -> None:
    setup = load_setup()
    world = World("place", setup.robot)
    session = LockstepSession(world, setup.robot, setup.safety, setup.controller, make_expert(world))
    whole, bare = tmp_path / "whole.mcap", tmp_path / "bare.mcap"
    writers = [EpisodeWriter(path, {"task": "place"}, fsync=False) for path in (whole, bare)]

    def record(topic: str, message: Message) -> None:
        writers[0].write(topic, message)
        if topic == "/sim/initial":
            writers[1].write(topic, message)
        if isinstance(message, SimSteps):
            empty = np.zeros(0)
            stripped = SimSteps(
                t_ns=message.t_ns,
                clock=message.clock,
                first_step=message.first_step,
                control=message.control,
                qpos=empty,
                qvel=empty,
            )
            writers[1].write(topic, stripped)

    session.subscribers.append(record)
    result = session.run(5, time_limit_s=12.0)
    for writer in writers:
        writer.close({"success": result.success})
    full, stripped_result = replay(whole), replay(bare)
    assert full.compared > 100
    assert full.max_qpos_error == 0.0
    assert stripped_result.max_qpos_error is None
    np.testing.assert_array_equal(full.final_qpos, stripped_result.final_qpos)
    np.testing.assert_array_equal(full.final_qpos, world.data.qpos)
    assert json.dumps(EpisodeReader(whole).metadata)


def test_latency_is_drawn_by_seed() -> None:
    latency = Latency([0.01, 0.02, 0.03])
    latency.reseed(4)
    first = [latency.draw_ns() for _ in range(20)]
    latency.reseed(4)
    assert [latency.draw_ns() for _ in range(20)] == first
    assert len(set(first)) == 3


@pytest.mark.parametrize("text", ["-1", "nan", "no-such-file", "11"])
def test_a_latency_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SimulationError, match="latency"):
        Latency.parse(text)


def test_a_message_that_does_not_arrive_is_named() -> None:
    link = SocketLink(timeout_s=0.05)
    link._pull.disable_monitor()
    link._push.disconnect(link._push.getsockopt_string(32).rstrip("\0"))
    with pytest.raises(WireError, match=r"Heartbeat did not arrive within 0\.05 s"):
        link.carry(Heartbeat(t_ns=0, peer="x", seq=0))
    link.close()
