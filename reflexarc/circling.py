"""A policy without a network, for faults put into a running robot: the TCP goes round for as long as it is asked."""

from __future__ import annotations

import numpy as np

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.vla.serving.server import run_server
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo

HORIZON = 8
STEP_S = 0.1
SPEED = 0.1
"""Of the TCP, m/s."""


class Circling:
    """Looks at nothing but the time; `cameras` are those that it wants pictures of."""

    def __init__(self, cameras: tuple[str, ...] = ()) -> None:
        self._cameras = cameras
        self._spec = tcp_delta_spec(HORIZON, STEP_S)

    @property
    def info(self) -> PolicyInfo:
        """Deltas of 0.1 s."""
        return PolicyInfo(
            t_ns=0,
            model_id="circling",
            action_spec=self._spec.model_dump_json(),
            cameras=list(self._cameras),
            image_height=1,
            image_width=1,
            tokenizer_id="",
        )

    def reset(self, session: str) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next 0.8 s of the circle; where on it, the time says."""
        begin = observation.t_obs_ns * 1e-9
        angles = begin + STEP_S * np.arange(HORIZON)
        actions = np.zeros((HORIZON, 7))
        actions[:, 0] = SPEED * STEP_S * np.cos(2.0 * angles)
        actions[:, 1] = SPEED * STEP_S * np.sin(2.0 * angles)
        actions[:, 6] = 1.0
        return ActionChunk(
            t_ns=observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=actions,
            bins=np.full(actions.shape, -1, dtype=np.int16),
            policy_tokens=[],
            tokenizer_id="",
            step_ns=self._spec.step_ns,
            spec_id=self._spec.id,
            model_id="circling",
            session=observation.session,
        )


def serve_circling(endpoints: Endpoints, cameras: tuple[str, ...] = ()) -> None:
    """The body of a policy server's process."""
    run_server(Circling(cameras), endpoints)
