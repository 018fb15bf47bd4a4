"""256 real bins: every property the action grid promises, over random data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.tokenizers import GRIDS, OpenVlaTokenizer, UniformTokenizer, read_grid
from reflexarc.wire.messages import F64

SPEC = tcp_delta_spec(8, 0.1)
BOUND = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 6))


def grid(lower: float, upper: float, resolution: float = 1e-4) -> UniformTokenizer:
    return UniformTokenizer.from_bounds(["x"], np.array([lower]), np.array([upper]), np.array([resolution]))


@given(BOUND, BOUND, st.floats(0, 1))
def test_round_trip_is_within_half_a_step_of_any_value_in_the_bounds(
    a: float, b: float, fraction: float
) -> None:
    lower, upper = min(a, b), max(a, b)
    tokenizer = grid(lower, upper)
    value = np.array([lower + fraction * (upper - lower)])
    error = abs(tokenizer.decode(tokenizer.encode(value))[0] - value[0])
    allowed = tokenizer.step[0] / 2 if tokenizer.varies[0] else 1e-4
    assert error <= allowed * (1 + 1e-9) + 1e-12


@given(BOUND, BOUND)
def test_there_are_256_different_values_and_each_is_its_own_token(a: float, b: float) -> None:
    tokenizer = grid(min(a, b), max(a, b) + 0.001)
    values = tokenizer.centers[0]
    assert len(np.unique(values)) == 256
    assert np.array_equal(tokenizer.encode(values[:, None])[:, 0], np.arange(256))


@given(st.floats(1e-3, 10), st.floats(1e-3, 10))
def test_zero_decodes_to_exactly_zero_when_the_range_holds_it(below: float, above: float) -> None:
    for lower, upper in ((-below, above), (0.0, above), (-below, 0.0)):
        tokenizer = grid(lower, upper)
        assert tokenizer.decode(tokenizer.encode(np.zeros(1)))[0] == 0.0


def test_a_gripper_is_closed_at_bin_0_and_open_at_bin_255() -> None:
    tokenizer = grid(0.0, 1.0)
    assert tokenizer.encode(np.array([[0.0], [1.0]]))[:, 0].tolist() == [0, 255]
    assert tokenizer.decode(np.array([[0], [255]]))[:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("value", "decoded"), [(0.0, 0.0), (0.3, 0.3), (2e-5, 0.0)])
def test_a_constant_dimension_decodes_to_its_constant(value: float, decoded: float) -> None:
    tokenizer = grid(value - 2e-5, value + 2e-5)
    assert not tokenizer.varies[0]
    assert tokenizer.fixed_bins.tolist() == [0]
    assert np.allclose(tokenizer.decode(tokenizer.encode(np.array([[5.0], [-5.0]]))), decoded)


@given(st.floats(-1e300, 1e300))
def test_values_beyond_the_bounds_take_the_outermost_bin(value: float) -> None:
    tokenizer = grid(-1.0, 1.0)
    assert 0 <= tokenizer.encode(np.array([value]))[0] <= 255
    if abs(value) > 1.1:
        assert tokenizer.encode(np.array([value]))[0] == (255 if value > 0 else 0)


def test_the_grid_spans_the_1st_to_99th_percentile_within_the_spec() -> None:
    generator = np.random.default_rng(0)
    actions = np.zeros((10_000, 7))
    actions[:, 0] = generator.uniform(-0.02, 0.03, 10_000)
    actions[::2000, 0] = 99.0
    actions[:, 1] = generator.uniform(-5.0, 5.0, 10_000)
    actions[:, 6] = generator.integers(0, 2, 10_000)
    tokenizer = UniformTokenizer.fit(SPEC, actions)
    centers = tokenizer.centers
    assert np.allclose(centers[0, [0, -1]], [-0.0195, 0.0295], atol=5e-4)
    assert np.allclose(centers[1, [0, -1]], [-0.1, 0.1], atol=1e-3)
    assert tokenizer.varies.tolist() == [True, True, False, False, False, False, True]


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    tokenizer = UniformTokenizer.fit(SPEC, np.random.default_rng(0).normal(0, 0.01, (100, 7)))
    values = np.zeros((4, 7))
    values[2, 1] = np.nan
    values[0, 6] = np.inf
    with pytest.raises(PolicyError, match=r"dy, gripper are not finite"):
        tokenizer.encode(values)
    with pytest.raises(PolicyError, match=r"dy, gripper are not finite"):
        UniformTokenizer.fit(SPEC, values)


def test_wrong_shapes_and_bins_are_refused() -> None:
    tokenizer = grid(-1.0, 1.0)
    with pytest.raises(PolicyError, match=r"1 dimensions; got values of shape \(2,\)"):
        tokenizer.encode(np.zeros(2))
    with pytest.raises(PolicyError, match=r"0\.\.255; got 0\.\.256"):
        tokenizer.decode(np.array([[0], [256]]))
    with pytest.raises(PolicyError, match=r"\(N, 7\) actions to fit; got \(0, 7\)"):
        UniformTokenizer.fit(SPEC, np.zeros((0, 7)))


def test_json_round_trip_keeps_every_bit_and_the_id() -> None:
    tokenizer = UniformTokenizer.fit(SPEC, np.random.default_rng(0).normal(0, 0.01, (100, 7)))
    again = UniformTokenizer.from_json(tokenizer.to_json())
    assert np.array_equal(again.centers, tokenizer.centers)
    assert again.id == tokenizer.id
    assert grid(-1.0, 1.0).id != grid(-1.0, 1.01).id


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bins": 255}, "with 255 bins; known: uniform with 256"),
        ({"dims": None}, "not an action tokenizer file"),
        ({"dims": [{"name": "x", "offset": 0.0, "step": float("nan"), "zero_bin": 0}]}, "must be finite"),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, object], text: str) -> None:
    data = json.loads(grid(-1.0, 1.0).to_json()) | change
    with pytest.raises(PolicyError, match=text):
        UniformTokenizer.from_json(json.dumps(data))


def openvla_reference(values: F64, lower: float, upper: float) -> tuple[F64, NDArray[np.int64]]:
    """OpenVLA's un-normalised centres (255,) and the bins of values, as its two published functions compute them."""
    edges = np.linspace(-1, 1, 256)
    centers = (edges[:-1] + edges[1:]) / 2
    normalised = np.clip(2 * (values - lower) / (upper - lower) - 1, -1, 1)
    bins = np.clip(np.digitize(normalised, edges) - 1, 0, 254)
    return 0.5 * (centers + 1) * (upper - lower) + lower, bins


@given(BOUND, BOUND, st.lists(st.floats(0, 1), min_size=1))
def test_the_compatible_mode_has_openvlas_255_centres_to_the_bit(
    a: float, b: float, fractions: list[float]
) -> None:
    lower, upper = min(a, b), max(a, b) + 0.001
    tokenizer = OpenVlaTokenizer(["x"], np.array([lower]), np.array([upper]))
    values = lower + np.array(fractions) * (upper - lower)
    centers, bins = openvla_reference(values, lower, upper)
    assert np.array_equal(tokenizer.decode(np.arange(255)[:, None])[:, 0], centers)
    assert tokenizer.decode(np.array([255]))[0] == centers[-1]
    ours = tokenizer.encode(values[:, None])[:, 0]
    on_an_edge = np.abs((values - lower) / (upper - lower) * 255 % 1 - 0.5) > 0.5 - 1e-6
    assert np.array_equal(ours[~on_an_edge], bins[~on_an_edge])
    assert np.abs(ours - bins).max() <= 1
    width = (upper - lower) / 255
    assert np.all(np.abs(centers[ours] - values) <= width / 2 * (1 + 1e-5))
    assert np.array_equal(tokenizer.encode(centers[:, None])[:, 0], np.arange(255))


def test_openvlas_centres_of_the_unit_range_are_its_own() -> None:
    edges = np.linspace(-1, 1, 256)
    tokenizer = OpenVlaTokenizer(["x"], np.array([-1.0]), np.array([1.0]))
    assert np.array_equal(tokenizer.middles, (edges[:-1] + edges[1:]) / 2)
    assert len(tokenizer.middles) == 255
    assert 0.0 not in UniformTokenizer.from_bounds(["x"], *np.array([[0.1], [1.0], [0.0]])).centers


@pytest.mark.parametrize("kind", GRIDS)
def test_grids_are_stored_and_read_by_their_kind(kind: str) -> None:
    actions = np.random.default_rng(0).normal(0, 0.01, (500, 7))
    fitted = GRIDS[kind].fit(SPEC, actions)
    loaded = read_grid(fitted.to_json())
    assert type(loaded) is GRIDS[kind]
    assert loaded.id == fitted.id
    assert np.array_equal(loaded.centers, fitted.centers)
    with pytest.raises(PolicyError, match="unknown kind of tokenizer 'unifrm'; known: openvla, uniform"):
        read_grid(fitted.to_json().replace(kind, "unifrm"))


@pytest.mark.parametrize("kind", GRIDS)
@given(st.floats(-2, 2))
def test_normalising_reaches_from_bound_to_bound_and_back(kind: str, value: float) -> None:
    tokenizer = GRIDS[kind].from_bounds(["x", "still"], *np.array([[-1.5, 0.2], [0.5, 0.2], [0.0, 0.1]]))
    values = np.array([value, 0.2])
    normalised = tokenizer.normalise(values)
    assert np.all(np.abs(normalised) <= 1)
    assert normalised[1] == 0.0
    back = tokenizer.restore(normalised)
    low, high = tokenizer.restore(np.array([-1.0, 0])), tokenizer.restore(np.array([1.0, 0]))
    assert np.allclose(back, np.clip(values, low, high), atol=1e-12)
    assert low[0] <= -1.5 + 1e-9
    assert high[0] >= 0.5 - 1e-9
