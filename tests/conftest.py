"""What every test runs under: off-screen rendering, one thread a library, no network, reproducible examples."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports mujoco, numpy or torch: they read these once.
os.environ.setdefault("MUJOCO_GL", "egl")
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("suite"), derandomize=False, max_examples=5000
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """A loop that ran in this process asked to go before others; the tests after it should not."""
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
