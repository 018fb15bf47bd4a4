"""FAST: what is promised for any chunk, the published files, and models that say nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.fft import dct
from tokenizers import ByteLevelBPETokenizer
from tokenizers.trainers import BpeTrainer

from contracts.toy_policy import toy_checkpoint
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.actions import repeat_last
from reflexarc.vla.tokenizers import FastTokenizer
from reflexarc.vla.tokenizers.report import round_trip
from reflexarc.wire.messages import F64

HORIZON, DIMS, SCALE = 8, 3, 10.0
CHUNK = arrays(np.float64, (HORIZON, DIMS), elements=st.floats(-1, 1))


def smooth(count: int = 200, horizon: int = HORIZON, dims: int = DIMS) -> F64:
    """Chunks of slow sines, as an arm moves."""
    generator = np.random.default_rng(0)
    phase, rate = generator.uniform(0, 6, (count, 1, dims)), generator.uniform(0, 0.4, (count, 1, dims))
    return np.sin(phase + rate * np.arange(horizon)[None, :, None])


TOKENIZER = FastTokenizer.fit(smooth(), scale=SCALE, vocabulary=512)


@given(CHUNK)
def test_any_chunk_within_the_bounds_comes_back_within_the_rounding(chunk: F64) -> None:
    """Orthonormal: the error of a dimension has the length of the coefficients' rounding, at most half a step each."""
    back = TOKENIZER.decode(TOKENIZER.encode(chunk), HORIZON, DIMS)
    assert np.all(np.linalg.norm(back - chunk, axis=0) <= 0.5 / SCALE * np.sqrt(HORIZON) + 1e-9)
    assert np.all(np.abs(back) <= 1.0)


@given(CHUNK)
def test_only_rounding_loses_anything(chunk: F64) -> None:
    """A chunk whose coefficients are whole multiples of 1/scale is written exactly, in at most a token for each."""
    ids = TOKENIZER.encode(chunk)
    assert 1 <= len(ids) <= HORIZON * DIMS
    text = TOKENIZER._tokenizer.decode(ids)
    assert [ord(each) + TOKENIZER.min_token for each in text] == TOKENIZER.coefficients(chunk).tolist()


@given(CHUNK, st.integers(0, DIMS - 1))
def test_low_frequencies_come_first(chunk: F64, dim: int) -> None:
    flat = TOKENIZER.coefficients(np.tile(chunk[:1], (HORIZON, 1)))
    assert not flat[DIMS:].any()  # a chunk that stands still is its first DIMS numbers
    reference = np.rint(SCALE * dct(chunk[:, dim], norm="ortho"))
    assert np.array_equal(TOKENIZER.coefficients(chunk)[dim::DIMS], reference)


@settings(max_examples=50)
@given(st.lists(st.integers(0, TOKENIZER.size - 1), max_size=60))
def test_whatever_a_model_says_is_a_chunk_within_the_bounds(ids: list[int]) -> None:
    chunk = TOKENIZER.decode(ids, HORIZON, DIMS)
    assert chunk.shape == (HORIZON, DIMS)
    assert np.all(np.abs(chunk) <= 1.0)


def test_smooth_chunks_take_few_tokens() -> None:
    counts = [len(TOKENIZER.encode(chunk)) for chunk in smooth()]
    assert np.mean(counts) < HORIZON * DIMS / 2


def test_what_is_missing_is_high_frequency() -> None:
    chunk = smooth(1)[0]
    ids = TOKENIZER.encode(chunk)
    whole = TOKENIZER.decode(ids, HORIZON, DIMS)
    cut = TOKENIZER.decode(ids[:-1], HORIZON, DIMS)
    assert np.array_equal(TOKENIZER.decode([*ids, 3, 4], HORIZON, DIMS), whole)
    assert np.abs(cut - whole).mean() < np.abs(whole).mean()


def test_it_is_stored_and_read(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    loaded = FastTokenizer.load(tmp_path)
    assert loaded.id == TOKENIZER.id
    assert [loaded.encode(chunk) for chunk in smooth(20)] == [TOKENIZER.encode(chunk) for chunk in smooth(20)]


def test_fitting_again_gives_the_same_tokens() -> None:
    assert FastTokenizer.fit(smooth(), scale=SCALE, vocabulary=512).id == TOKENIZER.id


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, ByteLevelBPETokenizer, int]:
    """A tokenizer made and stored as the published one is: byte-level, its own minimum, two files."""
    chunks = smooth(400)
    coefficients = np.rint(dct(chunks, axis=1, norm="ortho") * SCALE).astype(int)
    least, most = int(coefficients.min()), int(coefficients.max())
    least = min(least, -200)  # code points beyond 127 take two bytes, as the published zero does
    bytes_ = ByteLevelBPETokenizer()
    trainer = BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=[chr(code) for code in range(most - least + 1)],
        max_token_length=10_000,
        show_progress=False,
    )
    texts = ("".join(chr(number - least) for number in chunk.flatten()) for chunk in coefficients)
    bytes_._tokenizer.train_from_iterator(texts, trainer=trainer)
    bytes_.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "action_dim": None,
        "auto_map": {"AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"},
        "min_token": least,
        "processor_class": "UniversalActionProcessor",
        "scale": 10,
        "time_horizon": None,
        "vocab_size": 1024,
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    return tmp_path, bytes_, least


def test_published_files_are_read_as_their_code_reads_them(
    published: tuple[Path, ByteLevelBPETokenizer, int],
) -> None:
    folder, bytes_, least = published
    loaded = FastTokenizer.load(folder)
    for chunk in smooth(20):
        coefficients = np.rint(dct(chunk, axis=0, norm="ortho") * 10).astype(int)
        ids = bytes_.encode("".join(chr(number - least) for number in coefficients.flatten())).ids
        assert loaded.encode(chunk) == ids
        back = loaded.decode(ids, HORIZON, DIMS)
        assert np.all(np.linalg.norm(back - chunk, axis=0) <= 0.05 * np.sqrt(HORIZON) + 1e-9)
        assert np.all(np.abs(loaded.decode(ids[1:], HORIZON, DIMS)) <= 1.0)  # may begin with half a character


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(
    published: tuple[Path, ByteLevelBPETokenizer, int], name: str
) -> None:
    folder, _, _ = published
    (folder / name).write_text("{")
    with pytest.raises(PolicyError, match=name.replace(".", r"\.")) as caught:
        FastTokenizer.load(folder)
    assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(PolicyError, match=rf"has no {name}; a FAST tokenizer needs it, there is .*\.json"):
        FastTokenizer.load(folder)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(PolicyError, match="not finite"):
        TOKENIZER.encode(np.full((HORIZON, DIMS), np.nan))
    with pytest.raises(PolicyError, match=r"0\.\.\d+; got 3\.\.99999"):
        TOKENIZER.decode([3, 99999], HORIZON, DIMS)
    with pytest.raises(
        PolicyError, match=r"vocabulary of 64 has no room for 81 coefficients; raise model\.head"
    ):
        FastTokenizer.fit(smooth(), vocabulary=64)
    with pytest.raises(PolicyError, match=r"chunks \(N, H, V\)"):
        FastTokenizer.fit(np.zeros((3, 4)))


def test_the_report_counts_tokens_and_measures_the_error() -> None:
    bins, fast = toy_checkpoint().codec, toy_checkpoint("fast").codec
    generator = np.random.default_rng(1)
    chunks = np.zeros((50, 4, 7))
    chunks[..., :2] = generator.uniform(-0.02, 0.02, (50, 1, 2))
    chunks[..., 6] = generator.integers(0, 2, (50, 1))
    uniform, other = round_trip(bins, chunks), round_trip(fast, chunks)
    assert uniform.mean_tokens == uniform.most_tokens == 28
    assert other.mean_tokens < uniform.mean_tokens
    assert uniform.worst_error["dx"] <= bins.grid.step[0] / 2 + 1e-12
    assert 0 < other.worst_error["dx"] <= 0.05 * np.sqrt(4) * 127.5 * bins.grid.step[0]
    assert uniform.clipped == 0.0
    chunks[:5, :, 0] = 0.05
    assert round_trip(bins, chunks).clipped == pytest.approx(5 / 50 / 3)


def test_what_is_no_label_repeats_the_last_one() -> None:
    actions = np.arange(8.0).reshape(2, 4, 1)
    mask = np.array([[True, True, False, False], [True, True, True, True]])
    assert repeat_last(actions, mask)[..., 0].tolist() == [[0, 1, 1, 1], [4, 5, 6, 7]]
