"""Connectors: from the feature maps of the cameras to tokens of the language model. `CONNECTORS` names them by kind."""

from reflexarc.vla.connectors.connector import CONNECTORS, Connector, build_connector
from reflexarc.vla.connectors.patches import PatchConnector
from reflexarc.vla.connectors.resampler import Resampler

__all__ = ["CONNECTORS", "Connector", "PatchConnector", "Resampler", "build_connector"]
