"""Offscreen pictures of a MuJoCo model, fast: no shadows, no multisampling, one context kept for a model.

With the default quality a 224-pixel frame takes tens of milliseconds in a software renderer, without shadows and
multisampling about two.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import SimulationError, unknown

PACKAGES = "libegl1 libgl1 libgles2 libgl1-mesa-dri"
"""Debian packages that hold what an EGL context in software needs."""


class SceneRenderer:
    """Renders one model; to be used from the thread that made it."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        """Make the context; raises SimulationError naming the Debian packages if OpenGL is missing."""
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        self._model = model
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # PyOpenGL and MuJoCo raise many types, ImportError and AttributeError among them
            raise SimulationError(
                f"no OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} ({error}); on Debian: "
                f"apt-get install {PACKAGES}; `reflexarc doctor` says more"
            ) from error

    def render(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, a copy; raises SimulationError naming the model's cameras."""
        names = [self._model.camera(i).name for i in range(self._model.ncam)]
        if camera not in names:
            raise SimulationError(unknown("camera", camera, names))
        self._renderer.update_scene(data, camera)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Release the context; safe to call twice."""
        self._renderer.close()
