"""`reflexarc console e_stop | hold | reset | …`: the local console of a running robot host."""

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
    action: tyro.conf.Positional[HostAction], /, port: int = BASE_PORT, timeout_s: float = 2.0
) -> None:
    """Ask a running robot host to stop, to hold, to be reset, enabled, …; everybody may stop it.

    The keys of the other actions are those that the host keeps for its own user, so this works for that user only. A
    reset never causes motion: an enable and a fresh setpoint must follow.

    Example: reflexarc console e_stop

    Args:
        action: what to ask for.
        port: first port of the host's run.
        timeout_s: how long its answer is waited for.
    """
    address = Endpoints(base_port=port).console
    with Requester(address, HostReply, name="robot host") as host:
        key = find_key(address, "supervisor")
        request = HostRequest(t_ns=monotonic_ns(), action=action, seq=0, source="console", key=key)
        reply = host.request(request, timeout_s)
    if not reply.ok:
        raise RobotError(reply.text)
    terminal.print(reply.text)
