"""A policy as a folder: configuration, weights, the two tokenizers, statistics and a card.

    config.json         what the model is made of, its action spec, how it was trained
    model.safetensors   the weights, in half precision; they are read into float32
    tokenizer.json      the grid of the actions        vocabulary.json   the words
    stats.json          normalisation and focus grid   README.md         the card
    fast/               the FAST tokenizer, where the head says its tokens

A checkpoint embedded in the package is named; any other is a path.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.configs.placement import OwnSettings, Placement
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.actions import ActionCodec
from reflexarc.vla.model import VlaModel
from reflexarc.vla.placement import placed
from reflexarc.vla.stats import Stats
from reflexarc.vla.tokenizers import FastTokenizer, UniformTokenizer, WordTokenizer, read_grid
from reflexarc.wire.contracts import Policy

if TYPE_CHECKING:
    from reflexarc.vla.runtime import VlaPolicy

FAST = "fast"
WEIGHTS = Path(__file__).resolve().parent / "weights"
FORMAT = 1
CONFIG, MODEL, ACTIONS, WORDS, STATS, CARD = FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocabulary.json",
    "stats.json",
    "README.md",
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything that makes a policy. model_id names it in every chunk."""

    config: PolicyConfig
    spec: ActionSpec
    actions: UniformTokenizer
    words: WordTokenizer
    stats: Stats
    model: VlaModel
    fast: FastTokenizer | None = None

    @property
    def codec(self) -> ActionCodec:
        """Reads the head's answers, writes its labels."""
        return ActionCodec(self.actions, self.spec.horizon, self.fast, self.words.size)

    @property
    def model_id(self) -> str:
        """The configuration's name."""
        return self.config.name


def build_model(
    config: PolicyConfig,
    spec: ActionSpec,
    actions: UniformTokenizer,
    words: WordTokenizer,
    stats: Stats,
    fast: FastTokenizer | None = None,
) -> VlaModel:
    """The model of a configuration, with random weights."""
    centers = None if stats.focus is None else torch.from_numpy(stats.focus.centers)
    return VlaModel(
        config.model,
        words=words.size,
        proprio=len(stats.names),
        horizon=spec.horizon,
        fixed_bins=torch.from_numpy(actions.fixed_bins),
        focus_centers=centers,
        fast_tokens=0 if fast is None else fast.size,
    )


def embedded() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CONFIG}"))


def load_policy(name_or_path: str, *, threads: int = 1, placement: Placement | None = None) -> Policy:
    """The policy of an embedded checkpoint, a folder, or a settings file that names one; torch gets `threads` threads.

    placement: where its models run and in what numbers, in place of what its settings say. A settings file with a
    `planner`, or a model with a slow level, is the two-level mode (`vla/planners/`). A folder of OpenVLA's or of
    lerobot's is known by its config.json, and read as `vla/adapters/` says.
    Raises PolicyError naming the embedded checkpoints, or the file and the tensor that are wrong.
    """
    from reflexarc.vla.adapters.foreign import foreign_loader
    from reflexarc.vla.planners.two_level import above, load_two_level

    path, said = find(name_or_path), placement or Placement()
    two_level = load_two_level(path, threads, said)
    if two_level is not None:
        return two_level
    foreign = foreign_loader(path)
    if foreign is not None:
        return foreign(path, threads, said)
    return above(load_own(path, threads, said))


def load_own(path: Path, threads: int, said: Placement) -> VlaPolicy:
    """A checkpoint of our own, by its folder or by a settings file that names the folder."""
    from reflexarc.vla.adapters.foreign import checkpoint_folder, read_settings
    from reflexarc.vla.runtime import VlaPolicy

    checkpoint = load_checkpoint(checkpoint_folder(path))
    settings = placed(read_settings(path, OwnSettings), said)
    return VlaPolicy(checkpoint, threads=threads, device=settings.device, precision=settings.precision)


def find(name_or_path: str) -> Path:
    """The folder of an embedded checkpoint, or the path itself; raises PolicyError if it is neither."""
    names = embedded()
    if name_or_path in names:
        return WEIGHTS / name_or_path
    path = Path(name_or_path)
    if path.is_dir() or (path.is_file() and path.suffix in (".yaml", ".yml")):
        return path
    raise PolicyError(f"{unknown('policy', name_or_path, names)}; or name a checkpoint folder")


def save_checkpoint(folder: Path, checkpoint: Checkpoint, weights: dict[str, Tensor], card: str) -> None:
    """Write the folder, whole or not at all. Raises PolicyError if the disk does not take it."""
    aside = folder.with_name(folder.name + ".unfinished")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        config = {
            "format": FORMAT,
            "policy": checkpoint.config.model_dump(mode="json"),
            "action_spec": checkpoint.spec.model_dump(mode="json"),
        }
        (aside / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        (aside / ACTIONS).write_text(checkpoint.actions.to_json() + "\n")
        (aside / WORDS).write_text(checkpoint.words.to_json() + "\n")
        (aside / STATS).write_text(checkpoint.stats.to_json() + "\n")
        (aside / CARD).write_text(card)
        if checkpoint.fast is not None:
            checkpoint.fast.save(aside / FAST)
        half = {name: each.detach().to(torch.float16).contiguous() for name, each in weights.items()}
        save_file(half, aside / MODEL)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise PolicyError(f"cannot write the checkpoint {folder}: {error}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder. Raises PolicyError naming the file and what is wrong in it."""
    config, spec = _read_config(folder)
    actions = _parse(folder, ACTIONS, read_grid)
    words = _parse(folder, WORDS, WordTokenizer.from_json)
    stats = _parse(folder, STATS, lambda text: Stats.from_json(text, config.model.proprio))
    if actions.names != tuple(dim.name for dim in spec.dims):
        raise PolicyError(
            f"{folder / ACTIONS}: dimensions {', '.join(actions.names)} differ from those of the action spec "
            f"in {CONFIG}: {', '.join(dim.name for dim in spec.dims)}"
        )
    fast = FastTokenizer.load(folder / FAST) if config.model.head.kind == "fast" else None
    model = build_model(config, spec, actions, words, stats, fast)
    _load_weights(folder / MODEL, model)
    return Checkpoint(config, spec, actions, words, stats, model.eval(), fast)


def _read_config(folder: Path) -> tuple[PolicyConfig, ActionSpec]:
    def parse(text: str) -> tuple[PolicyConfig, ActionSpec]:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise PolicyError(f"format {data['format']!r}; this version reads format {FORMAT}")
        policy = PolicyConfig.model_validate(data["policy"])
        spec = ActionSpec.model_validate(data["action_spec"])
        if spec.horizon != policy.horizon:
            raise PolicyError(f"horizon {policy.horizon} differs from the action spec's {spec.horizon}")
        return policy, spec

    return _parse(folder, CONFIG, parse)


def _parse[T](folder: Path, name: str, parse: Callable[[str], T]) -> T:
    """Read and parse one file; every error names it."""
    path = folder / name
    try:
        return parse(path.read_text())
    except FileNotFoundError as error:
        present = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
        raise PolicyError(f"{folder} has no {name}; a checkpoint needs it, there is {present}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise PolicyError(f"{path}: {where}: {problem['msg']}") from error
    except (OSError, ValueError, KeyError, TypeError, PolicyError) as error:
        raise PolicyError(f"{path}: {error}") from error


def _load_weights(path: Path, model: VlaModel) -> None:
    """Fill `model`; every tensor must be there, with its shape, and no other."""
    if not path.is_file():
        present = ", ".join(sorted(each.name for each in path.parent.iterdir())) or "nothing"
        raise PolicyError(f"{path.parent} has no {path.name}; a checkpoint needs it, there is {present}")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"{path}: not a whole safetensors file: {error}") from error
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise PolicyError(
            f"{path}: tensor {missing[0]} is missing{_more(missing)}; the file has {_some(extra)}"
        )
    if extra:
        raise PolicyError(
            f"{path}: tensor {extra[0]} is not one of the model's{_more(extra)}; check config.json"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise PolicyError(
                f"{path}: tensor {name} has shape {tuple(tensor.shape)}, the model needs {tuple(wanted[name].shape)}; "
                f"{CONFIG}, {WORDS}, {STATS} or {FAST}/ is of another model"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise PolicyError(f"{path}: tensor {name} holds values that are not finite")
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in found.items()})


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])} instead" if names else "no tensor that could stand for it"
