"""The state machine of safety: which request is allowed in which state, and where it leads.

    off             not powered by us: the arm brakes itself, commands are not written
    ready           holding still; waits for `enable`
    active          follows setpoints            (the design's active(normal))
    reduced         follows them more slowly     (the design's active(reduced))
    hold            decelerates and holds; goes on by itself when what caused it is over, unless a person asked
    protective_stop latched by a watchdog or a limit: needs `reset`, `enable` and a fresh setpoint
    e_stop          latched by a person: the same
    recovery        enabled outside the limits: slow, and only towards the inside; then `reduced`

`active` and `reduced` without any setpoint since `enable` hold still and do not latch: a policy may take its
time to start. The watchdogs run from the first setpoint on.
"""

from __future__ import annotations

from reflexarc.wire.messages import HostAction, SafetyReport, SafetyState

STATES: tuple[SafetyState, ...] = (
    "off",
    "ready",
    "active",
    "reduced",
    "hold",
    "protective_stop",
    "e_stop",
    "recovery",
)
LATCHED: frozenset[SafetyState] = frozenset({"protective_stop", "e_stop"})
FOLLOWING: frozenset[SafetyState] = frozenset({"active", "reduced", "recovery"})
ENABLED: frozenset[SafetyState] = FOLLOWING | {"hold"}
# Where `reset` and `enable` wait until the commanded motion has come to rest.
STILL: frozenset[SafetyState] = LATCHED | {"off", "ready"}
# Where an arm at rest may be left to its own brakes (a protective stop only if the stop category says so).
RELEASING: frozenset[SafetyState] = LATCHED | {"off"}

_ENABLE: dict[SafetyState, SafetyState] = {
    "off": "active",
    "ready": "active",
    "active": "active",
    "reduced": "active",
    "hold": "active",
    "recovery": "recovery",
}
_DISABLE: dict[SafetyState, SafetyState] = {
    "off": "off",
    "ready": "off",
    "active": "off",
    "reduced": "off",
    "hold": "off",
    "recovery": "off",
}
_RESET: dict[SafetyState, SafetyState] = {
    "off": "ready",
    "ready": "ready",
    "protective_stop": "ready",
    "e_stop": "ready",
}
_HOLD: dict[SafetyState, SafetyState] = {
    "active": "hold",
    "reduced": "hold",
    "recovery": "hold",
    "hold": "hold",
}
_REDUCE: dict[SafetyState, SafetyState] = {
    "active": "reduced",
    "reduced": "reduced",
}

TRANSITIONS: dict[HostAction, dict[SafetyState, SafetyState]] = {
    "enable": _ENABLE,
    "disable": _DISABLE,
    "reset": _RESET,
    "hold": _HOLD,
    "reduce": _REDUCE,
    "e_stop": dict.fromkeys(STATES, "e_stop"),
    "status": {state: state for state in STATES},
    "speed": {state: state for state in STATES},
    "shutdown": {state: "off" if state not in LATCHED else state for state in STATES},
}
"""Where each request leads from each state; a pair that is missing is refused."""


def refusal(state: SafetyState, action: HostAction) -> str:
    """Why `action` is not allowed in `state`; empty if it is."""
    if state in TRANSITIONS[action]:
        return ""
    if state in LATCHED and action in ("enable", "disable"):
        return f"{action} refused: {state} is latched; reset first, then enable"
    allowed = sorted(name for name, table in TRANSITIONS.items() if state in table)
    return f"{action} refused in state {state}; allowed: {', '.join(allowed)}"


def latched_by(report: SafetyReport) -> str:
    """The rule that latched a stop at this tick, the state itself where no limit did (monitor, button); else empty.

    Nothing is limited any more once a stop is latched, so the rule that did it is the last one of the report.
    """
    if report.state not in LATCHED or report.previous_state in LATCHED:
        return ""
    return report.interventions[-1].rule if report.interventions else report.state
