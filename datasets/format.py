"""How an episode log is laid out inside MCAP: profile, topics, schemas and metadata records.

One file is one episode. MCAP format: https://mcap.dev/spec. On top of the format:

- every chunk repeats the schemas and channels of its own messages, so that any intact chunk reads on its own;
- a message's `sequence` counts through the whole file, so that a lost chunk is noticed;
- `log_time` is when the message was recorded, `publish_time` the instant its content is about (`content_time_ns`);
- a metadata record carries a CRC of its text, because MCAP gives those records none.

This file knows nothing of reading or writing files.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from mcap.records import Channel, Metadata, Schema

from reflexarc.configs.errors import LogError
from reflexarc.wire.messages import (
    WIRE_VERSION,
    ActionChunk,
    CameraFrame,
    EpisodeStart,
    EpisodeStop,
    Event,
    Message,
    Observation,
    SafetyReport,
    Setpoint,
    SimInitial,
    SimSteps,
    SimTruth,
    State,
    TeleopCommand,
)

PROFILE = "reflexarc"
LIBRARY = "reflexarc log 1"
"""Names the layout described above and its version."""
MESSAGE_ENCODING = "reflexarc-msgpack"
SCHEMA_ENCODING = "reflexarc-json"
MAGIC = b"\x89MCAP0\r\n"

EPISODE_RECORD = "reflexarc.episode"
"""Name of the metadata record at the start: configs, versions, seed, instruction."""
OUTCOME_RECORD = "reflexarc.outcome"
"""Name of the metadata record at the end; it is missing from an episode that was cut short."""

CUT = "cut"
"""Key in the outcome of a log that was repaired: `{reason, lost_messages, gaps_ns}`."""

RELABELLED = "relabelled"
"""Key in the episode's metadata: a list of `{at, was}`, oldest first; `was` holds labels as they were before."""

CAMERA_PREFIX = "/camera/"

HUMAN = "teleop"
"""The source in control (events of kind `control`) that is a person."""

_TOPIC_OF: dict[type[Message], str] = {
    State: "/state",
    Setpoint: "/setpoint",
    ActionChunk: "/chunk",
    Observation: "/observation",
    SafetyReport: "/safety",
    Event: "/event",
    TeleopCommand: "/teleop",
    SimInitial: "/sim/initial",
    SimSteps: "/sim/steps",
    SimTruth: "/sim/truth",
    EpisodeStart: "/episode",
    EpisodeStop: "/episode",
}

TOPICS = tuple(dict.fromkeys(_TOPIC_OF.values()))


def topic_of(message: Message) -> str | None:
    """The topic a message is logged under; None for those that are not logged, such as heartbeats."""
    if isinstance(message, CameraFrame):
        return CAMERA_PREFIX + message.camera
    return _TOPIC_OF.get(type(message))


def content_time_ns(message: Message) -> int:
    """The instant a message is about: a state's reading, an image's shutter, otherwise when it was made. ns."""
    if isinstance(message, State):
        return message.t_state_ns
    if isinstance(message, CameraFrame):
        return message.t_capture_ns
    return message.t_ns


def schema_record(schema_id: int, message_type: str) -> Schema:
    """The schema of one message type: its name and the wire version, as JSON text."""
    text = json.dumps({"message": message_type, "wire_version": WIRE_VERSION})
    return Schema(
        id=schema_id, name=f"reflexarc.{message_type}", encoding=SCHEMA_ENCODING, data=text.encode()
    )


def channel_record(channel_id: int, schema_id: int, topic: str) -> Channel:
    """A channel: one message type on one topic."""
    return Channel(
        id=channel_id, topic=topic, message_encoding=MESSAGE_ENCODING, metadata={}, schema_id=schema_id
    )


class SchemaError(LogError):
    """A schema that is whole, and of another program or version."""


def check_schema(schema: Schema) -> None:
    """Raise SchemaError if messages of this schema cannot be decoded here."""
    try:
        version = json.loads(schema.data)["wire_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"schema {schema.name!r} is not one of this project's") from error
    if version != WIRE_VERSION:
        raise SchemaError(
            f"schema {schema.name!r} has wire version {version}; this version of reflexarc reads {WIRE_VERSION}"
        )


def metadata_record(name: str, values: dict[str, Any]) -> Metadata:
    """A metadata record holding `values` as JSON, and the CRC-32 of that text."""
    text = json.dumps(values, sort_keys=True)
    return Metadata(name=name, metadata={"json": text, "crc32": _text_crc(name, text)})


def metadata_values(record: Metadata) -> dict[str, Any]:
    """The values of a metadata record; raises LogError if they are damaged."""
    text = record.metadata.get("json", "")
    if record.metadata.get("crc32") != _text_crc(record.name, text):
        raise LogError(f"metadata record {record.name!r} fails its CRC")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise LogError(f"metadata record {record.name!r} holds {type(values).__name__}, not an object")
    return values


def _text_crc(name: str, text: str) -> str:
    return f"{zlib.crc32(f'{name}={text}'.encode()):08x}"
