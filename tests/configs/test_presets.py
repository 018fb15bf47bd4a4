"""The presets let the tasks be done, stay within what the maker publishes, and say where their numbers are from."""

from __future__ import annotations

import numpy as np
import pytest

from reflexarc.configs.errors import ConfigError
from reflexarc.configs.load import load_controller, load_robot, load_safety, presets
from reflexarc.safety.gripper import least_opening

PUBLISHED_TCP_SPEED = 1.7
"""m/s, Franka Control Interface documentation."""


@pytest.mark.parametrize("name", presets("safety"))
def test_each_limit_says_why(name: str) -> None:
    safety = load_safety(name)
    defaults = {field: info.default for field, info in type(safety).model_fields.items()}
    unsourced = {"name", "sources", "beyond_published"}
    if name.endswith("-wide"):  # there, the one entry for a kind of limit speaks for all of it
        unsourced |= {"position_margin_rad", "acceleration_scale", "jerk_scale", "reduced_speed_scale"}
    changed = {field for field, value in safety if value != defaults[field]}
    assert changed - unsourced <= safety.sources.keys()
    assert safety.sources.keys() <= type(safety).model_fields.keys()
    assert all(len(source) > 15 for source in safety.sources.values())


@pytest.mark.parametrize("name", presets("robots"))
def test_each_number_in_force_has_a_source_even_one_that_is_a_default(name: str) -> None:
    safety = load_safety(name)
    no_limits = {"name", "sources", "beyond_published", "held_tool"}
    assert dict(safety).keys() - no_limits <= safety.sources.keys()
    for section in ("contact", "integrity", "monitor", "estop"):
        numbers = {field for field, value in getattr(safety, section) if isinstance(value, int | float)}
        assert {field for field in numbers if field not in safety.sources[section]} == set()


@pytest.mark.parametrize("name", presets("robots"))
def test_every_arm_that_ships_limits_how_hard_its_fingers_squeeze(name: str) -> None:
    robot, contact = load_robot(name), load_safety(name).contact
    assert contact.gripper_force is not None
    assert contact.gripper_force < robot.gripper.max_force
    opening = least_opening(robot.gripper, load_safety(name), 0.9)
    assert 0 < opening < 0.9


def test_a_force_of_the_fingers_that_could_not_be_kept_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gripper_force 5.0 N needs gripper_stiffness"):
        load_safety("panda", ["contact.gripper_force=5.0", "contact.gripper_stiffness=null"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("driver_silence_s=0.6", "driver_silence_s 0.6 s must not exceed stop_after_s 0.5 s"),
        ("driver_silence_s=0", "driver_silence_s is 0: Input should be greater than 0"),
        ("integrity.malformed_setpoints=0", "malformed_setpoints is 0"),
        ("integrity.encoder_noise_rad=0.1", "must be below encoder_motion_rad 0.03 rad"),
        ("estop.file_period_s=0.08", "file_period_s 0.08 s must be at most half of file_silence_s 0.1 s"),
        ("monitor.place_tolerance=0.5", "place_tolerance is 0.5"),
        ("monitor.readings=0", "readings is 0"),
    ],
)
def test_a_watchdog_that_would_watch_nothing_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_safety("panda", [override])


@pytest.mark.parametrize("name", presets("safety"))
def test_nothing_exceeds_what_is_published(name: str) -> None:
    safety = load_safety(name)
    assert safety.beyond_published == ()
    assert max(safety.velocity_scale, safety.acceleration_scale, safety.jerk_scale) <= 1.0
    assert safety.tcp_speed <= PUBLISHED_TCP_SPEED


def test_the_working_area_is_inside_the_default_box() -> None:
    box = load_safety("panda").workspace
    for x in (0.30, 0.70):
        for y in (-0.30, 0.30):
            for z in (0.02, 0.25):  # the middle of a 4 cm block on the table, and home
                assert np.all(np.asarray(box.lower) < (x, y, z))
                assert np.all(np.asarray(box.upper) > (x, y, z))
    assert box.lower[2] > 0.0, "the finger tips stay above the table"


def test_the_wide_limits_are_wider_everywhere() -> None:
    narrow, wide = load_safety("panda"), load_safety("panda-wide")
    assert np.all(np.asarray(wide.workspace.lower) < narrow.workspace.lower)
    assert np.all(np.asarray(wide.workspace.upper) > narrow.workspace.upper)
    for field in ("velocity_scale", "acceleration_scale", "tcp_speed", "force_ceiling", "torque_ceiling"):
        assert getattr(wide, field) > getattr(narrow, field)


def test_reduced_speed_is_below_that_of_the_standard() -> None:
    """ISO 10218-1: the TCP at no more than 0.25 m/s."""
    safety = load_safety("panda")
    assert safety.reduced_speed_scale * safety.tcp_speed <= 0.25


def test_rates_divide_each_other() -> None:
    """A host tick is a whole part of a controller tick, and both of a policy step of 0.1 s."""
    robot, controller = load_robot("panda"), load_controller("default")
    assert controller.tick_ns % robot.tick_ns == 0
    assert 100_000_000 % controller.tick_ns == 0
    assert load_safety("panda").hold_after_s * 1e9 > 2 * controller.tick_ns
