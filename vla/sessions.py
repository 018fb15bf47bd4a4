"""Names of sessions: each robot chooses its own, and several may choose the same.

Who asks one policy for several robots gives it a key for each session; policies keep what they remember under that.
What must be the same whichever robot asks, as a seed, is made from the name in the key.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

MARK = "\x1f"
"""ASCII's unit separator ends the name in a key; of a name that holds one, what is before it counts."""


def key_among(name: str, taken: Collection[str]) -> str:
    """A key for a session that its robot calls `name`: the name itself unless that is `taken`."""
    numbered = (f"{name}{MARK}{number}" for number in itertools.count(2))
    return next(key for key in itertools.chain((name,), numbered) if key not in taken)


def name_in(key: str) -> str:
    """What the robot calls the session."""
    return key.partition(MARK)[0]
