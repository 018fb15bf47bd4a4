"""Glances: repeatable, true to the scene, and usable beside demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.load import load_policy
from reflexarc.glance import AT_HOME, SEED_BASE, GlanceJob, take_glances
from reflexarc.setup import load_setup
from reflexarc.sim.world import World
from reflexarc.vla.train.glances import from_glances, together

COUNT = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve glances of `lift`, as a shard."""
    out = tmp_path_factory.mktemp("glances")
    assert take_glances(GlanceJob("lift", 0, 0, COUNT, 8, out, load_setup())) == COUNT
    return out


def test_a_glance_shows_its_scene_and_says_where_the_thing_is(shards: Path) -> None:
    config = load_policy("reflexarc-tiny").model
    data = from_glances(shards, tcp_delta_spec(8, 0.1), config)
    world = World("lift", load_setup().robot)
    for row in range(COUNT):
        world.reset(SEED_BASE + row)
        assert data.instructions[data.episode[row]] == world.instruction
        np.testing.assert_allclose(data.focus[row], world.truth(0).focus, atol=1e-6)
        if data.mask[row].any():  # at home: the very picture that an episode begins with
            np.testing.assert_array_equal(data.images("front", np.array([row]))[0], world.render("front"))
    world.close()
    at_home = data.mask.any(axis=1).mean()
    assert 0 < at_home < 2.2 * AT_HOME
    assert np.ptp(data.tcp[:, :2], axis=0).min() > 0.1


def test_taking_them_again_gives_the_same_pixels(shards: Path, tmp_path: Path) -> None:
    take_glances(GlanceJob("lift", 0, 0, COUNT, 8, tmp_path, load_setup()))
    for name in ("images-front", "images-wrist", "focus", "actions"):
        one = np.load(next(shards.glob(f"*/{name}.npy")))
        other = np.load(next(tmp_path.glob(f"*/{name}.npy")))
        np.testing.assert_array_equal(one, other)


def test_two_sources_become_one(shards: Path) -> None:
    config = load_policy("reflexarc-tiny").model
    data = from_glances(shards, tcp_delta_spec(8, 0.1), config)
    both = together(data, data)
    assert len(both) == 2 * COUNT
    rows = np.array([1, COUNT + 1, 3])
    images = both.images("wrist", rows)
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[2], data.images("wrist", np.array([3]))[0])
    assert both.instructions[both.episode[COUNT + 2]] == data.instructions[data.episode[2]]


def test_another_horizon_is_refused(shards: Path) -> None:
    config = load_policy("reflexarc-tiny").model
    with pytest.raises(PolicyError, match=r"glances have actions of \(8, 7\); the policy needs \(4, 7\)"):
        from_glances(shards, tcp_delta_spec(4, 0.1), config)
