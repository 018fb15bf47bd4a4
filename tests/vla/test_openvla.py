"""OpenVLA and OpenVLA-OFT: against their published code's answers, and against a second forward pass written here.

Both run on one small checkpoint of the published structure. `golden/openvla.json` holds what the published code,
unmodified, answered on it; the reference below is NumPy in double precision, from the equations of the papers.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contracts import openvla_small as small
from contracts.openvla_folder import GOLDEN, SMALL_TOWERS, add_oft, published, write_folder
from contracts.toy_policy import toy_observation
from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.evaluate import EvalJob, evaluate_batch
from reflexarc.setup import load_setup
from reflexarc.vla.openvla import layout as layouts
from reflexarc.vla.openvla.actions import ActionBins, Bounds
from reflexarc.vla.openvla.images import center_crop, prepare, to_towers
from reflexarc.vla.openvla.layout import Layout, model_shapes, read_layout, unused
from reflexarc.vla.openvla.model import OpenVlaModel, empty_model, restore_tables
from reflexarc.vla.openvla.policy import OpenVlaPolicy
from reflexarc.vla.openvla.weights import find_part, load_weights, merge_lora, our_name
from reflexarc.wire.contracts import Policy
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import ActionChunk, CameraFrame, Observation

F64 = NDArray[np.float64]
TOLERANCE = 1e-5
OPENVLA, OFT = GOLDEN["openvla"], GOLDEN["oft"]


@pytest.fixture(scope="module", autouse=True)
def _small_towers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, shape in SMALL_TOWERS.items():
            patch.setitem(layouts.TOWERS, name, shape)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("openvla"), settings="statistics: bridge_orig\n")


@pytest.fixture(scope="module")
def oft_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("oft") / "small"
    shutil.copytree(folder, target)
    return add_oft(target)


@pytest.fixture(scope="module")
def film_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("film") / "small"
    shutil.copytree(folder, target)
    return add_oft(target, film=True)


def loaded(folder: Path, **options: Any) -> tuple[OpenVlaModel, Layout]:
    layout = read_layout(folder)
    names = ("action_head", "proprio_projector", "vision_backbone")
    parts = {name: path for name in names if (path := find_part(folder, name))} if options else {}
    model = empty_model(layout, **({"dims": 7, "film": False, "state": 0, "regress": False} | options))
    load_weights(model, layout, parts, device=torch.device("cpu"), dtype=torch.float32)
    restore_tables(model, torch.device("cpu"))
    return model.eval(), layout


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenVlaModel:
    return loaded(folder)[0]


def towers_of(pixels: NDArray[np.float32], images: int) -> list[torch.Tensor]:
    """(1, 6·C, S, S) as published to one (1, C, 3, S, S) a tower."""
    split = torch.from_numpy(pixels).unflatten(1, (images, 2, 3))
    return [split[:, :, 0], split[:, :, 1]]


def worst(ours: Any, theirs: Any) -> float:
    """Largest difference, relative to the size of the numbers where that is above one."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


# The published code's answers


@pytest.mark.parametrize(
    ("tower", "features"), [(0, slice(0, 48)), (1, slice(48, 88))], ids=["dinov2", "siglip"]
)
def test_each_tower_is_timms_own(model: OpenVlaModel, tower: int, features: slice) -> None:
    """timm 0.9.16's second-to-last block; DINOv2's features come first."""
    images = towers_of(small.pixels("openvla", 1), 1)
    with torch.inference_mode():
        ours = model.towers[tower](images[tower][:, 0])
    assert worst(ours[0], np.array(OPENVLA["features"])[:, features]) < TOLERANCE


def test_projected_features_are_those_of_the_published_code(model: OpenVlaModel) -> None:
    with torch.inference_mode():
        projected = model.see(towers_of(small.pixels("openvla", 1), 1))
    assert worst(projected[0], OPENVLA["projected"]) < TOLERANCE


def test_logits_and_tokens_are_those_of_the_published_code(model: OpenVlaModel) -> None:
    ids, logits = model.generate(towers_of(small.pixels("openvla", 1), 1), torch.tensor([small.PROMPT_IDS]))
    assert worst(logits[0, 0], OPENVLA["first_logits"]) < TOLERANCE
    assert ids[0].tolist() == OPENVLA["tokens"]
    assert len(set(OPENVLA["tokens"])) > 3, (
        "a golden answer in which everything is clipped would prove nothing"
    )


@pytest.mark.parametrize("key", ["bridge_orig", "kuka"])
def test_actions_are_those_of_the_published_code(key: str) -> None:
    bins = ActionBins(256, small.VOCABULARY)
    bounds = Bounds.read(small.STATISTICS[key], "action", "q01_q99", key)
    actions = bounds.restore(bins.values(bins.bins(np.array(OPENVLA["tokens"]))))
    assert worst(actions, OPENVLA["actions"][key]) < 1e-6


def test_pixels_are_those_of_the_published_processor(folder: Path) -> None:
    layout = read_layout(folder)
    towers = to_towers([prepare(small.image(), 28, OpenVlaConfig())], layout)
    both = np.concatenate([each[0].numpy() for each in towers])
    assert worst(both[:, ::3, ::3], OPENVLA["processed"]) < 1e-6


def test_a_policy_answers_an_image_as_the_published_code_does(folder: Path) -> None:
    policy = OpenVlaPolicy(folder, OpenVlaConfig(statistics="bridge_orig", cameras=("front",)))
    assert policy.prompt_ids("Lift the red CUBE") == small.PROMPT_IDS
    chunk = policy.act(observation("lift the red cube"))
    expected = np.array(OPENVLA["action_of_image"])
    assert worst(chunk.actions[0], [*expected[:6], np.clip(expected[6], 0, 1)]) < 1e-6
    assert chunk.actions.shape == (1, 7)
    bins = ActionBins(256, small.VOCABULARY)
    assert chunk.policy_tokens == bins.ids(chunk.bins.astype(np.int64)).flatten().tolist()
    said = policy.info.tokens
    assert (said.first, said.end, said.most) == (small.VOCABULARY - 255, small.VOCABULARY, 7)


def test_chunks_of_oft_are_those_of_the_published_code(oft_folder: Path) -> None:
    bounds = Bounds.read(small.STATISTICS["bridge_orig"], "action", "q01_q99", "bridge_orig")
    images, ids = towers_of(small.pixels("oft", 2), 2), torch.tensor([small.PROMPT_IDS])
    model, _ = loaded(oft_folder, state=8, regress=True)
    hidden, values = model.parallel(images, ids, torch.from_numpy(small.state())[None], small.CHUNK)
    assert worst(hidden[0, ::5], OFT["l1_hidden"]) < TOLERANCE
    assert worst(bounds.restore(values[0].double().numpy()), OFT["l1_actions"]) < TOLERANCE


def test_chunks_of_tokens_of_oft_are_those_of_the_published_code(model: OpenVlaModel) -> None:
    bounds = Bounds.read(small.STATISTICS["bridge_orig"], "action", "q01_q99", "bridge_orig")
    images, ids = towers_of(small.pixels("oft", 2), 2), torch.tensor([small.PROMPT_IDS])
    _, chosen = model.parallel(images, ids, None, small.CHUNK)
    bins = ActionBins(256, small.VOCABULARY)
    assert worst(bounds.restore(bins.values(bins.bins(chosen[0].numpy()))), OFT["token_actions"]) < 1e-6


def test_chunks_of_oft_with_film_are_those_of_the_published_code(film_folder: Path) -> None:
    bounds = Bounds.read(small.STATISTICS["bridge_orig"], "action", "q01_q99", "bridge_orig")
    images, ids = towers_of(small.pixels("oft", 2), 2), torch.tensor([small.PROMPT_IDS])
    model, _ = loaded(film_folder, film=True, state=8, regress=True)
    hidden, values = model.parallel(images, ids, torch.from_numpy(small.state())[None], small.CHUNK)
    assert worst(hidden[0, ::5], OFT["film_hidden"]) < TOLERANCE
    assert worst(bounds.restore(values[0].double().numpy()), OFT["film_actions"]) < TOLERANCE


# The reference


class Reference:
    """OpenVLA's forward pass in NumPy and double precision, without a cache, from published tensors by published
    names.
    """

    def __init__(self) -> None:
        self.w = {name: tensor.double().numpy() for name, tensor in published(OPENVLA["shapes"]).items()}

    def linear(self, x: F64, name: str) -> F64:
        bias = self.w.get(f"{name}.bias")
        return x @ self.w[f"{name}.weight"].T + (0.0 if bias is None else bias)

    def layer_norm(self, x: F64, name: str) -> F64:
        """Ba et al. 2016, ε = 1e-6."""
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * self.w[f"{name}.weight"]
            + self.w[f"{name}.bias"]
        )

    def rms_norm(self, x: F64, name: str) -> F64:
        """Zhang & Sennrich 2019, ε = 1e-6."""
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * self.w[f"{name}.weight"]

    def tower(self, image: F64, name: str, depth: int, heads: int) -> F64:
        """Dosovitskiy et al. 2021, eq. 1-3, up to the second-to-last block; registers of Darcet et al. 2024."""
        w, here = self.w, f"vision_backbone.{name}"
        side = image.shape[1] // 14
        patches = image.reshape(3, side, 14, side, 14).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        x = (
            patches @ w[f"{here}.patch_embed.proj.weight"].reshape(-1, patches.shape[1]).T
            + w[f"{here}.patch_embed.proj.bias"]
        )
        x = x + w[f"{here}.pos_embed"][0]
        before = [w[f"{here}.{token}"][0] for token in ("cls_token", "reg_token") if f"{here}.{token}" in w]
        x = np.concatenate([*before, x])
        for index in range(depth - 1):
            block = f"{here}.blocks.{index}"
            query, key, value = np.split(
                self.linear(self.layer_norm(x, f"{block}.norm1"), f"{block}.attn.qkv"), 3, axis=-1
            )
            mixed = self.linear(attention(query, key, value, heads), f"{block}.attn.proj")
            x = x + mixed * w.get(f"{block}.ls1.scale_factor", 1.0)
            inner = gelu(self.linear(self.layer_norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + self.linear(inner, f"{block}.mlp.fc2") * w.get(f"{block}.ls2.scale_factor", 1.0)
        return x[len(x) - side * side :]

    def see(self, pixels: F64) -> F64:
        """DINOv2's features first, then SigLIP's, and the projector's three layers."""
        dino = self.tower(pixels[:3], "featurizer", 3, 3)
        siglip = self.tower(pixels[3:], "fused_featurizer", 4, 2)
        x = gelu(self.linear(np.concatenate([dino, siglip], axis=1), "projector.fc1"))
        return self.linear(gelu(self.linear(x, "projector.fc2")), "projector.fc3")

    def llama(self, x: F64) -> F64:
        """Touvron et al. 2023: RMS norm, rotary positions (Su et al. 2021), causal attention, SwiGLU (Shazeer 2020)."""
        for index in range(3):
            layer = f"language_model.model.layers.{index}"
            normed = self.rms_norm(x, f"{layer}.input_layernorm")
            query, key, value = (self.linear(normed, f"{layer}.self_attn.{part}_proj") for part in "qkv")
            mixed = attention(rotated(query, 4), rotated(key, 4), value, 4, causal=True)
            x = x + self.linear(mixed, f"{layer}.self_attn.o_proj")
            normed = self.rms_norm(x, f"{layer}.post_attention_layernorm")
            gate = self.linear(normed, f"{layer}.mlp.gate_proj")
            up = self.linear(normed, f"{layer}.mlp.up_proj")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
        return self.rms_norm(x, "language_model.model.norm")

    def act(self, pixels: F64, ids: list[int]) -> tuple[list[int], F64]:
        """Seven ids, each from the whole sequence anew, and their logits (7, 256)."""
        table = self.w["language_model.model.embed_tokens.weight"]
        seen, chosen, logits = self.see(pixels), list(ids), []
        for _ in range(7):
            words = table[chosen]
            hidden = self.llama(np.concatenate([words[:1], seen, words[1:]]))
            logits.append(self.w["language_model.lm_head.weight"][31744:32000] @ hidden[-1])
            chosen.append(31744 + int(np.argmax(logits[-1])))
        return chosen[len(ids) :], np.stack(logits)


def gelu(x: F64) -> F64:
    """Hendrycks & Gimpel 2016: x·Φ(x)."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(query: F64, key: F64, value: F64, heads: int, *, causal: bool = False) -> F64:
    """Vaswani et al. 2017, eq. 1, for each head."""
    result = []
    for q, k, v in zip(*(np.split(each, heads, axis=1) for each in (query, key, value)), strict=True):
        scores = q @ k.T / math.sqrt(q.shape[1])
        if causal:
            scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        result.append(weights / weights.sum(1, keepdims=True) @ v)
    return np.concatenate(result, axis=1)


def rotated(x: F64, heads: int) -> F64:
    """Rotary positions: pairs (i, i + d/2) turn by position · 10000^(-2i/d)."""
    result = []
    for part in np.split(x, heads, axis=1):
        half = part.shape[1] // 2
        angle = np.arange(len(part))[:, None] * 10000.0 ** (-np.arange(half) / half)[None, :]
        first, second = part[:, :half], part[:, half:]
        result.append(
            np.concatenate(
                [
                    first * np.cos(angle) - second * np.sin(angle),
                    second * np.cos(angle) + first * np.sin(angle),
                ],
                axis=1,
            )
        )
    return np.concatenate(result, axis=1)


@pytest.mark.parametrize("case", ["first", "second", "third"])
def test_the_model_agrees_with_a_second_forward_pass_from_the_equations(
    model: OpenVlaModel, case: str
) -> None:
    pixels, reference = small.pixels(case, 1), Reference()
    ids, logits = reference.act(pixels[0].astype(np.float64), small.PROMPT_IDS)
    ours, our_logits = model.generate(towers_of(pixels, 1), torch.tensor([small.PROMPT_IDS]))
    assert ours[0].tolist() == ids
    assert worst(our_logits[0], logits) < TOLERANCE


# The true size


def true_layout(tmp_path: Path, backbone: str = "dinosiglip-vit-so-224px") -> Layout:
    (tmp_path / "config.json").write_text(
        f'{{"model_type": "openvla", "vision_backbone_id": "{backbone}", "llm_backbone_id": "llama2-7b-pure", '
        '"image_resize_strategy": "resize-naive", "pad_to_multiple_of": 64, "text_config": {"vocab_size": 32064}}'
    )
    return read_layout(tmp_path)


def test_the_true_size_has_the_published_number_of_weights(tmp_path: Path) -> None:
    """7,541,237,184 weights, 15,082,474,368 bytes in bfloat16: `total_size` of openvla-7b's index."""
    layout = true_layout(tmp_path)
    assert 2 * sum(math.prod(shape) for shape in model_shapes(layout).values()) == 15_082_474_368
    assert sum(tower.width for tower in layout.towers) == 2176
    assert [tower.patches for tower in layout.towers] == [256, 256]
    assert layout.vocabulary == 32000


def test_every_published_tensor_of_the_true_size_fits_one_of_ours(tmp_path: Path) -> None:
    layout = true_layout(tmp_path)
    ours = {
        name: tuple(each.shape)
        for name, each in empty_model(layout, dims=7, film=False, state=0, regress=False).state_dict().items()
    }
    theirs = {
        our_name(name): shape for name, shape in model_shapes(layout).items() if not unused(name, layout)
    }
    assert theirs.pop("action_rows") == (32064, 4096)
    assert ours.pop("action_rows") == (256, 4096)
    assert ours == theirs


def test_the_table_of_shapes_is_that_of_the_published_model(folder: Path) -> None:
    assert {name: list(shape) for name, shape in model_shapes(read_layout(folder)).items()} == OPENVLA[
        "shapes"
    ]


def test_oft_of_the_true_size_has_the_published_shapes(tmp_path: Path) -> None:
    """L1RegressionActionHead(4096, 4096, 7) and ProprioProjector(4096, 8)."""
    model = empty_model(true_layout(tmp_path), dims=7, film=True, state=8, regress=True)
    shapes = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    assert shapes["action_mlp.fc1.weight"] == (4096, 28672)
    assert shapes["action_mlp.fc2.weight"] == (7, 4096)
    assert shapes["proprio.fc1.weight"] == (4096, 8)
    assert shapes["towers.0.blocks.22.scale.weight"] == (1024, 4096)
    assert shapes["towers.1.blocks.25.shift.weight"] == (1152, 4096)


# The rest of the policy


def observation(instruction: str, **cameras: Any) -> Observation:
    """The toy observation with an image of another size."""
    template = toy_observation()
    images = {
        name: encode_image(picture, camera=name, seq=1, t_capture_ns=template.t_obs_ns)
        for name, picture in (cameras or {"front": small.image()}).items()
    }
    return msgspec.structs.replace(template, images=images, instruction=instruction)


def test_an_oft_folder_is_a_policy_of_two_cameras_and_a_state(oft_folder: Path) -> None:
    config = OpenVlaConfig(statistics="bridge_orig", cameras=("front", "wrist"), horizon=5)
    policy = OpenVlaPolicy(oft_folder, config)
    assert isinstance(policy, Policy)
    chunk = policy.act(
        observation("lift the red cube", front=small.image(), wrist=small.image("wrist", 50, 50))
    )
    assert chunk.actions.shape == (5, 7)
    assert len(chunk.policy_tokens) == policy.info.tokens.most == 0  # its L1 head says numbers, no tokens
    assert chunk.bins.shape == (5, 7)
    swapped = policy.act(
        observation("lift the red cube", wrist=small.image(), front=small.image("wrist", 50, 50))
    )
    assert not np.allclose(chunk.actions, swapped.actions)


def test_lora_beside_film_folds_into_the_weights_as_peft_does_it() -> None:
    """Linear and convolution, against peft's own forward pass."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 6, 2, 2), "fc": torch.nn.Linear(6, 5)})
    wrapped = get_peft_model(
        net, LoraConfig(r=32, lora_alpha=16, target_modules=["conv", "fc"], init_lora_weights=False)
    )
    state = {name.removeprefix("base_model.model."): each for name, each in wrapped.state_dict().items()}
    merged = merge_lora(state)
    plain = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 6, 2, 2), "fc": torch.nn.Linear(6, 5)})
    plain.load_state_dict(merged)
    x = torch.randn(2, 3, 4, 4)
    inner = wrapped.base_model.model
    with torch.no_grad():
        assert torch.allclose(plain["conv"](x), inner["conv"](x), atol=1e-5)
        assert torch.allclose(plain["fc"](x.new_ones(2, 6)), inner["fc"](x.new_ones(2, 6)), atol=1e-5)


def test_the_centre_crop_keeps_the_middle_and_scales_it_up() -> None:
    """Of a ramp from 0 to 255, √0.9 of the middle remains: from 6.5 to 248.5, linear in between."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    cropped = center_crop(np.ascontiguousarray(ramp), 224)
    margin = (1 - math.sqrt(0.9)) / 2 * 255
    expected = np.linspace(margin, 255 - margin, 224)
    assert cropped.shape == (224, 224, 3)
    assert np.abs(cropped[100, :, 0] - expected).max() <= 1.0


def test_a_gripper_that_means_the_opposite_is_turned_at_the_edge(folder: Path) -> None:
    usual = OpenVlaPolicy(folder, OpenVlaConfig(statistics="bridge_orig"))
    config = OpenVlaConfig.model_validate(
        {"statistics": "bridge_orig", "action": {"gripper_closed": 1.0, "gripper_open": 0.0}}
    )
    flipped = OpenVlaPolicy(folder, config)
    seen = observation("lift the red cube")
    assert flipped.act(seen).actions[0, 6] == pytest.approx(1 - usual.act(seen).actions[0, 6])


def test_a_published_folder_drives_the_simulated_arm(folder: Path) -> None:
    """By name, through controller and safety, at the image size it asks for: what `reflexarc eval --policy FOLDER`
    does.
    """
    settings = folder.parent / "sim.yaml"
    settings.write_text(f"checkpoint: {folder.name}\nstatistics: bridge_orig\nimage_size: 48\n")
    job = EvalJob("reach", str(settings), 0, 0, 1, "given", "0.1", load_setup(), folder.parent / "logs")
    result = evaluate_batch(job)[0]
    assert result.chunks > 3
    assert result.final_safety == "active"
    log = EpisodeReader(next((folder.parent / "logs").rglob("*.mcap")))
    frame = next(message for _, message in log.messages(["/camera/front"]))
    assert isinstance(frame, CameraFrame)
    assert (frame.height, frame.width) == (48, 48)
    chunk = next(message for _, message in log.messages(["/chunk"]))
    assert isinstance(chunk, ActionChunk)
    assert chunk.model_id.startswith("openvla/")
    assert len(chunk.policy_tokens) == 7


def test_variants_are_the_policy_with_the_other_statistics(folder: Path) -> None:
    usual = OpenVlaPolicy(folder, OpenVlaConfig(statistics="bridge_orig"))
    other = OpenVlaPolicy(folder, OpenVlaConfig(statistics="kuka"))
    variants, seen = usual.variants(), observation("lift the red cube")
    assert list(variants) == ["statistics kuka"]
    assert np.array_equal(variants["statistics kuka"].act(seen).actions, other.act(seen).actions)
    assert not np.array_equal(usual.act(seen).actions, other.act(seen).actions)


def test_the_normalisation_that_is_applied_wins_over_the_one_that_is_named(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "preprocessor_config.json"
    applied = [
        {"mean": [0.484375, 0.455078125, 0.40625], "std": [0.2285, 0.2236, 0.2246]},
        {"mean": [0.5] * 3, "std": [0.5] * 3},
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tvf_normalize_params": applied}))
    mean, spread = read_layout(copy).normalise[0]
    assert mean.tolist() == applied[0]["mean"]
    assert spread.tolist() == applied[0]["std"]
    path.unlink()
    assert read_layout(copy).normalise[0][0].tolist() == [0.485, 0.456, 0.406], (
        "ImageNet's, where nothing is said"
    )
