"""The error tree of the whole project.

Every error a user can cause derives from `ReflexarcError`. A message is one line that states the
quantity, its value, the limit, the field or joint, and the valid alternatives. The command line prints
that line and exits non-zero; it never prints a traceback for one of these.
"""

from __future__ import annotations

from collections.abc import Iterable


class ReflexarcError(Exception):
    """Base of all errors that a user can cause or cure."""


class ConfigError(ReflexarcError):
    """A configuration names an unknown key, a wrong type or a value out of range."""


class WireError(ReflexarcError):
    """A message cannot be encoded, decoded, sent or received."""


class RobotError(ReflexarcError):
    """A driver, a robot host or an arm cannot do what it was asked."""


class SafetyError(ReflexarcError):
    """A safety configuration is refused, or a request is not allowed in the present state."""


class ControlError(ReflexarcError):
    """A controller cannot be built, or was given a chunk that does not fit its action spec."""


class SimulationError(ReflexarcError):
    """A scene, a task or a renderer cannot be built."""


class LogError(ReflexarcError):
    """An episode log cannot be written, read or replayed."""


class PolicyError(ReflexarcError):
    """A policy, a tokenizer or a checkpoint cannot be built, loaded or run."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The one wording for a name that does not exist: `unknown task 'lfit'; known: button, lift, ...`."""
    return f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}"
