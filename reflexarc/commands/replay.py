"""`reflexarc replay`: repeat an episode in simulation, on a robot, or put its observations to a policy again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.markup import escape
from rich.table import Table

from reflexarc.commands.options import AS_SET, JsonPath, Placed, console, fresh_folder, write_json
from reflexarc.configs.errors import LogError, PolicyError
from reflexarc.configs.placement import Placement
from reflexarc.wire.endpoints import BASE_PORT

if TYPE_CHECKING:
    from reflexarc.policy_replay import PolicyReplay


def replay(
    log: tyro.conf.Positional[tuple[Path, ...]],
    sim: bool = False,
    policy: str = "",
    tolerance: float = 0.0,
    picture: Path | None = None,
    robot: bool = False,
    speed: float = 1.0,
    approach: bool = False,
    port: int = BASE_PORT,
    arm: str = "panda",
    safety: str = "panda",
    out: Path | None = None,
    placement: Placed = AS_SET,
    json: JsonPath = None,
) -> None:
    """Re-simulate logged episodes to the bit, send them to a robot, or ask a policy what the log's policy was asked.

    Example: reflexarc replay runs/demo-*/episodes/*.mcap

    Another example, a golden test of a checkpoint: reflexarc replay runs/demo-*/episodes/*.mcap --policy reflexarc-tiny

    On a robot, a simulated arm here: reflexarc replay LOG.mcap --robot --port 27100 --speed 0.5

    With neither, the initial state and the controls are simulated again and compared with the logged states. With a
    policy, its tokens and actions are compared with the logged ones: of one log answer by answer, of several a line
    each. With a robot, the logged setpoints pass its safety filter like a policy's; Ctrl-C holds the arm; the replay is
    recorded itself.

    Args:
        log: episode logs.
        sim: simulate again, as without any of the others.
        policy: an embedded checkpoint or a checkpoint folder that answers the log's observations.
        tolerance: with `policy`: the largest difference of an action that passes, as a share of its bounds.
        picture: with `policy`: folder for a plot (PNG) of each log.
        robot: replay one log on the robot whose host runs at `port`.
        speed: with `robot`: of the logged speed, 0.1 to 1.
        approach: with `robot`: drive slowly to where the log begins, if the arm is not there.
        port: with `robot`: first port of its run, see `reflexarc robot`.
        arm: with `robot`: preset or file of the robot.
        safety: with `robot`: preset or file of safety limits, for the record; its host has its own.
        out: with `robot`: folder for the new log.
        placement: with `policy`: where its model runs and in what numbers.
    """
    if not log:
        raise LogError("name at least one episode log (.mcap) to replay")
    if sim + robot + bool(policy) > 1:
        raise LogError("--sim, --robot and --policy are three ways to replay; choose one")
    if robot:
        if len(log) > 1:
            raise LogError(f"--robot replays one log at a time; {len(log)} are named")
        drive(log[0], speed, approach, port, (arm, safety), out, json)
    elif policy:
        replay_with(policy, log, tolerance, picture, json, placement)
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
        figures.append(
            {
                "log": str(path),
                "steps": result.steps,
                "max_qpos_error": result.max_qpos_error,
                "note": result.note,
            }
        )
    write_json(json, figures)
    if any(item["max_qpos_error"] for item in figures):
        raise LogError("a replay differs from its log; the same MuJoCo build and CPU type give 0")


def drive(
    log: Path,
    speed: float,
    approach: bool,
    port: int,
    presets: tuple[str, str],
    out: Path | None,
    json: Path | None,
) -> None:
    """On a robot; the table tells how far it then was from the log. presets: of the arm and of its limits."""
    from reflexarc.robot_replay import replay_on_robot
    from reflexarc.setup import load_setup
    from reflexarc.wire.endpoints import Endpoints

    setup = load_setup(robot=presets[0], safety=presets[1])
    with fresh_folder("replay", out) as folder:
        result = replay_on_robot(
            log,
            Endpoints(base_port=port),
            setup,
            folder,
            speed=speed,
            may_approach=approach,
            say=console.print,
        )
    table = Table("joint", "largest difference", "at", title=f"{log.name}: replayed against logged position")
    for each in result.differences:
        mark = " *" if each is result.worst else ""
        table.add_row(each.joint, f"{each.rad * 1e3:.1f} mrad{mark}", f"{each.at_s:.2f} s")
    table.add_row("TCP", f"{result.tcp_m * 1e3:.1f} mm", "")
    console.print(table)
    limits = ", ".join(f"{rule} {count}" for rule, count in sorted(result.limited.items())) or "nothing"
    console.print(f"{result.logged_s:.2f} s of the log in {result.seconds:.2f} s; safety limited: {limits}")
    console.print(f"log: {result.log}")
    write_json(json, dataclasses.asdict(result))


def replay_with(
    name: str,
    logs: tuple[Path, ...],
    tolerance: float,
    picture: Path | None,
    json: Path | None,
    placement: Placement,
) -> None:
    """Answers again; PolicyError if they are further apart than `tolerance`."""
    from reflexarc.policies import open_policy
    from reflexarc.policy_replay import draw, figures, replay_policy

    policy = open_policy(name, placement=placement)
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
    if len(done) == 1:
        console.print(_by_answer(done[0]))
    console.print(table)
    if picture is not None:
        console.print(f"plots: {picture}")
    write_json(json, [figures(result) for result in done])
    beyond = max(done, key=lambda result: result.worst.error)
    if not beyond.worst.error <= tolerance:  # nor is a tolerance of NaN one that passes
        raise PolicyError(
            f"{name} differs from {beyond.log} by {beyond.worst.error:.3g} of the bounds of {beyond.worst.dim}; "
            f"tolerance {tolerance:g}"
        )


def _by_answer(result: PolicyReplay) -> Table:
    """Every answer of one log: how many tokens differ, and how far the actions are apart."""
    table = Table(
        "at", "tokens that differ", "mm", "mrad", "opening", "worst", "of", title=escape(result.log.name)
    )
    for each in result.answers:
        table.add_row(
            f"{each.time_s:.2f} s",
            f"{each.tokens_differ} of {each.tokens}",
            f"{each.metres * 1e3:.3g}",
            f"{each.radians * 1e3:.3g}",
            f"{each.opening:.3g}",
            f"{each.error:.3g}",
            each.dim if each.error else "",
        )
    return table
