"""Networks of timm: the front end, the classifier that is left out, and files of several libraries."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from abaw_expr.errors import RunError, SettingsError
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.encoders.weights import key_map, read_tensors
from abaw_expr.settings import ModelSettings, StreamSettings

LITE = "tf_efficientnet_lite0"


def encoder(name: str) -> Encoder:
    torch.manual_seed(1)
    return build_encoder(StreamSettings(name), ModelSettings()).eval()


@pytest.mark.parametrize(
    ("name", "side", "width"), [(LITE, 224, 1280), ("resnet18", 224, 512), ("convnext_atto", 224, 320)]
)
def test_features_are_timms_on_images_as_it_wants_them(name: str, side: int, width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    save_file({key: tensor.contiguous() for key, tensor in whole.state_dict().items()}, tmp_path / "w.safetensors")
    own = encoder(f"timm:{name}")
    own.load(read_tensors(tmp_path / "w.safetensors"), tmp_path / "w.safetensors")
    assert (own.width, own.front_end["side"]) == (width, side)
    x = 2 * torch.rand(2, 1, 3, 112, 112) - 1
    mean, std = (torch.tensor(whole.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    larger = interpolate((x[:, 0] + 1) / 2, (side, side), mode="bicubic", align_corners=False, antialias=True)
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features((larger - mean) / std), pre_logits=True)
        torch.testing.assert_close(own.features(x)[:, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("mobilenetv3_small_050", 1024),  # 288 features before the pooling
        ("efficientvit_b0", 1280),
        ("fasternet_t0", 1280),
        ("ghostnet_050", 1280),
        ("hgnet_tiny", 2048),
        ("inception_next_atto", 960),
        ("mambaout_femto", 1152),
        ("vit_tiny_patch16_224", 192),
        ("swin_tiny_patch4_window7_224", 768),
        ("regnetx_002", 368),
    ],
)
def test_the_width_is_that_of_what_comes_out(name: str, width: int) -> None:
    with torch.device("meta"):
        own = encoder(f"timm:{name}")
        found = own.features(torch.empty(2, 1, 3, 112, 112))
    assert own.width == width == found.shape[-1]


def test_a_network_without_classes_is_refused() -> None:
    with (
        pytest.raises(
            SettingsError, match="is no network that tells classes of images; found 'timm:gemma4_vit_167m_enc'"
        ),
        torch.device("meta"),
    ):
        encoder("timm:gemma4_vit_167m_enc")


def test_the_file_of_another_library_is_read_by_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(LITE).state_dict()
    names = key_map("efficientnet_lite0")
    classifier = {"classifier.weight": "_fc.weight", "classifier.bias": "_fc.bias"}
    official = {classifier.get(key) or names.official(key): tensor for key, tensor in whole.items()}
    assert len(official) == 296
    assert {"_conv_stem.weight", "_blocks.0._project_conv.weight", "_blocks.15._bn2.bias"} < official.keys()
    own = encoder(f"timm:{LITE}")
    own.load(official, tmp_path)
    state = vars(own)["_modules"]["network"].state_dict()
    assert all(tensor.equal(whole[key]) for key, tensor in state.items())
    renamed = {key.replace("_blocks.3._bn0", "_blocks.3._bn9"): tensor for key, tensor in official.items()}
    with pytest.raises(RunError, match=r"does not fit the encoder.*_blocks\.3\._bn0\.weight is missing"):
        own.load(renamed, tmp_path)


def test_no_random_layer_is_left_where_the_classes_differ(tmp_path: Path) -> None:
    """A file with 7 classes and one without a classifier both fit: the classifier is no part of the encoder."""
    for classes in (7, 0):
        torch.manual_seed(0)
        lent = timm.create_model("resnet18", num_classes=classes).state_dict()
        own = encoder("timm:resnet18")
        own.load(lent, tmp_path)
        assert all(tensor.equal(lent[key]) for key, tensor in vars(own)["_modules"]["network"].state_dict().items())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm:resnet18", "timm.create_model"),
        ("clip:ViT-B-32", "timm.create_model"),
        ("torchaudio:WAV2VEC2_BASE", "torchaudio.pipelines.Wav2Vec2Bundle.get_model"),
    ],
)
def test_without_a_network_the_default_weights_are_told_to_be_a_file(
    name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: object, **named: object) -> None:
        raise OSError("no route to host")

    own = encoder(name)
    monkeypatch.setattr(place, none)
    with pytest.raises(RunError, match=f"the default weights of {name} cannot be downloaded; found 'OSError: no route"):
        own.download()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet19", "timm's network is unknown; found 'resnet19'; .*Did you mean resnet18"),
        ("clip:ViT-B-33", "CLIP's network is unknown; found 'ViT-B-33'; expected ViT-B-32 or"),
        ("torchaudio:HUBERT", "torchaudio's network is unknown; found 'HUBERT'; .*Did you mean HUBERT_"),
        ("embedding:faces", "the width of the embeddings faces is not known"),
        (
            "keras:x",
            "the family of encoders is unknown; found 'keras'; expected timm or clip or torchaudio or embedding",
        ),
    ],
)
def test_a_name_that_there_is_not_is_told_with_a_near_one(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        encoder(name)
