"""When the simulated cameras take their pictures: at physics steps that are whole multiples of their period.

The process that steps the physics and the one that renders ask the same question here, so that privileged truth and
pictures carry the same time.
"""

from __future__ import annotations

CAMERA_NS = 100_000_000
"""Period of the cameras: 10 Hz, the rate of the policy's steps."""


def opens(first_step: int, steps: int, step_ns: int, period_ns: int = CAMERA_NS) -> bool:
    """Whether a picture is due at the end of `steps` physics steps of `step_ns`, the first being `first_step`."""
    return (first_step + steps) * step_ns // period_ns > first_step * step_ns // period_ns
