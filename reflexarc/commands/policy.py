"""`reflexarc policy status | swap | drain`: the console of a running policy server."""

from __future__ import annotations

from typing import Literal

import tyro

from reflexarc.commands.options import console
from reflexarc.configs.errors import PolicyError
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import BASE_PORT, Endpoints
from reflexarc.wire.messages import PolicyControl, PolicyControlReply
from reflexarc.wire.sockets import Requester


def policy(
    action: tyro.conf.Positional[Literal["status", "swap", "drain"]],
    name: tyro.conf.Positional[str] = "",
    /,
    port: int = BASE_PORT,
    timeout_s: float = 5.0,
) -> None:
    """Ask a running `reflexarc serve` how it is, to swap its model, or to end once its sessions have.

    Example: reflexarc policy swap runs/train-2/checkpoint

    Args:
        action: status; swap NAME: load another model while the present one answers, then use it; drain: refuse new
            sessions and end when the running ones have.
        name: for swap: an embedded checkpoint or a checkpoint folder.
        port: first port of the server's run.
        timeout_s: how long its answer is waited for.
    """
    if (action == "swap") != bool(name):
        raise PolicyError(
            "swap needs the name of a checkpoint: reflexarc policy swap NAME; the others take none"
        )
    address = Endpoints(base_port=port).policy_console
    with Requester(address, PolicyControlReply, name="policy server") as server:
        request = PolicyControl(t_ns=monotonic_ns(), action=action, policy=name)
        reply = server.request(request, timeout_s)
    if not reply.ok:
        raise PolicyError(reply.text)
    console.print(reply.text)
