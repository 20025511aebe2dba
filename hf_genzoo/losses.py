"""Loss terms that several families share: pure functions of tensors.

Papers
- Gulrajani et al. 2017, "Improved Training of Wasserstein GANs": the gradient penalty.
- Kingma & Welling 2014, "Auto-Encoding Variational Bayes": the Kullback-Leibler divergence of a diagonal Gaussian.
- The log-likelihoods are documented in `hf_genzoo.models.vae`.

Sums run over pixels or latents and the batch is kept, always: a mean over pixels would be a hidden weight of one in
some hundreds on the reconstruction, and the caller's `.mean()` over the batch is then plain to see.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Defined in the published file, which must stand alone; offered here, where the training of other families looks.
from hf_genzoo.models.vae import (
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
)

__all__ = [
    "bernoulli_log_likelihood",
    "continuous_bernoulli_log_likelihood",
    "gaussian_log_likelihood",
    "gradient_penalty",
    "kl_standard_normal",
]


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor | None = None
) -> Tensor:
    """E[(|grad D(x_hat)|_2 - 1)^2] at x_hat = u x + (1 - u) G(z) (Gulrajani et al. 2017, eq. 3 and Algorithm 1).

    The norm runs over everything but the batch. `critic` may be wrapped by DDP: only the gradient with respect to its
    input is taken here, so no parameter hook fires before the backward pass of the loss.

    Args:
        critic: Maps (B, ...) to (B,) or (B, 1), each score a function of its own sample (no BatchNorm).
        real: (B, ...) samples of the data.
        fake: (B, ...) samples of the generator; no gradient flows into them.
        u: One coefficient in [0, 1] per sample, shape (B, 1, ..., 1); uniform draws if not given.

    Returns:
        Scalar, differentiable with respect to the critic's parameters.

    Raises:
        ValueError: If the shapes of `real` and `fake` differ, or `u` is not one number per sample.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real {tuple(real.shape)} and fake {tuple(fake.shape)} must have the same shape")
    per_sample = (len(real),) + (1,) * (real.ndim - 1)
    if u is None:
        u = torch.rand(per_sample, device=real.device, dtype=real.dtype)
    elif u.shape != per_sample:
        raise ValueError(f"u must hold one coefficient per sample, shape {per_sample}, not {tuple(u.shape)}")
    x_hat = torch.lerp(fake.detach(), real.detach(), u).requires_grad_()
    # Scores of different samples are independent, so the gradient of their sum holds the gradient of each.
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norm - 1.0).square().mean()


def kl_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, diag exp logvar) || N(0, I)), summed over latents (Kingma & Welling 2014, appendix B).

    Args:
        mean: (B, ...) means.
        logvar: (B, ...) log-variances.

    Returns:
        (B,) nats.
    """
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar).flatten(1).sum(1)
