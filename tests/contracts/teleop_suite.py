"""The contract that every `Teleoperator` passes: subclass `TeleopContract` and say how to make and touch one.

    class TestGamepad(TeleopContract):
        def make(self) -> TeleopBench: ...

A bench plays the person's hands, so that the same suite serves a terminal, a gamepad, a leader arm and a script.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from reflexarc.configs.errors import RobotError
from reflexarc.wire.contracts import Teleoperator, TeleopInput
from reflexarc.wire.messages import TeleopKey, TeleopKind


@dataclasses.dataclass(frozen=True)
class TeleopBench:
    """A device that is not yet connected, and the hands on it.

    move: ask for motion along the device's first axis and keep asking. let_go: release everything, the dead-man too.
    unplug: take the device away while it is open. absent: the same kind of device where there is none; both None for
    one that is not a thing. kind, size: what `motion` must be. press: press one episode key, where the device has them.
    has_own_grip: it always knows what the gripper should do, as a script does.
    """

    device: Teleoperator
    move: Callable[[], None]
    let_go: Callable[[], None]
    unplug: Callable[[], None] | None
    absent: Callable[[], Teleoperator] | None
    kind: TeleopKind = "twist"
    size: int = 6
    press: Callable[[TeleopKey], None] | None = None
    has_own_grip: bool = False
    end: Callable[[], None] = lambda: None


class TeleopContract:
    """What the teleoperation process relies on."""

    def make(self) -> TeleopBench:
        """A fresh bench."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self) -> Iterator[TeleopBench]:
        bench = self.make()
        yield bench
        bench.device.close()
        bench.end()

    def test_is_a_teleoperator(self, bench: TeleopBench) -> None:
        assert isinstance(bench.device, Teleoperator)

    def test_refuses_to_read_before_connect(self, bench: TeleopBench) -> None:
        with pytest.raises(RobotError):
            bench.device.read()

    def test_nothing_is_asked_before_it_is_touched(self, bench: TeleopBench) -> None:
        bench.device.connect()
        assert bench.device.read() is None
        assert bench.device.keys() == ()

    def test_motion_has_its_kind_and_shape_and_leaves_the_gripper_alone(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        given = bench.device.read()
        assert isinstance(given, TeleopInput)
        assert given.gripper is None or bench.has_own_grip
        assert given.kind == bench.kind
        assert given.motion.shape == (bench.size,)
        assert given.motion.dtype == np.float64
        assert np.isfinite(given.motion).all()

    def test_moving_on_changes_what_is_asked(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        first = bench.device.read()
        bench.move()
        then = bench.device.read()
        assert first is not None
        assert then is not None
        moved = then.motion if bench.kind == "twist" else then.motion - first.motion
        assert np.abs(moved).max() > 1e-6

    def test_inputs_are_not_shared(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        first = bench.device.read()
        assert first is not None
        kept = first.motion.copy()
        first.motion.flags.writeable = True
        first.motion[:] = 99.0
        again = bench.device.read()
        assert again is not None
        assert again.motion == pytest.approx(kept)

    def test_letting_go_is_no_input(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        bench.device.read()
        bench.let_go()
        assert bench.device.read() is None

    @pytest.mark.parametrize("key", ["start", "success", "fail", "redo", "delete", "give_back"])
    def test_a_key_is_told_once(self, bench: TeleopBench, key: TeleopKey) -> None:
        bench.device.connect()
        bench.device.read()
        if bench.press is None:
            assert bench.device.keys() == ()
            return
        bench.press(key)
        bench.device.read()
        assert bench.device.keys() == (key,)
        bench.device.read()
        assert bench.device.keys() == ()

    def test_unplugged_is_an_error_not_a_last_value(self, bench: TeleopBench) -> None:
        if bench.unplug is None:
            pytest.skip("a script cannot be unplugged")
        bench.device.connect()
        bench.move()
        bench.device.read()
        bench.unplug()
        with pytest.raises(RobotError, match=r"\w+ \w+"):
            bench.device.read()
        bench.device.close()

    def test_a_device_that_is_not_there_says_what_was_tried(self, bench: TeleopBench) -> None:
        if bench.absent is None:
            pytest.skip("a script is always there")
        absent = bench.absent()
        with pytest.raises(RobotError) as raised:
            absent.connect()
        assert len(str(raised.value)) > 20
        assert "\n" not in str(raised.value)
        absent.close()

    def test_close_is_safe_twice_and_ends_reading(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.device.close()
        bench.device.close()
        with pytest.raises(RobotError):
            bench.device.read()

    def test_can_be_opened_again_and_has_forgotten(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        bench.device.read()
        bench.let_go()
        bench.device.close()
        bench.device.connect()
        assert bench.device.read() is None
        assert bench.device.keys() == ()
