"""The benchmark runs on a processor, its variants agree, and it tells what it could not measure."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inference() -> Any:
    """The script as a module: in a process of its own the imports take longer than the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("inference")


@pytest.fixture(scope="module")
def benchmark(
    inference: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict[str, Any]], str]:
    """Figures by shape, and what was printed."""
    place = tmp_path_factory.mktemp("benchmark") / "figures.json"
    shapes = ["--shape", "tiny", "pi0-small", "own-small"]
    arguments = ["inference.py", *shapes, "--runs", "2", "--no-compile", "--device", "cpu"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [*arguments, "--json", str(place)])
        inference.main()
    return {each["shape"]: each for each in json.loads(place.read_text())["shapes"]}, printed.getvalue()


@pytest.mark.parametrize(
    ("shape", "variants", "within"),
    [
        ("tiny", {"tokens: transformers generate", "tokens: ours, eager", "chunk: ours, eager"}, 1e-5),
        ("pi0-small", {"chunk: lerobot", "chunk: ours, eager"}, 1e-4),
        ("own-small", {"chunk: ours, both pictures seen before", "words first: ours, kept"}, 1e-5),
    ],
)
def test_all_variants_in_one_run(
    benchmark: tuple[dict[str, dict[str, Any]], str], shape: str, variants: set[str], within: float
) -> None:
    figures, said = benchmark[0][shape], benchmark[1]
    assert variants <= set(figures["times_ms"])
    for name, row in figures["percentiles_ms"].items():
        assert 0 < row["p50"] <= row["p99"], name
        assert name in said
    assert figures["floor"]["chunk_floor_ms"] > 0
    difference = next(value for key, value in figures["agreement"].items() if key.endswith("difference"))
    assert difference < within
    assert {"preprocess", "vision"} <= set(figures["stages_ms"])


def test_bars_that_a_processor_cannot_show_are_not_met(inference: Any) -> None:
    import torch

    row = {"p50": 1e-3, "p99": 1e-3}
    names = ["tokens: transformers generate", "tokens: ours, eager", "chunk: ours, eager"]
    for shape in ("openvla", "pi0"):
        figures = {
            "shape": shape,
            "percentiles_ms": dict.fromkeys(names, row),
            "floor": {"tokens_floor_ms": 1.0},
        }
        told = inference.bars(figures, torch.device("cpu"))
        assert told
        assert all(bar["figure"] is None and bar["met"] is None for bar in told)
