"""Several robots and one policy, whether or not that can answer them in one pass."""

from __future__ import annotations

from reflexarc.configs.errors import ReflexarcError
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.messages import ActionChunk, Observation


def answers_to(policy: Policy, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
    """An answer to each, in one pass of the model if it can do that."""
    if isinstance(policy, BatchPolicy):
        return policy.act_batch(observations)
    answers: list[ActionChunk | ReflexarcError] = []
    for observation in observations:
        try:
            answers.append(policy.act(observation))
        except ReflexarcError as error:
            answers.append(error)
    return answers
