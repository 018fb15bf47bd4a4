"""What `inference.py` times of π0: ours, and lerobot's where it is installed, on the very same weights.

Two views of 8-bit pictures in memory, a prompt, a state and noise; answers are chunks of 50 actions after 10 steps, on
the processor. lerobot is given what its own processor gives it: the prompt padded to 48 tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from inference_rates import Answer, numbers, rates
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaModel, PaliGemmaConfig, SiglipVisionConfig, SiglipVisionModel

from reflexarc.configs.engine import WeightBits
from reflexarc.vla.engine.graphs import Graphs
from reflexarc.vla.engine.pi0 import Pi0Engine, Pi0Parts

VIEWS, HORIZON, STEPS, ACTIONS = 2, 50, 10, 32
WORDS, PADDED = 20, 48
VOCABULARY = 257152


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Of the vision tower (SigLIP), the language model and the action expert (Gemma)."""

    image: int
    vision: dict[str, int]
    language: dict[str, int]
    expert: dict[str, int]
    vocabulary: int


_TRUE = {"depth": 18, "num_heads": 8, "num_kv_heads": 1, "head_dim": 256}
_SMALL = {"depth": 4, "num_heads": 4, "num_kv_heads": 1, "head_dim": 32}
SIZES = {
    "pi0": Sizes(
        image=224,
        vision={
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "intermediate_size": 4304,
        },
        language={"width": 2048, "mlp_dim": 16384} | _TRUE,
        expert={"width": 1024, "mlp_dim": 4096} | _TRUE,
        vocabulary=VOCABULARY,
    ),
    "pi0-small": Sizes(
        image=112,
        vision={
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        },
        language={"width": 128, "mlp_dim": 512} | _SMALL,
        expert={"width": 64, "mlp_dim": 256} | _SMALL,
        vocabulary=1000,
    ),
}


@dataclasses.dataclass
class Pi0Subject:
    """One π0, what it is given, and lerobot's model of the same weights (None: not installed)."""

    sizes: Sizes
    parts: Pi0Parts
    modules: list[nn.Module]
    reference: Any
    images: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]
    ids: Tensor
    state: Tensor
    noise: Tensor
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def build(cls, shape: str, device: torch.device, dtype: torch.dtype) -> Pi0Subject:
        """Random weights of that shape."""
        torch.manual_seed(0)
        sizes = SIZES[shape]
        if importlib.util.find_spec("lerobot"):
            from reflexarc.vla.adapters.pi0 import parts_of

            reference = _lerobots(sizes, device, dtype)
            both = reference.paligemma_with_expert
            modules = [both.paligemma.model.vision_tower, both.paligemma.model.multi_modal_projector]
            parts = parts_of(reference)
        else:
            reference = None
            parts, modules = _random_parts(sizes, device, dtype)
        generator = np.random.default_rng(0)
        images = [
            generator.integers(0, 256, (sizes.image, sizes.image, 3), dtype=np.uint8) for _ in range(VIEWS)
        ]
        ids = torch.randint(3, min(1000, sizes.vocabulary), (1, WORDS), device=device)
        state = torch.randn(1, ACTIONS, device=device)
        noise = torch.randn(1, HORIZON, ACTIONS, device=device)
        return cls(sizes, parts, modules, reference, images, ids, state, noise, device, dtype)

    def pixels(self) -> Tensor:
        """(1, V, 3, S, S) in [-1, 1] on the device; the bytes travel, not the floats."""
        raw = torch.from_numpy(np.stack(self.images)).to(self.device, non_blocking=True)
        return (raw.permute(0, 3, 1, 2).to(self.dtype) * (2 / 255) - 1)[None]

    def variants(self, *, compiled: bool) -> dict[str, Answer]:
        """Each answers one observation with a chunk."""
        cuda = self.device.type == "cuda"
        found: dict[str, Answer] = {}
        if self.reference is not None:
            found["chunk: lerobot"] = self._lerobot
        found["chunk: ours, eager"] = self._ours(Graphs(enabled=False))
        if cuda:
            found["chunk: ours, graphs"] = self._ours(Graphs())
            found["chunk: ours, graphs, fp8"] = self._ours(Graphs(), "fp8")
        if compiled:
            found["chunk: ours, graphs, compiled" if cuda else "chunk: ours, compiled"] = self._ours(
                Graphs(compiled=True)
            )
        return found

    def stages(self) -> dict[str, Answer]:
        """The passes of an answer of ours, in order."""
        engine = self._engine(Graphs())
        held: dict[str, Tensor] = {}

        def preprocess() -> Tensor:
            held["pixels"] = self.pixels()
            return held["pixels"]

        def vision() -> Tensor:
            held["tokens"] = engine.see(held["pixels"])
            return held["tokens"]

        def language_and_flow() -> Tensor:
            return engine.act(held["tokens"], self.ids, self.state, self.noise).cpu()

        return {"preprocess": preprocess, "vision": vision, "language and flow": language_and_flow}

    def floor(self) -> dict[str, float]:
        """What the machine could do at best: the expert read once a step, and the operations of the prefix."""
        copy_rate, product_rate = rates(self.device, self.dtype)
        language: Any = self.parts.language
        expert: Any = self.parts.expert
        patches = VIEWS * (self.sizes.image // 14) ** 2
        eyes, words, acting = numbers(self.modules), numbers([language.layers]), numbers([expert.layers])
        operations = 2 * (eyes * patches + words * (patches + WORDS))
        step_s = acting * (torch.finfo(self.dtype).bits // 8) / copy_rate
        return {
            "copy_gb_per_s": copy_rate * 1e-9,
            "product_tflops": product_rate * 1e-12,
            "chunk_floor_ms": (STEPS * step_s + operations / product_rate) * 1e3,
        }

    @torch.inference_mode()
    def agreement(self) -> dict[str, float]:
        """Our chunk against lerobot's from the same noise."""
        if self.reference is None:
            return {}
        ours, theirs = self._ours(Graphs())(), self._lerobot()
        return {
            "chunk_max_difference": float((ours - theirs).abs().max()),
            "chunk_max": float(theirs.abs().max()),
        }

    def _engine(self, graphs: Graphs, weights: WeightBits = "full") -> Pi0Engine:
        return Pi0Engine(self.parts, horizon=HORIZON, steps=STEPS, graphs=graphs, weights=weights)

    def _ours(self, graphs: Graphs, weights: WeightBits = "full") -> Answer:
        engine = self._engine(graphs, weights)
        return lambda: engine.act(engine.see(self.pixels()), self.ids, self.state, self.noise).cpu()

    def _lerobot(self) -> Tensor:
        pixels = self.pixels()[0].float()
        there = torch.ones(1, dtype=torch.bool, device=self.device)
        ids = torch.zeros(1, PADDED, dtype=torch.long, device=self.device)
        ids[:, :WORDS] = self.ids
        real = torch.arange(PADDED, device=self.device)[None] < WORDS
        chunk: Tensor = self.reference.sample_actions(
            [each[None] for each in pixels], [there] * VIEWS, ids, real, self.state, self.noise, STEPS
        )
        return chunk.cpu()


def _random_parts(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> tuple[Pi0Parts, list[nn.Module]]:
    """The same structure from `transformers` alone."""
    width, narrow = sizes.language["width"], sizes.expert["width"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            tower = SiglipVisionModel(_vision(sizes)).eval()
            projector = nn.Linear(sizes.vision["hidden_size"], width)
            language, expert = (
                GemmaModel(_gemma(each, sizes.vocabulary)) for each in (sizes.language, sizes.expert)
            )
    finally:
        torch.set_default_dtype(before)
    with device:
        state, enter = nn.Linear(ACTIONS, narrow), nn.Linear(ACTIONS, narrow)
        mix, out, leave = nn.Linear(2 * narrow, narrow), nn.Linear(narrow, narrow), nn.Linear(narrow, ACTIONS)

    def see(images: Tensor) -> Tensor:
        tokens: Tensor = projector(tower(pixel_values=images).last_hidden_state)
        return tokens

    words = language.get_input_embeddings()
    parts = Pi0Parts(see, words, language.eval(), expert.eval(), state, enter, leave, mix, out)
    return parts, [tower, projector]


def _vision(sizes: Sizes) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        image_size=sizes.image,
        patch_size=14,
        hidden_act="gelu_pytorch_tanh",
        vision_use_head=False,
        **sizes.vision,
    )


def _gemma(sizes: dict[str, int], vocabulary: int) -> GemmaConfig:
    return GemmaConfig(
        vocab_size=vocabulary,
        hidden_size=sizes["width"],
        intermediate_size=sizes["mlp_dim"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        num_key_value_heads=sizes["num_kv_heads"],
        head_dim=sizes["head_dim"],
        hidden_activation="gelu_pytorch_tanh",
        attn_implementation="sdpa",
    )


def _lerobots(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Any:
    """lerobot's PI0Pytorch; where the sizes are not its own, its tables of them are replaced meanwhile."""
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from lerobot.policies.pi0.modeling_pi0 import PI0Pytorch

    config = PI0Config(
        chunk_size=HORIZON,
        n_action_steps=HORIZON,
        num_inference_steps=STEPS,
        image_resolution=(sizes.image, sizes.image),
        dtype="bfloat16" if dtype == torch.bfloat16 else "float32",
        device=device.type,
    )
    with _tables(sizes), device:
        return PI0Pytorch(config).eval().to(device)


@contextlib.contextmanager
def _tables(sizes: Sizes) -> Iterator[None]:
    from lerobot.policies.pi0 import modeling_pi0

    if sizes.vocabulary == VOCABULARY:
        yield
        return

    own = sizes.vision | {"projection_dim": sizes.language["width"]}
    as_given = SiglipVisionConfig.__setattr__

    def keep(config: SiglipVisionConfig, name: str, value: Any) -> None:
        as_given(config, name, own.get(name, value))

    def paligemma() -> PaliGemmaConfig:
        config = PaliGemmaConfig()
        config.vision_config = _vision(sizes)
        config.projection_dim = sizes.language["width"]
        return config

    def gemma(variant: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(**(sizes.language if variant == "gemma_2b" else sizes.expert))

    with (
        mock.patch.object(SiglipVisionConfig, "__setattr__", keep),
        mock.patch.object(modeling_pi0, "get_gemma_config", gemma),
        mock.patch.object(modeling_pi0, "CONFIG_MAPPING", {"paligemma": paligemma, "gemma": GemmaConfig}),
    ):
        yield
