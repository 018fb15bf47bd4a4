"""The simulated cameras as a process of their own: pictures of what the arm process publishes, for whom no loop waits.

It compiles the model from the text in SimInitial, so it needs neither the robot's config nor the task's code. Pictures
are taken at the shutter times that the arm process keeps too (`sim.shutter`), and all cameras see the same instant.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterable

import mujoco

from reflexarc.configs.errors import SimulationError
from reflexarc.sim import shutter
from reflexarc.sim.real_time import steady_loop
from reflexarc.sim.render import SceneRenderer
from reflexarc.wire.clock import give_way_to_loops, monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import CameraFrame, ImageEncoding, Message, SimInitial, SimSteps
from reflexarc.wire.sockets import Heartbeats, Publisher, Subscriber

PEER = "cameras"
"""This process's name in heartbeats."""

WAIT_S = 0.05
"""Longest pause between two heartbeats while the arm sends nothing."""


def run_cameras(
    endpoints: Endpoints,
    *,
    image_size: tuple[int, int] = (96, 96),
    encoding: ImageEncoding = "raw",
    stop: threading.Event | None = None,
) -> None:
    """Render all cameras of the model until SIGTERM or `stop`. image_size: (height, width).

    Raises SimulationError if there is no OpenGL, at once rather than at the first picture; WireError if the address is
    occupied.
    """
    stop = stop or threading.Event()
    SceneRenderer(mujoco.MjModel.from_xml_string("<mujoco/>"), *image_size).close()
    with contextlib.ExitStack() as stack:
        studio = stack.enter_context(contextlib.closing(Studio(image_size, encoding)))
        source: Subscriber[Message] = stack.enter_context(
            Subscriber(endpoints.arm_state, Message, name="physics to the cameras")
        )
        out = stack.enter_context(Publisher(endpoints.frames, name="pictures"))
        heartbeats = Heartbeats(endpoints.heartbeat, PEER)
        stack.callback(heartbeats.close)
        stack.enter_context(steady_loop(stop))
        give_way_to_loops()
        while not stop.is_set():
            source.wait(WAIT_S)
            for frame in studio.take(source.drain()):
                out.send(frame)
            heartbeats.beat(monotonic_ns())


class Studio:
    """Follows the published physics and takes the pictures that are due."""

    def __init__(self, image_size: tuple[int, int], encoding: ImageEncoding) -> None:
        self._image_size = image_size
        self._encoding = encoding
        self._text = ""
        self._model: mujoco.MjModel | None = None
        self._data: mujoco.MjData | None = None
        self._renderer: SceneRenderer | None = None
        self._seq = 0

    def take(self, messages: Iterable[Message]) -> list[CameraFrame]:
        """The newest pictures that fell due in these messages, one of each camera; none before a SimInitial came.

        Raises SimulationError for a model that does not compile.
        """
        due_ns: int | None = None
        for message in messages:
            if isinstance(message, SimInitial):
                self._set_up(message)
                due_ns = message.t_ns
            elif isinstance(message, SimSteps) and self._follow(message):
                due_ns = message.t_ns
        return [] if due_ns is None else self._shoot(due_ns)

    def close(self) -> None:
        """Release the renderer; safe to call twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _set_up(self, initial: SimInitial) -> None:
        """Take an episode's beginning over; the model is compiled only if it is another one."""
        if initial.model_xml != self._text:
            self.close()
            try:
                self._model = mujoco.MjModel.from_xml_string(initial.model_xml)
            except ValueError as error:
                raise SimulationError(
                    f"the model that the arm published does not compile: {error}"
                ) from error
            self._data = mujoco.MjData(self._model)
            self._renderer = SceneRenderer(self._model, *self._image_size)
            self._text = initial.model_xml
        assert self._model is not None
        self._model.geom_rgba[:] = initial.geom_rgba
        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(self._model, self._data, initial.integration_state, spec)
        self._pose()
        gc.collect()

    def _follow(self, steps: SimSteps) -> bool:
        """Take physics steps over if a picture is due at their end; says whether it is."""
        if self._model is None or self._data is None or steps.qpos.shape != self._data.qpos.shape:
            return False
        step_ns = round(self._model.opt.timestep * 1e9)
        if not shutter.opens(steps.first_step, len(steps.control), step_ns):
            return False
        self._data.qpos[:] = steps.qpos
        self._pose()
        return True

    def _pose(self) -> None:
        """Where bodies, cameras and lights are, at the present joint positions."""
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _shoot(self, t_ns: int) -> list[CameraFrame]:
        assert self._renderer is not None
        frames = [
            encode_image(
                self._renderer.render(self._data, camera),
                camera=camera,
                seq=self._seq,
                t_capture_ns=t_ns,
                encoding=self._encoding,
                clock="monotonic",
            )
            for camera in self._renderer.cameras
        ]
        self._seq += 1
        return frames
