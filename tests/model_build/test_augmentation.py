"""Random views: of the right size, seeded, and mirrored only where that is asked."""

from __future__ import annotations

import torch

from model_build.augmentation import augment


def test_views_are_of_the_size_and_seeded() -> None:
    pixels = torch.randint(0, 256, (6, 20, 20, 3), dtype=torch.uint8)

    def view(seed: int, flip: bool = True) -> torch.Tensor:
        return augment(pixels, 16, flip, torch.Generator().manual_seed(seed))

    assert view(0).shape == (6, 16, 16, 3)
    assert view(0).dtype == torch.uint8
    assert torch.equal(view(0), view(0))
    assert not torch.equal(view(0), view(1))
    # A gradient from left to right stays one, unless views are mirrored.
    pixels = torch.arange(20, dtype=torch.uint8).mul(10).reshape(1, 1, 20, 1).expand(64, 20, 20, 3)
    for flip, mirrored in ((False, {False}), (True, {False, True})):
        columns = view(2, flip).float().mean(dim=(1, 3))
        assert {bool(row[3] > row[12]) for row in columns} == mirrored
