"""The usual tick in one compiled call: wish, projection, clearances, judgement. See there."""

from __future__ import annotations

import numpy as np

from reflexarc.safety.chain import Chain
from reflexarc.safety.clearance import Clearances, Scratch, clearances
from reflexarc.safety.judge import MotionState, Rates, Verdict, judge
from reflexarc.safety.project import project, wish
from reflexarc.safety.shapes import Capsules
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64


@compiled
def propose(
    chain: Chain,
    capsules: Capsules,
    table: Clearances,
    rates: Rates,
    now: MotionState,
    target: F64,
    target_velocity: F64,
    scale: float,
    at: Scratch,
    here: F64,
    notes: F64,
    worst: F64,
    where: F64,
) -> tuple[F64, F64, F64, Verdict]:
    """What is asked for, the wish, the proposal, each (n,) rad/s, and the verdict on it.

    here: (K,) is given the clearances at the present position. notes: (3, 4), two rows of `wish` and one of `project`.
    worst, where: as for `judge`.
    """
    asked = np.empty(target.size)
    wanted = wish(chain, rates, now, target, target_velocity, scale, at, asked, notes[:2])
    proposal = project(chain, rates, now, wanted, at, notes[2:])
    clearances(table, chain, capsules, now.position, at, here)
    verdict = judge(chain, capsules, table, rates, now, proposal, here, at, worst, where)
    return asked, wanted, proposal, verdict
