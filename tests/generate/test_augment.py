"""Differentiable augmentation: what it changes, and what it leaves."""

import torch

from abaw_expr.generate import augment
from abaw_expr.generate.augment import augment as augmented


def faces(count: int = 8) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 64, 64) * 2 - 1


def test_one_seed_is_one_change() -> None:
    x = faces()
    torch.manual_seed(0)
    first = augmented(x)
    torch.manual_seed(0)
    assert torch.equal(augmented(x), first)
    assert not torch.equal(augmented(x), first)


def test_gradients_go_through_it() -> None:
    x = faces().requires_grad_()
    augmented(x).sum().backward()
    assert x.grad is not None
    assert ((x.grad != 0).flatten(1).float().mean(dim=1) > 0.3).all(), "a quarter is cut out at most, and edges moved"


def test_moves_are_whole_pixels_up_to_an_eighth() -> None:
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    x = torch.stack([row, column, torch.ones(64, 64)]).expand(200, 3, 64, 64)
    moved = augment.move(x)
    shifts = set()
    for face in moved:
        inside = face[2] == 1
        by_row, by_column = (face[0] - row)[inside].unique(), (face[1] - column)[inside].unique()
        assert len(by_row) == len(by_column) == 1
        shifts |= {abs(int(by_row)), abs(int(by_column))}
        assert (face[:, ~inside] == 0).all(), "what comes in is grey"
    assert max(shifts) == 8


def test_a_square_of_half_the_side_is_cut_out() -> None:
    cut = augment._cut(torch.ones(200, 3, 64, 64))
    gone = (cut[:, 0] == 0).flatten(1).sum(dim=1)
    assert gone.max() == 31 * 31, "closer than 16 pixels to the centre"
    assert gone.min() >= 16 * 16


def test_colours_keep_grey_faces_grey() -> None:
    grey = faces()[:, :1].expand(-1, 3, -1, -1)
    changed = augment._colours(grey)
    torch.testing.assert_close(changed[:, 0], changed[:, 2], rtol=1e-5, atol=1e-5)
    ratio = changed.std(dim=(1, 2, 3)) / grey.std(dim=(1, 2, 3))
    assert ((ratio >= 0.499) & (ratio <= 1.501)).all()
