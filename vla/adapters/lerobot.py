"""A folder of lerobot's as a `Policy`: any `PreTrainedPolicy`, with the pre- and postprocessor that it was saved with.

lerobot 0.6 saves a policy as `config.json` (its `type` names the class), `model.safetensors`, and two processor
pipelines, `policy_preprocessor.json` and `policy_postprocessor.json`, which normalise, tokenise and restore. Installed
third-party policies (`lerobot_policy_*`) are found as lerobot finds them. Nothing is fetched: a tokenizer in the
folder (`tokenizer.json`) takes the place of the one on the hub that the preprocessor names, and a folder `vlm/` that
of SmolVLA's language model.

Pictures go in as float32 (3, H, W) in 0..1 and the state as `config.state` composes it; what comes out is turned into
our action space by `config.action`. Policies that sample (Diffusion, π0, SmolVLA) draw from a seed made of the name of
the session and the observation's number, so that the same observation gets the same chunk. Nothing is kept in lerobot's
own queues: the controller plays chunks, and several robots may ask in turn (of π0 at once, see `pi0_batch.py`).
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reflexarc.configs.engine import Pi0EngineConfig
from reflexarc.configs.errors import PolicyError, WireError
from reflexarc.configs.foreign import LeRobotConfig
from reflexarc.vla.adapters.convention import foreign_spec, state_vector, to_canonical
from reflexarc.vla.adapters.flows import GuidedSampler, going_on
from reflexarc.vla.adapters.pi0 import Sampler, accelerate
from reflexarc.vla.adapters.pi0_fast import KIND as PI0_FAST
from reflexarc.vla.adapters.pi0_fast import LocalTokenizers
from reflexarc.vla.commitment import committed, continued
from reflexarc.vla.engine.guidance import Guide
from reflexarc.vla.placement import place
from reflexarc.vla.sessions import name_in
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo

WEIGHTS = "model.safetensors"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
STATE, TASK = "observation.state", "task"

Batch = dict[str, Any]


class LeRobotPolicy:
    """Loads a folder. Raises PolicyError naming the file, the tensor or the field that is wrong, and the
    alternatives.
    """

    def __init__(self, folder: Path, config: LeRobotConfig, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        register_third_party_plugins()
        self._config = config
        self._foreign = _configuration(folder, config)
        self._keys = self._image_keys(folder)
        local = LocalTokenizers(folder) if self._foreign.type == PI0_FAST else None
        with _no_foreign_code(folder):
            self._policy = _load(folder, self._foreign, local)
            self._before, self._after = _processors(folder, self._foreign, local)
        self._sampler = _sampler(folder, self._foreign.type, self._policy, config.engine)
        self._said: dict[str, tuple[int, Tensor]] = {}
        self._past: dict[str, deque[tuple[int, Batch]]] = {}
        emitted, size = self._try_out()
        used = config.horizon or emitted
        if used > emitted:
            raise PolicyError(f"{folder}: horizon {used}: this policy emits {emitted} actions at a time")
        self._spec = foreign_spec(config.action, size, used, config.step_s)
        height, width = self._sizes()[0]
        self._info = PolicyInfo(
            t_ns=monotonic_ns(),
            model_id=f"lerobot-{self._foreign.type}/{folder.name}",
            action_spec=self._spec.model_dump_json(),
            cameras=list(config.cameras),
            image_height=height,
            image_width=width,
            tokenizer_id="none",
        )

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs and emits; constant."""
        return self._info

    def reset(self, session: str) -> None:
        """Forget what was seen and said in `session`."""
        self._past.pop(session, None)
        self._said.pop(session, None)

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`; its images are brought to the size that the policy was trained with.

        Raises PolicyError on a missing camera, a damaged image or a state of the wrong size.
        """
        began = time.perf_counter_ns()
        committed(observation, self._spec)  # what cannot be taken in is refused before anything is computed
        batch = self._remember(observation, self._prepared(observation))
        prepared = time.perf_counter_ns()
        if self._sampler is not None:
            self._sampler.go_on(self._guide(observation))
        raw = self._predict(batch, seed_of(observation))
        decided = time.perf_counter_ns()
        if self._sampler is not None and self._sampler.last is not None:
            self._said[observation.session] = (observation.t_obs_ns, self._sampler.last)
        return self._reply(
            observation, raw, {"preprocess": prepared - began} | self._stages(decided - prepared)
        )

    def _reply(
        self, observation: Observation, raw: NDArray[np.float64], latency_ns: dict[str, int]
    ) -> ActionChunk:
        """raw (H, D), as the postprocessor gives them, as the answer to `observation`."""
        raw = raw[: self._spec.horizon]
        if not np.isfinite(raw).all():
            raise PolicyError(f"{self._info.model_id} answers with values that are not finite")
        actions = to_canonical(raw, self._config.action, observation.state.pose_base_tcp_commanded)
        return ActionChunk(
            t_ns=monotonic_ns() if observation.clock == "monotonic" else observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=continued(actions, observation, self._spec),
            bins=np.full(raw.shape, -1, dtype=np.int16),
            policy_tokens=[],
            tokenizer_id=self._info.tokenizer_id,
            step_ns=self._spec.step_ns,
            spec_id=self._spec.id,
            model_id=self._info.model_id,
            latency_ns=latency_ns,
            session=observation.session,
        )

    def _stages(self, passed_ns: int) -> dict[str, int]:
        """Of the time that the model took: what its pictures did, where that is known."""
        vision = None if self._sampler is None else self._sampler.vision_ns
        return {"model": passed_ns} if vision is None else {"vision": vision, "action": passed_ns - vision}

    def _guide(self, observation: Observation) -> Guide | None:
        """Where the arm goes on with what was said last, let a flow go on from it too, in its normalised numbers."""
        earlier = self._said.get(observation.session)
        if observation.committed is None or earlier is None:
            return None
        passed = round((observation.t_obs_ns - earlier[0]) / self._spec.step_ns)
        if not 0 <= passed < earlier[1].shape[1]:
            return None
        return going_on(earlier[1], passed, observation.frozen_steps)

    def _prepared(self, observation: Observation) -> Batch:
        """One observation through the policy's own preprocessor: tensors with a batch of one in front."""
        given: Batch = {TASK: observation.instruction}
        for key, camera, size in zip(self._keys, self._config.cameras, self._sizes(), strict=True):
            given[key] = self._image(observation, camera, size)
        feature = self._foreign.robot_state_feature
        if feature is not None:
            felt = state_vector(observation.state, self._config)
            if felt.size != feature.shape[0]:
                raise PolicyError(
                    f"state: {', '.join(self._config.state)} are {felt.size} numbers, {STATE} has {feature.shape[0]}; "
                    "set `state` to what the policy was trained with"
                )
            given[STATE] = torch.from_numpy(felt.astype(np.float32))
        return dict(self._before(given))

    def _remember(self, observation: Observation, batch: Batch) -> Batch:
        """The policy's window of the past: for each earlier step the latest that had been seen by then.

        What is missing at the start is what was seen first, as in lerobot's queues.
        """
        steps = self._foreign.n_obs_steps
        if steps == 1:
            return batch
        past = self._past.setdefault(observation.session, deque(maxlen=4 * steps))
        past.append((observation.t_obs_ns, batch))
        window = []
        for back in reversed(range(steps)):
            due = observation.t_obs_ns - back * round(self._config.step_s * 1e9)
            window.append(next((each for t, each in reversed(past) if t <= due), past[0][1]))
        features = [*self._keys, STATE] if STATE in batch else self._keys
        return batch | {key: torch.stack([each[key] for each in window], dim=1) for key in features}

    def _predict(self, batch: Batch, seed: int) -> NDArray[np.float64]:
        """(H, D) as the policy's postprocessor gives them."""
        with self._drawing(seed), torch.no_grad():  # guidance needs gradients inside
            self._policy.reset()
            try:
                chunk: Tensor = self._policy.predict_action_chunk(batch)
            except AssertionError as error:  # π0-FAST: tokens that are no actions
                raise PolicyError(f"{self._foreign.type} said no actions: {error}") from error
            return self._restored(chunk[0])

    @contextlib.contextmanager
    def _drawing(self, seed: int) -> Iterator[None]:
        """Random numbers of this seed within; those of others go on behind it as if nothing had been drawn."""
        devices = [self._foreign.device] if str(self._foreign.device).startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def _restored(self, chunk: Tensor) -> NDArray[np.float64]:
        """(H, D) of a chunk as the model says it, by the policy's own postprocessor."""
        steps = int(getattr(self._foreign, "n_action_steps", len(chunk)))
        actions: Tensor = self._after(chunk[:steps])
        return actions.float().cpu().numpy().astype(np.float64)

    def _try_out(self) -> tuple[int, int]:
        """(actions at a time, numbers of one), by asking once; so the first real answer takes no longer than others."""
        given: Batch = {TASK: ""}
        for key, (height, width) in zip(self._keys, self._sizes(), strict=True):
            given[key] = torch.zeros(3, height, width)
        feature = self._foreign.robot_state_feature
        if feature is not None:
            given[STATE] = torch.zeros(feature.shape)
        batch = dict(self._before(given))
        if self._foreign.n_obs_steps > 1:
            steps = self._foreign.n_obs_steps
            features = [*self._keys, STATE] if STATE in batch else self._keys
            batch |= {key: torch.stack([batch[key]] * steps, dim=1) for key in features}
        # A GPU's passes are compiled at their second use and recorded at their third at the latest (`Graphs`).
        recorded = self._sampler is not None and str(self._foreign.device).startswith("cuda")
        for _ in range(3 if recorded else 1):
            actions = self._predict(dict(batch), 0)
        return actions.shape[0], actions.shape[1]

    def _image(self, observation: Observation, camera: str, size: tuple[int, int]) -> Tensor:
        frame = observation.images.get(camera)
        if frame is None:
            there = ", ".join(sorted(observation.images)) or "none"
            raise PolicyError(f"the observation has no image of camera {camera!r}; it has: {there}")
        try:
            image = decode_image(frame)
        except WireError as error:
            raise PolicyError(str(error)) from error
        if self._config.rotate_180:
            image = image[::-1, ::-1]
        if image.shape[:2] != size:
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0

    def _image_keys(self, folder: Path) -> tuple[str, ...]:
        known = tuple(self._foreign.image_features)
        keys = self._config.image_keys or known
        absent = [key for key in keys if key not in known]
        cameras = self._config.cameras
        if absent or len(keys) != len(cameras):
            raise PolicyError(
                f"{folder}: the policy sees {', '.join(known) or 'no image'}, the settings give {', '.join(cameras)}; "
                "set `cameras`, one for each (and `image_keys` for their order)"
            )
        return tuple(keys)

    def _sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image feature."""
        shapes = [self._foreign.image_features[key].shape for key in self._keys]
        return [(int(shape[1]), int(shape[2])) for shape in shapes]


def seed_of(observation: Observation) -> int:
    """Of what is drawn for an answer: the same whoever asks, so of the session's name, not of a server's key to it."""
    return zlib.crc32(f"{name_in(observation.session)}/{observation.seq}".encode())


def _configuration(folder: Path, config: LeRobotConfig) -> Any:
    path = folder / "config.json"
    try:
        foreign = PreTrainedConfig.from_pretrained(folder)
    except Exception as error:  # draccus and lerobot raise a dozen unrelated types on foreign fields
        raise PolicyError(f"{path}: {_first_line(error)}") from error
    if foreign.action_feature is None:
        raise PolicyError(
            f"{path}: output_features has no `action`; it has {', '.join(foreign.output_features)}"
        )
    _place(path, foreign, config)
    foreign.pretrained_path = folder
    if hasattr(foreign, "vlm_model_name") and (folder / "vlm").is_dir():
        foreign.vlm_model_name, foreign.load_vlm_weights = str(folder / "vlm"), False
    if hasattr(foreign, "pretrained_backbone_weights"):
        foreign.pretrained_backbone_weights = None  # they are in the folder; lerobot would fetch them first
    return foreign


def _place(path: Path, foreign: Any, config: LeRobotConfig) -> None:
    """Write into lerobot's configuration where the model is run, and in what numbers where it can be told that."""
    told = str(getattr(foreign, "dtype", "")) in ("float32", "bfloat16")
    if not told and config.precision != "auto":
        raise PolicyError(
            f"{path}: precision {config.precision}: lerobot's {foreign.type} has no `dtype` of float32 or bfloat16 to "
            "set; leave precision out"
        )
    device, dtype = place(config.device, config.precision if told else "float32")
    foreign.device = device.type
    if told:
        foreign.dtype = str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def _no_foreign_code(folder: Path) -> Iterator[None]:
    """Whatever lerobot asks of `transformers` (it sets `trust_remote_code`), no code of a checkpoint is run."""
    from transformers import dynamic_module_utils

    def refuse(name: str, path: Any, **_: Any) -> Any:
        raise PolicyError(f"{folder}: it wants to run {name} of {path}, code that is not lerobot's: refused")

    before = dynamic_module_utils.get_class_in_module
    dynamic_module_utils.get_class_in_module = refuse
    try:
        yield
    finally:
        dynamic_module_utils.get_class_in_module = before


def _load(folder: Path, foreign: Any, local: LocalTokenizers | None) -> Any:
    """The policy, every tensor of it from the file.

    lerobot loads what fits and prints what does not (π0 and π0.5 even go on without any); here that is an error.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        present = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
        raise PolicyError(f"{path}: not a whole safetensors file: {error}; there is {present}") from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), local.given() if local else contextlib.nullcontext():
            policy = get_policy_class(foreign.type).from_pretrained(folder, config=foreign, strict=True)
    except ImportError as error:
        raise PolicyError(
            f"{folder}: lerobot's {foreign.type} needs a package: {_first_line(error)}"
        ) from error
    except Exception as error:  # torch, safetensors, transformers and lerobot each raise their own
        raise PolicyError(f"{path}: {_differing(error)}") from error
    warning = next((line for line in said.getvalue().splitlines() if "Could not load" in line), "")
    if warning:
        raise PolicyError(
            f"{path}: {_differing(RuntimeError(said.getvalue()[said.getvalue().index(warning) :]))}"
        )
    for name, tensor in policy.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PolicyError(f"{path}: tensor {name} holds values that are not finite")
    return policy.to(foreign.device).eval()


def _sampler(folder: Path, kind: str, policy: Any, engine: Pi0EngineConfig) -> Sampler | GuidedSampler | None:
    """What makes a flow policy faster, or guides it; None for the others."""
    if kind == "pi0":
        return accelerate(policy.model, engine)
    if engine != Pi0EngineConfig():
        raise PolicyError(
            f"{folder}: `engine` is for π0; lerobot's {kind} is run by lerobot's code, leave it out"
        )
    model = getattr(policy, "model", None)
    return GuidedSampler(model) if GuidedSampler.fits(model) else None


def _processors(folder: Path, foreign: Any, local: LocalTokenizers | None) -> tuple[Any, Any]:
    """The two pipelines of the folder, on our device and with the folder's own tokenizer where it has one."""
    for name in PROCESSORS:
        if not (folder / name).is_file():
            present = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
            raise PolicyError(
                f"{folder} has no {name}, which normalises and restores what the policy sees and says; there is "
                f"{present}; lerobot's migrate_policy_normalization makes it for checkpoints from before 0.4"
            )
    path = folder / PROCESSORS[0]
    steps = {each.get("registry_name") for each in json.loads(path.read_text()).get("steps", ())}
    overrides: dict[str, Any] = {}
    if "device_processor" in steps:
        overrides["device_processor"] = {"device": foreign.device}
    if "tokenizer_processor" in steps and (folder / "tokenizer.json").is_file():
        overrides["tokenizer_processor"] = {"tokenizer_name": str(folder)}
    if local is not None:
        overrides |= local.overrides()
    try:
        before, after = make_pre_post_processors(
            foreign, pretrained_path=str(folder), preprocessor_overrides=overrides
        )
    except Exception as error:  # a tokenizer of the hub that is not there, a state file that is missing, ...
        cure = (
            "put its tokenizer.json into the folder" if "tokenizer_processor" in steps else "check the folder"
        )
        raise PolicyError(f"{path}: {_first_line(error)}; {cure}") from error
    return before, after


def _differing(error: Exception) -> str:
    """The tensors that torch names in its many lines, on one."""
    return (
        "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:600]
        or type(error).__name__
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
