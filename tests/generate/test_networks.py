"""The networks of a generator against what their papers say of them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from abaw_expr.generate.networks import Discriminator, Generator, ModulatedConvolution, Recogniser
from abaw_expr.generate.settings import SIDES

CLASSES, LENGTH = 8, 6


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, LENGTH), torch.eye(CLASSES)[torch.arange(count) % CLASSES]


@pytest.mark.parametrize("side", SIDES)
def test_faces_and_scores_have_their_shapes(side: int) -> None:
    identity, code = inputs(3)
    faces = Generator(side, CLASSES, LENGTH, 4)(identity, code)
    score, logits = Discriminator(side, CLASSES, 4)(faces, code), Recogniser(side, CLASSES)(faces)
    assert (faces.shape, score.shape, logits.shape) == ((3, 3, side, side), (3,), (3, CLASSES))
    assert faces.abs().max() < 1


@pytest.mark.parametrize("doubles", [False, True])
def test_scaled_maps_are_a_convolution_with_scaled_weights(doubles: bool) -> None:
    layer = ModulatedConvolution(3, 5, 7, doubles).double()
    x, style = torch.randn(4, 3, 6, 6).double(), torch.randn(4, 7).double()
    found = layer(x, style)
    for sample in range(4):
        scale = layer.scale(style[sample])
        if doubles:
            weight = layer.weight * scale[:, None, None, None]
            weight = weight / (weight.square().sum(dim=(0, 2, 3), keepdim=True) / 4 + 1e-8).sqrt()
            expected = conv_transpose2d(x[sample : sample + 1], weight, layer.bias, stride=2, padding=1)
        else:
            weight = layer.weight * scale[None, :, None, None]
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
            expected = conv2d(x[sample : sample + 1], weight, layer.bias, padding=1)
        torch.testing.assert_close(found[sample : sample + 1], expected, rtol=1e-9, atol=1e-9)


def test_a_face_does_not_depend_on_its_batch() -> None:
    generator = Generator(64, CLASSES, LENGTH, 4).double()
    identity, code = (x.double() for x in inputs(5))
    whole = generator(identity, code)
    for i in range(5):
        torch.testing.assert_close(generator(identity[i : i + 1], code[i : i + 1])[0], whole[i], rtol=1e-9, atol=1e-9)


def test_identity_and_class_both_change_a_face_from_the_start() -> None:
    generator, (identity, code) = Generator(64, CLASSES, LENGTH, 16), inputs(64)
    same_class = generator(identity, code[:1].expand_as(code)).std(dim=0).mean()
    same_identity = generator(identity[:1].expand_as(identity), code).std(dim=0).mean()
    assert 0.5 < (same_class / same_identity).item() < 2


def test_the_score_is_linear_in_the_class_code() -> None:
    discriminator, (_, code) = Discriminator(64, CLASSES, 4).double().eval(), inputs(2)
    face = torch.randn(2, 3, 64, 64).double()
    one, other = code.double(), code.flip(0).double()
    mean = (discriminator(face, one) + discriminator(face, other)) / 2
    torch.testing.assert_close(discriminator(face, (one + other) / 2), mean, rtol=1e-9, atol=1e-9)


def test_layers_that_score_have_spectral_norm_one() -> None:
    discriminator, (_, code) = Discriminator(64, CLASSES, 4), inputs(4)
    for _ in range(200):  # a power iteration a pass
        discriminator(torch.randn(4, 3, 64, 64), code)
    layers = [module for module in discriminator.modules() if hasattr(module, "parametrizations")]
    assert len(layers) == 7
    for layer in layers:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert float(norm) == pytest.approx(1, abs=0.02)


def test_gradients_reach_every_parameter() -> None:
    generator, discriminator, recogniser = Generator(64, CLASSES, LENGTH, 4), Discriminator(64, 8, 4), Recogniser(64, 8)
    identity, code = inputs(4)
    faces = generator(identity, code)
    (discriminator(faces, code).sum() + recogniser(faces).square().sum()).backward()
    for network in (generator, discriminator, recogniser):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("side", SIDES)
def test_what_a_face_shows_depends_neither_on_its_light_nor_on_its_colour(side: int) -> None:
    recogniser, faces = Recogniser(side, CLASSES).double().eval(), torch.rand(3, 3, side, side).double()
    lit = 3 * faces.mean(dim=1, keepdim=True).expand_as(faces) + 0.5
    torch.testing.assert_close(recogniser(lit), recogniser(3 * faces), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(recogniser(30 * faces), recogniser(300 * faces), rtol=0.05, atol=0.05)


def test_gradients_of_one_direction_are_counted_in_its_histogram_alone() -> None:
    recogniser = Recogniser(64, CLASSES)
    ramp = torch.linspace(-1, 1, 64)
    brighter_to_the_right = ramp.expand(1, 3, 64, 64)
    cells = recogniser._histograms(brighter_to_the_right).unflatten(1, (8, -1))[0]
    # Directions of 0, 45 and 315 degrees see it, by their cosine; those of 90 degrees and more do not.
    torch.testing.assert_close(cells[1] / cells[0], torch.full_like(cells[0], 0.5**0.5), rtol=1e-3, atol=0)
    torch.testing.assert_close(cells[7], cells[1])
    assert float(cells[2:7].abs().max()) < 1e-4
    assert float(cells[0].min()) > 0
    darker = recogniser._histograms(-brighter_to_the_right).unflatten(1, (8, -1))[0]
    torch.testing.assert_close(darker[4], cells[0])
    still = recogniser._histograms(torch.full((1, 3, 64, 64), 0.3))
    assert still.isfinite().all()
    assert float(still.abs().max()) == 0


def test_gradients_are_finite_on_a_face_without_any() -> None:
    face = torch.zeros(1, 3, 64, 64, requires_grad=True)
    Recogniser(64, CLASSES)(face).sum().backward()
    assert face.grad is not None
    assert face.grad.isfinite().all()
