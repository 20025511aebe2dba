"""What an autoencoder learns to undo: noise, a small picture, holes, the loss of colour. Pure functions of tensors.

Papers
- Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders": q(x~ | x).
- Vincent 2011, "A Connection Between Score Matching and Denoising Autoencoders"; Alain & Bengio 2014, "What
  Regularized Auto-Encoders Learn from the Data-Generating Distribution": what the best denoiser knows of the density.
- Pathak et al. 2016, "Context Encoders": pictures with holes.

Images are in [-1, 1]. All randomness is drawn from the generator that is passed, or from the global one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_genzoo.pipelines._pictures import resized
from hf_genzoo.pipelines.autoencoder import luma


@dataclass(frozen=True)
class Corruption:
    """A task's corruption, with its strength.

    Args:
        task: What is to be undone, one of `hf_genzoo.pipelines.autoencoder.TASKS`.
        noise_sigma: denoise: standard deviation of the noise, for pixels in [0, 1].
        factor: super_resolution: how many times smaller pictures become.
        hole: completion: side of the square hole, as a share of the picture's.
    """

    task: str
    noise_sigma: float = 0.2
    factor: int = 4
    hole: float = 0.4

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A damaged picture of the same size, and where its holes are.

        Args:
            x: (B, C, H, W) in [-1, 1].
            generator: Source of randomness.

        Returns:
            (B, C, H, W) in [-1, 1], to which noise is clipped as in a file, and (B, 1, H, W): 1 in a hole, else 0.
        """
        nothing = torch.zeros_like(x[:, :1])
        if self.task == "denoise":
            return add_noise(x, 2.0 * self.noise_sigma, generator).clamp(-1.0, 1.0), nothing
        if self.task == "super_resolution":
            return enlarged(reduced(x, self.factor), self.factor), nothing
        if self.task == "completion":
            mask = square_holes(x, self.hole, generator)
            return x * (1.0 - mask), mask
        if self.task == "colorization":
            return luma(x).expand_as(x), nothing
        return x, nothing


def add_noise(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """x + sigma * noise. The best denoiser of it is x~ + sigma^2 grad log p(x~) (Alain & Bengio 2014, theorem 2)."""
    device = x.device if generator is None else generator.device
    return x + sigma * torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def reduced(x: Tensor, factor: int) -> Tensor:
    """Means of blocks of factor x factor pixels: (B, C, H / factor, W / factor)."""
    return F.avg_pool2d(x, factor)


def low_resolution(pixels: Tensor, factor: int) -> Tensor:
    """What super-resolution is given of a picture: bicubic with antialiasing, in 8 bits as a file holds it.

    Args:
        pixels: (B, C, H, W) in [0, 1].
        factor: How many times smaller.

    Returns:
        (B, C, H / factor, W / factor) in [0, 1], whole multiples of 1 / 255.

    Raises:
        ValueError: If the factor does not divide the sides.
    """
    height, width = pixels.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"pictures of {height}x{width} have no sides that {factor} divides")
    return (255.0 * resized(pixels, (height // factor, width // factor))).round() / 255.0


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Bicubic, as the pipeline enlarges the small pictures it is given: (B, C, factor H, factor W) in [-1, 1]."""
    height, width = x.shape[2:]
    return 2.0 * resized(0.5 * (x + 1.0), (factor * height, factor * width)) - 1.0


def square_holes(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """One square hole in each picture, anywhere inside: (B, 1, H, W), 1 in the hole, 0 elsewhere.

    Args:
        x: (B, C, H, W), for its shape.
        share: Side of the hole as a share of the picture's height and width.
        generator: Source of randomness.
    """
    device = "cpu" if generator is None else generator.device
    mask = torch.zeros_like(x[:, :1])
    spans = []
    for side in x.shape[2:]:
        length = max(1, round(share * side))
        start = torch.randint(side - length + 1, (len(x), 1), generator=generator, device=device).to(x.device)
        place = torch.arange(side, device=x.device)
        spans.append((place >= start) & (place < start + length))
    mask[:, 0] = (spans[0][:, :, None] & spans[1][:, None, :]).to(x.dtype)
    return mask
