"""What the cameras see, drawn in the terminal: a person who has only a line to the robot must see what it does.

Two pixels a character, the upper one as the colour of a half block and the lower one as its background.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from reflexarc.configs.errors import WireError
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame
from reflexarc.wire.sockets import Subscriber

SIDE = 48
"""Pixels of a picture's side as drawn, and columns it takes; half as many rows."""
PERIOD_S = 0.2
UPPER_HALF = "\u2580"


class TerminalView:
    """Draws the newest picture of every camera, side by side. Call it often; it draws when it is time to."""

    def __init__(self, endpoints: Endpoints, console: Console) -> None:
        self._frames: Subscriber[CameraFrame] = Subscriber(endpoints.frames, CameraFrame, name="view")
        self._console = console
        self._live: Live | None = None
        self._latest: dict[str, CameraFrame] = {}
        self._drawn = 0.0

    def __call__(self) -> None:
        """Take in what has arrived; draw if a fifth of a second has passed and the terminal is large enough."""
        for frame in self._frames.drain():
            self._latest[frame.camera] = frame
        if time.monotonic() - self._drawn < PERIOD_S or not self._fits():
            return
        self._drawn = time.monotonic()
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Pictures([self._latest[name] for name in sorted(self._latest)]), refresh=True)

    def close(self) -> None:
        """Take the pictures off the terminal."""
        if self._live is not None:
            self._live.stop()
        self._frames.close()

    def _fits(self) -> bool:
        size = self._console.size
        wide = len(self._latest) * (SIDE + 1) <= size.width
        return bool(self._latest) and self._console.is_terminal and wide and size.height > SIDE // 2 + 2


class Pictures:
    """Rich's view of some pictures in a row."""

    def __init__(self, frames: list[CameraFrame]) -> None:
        self._images = [image for image in map(_small, frames) if image is not None]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for row in range(0, SIDE, 2):
            for image in self._images:
                for upper, lower in zip(image[row], image[row + 1], strict=True):
                    style = Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))
                    yield Segment(UPPER_HALF, style)
                yield Segment(" ")
            yield Segment.line()


def _small(frame: CameraFrame) -> NDArray[np.uint8] | None:
    """(SIDE, SIDE, 3), None if the picture is damaged."""
    try:
        image = Image.fromarray(decode_image(frame))
    except WireError:
        return None
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
