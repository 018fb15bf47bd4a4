"""What `inference.py` times of OpenVLA: ours, and `transformers` on the very same weights.

A camera frame is turned into image tokens as the policy does it, and answers end in memory, so preprocessing and copies
count. `transformers` gets our image tokens too: only the language model is run differently.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_rates import Answer, numbers, rates
from torch import Tensor
from transformers import LlamaForCausalLM

from reflexarc.configs.engine import EngineConfig
from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.vla.openvla.eyes import Eyes, Glance
from reflexarc.vla.openvla.layout import LLAMA_DEFAULTS, TOWERS, Layout
from reflexarc.vla.openvla.model import OpenVlaModel
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import CameraFrame

DIMS, CHUNK = 7, 8
PROMPT = 20
"""Tokens of `In: What action should the robot take to ...?` with a short task."""

VOCABULARY, PADDED = 32000, 32064
NAMES = ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224")

TOWER_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 32, "depth": 2, "heads": 2, "mlp_width": 64, "image": 56},
    "small": {"width": 96, "depth": 4, "heads": 4, "mlp_width": 256, "image": 112},
}
LLAMA_SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6},
}
"""Of the shapes that are not OpenVLA's own: the same structure, narrower and shallower. The vocabulary is OpenVLA's."""


def layout_of(shape: str) -> Layout:
    """`openvla` is openvla-7b's."""
    towers = [TOWERS[name] for name in NAMES]
    llama = dict(LLAMA_DEFAULTS) | {"vocab_size": PADDED}
    if shape != "openvla":
        towers = [dataclasses.replace(each, **TOWER_SIZES[shape]) for each in towers]
        llama |= LLAMA_SIZES[shape]
    half = np.full(3, 0.5)
    return Layout(
        folder=Path(),
        towers=tuple(towers),
        normalise=((half, half), (half, half)),
        llama=llama,
        vocabulary=VOCABULARY,
        action_bins=256,
        statistics={},
        prompt="{}",
    )


@dataclasses.dataclass
class OpenVlaSubject:
    """One model, its picture and prompt, and `transformers`' view of the same weights."""

    layout: Layout
    model: OpenVlaModel
    reference: LlamaForCausalLM
    frame: CameraFrame
    ids: Tensor
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def build(cls, shape: str, device: torch.device, dtype: torch.dtype) -> OpenVlaSubject:
        """Random weights of that shape; `transformers` gets the same language model, a whole vocabulary above it."""
        torch.manual_seed(0)
        layout = layout_of(shape)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                model = OpenVlaModel(layout, dims=DIMS).eval()
                torch.nn.init.normal_(model.action_rows, std=0.02)
            with torch.device("meta"):
                reference = LlamaForCausalLM(model.llama_config).eval()
            reference.model = model.llama
            head = torch.zeros(PADDED, layout.width, device=device, dtype=dtype)
            # The same answers: of all words only actions are ever likely.
            head[model.first_action : VOCABULARY] = model.action_rows.detach()
            reference.lm_head.weight = torch.nn.Parameter(head)
        finally:
            torch.set_default_dtype(before)
        size = layout.towers[0].image
        image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        frame = encode_image(image, camera="front", seq=0, t_capture_ns=0)
        ids = torch.randint(3, 1000, (1, PROMPT), device=device)
        return cls(layout, model, reference, frame, ids, device, dtype)

    @property
    def patches(self) -> int:
        """Image tokens."""
        return self.layout.towers[0].patches

    def eyes(self, model: OpenVlaModel, *, reuse: bool = False) -> Eyes:
        """As the policy has them on this device. reuse: a picture seen before is neither prepared nor seen again."""
        config = OpenVlaConfig(
            image_size=self.layout.towers[0].image, engine=EngineConfig(reuse_vision=reuse)
        )
        cuda = self.device.type == "cuda"
        return Eyes(model, self.layout, config, device=self.device, dtype=self.dtype, on_gpu=cuda)

    def glance(self, eyes: Eyes) -> Glance:
        """The picture as far as it is prepared on the processor."""
        return eyes.glance(self.frame, self.ids[0].tolist(), end=False)

    def prefix(self, model: OpenVlaModel, eyes: Eyes, glance: Glance | None = None) -> Tensor:
        """Embeddings of everything before the actions."""
        return model.assemble(eyes.see([[glance or self.glance(eyes)]]), self.ids, None)

    def variants(self, *, compiled: bool) -> dict[str, Answer]:
        """Each answers one observation: action tokens one after another, or a chunk in parallel."""
        static: dict[str, Any] = {"cache_implementation": "static"}
        found: dict[str, Answer] = {"tokens: transformers generate": self._generate({})}
        if compiled:
            found["tokens: transformers static, compiled"] = self._generate(static, compiled=True)
        found["chunk: transformers"] = self._chunk_reference()
        for name, engine in self._engines(compiled=compiled).items():
            found[f"tokens: ours, {name}"] = self._ours(engine, chunk=False)
            found[f"chunk: ours, {name}"] = self._ours(engine, chunk=True)
        usual = "graphs" if self.device.type == "cuda" else "eager"
        found[f"tokens: ours, {usual}, picture seen before"] = self._seen_before()
        return dict(sorted(found.items(), key=lambda item: item[0].startswith("chunk")))

    def stages(self) -> dict[str, Answer]:
        """The passes of an answer of ours, in order."""
        held: dict[str, Any] = {}
        model = self.model.sharing_weights(EngineConfig())
        eyes = self.eyes(model)

        def preprocess() -> Tensor:
            held["glance"] = self.glance(eyes)
            return self.ids

        def vision() -> Tensor:
            held["prefix"] = self.prefix(model, eyes, held["glance"])
            return self.ids

        def language() -> Tensor:
            return model.decode(held["prefix"], self.patches)[0].cpu()

        return {"preprocess": preprocess, "vision": vision, "language": language}

    def floor(self) -> dict[str, float]:
        """What the machine could do at best: weights read once for each token, and the operations of the prefix."""
        copy_rate, product_rate = rates(self.device, self.dtype)
        language = numbers([self.model.llama.layers])
        eyes = numbers([self.model.towers, self.model.projector])
        prefix = self.patches + PROMPT
        operations = 2 * (language * prefix + eyes * self.patches)
        decode_s = (DIMS - 1) * language * (torch.finfo(self.dtype).bits // 8) / copy_rate
        return {
            "copy_gb_per_s": copy_rate * 1e-9,
            "product_tflops": product_rate * 1e-12,
            "tokens_floor_ms": (decode_s + operations / product_rate) * 1e3,
            "chunk_floor_ms": (operations + 2 * language * CHUNK * DIMS) / product_rate * 1e3,
        }

    @torch.inference_mode()
    def agreement(self) -> dict[str, float]:
        """Our logits of the action rows against `transformers`' on the same tokens, all given at once."""
        model = self.model.sharing_weights(EngineConfig())
        prefix = self.prefix(model, self.eyes(model))
        for _ in range(model.warm_ups):  # on a GPU the last one is a replay
            ids, logits = model.decode(prefix, self.patches)
        forced = torch.cat([prefix, model.embed(ids[:, :-1])], dim=1)
        hidden = model.llama(inputs_embeds=forced).last_hidden_state[:, prefix.shape[1] - 1 :]
        expected = model.action_logits(hidden)
        return {
            "logits_max_difference": float((logits - expected).abs().max()),
            "logits_max": float(expected.abs().max()),
            "tokens_agree": float((expected.argmax(-1) + model.first_action == ids).float().mean()),
        }

    def _engines(self, *, compiled: bool) -> dict[str, EngineConfig]:
        """Ours, each way that this device can run it."""
        cuda = self.device.type == "cuda"
        found = {"eager": EngineConfig(graphs=False)}
        if cuda:
            found["graphs"] = EngineConfig()
        usual = "graphs, " if cuda else ""
        group = 128 if cuda else 64
        found[f"{usual}half the image tokens"] = EngineConfig(visual_share=0.5, prune_layer=1)
        found[f"{usual}int4"] = EngineConfig(weights="int4", group=group)
        if cuda:
            found["graphs, fp8"] = EngineConfig(weights="fp8")
        if compiled or not cuda:  # on a GPU int8 is fast where its conversion is fused into the product
            found[f"{usual}int8"] = EngineConfig(weights="int8", compile=cuda)
        if compiled:
            found[f"{usual}compiled"] = EngineConfig(compile=True)
        return found

    def _ours(self, engine: EngineConfig, *, chunk: bool) -> Answer:
        # Its own graphs and cache, the same weights.
        return self._answering(self.model.sharing_weights(engine), chunk=chunk)

    def _seen_before(self) -> Answer:
        """Tokens of a camera whose picture has not changed: known by its digest, neither prepared nor seen again."""
        return self._answering(self.model.sharing_weights(EngineConfig()), chunk=False, reuse=True)

    def _answering(self, model: OpenVlaModel, *, chunk: bool, reuse: bool = False) -> Answer:
        eyes = self.eyes(model, reuse=reuse)

        def run() -> Tensor:
            before = self.prefix(model, eyes)
            if chunk:
                return model.decode_chunk(before, CHUNK, self.patches)[1].cpu()
            return model.decode(before, self.patches)[0].cpu()

        return run

    def _generate(self, options: dict[str, Any], *, compiled: bool = False) -> Answer:
        if compiled and self.device.type != "cuda":
            # On a GPU `transformers` compiles the decoder by itself where the cache is static.
            from transformers import CompileConfig

            setting = CompileConfig(fullgraph=False, mode="default")
            setting._compile_all_devices = True
            options = options | {"compile_config": setting}

        model, eyes = self.model, self.eyes(self.model)

        def run() -> Tensor:
            prefix = self.prefix(model, eyes)
            mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
            found: Tensor = self.reference.generate(
                inputs_embeds=prefix,
                attention_mask=mask,
                min_new_tokens=DIMS,
                max_new_tokens=DIMS,
                do_sample=False,
                pad_token_id=0,
                **options,
            )
            return found.cpu()

        return run

    def _chunk_reference(self) -> Answer:
        """OFT's chunk by `transformers`' own Llama: one pass in which all see all."""
        model, eyes = self.model, self.eyes(self.model)

        def run() -> Tensor:
            before = self.prefix(model, eyes)
            start, empty = before.shape[1] - 1, before.new_zeros(1, CHUNK * DIMS, before.shape[2])
            whole = torch.cat([before, empty, model.embed(torch.full_like(self.ids[:, :1], 2))], dim=1)
            length = whole.shape[1]
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=whole.device)
            hidden = model.llama(inputs_embeds=whole, attention_mask=mask, use_cache=False).last_hidden_state
            return model.action_logits(hidden[:, start : start + CHUNK * DIMS]).argmax(-1).cpu()

        return run
