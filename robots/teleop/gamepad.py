"""Gamepads through SDL, which knows the layout of some hundreds of them and gives all the same names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

from reflexarc.configs.errors import RobotError

AXES = ("leftx", "lefty", "rightx", "righty", "lefttrigger", "righttrigger")
BUTTONS = (
    "a", "b", "x", "y", "back", "guide", "start", "leftstick", "rightstick", "leftshoulder", "rightshoulder",
    "dpup", "dpdown", "dpleft", "dpright",
)  # fmt: skip
"""SDL's own names, in the order of its enumerations (SDL_gamecontroller.h)."""
FULL = 32767.0
"""An axis at full deflection, SDL_JOYSTICK_AXIS_MAX."""


class Gamepad:
    """`Controls`: sticks -1 to 1 (right and down are positive), triggers 0 to 1, buttons 0 or 1."""

    names: tuple[str, ...] = (*AXES, *BUTTONS)

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._sdl: Any = None
        self._pad: Any = None

    def open(self) -> None:
        """Raises RobotError if SDL is not installed, or if there is no gamepad of that index."""
        self._sdl = sdl = load_sdl()
        pads = [k for k in range(sdl.SDL_NumJoysticks()) if sdl.SDL_IsGameController(k)]
        if self._index >= len(pads):
            found = ", ".join(sdl.SDL_GameControllerNameForIndex(k).decode() for k in pads) or "none"
            raise RobotError(f"no gamepad {self._index}: SDL finds {found}")
        self._pad = sdl.SDL_GameControllerOpen(pads[self._index])
        if not self._pad:
            raise RobotError(f"gamepad {self._index} does not open: {sdl.SDL_GetError().decode()}")

    def poll(self) -> Mapping[str, float]:
        """All controls. Raises RobotError if the gamepad has been unplugged."""
        if self._pad is None:
            raise RobotError("the gamepad is not connected")
        sdl = self._sdl
        sdl.SDL_PumpEvents()
        sdl.SDL_FlushEvents(sdl.SDL_FIRSTEVENT, sdl.SDL_LASTEVENT)
        if not sdl.SDL_GameControllerGetAttached(self._pad):
            raise RobotError("the gamepad has been unplugged")
        values = {name: sdl.SDL_GameControllerGetAxis(self._pad, k) / FULL for k, name in enumerate(AXES)}
        for k, name in enumerate(BUTTONS):
            values[name] = float(sdl.SDL_GameControllerGetButton(self._pad, k))
        return values

    def close(self) -> None:
        """Release it; safe to call twice."""
        pad, self._pad = self._pad, None
        if pad is not None:
            self._sdl.SDL_GameControllerClose(pad)


def load_sdl() -> Any:
    """SDL, ready for gamepads, without a window. Raises RobotError naming the extra it comes with."""
    # Set before SDL is loaded: it must open no display, and a gamepad must be read without a focused window.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it found SDL
            import sdl2
    except ImportError as error:
        raise RobotError(f"gamepads need SDL: pip install 'reflexarc[teleop]' ({error})") from error
    if sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_GAMECONTROLLER | sdl2.SDL_INIT_EVENTS) != 0:
        raise RobotError(f"SDL does not start: {sdl2.SDL_GetError().decode()}")
    return sdl2
