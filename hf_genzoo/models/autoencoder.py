"""Convolutional autoencoder, with a vector between encoder and decoder or with a map of features.

Papers
- Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks".
- Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders"; Vincent et al. 2010,
  "Stacked Denoising Autoencoders": more numbers in the middle than pixels, kept from copying by the corruption.
- Balduzzi et al. 2017, "The Shattered Gradients Problem": the looks-linear initialisation.

What differs from the papers and why
- Convolutions, and all layers trained at once: the layer-wise pretraining of 2006 and 2010 is no longer needed.
- No squashing at the end: under a squared error it would saturate.
- Without a code of fixed length the network begins by giving back what it was given, through all its layers, where the
  stages are wide enough: silu(u) - silu(-u) = u, so a pair of channels hands a number on unchanged. What is left to
  learn is the repair, and not, first of all, how to copy.

This file is published beside the weights: it imports torch and diffusers only.
"""

import itertools
import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class ConvAutoencoder(ModelMixin, ConfigMixin):
    """z = encoder(sample), decoder(z).

    Args:
        sample_size: Height and width of the pictures it was trained on; divisible by 2 ** len(block_out_channels).
        in_channels: Channels of what is encoded.
        out_channels: Channels of what is decoded.
        latent_dim: Length of z. None: z is the last map of features, and the network takes pictures of any size that
            the stages divide.
        block_out_channels: Width of each stage; each halves (encoder) or doubles (decoder) the resolution. With
            none, and with a `latent_dim`, encoder and decoder are linear.

    Raises:
        ValueError: If the resolution does not fit the stages, or there is nothing between encoder and decoder.
    """

    latent_mean: Tensor
    latent_std: Tensor

    @register_to_config
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        out_channels: int = 1,
        latent_dim: int | None = 16,
        block_out_channels: tuple[int, ...] = (32, 64),
    ):
        super().__init__()
        factor = 2 ** len(block_out_channels)
        if sample_size % factor:
            raise ValueError(
                f"sample_size {sample_size} is not divisible by {factor}, as {len(block_out_channels)} stages need; "
                "resize the images or pass another number of block_out_channels"
            )
        if latent_dim is None and not block_out_channels:
            raise ValueError("without latent_dim and without block_out_channels there is nothing to learn; pass one")
        self.factor, size = factor, sample_size // factor

        down: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise([in_channels, *block_out_channels]):
            down += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), nn.SiLU()]
            down += [nn.Conv2d(width_out, width_out, 3, padding=1), nn.SiLU()]
        up: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise([*reversed(block_out_channels), out_channels]):
            up += [nn.Conv2d(width_in, width_in, 3, padding=1), nn.SiLU()]
            up += [nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1), nn.SiLU()]
        up = up[:-1]  # pixels are not squashed
        width_in, width_out = (block_out_channels[-1:] or (channels,) for channels in (in_channels, out_channels))
        self.latent_shape: tuple[int, ...] = (*width_in, size, size)
        if latent_dim is not None:
            down += [nn.Flatten(), nn.Linear(math.prod(self.latent_shape), latent_dim)]
            up = [nn.SiLU(), *up] if block_out_channels else up
            inner = (*width_out, size, size)
            up = [nn.Linear(latent_dim, math.prod(inner)), nn.Unflatten(1, inner), *up]
            self.latent_shape = (latent_dim,)
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        wide_enough = all(width >= 2 * out_channels * 4**k for k, width in enumerate(block_out_channels, start=1))
        if latent_dim is None and out_channels <= in_channels and wide_enough:
            begin_as_identity(self.encoder, self.decoder, out_channels)
        elif latent_dim is None and out_channels > in_channels:  # chroma of luma: begin with no colour at all
            nn.init.zeros_(self.decoder[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.decoder[-1].bias)  # type: ignore[arg-type]
        # Where the latents of the training data lie, for the sampling that a plain autoencoder does not learn.
        self.register_buffer("latent_mean", torch.zeros(self.latent_shape))
        self.register_buffer("latent_std", torch.ones(self.latent_shape))

    @apply_forward_hook
    def encode(self, sample: Tensor) -> Tensor:
        """Latents (B, *latent_shape) of what is encoded, (B, in_channels, H, W) in [-1, 1]."""
        return self.encoder(sample)

    @apply_forward_hook
    def decode(self, z: Tensor) -> Tensor:
        """(B, out_channels, H, W) of latents."""
        return self.decoder(z)

    def forward(self, sample: Tensor) -> Tensor:
        """(B, out_channels, H, W), from (B, in_channels, H, W) in [-1, 1]."""
        return self.decode(self.encode(sample))


@torch.no_grad()
def begin_as_identity(encoder: nn.Sequential, decoder: nn.Sequential, channels: int) -> None:
    """Set some channels of each layer so that the first `channels` of the input come out unchanged at the end.

    A number u lives in a pair of channels as silu(u) and silu(-u), whose difference it is (Balduzzi et al. 2017,
    section 4). A convolution of stride 2 puts the four pixels of a 2 x 2 block into channels; a transposed one takes
    them out again. All other channels keep their random weights, and nothing of them reaches the output at first.
    """
    convolutions = [layer for layer in [*encoder, *decoder] if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    signals = channels
    for number, layer in enumerate(convolutions):
        paired_in, paired_out = number > 0, number < len(convolutions) - 1
        if isinstance(layer, nn.ConvTranspose2d):
            signals //= 4
            taps = [(4 * s + 2 * y + x, s, 1 + y, 1 + x) for s in range(signals) for y in (0, 1) for x in (0, 1)]
            weight = layer.weight.transpose(0, 1)
        elif layer.stride == (2, 2):
            taps = [(s, 4 * s + 2 * y + x, 1 + y, 1 + x) for s in range(signals) for y in (0, 1) for x in (0, 1)]
            weight, signals = layer.weight, 4 * signals
        else:
            taps, weight = [(s, s, 1, 1) for s in range(signals)], layer.weight
        assert layer.bias is not None  # no convolution here is without
        _wire(weight, layer.bias, taps, paired_in, paired_out)


def _wire(
    weight: Tensor, bias: Tensor, taps: list[tuple[int, int, int, int]], paired_in: bool, paired_out: bool
) -> None:
    """Make signal `target` of the output signal `source` of the input at a place of the kernel, for each of the taps.

    Args:
        weight: (out, in, height, width), written in place.
        bias: (out,), written in place.
        taps: (source, target, row, column).
        paired_in: Whether signal s of the input is the difference of channels 2 s and 2 s + 1, or channel s itself.
        paired_out: The same of the output.
    """
    for _, target, _, _ in taps:
        rows = slice(2 * target, 2 * target + 2) if paired_out else slice(target, target + 1)
        weight[rows], bias[rows] = 0.0, 0.0
    for source, target, row, column in taps:
        for out, sign_out in ((2 * target, 1.0), (2 * target + 1, -1.0)) if paired_out else ((target, 1.0),):
            for channel, sign_in in ((2 * source, 1.0), (2 * source + 1, -1.0)) if paired_in else ((source, 1.0),):
                weight[out, channel, row, column] = sign_out * sign_in
