"""`reflexarc sim view`: look at a scene."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import tyro

from reflexarc.commands.options import Set, console, run_folder
from reflexarc.configs.errors import SimulationError


def sim(
    action: tyro.conf.Positional[Literal["view"]] = "view",
    task: str = "lift",
    seed: int = 0,
    window: bool = False,
    out: Path | None = None,
    overrides: Set = (),
) -> None:
    """Show a task's scene: pictures of both cameras, or MuJoCo's own viewer in a window.

    Example: reflexarc sim view --task stack --seed 3

    Args:
        action: only `view`.
        task: of the suite.
        seed: of the layout.
        window: open the interactive viewer; needs a display.
        out: folder for the pictures.
    """
    import mujoco
    from PIL import Image

    from reflexarc.setup import load_setup
    from reflexarc.sim.tasks import get_task
    from reflexarc.sim.world import World

    get_task(task)
    world = World(task, load_setup(overrides=overrides).robot)
    world.reset(seed)
    console.print(f'{task}, seed {seed}: "{world.instruction}"')
    if window:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SimulationError(
                "--window needs a display (DISPLAY is not set); without it pictures are written"
            )
        from mujoco import viewer

        viewer.launch(world.model, world.data)
        return
    folder = run_folder("sim", out)
    world.model.vis.global_.offwidth = world.model.vis.global_.offheight = 480
    renderer = mujoco.Renderer(world.model, 480, 480)
    for camera in ("front", "wrist"):
        renderer.update_scene(world.data, camera)
        path = folder / f"{task}-{seed}-{camera}.png"
        Image.fromarray(renderer.render()).save(path)
        console.print(f"{camera}: {path}")
    renderer.close()
