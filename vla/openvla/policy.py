"""A published OpenVLA or OpenVLA-OFT folder as a `Policy`.

Which of the two it is, the folder says: an action head, or a `chunk` in the settings, means OFT's parallel decoding.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.vla.adapters.convention import foreign_spec, state_vector, to_canonical
from reflexarc.vla.adapters.emitted import to_emitted
from reflexarc.vla.commitment import committed, continued
from reflexarc.vla.openvla.actions import ActionBins, Bounds
from reflexarc.vla.openvla.eyes import Eyes, Glance
from reflexarc.vla.openvla.layout import choose_statistics, read_layout
from reflexarc.vla.openvla.model import empty_model, restore_tables
from reflexarc.vla.openvla.weights import find_part, load_part, load_weights
from reflexarc.vla.placement import place, wait
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.contracts import Policy
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import F64, ActionChunk, Observation, PolicyInfo, TokenRange

BEGIN, EMPTY = 1, 29871
"""Llama's `<s>`, and its token of an empty piece, `▁`. In training it stood between the prompt and the first action;
the tokenizer does not put it at the end of a prompt, so it is added (`predict_action`)."""

PROMPTS_KEPT = 64
"""Instructions whose ids are remembered."""

TOKENIZER = "tokenizer.json"
OFT_CHUNK = 8
"""Actions in a chunk of OFT where the settings don't say: LIBERO's (prismatic/vla/constants.py)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One observation, ready for the model. state: (1, P) normalised."""

    index: int
    observation: Observation
    ids: list[int]
    glances: list[Glance]
    state: Tensor | None


class OpenVlaPolicy:
    """Loads a folder and answers observations.

    Raises PolicyError naming the file, the tensor or the field that is wrong, and the alternatives.
    """

    def __init__(self, folder: Path, config: OpenVlaConfig, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._config = config
        self._layout = layout = read_layout(folder)
        self._tokenizer = _tokenizer(folder)
        self._prompts: dict[str, list[int]] = {}
        self._key, statistics = choose_statistics(layout, config.statistics)
        self._bounds = Bounds.read(statistics, "action", config.bounds, self._key)
        names = ("action_head", "proprio_projector", "vision_backbone")
        parts = {name: path for name in names if (path := find_part(folder, name))}
        _refuse_diffusion(folder, parts.get("action_head"))
        self._feels = (
            Bounds.read(statistics, "proprio", config.bounds, self._key) if names[1] in parts else None
        )
        self._regresses = "action_head" in parts
        self._chunk = _chunk(config, oft=bool(parts))
        self._check_settings(folder)
        self._bins = ActionBins(layout.action_bins, layout.vocabulary)
        self._spec = foreign_spec(config.action, self._bounds.size, self._used(), config.step_s)

        device, dtype = place(config.device, config.precision)
        self._device = device
        self._model = empty_model(
            layout,
            dims=self._bounds.size,
            film="vision_backbone" in parts,
            state=self._feels.size if self._feels else 0,
            regress=self._regresses,
        )
        load_weights(self._model, layout, parts, device=device, dtype=dtype)
        restore_tables(self._model, device)
        self._model.eval().requires_grad_(False)
        self._model.set_engine(config.engine)
        self._dtype = dtype
        self._eyes = Eyes(
            self._model, layout, config, device=device, dtype=dtype, on_gpu=device.type == "cuda"
        )
        self._info = PolicyInfo(
            t_ns=monotonic_ns(),
            model_id=f"{'openvla-oft' if self._chunk else 'openvla'}/{folder.name}/{self._key}",
            action_spec=self._spec.model_dump_json(),
            cameras=list(config.cameras),
            image_height=config.image_size,
            image_width=config.image_size,
            tokenizer_id=self._bins.id,
            tokens=self._token_range(),
        )
        self._warm_up()

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs and emits; constant."""
        return self._info

    def variants(self) -> dict[str, Policy]:
        """The same weights with the statistics of the other data sets that the folder knows."""
        result: dict[str, Policy] = {}
        for key in sorted(self._layout.statistics.keys() - {self._key}):
            try:
                bounds = Bounds.read(self._layout.statistics[key], "action", self._config.bounds, key)
            except PolicyError:
                continue  # of no use: it could not be chosen either
            if bounds.size == self._bounds.size:
                other = copy.copy(self)
                other._key, other._bounds = key, bounds
                result[f"statistics {key}"] = other
        return result

    def reset(self, session: str) -> None:
        """Nothing is remembered of a session."""

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`; its images may have any size.

        Raises PolicyError on a missing camera, a damaged image or a state that is not finite.
        """
        answer = self.act_batch([observation])[0]
        if isinstance(answer, ReflexarcError):
            raise answer
        return answer

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """Answers to several observations; those whose prompts are of one length share a pass of the language model."""
        began = time.perf_counter_ns()
        answers: dict[int, ActionChunk | ReflexarcError] = {}
        groups: dict[int, list[_Asked]] = {}
        for index, observation in enumerate(observations):
            try:
                asked = self._asked(index, observation)
                groups.setdefault(len(asked.ids), []).append(asked)
            except ReflexarcError as error:
                answers[index] = error
        prepared_ns = time.perf_counter_ns() - began
        for group in groups.values():
            chunks = self._answer(group, prepared_ns)
            answers |= {asked.index: chunk for asked, chunk in zip(group, chunks, strict=True)}
        if len(groups) > 1:
            whole_ns = time.perf_counter_ns() - began
            answers = {index: _with_others(answer, whole_ns) for index, answer in answers.items()}
        return [answers[index] for index in range(len(observations))]

    def _asked(self, index: int, observation: Observation) -> _Asked:
        committed(observation, self._spec)  # what cannot be taken in is refused before anything is computed
        ids = self.prompt_ids(observation.instruction)
        glances = self._eyes.glances(observation, ids, end=self._chunk is not None)
        return _Asked(index, observation, ids, glances, self._state(observation))

    @torch.inference_mode()
    def _answer(self, group: list[_Asked], prepared_ns: int) -> list[ActionChunk]:
        """One pass of the model. prepared_ns: what the preparation of the whole batch took."""
        began = time.perf_counter_ns()
        seen = self._eyes.see([each.glances for each in group])
        wait(self._device)
        looked = time.perf_counter_ns()
        ids = torch.tensor([each.ids for each in group], device=self._device)
        states = [each.state for each in group if each.state is not None]
        before = self._model.assemble(seen, ids, torch.cat(states) if states else None)
        values, bins = self._run(before, seen.shape[1])
        decided = time.perf_counter_ns()
        latency = {"preprocess": prepared_ns, "vision": looked - began, "action": decided - looked}
        return [
            self._reply(asked.observation, row_values, row_bins, latency)
            for asked, row_values, row_bins in zip(group, values, bins, strict=True)
        ]

    def _reply(
        self, observation: Observation, values: F64, bins: NDArray[np.int64], latency_ns: dict[str, int]
    ) -> ActionChunk:
        """values (H, D) in [-1, 1] and their bins as the answer to `observation`."""
        raw = self._bounds.restore(values)[: self._spec.horizon]
        pose = observation.state.pose_base_tcp_commanded
        actions = continued(to_canonical(raw, self._config.action, pose), observation, self._spec)
        going = len(committed(observation, self._spec))
        shown = bins[: self._spec.horizon].astype(np.int16)
        if going:
            emitted = self._bounds.normalise(to_emitted(actions[:going], self._config.action, pose))
            shown[:going] = self._bins.nearest(emitted)
        return ActionChunk(
            t_ns=monotonic_ns() if observation.clock == "monotonic" else observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=actions,
            bins=shown,
            policy_tokens=[] if self._regresses else self._bins.ids(bins).flatten().tolist(),
            tokenizer_id=self._info.tokenizer_id,
            step_ns=self._spec.step_ns,
            spec_id=self._spec.id,
            model_id=self._info.model_id,
            latency_ns=latency_ns,
            session=observation.session,
        )

    def prompt_ids(self, instruction: str) -> list[int]:
        """The prompt's ids: `<s>` first, 29871 last."""
        known = self._prompts.get(instruction)
        if known is None:
            known = self._prompts[instruction] = self._tokenized(instruction)
            if len(self._prompts) > PROMPTS_KEPT:
                self._prompts.pop(next(iter(self._prompts)))
        return known

    def _tokenized(self, instruction: str) -> list[int]:
        ids: list[int] = self._tokenizer(self._layout.prompt.format(instruction.lower()))["input_ids"]
        ids = ids if ids[0] == BEGIN else [BEGIN, *ids]
        ids = ids if ids[-1] == EMPTY else [*ids, EMPTY]
        if len(ids) > self._longest_prompt():
            raise PolicyError(
                f"the prompt has {len(ids)} tokens; beside images and actions there is room for "
                f"{self._longest_prompt()} of them, shorten the instruction"
            )
        return ids

    def _longest_prompt(self) -> int:
        """Tokens, so that the whole sequence has positions that the model was trained on."""
        patches = len(self._config.cameras) * self._layout.towers[0].patches
        said = self._bounds.size * (self._chunk or 1) + 2  # the state, and `</s>`
        return int(self._layout.llama["max_position_embeddings"]) - patches - said

    def _run(self, before: Tensor, patches: int) -> tuple[F64, NDArray[np.int64]]:
        """Values (B, H, D) in [-1, 1] and their bins, from the embeddings (B, N, width) of what comes before.

        patches: how many of them are images'.
        """
        robots = len(before)
        while self._device.type == "cuda" and len(before) & (len(before) - 1):
            before = torch.cat([before, before[-1:]])  # a power of two of them, so that few graphs do
        if not self._chunk:
            chosen, _ = self._model.decode(before, patches)
        else:
            _, chosen = self._model.decode_chunk(before, self._chunk, patches)
        rows = chosen.reshape(len(before), -1, self._bounds.size)[:robots].cpu()
        if rows.is_floating_point():
            values = rows.double().numpy()
            return values, self._bins.nearest(values)
        bins = self._bins.bins(rows.numpy())
        return self._bins.values(bins), bins

    def _warm_up(self) -> None:
        """Answer grey pictures until the passes of one robot's pictures have their last form.

        So has that of an empty prompt. A first real one, which is longer, finds all libraries loaded.
        """
        size = self._config.image_size
        grey = np.full((size, size, 3), 128, dtype=np.uint8)
        frames = {
            name: encode_image(grey, camera=name, seq=0, t_capture_ns=0) for name in self._config.cameras
        }
        ids = self.prompt_ids("")
        state = None if self._feels is None else self._to(torch.zeros(1, self._feels.size))
        looked = [self._eyes.glance(frame, ids, end=self._chunk is not None) for frame in frames.values()]
        with torch.inference_mode():
            for _ in range(self._model.warm_ups):
                seen = self._eyes.see([looked])
                before = self._model.assemble(seen, torch.tensor([ids], device=self._device), state)
                self._run(before, seen.shape[1])
        self._model.release()

    def _state(self, observation: Observation) -> Tensor | None:
        if self._feels is None:
            return None
        felt = state_vector(observation.state, self._config)
        if felt.size != self._feels.size:
            raise PolicyError(
                f"state: {', '.join(self._config.state)} are {felt.size} numbers, the statistics {self._key!r} have "
                f"{self._feels.size}; set `state` to what the policy was trained with"
            )
        return self._to(torch.from_numpy(self._feels.normalise(felt))[None])

    def _to(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self._device, dtype=self._dtype)

    def _used(self) -> int:
        """Actions of a chunk that are executed."""
        emitted = self._chunk or 1
        used = self._config.horizon or emitted
        if used > emitted:
            raise PolicyError(f"horizon {used}: this checkpoint emits {emitted} actions at a time")
        return used

    def _token_range(self) -> TokenRange:
        if self._regresses:
            return TokenRange()
        return self._bins.token_range((self._chunk or 1) * self._bounds.size)

    def _check_settings(self, folder: Path) -> None:
        cameras = self._config.cameras
        if self._chunk is None and len(cameras) > 1:
            raise PolicyError(
                f"{folder}: {len(cameras)} cameras ({', '.join(cameras)}); OpenVLA sees one image, only "
                "OpenVLA-OFT more; set `cameras` to one"
            )


def _with_others(answer: ActionChunk | ReflexarcError, whole_ns: int) -> ActionChunk | ReflexarcError:
    """With the stage `others`, the batch's passes of other prompts: all stages together are what a robot waited for."""
    if isinstance(answer, ReflexarcError):
        return answer
    own_ns = sum(answer.latency_ns.values())
    return msgspec.structs.replace(answer, latency_ns=answer.latency_ns | {"others": whole_ns - own_ns})


def _chunk(config: OpenVlaConfig, *, oft: bool) -> int | None:
    """Actions that the parallel decoder emits; None for OpenVLA's one token after another."""
    return config.chunk or (OFT_CHUNK if oft else None)


def _refuse_diffusion(folder: Path, action_head: Path | None) -> None:
    noisy = find_part(folder, "noisy_action_projector")
    diffuses = action_head is not None and any(
        name.startswith("noise_predictor") for name in load_part(action_head)
    )
    if noisy is not None or diffuses:
        raise PolicyError(
            f"{noisy or action_head}: OFT's diffusion head; known: its L1 head, and tokens (no action_head file)"
        )


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    path = folder / TOKENIZER
    if not path.is_file():
        present = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
        raise PolicyError(f"{folder} has no {TOKENIZER}, which turns the prompt into ids; there is {present}")
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # the Rust parser raises bare Exception
        raise PolicyError(f"{path}: not a tokenizer file: {error}") from error
