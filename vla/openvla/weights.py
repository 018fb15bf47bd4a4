"""From the tensors of a published folder to those of our model: every one accounted for before anything is loaded.

Names: `vision_backbone.featurizer.` and `.fused_featurizer.` hold timm's names, but LayerScale's `gamma` is called
`scale_factor` (transformers of that time renamed whatever was called gamma); both are read. OFT's additions are
PyTorch files, read with weights_only=True: `action_head--N_checkpoint.pt` (`model.` before each name),
`proprio_projector--N_...` and, with FiLM, `vision_backbone--N_...`, which replaces the vision backbone of the
safetensors and may hold LoRA matrices beside each linear or convolutional layer: W + (α/r)·B·A, with α = min(r, 16)
(finetune.py). `module.` is what DDP puts in front.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.openvla.layout import TOWER_NAMES, Layout, model_shapes, read_json, unused
from reflexarc.vla.openvla.model import OpenVlaModel

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LORA_ALPHA = 16
LM_HEAD = "language_model.lm_head.weight"
PARTS = {"action_head": "action_mlp", "proprio_projector": "proprio"}
"""OFT's files and what they become."""

_FILM = re.compile(r"^(vision_backbone\.\w+\.blocks\.\d+)\.block\.")


class Tensors:
    """The tensors of a folder by published name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises PolicyError naming the file: none there, a shard missing or torn, a tensor not where the index
        says.
        """
        self._place = _places(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in dict.fromkeys(self._place.values()):
            with _open(path) as file:
                held = set(file.keys())
                for name in (name for name, where in self._place.items() if where == path):
                    if name not in held:
                        raise PolicyError(
                            f"{path}: tensor {name} is not in it, though {INDEX} says so{_like(name, held)}"
                        )
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def path(self, name: str) -> Path:
        """The file that a tensor stands in."""
        return self._place[name]

    def by_file(self, names: Iterable[str]) -> Iterable[tuple[str, Tensor]]:
        """These tensors, each file opened once."""
        wanted = list(names)
        for path in dict.fromkeys(self._place[name] for name in wanted):
            with _open(path) as file:
                for name in (name for name in wanted if self._place[name] == path):
                    yield name, file.get_tensor(name)


def find_part(folder: Path, name: str) -> Path | None:
    """OFT's file of that name; None if there is none. Raises PolicyError if there are several."""
    found = sorted(folder.glob(f"{name}--*checkpoint.pt"))
    if len(found) > 1:
        raise PolicyError(
            f"{folder}: several {name} files, keep one of: {', '.join(each.name for each in found)}"
        )
    return found[0] if found else None


def load_part(path: Path) -> dict[str, Tensor]:
    """A PyTorch file of tensors and nothing else. Raises PolicyError naming it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated types on foreign bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PolicyError(f"{path}: not a PyTorch file of tensors alone: {reason}") from error
    if not isinstance(state, Mapping) or not all(isinstance(each, Tensor) for each in state.values()):
        raise PolicyError(f"{path}: must map names to tensors")
    return {
        str(name).removeprefix("module.").removeprefix("model."): tensor for name, tensor in state.items()
    }


def load_weights(
    model: OpenVlaModel,
    layout: Layout,
    parts: Mapping[str, Path],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Fill `model`, which was made by `empty_model`. parts: OFT's files by name.

    Raises PolicyError naming the file, the tensor and what there is instead; the model is then not usable.
    """
    tensors = Tensors(layout.folder)
    wanted = dict(model_shapes(layout))
    film = parts.get("vision_backbone")
    if film is not None:
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("vision_backbone.")}
    _check(tensors, wanted, layout, film is not None)

    def convert(tensor: Tensor) -> Tensor:
        return tensor.to(device=device, dtype=dtype)

    running = [name for name in tensors.shapes if plain(name) in wanted and not unused(plain(name), layout)]
    state = {}
    for name, tensor in tensors.by_file(running):
        if not bool(torch.isfinite(tensor).all()):
            raise PolicyError(f"{tensors.path(name)}: tensor {name} holds values that are not finite")
        state[our_name(name)] = convert(_kept(name, tensor, layout))
    for part, prefix in PARTS.items():
        if part in parts:
            state |= {f"{prefix}.{name}": convert(each) for name, each in load_part(parts[part]).items()}
    if film is not None:
        state |= {name: convert(each) for name, each in film_backbone(film, layout).items()}
    _fit(model, state, layout.folder, parts)
    model.load_state_dict(state, assign=True)


def plain(name: str) -> str:
    """The published name, where a file calls LayerScale as timm does."""
    return re.sub(r"\.(ls[12])\.gamma$", r".\1.scale_factor", name)


def our_name(name: str) -> str:
    """The name in our model of a published tensor."""
    name = re.sub(r"\.(ls[12])\.(gamma|scale_factor)$", r".\1", name)
    for index, tower in enumerate(TOWER_NAMES):
        name = name.replace(f"vision_backbone.{tower}.", f"towers.{index}.", 1)
    return name.replace("language_model.model.", "llama.", 1).replace(LM_HEAD, "action_rows", 1)


def film_backbone(path: Path, layout: Layout) -> dict[str, Tensor]:
    """The towers with FiLM of OFT's file, LoRA folded in, by our names; what never runs is left out."""
    merged = merge_lora(load_part(path))
    result = {}
    for name, tensor in merged.items():
        name = _FILM.sub(r"\1.", name)
        if not unused(name, layout):
            result[our_name(name)] = tensor
    return result


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`X.base_layer.weight` with `X.lora_A.default.weight` and `X.lora_B...` to `X.weight`; others as they are."""
    result = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        module, _, kind = name.rpartition(".base_layer.")
        if not module:
            result[name] = tensor
            continue
        down, up = (state.get(f"{module}.lora_{part}.default.weight") for part in "AB")
        if kind == "weight" and down is not None and up is not None:
            rank = down.shape[0]
            change = up.flatten(1).float() @ down.flatten(1).float()
            tensor = (tensor.float() + min(rank, LORA_ALPHA) / rank * change.reshape(tensor.shape)).to(
                tensor.dtype
            )
        result[f"{module}.{kind}"] = tensor
    return result


def _kept(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    """Of the LM head, the action rows alone."""
    return tensor[layout.vocabulary - ACTION_BINS : layout.vocabulary] if name == LM_HEAD else tensor


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise PolicyError(f"{folder / INDEX}: no weight_map of tensors to files")
        missing = sorted({file for file in index.values() if not (folder / file).is_file()})
        if missing:
            present = (
                ", ".join(sorted(each.name for each in folder.glob("*.safetensors"))) or "no other shard"
            )
            raise PolicyError(f"{folder} has no {missing[0]}, which {INDEX} names; there is {present}")
        return {name: folder / file for name, file in index.items()}
    if (folder / SINGLE).is_file():
        with _open(folder / SINGLE) as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    present = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
    raise PolicyError(f"{folder} has neither {INDEX} nor {SINGLE}; there is {present}")


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"{path}: not a whole safetensors file: {error}") from error


def _check(tensors: Tensors, wanted: Mapping[str, tuple[int, ...]], layout: Layout, film: bool) -> None:
    """Every tensor that runs is there, none is unknown, all shapes fit."""
    found = {plain(name): name for name in tensors.shapes}
    needed = {name for name in wanted if not unused(name, layout)}
    missing = sorted(needed - found.keys())
    if missing:
        raise PolicyError(
            f"{layout.folder}: tensor {missing[0]} of shape {wanted[missing[0]]} is in none of its safetensors files"
            f"{_more(missing)}{_like(missing[0], found.keys() - wanted.keys())}"
        )
    for name, original in found.items():
        path = tensors.path(original)
        if name not in wanted:
            if unused(name, layout) or (film and name.startswith("vision_backbone.")):
                continue
            raise PolicyError(
                f"{path}: tensor {original} is not one of OpenVLA's{_like(name, wanted)}; check config.json"
            )
        if tensors.shapes[original] != wanted[name]:
            raise PolicyError(
                f"{path}: tensor {original} has shape {tensors.shapes[original]}, config.json makes it {wanted[name]}"
            )


def _fit(model: OpenVlaModel, state: Mapping[str, Tensor], folder: Path, parts: Mapping[str, Path]) -> None:
    """What OFT's files hold fits the model, which the safetensors were found to do before."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ state.keys()):
        path = _origin(name, folder, parts)
        if name in wanted:
            like = _like(name, state.keys() - wanted.keys())
            raise PolicyError(f"{path}: no tensor for {name} of shape {tuple(wanted[name].shape)}{like}")
        raise PolicyError(
            f"{path}: tensor for {name} is not one of the model's{_like(name, wanted.keys() - state.keys())}"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise PolicyError(
                f"{_origin(name, folder, parts)}: tensor for {name} has shape {tuple(tensor.shape)}, "
                f"the model needs {tuple(wanted[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise PolicyError(
                f"{_origin(name, folder, parts)}: tensor for {name} holds values that are not finite"
            )


def _origin(name: str, folder: Path, parts: Mapping[str, Path]) -> Path:
    """The file that a tensor of ours comes from."""
    for part, prefix in (*PARTS.items(), ("vision_backbone", "towers")):
        if name.startswith(f"{prefix}.") and part in parts:
            return parts[part]
    return folder


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _like(name: str, others: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(others), n=1, cutoff=0.8)
    return f"; did {close[0]} take its place?" if close else ""
