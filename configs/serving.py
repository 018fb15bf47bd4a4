"""Schema of a policy server: how many robots it takes on, and how long it lets them wait."""

from __future__ import annotations

from pydantic import Field

from reflexarc.configs.base import Config


class ServingConfig(Config):
    """One policy server.

    max_batch: observations answered in one pass of the model. max_wait_s: what a batch waits, after its first
    observation, for other robots that are due to ask. max_clients: robots that wait for an answer, or asked twice and
    lately (`forget_client_s`); one more is refused. max_age_s: an observation that cannot be answered within this time
    of its arrival is not answered at all. drain_s: what an ending server takes to answer those who wait.
    """

    max_batch: int = Field(default=8, ge=1)
    max_wait_s: float = Field(default=0.004, ge=0)
    max_clients: int = Field(default=64, ge=1)
    max_age_s: float = Field(default=1.5, gt=0)
    forget_client_s: float = Field(default=10.0, gt=0)
    drain_s: float = Field(default=5.0, ge=0)
