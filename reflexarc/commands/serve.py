"""`reflexarc serve`: a policy server for robots to ask."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reflexarc.commands.options import AS_SET, Placed, console
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.placement import Placement
from reflexarc.configs.serving import ServingConfig
from reflexarc.wire.contracts import Policy
from reflexarc.wire.endpoints import BASE_PORT, Endpoints

if TYPE_CHECKING:
    from reflexarc.processes import Processes

DEFAULT = ServingConfig()


def serve(
    policy: str = "reflexarc-tiny",
    port: int = BASE_PORT,
    replicas: int = 1,
    http_port: int | None = None,
    ray: str = "",
    ray_gpus: float = 0.0,
    placement: Placed = AS_SET,
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
        ray: a Ray cluster's address (`auto`: the one that runs on this machine); the models run there, one a replica.
            Needs the extra `[ray]`.
        ray_gpus: GPUs, or what part of one, that each model on the cluster is given.
        placement: where the model runs and in what numbers.
        config: how many robots it takes on, and how long it lets them wait.
    """
    endpoints = Endpoints(base_port=port)
    console.print(f"serving {policy} on {endpoints.policy}; Ctrl-C ends it")
    options: dict[str, Any] = {
        "config": config,
        "ray": ray,
        "ray_gpus": ray_gpus,
        "placement": placement,
    }
    if replicas > 1:
        serve_replicas(policy, endpoints, replicas, http_port=http_port, options=options)
    else:
        serve_policy(policy, endpoints, http_port=http_port, **options)


def serve_policy(
    policy: str,
    endpoints: Endpoints,
    *,
    config: ServingConfig | None = None,
    http_port: int | None = None,
    peer: str = "policy",
    ray: str = "",
    ray_gpus: float = 0.0,
    placement: Placement = AS_SET,
) -> None:
    """Load the policy, here or on the cluster `ray`, and serve it; the body of the policy server's process.

    http_port: of metrics and health, which are there while it loads (0: a free one, None: none). Raises PolicyError if
    that is occupied or the policy cannot be loaded, WireError if an address of `endpoints` is occupied.
    """
    from reflexarc.policies import open_policy
    from reflexarc.vla.serving.metrics import Metrics, serve_http
    from reflexarc.vla.serving.server import run_server
    from reflexarc.wire.clock import give_way_to_loops

    give_way_to_loops()
    with contextlib.ExitStack() as stack:
        metrics = Metrics()
        if http_port is not None:
            bound = stack.enter_context(serve_http(metrics, http_port))
            console.print(f"metrics: http://127.0.0.1:{bound}/metrics, health: /healthz")
        load: Callable[[str], Policy] = functools.partial(open_policy, placement=placement)
        if ray:
            cluster_module = _cluster()
            # What a server that ended badly left on the cluster must not be taken for this one's.
            cluster = cluster_module.ClusterLoader(ray, f"{peer}-{uuid.uuid4().hex[:8]}", load, ray_gpus)
            stack.callback(cluster.close)
            load = cluster.load
        run_server(load(policy), endpoints, config=config, load=load, metrics=metrics, peer=peer)


def serve_replicas(
    policy: str,
    endpoints: Endpoints,
    count: int,
    *,
    options: dict[str, Any],
    http_port: int | None = None,
) -> None:
    """`count` policy servers in processes of their own and the relay before them; one that dies is started again.

    options: of `serve_policy`.
    """
    from reflexarc.processes import Processes
    from reflexarc.vla.serving.replicas import run_relay

    with (
        tempfile.TemporaryDirectory(prefix="reflexarc-") as name,
        Processes(Path(name) / "logs") as processes,
    ):
        if options["ray"]:
            _cluster().begin_serving(options["ray"])
        replicas = _Replicas(processes, Path(name), http_port, options)
        for index in range(count):
            replicas.start(index, policy)
        run_relay(count, Path(name), endpoints, group=replicas, say=console.print)


def _cluster() -> ModuleType:
    """The module that needs Ray."""
    try:
        from reflexarc.vla.serving import cluster
    except ImportError as error:
        raise PolicyError(f"--ray needs the extra [ray]: {error}") from error
    return cluster


class _Replicas:
    """The processes behind the relay."""

    def __init__(
        self, processes: Processes, folder: Path, http_port: int | None, options: dict[str, Any]
    ) -> None:
        self._processes = processes
        self._folder = folder
        self._http_port = http_port
        self._options = options
        self._policies: list[str] = []

    def start(self, index: int, policy: str) -> None:
        """Start replica `index`, or start it again."""
        from reflexarc.vla.serving.replicas import replica_endpoints, replica_name

        self._policies[index : index + 1] = [policy]
        self._processes.start(
            replica_name(index),
            serve_policy,
            policy,
            replica_endpoints(self._folder, index),
            http_port=None if self._http_port is None else self._http_port + index,
            peer=replica_name(index),
            **self._options,
        )

    def tend(self, waiting: Collection[str], policy: str) -> None:
        """Start again what has died; PolicyError if that was before it answered anybody: it would die again."""
        for dead in self._processes.dead():
            last_line = self._processes.last_line(dead)
            if dead in waiting:
                raise PolicyError(f"{dead} died before it answered anybody: {last_line}")
            console.print(f"{dead} has died ({last_line}); starting it again")
            index = int(dead.rsplit("-", 1)[1])
            self.start(index, policy or self._policies[index])

    def ended(self) -> bool:
        """Whether none runs any more."""
        return len(self._processes.dead()) == len(self._policies)
