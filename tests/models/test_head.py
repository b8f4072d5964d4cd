"""Cosine heads: logits against their definition, and the classes' texts by CLIP's text side."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from abaw_expr.errors import RunError, SettingsError
from abaw_expr.models.encoders.clip_networks import CLIP
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.encoders.weights import read_tensors
from abaw_expr.models.head import Adapter, CosineHead
from abaw_expr.models.network import build_network
from abaw_expr.models.texts import encode_texts, texts_of
from abaw_expr.settings import BranchSettings, ModelSettings, Settings, StreamSettings
from abaw_expr.tasks.task import EXPR

NAME = "ViT-B-32-quickgelu"


@pytest.mark.parametrize("width", [256, 512])
def test_logits_are_cosines_by_the_temperature(width: int) -> None:
    torch.manual_seed(0)
    head = CosineHead(width, 8, ModelSettings()).double().eval()
    head.texts.copy_(normalize(torch.randn(8, 512), dim=1))
    x = torch.randn(5, width, dtype=torch.float64)
    projected = head.project(x)
    expected = cosine_similarity(projected[:, None], head.texts[None], dim=2) / 0.07
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-6)  # 1 / 0.07 was rounded to float32
    head(x).sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert {name for name, _ in head.named_parameters()} >= {"log_scale"}
    assert "texts" in head.state_dict(), "a checkpoint has them, so prediction needs no text encoder"


def test_an_adapter_is_a_bottleneck_beside_its_input() -> None:
    torch.manual_seed(0)
    adapter = Adapter(512).double()
    x, state = torch.randn(3, 512, dtype=torch.float64), adapter.state_dict()
    inner = (x @ state["layers.0.weight"].T + state["layers.0.bias"]).clamp(min=0)
    outer = (inner @ state["layers.2.weight"].T + state["layers.2.bias"]).clamp(min=0)
    torch.testing.assert_close(adapter(x), (x + outer) / 2)


def test_texts_are_those_of_the_settings_or_the_default() -> None:
    assert len(texts_of(Settings())) == EXPR.n_columns
    assert texts_of(Settings())[4] == "a photo of a person who looks happy."
    own = tuple("abcdefgh")
    assert texts_of(Settings(model=ModelSettings(prompts=own))) == own
    with pytest.raises(SettingsError, match=r"model\.prompts cannot be used; found '2 texts'; expected 8 texts"):
        texts_of(Settings(model=ModelSettings(prompts=("a", "b"))))
    with pytest.raises(SettingsError, match="a cosine head compares with texts of classes; found 'task va'"):
        texts_of(Settings(task="va"))


def test_a_cosine_head_is_a_branchs_last_layer_and_no_linear_one() -> None:
    branches = {"visual": BranchSettings("rhcnn", head="cosine")}
    network = build_network(Settings(branches=branches))
    branch = network.own_branches()["visual"]
    assert isinstance(branch.head[-1], CosineHead)
    with pytest.raises(SettingsError, match="heads are trained again where they are linear; found 'CosineHead'"):
        _ = branch.linear
    with pytest.raises(SettingsError, match="the head is unknown; found 'cosin'; expected linear or cosine"):
        build_network(Settings(branches={"visual": BranchSettings("rhcnn", head="cosin")}))


def as_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's tensors as the library transformers names them, written from its names alone."""
    plain = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "text_projection": "text_projection.weight",
        "logit_scale": "logit_scale",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.proj": "visual_projection.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    tops = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    tops |= {"ln_final": "text_model.final_layer_norm"}
    layers = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    layers |= {"attn.out_proj": "self_attn.out_proj"}
    found = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    for key, tensor in state.items():
        top, _, last = key.rpartition(".")
        if key in plain:
            found[plain[key]] = tensor.T.contiguous() if key in ("text_projection", "visual.proj") else tensor
        elif top in tops:
            found[f"{tops[top]}.{last}"] = tensor
        else:
            side = "vision_model" if key.startswith("visual.") else "text_model"
            number, part = key.split("resblocks.")[1].split(".", 1)
            layer = f"{side}.encoder.layers.{number}"
            if part.startswith("attn.in_proj"):
                for one, third in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{one}_proj.{part.rpartition('_')[2]}"] = third.contiguous()
            else:
                inner, _, last = part.rpartition(".")
                found[f"{layer}.{layers[inner]}.{last}"] = tensor
    return found


@pytest.mark.slow
def test_clip_from_a_file_is_open_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its image side, which timm computes, and its texts; a file that does not fit is refused."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    clip = open_clip.create_model(NAME).eval()
    logging.disable(logging.NOTSET)
    path = tmp_path / "clip.safetensors"
    state = {key: tensor.contiguous() for key, tensor in clip.state_dict().items()}
    save_file(state, path)
    encoder = build_encoder(StreamSettings(f"clip:{NAME}"), ModelSettings()).eval()
    encoder.load(read_tensors(path), path)
    x = 2 * torch.rand(2, 3, 112, 112) - 1
    texts = texts_of(Settings())
    with torch.inference_mode():
        images = encoder.images(x)  # type: ignore[operator]
        torch.testing.assert_close(encoder.features(x[:, None])[:, 0], clip.encode_image(images), rtol=0, atol=1e-5)
        expected = clip.encode_text(open_clip.get_tokenizer(NAME)(texts), normalize=True)
    found = encode_texts(texts, NAME, str(path))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not caplog.records, "nothing is said of weights that are loaded a moment later"
    save_file(as_transformers(state), path)
    encoder.load(read_tensors(path), path)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.features(x[:, None])[:, 0], clip.encode_image(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(encode_texts(texts, NAME, str(path)), expected, rtol=0, atol=1e-6)
    save_file({key: tensor for key, tensor in state.items() if key != "text_projection"}, path)
    with pytest.raises(RunError, match=r"does not fit the encoder of model\.text-weights; found .*is missing"):
        encode_texts(texts, NAME, str(path))
    renamed = {key.replace("ln_pre", "ln_before"): tensor for key, tensor in state.items()}
    with pytest.raises(RunError, match="does not fit the encoder"):
        encoder.load(renamed, path)


def test_texts_need_weights() -> None:
    with pytest.raises(SettingsError, match="the text encoder has no weights: its embeddings would be random"):
        encode_texts(("a",), NAME, "")
    assert replace(Settings(), model=ModelSettings(text_encoder="ViT-L-14")).model.text_encoder in CLIP
