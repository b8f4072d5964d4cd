"""The settings of a training run as frozen dataclasses; `settings_file` reads and writes them.

S marks a value that the paper states, D our default where it is silent.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from tyro.conf import arg

from abaw_expr.errors import SettingsError
from abaw_expr.tasks.task import TASKS, Task

QUADRANT_PAIRS = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))


class _Strict:
    """A group of settings that refuses unknown keys (pydantic reads this when it loads YAML)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_Entry = TypeVar("_Entry")


def _require(condition: object, flag: str, found: object, expected: str) -> None:
    if not condition:
        raise SettingsError(f"the setting {flag} cannot be used", found=found, expected=expected)


def known_entry(registry: Mapping[str, _Entry], name: str, what: str) -> _Entry:
    """The entry of a registry. Raises SettingsError, with the names that there are, for another name."""
    if name not in registry:
        near = get_close_matches(name, registry, n=1)
        remedy = f"Did you mean {near[0]}?" if near else None
        raise SettingsError(f"{what} is unknown", found=name, expected=" or ".join(registry), remedy=remedy)
    return registry[name]


@dataclass(frozen=True)
class DataSettings(_Strict):
    """The frames that training and validation use, and what a sample holds."""

    stride: float = 0.3
    """Seconds between the frames of a video that an epoch trains on; 0 takes every frame."""
    val_stride: float = 0.5
    """Seconds between the frames that an epoch validates on; 0 takes every frame."""
    frames_per_sample: int = 1
    """Images in a sample, evenly spaced around its frame; the mean of their softmax counts (D: 1)."""
    spacing: float = 0.2
    """Seconds between the images of a sample."""
    balance: float = 0.0
    """Balancing when frames are sampled: 0 keeps the frequencies of classes, or of bins of values, 1 makes them equally
    frequent. Action units are balanced by `loss.class-weight`."""
    video_balance: float = 0.0
    """Video balancing when frames are sampled: 0 samples by length, 1 makes all videos equally frequent."""
    sequence: int = 1
    """Sequence length: consecutive frames, a stride apart, that are sampled together and share one pass over their
    audio; a temporal model sees them as one stretch."""
    hop: int = 0
    """Frames from the start of one stretch of a temporal model to the next; 0: the sequence length. Where stretches
    overlap, predictions are averaged."""
    train_on: str = "train"
    """Recordings to train on: train, or both, train and validation together; then no score of the run says how it does
    on new recordings."""
    folds: int = 0
    """Folds of a cross-validation over these recordings; 0: none, the validation split validates."""
    fold: int = 0
    """The fold that is held out of the training and validates, counted from 0."""

    def __post_init__(self) -> None:
        _require(self.train_on in ("train", "both"), "data.train-on", self.train_on, "train or both")
        _require(self.folds == 0 or self.folds >= 2, "data.folds", self.folds, "0, or a count of at least 2")
        _require(0 <= self.fold < max(self.folds, 1), "data.fold", self.fold, "a fold of data.folds, counted from 0")
        _require(0 <= self.stride < math.inf, "data.stride", self.stride, "seconds, 0 or more")
        _require(0 <= self.val_stride < math.inf, "data.val-stride", self.val_stride, "seconds, 0 or more")
        _require(self.frames_per_sample >= 1, "data.frames-per-sample", self.frames_per_sample, "a count of at least 1")
        _require(0 < self.spacing < math.inf, "data.spacing", self.spacing, "seconds above 0")
        _require(0 <= self.balance <= 1, "data.balance", self.balance, "a number in [0, 1]")
        _require(0 <= self.video_balance <= 1, "data.video-balance", self.video_balance, "a number in [0, 1]")
        _require(self.sequence >= 1, "data.sequence", self.sequence, "a count of at least 1")
        _require(0 <= self.hop <= self.sequence, "data.hop", self.hop, "a count from 0 to data.sequence")

    @property
    def balanced(self) -> bool:
        """Whether frames are drawn by probabilities, with replacement."""
        return bool(self.balance or self.video_balance)


@dataclass(frozen=True)
class AugmentSettings(_Strict):
    """Augmentation of training samples; validation and prediction use none."""

    frequency_mask: int = 8
    """Widest mask over mel bands, of 64 (S: frequency masking; D: its width)."""
    time_mask: int = 24
    """Widest mask over time, in steps of 16 ms (S in an earlier version; 0: the final paper)."""
    flip: bool = True
    """Flip half of the samples horizontally."""
    crop: float = 0.8
    """Smallest fraction of an image's area that a random crop keeps; 1: no random crop."""
    jitter: float = 0.3
    """Strength of brightness and contrast jitter; 0: none."""

    def __post_init__(self) -> None:
        _require(self.frequency_mask >= 0, "augment.frequency-mask", self.frequency_mask, "a count, 0 or more")
        _require(self.time_mask >= 0, "augment.time-mask", self.time_mask, "a count, 0 or more")
        _require(0.1 <= self.crop <= 1, "augment.crop", self.crop, "a fraction in [0.1, 1]")
        _require(0 <= self.jitter < 1, "augment.jitter", self.jitter, "a number in [0, 1)")


@dataclass(frozen=True)
class StreamSettings(_Strict):
    """One stream of a branch: an encoder, and a model over time behind it."""

    encoder: str
    """Encoder: mcnn, vggish, vgg-logmel, ge2e or torchaudio:NAME (audio), rhcnn, ddamfn, timm:NAME or clip:NAME
    (images), or embedding:NAME (rows in the store)."""
    attention: str = ""
    """Attention on the encoder's feature map: gcsa, mecs or none; empty: gcsa if `model.attention`, else none."""
    weights: str = ""
    """File of weights that the encoder starts from, package:NAME/FILE inside an installed package, or default, which
    its library downloads; empty: drawn from the seed."""
    freeze: bool = False
    """Keep the encoder's weights as they are loaded; its BN statistics stand still, and it has no dropout."""
    release: tuple[int, ...] = ()
    """Epochs, counted from 1, at which the frozen encoder's parts begin to train, the last part first; the last epoch
    releases all that remain."""
    embedding_width: int = 0
    """Features of an embedding; 0: as many as the store has."""
    norm: Literal["none", "unit", "batch"] = "none"
    """Normalise the encoder's features: unit divides them by their length, batch is BN over the frames."""
    projection: int = 0
    """Features that a linear layer makes of the encoder's; 0: no such layer."""
    temporal: str = "none"
    """Temporal model behind it, over stretches of `data.sequence` frames: none, lstm, bilstm or tcn."""

    def __post_init__(self) -> None:
        _require(self.projection >= 0, "branches.projection", self.projection, "a count, 0 or more")
        _require(self.embedding_width >= 0, "branches.embedding-width", self.embedding_width, "a count, 0 or more")
        ascending = all(before < after for before, after in pairwise((0, *self.release)))
        _require(ascending, "branches.release", self.release, "epochs from 1 on, each later than the one before")
        _require(self.freeze or not self.release, "branches.release", self.release, "none without freeze: true")


_PLAIN = StreamSettings("")
"""A stream with nothing set."""


@dataclass(frozen=True)
class BranchSettings(_Strict):
    """A branch: one stream, or several that are joined; it gives one vote a frame."""

    encoder: str = ""
    """Encoder of the branch's only stream: mcnn, vggish, vgg-logmel, ge2e or torchaudio:NAME (audio), rhcnn, ddamfn,
    timm:NAME or clip:NAME (images), or embedding:NAME (rows in the store); empty where `streams` names several."""
    attention: str = ""
    """Attention on the encoder's feature map: gcsa, mecs or none; empty: gcsa if `model.attention`, else none."""
    weights: str = ""
    """File of weights that the encoder starts from, package:NAME/FILE inside an installed package, or default, which
    its library downloads; empty: drawn from the seed."""
    freeze: bool = False
    """Keep the encoder's weights as they are loaded; its BN statistics stand still, and it has no dropout."""
    release: tuple[int, ...] = ()
    """Epochs, counted from 1, at which the frozen encoder's parts begin to train, the last part first; the last epoch
    releases all that remain."""
    embedding_width: int = 0
    """Features of an embedding; 0: as many as the store has."""
    norm: Literal["none", "unit", "batch"] = "none"
    """Normalise the encoder's features: unit divides them by their length, batch is BN over the frames."""
    projection: int = 0
    """Features that a linear layer makes of the encoder's; 0: no such layer."""
    temporal: str = "none"
    """Temporal model before the head: none, lstm, bilstm or tcn, over stretches of `data.sequence` frames."""
    streams: dict[str, StreamSettings] = field(default_factory=dict)
    """Several streams by name, each with encoder, attention, weights, freeze, release and temporal."""
    join: str = "concatenation"
    """How streams become one: concatenation of their features, cross-attention between them, or dilated fusion of their
    feature maps."""
    head: str = "linear"
    """From features to the vote: linear, or cosine with the texts of the classes (`model.prompts`)."""
    key_frames: bool = False
    """Weigh the streams of a dilated fusion by key frames, voice activity and entropy change; else equally."""
    networks: Literal["one", "each"] = "one"
    """One network for all columns of the task, or one for each value or action unit, without anything in common."""
    weight: int = 1
    """Weight of the branch's vote in the fusion that the loss trains through, 1 to 5 (S: m of audio, n of visual)."""

    def __post_init__(self) -> None:
        one = bool(self.encoder) != bool(self.streams)
        _require(one, "branches: a branch", self.encoder or "nothing", "an encoder or streams, one of the two")
        for name, value in vars(self.own_stream).items():
            given = self.streams and name not in ("encoder", "temporal") and value != getattr(_PLAIN, name)
            _require(not given, f"branches.{name.replace('_', '-')}", value, "that of each stream")
        _require(1 <= self.weight <= 5, "branches.weight", self.weight, "an integer from 1 to 5")

    @property
    def over_time(self) -> bool:
        """Whether it has a temporal model."""
        return any(temporal != "none" for temporal in (self.temporal, *(one.temporal for one in self.streams.values())))

    @property
    def own_stream(self) -> StreamSettings:
        """The only stream; its temporal model is the branch's."""
        named = [one.name for one in fields(StreamSettings) if one.name != "temporal"]
        return StreamSettings(**{name: getattr(self, name) for name in named})

    def streams_of(self, name: str) -> dict[str, StreamSettings]:
        """The streams by name; the only one is called as the branch `name`, whose temporal model is the branch's."""
        return self.streams or {name: self.own_stream}


@dataclass(frozen=True)
class ModelSettings(_Strict):
    """Parts of the encoders, and of what stands behind them."""

    attention: bool = True
    """Global channel-spatial attention (GCSA) on the feature maps of streams that name no attention (S)."""
    attention_place: Literal["last", "middle"] = "last"
    """Feature map that the attention of rhcnn is on: the last, 7 x 7 (S), or the one of 14 x 14 before it."""
    attention_groups: int = 1
    """Groups of the two 7x7 convolutions of GCSA (S: 1; 4 has a quarter of the parameters)."""
    strips: Literal["parallel", "sequential"] = "parallel"
    """Strips of MECS: all six in parallel, as in public code, or each pair in sequence."""
    mixing_groups: int = 1
    """Groups of the 1x1 convolutions between channel shuffles of the visual encoder (D: 1, or 4)."""
    dilations: tuple[int, ...] = (1, 2, 3)
    """Dilations of the 3x3 convolutions of the dilated fusion, whose maps are 7 x 7 (D; S in version 1: 6, 12, 18)."""
    squared_gate: bool = True
    """Whether the dilated fusion multiplies the gated maps with the maps again, as public code does."""
    prompts: tuple[str, ...] = ()
    """Texts of the classes, in their order, that a cosine head compares with (D: a photo of a person who looks ...)."""
    text_encoder: str = "ViT-B-32-quickgelu"
    """CLIP's text encoder of a cosine head, by open_clip's name; quickgelu belongs to OpenAI's weights."""
    text_weights: str = ""
    """File of weights of CLIP, image and text side, package:NAME/FILE, or default, which open_clip downloads."""
    dropout: float = 0.2
    """Dropout before the last linear layer (S), in a TCN, and in the join cross-attention."""

    def __post_init__(self) -> None:
        _require(self.attention_groups in (1, 4), "model.attention-groups", self.attention_groups, "1 or 4")
        dilations = self.dilations
        _require(dilations and min(dilations) >= 1, "model.dilations", dilations, "counts of at least 1, one or more")
        _require(self.mixing_groups in (1, 4), "model.mixing-groups", self.mixing_groups, "1 or 4")
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "a fraction in [0, 1)")


@dataclass(frozen=True)
class LossSettings(_Strict):
    """The loss on the fused votes. Classes: coarse-fine granularity loss (equations 6 to 8 of the paper); values: 1 -
    CCC; action units: binary cross-entropy."""

    mu12: float = 0.5
    """Misclassification cost between quadrants 1 and 2: pleasure differs (D: 0.5, as mu34)."""
    mu13: float = 0.75
    """Misclassification cost between quadrants 1 and 3: both axes differ (D: 0.75, as mu24)."""
    mu14: float = 0.25
    """Misclassification cost between quadrants 1 and 4: arousal differs (D: 0.25, as mu23)."""
    mu23: float = 0.25
    """Misclassification cost between quadrants 2 and 3."""
    mu24: float = 0.75
    """Misclassification cost between quadrants 2 and 4."""
    mu34: float = 0.5
    """Misclassification cost between quadrants 3 and 4."""
    every_error: float = 0.0
    """One cost of every misclassification, whatever its quadrants: the control of the six."""
    class_weight: float = 0.0
    """Class weights: a class's fraction of the samples to the power of minus this; 0: equal weights. For action units
    the ratio of inactive to active frames to the power of this weighs the active ones."""
    quadrants: tuple[int, ...] = ()
    """Each class's quadrant 1..4, 0 for none, in the order of the classes; empty: those of the task (D)."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread evenly over all classes."""
    diversity: float = 0.1
    """Weight of the attention diversity loss of the encoder ddamfn (S: 0.1)."""
    branch_weight: float = 0.0
    """Weight of the branches' own losses, without costs, beside the fused loss (S: 0)."""
    per_stretch: bool = False
    """CCC of values over each stretch of `data.sequence` frames, and the mean over stretches; else over the batch."""

    def __post_init__(self) -> None:
        for (j, k), mu in zip(QUADRANT_PAIRS, self.mu, strict=True):
            _require(0 <= mu <= 1, f"loss.mu{j}{k}", mu, "a number in [0, 1]")
        _require(0 <= self.every_error <= 1, "loss.every-error", self.every_error, "a number in [0, 1]")
        _require(0 <= self.class_weight <= 1, "loss.class-weight", self.class_weight, "a number in [0, 1]")
        known = set(self.quadrants) <= {0, 1, 2, 3, 4}
        _require(known, "loss.quadrants", self.quadrants, "integers from 0 to 4")
        _require(0 <= self.label_smoothing < 1, "loss.label-smoothing", self.label_smoothing, "a fraction in [0, 1)")
        _require(0 <= self.diversity < math.inf, "loss.diversity", self.diversity, "a number, 0 or more")
        _require(0 <= self.branch_weight < math.inf, "loss.branch-weight", self.branch_weight, "a number, 0 or more")

    @property
    def mu(self) -> tuple[float, ...]:
        """The six misclassification costs in the order of `QUADRANT_PAIRS`."""
        return self.mu12, self.mu13, self.mu14, self.mu23, self.mu24, self.mu34

    def with_mu(self, mu: Sequence[float]) -> Self:
        """The same loss with other misclassification costs, in the order of `QUADRANT_PAIRS`."""
        mu12, mu13, mu14, mu23, mu24, mu34 = mu
        return replace(self, mu12=mu12, mu13=mu13, mu14=mu14, mu23=mu23, mu24=mu24, mu34=mu34)


@dataclass(frozen=True)
class OptimiserSettings(_Strict):
    """The optimiser and its schedule."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum (S), Adam with L2 weight decay, or AdamW."""
    learning_rate: float = 1e-4
    """Learning rate of attention and heads (S: 1e-4)."""
    branch_learning_rate: float = 1e-3
    """Learning rate of the branches' weights, all but attention and heads (S: 1e-3; D: which they are)."""
    pretrained_learning_rate: float = 0.0
    """Learning rate of encoders that begin with weights of a file, all but attention; 0: that of the branches."""
    momentum: float = 0.9
    """Momentum of SGD (S)."""
    weight_decay: float = 0.0
    """Weight decay of weight matrices; biases and normalisation have none."""
    schedule: Literal["constant", "one-cycle", "plateau"] = "constant"
    """Learning-rate schedule: constant (S); one-cycle: up over the first 30 %, then down to almost 0; or plateau: up
    over 5 epochs, then to a tenth each time the validation score has not improved for more than 5 epochs."""
    epochs: int = 300
    """Passes over the training frames (S: 300 rounds)."""
    batch_size: int = 16
    """Samples a step, summed over all devices (S: 16)."""
    ema_decay: float = 0.0
    """EMA decay: validation and prediction use the exponential moving average of the weights over steps; 0: no EMA."""

    def __post_init__(self) -> None:
        _require(0 < self.learning_rate < math.inf, "optimiser.learning-rate", self.learning_rate, "a number above 0")
        _require(
            0 < self.branch_learning_rate < math.inf,
            "optimiser.branch-learning-rate",
            self.branch_learning_rate,
            "a number above 0",
        )
        pretrained = self.pretrained_learning_rate
        _require(0 <= pretrained < math.inf, "optimiser.pretrained-learning-rate", pretrained, "a number, 0 or more")
        _require(0 <= self.momentum < 1, "optimiser.momentum", self.momentum, "a number in [0, 1)")
        _require(0 <= self.weight_decay < math.inf, "optimiser.weight-decay", self.weight_decay, "a number, 0 or more")
        _require(self.epochs >= 1, "optimiser.epochs", self.epochs, "a count of at least 1")
        _require(self.batch_size >= 2, "optimiser.batch-size", self.batch_size, "a count of at least 2")
        _require(0 <= self.ema_decay < 1, "optimiser.ema-decay", self.ema_decay, "a number in [0, 1)")


@dataclass(frozen=True)
class ComputeSettings(_Strict):
    """Where the work is done. Not part of a run's signature, except micro-batches, which BN normalises separately."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Device: auto takes a GPU if there is one."""
    devices: Annotated[int, arg(aliases=["--devices"])] = 1
    """Devices of a machine that share each batch; on a CPU, processes."""
    nodes: Annotated[int, arg(aliases=["--nodes"])] = 1
    """Machines that share each batch; start the same command on each by torchrun."""
    micro_batch: int = 0
    """Samples that a device processes at a time, with gradients accumulated over the batch; 0: its whole part of the
    batch. BN normalises each micro-batch by itself."""
    compile: bool = False
    """Compile the networks for training with torch.compile, which takes minutes; no gain was measured on a CPU."""
    workers: int = 0
    """Processes that read and augment samples beside each training process."""
    save_every: float = 300.0
    """Seconds between checkpoints within an epoch; every epoch also ends with one."""

    def __post_init__(self) -> None:
        for flag, value in (("devices", self.devices), ("nodes", self.nodes)):
            _require(value >= 1, f"compute.{flag}", value, "a count of at least 1")
        for flag, value in (("micro-batch", self.micro_batch), ("workers", self.workers)):
            _require(value >= 0, f"compute.{flag}", value, "a count, 0 or more")
        _require(self.micro_batch != 1, "compute.micro-batch", self.micro_batch, "0, or a count of at least 2, for BN")
        _require(0 <= self.save_every < math.inf, "compute.save-every", self.save_every, "seconds, 0 or more")


def two_branches() -> dict[str, BranchSettings]:
    """The two-branch system: audio and visual, in the order m, n of the proportional fusion (S)."""
    return {"audio": BranchSettings("mcnn"), "visual": BranchSettings("rhcnn")}


@dataclass(frozen=True)
class Settings(_Strict):
    """Everything that decides what a training run computes."""

    task: str = "expr"
    """What is trained: expr, va (valence and arousal) or au (action units)."""
    seed: int = 0
    """Seed of initial weights, sampling and augmentation; on a CPU the same seed gives the same run."""
    precision: Literal["auto", "32-true", "bf16-mixed", "64-true"] = "auto"
    """Precision of the networks; auto takes bf16-mixed if the device supports it in hardware. The run's settings.yaml
    names the one used. 64-true is slow, for checks with almost no rounding."""
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    branches: dict[str, BranchSettings] = field(default_factory=two_branches)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        known_entry(TASKS, self.task, "the task")
        columns = self.task_of.n_columns
        quadrants = self.loss.quadrants
        _require(len(quadrants) in (0, columns), "loss.quadrants", quadrants, f"{columns} integers from 0 to 4")
        _require(self.branches, "branches", "none", "a branch at least")
        for name, branch in self.branches.items():
            for one in (name, *branch.streams):
                _require(_NAME.fullmatch(one), "branches: the name", one, "letters, digits and hyphens, a letter first")
            together = branch.networks == "one" or not self.task_of.one_class
            _require(together, "branches.networks", branch.networks, f"one, as the classes of {self.task} are one vote")
            _require(name != "fused", "branches: the name", name, "another one: it is that of their fusion")
        over_time = self.over_time and self.data.sequence == 1
        _require(not over_time, "data.sequence", 1, "2 frames or more, for the temporal model")
        stretches = self.data.sequence > 1 and self.task_of.kind == "values"
        found = f"{self.loss.per_stretch}, of {self.task} with data.sequence {self.data.sequence}"
        expected = "false, or values (task va) and a data.sequence of 2 frames or more"
        _require(stretches or not self.loss.per_stretch, "loss.per-stretch", found, expected)
        _require(0 <= self.seed < 2**63, "seed", self.seed, "an integer from 0 to 2^63 - 1")
        whole = self.optimiser.batch_size % self.data.sequence == 0
        _require(whole, "data.sequence", self.data.sequence, "a divisor of optimiser.batch-size")

    @property
    def task_of(self) -> Task:
        """The task of that name."""
        return TASKS[self.task]

    @property
    def over_time(self) -> bool:
        """Whether a network has a temporal model, and so is given stretches of frames."""
        return any(branch.over_time for branch in self.branches.values())

    @property
    def weights(self) -> dict[str, int]:
        """The weights of the branches in the fusion that the loss trains through: m and n of the paper."""
        return {name: branch.weight for name, branch in self.branches.items()}

    def only(self, names: Sequence[str]) -> Self:
        """These settings with some of their branches. Raises SettingsError for the name of no branch."""
        for name in names:
            known_entry(self.branches, name, "the branch")
        return replace(self, branches={name: branch for name, branch in self.branches.items() if name in names})
