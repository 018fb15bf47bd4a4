"""`reflexarc serve`: a policy server for robots to ask."""

from __future__ import annotations

from reflexarc.commands.options import console
from reflexarc.wire.endpoints import BASE_PORT, Endpoints


def serve(policy: str = "reflexarc-tiny", port: int = BASE_PORT) -> None:
    """Serve a policy over ZMQ on the loopback interface until Ctrl-C.

    Example: reflexarc serve --policy reflexarc-tiny

    Args:
        policy: an embedded checkpoint or a checkpoint folder.
        port: first port of the run; the robot and the controller are given the same.
    """
    endpoints = Endpoints(base_port=port)
    console.print(f"serving {policy} on {endpoints.policy}; Ctrl-C ends it")
    serve_policy(policy, endpoints)


def serve_policy(policy: str, endpoints: Endpoints) -> None:
    """Load the policy and serve it; the body of the policy server's process."""
    from reflexarc.policies import open_policy
    from reflexarc.vla.server import run_server
    from reflexarc.wire.clock import give_way_to_loops

    give_way_to_loops()
    run_server(open_policy(policy), endpoints)
