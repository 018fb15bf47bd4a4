"""How long from pictures to actions: ours against `transformers`, on an OpenVLA of the true shape or a small one.

Random weights; they do not change speed. In turns: `generate` as it is, `generate` with its static cache (on a GPU it
compiles the decoder then), ours, and OpenVLA-OFT's parallel chunk of 8 actions with `transformers` and with ours. Each
is timed from 8-bit pictures in memory to actions in memory, preprocessing and copies included. The floor is what the
machine could do: bytes of the language model over its measured copy rate for each token, and the operations of towers
and prefix over its measured rate of products. Prints a table, writes JSON.

Example: python benchmarks/inference.py --shape small --runs 50 --json runs/inference.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaForCausalLM

from reflexarc.vla.openvla.images import to_towers
from reflexarc.vla.openvla.layout import LLAMA_DEFAULTS, TOWERS, Layout
from reflexarc.vla.openvla.model import OpenVlaModel

DIMS, CHUNK = 7, 8
PROMPT = 20
"""Tokens of `In: What action should the robot take to ...?` with a short task."""

VOCABULARY, PADDED = 32000, 32064
NAMES = ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224")
SMALL = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
"""The language model of `--shape small`; its vocabulary is OpenVLA's."""


def layout_of(shape: str) -> Layout:
    """`openvla-7b`, or `small`: the same structure, narrower and shallower, on pictures of 112 pixels."""
    towers = [TOWERS[name] for name in NAMES]
    llama = dict(LLAMA_DEFAULTS) | {"vocab_size": PADDED}
    if shape == "small":
        towers = [replace(each, width=96, depth=4, heads=4, mlp_width=256, image=112) for each in towers]
        llama |= SMALL
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


@dataclass
class Subject:
    """What is timed: one model, its pictures and prompt, and `transformers`' view of the same weights."""

    layout: Layout
    model: OpenVlaModel
    reference: LlamaForCausalLM
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ids: Tensor
    device: torch.device
    dtype: torch.dtype

    def towers(self) -> list[Tensor]:
        """The pictures as tensors on the device."""
        return [
            each[None].to(self.device, self.dtype, non_blocking=True)
            for each in to_towers([self.image], self.layout)
        ]

    def prefix(self) -> Tensor:
        """Embeddings of everything before the actions."""
        return self.model.sequence(self.towers(), self.ids, None, end=False)


def build(shape: str, device: torch.device, dtype: torch.dtype) -> Subject:
    """Random weights of that shape; `transformers` gets the same language model, and a whole vocabulary above it."""
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
    ids = torch.randint(3, 1000, (1, PROMPT), device=device)
    return Subject(layout, model, reference, image, ids, device, dtype)


def variants(subject: Subject) -> dict[str, Callable[[], Tensor]]:
    """Each answers one observation: action tokens one after another, or a chunk in parallel."""
    model = subject.model

    def generate(**options: Any) -> Tensor:
        prefix = subject.prefix()
        mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        found: Tensor = subject.reference.generate(
            inputs_embeds=prefix,
            attention_mask=mask,
            min_new_tokens=DIMS,
            max_new_tokens=DIMS,
            do_sample=False,
            pad_token_id=0,
            **options,
        )
        return found.cpu()

    def parallel_reference() -> Tensor:
        whole, start = chunk_sequence(subject)
        length = whole.shape[1]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=whole.device)
        hidden = model.llama(inputs_embeds=whole, attention_mask=mask, use_cache=False).last_hidden_state
        return model.action_logits(hidden[:, start : start + CHUNK * DIMS]).argmax(-1).cpu()

    found: dict[str, Callable[[], Tensor]] = {
        "tokens: transformers generate": generate,
        "tokens: ours": lambda: model.generate(subject.towers(), subject.ids)[0].cpu(),
        "chunk: transformers": parallel_reference,
        "chunk: ours": lambda: model.parallel(subject.towers(), subject.ids, None, CHUNK)[1].cpu(),
    }
    if subject.device.type == "cuda":
        found["tokens: transformers static, compiled"] = lambda: generate(cache_implementation="static")
    return found


def chunk_sequence(subject: Subject) -> tuple[Tensor, int]:
    """OFT's sequence for a chunk, and where its answers begin."""
    model = subject.model
    before = model.sequence(subject.towers(), subject.ids, None, end=True)
    empty = before.new_zeros(1, CHUNK * DIMS, before.shape[2])
    end = model.embed(torch.full_like(subject.ids[:, :1], 2))
    return torch.cat([before, empty, end], dim=1), before.shape[1] - 1


@torch.inference_mode()
def measure(runs: dict[str, Callable[[], Tensor]], count: int) -> dict[str, list[float]]:
    """Milliseconds of each answer, the variants in turns so that what else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(count):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) * 1e3)
    return times


@torch.inference_mode()
def stages(subject: Subject, count: int) -> dict[str, float]:
    """Milliseconds of preprocessing, vision and language, of ours (median)."""
    rows: list[tuple[float, float, float]] = []
    for _ in range(count):
        marks = [time.perf_counter()]
        towers = subject.towers()
        wait(subject.device)
        marks.append(time.perf_counter())
        prefix = subject.model.sequence(towers, subject.ids, None, end=False)
        wait(subject.device)
        marks.append(time.perf_counter())
        subject.model._engine(prefix, DIMS).autoregressive(prefix, DIMS)
        wait(subject.device)
        marks.append(time.perf_counter())
        rows.append(tuple(np.diff(marks) * 1e3))
    medians = np.median(rows, axis=0)
    return dict(zip(("preprocess", "vision", "language"), medians.tolist(), strict=True))


@torch.inference_mode()
def floor_ms(subject: Subject) -> dict[str, float]:
    """What the machine could do at best, from rates measured here."""
    device, dtype = subject.device, subject.dtype
    block = torch.zeros((256 if device.type == "cuda" else 32) * 2**20, dtype=torch.uint8, device=device)
    other = torch.empty_like(block)
    copy_s = best(lambda: other.copy_(block), device)
    side = 8192 if device.type == "cuda" else 768
    square = torch.randn(side, side, device=device, dtype=dtype)
    product_s = best(lambda: square @ square, device)
    copy_rate, product_rate = 2 * block.numel() / copy_s, 2 * side**3 / product_s
    model = subject.model
    language = sum(each.numel() for each in model.llama.layers.parameters())
    towers = sum(each.numel() for each in model.towers.parameters())
    projector = sum(each.numel() for each in model.projector.parameters())
    patches = subject.layout.towers[0].patches
    prefix = patches + PROMPT
    size = torch.finfo(dtype).bits // 8
    operations = 2 * (language * prefix + (towers + projector) * patches)
    decode_s = (DIMS - 1) * language * size / copy_rate
    return {
        "copy_gb_per_s": copy_rate * 1e-9,
        "product_tflops": product_rate * 1e-12,
        "tokens_floor_ms": (decode_s + operations / product_rate) * 1e3,
        "chunk_floor_ms": (operations + 2 * language * CHUNK * DIMS) / product_rate * 1e3,
    }


def best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of ten."""
    times = []
    for _ in range(10):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


@torch.inference_mode()
def agreement(subject: Subject) -> dict[str, float]:
    """Our logits of the action rows against `transformers`' on the same tokens, all given at once."""
    prefix = subject.prefix()
    ids, logits = subject.model.generate(subject.towers(), subject.ids)
    forced = torch.cat([prefix, subject.model.embed(ids[:, :-1])], dim=1)
    hidden = subject.model.llama(inputs_embeds=forced).last_hidden_state[:, prefix.shape[1] - 1 :]
    expected = subject.model.action_logits(hidden)
    return {
        "logits_max_difference": float((logits - expected).abs().max()),
        "logits_max": float(expected.abs().max()),
        "tokens_agree": float((expected.argmax(-1) + subject.model.first_action == ids).float().mean()),
    }


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("small", "openvla-7b"), default="small")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/inference.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    console = Console(width=110)
    subject = build(args.shape, device, dtype)
    times = measure(variants(subject), args.runs)
    floor, split, agree = floor_ms(subject), stages(subject, min(args.runs, 20)), agreement(subject)
    memory = torch.cuda.max_memory_allocated() * 1e-9 if device.type == "cuda" else 0.0
    table = Table(title=f"{args.shape} on {device.type}, {dtype}, from pictures to actions")
    for column in ("variant", "p50 ms", "p99 ms", "against transformers", "against the floor"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, row in times.items():
        kind = name.split(":")[0]
        reference = np.median(
            times["tokens: transformers generate" if kind == "tokens" else "chunk: transformers"]
        )
        p50, p99 = np.percentile(row, [50, 99])
        ratio = f"{reference / p50:.2f} x faster"
        table.add_row(name, f"{p50:.1f}", f"{p99:.1f}", ratio, f"{p50 / floor[f'{kind}_floor_ms']:.1f} x")
    console.print(table)
    console.print(f"ours by stage: {', '.join(f'{key} {value:.1f} ms' for key, value in split.items())}")
    console.print(f"floor: {', '.join(f'{key} {value:.3g}' for key, value in floor.items())}")
    console.print(f"agreement: {', '.join(f'{key} {value:.3g}' for key, value in agree.items())}")
    figures = {
        "shape": args.shape,
        "device": device.type,
        "times_ms": times,
        "stages_ms": split,
        "memory_gb": memory,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(figures | {"floor": floor, "agreement": agree}, indent=2) + "\n")
    console.print(f"figures: {args.json}")


if __name__ == "__main__":
    main()
