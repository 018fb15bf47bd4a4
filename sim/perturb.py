"""Disturbances for demonstrations: short, smooth, random displacements of the TCP.

A clone of an expert that never errs has never seen the way back from an error. Collection lets a `Perturbation` move
the arm for a few steps, then the expert recovers; the label function leaves the disturbed steps out.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.action import ActionSpec
from reflexarc.wire.messages import F64, ActionChunk, Observation, PolicyInfo

MAX_DISPLACEMENT = 0.08
"""Length of one burst, m."""

STEPS = (2, 5)
"""Fewest and most policy steps of one burst."""

LOW = 0.09
"""Below this height of the TCP, m, fingers are among things that may not give way: a burst goes up and little aside;
where the fingers hold something they let go of it."""

LOW_SIDEWAYS = 0.4
HOLDING = 0.1
"""Fingers that stay this much wider than commanded hold something (an opening)."""

TOGGLE_CHANCE = 0.25
"""That a burst also opens a closed gripper, or closes an open one."""

LOWER = (0.28, -0.30, 0.012)
UPPER = (0.72, 0.30, 0.32)
"""The TCP is kept in this box, base frame, m."""


@dataclasses.dataclass(frozen=True, slots=True)
class Burst:
    """One displacement: the whole way (3,) m, its steps, the gripper opening meanwhile, when it began."""

    way: F64
    steps: int
    gripper: float
    begin_ns: int


class Perturbation:
    """A `Policy` that makes one burst after another for as long as it is asked.

    The same seed and the same observations give the same actions. A new burst is drawn when the last one is over.
    """

    def __init__(self, info: PolicyInfo, seed: int = 0) -> None:
        """`info`: of the policy it stands in for; its action space must be TCP deltas."""
        self._info = info
        self._spec = ActionSpec.model_validate_json(info.action_spec)
        self.reseed(seed)

    @property
    def info(self) -> PolicyInfo:
        """As the policy it stands in for."""
        return self._info

    def reseed(self, seed: int) -> None:
        """Start the random numbers of an episode."""
        self._rng = np.random.default_rng([0xB5257, seed])
        self._burst: Burst | None = None

    def reset(self, session: str) -> None:
        """Forget the burst."""
        self._burst = None

    def act(self, observation: Observation) -> ActionChunk:
        """The rest of the present burst, then rest."""
        burst = self._current(observation)
        elapsed = round((observation.t_obs_ns - burst.begin_ns) / self._spec.step_ns)
        actions = np.zeros((self._spec.horizon, self._spec.size))
        actions[:, 6] = burst.gripper
        shares = _shares(burst.steps)[elapsed : elapsed + self._spec.horizon]
        actions[: len(shares), :3] = shares[:, None] * burst.way
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
            model_id="perturbation",
            source="perturb",
            session=observation.session,
        )

    def _current(self, observation: Observation) -> Burst:
        now = observation.t_obs_ns
        burst = self._burst
        if burst is None or not 0 <= now - burst.begin_ns < burst.steps * self._spec.step_ns:
            burst = self._burst = self._draw(observation)
        return burst

    def _draw(self, observation: Observation) -> Burst:
        state = observation.state
        start = state.pose_base_tcp_commanded[:3]
        direction = self._rng.normal(size=3)
        way = self._rng.uniform(0.25, 1.0) * MAX_DISPLACEMENT * direction / np.linalg.norm(direction)
        gripper = float(round(state.gripper_commanded))
        if self._rng.random() < TOGGLE_CHANCE:
            gripper = 1.0 - gripper
        if start[2] < LOW:
            way *= (LOW_SIDEWAYS, LOW_SIDEWAYS, np.sign(way[2]))
            if state.gripper > state.gripper_commanded + HOLDING:
                way, gripper = way * (0.0, 0.0, 1.0), 1.0
        way = np.clip(start + way, LOWER, UPPER) - start
        way *= min(1.0, MAX_DISPLACEMENT / max(float(np.linalg.norm(way)), 1e-9))
        steps = int(self._rng.integers(STEPS[0], STEPS[1] + 1))
        return Burst(way, steps, gripper, observation.t_obs_ns)


def _shares(steps: int) -> F64:
    """(steps,) parts of the way, adding up to 1: slow, fast, slow."""
    edges = np.linspace(0.0, 1.0, steps + 1)
    return np.diff(edges**2 * (3.0 - 2.0 * edges))
