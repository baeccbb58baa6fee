"""Augmentation: random views of images to train on."""

from __future__ import annotations

import torch
from torch.nn import functional


def augment(pixels: torch.Tensor, size: int, flip: bool, rng: torch.Generator) -> torch.Tensor:
    """Random views uint8[N, S, S, 3], S = ``size``, of squares uint8[N, R, R, 3]; every draw is from ``rng``.

    The zoom varies about the one of evaluation, so that things do not look larger in training than in use.
    """
    count, side = pixels.shape[:2]

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, 2).uniform_(low, high, generator=rng)

    # In the coordinates of grid_sample the square reaches from -1 to 1; beyond, it is mirrored.
    extent = size / side * draw(0.75, 1.2)[:, :1] * draw(0.94, 1.06)
    shift = draw(-1, 1) * (1 - extent).clamp(min=0.125)
    mirrored = draw(0, 1)[:, 0] < (0.5 if flip else 0.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = extent[:, 0].where(~mirrored, -extent[:, 0]), extent[:, 1], shift
    gain = draw(0.8, 1.2)[:, 0].reshape(-1, 1, 1, 1).to(pixels.device)
    grid = functional.affine_grid(theta.to(pixels.device), [count, 3, size, size], align_corners=False)
    view = functional.grid_sample(
        pixels.permute(0, 3, 1, 2).float(), grid, padding_mode="reflection", align_corners=False
    )
    return (view * gain).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
