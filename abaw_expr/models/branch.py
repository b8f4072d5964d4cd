"""Branches: streams, their join, a temporal model and a head, which give one vote a frame.

Shapes: B samples, k of them with a modality, V views of a sample, S stretches of T frames (S T = B), D features,
C columns of the task.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from abaw_expr.errors import SettingsError
from abaw_expr.models.batch_norm import FrameNorm
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.head import HEADS
from abaw_expr.models.join import JOINS, Join, equal_weights, key_frame_weights
from abaw_expr.models.links import Link, Votes
from abaw_expr.models.temporal import NO_TEMPORAL, TEMPORALS, Temporal
from abaw_expr.settings import BranchSettings, ModelSettings, Settings, StreamSettings, known_entry


class Inputs:
    """What the branches of a network read of one batch."""

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        windows: Mapping[str, Tensor],
        valid: Tensor,
        activity: Mapping[str, Tensor],
    ) -> None:
        self._inputs, self._rows, self._windows, self._activity = inputs, rows, windows, activity
        self.valid = valid
        """bool [B], false for what lies beyond the end of a video."""

    def like(self, modality: str) -> Tensor:
        """A tensor of the type and on the device of what is read of a modality."""
        return self._inputs[modality]

    def rows(self, modality: str) -> Tensor:
        """int64 [k], the samples that have the modality."""
        return self._rows[modality]

    def features(self, encoder: Encoder) -> Tensor:
        """The features of these samples, [k, V, D]."""
        return encoder.features(self._inputs[encoder.modality], self._windows.get(encoder.modality))

    def maps(self, encoder: Encoder) -> Tensor:
        """Their feature maps, [k, V, D, H, W]."""
        return encoder.maps(self._inputs[encoder.modality], self._windows.get(encoder.modality))

    def present(self, modality: str) -> Tensor:
        """bool [B], the samples that have the modality."""
        return torch.zeros_like(self.valid).index_fill(0, self._rows[modality], True)

    def activity(self, modality: str) -> Tensor:
        """float32 [B]: how much is said or seen to move around each sample; 0 of samples that lack the modality.

        A modality whose activity nothing measures always has 1.
        """
        rows = self._rows[modality]
        own = self._activity.get(modality, torch.ones_like(rows, dtype=torch.float32))
        return own.new_zeros(len(self.valid)).index_copy(0, rows, own)

    def nothing(self, modality: str) -> bool:
        """Whether there is nothing to compute: no sample, and no other process that waits in BN."""
        return not len(self._rows[modality]) and not distributed.is_initialized()


def in_graph(module: nn.Module) -> Tensor:
    """A zero [] that gives all parameters a gradient of 0, where nothing else does: backward() fails without any."""
    parameters = [parameter.sum() for parameter in module.parameters()]
    return 0 * torch.stack(parameters).sum() if parameters else torch.zeros(())


class Stream(nn.Module):
    """An encoder over one modality, and a temporal model behind it."""

    def __init__(self, encoder: Encoder, settings: StreamSettings, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self._unit_norm = settings.norm == "unit"
        self.norm = FrameNorm(encoder.width) if settings.norm == "batch" else None
        self.projection = nn.Linear(encoder.width, settings.projection) if settings.projection else None
        self._features = settings.projection or encoder.width
        self.temporal = build_temporal(settings.temporal, self._features, dropout)
        self.width = self._features if self.temporal is None else self.temporal.width

    def forward(self, batch: Inputs, sequence: int) -> Tensor:
        """Features [B, D] of all samples, the mean over views; 0 before the temporal model where a sample has none."""
        if self._absent(batch):
            features = self._nothing(batch, self._features)
        else:
            features = self._all(batch, self.features(batch))
        return over_time(self.temporal, features, batch.valid, sequence)

    def features(self, batch: Inputs) -> Tensor:
        """The features of the samples that have the modality, [k, V, D], before the temporal model."""
        own = batch.features(self.encoder)
        own = nn.functional.normalize(own, dim=-1) if self._unit_norm else own
        own = own if self.norm is None else self.norm(own.flatten(0, 1)).unflatten(0, own.shape[:2])
        return own if self.projection is None else self.projection(own)

    def maps(self, batch: Inputs) -> Tensor:
        """Feature maps [B, D, H, W] of all samples, the mean over views, 0 where a sample has none.

        They are [B, D, 1, 1] if no sample has any.
        """
        if self._absent(batch):
            return self._nothing(batch, self.encoder.width)[..., None, None]
        return self._all(batch, batch.maps(self.encoder))

    def _absent(self, batch: Inputs) -> bool:
        return batch.nothing(self.encoder.modality)

    def _nothing(self, batch: Inputs, width: int) -> Tensor:
        """Zeros [B, `width`]."""
        parts = [part for part in (self.encoder, self.norm, self.projection) if part is not None]
        like = next((p for part in parts for p in part.parameters()), batch.like(self.encoder.modality))
        features = torch.zeros(len(batch.valid), width, dtype=like.dtype, device=like.device)
        return features + sum(in_graph(part).to(features) for part in parts)

    def _all(self, batch: Inputs, own: Tensor) -> Tensor:
        """The means over views of the samples that have the modality, [k, V, ...], among all, [B, ...]."""
        own = own.mean(1)
        return own.new_zeros(len(batch.valid), *own.shape[1:]).index_copy(0, batch.rows(self.encoder.modality), own)


class Branch(nn.Module):
    """A branch of a network: [B] samples to their votes."""

    def __init__(self, name: str, settings: BranchSettings, model: Settings, link: Link) -> None:
        super().__init__()
        streams = settings.streams_of(name)
        self.streams = nn.ModuleDict({one: _stream(stream, model) for one, stream in streams.items()})
        widths = [stream.width for stream in self.own_streams()]
        self.join = None if len(widths) == 1 else build_join(settings, widths, model.model)
        width = widths[0] if self.join is None else self.join.width
        self.temporal = build_temporal(settings.temporal, width, model.model.dropout)
        width = width if self.temporal is None else self.temporal.width
        last = known_entry(HEADS, settings.head, "the head")(width, link.task.n_columns, model.model)
        self.head = nn.Sequential(nn.Dropout(model.model.dropout), last)
        self.head_width = width
        self.key_frames = settings.key_frames
        _check_key_frames(settings, self.join)
        self._link, self._sequence = link, model.data.sequence

    def forward(self, batch: Inputs) -> Votes:
        """The votes of a batch; a sample has one if it has the modality of any stream."""
        present = torch.stack([batch.present(modality) for modality in self.modalities]).any(0)
        if self.of_frames is not None:
            return Votes(self._votes_of_frames(self.of_frames, batch), present)
        x = over_time(self.temporal, self._joined(batch), batch.valid, self._sequence)
        return Votes(self._link.votes(self.head(x).unsqueeze(1)), present)

    def own_streams(self) -> list[Stream]:
        """The streams in their order."""
        return [stream for stream in self.streams.values() if isinstance(stream, Stream)]

    def weigh(self, present: Tensor, activity: Tensor) -> Tensor:
        """The weights of the streams, float32 [B, S], of samples that have them (bool [B, S]), with their activity."""
        return key_frame_weights(activity, present) if self.key_frames else equal_weights(present)

    @property
    def linear(self) -> nn.Linear:
        """The linear layer of the head. Raises SettingsError where it is another."""
        layer = self.head[-1]
        if not isinstance(layer, nn.Linear):
            raise SettingsError("heads are trained again where they are linear", found=type(layer).__name__)
        return layer

    @property
    def modalities(self) -> list[str]:
        """The names of the modalities that it reads."""
        return list(dict.fromkeys(stream.encoder.modality for stream in self.own_streams()))

    @property
    def of_frames(self) -> Stream | None:
        """The stream of a branch that has one and no temporal model; None of another."""
        streams = self.own_streams()
        plain = len(streams) == 1 and streams[0].temporal is None and self.temporal is None
        return streams[0] if plain else None

    def _joined(self, batch: Inputs) -> Tensor:
        """The features [B, D] of the streams as one."""
        streams = dict(zip(self.streams, self.own_streams(), strict=True))
        if self.join is None:
            (stream,) = streams.values()
            return stream(batch, self._sequence)
        modalities = [stream.encoder.modality for stream in streams.values()]
        present, activity = (torch.stack([*map(of, modalities)], 1) for of in (batch.present, batch.activity))
        weights = self.weigh(present, activity)
        if self.join.of_maps:
            return self.join({name: stream.maps(batch) for name, stream in streams.items()}, weights)
        return self.join({name: stream(batch, self._sequence) for name, stream in streams.items()}, weights)

    def _votes_of_frames(self, stream: Stream, batch: Inputs) -> Tensor:
        """The votes [B, ...] of a branch that sees frame by frame: only samples with its modality are computed."""
        like = next(self.head.parameters())
        neutral = self._link.votes(like.new_zeros(len(batch.valid), 1, self._link.task.n_columns))
        if batch.nothing(stream.encoder.modality):
            return neutral + in_graph(self)
        features = stream.features(batch)
        logits = self.head(features.flatten(0, 1)).unflatten(0, features.shape[:2])  # [k, V, C]
        votes = self._link.votes(logits)
        return neutral.to(votes.dtype).index_copy(0, batch.rows(stream.encoder.modality), votes)


def over_time(temporal: Temporal | None, x: Tensor, valid: Tensor, sequence: int) -> Tensor:
    """A temporal model, if there is one, over samples [B, D] that are stretches of `sequence` frames: to [B, D']."""
    if temporal is None:
        return x
    stretches = x.unflatten(0, (-1, sequence)), valid.unflatten(0, (-1, sequence))
    return temporal(*stretches).flatten(0, 1)


def build_temporal(name: str, inputs: int, dropout: float) -> Temporal | None:
    """The temporal model of that name over that many features. Raises SettingsError for an unknown name."""
    if name == NO_TEMPORAL:
        return None
    known_entry({NO_TEMPORAL: None, **TEMPORALS}, name, "the temporal model")
    return TEMPORALS[name](inputs, dropout)


def build_join(settings: BranchSettings, widths: Sequence[int], model: ModelSettings) -> Join:
    """The join of a branch's streams. Raises SettingsError for an unknown name, and where streams have temporal models
    that it would not see."""
    join = known_entry(JOINS, settings.join, "the join")(widths, model)
    over_time = [name for name, stream in settings.streams.items() if stream.temporal != NO_TEMPORAL]
    if join.of_maps and over_time:
        remedy = "Set the temporal model of the branch, which is behind the join."
        found = f"temporal {settings.streams[over_time[0]].temporal} of {over_time[0]}"
        raise SettingsError(f"the join {settings.join} is of feature maps", found=found, expected="none", remedy=remedy)
    changed = [name for name, stream in settings.streams.items() if stream.projection or stream.norm != "none"]
    if join.of_maps and changed:
        found = f"projection or norm of {changed[0]}"
        raise SettingsError(f"the join {settings.join} is of feature maps", found=found, expected="neither of them")
    return join


def _check_key_frames(settings: BranchSettings, join: Join | None) -> None:
    if settings.key_frames and (join is None or not join.of_maps):
        found = "one stream" if join is None else f"the join {settings.join}"
        remedy = "Give the branch several streams and join: dilated, as the recipe mecs has, or set key_frames: false."
        problem = "key frames weigh the feature maps of several streams"
        raise SettingsError(problem, found=found, expected="the join dilated", remedy=remedy)


def _stream(settings: StreamSettings, model: Settings) -> Stream:
    return Stream(build_encoder(settings, model.model), settings, model.model.dropout)
