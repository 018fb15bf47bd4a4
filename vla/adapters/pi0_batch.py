"""lerobot's π0 for several robots at once: one pass of the engine for those whose prompts are of one length.

Each row's noise is drawn from its own observation's seed, so that an observation gets the same chunk alone and in any
company, but for the order in which a processor adds up: 1e-5 of the actions' size in float32 (`tests/vla`), bfloat16's
rounding in bfloat16.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Hashable

import numpy as np
import torch
from lerobot.processor import RelativeActionsProcessorStep, create_transition
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from numpy.typing import NDArray
from torch import Tensor

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.vla.adapters.lerobot import STATE, Batch, LeRobotPolicy, seed_of
from reflexarc.vla.commitment import committed
from reflexarc.vla.engine.guidance import Guide
from reflexarc.wire.messages import ActionChunk, Observation


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One observation, ready for the model. batch: of one. felt: (1, P) what relative actions are added to."""

    index: int
    observation: Observation
    batch: Batch
    noise: Tensor
    guide: Guide | None
    felt: Tensor | None

    @property
    def kind(self) -> Hashable:
        """Alike of those that can share a pass: tokens in the prompt, and whether it is guided."""
        return int(self.batch[OBS_LANGUAGE_ATTENTION_MASK].sum()), self.guide is None


class Pi0Policy(LeRobotPolicy):
    """A folder of lerobot's π0, as a policy that answers several robots in one pass."""

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`, as `LeRobotPolicy` does."""
        answer = self.act_batch([observation])[0]
        if isinstance(answer, ReflexarcError):
            raise answer
        return answer

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """Answers to several observations; those whose prompts are of one length share a pass of the model."""
        began = time.perf_counter_ns()
        answers: dict[int, ActionChunk | ReflexarcError] = {}
        groups: dict[Hashable, list[_Asked]] = {}
        for index, observation in enumerate(observations):
            try:
                asked = self._asked(index, observation)
                groups.setdefault(asked.kind, []).append(asked)
            except ReflexarcError as error:
                answers[index] = error
        for group in groups.values():
            answers |= self._answers(group, began)
        return [answers[index] for index in range(len(observations))]

    def _asked(self, index: int, observation: Observation) -> _Asked:
        committed(observation, self._spec)  # what cannot be taken in is refused before anything is computed
        batch = self._remember(observation, self._prepared(observation))
        step = self._relative_step()
        felt = None if step is None else step.get_cached_state()
        return _Asked(index, observation, batch, self._noise(observation), self._guide(observation), felt)

    def _noise(self, observation: Observation) -> Tensor:
        """(1, H, A), what lerobot draws for this observation alone on the CPU.

        Not by the GPU's own generator: that refuses while another thread records a graph (`engine/graphs.py`).
        """
        foreign, drawn = self._foreign, torch.Generator().manual_seed(seed_of(observation))
        shape = (1, foreign.chunk_size, foreign.max_action_dim)
        return torch.normal(0.0, 1.0, shape, generator=drawn).to(foreign.device)

    def _answers(self, group: list[_Asked], began: int) -> dict[int, ActionChunk | ReflexarcError]:
        """By index. latency_ns: of the whole batch, which is what each robot waited for."""
        prepared = time.perf_counter_ns()
        chunks = self._sampled(group)
        latency = {"preprocess": prepared - began} | self._stages(time.perf_counter_ns() - prepared)
        answers: dict[int, ActionChunk | ReflexarcError] = {}
        for row, asked in enumerate(group):
            observation = asked.observation
            if self._sampler is not None and self._sampler.last is not None:
                said = self._sampler.last[row : row + 1]
                self._said[observation.session] = (observation.t_obs_ns, said)
            try:
                answers[asked.index] = self._reply(observation, self._row(chunks[row], asked), latency)
            except PolicyError as error:
                answers[asked.index] = error
        return answers

    def _sampled(self, group: list[_Asked]) -> Tensor:
        """Chunks (B, H, D), normalised."""
        rows = list(group)
        while self._foreign.device == "cuda" and len(rows) & (len(rows) - 1):
            rows.append(rows[-1])  # a power of two of them, so that few graphs do
        guides = [each.guide for each in rows if each.guide is not None]
        if self._sampler is not None and guides:
            targets, weights = ([getattr(each, name) for each in guides] for name in ("target", "weights"))
            self._sampler.go_on(Guide(torch.cat(targets), torch.cat(weights)))
        keys = (*self._keys, STATE, OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)
        batch = {key: torch.cat([each.batch[key] for each in rows]) for key in keys}
        with torch.no_grad():
            chunks: Tensor = self._policy.predict_action_chunk(
                batch, noise=torch.cat([each.noise for each in rows])
            )
        return chunks

    def _row(self, chunk: Tensor, asked: _Asked) -> NDArray[np.float64]:
        """(H, D) of one row (H, D). lerobot's postprocessor adds relative actions to the state seen last: its own."""
        step = self._relative_step()
        if step is not None and asked.felt is not None:
            step(create_transition(observation={STATE: asked.felt}))
        return self._restored(chunk)

    def _relative_step(self) -> RelativeActionsProcessorStep | None:
        """What remembers the state, where actions are relative to it."""
        steps = (each for each in self._before.steps if isinstance(each, RelativeActionsProcessorStep))
        return next((each for each in steps if each.enabled), None)
