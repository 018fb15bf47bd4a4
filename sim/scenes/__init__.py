"""What stands on the table: one file for each kind of thing, added to an arm's `MjSpec`.

A scene is one fixed physical model for each task. Seeds differ only in free joints, mocap poses and colours.
"""

from reflexarc.sim.scenes.bins import BIN_HALF_WIDTH, add_bin
from reflexarc.sim.scenes.blocks import BLOCK_HALF, Shape, add_block, place_block
from reflexarc.sim.scenes.buttons import BUTTON_THRESHOLD, add_button
from reflexarc.sim.scenes.collide import set_arm_bits
from reflexarc.sim.scenes.drawers import DRAWER_HANDLE_HEIGHT, add_cabinet
from reflexarc.sim.scenes.layout import scatter
from reflexarc.sim.scenes.palette import COLORS, paint
from reflexarc.sim.scenes.table import FRONT_CAMERA, add_table, add_zone

__all__ = [
    "BIN_HALF_WIDTH",
    "BLOCK_HALF",
    "BUTTON_THRESHOLD",
    "COLORS",
    "DRAWER_HANDLE_HEIGHT",
    "FRONT_CAMERA",
    "Shape",
    "add_bin",
    "add_block",
    "add_button",
    "add_cabinet",
    "add_table",
    "add_zone",
    "paint",
    "place_block",
    "scatter",
    "set_arm_bits",
]
