"""Planners: from what is seen to what comes next, in words or as a latent. `PLANNERS` names them by kind."""

from reflexarc.vla.planners.planner import Planner
from reflexarc.vla.planners.rules import RulePlanner
from reflexarc.vla.planners.two_level import PLANNERS, TwoLevelPolicy, load_two_level

__all__ = ["PLANNERS", "Planner", "RulePlanner", "TwoLevelPolicy", "load_two_level"]
