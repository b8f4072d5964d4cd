"""The registries of encoders and attentions by name."""

from collections.abc import Callable
from types import ModuleType

from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.attention import Attention
from abaw_expr.models.encoders.ddamfn import DDAMFN
from abaw_expr.models.encoders.embedded import Embedded
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.ge2e import GE2E
from abaw_expr.models.encoders.mcnn import MCNN
from abaw_expr.models.encoders.mecs import MECS
from abaw_expr.models.encoders.rhcnn import RHCNN
from abaw_expr.models.encoders.vggish import VGGish
from abaw_expr.settings import ModelSettings, StreamSettings, known_entry

ENCODERS: dict[str, Callable[[ModelSettings], Encoder]] = {
    "mcnn": lambda settings: MCNN(),
    "rhcnn": lambda settings: RHCNN(settings.mixing_groups),
    "ddamfn": lambda settings: DDAMFN(),
    "vggish": lambda settings: VGGish(),
    "vgg-logmel": lambda settings: VGGish(),
    "ge2e": lambda settings: GE2E(),
}
"""A new encoder is added here."""
FAMILIES: dict[str, Callable[[str, StreamSettings], Encoder]] = {
    "timm": lambda name, stream: _timm().TimmEncoder(name),
    "clip": lambda name, stream: _timm().ClipEncoder(name),
    "torchaudio": lambda name, stream: _torchaudio().TorchaudioEncoder(name),
    "embedding": lambda name, stream: _embedded(name, stream.embedding_width),
}
"""Encoders that a library has many of, `family:name`; a new family is added here."""
ATTENTIONS: dict[str, Callable[[int, ModelSettings], Attention]] = {
    "gcsa": lambda channels, settings: GCSA(channels, settings.attention_groups),
    "mecs": lambda channels, settings: MECS(channels, settings.strips),
}
"""From the channels of a feature map to its attention; a new one is added here, `none` is none."""
NO_ATTENTION = "none"


def build_encoder(stream: StreamSettings, settings: ModelSettings) -> Encoder:
    """The encoder of a stream with its attention, on its last feature map where it has not the place of the settings.

    Raises SettingsError for an unknown encoder or attention, and for an attention on an encoder that takes none.
    """
    encoder = _build(stream, settings)
    encoder.entry = stream.encoder
    name = stream.attention or ("gcsa" if settings.attention and encoder.places else NO_ATTENTION)
    if name == NO_ATTENTION:
        return encoder
    known_entry({**ATTENTIONS, NO_ATTENTION: None}, name, "the attention")
    if not encoder.places:
        raise SettingsError(f"the encoder {stream.encoder} takes no attention", found=name, expected="none")
    place = settings.attention_place if settings.attention_place in encoder.places else "last"
    encoder.attend(ATTENTIONS[name](encoder.places[place], settings), place)
    return encoder


def _build(stream: StreamSettings, settings: ModelSettings) -> Encoder:
    family, colon, name = stream.encoder.partition(":")
    if colon:
        return known_entry(FAMILIES, family, "the family of encoders")(name, stream)
    names = {**ENCODERS, **{f"{family}:NAME": None for family in FAMILIES}}
    known_entry(names, stream.encoder, "the encoder")
    return ENCODERS[stream.encoder](settings)


def _embedded(name: str, width: int) -> Encoder:
    if not width:
        remedy = "Training on a store sets it; without a store name it: branches.NAME.embedding-width."
        raise SettingsError(f"the width of the embeddings {name} is not known", remedy=remedy)
    return Embedded(name, width)


def _timm() -> ModuleType:
    from abaw_expr.models.encoders import timm_encoder  # two seconds to import

    return timm_encoder


def _torchaudio() -> ModuleType:
    from abaw_expr.models.encoders import torchaudio_encoder  # a second to import

    return torchaudio_encoder
