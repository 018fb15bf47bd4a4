"""`reflexarc dataset info | stats | filter | merge | split | relabel | delete`: look at sessions, put them in order."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.markup import escape

from reflexarc.commands.options import JsonPath, console, tracked, write_json
from reflexarc.configs.errors import LogError

MOST_LINES = 12
"""Of one table; the figures (`--json`) have them all."""


def info(session: tyro.conf.Positional[Path], /, json: JsonPath = None) -> None:
    """Tell what is in a session: episodes, hours, tasks, words, outcomes, cameras, robots, limits, versions.

    Example: reflexarc dataset info runs/data

    Nothing is written. Logs that cannot be read are listed with the reason, and make the command fail.

    Args:
        session: a folder of episode logs, or one log.
    """
    from reflexarc.datasets.summary import overview, survey

    found = survey(session, tracked)
    if found.episodes:
        figures = overview(found.episodes)
        _show_overview(session, figures)
        figures["unreadable"] = {str(log): reason for log, reason in found.unreadable.items()}
        figures["logs"] = [dataclasses.asdict(each) | {"log": str(each.log)} for each in found.episodes]
        write_json(json, figures)
    for each in [each for each in found.episodes if each.is_cut][:MOST_LINES]:
        console.print(escape(f"cut short: {each.log}"), soft_wrap=True)
    for log, reason in found.unreadable.items():
        console.print(f"[red]cannot be read[/red]: {escape(f'{log}: {reason}')}", soft_wrap=True)
    if found.unreadable:
        total = len(found.unreadable) + len(found.episodes)
        raise LogError(f"{len(found.unreadable)} of {total} logs of {session} cannot be read")


def stats(
    session: tyro.conf.Positional[Path],
    /,
    cameras: tuple[str, ...] = (),
    step_s: float = 0.1,
    all_episodes: bool = False,
    json: JsonPath = None,
) -> None:
    """Exact statistics of every dimension of labels and states, over the rows that training and export use.

    Example: reflexarc dataset stats runs/data --json stats.json

    Args:
        session: a folder of episode logs.
        cameras: whose pictures a row needs; default those that all episodes have.
        step_s: seconds from row to row.
        all_episodes: whole episodes that failed or were not judged as well.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from reflexarc.configs.action import tcp_delta_spec
    from reflexarc.datasets.statistics import session_statistics

    if not 0 < step_s <= 2:
        raise LogError(f"step_s is {step_s}; must be above 0 and at most 2")
    figures = session_statistics(
        session, tcp_delta_spec(1, step_s), cameras, all_episodes=all_episodes, progress=tracked
    )
    for kind in ("labels", "states"):
        order = ("min", "q01", "mean", "std", "q99", "max")
        table = Table(kind, "unit", box=SIMPLE_HEAD, padding=0, collapse_padding=True)
        for figure in order:
            table.add_column(figure, justify="right", min_width=9)
        for name, row in figures[kind].items():
            table.add_row(name, row["unit"], *(f"{row[figure]:.4f}" for figure in order))
        console.print(table)
    table = Table("task", "episodes", "rows", "labels")
    for task, counts in figures["tasks"].items():
        table.add_row(
            escape(task or "unknown"), *(str(counts[name]) for name in ("episodes", "rows", "labels"))
        )
    console.print(table)
    write_json(json, figures)


def filter_(
    session: tyro.conf.Positional[Path],
    /,
    out: Path,
    task: tuple[str, ...] = (),
    instruction: tuple[str, ...] = (),
    policy: tuple[str, ...] = (),
    success: tuple[Literal["true", "false", "unjudged"], ...] = (),
    source: tuple[str, ...] = (),
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    max_takeovers: int | None = None,
    max_interventions: int | None = None,
    cut: Literal["true", "false"] | None = None,
    copy: bool = False,
    json: JsonPath = None,
) -> None:
    """Make a new session of the episodes that meet all criteria; the old one stays as it is.

    Example: reflexarc dataset filter runs/data --out runs/good --task lift place --success true --min-seconds 2

    Args:
        session: a folder of episode logs.
        out: the new session.
        task: any of these tasks.
        instruction: any of these, word for word.
        policy: who was to drive, any of these, e.g. expert or reflexarc-tiny.
        success: any of these outcomes.
        source: who was in control at some time, any of these: policy, human, expert, perturb, ….
        min_seconds: of an episode, from its first state to its last.
        max_seconds: the same.
        max_takeovers: how often at most a person took the arm from somebody.
        max_interventions: in how many ticks at most safety changed a command.
        cut: whether the log was cut short.
        copy: copy logs even where the file system could link them.
    """
    from reflexarc.datasets.edit import filter_session
    from reflexarc.datasets.selection import Criteria

    criteria = Criteria(
        tasks=task,
        instructions=instruction,
        policies=policy,
        success=success,
        sources=source,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        max_takeovers=max_takeovers,
        max_interventions=max_interventions,
        is_cut=None if cut is None else cut == "true",
    )
    chosen, total = filter_session(session, out, criteria, copy=copy, progress=tracked)
    console.print(f"{escape(str(out))}: {chosen} of {total} episodes")
    write_json(json, {"session": str(out), "chosen": chosen, "episodes": total})


def merge(
    sessions: tyro.conf.Positional[tuple[Path, ...]], /, out: Path, copy: bool = False, json: JsonPath = None
) -> None:
    """Make one session of several; they stay as they are.

    Example: reflexarc dataset merge runs/monday runs/tuesday --out runs/both

    Logs whose name is taken get a number, and what is there byte for byte is not taken twice. Sessions of different
    robots, action spaces, rates or pictures are refused.

    Args:
        sessions: two folders of episode logs, or more.
        out: the new session.
        copy: copy logs even where the file system could link them.
    """
    from reflexarc.datasets.edit import merge as merge_sessions

    merged = merge_sessions(sessions, out, copy=copy, progress=tracked)
    renamed = sum(Path(name).name != log.name for name, log in merged.names.items())
    text = f"{out}: {len(merged.names)} episodes of {len(sessions)} sessions, {renamed} renamed"
    if merged.left_out:
        text += f"; {len(merged.left_out)} left out that are there already, byte for byte"
    console.print(escape(text), soft_wrap=True)
    figures = {
        "session": str(out),
        "logs": {name: str(log) for name, log in merged.names.items()},
        "left_out": [str(log) for log in merged.left_out],
    }
    write_json(json, figures)


def split(
    session: tyro.conf.Positional[Path],
    /,
    out: Path,
    parts: str = "train=0.9,val=0.1",
    seed: int = 0,
    copy: bool = False,
    json: JsonPath = None,
) -> None:
    """Share the episodes of a session out to new ones, every task alike, no episode in two; it stays as it is.

    Example: reflexarc dataset split runs/data --out runs/parts --parts train=0.8,val=0.1,test=0.1 --seed 1

    The same logs, parts and seed give the same split.

    Args:
        session: a folder of episode logs.
        out: folder of the new sessions, one a part.
        parts: name and share of each, which add up to 1.
        seed: draws who goes where.
        copy: copy logs even where the file system could link them.
    """
    from rich.table import Table

    from reflexarc.datasets.edit import split as split_session

    if seed < 0:
        raise LogError(f"seed is {seed}; must be at least 0")
    shared = split_session(session, out, parse_parts(parts), seed, copy=copy, progress=tracked)
    tasks = sorted({each.task for chosen in shared.values() for each in chosen})
    table = Table("part", "episodes", *(escape(task or "unknown") for task in tasks))
    counts = {
        part: {task: sum(each.task == task for each in chosen) for task in tasks}
        for part, chosen in shared.items()
    }
    for part, row in counts.items():
        table.add_row(part, str(sum(row.values())), *(str(row[task]) for task in tasks))
    console.print(table)
    write_json(
        json,
        {
            "session": str(out),
            "counts": counts,
            "parts": {
                part: sorted(each.log.relative_to(session).as_posix() for each in chosen)
                for part, chosen in shared.items()
            },
        },
    )


def relabel(
    logs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    success: Literal["true", "false"] | None = None,
    instruction: str | None = None,
    task: str | None = None,
    json: JsonPath = None,
) -> None:
    """Put right whether episodes succeeded, what the arm was told to do, or which task it was.

    Example: reflexarc dataset relabel runs/data/lift/000000003.mcap --success false

    Example: reflexarc dataset relabel runs/monday --instruction "put the cup on the shelf" --task shelf

    Labels stand in a log's metadata; no message of it changes, and what they were stays on record there. Each log is
    replaced by one that is whole, so an interrupted run can be made again.

    Args:
        logs: episode logs, or folders of them.
        success: whether they succeeded.
        instruction: what the arm was told to do.
        task: the name of the task.
    """
    from reflexarc.datasets.relabel import Labels, relabel_all
    from reflexarc.datasets.session import Session, session_of

    chosen = find_logs(logs)
    labels = Labels(None if success is None else success == "true", instruction, task)
    sessions = {session_of(log) for log in chosen} | {place for place in logs if place.is_dir()}
    try:
        was = relabel_all(chosen, labels, tracked)
    finally:
        for folder in sessions:
            Session(folder)  # which makes its index anew
    changed = {log: old for log, old in was.items() if old}
    for log, old in list(changed.items())[:MOST_LINES]:
        text = ", ".join(f"{name} was {value!r}" for name, value in old.items())
        console.print(escape(f"{log}: {text}"), soft_wrap=True)
    if len(changed) > MOST_LINES:
        console.print(f"… and {len(changed) - MOST_LINES} more")
    console.print(f"{len(changed)} relabelled, {len(was) - len(changed)} had these labels already")
    write_json(json, {str(log): old for log, old in was.items()})


def delete(logs: tyro.conf.Positional[tuple[Path, ...]], /, yes: bool = False, json: JsonPath = None) -> None:
    """Take logs out of their session, recoverably: they are moved to its folder `discarded/`.

    Example: reflexarc dataset delete runs/data/lift/000000003.mcap runs/data/lift/000000007.mcap

    Nothing reads what is in there, neither training nor export. To have a log back, move it to where it was.

    Args:
        logs: episode logs.
        yes: do not ask.
    """
    from rich.prompt import Confirm

    from reflexarc.datasets.edit import check_deletable
    from reflexarc.datasets.edit import delete as delete_logs

    check_deletable(logs)
    if not yes:
        try:
            yes = Confirm.ask(f"Move {len(logs)} log{'s' * (len(logs) > 1)} to discarded/?", console=console)
        except EOFError as error:
            console.print()
            raise LogError("nobody is here to answer; --yes deletes without asking") from error
    if not yes:
        console.print("nothing is deleted")
        return
    places = delete_logs(logs)
    for log, place in places.items():
        console.print(escape(f"{log} is now {place}"), soft_wrap=True)
    write_json(json, {str(log): str(place) for log, place in places.items()})


def find_logs(places: tuple[Path, ...]) -> list[Path]:
    """Files as they are, folders searched, each log once. Raises LogError where there is none."""
    from reflexarc.datasets.session import episode_logs

    logs: dict[Path, None] = {}
    for place in places:
        found = episode_logs(place) if place.is_dir() else [place] if place.is_file() else []
        if not found:
            raise LogError(f"{place}: no episode log (.mcap) there")
        logs |= dict.fromkeys(found)
    if not logs:
        raise LogError("no episode log is named")
    return list(logs)


def parse_parts(text: str) -> dict[str, float]:
    """`train=0.9,val=0.1` as names and shares. Raises LogError where it is not like that."""
    parts: dict[str, float] = {}
    for item in text.split(","):
        name, equals, share = item.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            equals = ""
        if not equals or name in parts:
            raise LogError(f"parts are {text!r}, wrong at {item.strip()!r}; write them as train=0.9,val=0.1")
        parts[name] = value
    return parts


def _show_overview(session: Path, figures: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("session", escape(str(session)))
    verdicts = figures["verdicts"]
    listed = functools.partial(_listed, total=figures["episodes"])
    lines = {
        "episodes": f"{figures['episodes']}: {verdicts['true']} succeeded, {verdicts['false']} failed, "
        f"{verdicts['unjudged']} unjudged; {len(figures['cut'])} cut short",
        "length": _length(figures["hours"]),
        "size": f"{figures['bytes'] / 1e6:.1f} MB, {figures['messages']} messages",
        "robot": listed(figures["robots"]),
        "action space": listed(figures["action_spaces"]),
        "policy": listed(figures["policies"]),
        "in control": f"{listed(figures['sources'])}; {figures['takeovers']} takeovers by a person",
        "safety limits": listed({name[:12]: count for name, count in figures["limits"].items()}),
        "versions": listed(figures["versions"]),
    }
    for name, text in lines.items():
        table.add_row(name, escape(text))
    console.print(table)
    table = Table("task", "episodes", "length", "succeeded", "failed", "unjudged")
    for task, group in figures["tasks"].items():
        counts = [str(group["verdicts"][name]) for name in ("true", "false", "unjudged")]
        table.add_row(escape(task or "unknown"), str(group["episodes"]), _length(group["hours"]), *counts)
    console.print(table)
    table = Table("camera", "episodes", "size", "Hz")
    for name, camera in figures["cameras"].items():
        slowest, fastest = camera["rate_hz"]
        rate = f"{slowest:.1f}" if fastest - slowest < 0.05 else f"{slowest:.1f} to {fastest:.1f}"
        table.add_row(
            escape(name), str(camera["episodes"]), _listed(camera["sizes"], camera["episodes"]), rate
        )
    console.print(table)
    table = Table("instruction", "episodes")
    for text, count in list(figures["instructions"].items())[:MOST_LINES]:
        table.add_row(escape(text), str(count))
    more = len(figures["instructions"]) - MOST_LINES
    if more > 0:
        table.add_row(f"… and {more} more", "")
    console.print(table)


def _listed(counts: Mapping[str, int], total: int) -> str:
    """Names, each with in how many episodes it is where that is not all of them."""
    shown = [name if count == total else f"{name} ({count})" for name, count in counts.items()]
    if len(shown) > MOST_LINES:
        shown[MOST_LINES:] = [f"… and {len(shown) - MOST_LINES} more"]
    return ", ".join(shown) or "unknown"


def _length(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 3600:.1f} s"


EDIT_COMMANDS: dict[str, Callable[..., Any]] = {
    "info": info,
    "stats": stats,
    "filter": filter_,
    "merge": merge,
    "split": split,
    "relabel": relabel,
    "delete": delete,
}
