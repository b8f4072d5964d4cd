"""The registry of encoders by name."""

from collections.abc import Callable

from abaw_expr.models.encoders import mcnn, rhcnn
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.settings import ModelSettings

ENCODERS: dict[str, Callable[[ModelSettings], Encoder]] = {"mcnn": mcnn.build, "rhcnn": rhcnn.build}
"""A new encoder is added here."""
