"""Variational autoencoder with a convolutional encoder and decoder and a vector latent.

Papers
- Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; Rezende, Mohamed & Wierstra 2014, "Stochastic
  Backpropagation and Approximate Inference in Deep Generative Models".
- Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders".
- Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders" (the learned sigma).

What differs from the papers and why
- Convolutions instead of fully connected layers, so that one class serves 28 to 64 pixels and colour.
- Samples are images x in [-1, 1], like everywhere in this package; the three likelihoods are of pixels
  y = (x + 1) / 2 in [0, 1], where Bernoulli and continuous Bernoulli have their support. Log-densities are with
  respect to y, for all three, so that their values can be compared.
- A grey pixel under the Bernoulli likelihood stands for a random bit b ~ Bernoulli(y): log p(b | z) is linear in b,
  so the cross-entropy with y is its exact expectation, and the bound holds for randomly binarised pictures.
- Gaussian sigma is one learned scalar. It is bounded below by one grey level, because the density of pictures that a
  large decoder has memorised has no upper bound.

This file is published beside the weights: it imports torch and diffusers only.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from diffusers.utils.outputs import BaseOutput
from torch import Tensor, nn

LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli")
LOG_SIGMA_INIT = -1.5  # sigma 0.22: about the spread of natural pixels in [0, 1]; Adam has little way to go from there
LOG_SIGMA_MIN = -math.log(256.0)


def bernoulli_log_likelihood(logits: Tensor, pixels: Tensor) -> Tensor:
    """Bernoulli log-likelihood, summed over pixels (Kingma & Welling 2014, eq. 11).

    Args:
        logits: (B, ...) logits of the probability of 1.
        pixels: (B, ...) in [0, 1]; a grey value gives the expectation over random bits of that mean.

    Returns:
        (B,) nats.
    """
    return -F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").flatten(1).sum(1)


def gaussian_log_likelihood(mean: Tensor, log_sigma: Tensor, pixels: Tensor) -> Tensor:
    """Gaussian log-density with one standard deviation for all pixels, summed over pixels (Rybkin et al. 2021).

    Args:
        mean: (B, ...) means.
        log_sigma: scalar, log of the standard deviation. At the optimum sigma^2 is the mean squared error.
        pixels: (B, ...) values.

    Returns:
        (B,) nats.
    """
    squared_error = ((pixels - mean) * torch.exp(-log_sigma)).square()
    return -(0.5 * squared_error + log_sigma + 0.5 * math.log(2.0 * math.pi)).flatten(1).sum(1)


def continuous_bernoulli_log_normaliser(logits: Tensor) -> Tensor:
    """log C(lambda) at lambda = sigmoid(logits) (Loaiza-Ganem & Cunningham 2019, section 3), elementwise.

    The paper's 2 atanh(1 - 2 lambda) / (1 - 2 lambda) is l / tanh(l / 2) in the logit l. Value and gradient lose their
    digits where l vanishes, so there a Taylor series takes over; its first dropped term is below 1e-14.
    """
    small = logits.abs() < 0.2
    x2 = torch.where(small, 0.5 * logits, 0.0).square()
    series = x2 * (1 / 3 - x2 * (7 / 90 - x2 * (62 / 2835 - x2 * (127 / 18900 - x2 * (146 / 66825)))))
    magnitude = torch.where(small, 1.0, logits.abs())
    exact = torch.log(magnitude) - torch.log(torch.tanh(0.5 * magnitude))
    return torch.where(small, math.log(2.0) + series, exact)


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """Mean of the continuous Bernoulli at lambda = sigmoid(logits) (Loaiza-Ganem & Cunningham 2019, section 3)."""
    small = logits.abs() < 0.1
    series = 0.5 + logits / 12 - logits**3 / 720
    safe = torch.where(small, 1.0, logits)
    return torch.where(small, series, -1.0 / torch.expm1(-safe) - 1.0 / safe)


def continuous_bernoulli_log_likelihood(logits: Tensor, pixels: Tensor) -> Tensor:
    """Continuous Bernoulli log-density, summed over pixels (Loaiza-Ganem & Cunningham 2019, section 3).

    Args:
        logits: (B, ...) logits of the parameter lambda (which is not the mean).
        pixels: (B, ...) in [0, 1].

    Returns:
        (B,) nats.
    """
    return bernoulli_log_likelihood(logits, pixels) + continuous_bernoulli_log_normaliser(logits).flatten(1).sum(1)


@dataclass
class ConvVAEOutput(BaseOutput):
    """All that the evidence lower bound needs, from one forward pass.

    Every field is a result of `forward`, so wrappers (DDP, FSDP, mixed precision) see each parameter at work. The
    `None` defaults exist because accelerate rebuilds outputs from a mapping; the fields are always filled.

    Args:
        log_likelihood: (B,) log p(x | z) in nats, summed over pixels.
        mean: (B, latent_dim) mean of q(z | x).
        logvar: (B, latent_dim) log-variance of q(z | x).
        z: (B, latent_dim) the draw from q(z | x) that was decoded.
        decoded: (B, C, H, W) parameters of p(x | z); `ConvVAE.mean_image` makes a picture of them.
    """

    log_likelihood: Tensor
    mean: Tensor = None  # type: ignore[assignment]
    logvar: Tensor = None  # type: ignore[assignment]
    z: Tensor = None  # type: ignore[assignment]
    decoded: Tensor = None  # type: ignore[assignment]


class ConvVAE(ModelMixin, ConfigMixin):
    """q(z | x) = N(mean(x), diag exp logvar(x)), p(z) = N(0, I), and p(x | z) by `likelihood`.

    Args:
        sample_size: Height and width of the images; divisible by 2 ** len(block_out_channels).
        in_channels: Channels of the images.
        latent_dim: Length of z.
        block_out_channels: Width of each stage; each halves (encoder) or doubles (decoder) the resolution.
        hidden_dim: Width of the fully connected layer between the convolutions and the latent.
        likelihood: "bernoulli", "gaussian" (learned scalar sigma) or "continuous_bernoulli".

    Raises:
        ValueError: If the resolution does not fit the stages, or the likelihood is unknown.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        latent_dim: int = 32,
        block_out_channels: tuple[int, ...] = (32, 64),
        hidden_dim: int = 256,
        likelihood: str = "bernoulli",
    ):
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")
        factor = 2 ** len(block_out_channels)
        if sample_size % factor:
            raise ValueError(
                f"sample_size {sample_size} is not divisible by {factor}, as {len(block_out_channels)} stages need; "
                "resize the images or pass another number of block_out_channels"
            )
        widths = [in_channels, *block_out_channels]
        size = sample_size // factor
        features = widths[-1] * size * size

        down: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            down += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), nn.SiLU()]
        down += [nn.Flatten(), nn.Linear(features, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, 2 * latent_dim)]
        self.encoder = nn.Sequential(*down)

        up: list[nn.Module] = [nn.Linear(latent_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, features)]
        up += [nn.Unflatten(1, (widths[-1], size, size))]
        for width_in, width_out in itertools.pairwise(reversed(widths)):
            up += [nn.SiLU(), nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*up)
        if likelihood == "gaussian":
            self.log_sigma = nn.Parameter(torch.tensor(LOG_SIGMA_INIT))

    @apply_forward_hook
    def encode(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), (B, latent_dim) each, for images (B, C, H, W) in [-1, 1]."""
        mean, logvar = self.encoder(sample).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    @apply_forward_hook
    def decode(self, z: Tensor) -> Tensor:
        """Parameters of p(x | z), (B, C, H, W): logits for the two Bernoulli likelihoods, else the means of y."""
        return self.decoder(z)

    def log_likelihood(self, sample: Tensor, decoded: Tensor) -> Tensor:
        """log p(x | z) in nats, (B,), of images (B, C, H, W) in [-1, 1] under the parameters that `decode` gave."""
        pixels = (0.5 * (sample + 1.0)).to(torch.promote_types(sample.dtype, torch.float32))
        decoded = decoded.to(pixels.dtype)  # sums over hundreds of pixels need more digits than half precision has
        if self.config["likelihood"] == "bernoulli":
            return bernoulli_log_likelihood(decoded, pixels)
        if self.config["likelihood"] == "continuous_bernoulli":
            return continuous_bernoulli_log_likelihood(decoded, pixels)
        log_sigma = LOG_SIGMA_MIN + F.softplus(self.log_sigma.to(pixels.dtype) - LOG_SIGMA_MIN)
        return gaussian_log_likelihood(decoded, log_sigma, pixels)

    def mean_image(self, decoded: Tensor) -> Tensor:
        """E[x | z], (B, C, H, W), of the parameters that `decode` gave; in [-1, 1] but for a Gaussian's overshoot."""
        if self.config["likelihood"] == "bernoulli":
            return torch.tanh(0.5 * decoded)  # 2 sigmoid(l) - 1
        if self.config["likelihood"] == "continuous_bernoulli":
            return 2.0 * continuous_bernoulli_mean(decoded) - 1.0
        return 2.0 * decoded - 1.0

    def forward(self, sample: Tensor, noise: Tensor | None = None) -> ConvVAEOutput:
        """Encode, draw z by the reparameterisation trick (Kingma & Welling 2014, eq. 10), decode.

        Args:
            sample: (B, C, H, W) in [-1, 1].
            noise: (B, latent_dim) standard normal; drawn from the global generator if not given.
        """
        mean, logvar = self.encode(sample)
        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + torch.exp(0.5 * logvar) * noise
        decoded = self.decode(z)
        log_likelihood = self.log_likelihood(sample, decoded)
        return ConvVAEOutput(log_likelihood=log_likelihood, mean=mean, logvar=logvar, z=z, decoded=decoded)
