"""`reflexarc replay`: repeat a simulated episode from its log, or put its observations to a policy again."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.table import Table

from reflexarc.commands.options import JsonPath, console, write_json
from reflexarc.configs.errors import LogError, PolicyError


def replay(
    log: tyro.conf.Positional[tuple[Path, ...]],
    policy: str = "",
    tolerance: float = 0.0,
    picture: Path | None = None,
    json: JsonPath = None,
) -> None:
    """Re-simulate logged episodes to the bit, or ask a policy what the log's policy was asked.

    Example: reflexarc replay runs/demo-*/episodes/*.mcap

    Another example, a golden test of a checkpoint: reflexarc replay runs/demo-*/episodes/*.mcap --policy reflexarc-tiny

    Without a policy the initial state and the controls are simulated again and compared with the logged states. With
    one, its tokens and actions are compared with the logged ones, answer by answer.

    Args:
        log: episode logs.
        policy: an embedded checkpoint or a checkpoint folder that answers the log's observations.
        tolerance: with `policy`: the largest difference of an action that passes, as a share of its bounds.
        picture: with `policy`: folder for a plot (PNG) of each log.
    """
    if not log:
        raise LogError("name at least one episode log (.mcap) to replay")
    if policy:
        replay_with(policy, log, tolerance, picture, json)
    else:
        resimulate(log, json)


def resimulate(logs: tuple[Path, ...], json: Path | None) -> None:
    """Physics again; LogError if it differs from what was logged."""
    from reflexarc.replay import replay as run_replay

    figures = []
    for path in logs:
        result = run_replay(path)
        error = "nothing to compare with" if result.max_qpos_error is None else f"{result.max_qpos_error:g}"
        console.print(f"{path.name}: {result.steps} physics steps, max |Δqpos| = {error} {result.note}")
        figures.append({"log": str(path), "steps": result.steps, "max_qpos_error": result.max_qpos_error})
    write_json(json, figures)
    if any(item["max_qpos_error"] for item in figures):
        raise LogError("a replay differs from its log; the same MuJoCo build and CPU type give 0")


def replay_with(
    name: str, logs: tuple[Path, ...], tolerance: float, picture: Path | None, json: Path | None
) -> None:
    """Answers again; PolicyError if they are further apart than `tolerance`."""
    from reflexarc.policies import open_policy
    from reflexarc.policy_replay import draw, figures, replay_policy

    policy = open_policy(name)
    table = Table(
        "log", "answers", "equal", "tokens that differ", "worst", "of", "at", title=f"{name} against the logs"
    )
    done = []
    for path in logs:
        result = replay_policy(path, policy)
        done.append(result)
        differ = sum(answer.tokens_differ for answer in result.answers)
        total = sum(answer.tokens for answer in result.answers)
        worst = result.worst
        table.add_row(
            path.name,
            str(len(result.answers)),
            str(result.same),
            f"{differ} of {total}",
            f"{worst.error:.3g} ({worst.metres * 1e3:.3g} mm, {worst.radians * 1e3:.3g} mrad)",
            worst.dim if worst.error else "",
            f"{worst.time_s:.1f} s" if worst.error else "",
        )
        if picture is not None:
            draw(result, picture / f"{path.stem}.png")
    console.print(table)
    if picture is not None:
        console.print(f"plots: {picture}")
    write_json(json, [figures(result) for result in done])
    beyond = max(done, key=lambda result: result.worst.error)
    if beyond.worst.error > tolerance:
        raise PolicyError(
            f"{name} differs from {beyond.log} by {beyond.worst.error:.3g} of the bounds of {beyond.worst.dim}; "
            f"tolerance {tolerance:g}"
        )
