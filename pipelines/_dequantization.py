"""8-bit pictures as samples of a density. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- Theis, van den Oord & Bethge 2016, "A note on the evaluation of generative models", section 3.1.
"""

import torch
from torch import Tensor

LEVELS = 256


def dequantized(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pictures spread over their cells: (255 y + u) / 256 with uniform u, for pixels y in [0, 1].

    The density of a picture, times the volume of its cell, is then a lower bound on the probability of the 8-bit
    picture, on average over u; without it a density could be raised at will at the 256 values that there are.

    Args:
        pixels: (B, ...) in [0, 1].
        generator: Source of u.

    Returns:
        The same shape, in [0, 1].
    """
    device = pixels.device if generator is None else generator.device
    u = torch.rand(pixels.shape, generator=generator, device=device).to(pixels)
    return (255.0 * pixels + u) / LEVELS
