"""Evaluation and collection: repeatable, independent of the workers, on seeds that never meet."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from reflexarc import collect as collection
from reflexarc import evaluate as evaluation
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import ConfigError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import sample_episode
from reflexarc.record import limits_hash
from reflexarc.replay import replay
from reflexarc.setup import load_setup


def test_wilson_interval_matches_a_hand_computed_one() -> None:
    low, high = evaluation.wilson_interval(46, 50)
    assert low == pytest.approx(0.8116, abs=2e-4)
    assert high == pytest.approx(0.9685, abs=2e-4)
    assert evaluation.wilson_interval(0, 10)[0] == 0.0
    assert math.isclose(evaluation.wilson_interval(10, 10)[1], 1.0)


def test_the_expert_succeeds_and_the_figures_do_not_depend_on_the_batches() -> None:
    setup = load_setup()
    by_one = evaluation.evaluate("expert", ("reach", "button"), episodes=3, seed=1, setup=setup, workers=1)
    jobs = [
        evaluation.EvalJob("reach", "expert", 1, index, 1, "given", "0", setup, None) for index in (2, 1, 0)
    ]
    apart = sorted(
        (item for job in jobs for item in evaluation.evaluate_batch(job)), key=lambda item: item.index
    )
    assert [item for item in by_one if item.task == "reach"] == apart
    summary = evaluation.summarise(by_one)
    assert summary["reach"]["episodes"] == 3
    assert summary["reach"]["success_rate"] == 1.0
    assert all(item.seed >= collection.EVALUATION_SEED_BASE for item in by_one)


def test_what_was_seen_are_the_scenes_of_the_demonstrations() -> None:
    setup = load_setup()
    (item,) = evaluation.evaluate(
        "expert", ("button",), episodes=1, seed=3, setup=setup, workers=1, seen=True
    )
    assert item.seed == 3 * collection.EPISODE_SEEDS
    assert item.success


def test_another_wording_is_told_but_not_judged() -> None:
    setup = load_setup()
    told = {
        wording: evaluation.evaluate_batch(
            evaluation.EvalJob("button", "expert", 0, 0, 1, wording, "0", setup, None)
        )[0]
        for wording in ("given", "blank", "other")
    }
    assert told["blank"].told == ""
    assert told["other"].told not in ("", told["given"].told)
    assert all(item.success for item in told.values())  # the expert looks at the world's own goal


@pytest.mark.parametrize(("suite", "task"), [("tabletop", "lfit"), ("kitchen", "lift")])
def test_an_unknown_suite_or_task_lists_the_known_ones(suite: str, task: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown (task|suite) '.*'; known: .*"):
        evaluation.suite_tasks(suite, (task,))


def test_collection_keeps_what_is_there_and_refuses_evaluation_seeds(tmp_path: Path) -> None:
    setup = load_setup(overrides=("controller.execute_steps=1",))
    first = collection.collect(("lift",), episodes=2, seed=3, out=tmp_path, setup=setup, share=1.0, workers=1)
    kept = [item for item in first if item.status == "kept"]
    assert kept
    assert not list(tmp_path.rglob("*.unfinished"))
    again = collection.collect(("lift",), episodes=2, seed=3, out=tmp_path, setup=setup, share=1.0, workers=1)
    assert sum(item.status == "present" for item in again) == len(kept)
    path = next(iter(tmp_path.rglob("*.mcap")))
    assert replay(path).max_qpos_error == 0.0
    assert EpisodeReader(path).metadata["safety_hash"] == limits_hash(setup.robot, setup.safety)
    samples = sample_episode(EpisodeReader(path), tcp_delta_spec(8, 0.1), ("front", "wrist"))
    assert samples.mask.any()
    assert not samples.mask.all()  # the disturbed spells and the end do not count
    with pytest.raises(ConfigError, match="evaluation seeds"):
        collection.collect(("lift",), episodes=1, seed=5000, out=tmp_path, setup=setup)


def test_an_episode_that_safety_ends_says_by_which_rule() -> None:
    setup = load_setup(overrides=("safety.force_ceiling=1.0", "safety.contact.yield_share=1.0"))
    (item,) = evaluation.evaluate("expert", ("button",), episodes=1, seed=1, setup=setup, workers=1)
    assert not item.success
    assert (item.final_safety, item.stop_rule) == ("protective_stop", "wrist_force")
    assert "above its ceiling 1 N" in item.stop_reason
    summary = evaluation.summarise([item])
    assert summary["button"]["stops"] == {"wrist_force": 1}
    with (console := Console(width=120)).capture() as table:
        evaluation.print_table(console, summary, "")
    assert "1 × wrist_force" in table.get()
