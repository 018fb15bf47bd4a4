"""`reflexarc serve`: a policy server for robots to ask."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import tyro

from reflexarc.commands.options import console
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.serving import ServingConfig
from reflexarc.wire.endpoints import BASE_PORT, Endpoints

DEFAULT = ServingConfig()


def serve(
    policy: str = "reflexarc-tiny",
    port: int = BASE_PORT,
    replicas: int = 1,
    http_port: int | None = None,
    config: Annotated[ServingConfig, tyro.conf.arg(name="")] = DEFAULT,
) -> None:
    """Serve a policy over ZMQ on the loopback interface until Ctrl-C; robots that ask together are answered together.

    Example: reflexarc serve --policy reflexarc-tiny --http-port 9464

    Args:
        policy: an embedded checkpoint or a checkpoint folder.
        port: first port of the run; the robot and the controller are given the same.
        replicas: processes behind the one address, each with the model of its own; robots are shared out among them.
        http_port: where Prometheus finds /metrics, and a load balancer /healthz; none if left out. Replicas
            take the ports that follow.
        config: how many robots it takes on, and how long it lets them wait.
    """
    endpoints = Endpoints(base_port=port)
    console.print(f"serving {policy} on {endpoints.policy}; Ctrl-C ends it")
    if replicas > 1:
        serve_replicas(policy, endpoints, replicas, config=config, http_port=http_port)
    else:
        serve_policy(policy, endpoints, config=config, http_port=http_port)


def serve_policy(
    policy: str,
    endpoints: Endpoints,
    *,
    config: ServingConfig | None = None,
    http_port: int | None = None,
    peer: str = "policy",
) -> None:
    """Load the policy and serve it; the body of the policy server's process."""
    from reflexarc.policies import open_policy
    from reflexarc.vla.serving.server import run_server
    from reflexarc.wire.clock import give_way_to_loops

    give_way_to_loops()
    run_server(
        open_policy(policy), endpoints, config=config, load=open_policy, http_port=http_port, peer=peer
    )


def serve_replicas(
    policy: str, endpoints: Endpoints, count: int, *, config: ServingConfig, http_port: int | None = None
) -> None:
    """`count` policy servers in processes of their own and the relay before them; one that dies is started again."""
    from reflexarc.processes import Processes
    from reflexarc.vla.serving.replicas import replica_endpoints, replica_name, run_relay

    with (
        tempfile.TemporaryDirectory(prefix="reflexarc-") as name,
        Processes(Path(name) / "logs") as processes,
    ):
        folder = Path(name)
        for index in range(count):
            processes.start(
                replica_name(index),
                serve_policy,
                policy,
                replica_endpoints(folder, index),
                config=config,
                http_port=None if http_port is None else http_port + index,
                peer=replica_name(index),
            )

        def tend(waiting: Collection[str]) -> None:
            for dead in processes.dead():
                if dead in waiting:
                    raise PolicyError(f"{dead} died before it answered anybody: {processes.last_line(dead)}")
                console.print(f"{dead} has died ({processes.last_line(dead)}); starting it again")
                processes.restart(dead)

        run_relay(count, folder, endpoints, tend=tend, say=console.print)
