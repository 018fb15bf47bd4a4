"""Vision towers: from the images of all cameras to a map of features for each. `TOWERS` names them by kind."""

from reflexarc.vla.vision.conv import ConvTower
from reflexarc.vla.vision.tower import TOWERS, VisionTower, build_tower
from reflexarc.vla.vision.transformer import TransformerTower

__all__ = ["TOWERS", "ConvTower", "TransformerTower", "VisionTower", "build_tower"]
