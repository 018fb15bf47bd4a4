"""The rules that compare episodes with one another: copies, and what is unlike the rest.

Episodes are `Outline`s, every 0.1 s; nothing is read here. The experts' distribution of a task is what the session's
successful episodes of that task do: where they work, how far, how fast, how high, and what the gripper does meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reflexarc.datasets.lint.findings import RULES, Finding, finding
from reflexarc.datasets.lint.signals import F64, OUTLINE_HZ, Outline

_LEAST_OVERLAP_S = 1.0
_LEAST_MOTION_RAD = 0.02
"""Below it everything stood still together: that is no copied motion."""
FEWEST_PEERS = 8
"""Of fewer than this many others neither a median nor its spread means much."""


@dataclass(frozen=True, slots=True)
class Feature:
    """name: as in a sentence. floor: the least spread that counts, in `unit`: less is not another behaviour."""

    name: str
    unit: str
    floor: float


FEATURES = (
    Feature("its duration", "s", 0.3),
    Feature("the tool's way", "m", 0.05),
    Feature("its lowest point", "m", 0.02),
    Feature("its highest point", "m", 0.02),
    Feature("where it is on average in x", "m", 0.05),
    Feature("where it is on average in y", "m", 0.05),
    Feature("how far it goes from its start", "m", 0.05),
    Feature("its mean acceleration", "m/s²", 0.1),
    Feature("the mean opening", "of 1", 0.1),
    Feature("how much the gripper moves", "openings", 0.5),
    Feature("the opening at the end", "of 1", 0.25),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One episode to compare. episode: its path below the session. start_s: of its first state."""

    episode: str
    task: str
    success: bool | None
    start_s: float
    outline: Outline


def compare(judged: Sequence[Judged]) -> list[Finding]:
    """All findings between episodes."""
    return [*duplicates(judged), *outliers(judged)]


def duplicates(judged: Sequence[Judged]) -> Iterator[Finding]:
    """Episodes whose joints go the same way as an earlier one's, for a second at least and to the shorter's end.

    A copy under another task's name is one too. Only those that start alike are compared: sorted by the first joint.
    """
    limit = RULES["duplicate"].limit
    first = np.array([item.outline.joints[0, 0] for item in judged])
    order = np.argsort(first, kind="stable")
    copies: dict[int, tuple[int, float]] = {}
    for place, one in enumerate(order.tolist()):
        for other in order[place + 1 :].tolist():
            if first[other] - first[one] > limit:
                break
            apart = _apart(judged[one].outline, judged[other].outline)
            if apart <= limit:
                early, late = sorted((one, other))
                copies.setdefault(late, (early, apart))
    for late, (early, apart) in sorted(copies.items()):
        item = judged[late]
        text = f"its joints go the same way as in {judged[early].episode}: delete one of the two"
        yield finding("duplicate", item.episode, item.start_s, apart, text, signal="joints")


def outliers(judged: Sequence[Judged]) -> Iterator[Finding]:
    """Episodes that lie outside the distribution of their task's other successes.

    Distance: the largest of the features' deviations from the others' median, in units of their spread, 1.4826 times
    the median absolute deviation, which is the standard deviation of a normal distribution (Iglewicz and Hoaglin 1993,
    "How to Detect and Handle Outliers", modified z-score).
    """
    limit = RULES["outlier"].limit
    groups: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        groups[item.task].append(item)
    for items in groups.values():
        table = np.stack([features(item.outline) for item in items])
        good = np.array([item.success is True for item in items])
        for place, item in enumerate(items):
            others = good.copy()
            others[place] = False
            if others.sum() < FEWEST_PEERS:
                continue
            far = _deviations(table[place], table[others])
            worst = int(far.argmax())
            if far[worst] > limit:
                feature, usual = FEATURES[worst], float(np.median(table[others][:, worst]))
                text = (
                    f"{feature.name} is {table[place][worst]:.2f} {feature.unit}, of the task's other successes "
                    f"{usual:.2f}: watch it, and delete or relabel it if it is another behaviour"
                )
                at = item.start_s + _strangest(item.outline, worst)
                yield finding("outlier", item.episode, at, far[worst], text, signal=_signal(worst))


def features(outline: Outline) -> F64:
    """(F,) what describes a behaviour, in the order and the units of `FEATURES`."""
    tcp, gripper = outline.tcp, outline.gripper
    steps = np.diff(tcp, axis=0)
    acceleration = np.linalg.norm(np.diff(steps, axis=0), axis=1) * OUTLINE_HZ**2
    return np.array(
        [
            outline.duration,
            np.linalg.norm(steps, axis=1).sum(),
            tcp[:, 2].min(),
            tcp[:, 2].max(),
            tcp[:, 0].mean(),
            tcp[:, 1].mean(),
            np.linalg.norm(tcp - tcp[0], axis=1).max(),
            acceleration.mean() if acceleration.size else 0.0,
            gripper.mean(),
            np.abs(np.diff(gripper)).sum(),
            gripper[-1],
        ]
    )


def too_few_peers(judged: Sequence[Judged]) -> list[str]:
    """Tasks of which there are too few successes to tell what is unlike them."""
    counts: dict[str, int] = defaultdict(int)
    for item in judged:
        counts[item.task] += item.success is True
    return sorted(task for task, count in counts.items() if count <= FEWEST_PEERS)


def _apart(one: Outline, two: Outline) -> float:
    """rad: the most that any joint differs at any time both last; infinite where that is too little to tell."""
    rows = min(len(one.joints), len(two.joints))
    if rows < _LEAST_OVERLAP_S * OUTLINE_HZ or one.joints.shape[1] != two.joints.shape[1]:
        return np.inf
    if np.ptp(one.joints[:rows], axis=0).max() < _LEAST_MOTION_RAD:
        return np.inf
    return float(np.abs(one.joints[:rows] - two.joints[:rows]).max())


def _deviations(row: F64, others: F64) -> F64:
    middle = np.median(others, axis=0)
    spread = 1.4826 * np.median(np.abs(others - middle), axis=0)
    least = np.array([feature.floor for feature in FEATURES])
    return np.asarray(np.abs(row - middle) / np.maximum(spread, least))


def _strangest(outline: Outline, feature: int) -> float:
    """Seconds from the first state to where the feature shows; to the middle where it is of the whole episode."""
    tcp = outline.tcp
    rows = {
        0: len(tcp) - 1,
        2: int(tcp[:, 2].argmin()),
        3: int(tcp[:, 2].argmax()),
        6: int(np.linalg.norm(tcp - tcp[0], axis=1).argmax()),
        10: len(tcp) - 1,
    }
    return rows.get(feature, len(tcp) // 2) / OUTLINE_HZ


def _signal(feature: int) -> str:
    return "gripper" if feature >= 8 else "tcp"
