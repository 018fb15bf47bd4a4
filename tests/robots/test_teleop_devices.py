"""Every teleoperation device passes the one contract; each against the nearest thing to its hardware there is here.

The keyboard is a pseudo-terminal, the gamepad a virtual one of SDL's own, the SpaceMouse its reports as bytes; leader
arm and phone are lerobot's own drivers, on a bus of emulated servos and on the feedback of the phone's app.
"""

from __future__ import annotations

import json
import os
import pty
import struct
import sys
import termios
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.feetech_bus import LEAST, MIDDLE, POSITION, FeetechBus
from contracts.teleop_suite import TeleopBench, TeleopContract
from reflexarc.configs.errors import ConfigError, RobotError
from reflexarc.configs.load import load_robot, load_teleop, presets
from reflexarc.configs.teleop import LeRobotDevice, TeleopConfig
from reflexarc.robots.teleop.devices import make_teleoperator
from reflexarc.robots.teleop.gamepad import AXES, BUTTONS, Gamepad, load_sdl
from reflexarc.robots.teleop.keyboard import TerminalKeys, key_names
from reflexarc.robots.teleop.lerobot_driver import LeRobotTeleoperator
from reflexarc.robots.teleop.mapping import Mapped
from reflexarc.robots.teleop.paired import Paired
from reflexarc.robots.teleop.spacemouse import SpaceMouse, parse_report
from reflexarc.robots.teleop.stream import RETRY_NS, TeleopStream
from reflexarc.wire.contracts import TeleopInput
from reflexarc.wire.messages import TeleopKey

MS = 1_000_000
JOINTS = load_robot("panda").joint_names
BYTES_OF = {"enter": b"\r", "backspace": b"\x7f", "space": b" ", "up": b"\x1b[A", "down": b"\x1bOB"}


class Hands:
    """A pseudo-terminal, and the time."""

    def __init__(self, preset: str = "keyboard") -> None:
        self.master, slave = pty.openpty()
        self.path = os.ttyname(slave)
        self.slave = slave
        self.now_ns = 10_000 * MS
        self.config = load_teleop(preset)
        keys = TerminalKeys(0.15, self.path, self.clock)
        self.device = Mapped(keys, self.config, self.clock)

    def clock(self) -> int:
        return self.now_ns

    def type(self, *names: str) -> None:
        os.write(self.master, b"".join(BYTES_OF.get(name, name.encode()) for name in names))

    def press(self, key: TeleopKey) -> None:
        control = next(name for name, action in self.config.bindings.items() if action == key)
        self.type(control)

    def wait(self, ms: int = 1000) -> None:
        self.now_ns += ms * MS

    def unplug(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.master = -1

    def end(self) -> None:
        if self.master >= 0:
            os.close(self.slave)
            os.close(self.master)


class TestKeyboard(TeleopContract):
    def make(self) -> TeleopBench:
        hands = Hands()
        return TeleopBench(
            device=hands.device,
            move=lambda: hands.type("w"),
            let_go=hands.wait,
            unplug=hands.unplug,
            absent=lambda: Mapped(TerminalKeys(0.15, "/dev/null"), hands.config),
            press=hands.press,
            end=hands.end,
        )


class VirtualPad:
    """A gamepad of SDL's own making."""

    def __init__(self) -> None:
        self.sdl = load_sdl()
        self.index = self.sdl.SDL_JoystickAttachVirtual(
            self.sdl.SDL_JOYSTICK_TYPE_GAMECONTROLLER, len(AXES), len(BUTTONS), 0
        )
        assert self.index >= 0
        self.joystick = self.sdl.SDL_JoystickOpen(self.index)
        self.config = load_teleop("gamepad")
        for trigger in ("lefttrigger", "righttrigger"):
            self.axis(trigger, -1.0)  # a trigger at rest is at the low end of its axis
        self.device = Mapped(Gamepad(), self.config)

    def axis(self, name: str, value: float) -> None:
        self.sdl.SDL_JoystickSetVirtualAxis(self.joystick, AXES.index(name), round(value * 32767))

    def button(self, name: str, down: bool = True) -> None:
        self.sdl.SDL_JoystickSetVirtualButton(self.joystick, BUTTONS.index(name), int(down))

    def press(self, key: TeleopKey) -> None:
        self.button(next(name for name, action in self.config.bindings.items() if action == key))

    def move(self) -> None:
        self.button("leftshoulder")
        self.axis("lefty", -1.0)

    def unplug(self) -> None:
        if self.joystick is not None:
            self.sdl.SDL_JoystickClose(self.joystick)
            self.joystick = None
            self.sdl.SDL_JoystickDetachVirtual(self.index)
            self.sdl.SDL_JoystickUpdate()


class TestGamepad(TeleopContract):
    def make(self) -> TeleopBench:
        pad = VirtualPad()
        return TeleopBench(
            device=pad.device,
            move=pad.move,
            let_go=lambda: pad.button("leftshoulder", down=False),
            unplug=pad.unplug,
            absent=lambda: Mapped(Gamepad(index=3), pad.config),
            press=pad.press,
            end=pad.unplug,
        )


class FakeHid(types.ModuleType):
    """The module `hid` with one SpaceMouse, or none; reports are bytes as the device sends them."""

    def __init__(self, *, plugged: bool = True) -> None:
        super().__init__("hid")
        self.plugged = plugged
        self.reports: list[bytes] = []

    def enumerate(self) -> list[dict[str, Any]]:
        mouse = {"vendor_id": 0x256F, "usage_page": 1, "usage": 8, "path": b"/dev/hidraw3"}
        keyboard = {"vendor_id": 0x046D, "usage_page": 1, "usage": 6, "path": b"/dev/hidraw1"}
        return [keyboard, mouse] if self.plugged else [keyboard]

    def device(self) -> FakeHid:
        return self

    def open_path(self, path: bytes) -> None:
        if path != b"/dev/hidraw3" or not self.plugged:
            raise OSError("open failed")

    def set_nonblocking(self, on: int) -> None:
        assert on

    def read(self, size: int) -> list[int]:
        if not self.plugged:
            raise OSError("read error")
        return list(self.reports.pop(0)[:size]) if self.reports else []

    def close(self) -> None:
        self.reports.clear()


FORWARD = bytes.fromhex("01 0000 a2fe 0000 0000 0000 0000")
"""A SpaceMouse Compact pushed forward as far as it goes: y = -350."""
REST = bytes.fromhex("01 0000 0000 0000 0000 0000 0000")


class TestSpaceMouse(TeleopContract):
    @pytest.fixture(autouse=True)
    def _hid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hid = FakeHid()
        monkeypatch.setitem(sys.modules, "hid", self.hid)

    def make(self) -> TeleopBench:
        def unplug() -> None:
            self.hid.plugged = False

        def absent() -> Mapped:
            self.hid.plugged = False
            return Mapped(SpaceMouse(), load_teleop("spacemouse"))

        return TeleopBench(
            device=Mapped(SpaceMouse(), load_teleop("spacemouse")),
            move=lambda: self.hid.reports.append(FORWARD),
            let_go=lambda: self.hid.reports.append(REST),
            unplug=unplug,
            absent=absent,
        )


LEADER = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


class Leader:
    """An SO-101 leader: lerobot's own driver and the maker's SDK, on a bus of servos that answer as real ones do."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("lerobot.teleoperators")
        pytest.importorskip("scservo_sdk")
        self.bus = FeetechBus()
        calibration = {
            name: {
                "id": number,
                "drive_mode": 0,
                "homing_offset": 0,
                "range_min": MIDDLE - 1024,
                "range_max": MIDDLE + 1024,
            }
            for number, name in enumerate(LEADER, 1)
        }
        (folder / "leader.json").write_text(json.dumps(calibration))
        self.folder = folder

    def device(self, port: str = "") -> LeRobotTeleoperator:
        options = [
            f"device.options.port={port or self.bus.path}",
            f"device.options.calibration_dir={self.folder}",
        ]
        config = load_teleop("so101-leader", options)
        assert isinstance(config.device, LeRobotDevice)
        return LeRobotTeleoperator(config.device, JOINTS)

    def turn(self, joint: str, degrees: float) -> None:
        servo = 1 + LEADER.index(joint)
        self.bus.set(servo, POSITION, self.bus.get(servo, POSITION) + round(degrees * 4095 / 360))


class TestLeaderArm(TeleopContract):
    """With the keyboard for clutch and episode keys, as its preset has it."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> TeleopBench:
        leader, hands = Leader(self.folder), Hands("keys")
        state = {"engaged": False}

        def move() -> None:
            if not state["engaged"]:
                hands.type("space")
                state["engaged"] = True
            leader.turn("shoulder_pan", 5.0)

        def let_go() -> None:
            hands.wait()
            paired.read()
            hands.type("space")
            state["engaged"] = False

        def end() -> None:
            hands.end()
            leader.bus.unplug()

        paired = Paired(leader.device(), hands.device)
        return TeleopBench(
            device=paired,
            move=move,
            let_go=let_go,
            unplug=leader.bus.unplug,
            absent=lambda: leader.device("/dev/not-there"),
            kind="joint_offset",
            size=7,
            press=hands.press,
            end=end,
        )

    def test_its_joints_are_followed_by_name_and_factor(self, bench: TeleopBench) -> None:
        leader = Leader(self.folder)
        device = leader.device()
        device.connect()
        zero = device.read()
        for joint, degrees in (("shoulder_pan", 60.0), ("elbow_flex", -45.0), ("gripper", -45.0)):
            leader.turn(joint, degrees)
        given = device.read()
        assert zero is not None
        assert given is not None
        expected = np.zeros(7)
        expected[0], expected[3] = -np.pi / 3, np.pi / 4
        assert given.motion - zero.motion == pytest.approx(expected, abs=2e-3)  # a step is 1.5 mrad
        assert zero.gripper is None
        assert given.gripper == pytest.approx(0.25, abs=1e-3)  # 512 of the 2048 steps between closed and open
        device.close()
        leader.bus.unplug()

    def test_one_that_is_not_calibrated_is_told_how_to(self, bench: TeleopBench) -> None:
        leader = Leader(self.folder)
        leader.bus.set(2, LEAST, 100)  # the servo was calibrated anew, its file is the old one
        with pytest.raises(
            RobotError, match=r"not calibrated, or .* `lerobot-calibrate --teleop\.type=so101_leader"
        ):
            leader.device().connect()
        leader.bus.unplug()


class HebiPhone:
    """The module `hebi`, with a phone that runs HEBI's app, or none; its feedback as the app sends it.

    Nothing here speaks the app's protocol, which is closed; all above it is lerobot's own driver.
    """

    def __init__(self, *, plugged: bool = True) -> None:
        self.plugged = plugged
        self.ar_position = np.array([0.3, -0.2, 1.1])
        self.ar_orientation = np.array([1.0, 0.0, 0.0, 0.0])  # wxyz
        self.io = types.SimpleNamespace(a=None, b=self)
        self.pressed = False
        self.capturing = False
        self.size = 1

    def Lookup(self) -> HebiPhone:  # noqa: N802
        return self

    def get_group_from_names(self, families: list[str], names: list[str]) -> HebiPhone | None:
        assert (families, names) == (["HEBI"], ["mobileIO"])
        self.capturing = True  # the person holds B1 until the pose is captured
        return self if self.plugged else None

    def get_next_feedback(self) -> list[HebiPhone] | None:
        return [self] if self.plugged else None

    def has_int(self, channel: int) -> bool:
        return channel == 1

    def get_int(self, channel: int) -> int:
        held, self.capturing = self.pressed or self.capturing, False
        return int(held and channel == 1)


class TestPhone(TeleopContract):
    @pytest.fixture(autouse=True)
    def _hebi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = pytest.importorskip("lerobot.teleoperators.phone.teleop_phone")
        self.hebi = HebiPhone()
        monkeypatch.setattr(driver, "hebi", self.hebi)
        monkeypatch.setattr(driver, "require_package", lambda *_, **__: None)
        monkeypatch.setattr(driver, "time", types.SimpleNamespace(sleep=lambda _: None))

    def make(self) -> TeleopBench:
        config = load_teleop("phone")
        assert isinstance(config.device, LeRobotDevice)
        phone = config.device

        def move() -> None:
            self.hebi.pressed = True
            self.hebi.ar_position = self.hebi.ar_position + [0.0, -0.01, 0.0]

        def absent() -> LeRobotTeleoperator:
            self.hebi.plugged = False
            return LeRobotTeleoperator(phone, JOINTS)

        return TeleopBench(
            device=LeRobotTeleoperator(phone, JOINTS),
            move=move,
            let_go=lambda: setattr(self.hebi, "pressed", False),
            unplug=lambda: setattr(self.hebi, "plugged", False),
            absent=absent,
            kind="offset",
        )

    def test_moved_forward_it_moves_the_arm_forward(self, bench: TeleopBench) -> None:
        bench.device.connect()
        bench.move()
        first = bench.device.read()
        bench.move()
        then = bench.device.read()
        assert first is not None
        assert then is not None
        assert then.motion - first.motion == pytest.approx([0.01, 0, 0, 0, 0, 0])


# The keyboard


def test_keys_by_name_and_unknown_sequences_are_left_out_whole() -> None:
    assert key_names("aA \r\x1b[A\x1bOD\x1b[1;5C\x1b[3~z\x01ö") == [
        "a", "A", "space", "enter", "up", "left", "right", "z", "ö",
    ]  # fmt: skip
    assert key_names("\x1b") == ["escape"]


@pytest.mark.parametrize(
    "pieces", [["\x1b", "[D"], ["\x1b[", "D"], ["\x1b", "[", "D"], ["w" * 255 + "\x1b[D"]]
)
def test_an_arrow_that_comes_in_pieces_is_an_arrow(pieces: list[str]) -> None:
    hands = Hands()
    hands.device.connect()
    told: list[str] = []
    given = None
    for piece in [*pieces, ""]:
        hands.type(piece)
        given = hands.device.read()
        told += hands.device.keys()
        hands.wait(20)
    assert told == []  # D deletes an episode
    assert given is not None
    assert given.motion[3] < 0
    hands.device.close()
    hands.end()


def test_what_begins_like_a_sequence_is_a_key_when_nothing_follows() -> None:
    hands = Hands()
    keys = TerminalKeys(0.15, hands.path, hands.clock)
    keys.open()
    held = []
    for typed, after_ms in (("\x1b", 20), ("", 200), ("w\x1b[", 300), ("", 20), ("d", 20)):
        hands.type(typed)
        held.append([*keys.poll()])
        hands.wait(after_ms)
    assert held == [[], [], ["escape", "w"], [], ["d"]]
    keys.close()
    hands.end()


def test_the_terminal_is_given_back_as_it_was() -> None:
    hands = Hands()
    before = termios.tcgetattr(hands.slave)
    hands.device.connect()
    during = termios.tcgetattr(hands.slave)
    assert not during[3] & (termios.ICANON | termios.ECHO)
    assert during[3] & termios.ISIG  # Ctrl-C still works
    hands.device.close()
    assert termios.tcgetattr(hands.slave) == before
    hands.end()


def test_a_key_is_held_while_it_repeats_and_released_when_it_does_not() -> None:
    hands = Hands()
    hands.device.connect()
    for _ in range(10):
        hands.type("w")
        assert hands.device.read() is not None
        hands.wait(100)
    hands.wait(60)
    assert hands.device.read() is None
    hands.device.close()
    hands.end()


def test_w_is_forward_at_the_chosen_pace() -> None:
    hands = Hands()
    hands.device.connect()
    speeds = []
    for keys in (["w"], ["-", "w"], ["=", "=", "w"], ["w", "s"]):
        hands.wait()
        hands.device.read()
        hands.wait()
        for key in keys:
            hands.type(key)
            given = hands.device.read()
        assert given is not None
        speeds.append(given.motion[0])
        assert not given.motion[1:].any()
    # "==" within one hold counts once: the terminal may be repeating it.
    assert speeds == pytest.approx([0.1, 0.05, 0.1, 0.0])
    hands.device.close()
    hands.end()


def test_a_key_that_is_held_down_is_told_once() -> None:
    hands = Hands()
    hands.device.connect()
    told: list[str] = []
    for after_ms in (0, 500, *[33] * 30):  # down, the pause before it repeats, repeats
        hands.wait(after_ms)
        hands.type("D")
        hands.device.read()
        told += hands.device.keys()
    assert told == ["delete"]
    hands.device.close()
    hands.end()


def test_a_clutch_that_is_held_down_ends_open() -> None:
    hands = Hands("keys")
    hands.device.connect()
    engaged = []
    for after_ms in (0, 500, *[33] * 30):
        hands.wait(after_ms)
        hands.device.read()
        hands.type("space")
        hands.device.read()
        engaged.append(hands.device.engaged)
    assert engaged[0]
    assert not any(engaged[1:])
    hands.device.close()
    hands.end()


def test_the_gripper_is_left_alone_until_asked_and_again_after_giving_back() -> None:
    hands = Hands()
    hands.device.connect()

    def after(key: str) -> float | None:
        hands.wait()
        hands.type(key)
        given = hands.device.read()
        assert given is not None
        return given.gripper

    assert after("w") is None
    assert after("c") == 0.0
    assert after("w") == 0.0
    assert after("o") == 1.0
    hands.type("g")
    hands.device.read()
    assert after("w") is None
    hands.device.close()
    hands.end()


# The gamepad


@pytest.mark.parametrize(
    ("axis", "value", "dim", "sign"),
    [
        ("lefty", -1.0, 0, 1),
        ("leftx", 1.0, 1, -1),
        ("righttrigger", 1.0, 2, 1),
        ("lefttrigger", 1.0, 2, -1),
        ("rightx", 1.0, 5, -1),
    ],
)
def test_sticks_move_only_while_the_dead_man_is_held(axis: str, value: float, dim: int, sign: int) -> None:
    pad = VirtualPad()
    pad.device.connect()
    pad.axis(axis, value)
    assert pad.device.read() is None
    pad.button("leftshoulder")
    given = pad.device.read()
    assert given is not None
    fastest = pad.config.linear_speed if dim < 3 else pad.config.angular_speed
    assert given.motion[dim] == pytest.approx(sign * 0.5 * fastest, abs=1e-3)
    assert not np.delete(given.motion, dim).any()
    pad.axis(axis, 0.05 * value if "trigger" not in axis else -1.0)  # within the deadband
    still = pad.device.read()
    assert still is not None
    assert not still.motion.any()
    pad.device.close()
    pad.unplug()


# The SpaceMouse: reports as recorded


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (FORWARD, {"x": 0.0, "y": -1.0, "z": 0.0, "rx": 0.0, "ry": 0.0, "rz": 0.0}),
        (bytes.fromhex("01 5e01 0000 57ff"), {"x": 1.0, "y": 0.0, "z": -169 / 350}),
        (bytes.fromhex("02 0000 0000 af00"), {"rx": 0.0, "ry": 0.0, "rz": 0.5}),
        (bytes.fromhex("01 ff7f 0080 0000"), {"x": 1.0, "y": -1.0, "z": 0.0}),
        (bytes.fromhex("03 0200"), {"left": 0.0, "right": 1.0}),
        (bytes.fromhex("03 01"), {"left": 1.0, "right": 0.0}),
        (b"", {}),
        (b"\x01", {}),
        (b"\x01\x00\x00\x00", {}),
        (b"\x17\x01\x02\x03\x04\x05\x06", {}),
    ],
)
def test_reports(report: bytes, said: dict[str, float]) -> None:
    assert parse_report(report) == pytest.approx(said)


def test_no_report_raises_or_leaves_the_range() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        report = random.bytes(int(random.integers(0, 20)))
        values = parse_report(report[:1] + struct.pack("<h", -32768) + report[3:])
        assert all(-1.0 <= value <= 1.0 for value in values.values())


# What is wrong is said


@pytest.mark.parametrize("name", presets("teleop"))
def test_every_preset_makes_a_device_and_opens_nothing(name: str) -> None:
    device = make_teleoperator(load_teleop(name), JOINTS, load_teleop)
    with pytest.raises(RobotError):
        device.read()


@pytest.mark.parametrize(
    ("preset", "override", "said"),
    [
        ("keyboard", "bindings.w=+u", "unknown action '+u'"),
        ("gamepad", "bindings.lefty=x", "unknown action 'x'"),
        ("keyboard", "speeds=[1.0, 0.5]", "from slow to fast"),
        ("phone", "device.pose=false", "either a pose"),
        ("keyboard", "linear_speed=5", "linear_speed"),
    ],
)
def test_a_wrong_preset_is_refused(preset: str, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_teleop(preset, [override])
    assert said in str(raised.value)


def test_a_control_or_joint_that_is_not_there_is_refused() -> None:
    values = load_teleop("gamepad").model_dump() | {"bindings": {"leftz": "+x"}}
    with pytest.raises(ConfigError, match="unknown control 'leftz'"):
        make_teleoperator(TeleopConfig.model_validate(values), JOINTS, load_teleop)
    with pytest.raises(ConfigError, match="unknown joint 'joint1'"):
        make_teleoperator(load_teleop("so101-leader"), ("a", "b"), load_teleop)
    values = load_teleop("spacemouse").model_dump() | {"companion": "phone"}
    with pytest.raises(ConfigError, match="cannot be a companion"):
        make_teleoperator(TeleopConfig.model_validate(values), JOINTS, load_teleop)


@pytest.mark.parametrize(
    ("preset", "module"), [("gamepad", "sdl2"), ("spacemouse", "hid"), ("phone", "lerobot")]
)
def test_a_missing_extra_is_named(preset: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    config = load_teleop(preset).model_copy(update={"companion": ""})
    with pytest.raises(RobotError, match=r"pip install 'reflexarc\["):
        make_teleoperator(config, JOINTS, load_teleop).connect()


class Flaky:
    """A device that can be unplugged."""

    def __init__(self) -> None:
        self.plugged = True
        self.connects = 0

    def connect(self) -> None:
        self.connects += 1
        if not self.plugged:
            raise RobotError("no device at /dev/x")

    def read(self) -> TeleopInput | None:
        if not self.plugged:
            raise RobotError("read error")
        return TeleopInput(np.ones(6))

    def keys(self) -> tuple[TeleopKey, ...]:
        return ()

    def close(self) -> None: ...


def test_a_device_that_goes_is_a_released_dead_man_told_once_and_looked_for() -> None:
    device = Flaky()
    stream = TeleopStream(device, "flaky")
    told: list[str] = []
    engaged: Mapping[int, bool] = {}
    for now_ms in range(0, 6000, 20):
        device.plugged = not 1000 <= now_ms < 3500
        command, event = stream.read(now_ms * MS)
        engaged = {**engaged, now_ms: command.engaged}
        told += [event.kind] if event else []
    assert told == ["device_lost", "device_returned"]
    assert engaged[980]
    assert not any(engaged[at] for at in range(1000, 3500, 20))
    assert engaged[5000]
    assert device.connects < 3500 * MS / RETRY_NS + 2
