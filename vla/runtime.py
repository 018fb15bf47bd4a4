"""A checkpoint as a `Policy`: one observation in, one chunk of decoded and binned actions out."""

from __future__ import annotations

import time

import numpy as np
import torch

from reflexarc.configs.errors import PolicyError, WireError, unknown
from reflexarc.vla.checkpoint import Checkpoint
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.preprocess import Raw, proprio_features, to_inputs
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import ActionChunk, Observation, PolicyInfo


class VlaPolicy:
    """Runs on the CPU in float32, so that the same observation gives the same tokens on the same machine.

    threads: of torch, for the whole process; one leaves the other cores to the loops.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        self._model = checkpoint.model.eval()
        config, spec = checkpoint.config.model, checkpoint.spec
        self._info = PolicyInfo(
            t_ns=monotonic_ns(),
            model_id=checkpoint.model_id,
            action_spec=spec.model_dump_json(),
            cameras=list(config.cameras),
            image_height=config.image_size,
            image_width=config.image_size,
            tokenizer_id=checkpoint.actions.id,
        )
        self._warm_up()

    @property
    def info(self) -> PolicyInfo:
        """What this policy needs and emits; constant."""
        return self._info

    def reset(self, session: str) -> None:
        """Nothing is remembered of a session."""

    def act(self, observation: Observation) -> ActionChunk:
        """Answer `observation`.

        Raises PolicyError on a missing camera, a wrong image size, an instruction that is too long or a state that is
        not finite.
        """
        began = time.perf_counter_ns()
        inputs = self._inputs(observation)
        prepared = time.perf_counter_ns()
        with torch.inference_mode():
            tokens, keep = self._model.see(inputs)
            seen = time.perf_counter_ns()
            prefix, plan, _ = self._model.think(inputs, tokens, keep)
            thought = time.perf_counter_ns()
            readout = self._checkpoint.config.model.head.readout
            bins = self._model.head.decode(self._model.trunk, prefix, plan, readout)[0].numpy()
        actions = self._checkpoint.actions.decode(bins)
        done = time.perf_counter_ns()
        first = self._model.trunk.words
        return ActionChunk(
            t_ns=monotonic_ns() if observation.clock == "monotonic" else observation.t_ns,
            clock=observation.clock,
            obs_seq=observation.seq,
            t_obs_ns=observation.t_obs_ns,
            actions=actions,
            bins=bins.astype(np.int16),
            policy_tokens=[first + int(bin_) for bin_ in bins.flatten()],
            tokenizer_id=self._info.tokenizer_id,
            step_ns=self._checkpoint.spec.step_ns,
            spec_id=self._checkpoint.spec.id,
            model_id=self._checkpoint.model_id,
            latency_ns={
                "preprocess": prepared - began,
                "vision": seen - prepared,
                "prefix": thought - seen,
                "action": done - thought,
            },
            session=observation.session,
        )

    def _warm_up(self) -> None:
        """Run once on grey images, so that the first answer takes no longer than the others."""
        model = self._checkpoint.config.model
        size, features = model.image_size, len(self._checkpoint.stats.mean)
        images = np.full((1, len(model.cameras), size, size, 3), 128, dtype=np.uint8)
        words = self._checkpoint.words.encode("")
        raw = Raw(images, words[None], np.zeros((1, features)), np.zeros((1, 3)))
        with torch.inference_mode():
            self._model.act(to_inputs(raw, self._checkpoint.stats))

    def _inputs(self, observation: Observation) -> Inputs:
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
        images = np.stack([self._image(observation, name) for name in checkpoint.config.model.cameras])
        words = checkpoint.words.encode(observation.instruction)
        return to_inputs(Raw(images[None], words[None], proprio, tcp), checkpoint.stats)

    def _image(
        self, observation: Observation, camera: str
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        size = self._checkpoint.config.model.image_size
        if camera not in observation.images:
            missing = unknown("camera", camera, observation.images)
            raise PolicyError(f"{self._checkpoint.model_id} needs camera {camera}: {missing}")
        try:
            image = decode_image(observation.images[camera])
        except WireError as error:
            raise PolicyError(str(error)) from error
        if image.shape != (size, size, 3):
            raise PolicyError(
                f"camera {camera}: image of {image.shape[0]}x{image.shape[1]}; "
                f"{self._checkpoint.model_id} needs {size}x{size}"
            )
        return image
