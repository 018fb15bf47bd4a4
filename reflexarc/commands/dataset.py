"""`reflexarc dataset ACTION`: work on recorded sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from reflexarc.commands.dataset_edit import EDIT_COMMANDS
from reflexarc.commands.dataset_lint import lint
from reflexarc.commands.options import JsonPath, console, tracked, write_json
from reflexarc.configs.errors import LogError
from reflexarc.wire.messages import ImageEncoding

Columns = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="COLUMN=FIELD,..."),
    tyro.conf.UseAppendAction,
]


def repair(path: tyro.conf.Positional[Path], json: JsonPath = None) -> None:
    """Make logs whole that a crash, a power cut or a bad disk has left damaged; all that can be believed is kept.

    Example: reflexarc dataset repair runs/collect-20260101-120000

    A repaired log stays marked as cut, and the damaged file is kept beside it as NAME.mcap.damaged. The session's
    index is made anew. Logs that are whole are not touched.

    Args:
        path: an episode log, or a folder of them.
    """
    from rich.table import Table

    from reflexarc.datasets.repair import repair as repair_log
    from reflexarc.datasets.session import Session, episode_logs

    logs = [path] if path.is_file() else episode_logs(path)
    if not logs:
        raise LogError(f"{path}: no episode log (.mcap) there")
    table = Table("log", "now", "messages", "missing", "what was wrong")
    figures: list[dict[str, Any]] = []
    for log in tracked(logs, "repairing"):
        try:
            done = repair_log(log)
            now, row = ("repaired" if done.reason else "whole"), (done.messages, done.lost, done.reason)
        except LogError as error:
            now, row = "not repaired", (0, 0, str(error).removeprefix(f"{log}: "))
        figures.append({"log": str(log), "now": now, "messages": row[0], "missing": row[1], "reason": row[2]})
        if now != "whole":
            table.add_row(log.name, now, str(row[0]), str(row[1]), row[2])
    if table.row_count:
        console.print(table)
    counts = {
        now: sum(item["now"] == now for item in figures) for now in ("whole", "repaired", "not repaired")
    }
    console.print(", ".join(f"{count} {now}" for now, count in counts.items()))
    write_json(json, figures)
    Session(path if path.is_dir() else path.parent)
    if counts["not repaired"]:
        raise LogError(f"{counts['not repaired']} of {len(logs)} logs could not be repaired")


def export(
    session: tyro.conf.Positional[Path],
    /,
    out: Path,
    cameras: tuple[str, ...] = ("front", "wrist"),
    step_s: float = 0.1,
    codec: str = "auto",
    robot: str = "panda",
    all_episodes: bool = False,
    version: Literal["v3", "v2.1"] = "v3",
    json: JsonPath = None,
) -> None:
    """Write episodes as a LeRobotDataset that lerobot, openpi and others train on, and read all of it back.

    Example: reflexarc dataset export runs/data --out runs/data-lerobot

    For openpi: reflexarc dataset export runs/data --out runs/data-openpi --version v2.1

    Rows and labels are those that `reflexarc train` uses. An interrupted export goes on where it was.

    Args:
        session: a folder of episode logs.
        out: the new data set.
        cameras: whose pictures it holds.
        step_s: seconds from row to row.
        codec: `auto` (AV1, or H.264 where the machine cannot), an encoder of FFmpeg's, or `png` for lossless pictures.
        robot: its name in the data set.
        all_episodes: whole episodes that failed or were not judged as well.
        version: of LeRobot's format; tools that pin an older lerobot, as openpi, read v2.1 only.
    """
    quiet_lerobot()
    from reflexarc.configs.action import tcp_delta_spec
    from reflexarc.datasets.lerobot_export import export as export_session

    spec = tcp_delta_spec(1, step_s)
    done = export_session(
        session,
        out,
        spec,
        cameras,
        codec=codec,
        robot=robot,
        all_episodes=all_episodes,
        version=version,
        progress=lambda entries: tracked(entries, "exporting"),
    )
    picture = "lossless" if done.worst_psnr_db == inf else f"worst picture {done.worst_psnr_db:.1f} dB"
    console.print(f"{done.folder}: {done.episodes} episodes, {done.frames} frames, all read back; {picture}")
    if done.left_out:
        console.print("left out: " + ", ".join(f"{count} {why}" for why, count in done.left_out.items()))
    figures = {"folder": str(done.folder), "episodes": done.episodes, "frames": done.frames}
    write_json(json, figures | {"left_out": done.left_out})


def import_(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    state: Columns = (),
    action: Columns = (),
    state_gripper: tuple[float, float] = (0.0, 1.0),
    action_gripper: tuple[float, float] = (0.0, 1.0),
    delta_scale: tuple[float, float] = (1.0, 1.0),
    arm: str = "",
    cameras: tuple[str, ...] = (),
    fps: float = 0.0,
    task: str = "",
    instruction: str = "",
    success: bool = True,
    encoding: ImageEncoding = "png",
    json: JsonPath = None,
) -> None:
    """Make episode logs of a data set: one exported from here, or others' LeRobotDatasets (v2, v3) and HDF5 files.

    Example: reflexarc dataset import runs/data-lerobot --out runs/data-again

    Of others: reflexarc dataset import lift.hdf5 --out runs/lift --instruction "lift the cube"
    --state obs/robot0_eef_pos=position --state obs/robot0_eef_quat=quat_xyzw
    --action actions=delta_position,delta_rotvec,gripper --action-gripper 1 -1 --delta-scale 0.05 0.5

    What comes from `reflexarc dataset export` needs nothing else and is equal to the bit. Of others, say what their
    columns mean, in the order of their numbers; without, an error lists the columns (docs/data.md lists the fields).

    Args:
        source: the data set's folder, or an HDF5 file.
        out: the new session.
        state: COLUMN=FIELD,FIELD of what the arm did; repeatable.
        action: COLUMN=FIELD,FIELD of what was asked of it; repeatable.
        state_gripper: values of closed and of open in a state.
        action_gripper: values of closed and of open in an action.
        delta_scale: metres and radians that a delta of 1 means.
        arm: preset or file of the robot, where poses follow from its joints.
        cameras: which to take; all if none is named.
        fps: rows a second, where the data set does not tell.
        task: name of the task, on record.
        instruction: what the arm was told, instead of the data set's own words.
        success: whether these are demonstrations to learn from.
        encoding: of the pictures in the logs.
    """
    from reflexarc.foreign import named_arm, open_foreign, was_exported_here

    def following(episodes: Sequence[int]) -> Iterator[int]:
        return tracked(episodes, "importing")

    if (source / "meta").is_dir():
        quiet_lerobot()
    from reflexarc.datasets.foreign import Meaning, import_foreign

    meaning = Meaning(
        state=state,
        action=action,
        state_gripper=state_gripper,
        action_gripper=action_gripper,
        delta_scale=delta_scale,
        cameras=cameras,
        task=task,
        instruction=instruction,
        success=success,
        encoding=encoding,
    )
    if was_exported_here(source):
        from reflexarc.datasets.lerobot_import import import_dataset

        if meaning != Meaning(state=(), action=()) or arm or fps:
            raise LogError(
                f"{source} was exported from here: it tells itself what it holds; leave out all options but --out"
            )
        logs = import_dataset(source, out, progress=following)
    else:
        logs = import_foreign(open_foreign(source, fps), meaning, out, named_arm(arm), progress=following)
    console.print(f"{out}: {len(logs)} episodes")
    write_json(json, [str(log) for log in logs])


def quiet_lerobot() -> None:
    """What encoder and tables report of each file would bury our own lines. Raises LogError without lerobot."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up
    try:
        import av
        import lerobot  # noqa: F401
    except ImportError as error:
        raise LogError(f"this needs the extra [lerobot]: {error}") from error
    av.logging.set_libav_level(av.logging.ERROR)


DATASET_COMMANDS: dict[str, Callable[..., Any]] = {
    **EDIT_COMMANDS,
    "lint": lint,
    "repair": repair,
    "export": export,
    "import": import_,
}


def dataset() -> None:
    """Work on recorded sessions: `reflexarc dataset --help` lists how."""
