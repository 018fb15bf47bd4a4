"""What the arm may carry beside its hand, on every arm that ships."""

from __future__ import annotations

import mujoco
import pytest

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.load import load_robot, load_safety, resolve_asset
from reflexarc.safety import SafetyFilter

PUBLISHED = {"panda": 3.0, "fr3": 3.0, "ur5e": 5.0}
"""kg, with the hand: the makers' datasheets."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_hand_and_load_together_are_what_the_maker_publishes(name: str) -> None:
    robot = load_robot(name)
    assert robot.payload is not None
    model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
    hand = float(model.body_subtreemass[model.body("hand").id])
    assert hand + robot.payload.mass == pytest.approx(PUBLISHED[name], abs=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_load_that_is_too_heavy_is_refused_unless_named(name: str) -> None:
    robot = load_robot(name)
    assert robot.payload is not None
    SafetyFilter(robot, load_safety(name, [f"contact.payload.mass={robot.payload.mass}"]))
    heavy = f"contact.payload.mass={robot.payload.mass + 0.01}"
    with pytest.raises(SafetyError, match=rf"payload.mass is .* kg: beyond .* what {name} may carry"):
        SafetyFilter(robot, load_safety(name, [heavy]))
    SafetyFilter(robot, load_safety(name, [heavy, "beyond_published=[payload]"]))
