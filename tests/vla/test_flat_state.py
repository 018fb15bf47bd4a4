"""A state survives being a vector."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.toy_policy import toy_observation
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.adapters.flat_state import flat_size, flatten, unflatten


def test_what_a_policy_feels_comes_back() -> None:
    state = toy_observation(pose=np.array([0.5, 0.1, 0.2, 0.0, 1.0, 0.0, 0.0])).state
    vector = flatten(state)
    assert vector.shape == (flat_size(7),)
    again = unflatten(vector, seq=3, t_ns=5)
    for name in ("joint_position", "pose_base_tcp", "pose_base_tcp_commanded", "wrench_tcp"):
        assert np.allclose(getattr(again, name), getattr(state, name)), name
    assert (again.gripper, again.gripper_commanded, again.seq, again.t_ns) == (1.0, 1.0, 3, 5)


def test_a_vector_of_another_layout_is_refused() -> None:
    with pytest.raises(PolicyError, match="joints and 22 more numbers"):
        unflatten(np.zeros(8, dtype=np.float32), seq=0, t_ns=0)
