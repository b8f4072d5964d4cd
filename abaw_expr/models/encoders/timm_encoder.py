"""Image networks of timm, CLIP's image side among them.

Shapes: B images, D features, H x W positions.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
from torch import Tensor, nn

from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.clip_names import open_clip_names
from abaw_expr.models.encoders.clip_networks import CLIP
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.image_front_end import ImageFrontEnd
from abaw_expr.models.encoders.weights import KeyMap, download, fit, key_map
from abaw_expr.settings import known_entry

_OFFICIAL = MappingProxyType({"tf_efficientnet_lite0": "efficientnet_lite0"})
"""Key maps of files of other libraries than timm, by timm's name of the network."""


class TimmEncoder(Encoder):
    """A network of timm without its classifier: RGB [B, 3, 112, 112] in [-1, 1] to a map [B, D, 1, 1].

    The front end is the one that the network was trained with. Of networks of feature maps `maps` are these.
    """

    modality = "visual"
    input_shape = (3, 112, 112)

    def __init__(self, name: str) -> None:
        super().__init__()
        known_entry(dict.fromkeys(timm.list_models()), name, "timm's network")
        self.name = name
        self.network: Any = self._build()  # timm's networks have attributes that a module has not
        config = self.network.pretrained_cfg
        side = max(config["input_size"][1:])
        self.images = ImageFrontEnd(side, config["mean"], config["std"], config["interpolation"])
        # Some networks widen their features behind the pooling, so `num_features` is not what comes out.
        self.width = self.network.num_classes or self.network.head_hidden_size
        self.front_end = self.images.settings

    def _build(self) -> Any:
        """The network without its classifier."""
        network: Any = timm.create_model(self.name)
        if not (hasattr(network, "head_hidden_size") and hasattr(network, "reset_classifier")):
            raise SettingsError("is no network that tells classes of images", found=f"timm:{self.name}")
        self._classifier = _names(network.pretrained_cfg["classifier"])
        network.reset_classifier(0)
        return network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(self.images(x))
        return found[..., None, None]

    def load(self, found: Mapping[str, Tensor], path: Path, what: str = "") -> None:
        maps = [key_map(_OFFICIAL[self.name])] if self.name in _OFFICIAL else []
        classifier = tuple(rf"{name}\..*" for name in self._classifier)
        official = getattr(sys.modules[type(self.network).__module__], "checkpoint_filter_fn", None)
        if official is not None and not found.keys() & self.network.state_dict().keys():
            found = official(dict(found), self.network)
        fit(self.network, found, path, [KeyMap({}, classifier), *maps], what)

    def download(self) -> None:
        found = download(lambda: timm.create_model(self.name, pretrained=True), f"timm:{self.name}")
        self.load(found.state_dict(), Path(self.name))

    def stages(self) -> list[nn.Module]:
        """The stages that timm names, and what is behind them."""
        children = [*self.network.children()]
        return [part for child in children for part in (child if isinstance(child, nn.Sequential) else [child])]


class ClipEncoder(TimmEncoder):
    """CLIP's image side (Radford et al., ICML 2021): RGB to the embedding that is compared with texts' embeddings."""

    def __init__(self, name: str) -> None:
        self._clip = known_entry(CLIP, name, "CLIP's network")
        super().__init__(self._clip.image)

    def _build(self) -> Any:
        """The network with its projection, which is no classifier."""
        self._classifier = ()
        return timm.create_model(self.name)

    def load(self, found: Mapping[str, Tensor], path: Path, what: str = "") -> None:
        super().load(open_clip_names(found), path, what)

    def download(self) -> None:
        name = f"{self.name}.{self._clip.timm_weights}"
        found = download(lambda: timm.create_model(name, pretrained=True), self.entry)
        self.load(found.state_dict(), Path(name))


def _names(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if classifier is None else (classifier,) if isinstance(classifier, str) else classifier
