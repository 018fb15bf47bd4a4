"""Faults on real processes end as they should: some here, all with `-m slow`; benchmarks/faults.py prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflexarc.faults import FAULTS, Result, judge, run_fault

# A shared machine with two cores stalls a process now and then; the watchdogs' own times are tested in safety/.
PATIENT = ("driver_silence_s=0.4", "hold_after_s=0.2")
QUICK = ("host SIGKILL", "monitor SIGKILL", "encoders frozen", "identical pictures")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAULTS]
)
def test_a_fault_ends_at_rest_and_says_why(name: str, tmp_path: Path) -> None:
    result = run_fault(name, tmp_path, PATIENT)
    assert judge(result) == ""
    if not FAULTS[name].moves:
        assert result.by
        assert result.detected_ms is not None


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["fr3", "ur5e"])
@pytest.mark.parametrize("name", ["host SIGKILL", "it fails beside a keep-out", "encoders frozen"])
def test_other_arms_end_as_they_should(name: str, robot: str, tmp_path: Path) -> None:
    assert judge(run_fault(name, tmp_path, PATIENT, robot=robot)) == ""


def test_a_wrong_end_is_told() -> None:
    good = Result("host SIGKILL", 100.0, "arm", "gone", braked=True, travelled_mm=5.0, moving=False)
    assert judge(good) == ""
    for change, said in (
        ({"final": "active"}, "ended in active"),
        ({"moving": True}, "still moves"),
        ({"braked": False}, "brake is not on"),
    ):
        assert said in judge(Result(**({name: getattr(good, name) for name in good.__slots__} | change)))
