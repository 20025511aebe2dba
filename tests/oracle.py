"""A Gaussian mixture with exact density, score and denoiser at every noise level: what samplers are tested against."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture:
    """Round Gaussians of one width; x_t = a x_0 + s eps is such a mixture again, so all of it is in closed form.

    Args:
        means: (K, D) float64.
        std: Standard deviation of each component.
        weights: (K,) summing to 1.
    """

    means: Tensor
    std: float
    weights: Tensor

    @classmethod
    def ring(cls, modes: int = 8, std: float = 0.1, dim: int = 2, radius: float = 1.0) -> "GaussianMixture":
        """Equal modes on a circle in the first two of `dim` dimensions."""
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        means = torch.zeros(modes, dim, dtype=torch.float64)
        means[:, 0], means[:, 1] = radius * angle.cos(), radius * angle.sin()
        return cls(means, std, torch.full((modes,), 1.0 / modes, dtype=torch.float64))

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D) float64."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dim, dtype=torch.float64, generator=generator)
        return self.means[which] + self.std * noise

    def _log_joint(self, x: Tensor, a: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor]:
        """ln(weight_k N(x; a mean_k, v)) (B, K) and v; a and s are numbers or (B, 1)."""
        v = torch.as_tensor(a**2 * self.std**2 + s**2, dtype=x.dtype)
        distance = (x[:, None] - torch.as_tensor(a, dtype=x.dtype)[..., None] * self.means).square().sum(-1)
        norm = 0.5 * self.dim * torch.log(2 * math.pi * v)
        return self.weights.log() - 0.5 * distance / v - norm, v

    def log_density(self, x: Tensor, a: Tensor | float = 1.0, s: Tensor | float = 0.0) -> Tensor:
        """ln p(x_t) in nats, (B,), at x (B, D)."""
        return self._log_joint(x, a, s)[0].logsumexp(1)

    def score(self, x: Tensor, a: Tensor | float = 1.0, s: Tensor | float = 0.0) -> Tensor:
        """Gradient of `log_density`, (B, D)."""
        joint, v = self._log_joint(x, a, s)
        centre = torch.as_tensor(a, dtype=x.dtype) * (joint.softmax(1) @ self.means)
        return (centre - x) / v

    def denoised(self, x: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """E[x_0 | x_t], (B, D), by Tweedie's formula."""
        return (x + s**2 * self.score(x, a, s)) / a

    def epsilon(self, x: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """E[eps | x_t], (B, D)."""
        return -s * self.score(x, a, s)

    def posterior_variance(self, x: Tensor, a: float, s: float) -> Tensor:
        """Var[x_0 | x_t] of each coordinate, (B, D)."""
        joint, v = self._log_joint(x, a, s)
        share = joint.softmax(1)
        gain = a * self.std**2 / v
        centres = self.means + gain * (x[:, None] - a * self.means)  # (B, K, D)
        mean = (share[..., None] * centres).sum(1)
        spread = (share[..., None] * (centres - mean[:, None]).square()).sum(1)
        return spread + self.std**2 * s**2 / v
