"""Offscreen pictures of a MuJoCo model, fast: no shadows, no multisampling, one context kept for a model.

In a software renderer shadows and multisampling are most of the work: a picture of 96 pixels takes about 2 ms without
them. `MUJOCO_GL` is set by the package itself, before MuJoCo is first imported.
"""

from __future__ import annotations

import os

import mujoco
import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import SimulationError, unknown

PACKAGES = {
    "egl": "libegl1 libgl1 libgl1-mesa-dri",
    "osmesa": "libosmesa6",
    "glfw": "libgl1 libgl1-mesa-dri, and a display; or set MUJOCO_GL=egl",
}
"""By value of MUJOCO_GL: the Debian packages that hold what a context needs."""

PLAIN = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_HAZE,
)
"""Effects that are left out."""


class SceneRenderer:
    """Renders one model; to be used from the thread that made it."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        """Make the context; raises SimulationError naming the Debian packages if OpenGL is missing."""
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        self.cameras = tuple(model.camera(i).name for i in range(model.ncam))
        """Names that `render` knows."""
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # MuJoCo and PyOpenGL raise many types, AttributeError among them
            raise SimulationError(_no_context(error)) from error
        for effect in PLAIN:
            self._renderer.scene.flags[effect] = 0

    def render(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, a new array; raises SimulationError naming the model's cameras."""
        if camera not in self.cameras:
            raise SimulationError(unknown("camera", camera, self.cameras))
        self._renderer.update_scene(data, camera)
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Release the context; safe to call twice."""
        self._renderer.close()


def _no_context(error: Exception) -> str:
    """One line: what failed, and what to install."""
    backend = os.environ.get("MUJOCO_GL", "").lower()
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if backend not in PACKAGES:
        return f"cannot render with MUJOCO_GL={backend!r}: {reason}; set one of {', '.join(sorted(PACKAGES))}"
    return (
        f"cannot render with MUJOCO_GL={backend}: {reason}; on Debian: apt-get install {PACKAGES[backend]}; "
        f"`reflexarc doctor` says which is missing"
    )
