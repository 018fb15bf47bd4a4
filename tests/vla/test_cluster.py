"""Policies on a real Ray cluster of this one machine: asked by robots over ZMQ, swapped, killed, and brought back.

Needs the extra `[ray]`: pip install --no-deps --require-hashes -r requirements/ray.txt; then
pytest -m slow tests/vla/test_cluster.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflexarc.configs.errors import WireError
from reflexarc.policies import open_policy
from reflexarc.vla.serving.probe import grey_observation
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    ActionChunk,
    Message,
    PolicyControl,
    PolicyControlReply,
    PolicyInfo,
    PolicyInfoRequest,
)
from reflexarc.wire.sockets import Requester

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
START_S = 180.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that was begun for the test."""
    ray = pytest.importorskip("ray")
    context = ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def served(cluster: str, tmp_path: Path) -> Iterator[Endpoints]:
    """`reflexarc serve --ray`, two replicas."""
    port = "47900"
    command = [
        sys.executable,
        "-m",
        "reflexarc.cli",
        "serve",
        "--port",
        port,
        "--replicas",
        "2",
        "--ray",
        cluster,
    ]
    log = (tmp_path / "serve.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    endpoints = Endpoints(base_port=int(port))
    try:
        until_answered(endpoints, process)
        yield endpoints
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, (tmp_path / "serve.log").read_text()


def until_answered(endpoints: Endpoints, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    with Requester(endpoints.policy, Message) as client:
        answer: Message | None = None
        while not isinstance(answer, PolicyInfo):
            assert process.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(WireError):
                answer = client.request(PolicyInfoRequest(t_ns=0), 1.0)
            time.sleep(0.2)


def ask(client: Requester[Message]) -> Message:
    observation = grey_observation(open_policy("reflexarc-tiny").info)
    return client.request(observation, 60.0)


def until_chunk(client: Requester[Message]) -> None:
    deadline = time.monotonic() + START_S
    while not isinstance(ask(client), ActionChunk):
        assert time.monotonic() < deadline


def test_robots_are_answered_from_the_cluster_and_a_killed_model_comes_back(served: Endpoints) -> None:
    here = open_policy("reflexarc-tiny").act(grey_observation(open_policy("reflexarc-tiny").info))
    with Requester(served.policy, Message) as one, Requester(served.policy, Message) as other:
        for client in (one, other):
            answer = ask(client)
            assert isinstance(answer, ActionChunk)
            assert (answer.actions == here.actions).all()
            assert {"queue", "action", "cluster"} <= set(answer.latency_ns)
        killed = [int(pid) for pid in subprocess.check_output(["pgrep", "-f", "^ray::ServeReplica"]).split()]
        assert len(killed) == 2
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until_chunk(one)
    with Requester(served.policy_console, PolicyControlReply) as console:
        swap = PolicyControl(t_ns=0, action="swap", policy="no-such-policy")
        assert console.request(swap, 10.0).ok  # it is being loaded
        deadline = time.monotonic() + START_S
        status = ""
        while "no-such-policy" not in status:
            assert time.monotonic() < deadline, status
            time.sleep(0.5)
            status = console.request(PolicyControl(t_ns=0, action="status"), 10.0).text
    with Requester(served.policy, Message) as client:
        until_chunk(client)  # the old model goes on
