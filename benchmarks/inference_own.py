"""What `inference.py` times of a model of Reflexarc's own: what it saves to keep what was seen and read before.

The whole policy answers, from camera frames to a chunk. Pictures: two cameras show new ones each time, one of them
shows the same, both do (`model.reuse_vision`). Words: an instruction of 40 words is read anew or kept
(`model.language.words_first`; words that see no pictures are another model, so it has a reference of its own).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from inference_rates import Answer, numbers, rates
from torch import Tensor

from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.serving.probe import grey_observation
from reflexarc.vla.stats import Stats, feature_names
from reflexarc.vla.tokenizers import UniformTokenizer, WordTokenizer
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import Observation

HORIZON, STEP_S = 8, 0.1
WORDS = 40
INSTRUCTION = " ".join(f"word{index}" for index in range(WORDS))
PICTURES = 64
"""Different ones of each camera: more than are ever kept, so that none is known when it comes round again."""

SIZES: dict[str, dict[str, Any]] = {
    "own-small": {
        "image": 96,
        "vision": {"width": 192, "layers": 6, "heads": 3},
        "language": {"width": 256, "layers": 6, "heads": 4, "mlp_width": 768},
    },
    "own": {
        "image": 224,
        "vision": {"width": 768, "layers": 12, "heads": 12},
        "language": {"width": 1024, "layers": 12, "heads": 16, "mlp_width": 2816},
    },
}
"""SigLIP with patches of 16 (`own`: the base size), a two-layer MLP, a Llama, numbers by the L1 head."""

ANEW = "chunk: ours, all anew"
READ = "words first: ours, read anew"


@dataclasses.dataclass
class OwnSubject:
    """Policies with the same random weights, each keeping something else; and what they are asked."""

    plain: VlaPolicy
    reusing: VlaPolicy
    words_first: VlaPolicy
    keeping_words: VlaPolicy
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def build(cls, shape: str, device: torch.device, dtype: torch.dtype) -> OwnSubject:
        """Random weights of that shape."""
        cuda = device.type == "cuda"

        def policy(**settings: bool) -> VlaPolicy:
            threads = torch.get_num_threads()
            return VlaPolicy(
                _checkpoint(shape, **settings), threads=threads, device="cuda" if cuda else "cpu"
            )

        words_first = policy(words_first=True)
        words_first.checkpoint.model.trunk.kept = None
        return cls(policy(), policy(reuse_vision=True), words_first, policy(words_first=True), device, dtype)

    def variants(self, *, compiled: bool) -> dict[str, Answer]:
        """Each answers one observation with a chunk."""
        return {
            ANEW: _asking(self.plain, new=("front", "wrist")),
            "chunk: ours, one picture of two seen before": _asking(self.reusing, new=("front",)),
            "chunk: ours, both pictures seen before": _asking(self.reusing, new=()),
            READ: _asking(self.words_first, new=("front", "wrist")),
            "words first: ours, kept": _asking(self.keeping_words, new=("front", "wrist")),
        }

    def stages(self) -> dict[str, Answer]:
        """The passes of an answer where all is new, in order."""
        policy, held = self.plain, dict[str, Any]()
        model, asked = policy.checkpoint.model, _observations(policy, new=("front", "wrist"))

        def preprocess() -> Tensor:
            inputs = held["inputs"] = policy.inputs([policy.raw(next(asked))])
            return inputs.words

        def vision() -> Tensor:
            with policy.computing():
                tokens, held["keep"] = model.see(held["inputs"])
            held["tokens"] = tokens
            return tokens

        def language() -> Tensor:
            with policy.computing():
                prefix, plan, _ = model.think(held["inputs"], held["tokens"], held["keep"])
                values = model.head.decode(model.trunk, prefix, plan).values
            assert values is not None
            return values.cpu()

        return {"preprocess": preprocess, "vision": vision, "language": language}

    def floor(self) -> dict[str, float]:
        """What the machine could do at best where all is new: the operations of towers and prefix."""
        copy_rate, product_rate = rates(self.device, self.dtype)
        model = self.plain.checkpoint.model
        tower: Any = model.tower
        connector: Any = model.connector
        images = connector.tokens
        operations = 2 * images * numbers([tower]) + 2 * (images + WORDS + HORIZON) * numbers(
            [model.trunk.llama.layers]
        )
        least = operations / product_rate * 1e3
        return {
            "copy_gb_per_s": copy_rate * 1e-9,
            "product_tflops": product_rate * 1e-12,
            "chunk_floor_ms": least,
            "words first_floor_ms": least,
        }

    def agreement(self) -> dict[str, float]:
        """The largest difference of an action, as a share of its bounds, between what keeps and what does not."""
        bounds = np.ptp(self.plain.checkpoint.actions.centers, axis=1).max()
        found = 0.0
        for ours, reference in ((self.reusing, self.plain), (self.keeping_words, self.words_first)):
            asked = next(_observations(ours, new=()))
            first, second = ours.act(asked).actions, ours.act(asked).actions
            found = max(
                found, *(np.abs(each - reference.act(asked).actions).max() for each in (first, second))
            )
        return {"actions_max_difference": float(found / bounds)}


def _asking(policy: VlaPolicy, *, new: tuple[str, ...]) -> Answer:
    asked = _observations(policy, new=new)

    def run() -> Tensor:
        return torch.from_numpy(policy.act(next(asked)).actions)

    return run


def _observations(policy: VlaPolicy, *, new: tuple[str, ...]) -> Iterator[Observation]:
    """For ever, of which the cameras `new` show a new picture each time."""
    info = policy.info
    blank = msgspec.structs.replace(grey_observation(info), instruction=INSTRUCTION)
    shape = (info.image_height, info.image_width, 3)
    generator = np.random.default_rng(len(new))  # what one variant has seen is new to the other
    frames = {
        camera: [
            encode_image(
                generator.integers(0, 256, shape, dtype=np.uint8), camera=camera, seq=seq, t_capture_ns=0
            )
            for seq in range(PICTURES)
        ]
        for camera in info.cameras
    }
    for seq in itertools.count():
        images = {camera: row[seq % PICTURES if camera in new else 0] for camera, row in frames.items()}
        yield msgspec.structs.replace(blank, images=images, seq=seq)


def _checkpoint(shape: str, *, words_first: bool = False, reuse_vision: bool = False) -> Checkpoint:
    sizes = SIZES[shape]
    config = PolicyConfig.model_validate(
        {
            "name": shape,
            "horizon": HORIZON,
            "step_s": STEP_S,
            "model": {
                "image_size": sizes["image"],
                "vision": {"kind": "siglip", "patch": 16} | sizes["vision"],
                "connector": {"kind": "mlp"},
                "language": {"max_words": WORDS, "words_first": words_first} | sizes["language"],
                "head": {"kind": "regression"},
                "focus": False,
                "reuse_vision": reuse_vision,
            },
        }
    )
    spec = tcp_delta_spec(HORIZON, STEP_S)
    size = len(feature_names(config.model.proprio))
    stats = Stats.fit(config.model.proprio, np.random.default_rng(0).normal(size=(16, size)), None)
    names = [dim.name for dim in spec.dims]
    lower, upper = (np.array([getattr(dim, side) for dim in spec.dims]) for side in ("lower", "upper"))
    actions = UniformTokenizer.from_bounds(names, lower, upper, np.full(spec.size, 1e-6))
    words = WordTokenizer.fit([INSTRUCTION], WORDS)
    torch.manual_seed(0)
    model = build_model(config, spec, actions, words, stats)
    return Checkpoint(config, spec, actions, words, stats, model)
