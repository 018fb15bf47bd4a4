"""Write openvla.json: what OpenVLA's and OpenVLA-OFT's own code answers on the small checkpoint of the tests.

Runs in an environment of its own, which needs none of this project: timm 0.9.16, tokenizers 0.19.1, diffusers and a
torch, with transformers 4.40.1 for OpenVLA and OpenVLA-OFT's branch of it (bidirectional attention) for OFT. Only
numbers are written.

    python make_openvla.py openvla  /path/to/openvla       # github.com/openvla/openvla at c8f03f4
    python make_openvla.py oft      /path/to/openvla-oft   # github.com/moojink/openvla-oft at 213c5ff,
                                                           # transformers: moojink/transformers-openvla-oft at bc339d9
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from contracts import openvla_small as small  # noqa: E402

TARGET = HERE / "openvla.json"


def package(root: Path) -> None:
    """Make `prismatic` importable without running its `__init__` files, which pull in the training stack."""
    for name in (
        "prismatic",
        "prismatic.extern",
        "prismatic.extern.hf",
        "prismatic.models",
        "prismatic.training",
        "prismatic.vla",
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = module


def register_towers() -> None:
    """The small towers, under names that `timm.create_model` knows."""
    for name, sizes in ((small.DINO, small.DINO_SIZES), (small.SIGLIP, small.SIGLIP_SIZES)):

        def build(
            pretrained: bool = False,
            pretrained_cfg: Any = None,
            pretrained_cfg_overlay: Any = None,
            sizes: Any = sizes,
            **arguments: Any,
        ) -> VisionTransformer:
            arguments = {key: value for key, value in arguments.items() if key != "act_layer" or value}
            return VisionTransformer(**(sizes | arguments))

        build.__name__ = name
        build.__module__ = "timm.models.vision_transformer"
        timm.models.register_model(build)


def fill(module: torch.nn.Module, prefix: str = "") -> dict[str, list[int]]:
    """Give every tensor its numbers; returns the shapes by name."""
    shapes = {}
    for name, tensor in module.state_dict().items():
        tensor.copy_(torch.from_numpy(small.weight(prefix + name, tuple(tensor.shape))))
        shapes[name] = list(tensor.shape)
    return shapes


def listed(array: Any, digits: int = 7) -> list[Any]:
    """Nested lists, rounded to `digits` significant digits."""
    array = np.asarray(array.detach().numpy() if isinstance(array, torch.Tensor) else array, dtype=np.float64)
    return np.vectorize(lambda x: float(f"{x:.{digits}g}"))(array).tolist()


def published_model() -> Any:
    """OpenVLA's own classes on the small configuration."""
    configuration = importlib.import_module("prismatic.extern.hf.configuration_prismatic")
    modeling = importlib.import_module("prismatic.extern.hf.modeling_prismatic")
    register_towers()
    arguments = {key: value for key, value in small.CONFIG.items() if key != "model_type"}
    arguments["text_config"] = {
        key: value for key, value in arguments["text_config"].items() if key != "model_type"
    }
    return modeling.OpenVLAForActionPrediction(configuration.OpenVLAConfig(**arguments)).float().eval()


def openvla() -> dict[str, Any]:
    """Shapes, features, tokens and action of OpenVLA, and the pixels of its processor."""
    model = published_model()
    shapes = fill(model)
    processing = importlib.import_module("prismatic.extern.hf.processing_prismatic")
    processor = processing.PrismaticImageProcessor(**dict(small.PREPROCESSOR.items()))
    processed = processor(Image.fromarray(small.image()), return_tensors="pt")["pixel_values"]
    ids, values = torch.tensor([small.PROMPT_IDS]), torch.from_numpy(small.pixels("openvla", 1))
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        features = model.vision_backbone(values)
        projected = model.projector(features)
        first = model(input_ids=ids, attention_mask=mask, pixel_values=values).logits[0, -1]
        tokens = model.generate(
            ids, attention_mask=mask, pixel_values=values, max_new_tokens=small.ACTION_SIZE, do_sample=False
        )
        actions = {
            key: listed(
                model.predict_action(ids, key, attention_mask=mask, pixel_values=values, do_sample=False)
            )
            for key in small.STATISTICS
        }
        from_image = model.predict_action(
            ids, "bridge_orig", attention_mask=mask, pixel_values=processed, do_sample=False
        )
    rows = slice(small.VOCABULARY - 256, small.VOCABULARY)
    return {
        "shapes": shapes,
        "features": listed(features[0]),
        "projected": listed(projected[0]),
        "first_logits": listed(first[rows]),
        "tokens": tokens[0, -small.ACTION_SIZE :].tolist(),
        "actions": actions,
        "processed": listed(processed[0, :, ::3, ::3]),
        "action_of_image": listed(from_image),
    }


def oft() -> dict[str, Any]:
    """Chunks of OpenVLA-OFT: two images and a state, by L1 head, as tokens, and with FiLM."""
    heads = importlib.import_module("prismatic.models.action_heads")
    projectors = importlib.import_module("prismatic.models.projectors")
    film = importlib.import_module("prismatic.models.film_vit_wrapper")
    model = published_model()
    fill(model)
    head = heads.L1RegressionActionHead(
        input_dim=small.WIDTH, hidden_dim=small.WIDTH, action_dim=small.ACTION_SIZE
    ).eval()
    projector = projectors.ProprioProjector(small.WIDTH, small.STATE_SIZE).eval()
    result: dict[str, Any] = {
        "action_head": fill(head, "action_head."),
        "proprio_projector": fill(projector, "proprio_projector."),
    }
    model.vision_backbone.set_num_images_in_input(2)
    ids, values = torch.tensor([small.PROMPT_IDS]), torch.from_numpy(small.pixels("oft", 2))
    given = {"attention_mask": torch.ones_like(ids), "pixel_values": values, "unnorm_key": "bridge_orig"}
    felt = {"proprio": small.state(), "proprio_projector": projector}
    with torch.inference_mode():
        actions, hidden = model.predict_action(ids, action_head=head, **felt, **given)
        result |= {"l1_actions": listed(actions), "l1_hidden": listed(hidden[0, ::5])}
        result["token_actions"] = listed(model.predict_action(ids, **given)[0])
        wrapped = film.FiLMedPrismaticVisionBackbone(model.vision_backbone, llm_dim=small.WIDTH)
        result["vision_backbone"] = fill(wrapped, "film.")
        model.vision_backbone = wrapped.eval()
        actions, hidden = model.predict_action(ids, action_head=head, use_film=True, **felt, **given)
        result |= {"film_actions": listed(actions), "film_hidden": listed(hidden[0, ::5])}
    return result


def main() -> None:
    """Add one part to the file."""
    kind, root = sys.argv[1], Path(sys.argv[2])
    package(root)
    torch.set_num_threads(1)
    data = json.loads(TARGET.read_text()) if TARGET.is_file() else {}
    data[kind] = {"openvla": openvla, "oft": oft}[kind]()
    data[kind]["made_with"] = {
        "timm": timm.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    TARGET.write_text(json.dumps(data, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
