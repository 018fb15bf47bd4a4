"""Several robots and one policy, whether or not that can answer them in one pass."""

from __future__ import annotations

from reflexarc.configs.errors import PolicyError, ReflexarcError
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


def answers_whatever(policy: Policy, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
    """As `answers_to` for robots that have nothing to do with one another, whatever the policy raises.

    Where it breaks on a batch each is asked alone: who asked what it breaks on is told so, the others are answered.
    """
    try:
        return answers_to(policy, observations)
    except Exception as error:  # a fault in the policy: it may be any
        if len(observations) == 1:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return [PolicyError(f"{policy.info.model_id} broke on this observation: {text}")]
    return [answers_whatever(policy, [observation])[0] for observation in observations]
