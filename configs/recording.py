"""Schema of recording: in which form pictures are kept in a log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reflexarc.configs.base import Config


class RecordingConfig(Config):
    """What a log keeps of the pictures that arrive unpacked; those that a camera has packed itself stay as they are.

    images: `raw` and `png` lose nothing, `jpeg` does. jpeg_quality: of libjpeg's 1 to 100.
    """

    name: str = "default"
    images: Literal["raw", "png", "jpeg"] = "raw"
    jpeg_quality: int = Field(default=95, ge=1, le=100)
