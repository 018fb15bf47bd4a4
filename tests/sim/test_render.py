"""Pictures: shape, ownership, repeatability, and what is said when there is no OpenGL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest

from reflexarc.configs.errors import SimulationError
from reflexarc.sim.render import SceneRenderer

SCENE = """<mujoco><worldbody>
  <light pos="0 0 3"/>
  <camera name="above" pos="0 0 2"/>
  <geom type="plane" size="2 2 0.1" rgba="0.9 0.9 0.9 1"/>
  <body name="ball" mocap="true" pos="0 0 0.3"><geom type="sphere" size="0.3" rgba="1 0 0 1"/></body>
</worldbody></mujoco>"""


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(SCENE)


@pytest.fixture(scope="module")
def renderer(model: mujoco.MjModel) -> Iterator[SceneRenderer]:
    made = SceneRenderer(model, 48, 64)
    yield made
    made.close()
    made.close()


@pytest.fixture
def data(model: mujoco.MjModel) -> mujoco.MjData:
    made = mujoco.MjData(model)
    mujoco.mj_forward(model, made)
    return made


def test_picture_shows_the_scene(renderer: SceneRenderer, data: mujoco.MjData) -> None:
    image = renderer.render(data, "above")
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image[24, 32, 0] > 100
    assert image[24, 32, 1:].max() < image[24, 32, 0] / 2  # red, whatever the light
    assert image[2, 2].min() > 100


def test_same_state_same_pixels_and_no_shared_memory(
    renderer: SceneRenderer, model: mujoco.MjModel, data: mujoco.MjData
) -> None:
    first = renderer.render(data, "above")
    kept = first.copy()
    data.mocap_pos[0] = (0.5, 0.0, 0.3)
    mujoco.mj_forward(model, data)
    moved = renderer.render(data, "above")
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, moved)
    data.mocap_pos[0] = (0.0, 0.0, 0.3)
    mujoco.mj_forward(model, data)
    assert np.array_equal(renderer.render(data, "above"), kept)


def test_a_model_is_rendered_the_same_by_two_contexts(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    images = []
    for _ in range(2):
        renderer = SceneRenderer(model, 96, 96)
        images.append(renderer.render(data, "above"))
        renderer.close()
    assert np.array_equal(*images)


def test_picture_larger_than_the_model_allows_for(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    renderer = SceneRenderer(model, 700, 900)
    assert renderer.render(data, "above").shape == (700, 900, 3)
    renderer.close()


def test_unknown_camera_lists_the_known(renderer: SceneRenderer, data: mujoco.MjData) -> None:
    with pytest.raises(SimulationError, match="unknown camera 'below'; known: above"):
        renderer.render(data, "below")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drivers as on Linux")
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"MUJOCO_GL": "egl", "LIBGL_DRIVERS_PATH": "."}, "apt-get install libegl1 libgl1 libgl1-mesa-dri"),
        ({"MUJOCO_GL": "off"}, "set one of egl, glfw, osmesa"),
    ],
)
def test_without_opengl_the_cure_is_named(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    program = (
        "import mujoco; from reflexarc.configs.errors import SimulationError\n"
        "from reflexarc.sim.render import SceneRenderer\n"
        "try: SceneRenderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8)\n"
        "except SimulationError as error: print(error)"
    )
    none = {"__EGL_VENDOR_LIBRARY_FILENAMES": str(tmp_path / "none.json")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | none | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("cannot render with MUJOCO_GL=")
    assert told in lines[0]
