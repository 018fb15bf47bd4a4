"""Policies on a Ray cluster: Ray Serve keeps the models alive on its machines and carries the questions there.

A policy server here asks one application of one replica there, so that what a policy remembers of a session stays in
one place. Only bytes of the wire's codec cross. How the cluster's machines know each other is Ray's business: from 2.60
on by a token, not encrypted unless it is set up so.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from typing import Any

import msgspec
import ray
from ray import serve

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.vla.answers import answers_whatever
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, ErrorReply, Message, Observation, PolicyInfo

ANSWER_S = 30.0
"""Longer than any answer that still is of use; a machine that is gone shows by it."""


class Replica:
    """One model on one machine of the cluster; what it is asked and answers is encoded."""

    def __init__(self, name: str, open_policy: Callable[[str], Policy]) -> None:
        self._policy = open_policy(name)

    def info(self) -> bytes:
        """PolicyInfo of the model."""
        return encode(self._policy.info)

    def reset(self, session: str) -> None:
        """As `Policy.reset`."""
        self._policy.reset(session)

    def act_batch(self, observations: list[bytes]) -> list[bytes]:
        """To each Observation an ActionChunk or an ErrorReply."""
        answers = answers_whatever(self._policy, [_decoded(data, Observation) for data in observations])
        return [
            encode(ErrorReply(t_ns=monotonic_ns(), text=str(answer)))
            if isinstance(answer, ReflexarcError)
            else encode(answer)
            for answer in answers
        ]


class ClusterPolicy:
    """A policy whose model is an application of Ray Serve."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._info = _decoded(self._ask("info"), PolicyInfo)

    @property
    def info(self) -> PolicyInfo:
        """Of the model there."""
        return self._info

    def reset(self, session: str) -> None:
        """A new session begins; PolicyError if the cluster does not answer."""
        self._ask("reset", session)

    def act(self, observation: Observation) -> ActionChunk:
        """The answer to one; raises PolicyError if the cluster does not answer or the model refuses."""
        answer = self.act_batch([observation])[0]
        if isinstance(answer, ReflexarcError):
            raise answer
        return answer

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """An answer to each. `latency_ns` gains `cluster`: the way there and back, and what Ray adds."""
        began = monotonic_ns()
        try:
            replies = self._ask("act_batch", [encode(observation) for observation in observations])
        except PolicyError as error:
            return [error] * len(observations)
        passed = monotonic_ns() - began
        return [_answer(decode(data), passed) for data in replies]

    def _ask(self, method: str, *arguments: object) -> Any:
        try:
            return getattr(self._handle, method).remote(*arguments).result(timeout_s=ANSWER_S)
        except (
            Exception
        ) as error:  # Ray raises what the replica raised, and its own: all mean that there is no answer
            raise PolicyError(
                f"the policy on the Ray cluster gave no answer: {_first_line(error)}"
            ) from error


class ClusterLoader:
    """Puts models on the cluster for one policy server: each takes the place of the one before once it is asked.

    address: of the cluster, as `ray.init` takes it; `auto` is the one that runs on this machine. lane: a name that
    no other server of the cluster has. gpus: a model's share of a machine's. Raises PolicyError if nobody is there.
    """

    def __init__(
        self, address: str, lane: str, open_policy: Callable[[str], Policy], gpus: float = 0.0
    ) -> None:
        self._lane, self._open, self._gpus = lane, open_policy, gpus
        self._numbers = itertools.count()
        self._applications: list[str] = []
        _connect(address)

    def load(self, name: str) -> ClusterPolicy:
        """Have policy `name` loaded by a machine of the cluster; raises PolicyError if it cannot be."""
        application = f"{self._lane}-{next(self._numbers)}"
        deployment = serve.deployment(
            num_replicas=1,
            max_ongoing_requests=1,  # a model answers one batch after the other
            max_constructor_retry_count=1,
            ray_actor_options={"num_gpus": self._gpus},
        )
        try:
            handle = serve.run(
                deployment(Replica).bind(name, self._open), name=application, route_prefix=None
            )
            policy = ClusterPolicy(handle)
        except ReflexarcError:
            serve.delete(application)
            raise
        except Exception as error:
            serve.delete(application)
            raise PolicyError(f"{name} could not be put on the Ray cluster: {_first_line(error)}") from error
        # The server may go on with the last model until this one is in its place; the one before that is not needed.
        self._applications.append(application)
        for old in self._applications[:-2]:
            serve.delete(old)
        self._applications = self._applications[-2:]
        return policy

    def close(self) -> None:
        """Take this server's models off the cluster, which goes on."""
        for application in self._applications:
            serve.delete(application)
        ray.shutdown()


def begin_serving(address: str) -> None:
    """Have Ray Serve run on the cluster before several servers ask for it at once; raises PolicyError."""
    _connect(address)
    ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        serve.start(proxy_location="Disabled")  # nobody asks by HTTP
    except Exception as error:
        raise PolicyError(
            f"no Ray cluster at {address!r} ({_first_line(error)}); begin one with `ray start --head`"
        ) from error


def _decoded[M: Message](data: bytes, kind: type[M]) -> M:
    message = decode(data)
    if not isinstance(message, kind):
        raise PolicyError(f"the Ray cluster sent {type(message).__name__}, expected {kind.__name__}")
    return message


def _answer(reply: Message, passed_ns: int) -> ActionChunk | ReflexarcError:
    if not isinstance(reply, ActionChunk):
        return PolicyError(
            reply.text if isinstance(reply, ErrorReply) else f"no chunk: {type(reply).__name__}"
        )
    inside = sum(reply.latency_ns.values())
    return msgspec.structs.replace(
        reply, latency_ns={**reply.latency_ns, "cluster": max(passed_ns - inside, 0)}
    )


def _first_line(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else ''}"
