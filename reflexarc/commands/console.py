"""`reflexarc console e_stop | hold | reset | speed 0.5 | …`: the local console of a running robot host."""

from __future__ import annotations

import tyro

from reflexarc.commands.options import console as terminal
from reflexarc.configs.errors import RobotError
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import BASE_PORT, Endpoints
from reflexarc.wire.messages import HostAction, HostReply, HostRequest
from reflexarc.wire.roles import find_key
from reflexarc.wire.sockets import Requester


def console(
    action: tyro.conf.Positional[HostAction],
    scale: tyro.conf.Positional[float] = 1.0,
    /,
    port: int = BASE_PORT,
    timeout_s: float = 2.0,
) -> None:
    """Ask a running robot host to stop, to hold, to be reset, enabled, …; everybody may stop it.

    The keys of the other actions are those that the host keeps for its own user, so this works for that user only. A
    reset never causes motion: an enable and a fresh setpoint must follow. `speed` slows the controller's path, whose
    places stay as they are; safety's own slower limits are `reduce`.

    Example: reflexarc console e_stop

    Example: reflexarc console speed 0.5

    Args:
        action: what to ask for.
        scale: for `speed`, of the policy's own pace, above 0 and at most 1.
        port: first port of the host's run.
        timeout_s: how long its answer is waited for.
    """
    address = Endpoints(base_port=port).console
    with Requester(address, HostReply, name="robot host") as host:
        key = find_key(address, "supervisor")
        request = HostRequest(
            t_ns=monotonic_ns(), action=action, seq=0, source="console", key=key, speed_scale=scale
        )
        reply = host.request(request, timeout_s)
    if not reply.ok:
        raise RobotError(reply.text)
    terminal.print(reply.text)
