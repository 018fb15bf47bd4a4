"""Demonstrations in HDF5, in the two layouts that are common. Needs the extra `hdf5` (h5py).

robomimic (https://robomimic.github.io/docs, "Dataset Structure"), many episodes to a file: groups `data/demo_N` with
`actions` (T, W) and `obs/NAME`, pictures (T, H, W, 3) uint8 among them; the attribute `env_args` of `data` is JSON
whose `env_kwargs.control_freq` is the rate. LIBERO's files are the same, a task each, with the instruction in the
attribute `problem_info` of `data`, as JSON (Lifelong-Robot-Learning/LIBERO, `scripts/create_dataset.py`).

ALOHA (tonyzhaozh/act, `record_episodes.py`), an episode a file: `action` (T, W), `observations/qpos`,
`observations/qvel`, `observations/images/NAME`; pictures are (T, H, W, 3) uint8, or JPEG padded with zeros (T, L)
where the attribute `compress` is set. It tells no rate.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import LogError
from reflexarc.datasets.foreign import ForeignDataset, Rows, grid

try:
    import h5py
except ImportError as error:
    raise LogError("HDF5 files need h5py: pip install 'reflexarc[hdf5]'") from error

SUFFIXES = (".hdf5", ".h5")
_LEFT_OUT = ("next_obs/", "states")
"""Columns of robomimic that are others again, or the simulator's."""


def hdf5_files(path: Path) -> list[Path]:
    """`path` itself, or the HDF5 files below it, in the order of the numbers in their names."""
    if path.is_file():
        return [path] if path.suffix in SUFFIXES else []
    return sorted(
        (each for each in path.rglob("*") if each.suffix in SUFFIXES), key=lambda file: _natural(str(file))
    )


def open_hdf5(path: Path, fps: float = 0.0) -> ForeignDataset:
    """The episodes of a file, or of the files in a folder. fps: where the files do not tell it.

    Raises LogError for a file that is damaged or in neither layout, and where no rate is told.
    """
    return _Hdf5(path, hdf5_files(path), fps)


class _Hdf5:
    """Files of one layout. They are opened for each reading: an import leaves nothing open behind."""

    def __init__(self, path: Path, files: list[Path], fps: float) -> None:
        self.path = path
        if not files:
            raise LogError(f"{path}: no HDF5 file ({', '.join(SUFFIXES)}) there")
        self._places: list[tuple[Path, str]] = []
        rates: dict[Path, float] = {}
        for file in files:
            with _opened(file) as opened:
                self._places += [(file, group) for group in _episodes(opened, file)]
                rates[file] = _rate(opened)
        if not self._places:
            raise LogError(f"{path}: its files hold no episode")
        self.fps = _one_rate(path, rates, fps)
        file, group = self._places[0]
        with _opened(file) as opened:
            found = _datasets(opened[group])
            length = _length(found, f"{file}: {group}")
            films = {name: each for name, each in found.items() if _is_film(name, each, length)}
            self.cameras = {_camera(name): name for name in films}
            self.columns = {
                name: str(int(np.prod(each.shape[1:])))
                for name, each in found.items()
                if name not in films and _is_column(each, length)
            }

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, episode: int) -> Rows:
        """As `ForeignDataset`."""
        file, group = self._places[episode]
        name = f"{file.name}{group}" if len(group) > 1 else file.name
        with _opened(file) as opened:
            found = _datasets(opened[group])
            length = _length(found, f"{file}: {group}")
            told = opened[group].attrs.get("num_samples", length)
            if int(told) != length:
                raise LogError(
                    f"{file}: {group} has {length} actions; its attribute num_samples says {int(told)}"
                )
            columns = {}
            for column in self.columns:
                if column not in found:
                    raise LogError(f"{file}: {group} has no {column!r}; it has {', '.join(found)}")
                if len(found[column]) != length:
                    raise LogError(
                        f"{file}: {group}/{column} has {len(found[column])} rows for {length} actions"
                    )
                columns[column] = np.asarray(found[column][()], dtype=np.float64).reshape(length, -1)
            instruction = _instruction(opened, opened[group])
        return Rows(name, instruction, grid(length, self.fps), columns)

    def pictures(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """As `ForeignDataset`."""
        file, group = self._places[episode]
        with _opened(file) as opened:
            column = self.cameras[camera]
            if column not in opened[group]:
                raise LogError(f"{file}: {group} has no pictures {column!r}")
            length = _length(_datasets(opened[group]), f"{file}: {group}")
            if len(opened[group][column]) != length:
                raise LogError(
                    f"{file}: {group}/{column} has {len(opened[group][column])} pictures for {length} actions"
                )
            for row, stored in enumerate(opened[group][column]):
                yield stored if stored.ndim == 3 else _decoded(stored, f"{file}: {group}/{column} row {row}")


def _opened(file: Path) -> Any:
    """The file, for reading."""
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise LogError(f"{file}: not an HDF5 file that can be read: {error}") from error


def _episodes(opened: Any, file: Path) -> list[str]:
    """Names of the groups that are episodes."""
    if "action" in opened and "observations" in opened:
        return ["/"]
    if "data" in opened:
        return [f"/data/{name}" for name in sorted(opened["data"], key=_natural)]
    raise LogError(
        f"{file}: neither robomimic's layout (data/demo_0/actions) nor ALOHA's (action, observations/); "
        f"it has {', '.join(opened) or 'nothing'}"
    )


def _datasets(group: Any) -> dict[str, Any]:
    """All data sets below a group, by path."""
    found: dict[str, Any] = {}
    group.visititems(
        lambda name, each: found.update({name: each}) if isinstance(each, h5py.Dataset) else None
    )
    return {name: each for name, each in sorted(found.items()) if not name.startswith(_LEFT_OUT)}


def _length(found: dict[str, Any], where: str) -> int:
    """How many actions."""
    for name in ("actions", "action"):
        if name in found and len(found[name]):
            return len(found[name])
    raise LogError(f"{where} has no actions; it has {', '.join(found) or 'nothing'}")


def _is_film(name: str, each: Any, length: int) -> bool:
    raw = each.ndim == 4 and each.dtype == np.uint8 and each.shape[3] == 3
    packed = "images/" in name and (each.ndim == 1 or (each.ndim == 2 and each.dtype == np.uint8))
    return len(each) == length and (raw or packed)


def _is_column(each: Any, length: int) -> bool:
    return each.ndim in (1, 2) and len(each) == length and each.dtype.kind in "fiub"


def _camera(column: str) -> str:
    """`cam_high` of `observations/images/cam_high`, `agentview` of `obs/agentview_image`."""
    return re.sub(r"_(image|rgb)$", "", column.rsplit("/", 1)[-1])


def _rate(opened: Any) -> float:
    """The rate that a file of robomimic tells; 0 if it tells none."""
    arguments = _json(opened["data"].attrs.get("env_args", "{}")) if "data" in opened else {}
    rate = arguments.get("env_kwargs", {}).get("control_freq", 0.0)
    return float(rate) if isinstance(rate, int | float) else 0.0


def _one_rate(path: Path, rates: dict[Path, float], fps: float) -> float:
    """The rate of all the files; `fps` where they tell none. LogError if what is told contradicts itself."""
    told = {file: rate for file, rate in rates.items() if rate}
    rate = next(iter(told.values()), fps)
    if not rate > 0:
        raise LogError(f"{path}: its files tell no frame rate; give it by --fps (ALOHA records at 50)")
    for file, other in told.items():
        if other != rate:
            raise LogError(
                f"{file}: {other:g} rows a second, {next(iter(told))} has {rate:g}; import files of one rate together"
            )
    if fps and fps != rate:
        raise LogError(f"{path}: its files tell {rate:g} rows a second, --fps says {fps:g}; leave it out")
    return rate


def _instruction(opened: Any, group: Any) -> str:
    """What LIBERO's files tell, or an attribute of the episode's own; empty if there is none.

    LIBERO's is a text or the list of its parts, in quotes or not.
    """
    problem = _json(opened["data"].attrs.get("problem_info", "{}")) if "data" in opened else {}
    told = problem.get("language_instruction", "") or group.attrs.get("language_instruction", "")
    return ("".join(map(str, told)) if isinstance(told, list) else str(told)).strip(' "')


def _json(text: Any) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}


def _decoded(stored: Any, where: str) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(io.BytesIO(np.asarray(stored, np.uint8).tobytes())).convert("RGB"))
    except (OSError, ValueError) as error:
        raise LogError(f"{where}: the picture cannot be decoded: {error}") from error


def _natural(text: str) -> list[tuple[int, str]]:
    """demo_2 before demo_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
