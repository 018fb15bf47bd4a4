"""Files that are no episode logs of this version, each with what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mcap.writer import Writer

from contracts.episode_bench import motion_log
from reflexarc.datasets import format as layout
from reflexarc.datasets.format import LIBRARY, PROFILE, SCHEMA_ENCODING


def of_ros(path: Path) -> None:
    """An MCAP file of ROS 2."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2", library="rosbag2")
        writer.finish()


def of_another_schema(path: Path) -> None:
    """One that says it is a log of this layout, and holds somebody else's messages."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile=PROFILE, library=LIBRARY)
        schema = writer.register_schema("geometry_msgs/Pose", SCHEMA_ENCODING, b"float64 x")
        channel = writer.register_channel("/state", "cdr", schema)
        writer.add_message(channel, log_time=1, data=b"\x00\x01", publish_time=1)
        writer.finish()


def of_newer_layout(path: Path) -> None:
    """A log whose head says that its layout is a later one."""
    content = motion_log(path).read_bytes()
    path.write_bytes(content.replace(LIBRARY.encode(), LIBRARY.replace("1", "2").encode()))


def of_newer_messages(path: Path) -> None:
    """A log of this layout whose messages are of another version; its index says so."""
    version = layout.WIRE_VERSION
    layout.WIRE_VERSION = version + 1
    try:
        motion_log(path)
    finally:
        layout.WIRE_VERSION = version


BAD_LOGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "foreign": (of_ros, f"is an MCAP file of profile 'ros2', not an episode log ('{PROFILE}')"),
    "schema": (of_another_schema, "schema 'geometry_msgs/Pose' is not one of this project's"),
    "newer": (
        of_newer_layout,
        "was written as 'reflexarc log 2'; this version of reflexarc reads 'reflexarc log 1'",
    ),
    "newer messages": (of_newer_messages, "has wire version"),
    "empty": (Path.touch, "is not an episode log: it"),
    "no MCAP": (
        lambda path: path.write_bytes(b"rubbish"),
        "is not an episode log: it does not start as an MCAP file",
    ),
}
