"""Temporal ensembling, as a baseline: each waypoint is the mean of what all chunks so far say of its time.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (2023), algorithm 2: weights
`exp(-m i)`, the oldest chunk being i = 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from reflexarc.controllers.chunk import Knots
from reflexarc.controllers.interpolate import Braking, LinearPath
from reflexarc.wire import geometry


def ensembled(knots: Knots, earlier: Sequence[Knots], decay: float) -> Knots:
    """`knots` with each waypoint averaged with what the `earlier` chunks, oldest first, say of its time."""
    braking = Braking(1.0, 1.0)
    paths = [(chunk, LinearPath(chunk, braking)) for chunk in earlier]
    points, quats, gripper = knots.points.copy(), knots.quats.copy(), knots.gripper.copy()
    for k in range(1, knots.steps + 1):
        due_ns = knots.due_ns(k)
        said = [
            (path.sample(due_ns), chunk.gripper_at(due_ns - 1))
            for chunk, path in paths
            if chunk.start_ns < due_ns <= chunk.end_ns
        ]
        weights = np.exp(-decay * np.arange(len(said) + 1))
        weights /= weights.sum()
        turn = np.zeros(3)
        points[k] *= weights[-1]
        gripper[k - 1] *= weights[-1]
        for weight, (sample, opening) in zip(weights, said, strict=False):
            points[k] += weight * sample.point
            turn += weight * geometry.difference(sample.quat, knots.quats[k])
            gripper[k - 1] += weight * opening
        quats[k] = geometry.multiply(geometry.exp(turn), knots.quats[k])
    turns = np.array([geometry.difference(quats[k + 1], quats[k]) for k in range(knots.steps)])
    return dataclasses.replace(knots, points=points, quats=quats, turns=turns, gripper=gripper)
