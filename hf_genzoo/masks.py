"""Random holes in pictures, for networks that learn to fill them."""

import torch
from torch import Tensor


def random_known(x: Tensor, generator: torch.Generator | None = None, whole: float = 0.1) -> Tensor:
    """Where each picture is known: 1 outside of a random hole, 0 inside.

    The hole is a rectangle or an ellipse with sides of 0.25 to 0.75 of the picture's, anywhere inside of it; now and
    then it is the whole picture, so that a network does not forget how to paint from nothing.

    Args:
        x: (B, C, H, W), pictures; only their shape and device count.
        generator: Source of randomness.
        whole: Share of pictures of which nothing is known.

    Returns:
        (B, 1, H, W) of the dtype of `x`.
    """
    height, width = x.shape[-2:]
    u = torch.rand((len(x), 6), generator=generator, device=x.device if generator is None else generator.device)
    u = u.to(x.device)[:, :, None, None]
    radius_y, radius_x = 0.125 + 0.25 * u[:, 0], 0.125 + 0.25 * u[:, 1]
    centre_y, centre_x = radius_y + (1 - 2 * radius_y) * u[:, 2], radius_x + (1 - 2 * radius_x) * u[:, 3]
    rows = (torch.arange(height, device=x.device) + 0.5)[:, None] / height
    columns = (torch.arange(width, device=x.device) + 0.5)[None, :] / width
    dy, dx = (rows - centre_y) / radius_y, (columns - centre_x) / radius_x
    inside = torch.where(u[:, 4] < 0.5, torch.maximum(dy.abs(), dx.abs()) <= 1, dy.square() + dx.square() <= 1)
    return (~(inside | (u[:, 5] < whole)))[:, None].to(x.dtype)
