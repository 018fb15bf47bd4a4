"""Schemas of a policy: which parts a vision-language-action model is made of, and how it is trained.

Every part is chosen by its `kind`; what a kind needs stands beside it. Sizes are in features, tokens or pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reflexarc.configs.base import Config
from reflexarc.configs.planner import SubtaskRule

ACTION_BINS = 256
"""Bins of every action dimension, and reserved vocabulary ids of a model (RT-2; OpenVLA, Kim et al. 2024)."""

ProprioFeature = Literal[
    "position", "position_commanded", "rotation", "gripper", "gripper_commanded", "wrench"
]
"""What a policy may feel: TCP position (3) m, the commanded one (3) m, its rotation as the first two columns of the
rotation matrix (6), gripper opening measured and commanded (1 each), wrench in the TCP frame (6) N and N·m."""


class ConvVisionConfig(Config):
    """A small convolutional tower for training from nothing on a CPU, conditioned on the words by FiLM.

    width: channels at stride 4; twice as many at stride 8. blocks: residual blocks at each of the two strides.
    """

    kind: Literal["conv"] = "conv"
    width: int = Field(default=64, ge=8, multiple_of=8)
    blocks: int = Field(default=1, ge=0)


class TransformerVisionConfig(Config):
    """A vision transformer of `transformers`, built from its configuration with random weights.

    registers: of DINOv2 (Darcet et al. 2024), which has LayerScale with or without them.
    """

    kind: Literal["vit", "siglip", "dinov2"]
    width: int = Field(default=192, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=3, ge=1)
    patch: int = Field(default=16, ge=2)
    registers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> TransformerVisionConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of the heads ({self.heads})")
        if self.registers and self.kind != "dinov2":
            raise ValueError(f"registers are dinov2's; {self.kind} has none")
        return self


class FusedVisionConfig(Config):
    """Two towers whose features stand side by side (Prismatic, OpenVLA: DINOv2 first, then SigLIP)."""

    kind: Literal["fused"]
    parts: tuple[TransformerVisionConfig, TransformerVisionConfig] = (
        TransformerVisionConfig(kind="dinov2"),
        TransformerVisionConfig(kind="siglip"),
    )

    @model_validator(mode="after")
    def _same_patches(self) -> FusedVisionConfig:
        first, second = (part.patch for part in self.parts)
        if first != second:
            raise ValueError(f"fused towers need patches of one size; got {first} and {second}")
        return self


VisionConfig = Annotated[
    ConvVisionConfig | TransformerVisionConfig | FusedVisionConfig, Field(discriminator="kind")
]


class ResamplerConfig(Config):
    """A few tokens a camera: each looks at one place of the image, chosen by the words, and says where that is."""

    kind: Literal["resampler"] = "resampler"
    tokens: int = Field(default=8, ge=1)
    key_width: int = Field(default=32, ge=4)


class QueriesConfig(Config):
    """As many tokens a camera as told: learned queries that attend to the patches (Flamingo, BLIP-2)."""

    kind: Literal["perceiver", "qformer"]
    tokens: int = Field(default=8, ge=1)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)


class PatchConfig(Config):
    """One token for each patch of the image, projected by one layer (`linear`), two (`mlp`) or three (`mlp3`).

    gated: projected by one layer, and kept out of the sequence: the decoder looks at them between its layers.
    """

    kind: Literal["linear", "mlp", "mlp3", "gated"]


ConnectorConfig = Annotated[ResamplerConfig | QueriesConfig | PatchConfig, Field(discriminator="kind")]


class LanguageConfig(Config):
    """The decoder LM: one of `transformers` (Llama, Gemma, Qwen3) with these sizes.

    key_value_heads: fewer than heads share keys (grouped queries); as many where not set. max_words: longer
    instructions are refused. words_first: words see words only, not the pictures behind them, so that what is made of
    an instruction is kept from picture to picture; without effect where gates show pictures to the words.
    """

    kind: Literal["llama", "gemma", "qwen"] = "llama"
    width: int = Field(default=192, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    key_value_heads: int | None = Field(default=None, ge=1)
    mlp_width: int = Field(default=512, ge=8)
    max_words: int = Field(default=24, ge=1)
    words_first: bool = False

    @property
    def key_heads(self) -> int:
        """Number of heads that have keys and values of their own."""
        return self.key_value_heads or self.heads

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads

    @model_validator(mode="after")
    def _divides(self) -> LanguageConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the heads ({self.heads})")
        if self.heads % self.key_heads:
            raise ValueError(
                f"heads {self.heads} must be a multiple of the key_value_heads ({self.key_heads})"
            )
        return self


class BinsHeadConfig(Config):
    """Binned action tokens.

    parallel: a whole chunk in one pass (OpenVLA-OFT, Kim et al. 2025). autoregressive: one token after another
    (RT-2, OpenVLA). readout: the bin taken from a distribution; `median` is steadier than the `mode` and still one bin.
    scramble: of the true tokens that an autoregressive head is given in training, the share that is replaced by random
    ones: actions resemble those before them, and a head that only copies lets its first mistake run away.
    """

    kind: Literal["parallel", "autoregressive"] = "parallel"
    readout: Literal["mode", "median"] = "median"
    scramble: float = Field(default=0.0, ge=0, lt=1)


class RegressionHeadConfig(Config):
    """A whole chunk of numbers in one pass, trained with L1 (OpenVLA-OFT). blocks: of its residual MLP."""

    kind: Literal["regression"]
    blocks: int = Field(default=2, ge=0)


class FlowHeadConfig(Config):
    """Flow matching by an action expert that reads the trunk's cached keys and values (π0, Black et al. 2024).

    width, mlp_width: of the expert; it has the trunk's layers and heads. steps: of Euler's method. time: how the expert
    is told how far it is: beside the actions (`concat`, π0) or in every norm (`adarms`, π0.5). draws: of noise for each
    training sample, all on one pass of the trunk.
    """

    kind: Literal["flow"]
    width: int = Field(default=128, ge=8, multiple_of=2)
    mlp_width: int = Field(default=384, ge=8)
    steps: int = Field(default=10, ge=1)
    time: Literal["concat", "adarms"] = "concat"
    draws: int = Field(default=4, ge=1)


class FastHeadConfig(Config):
    """FAST tokens, one after another (π0-FAST, Pertsch et al. 2025).

    vocabulary, scale: of the tokenizer that is trained on the data. folder: of a published one to use instead
    (`processor_config.json`, `tokenizer.json`).
    """

    kind: Literal["fast"]
    vocabulary: int = Field(default=1024, ge=64)
    scale: float = Field(default=10.0, gt=0)
    folder: str | None = None


class WordsHeadConfig(Config):
    """The next subtask in words: a planner's head (the high level of π0.5). It learns from `train.subtasks`."""

    kind: Literal["words"]


class LatentHeadConfig(Config):
    """One vector, for the fast level below (Helix S2): the head of `model.slow`. width: of the vector (Z)."""

    kind: Literal["latent"]
    width: int = Field(default=64, ge=1)


HeadConfig = Annotated[
    BinsHeadConfig
    | RegressionHeadConfig
    | FlowHeadConfig
    | FastHeadConfig
    | WordsHeadConfig
    | LatentHeadConfig,
    Field(discriminator="kind"),
]


class SlowConfig(Config):
    """A slow level above a model, which is then the fast one; they learn as one (Helix, Figure AI 2025: S2 and S1).

    The slow one reads the words, looks and feels, and makes one vector of it. The fast one looks and feels, too, and of
    words is told nothing but the latest vector. vision, connector, language: the slow one's parts. lag: in training the
    vector is made of what was seen this many steps before, at most (drawn evenly from 0): so stale it may be in use.
    """

    vision: VisionConfig = ConvVisionConfig()
    connector: ConnectorConfig = ResamplerConfig()
    language: LanguageConfig = LanguageConfig()
    head: LatentHeadConfig = LatentHeadConfig(kind="latent")
    lag: int = Field(default=2, ge=1)


class ModelConfig(Config):
    """A whole model.

    cameras: names, in the order of the tokens. may_miss: those of them that an observation may lack; their tokens are
    masked then. image_size: pixels of a side. proprio: what it feels. state: how it is told: all numbers as one `token`
    (π0), or as `text`, one of 256 bins for each (π0.5, π0-FAST). bins: of actions; `openvla` are its 255.
    condition_width: of the instruction's summary that conditions tower and connector. focus: learn to say where the
    thing asked for and its destination are, and act relative to these places. slow: a level above, which says what
    to do in a vector, where all other parts are the fast level's. reuse_vision: features of a picture are kept while
    its camera shows the same one; pictures are then seen one by one. Not for `conv`, which hears the words.
    """

    cameras: tuple[str, ...] = Field(default=("front", "wrist"), min_length=1)
    may_miss: tuple[str, ...] = ()
    image_size: int = Field(default=96, ge=16, multiple_of=8)
    state: Literal["token", "text"] = "token"
    bins: Literal["uniform", "openvla"] = "uniform"
    proprio: tuple[ProprioFeature, ...] = (
        "position",
        "position_commanded",
        "rotation",
        "gripper",
        "gripper_commanded",
        "wrench",
    )
    condition_width: int = Field(default=128, ge=8, multiple_of=4)
    focus: bool = True
    vision: VisionConfig = ConvVisionConfig()
    connector: ConnectorConfig = ResamplerConfig()
    language: LanguageConfig = LanguageConfig()
    head: HeadConfig = BinsHeadConfig()
    slow: SlowConfig | None = None
    reuse_vision: bool = False

    def slow_model(self, slow: SlowConfig) -> ModelConfig:
        """The slow level as a model of its own: with the same senses."""
        parts = {name: getattr(slow, name) for name in ("vision", "connector", "language", "head")}
        return self.model_copy(update=parts | {"slow": None, "focus": False})

    @model_validator(mode="after")
    def _levels(self) -> ModelConfig:
        if self.head.kind == "latent":
            raise ValueError("the head latent is that of a slow level; set model.slow, and a head that acts")
        if self.slow is not None and self.head.kind == "words":
            raise ValueError("a fast level acts; the head words says what comes next: leave model.slow out")
        towers = [self.vision, *([self.slow.vision] if self.slow else [])]
        if self.reuse_vision and any(tower.kind == "conv" for tower in towers):
            raise ValueError(
                "reuse_vision needs a tower that hears no words: vit, siglip, dinov2 or fused, not conv"
            )
        return self

    @model_validator(mode="after")
    def _known_cameras(self) -> ModelConfig:
        for name in self.may_miss:
            if name not in self.cameras:
                raise ValueError(f"may_miss names camera {name!r}; the model has {', '.join(self.cameras)}")
        return self


class AugmentConfig(Config):
    """Changes of a training batch, never of what a policy sees later.

    shift: pixels, whole images to and fro (0 where fixed cameras must measure). gain, channel_gain: relative
    brightness of an image and of each colour. position_noise: m. opening_noise: of the gripper's 0..1.
    wrench_dropout: share of samples that feel nothing. word_dropout: share of words that become unknown.
    blank: share of samples whose instruction is blanked and whose label is to hold still. blind: share of samples in
    which each camera that may be missing is.
    recolour: groups of colours, by their words, RGB in 0..1; the things of a group exchange their colours at random.
    mirror: share of samples reflected in the plane y = 0, with these pairs of words exchanged.
    """

    shift: int = Field(default=0, ge=0, le=16)
    gain: float = Field(default=0.1, ge=0, lt=1)
    channel_gain: float = Field(default=0.04, ge=0, lt=1)
    position_noise: float = Field(default=0.001, ge=0)
    opening_noise: float = Field(default=0.02, ge=0)
    wrench_dropout: float = Field(default=0.2, ge=0, le=1)
    word_dropout: float = Field(default=0.02, ge=0, lt=1)
    blank: float = Field(default=0.02, ge=0, lt=1)
    blind: float = Field(default=0.1, ge=0, lt=1)
    recolour: tuple[dict[str, tuple[float, float, float]], ...] = ()
    mirror: float = Field(default=0.0, ge=0, le=1)
    mirror_words: tuple[tuple[str, str], ...] = (("left", "right"),)


class Viewpoint(Config):
    """Where a camera stands, in training only: to tell which pixel shows a place that the simulator knows.

    position: (3,) m and quaternion: (4,) wxyz of the camera (x right, y up, looking along -z), in the base frame; where
    carried, position is from the TCP to the camera, and the hand is taken to point straight down. fovy_deg: vertical.
    """

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    fovy_deg: float = Field(gt=0, lt=180)
    carried: bool = False


class TrainConfig(Config):
    """How a model is trained. The schedule ends at `steps` or after `minutes` of wall time, whichever comes first.

    warmup: share of the schedule. ema_steps: time constant of the averaged weights that are kept. smoothing: width
    in bins of the soft targets. focus_weight: of the grounding loss. weights: how often each task is drawn, relative.
    validation: share of the episodes held out. precision: of the matrix products; `auto` is bf16 where
    the device multiplies it natively. device: `auto` takes a GPU if there is one.
    subtasks: rules that say what comes next at each row: what a planner learns to say, and what any other head is told
    in place of the task.
    gaze: cameras whose first two attention slots learn to look at the thing and its destination; gaze_weight: of that.
    """

    batch: int = Field(default=64, ge=1)
    steps: int = Field(default=20_000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    ema_steps: int = Field(default=500, ge=1)
    smoothing: float = Field(default=2.0, ge=0)
    focus_weight: float = Field(default=1.0, ge=0)
    subtasks: tuple[SubtaskRule, ...] = ()
    gaze: dict[str, Viewpoint] = Field(default_factory=dict)
    gaze_weight: float = Field(default=0.5, ge=0)
    weights: dict[str, float] = Field(default_factory=dict)
    validation: float = Field(default=0.03, ge=0, lt=1)
    validate_every: int = Field(default=500, ge=1)
    validation_samples: int = Field(default=1024, ge=1)
    save_every: int = Field(default=1000, ge=1)
    seed: int = 0
    threads: int = Field(default=2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    augment: AugmentConfig = AugmentConfig()


class PolicyConfig(Config):
    """A model and its training. horizon: actions in a chunk (H). step_s: duration of one action, s."""

    name: str
    horizon: int = Field(default=8, ge=1, le=128)
    step_s: float = Field(default=0.1, gt=0, le=2)
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _planner_learns(self) -> PolicyConfig:
        augment = self.train.augment
        if self.model.head.kind == "words":
            if not self.train.subtasks:
                raise ValueError("the head `words` learns from train.subtasks; name rules there")
            if augment.recolour or augment.mirror or augment.blank:
                raise ValueError(
                    "the head `words` cannot be trained with train.augment.recolour, mirror or blank: set them to 0"
                )
        return self
