"""What stands between any command and the motors. `SafetyFilter` is the whole of its interface."""

from __future__ import annotations

from reflexarc.safety.filter import SafetyFilter
from reflexarc.safety.memory import Memory

__all__ = ["Memory", "SafetyFilter"]
