"""A checkpoint as a `Policy`: observations in, for each one chunk of decoded and binned actions out."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reflexarc.configs.errors import PolicyError, ReflexarcError, WireError, unknown
from reflexarc.configs.placement import Device, Precision
from reflexarc.vla.actions import Said
from reflexarc.vla.checkpoint import Checkpoint
from reflexarc.vla.commitment import commitment, committed, continued
from reflexarc.vla.engine.reuse import Features
from reflexarc.vla.engine.steps import Steps
from reflexarc.vla.engine.words import KeptWords
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.placement import place, wait
from reflexarc.vla.preprocess import Raw, concatenate, proprio_features, to_inputs
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo


class VlaPolicy:
    """On the CPU and in float32 unless told otherwise: so the same observation gives the same tokens.

    threads: of torch, for the whole process; one leaves the other cores to the loops. device, precision: where the
    checkpoint's model is moved to, and what its products are computed in. Raises PolicyError if there is no such thing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        threads: int = 1,
        device: Device = "cpu",
        precision: Precision = "auto",
    ) -> None:
        torch.set_num_threads(threads)
        self._device, self._dtype = place(device, precision)
        self._checkpoint = checkpoint
        self._model = checkpoint.model.eval().to(self._device)
        if self._dtype is not torch.float32:
            self._model.narrow(self._dtype)
        self._model.trunk.kept = KeptWords()
        self._model.trunk.steps = Steps(self._model.trunk.llama)
        if self._model.slow is not None:
            self._model.slow.trunk.kept = KeptWords()
        for level in (self._model, self._model.slow):
            if level is not None and checkpoint.config.model.reuse_vision:
                level.seen = Features()
        config, spec = checkpoint.config.model, checkpoint.spec
        self._info = PolicyInfo(
            t_ns=monotonic_ns(),
            model_id=checkpoint.model_id,
            action_spec=spec.model_dump_json(),
            cameras=list(config.cameras),
            image_height=config.image_size,
            image_width=config.image_size,
            tokenizer_id=checkpoint.codec.id,
            tokens=checkpoint.codec.token_range,
        )
        self._warm_up()

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs and emits; constant."""
        return self._info

    @property
    def checkpoint(self) -> Checkpoint:
        """What it runs."""
        return self._checkpoint

    def reset(self, session: str) -> None:
        """Nothing is remembered of a session."""

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`.

        Raises PolicyError on a missing camera, a wrong image size, an instruction that is too long or a state that is
        not finite; and where the model has a slow level, if what that said is missing.
        """
        answer = self.act_batch([observation])[0]
        if isinstance(answer, ReflexarcError):
            raise answer
        return answer

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        """Answers to several observations from one pass of the model; those that `act` would refuse get the error."""
        began = time.perf_counter_ns()
        answers: list[ActionChunk | ReflexarcError | None] = [None] * len(observations)
        rows: list[Raw] = []
        for index, observation in enumerate(observations):
            try:
                committed(observation, self._checkpoint.spec)
                self._require_latent(observation)
                rows.append(self.raw(observation))
            except PolicyError as error:
                answers[index] = error
        good = [index for index, answer in enumerate(answers) if answer is None]
        if rows:
            chunks = self._run([observations[index] for index in good], rows, began)
            for index, chunk in zip(good, chunks, strict=True):
                answers[index] = chunk
        return [answer for answer in answers if answer is not None]

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """What the model is run under: no gradients, products in the policy's precision."""
        # What autocast keeps of weights was made without gradients, and guidance would need one through it.
        narrow = torch.autocast(
            self._device.type,
            torch.bfloat16,
            enabled=self._dtype is torch.bfloat16,
            cache_enabled=False,
        )
        with torch.inference_mode(), narrow:
            yield

    def inputs(self, rows: Sequence[Raw]) -> Inputs:
        """What `raw` made of several observations, as the model's batch, where the model is."""
        return to_inputs(concatenate(rows), self._checkpoint.stats, self._device)

    def _run(self, observations: list[Observation], rows: list[Raw], began: int) -> list[ActionChunk]:
        """One pass of the model. latency_ns: of the whole batch, which is what each robot waited for."""
        latents = [each.latent for each in observations if each.latent is not None]
        inputs = self.inputs(rows)
        if latents:
            said = torch.tensor(np.stack(latents), dtype=torch.float32, device=self._device)
            inputs = dataclasses.replace(inputs, latent=said)
        inputs = self._model.tell(inputs)
        going = commitment(observations, self._checkpoint.spec, self._checkpoint.codec.grid)
        going = None if going is None else going.to(self._device)
        wait(self._device)
        prepared = time.perf_counter_ns()
        with self.computing():
            tokens, keep = self._model.see(inputs)
            wait(self._device)
            seen = time.perf_counter_ns()
            prefix, plan, _ = self._model.think(inputs, tokens, keep)
            wait(self._device)
            thought = time.perf_counter_ns()
            answer = self._model.head.decode(self._model.trunk, prefix, plan, going)
        read = self._checkpoint.codec.read(answer)
        done = time.perf_counter_ns()
        latency = {
            "preprocess": prepared - began,
            "vision": seen - prepared,
            "prefix": thought - seen,
            "action": done - thought,
        }
        return [self._chunk(each, read, row, latency) for row, each in enumerate(observations)]

    def _chunk(
        self, observation: Observation, said: Said, row: int, latency_ns: dict[str, int]
    ) -> ActionChunk:
        """The answer that is a row of what was said, behind what will be over on arrival."""
        actions = continued(said.actions[row], observation, self._checkpoint.spec)
        going = 0 if observation.committed is None else len(observation.committed)
        bins = said.bins[row].astype(np.int16)
        bins[:going] = self._checkpoint.codec.grid.encode(actions[:going])
        return ActionChunk(
            t_ns=monotonic_ns() if observation.clock == "monotonic" else observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=actions,
            bins=bins,
            policy_tokens=said.tokens[row],
            tokenizer_id=self._info.tokenizer_id,
            step_ns=self._checkpoint.spec.step_ns,
            spec_id=self._checkpoint.spec.id,
            model_id=self._checkpoint.model_id,
            latency_ns=latency_ns,
            session=observation.session,
        )

    def _warm_up(self) -> None:
        """Run once on grey images, so that the first answer takes no longer than the others."""
        model = self._checkpoint.config.model
        size, features = model.image_size, len(self._checkpoint.stats.mean)
        images = np.full((1, len(model.cameras), size, size, 3), 128, dtype=np.uint8)
        words, seen = self._checkpoint.words.encode(""), np.ones(images.shape[:2], dtype=bool)
        raw = Raw(images, seen, words[None], np.zeros((1, features)), np.zeros((1, 3)))
        with self.computing():
            self._model.act(self.inputs([raw]))

    def raw(self, observation: Observation) -> Raw:
        """What the model is given of an observation: a batch of one. Raises PolicyError as `act` does."""
        checkpoint = self._checkpoint
        state = observation.state
        proprio = proprio_features(
            checkpoint.config.model.proprio,
            pose=state.pose_base_tcp[None],
            pose_commanded=state.pose_base_tcp_commanded[None],
            gripper=np.array([state.gripper]),
            gripper_commanded=np.array([state.gripper_commanded]),
            wrench=state.wrench_tcp[None],
        )
        tcp = state.pose_base_tcp_commanded[None, :3]
        if not (np.isfinite(proprio).all() and np.isfinite(tcp).all()):
            raise PolicyError("the observation's state holds values that are not finite")
        model = checkpoint.config.model
        seen = np.array([name in observation.images or name not in model.may_miss for name in model.cameras])
        blank = np.zeros((model.image_size, model.image_size, 3), dtype=np.uint8)
        images = np.stack(
            [
                self._image(observation, name) if there else blank
                for name, there in zip(model.cameras, seen, strict=True)
            ]
        )
        words = checkpoint.words.encode(observation.instruction)
        return Raw(images[None], seen[None], words[None], proprio, tcp)

    def _require_latent(self, observation: Observation) -> None:
        """Raise PolicyError unless what a slow level said is there, if there is one, and only then."""
        slow, latent, name = self._checkpoint.config.model.slow, observation.latent, self._checkpoint.model_id
        if slow is None and latent is not None:
            raise PolicyError(
                f"a planner said {latent.size} numbers; {name} has no slow level (model.slow) and is told words"
            )
        if slow is None:
            return
        if latent is None:
            raise PolicyError(
                f"{name} acts on what its slow level says, and nothing was said yet: the observation has no latent; "
                "load the checkpoint's folder, or a settings file with `planner: {kind: latent}`"
            )
        if latent.shape != (slow.head.width,) or not np.isfinite(latent).all():
            raise PolicyError(
                f"the latent has shape {latent.shape}, {name} needs ({slow.head.width},) finite numbers"
            )

    def _image(self, observation: Observation, camera: str) -> NDArray[np.uint8]:
        size = self._checkpoint.config.model.image_size
        if camera not in observation.images:
            missing = unknown("camera", camera, observation.images)
            raise PolicyError(f"{self._checkpoint.model_id} needs camera {camera}: {missing}")
        frame = observation.images[camera]
        if (frame.height, frame.width) != (size, size):
            raise PolicyError(
                f"camera {camera}: image of {frame.height}x{frame.width}; "
                f"{self._checkpoint.model_id} needs {size}x{size}"
            )
        try:
            return decode_image(frame)
        except WireError as error:
            raise PolicyError(str(error)) from error
