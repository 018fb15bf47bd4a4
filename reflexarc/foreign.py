"""Which importer a data set of others takes, and the arm that its joints are of."""

from __future__ import annotations

from pathlib import Path

from reflexarc.configs.errors import LogError
from reflexarc.configs.load import load_robot
from reflexarc.datasets.foreign import Arm, ForeignDataset


def was_exported_here(source: Path) -> bool:
    """Whether the data set holds all that a log is made of, as `reflexarc dataset export` writes it in version 3."""
    if not (source / "meta").is_dir():
        return False
    from reflexarc.datasets.lerobot_export import OURS

    return (source / OURS).exists() and not (source / "meta" / "episodes.jsonl").exists()


def open_foreign(source: Path, fps: float = 0.0) -> ForeignDataset:
    """The data set at `source`, by what stands there. fps: of HDF5 files that do not tell it; 0 if nobody says.

    Raises LogError naming what can be imported if it is none of that, and whatever the importer finds wrong.
    """
    if not source.exists():
        raise LogError(f"{source}: no such file or folder")
    if (source / "meta").is_dir() or (source / "data").is_dir():
        from reflexarc.datasets.foreign_lerobot import open_lerobot

        dataset = open_lerobot(source)
        if fps and fps != dataset.fps:
            raise LogError(
                f"{source}: info.json says {dataset.fps:g} rows a second, --fps {fps:g}; leave --fps out"
            )
        return dataset
    if source.is_file() or any(source.rglob("*.hdf5")) or any(source.rglob("*.h5")):
        from reflexarc.datasets.foreign_hdf5 import hdf5_files, open_hdf5

        if hdf5_files(source):
            return open_hdf5(source, fps)
    raise LogError(
        f"{source}: neither a LeRobotDataset (a folder with meta/info.json) nor HDF5 (.hdf5, .h5); nothing else "
        f"can be imported"
    )


def named_arm(name: str) -> Arm | None:
    """The arm of a preset or file; None for an empty name."""
    if not name:
        return None
    from reflexarc.safety.kinematics import Kinematics

    config = load_robot(name)
    kinematics = Kinematics(config)
    return Arm(
        name=config.name,
        joints=len(config.joints),
        pose_of=lambda joints: kinematics.view(joints).pose,
        config=config.model_dump(mode="json"),
    )
