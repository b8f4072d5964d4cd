"""The registries of encoders and attentions by name."""

from collections.abc import Callable

from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.attention import Attention
from abaw_expr.models.encoders.ddamfn import DDAMFN
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.mcnn import MCNN
from abaw_expr.models.encoders.mecs import MECS
from abaw_expr.models.encoders.rhcnn import RHCNN
from abaw_expr.settings import ModelSettings, StreamSettings, known_entry

ENCODERS: dict[str, Callable[[ModelSettings], Encoder]] = {
    "mcnn": lambda settings: MCNN(),
    "rhcnn": lambda settings: RHCNN(settings.mixing_groups),
    "ddamfn": lambda settings: DDAMFN(),
}
"""A new encoder is added here."""
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
    encoder = known_entry(ENCODERS, stream.encoder, "the encoder")(settings)
    name = stream.attention or ("gcsa" if settings.attention and encoder.places else NO_ATTENTION)
    if name == NO_ATTENTION:
        return encoder
    known_entry({**ATTENTIONS, NO_ATTENTION: None}, name, "the attention")
    if not encoder.places:
        raise SettingsError(f"the encoder {stream.encoder} takes no attention", found=name, expected="none")
    place = settings.attention_place if settings.attention_place in encoder.places else "last"
    encoder.attend(ATTENTIONS[name](encoder.places[place], settings), place)
    return encoder
