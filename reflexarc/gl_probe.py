"""Render one picture in a fresh interpreter and print as JSON what came of it: `python -m reflexarc.gl_probe`.

In a process of its own because a missing OpenGL library makes `import mujoco` itself fail, and because a broken
driver can take the whole process down. Knows which Debian package holds what can be missing.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Sequence

_SCENE = """
<mujoco>
  <visual><quality offsamples="0" shadowsize="0"/><global offwidth="96" offheight="96"/></visual>
  <worldbody><light pos="0 0 2"/><geom type="sphere" size="0.3" rgba="1 0 0 1"/></worldbody>
</mujoco>
"""
_FRAMES = 20

LIBRARIES: dict[str, Sequence[tuple[Sequence[str], str]]] = {
    "egl": (
        (("libEGL.so.1",), "libegl1"),
        (("libOpenGL.so.0", "libGL.so.1"), "libgl1"),
    ),
    "osmesa": ((("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"), "libosmesa6"),),
    "glfw": ((("libGL.so.1",), "libgl1"),),
}
"""By value of MUJOCO_GL: shared libraries, any one of which will do, and the Debian package that holds them."""

DRIVER_PACKAGE = "libgl1-mesa-dri"
"""What is missing when the libraries are there but no context can be made: Mesa's drivers, software one included."""


def render() -> dict[str, float | str]:
    """Render a lit red sphere; raises whatever MuJoCo or OpenGL raises."""
    import mujoco
    from OpenGL import GL

    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 96, 96) as renderer:
        renderer.update_scene(data)
        image = renderer.render()
        start = time.perf_counter()
        for _ in range(_FRAMES):
            renderer.update_scene(data)
            renderer.render()
        frame_ms = (time.perf_counter() - start) / _FRAMES * 1e3
        name = GL.glGetString(GL.GL_RENDERER).decode()
    return {"renderer": name, "red_mean": float(image[..., 0].mean()), "frame_ms": frame_ms}


def cure(backend: str) -> str:
    """What to do about a failure: the Debian package of the first library that does not load, else the drivers'."""
    if backend not in LIBRARIES:
        return f"MUJOCO_GL is {backend!r}; known: {', '.join(sorted(LIBRARIES))}"
    if backend == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display: set MUJOCO_GL=egl"
    for names, package in LIBRARIES[backend]:
        if not any(_loads(name) for name in names):
            return f"apt-get install {package}"
    return f"apt-get install {DRIVER_PACKAGE}"


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def main() -> int:
    """Exit 0 with `renderer`, `red_mean`, `frame_ms`; exit 1 with `error` and `cure`."""
    backend = os.environ.setdefault("MUJOCO_GL", "egl").lower()
    try:
        report = render()
    except Exception as error:  # whatever a missing or broken driver raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"error": reason, "cure": cure(backend)}))
        return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
