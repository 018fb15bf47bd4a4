"""What the scripted experts share: look at the world, wish, and roll the wish out into a chunk of actions.

An expert is a pure function from a `Situation` to a `Wish`, without memory: the phase of the task is inferred from
where things are now. So it can take over from any state, and a network that sees the same can clone it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.sim.tasks.base import F64
from reflexarc.wire.geometry import difference
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo

if TYPE_CHECKING:
    from reflexarc.sim.world import World

HORIZON = 4
STEP_S = 0.1
TRAVEL_SPEED = 0.25
"""Of the TCP, m/s."""

APPROACH = 0.5
"""Near a goal each step covers this share of what is left."""

SPEED_UP = 0.007
"""A step may be this much longer than the one before, m: 0.7 m/s², which the arm's joints can follow."""

SNAP = 0.002
"""What is left is covered at once below this, m."""

TURN = 0.5
MAX_TURN_RAD = 0.12
"""Per step, back to the home orientation."""

OPEN, CLOSED = 1.0, 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """What an expert looks at. Positions (3,) m, base frame.

    tcp: commanded. hand: the TCP, measured. opening: of the gripper, measured. thing: what to act on. place: where it
    should go. gripped: both fingers touch the thing. progress: how far a drawer is pulled out, m.
    """

    tcp: F64
    hand: F64
    opening: float
    thing: F64
    place: F64
    gripped: bool = False
    progress: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """Where the TCP should go, (3,) m, the gripper's opening, and the speed on the way, m/s."""

    target: F64
    gripper: float
    speed: float = TRAVEL_SPEED


class Expert(ABC):
    """A `Policy` that looks at the simulator's privileged state."""

    def __init__(self, world: World) -> None:
        """Look into `world`, whose task must be the one this expert knows."""
        self.world = world
        self.gripper_step = world.robot.gripper.speed * STEP_S
        self._spec = tcp_delta_spec(HORIZON, STEP_S)
        self._info = PolicyInfo(
            t_ns=0,
            clock="virtual",
            model_id="expert",
            action_spec=self._spec.model_dump_json(),
            cameras=["front", "wrist"],
            image_height=world.image_size[0],
            image_width=world.image_size[1],
            tokenizer_id="",
        )

    @property
    def info(self) -> PolicyInfo:
        """H = 4 TCP deltas of 0.1 s."""
        return self._info

    def reset(self, session: str) -> None:  # noqa: B027 - a policy without memory
        """Nothing to forget."""

    def act(self, observation: Observation) -> ActionChunk:
        """Roll the wishes out from the TCP pose that is commanded now."""
        state = observation.state
        commanded = state.pose_base_tcp_commanded
        hand = np.array(state.pose_base_tcp[:3])
        situation = self.look(np.array(commanded[:3]), hand, float(state.gripper))
        turn = difference(self.world.hand.down, commanded[3:])
        actions = np.zeros((HORIZON, 7))
        last = self._velocity() * STEP_S
        for action in actions:
            wish = self.wish(situation)
            last = move = speeding_up(limited(wish.target - situation.tcp, wish.speed * STEP_S), last)
            action[:3] = move
            action[3:6] = _limited_turn(turn)
            action[6] = wish.gripper
            turn = turn - action[3:6]
            situation = self.advance(situation, move, wish.gripper)
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
            model_id="expert",
            source="expert",
            session=observation.session,
        )

    def _velocity(self) -> F64:
        """(3,) m/s: of the TCP now."""
        twist = np.zeros(6)
        kind = mujoco.mjtObj.mjOBJ_SITE
        mujoco.mj_objectVelocity(self.world.model, self.world.data, kind, self.world.arm.tcp, twist, 0)
        return twist[3:]

    @abstractmethod
    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The situation now: TCP commanded and measured, (3,) m, and the gripper's opening."""

    @abstractmethod
    def wish(self, now: Situation) -> Wish:
        """What to do in this situation."""

    def advance(self, now: Situation, move: F64, gripper: float) -> Situation:
        """The situation expected one step later; by default only the hand has moved."""
        return dataclasses.replace(
            now, tcp=now.tcp + move, hand=now.tcp + move, opening=self.next_opening(now.opening, gripper)
        )

    def next_opening(self, opening: float, gripper: float, lowest: float = 0.0) -> float:
        """The gripper's opening one step later; `lowest` where something is between the fingers."""
        change = np.clip(gripper - opening, -self.gripper_step, self.gripper_step)
        return float(max(opening + change, lowest))


def limited(way: F64, longest: float) -> F64:
    """One step along `way`: at most `longest` m, and slower near the goal."""
    distance = float(np.linalg.norm(way))
    if distance < SNAP:
        return way
    return way * min(1.0, longest / distance, max(APPROACH, SNAP / distance))


def speeding_up(move: F64, last: F64) -> F64:
    """`move`, shortened to what may follow the step `last`: in its direction no more than SPEED_UP longer, (3,) m."""
    distance = float(np.linalg.norm(move))
    if distance < SNAP:
        return move
    longest = max(0.0, float(last @ move) / distance) + SPEED_UP
    return move * min(1.0, longest / distance)


def approach(tcp: F64, goal: F64, *, hover: float, radius: float = 0.006, slope: float = 2.0) -> F64:
    """The next target on the way to `goal` from above, (3,) m.

    A funnel stands on the goal: beyond `radius` m from its axis it rises by `slope`, up to `hover` m. The TCP goes
    to the axis along the funnel; where it is below the funnel it rises first.
    """
    offset = goal[:2] - tcp[:2]
    lateral = float(np.linalg.norm(offset))
    height = goal[2] + float(np.clip((lateral - radius) * slope, 0.0, hover))
    share = float(np.clip(1.0 - (height - 0.01 - tcp[2]) / 0.05, 0.0, 1.0))
    return np.array([*(tcp[:2] + share * offset), height])


def _limited_turn(left: F64) -> F64:
    angle = float(np.linalg.norm(left))
    return left if angle < 1e-3 else left * min(TURN, MAX_TURN_RAD / angle)
