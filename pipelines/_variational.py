"""The variational bound of a diffusion by Gaussian steps of fixed or learned variance. A part of pipelines' files (see
`hf_genzoo.hub.inline`).

Papers
- Ho et al. 2020, "Denoising Diffusion Probabilistic Models": the bound (eq. 5) and the decoder of 8-bit pictures (13).
- Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models": the learned variance (eq. 15), and
  chains over some of the noise levels, whose variances follow from their own abar (eq. 19).

Everything is in bits per dimension: nats, averaged over channels and pixels, over ln 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCES = ("beta", "btilde", "learned")


@dataclass(frozen=True)
class Chain:
    """The noising of x_0 over some of the noise levels, weakest first; every tensor is (S,) float64.

    Attributes:
        timesteps: What the network is told at each step, int64.
        abar: Share of the signal's power after the step.
        abar_prev: And before it; 1 at the first.
        beta: 1 - abar / abar_prev, the noise that the step adds; the upper bound of the reverse variance.
        log_btilde: ln of the variance of q(x_{i-1} | x_i, x_0), the lower bound. It is 0 at the first step, where the
            value of the second stands in its place (Nichol & Dhariwal 2021, section 3.1).
    """

    timesteps: Tensor
    abar: Tensor
    abar_prev: Tensor
    beta: Tensor
    log_btilde: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


def chain_of(betas: Tensor, timesteps: Tensor | None = None) -> Chain:
    """The chain over the given noise levels; its betas follow from abar (Nichol & Dhariwal 2021, eq. 19).

    Args:
        betas: (T,) of all noise levels. abar is computed anew from them: in single precision 1 - abar, the smallest
            variance, would be off by a thousandth.
        timesteps: (S,) which of them, rising; all if not given.

    Raises:
        ValueError: If there are fewer than two.
    """
    if timesteps is None:
        timesteps = torch.arange(len(betas), device=betas.device)
    if len(timesteps) < 2:
        raise ValueError(f"a chain of {len(timesteps)} step has no posterior variance; take at least 2 steps")
    abar = (1.0 - betas.double()).cumprod(0)[timesteps]
    abar_prev = torch.cat([torch.ones_like(abar[:1]), abar[:-1]])
    beta = 1.0 - abar / abar_prev
    btilde = beta * (1.0 - abar_prev) / (1.0 - abar)
    return Chain(timesteps, abar, abar_prev, beta, torch.cat([btilde[1:2], btilde[1:]]).log())


def at(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """values[index], (B,), in the type of `like`, (B, ...), and of a shape that broadcasts against it."""
    return values[index].to(like).view(-1, *[1] * (like.ndim - 1))


def predicted_x_0(output: Tensor, x_t: Tensor, chain: Chain, index: Tensor, prediction_type: str) -> Tensor:
    """The network's output "epsilon", "sample" or "v_prediction" as x_0, (B, ...)."""
    a, s = at(chain.abar.sqrt(), index, x_t), at((1.0 - chain.abar).sqrt(), index, x_t)
    if prediction_type == "epsilon":
        return (x_t - s * output) / a
    return output if prediction_type == "sample" else a * x_t - s * output


def posterior_mean(x_0: Tensor, x_t: Tensor, chain: Chain, index: Tensor) -> Tensor:
    """Mean of q(x_{i-1} | x_i, x_0) (Ho et al. 2020, eq. 7), (B, ...)."""
    of_x_0 = chain.abar_prev.sqrt() * chain.beta / (1.0 - chain.abar)
    of_x_t = (1.0 - chain.beta).sqrt() * (1.0 - chain.abar_prev) / (1.0 - chain.abar)
    return at(of_x_0, index, x_0) * x_0 + at(of_x_t, index, x_t) * x_t


def log_variance(variance: str, v: Tensor | None, chain: Chain, index: Tensor, like: Tensor) -> Tensor:
    """ln of the reverse variance, of a shape that broadcasts against `like`.

    Args:
        variance: "beta" or "btilde" (at the first step the same, as in the paper), or "learned": the interpolation of
            both logarithms (Nichol & Dhariwal 2021, eq. 15).
        v: (B, ...) the network's output for it: -1 is btilde, 1 is beta, and nothing holds it between them.
        chain: The steps.
        index: (B,) which of them.
        like: x_t.
    """
    low, high = at(chain.log_btilde, index, like), at(chain.beta.log(), index, like)
    if variance == "learned":
        if v is None:
            raise ValueError("this network has no channels for the variance; take 'beta' or 'btilde'")
        share = 0.5 * (v + 1.0)
        return share * high + (1.0 - share) * low
    if variance == "btilde":
        return low
    return torch.where(at(index, torch.arange(len(index), device=index.device), like) == 0, low, high)


def gaussian_kl(mean_q: Tensor, logvar_q: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q || p) of Gaussians of one dimension each, in nats, elementwise."""
    difference = logvar_q - logvar_p
    return 0.5 * (difference.exp() - 1.0 - difference + (mean_q - mean_p).square() * torch.exp(-logvar_p))


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """ln of a Gaussian's mass in the bin of each 8-bit value (Ho et al. 2020, eq. 13), in nats, elementwise.

    Bins are 2 / 255 wide; the outer two reach to infinity. Masses are differences of ln Phi in the tail where they are
    small, so that none rounds to zero.

    Args:
        x: Pixels in [-1, 1], k / 127.5 - 1.
        mean: Of the Gaussian.
        logvar: ln of its variance.
    """
    scale = torch.exp(-0.5 * logvar)
    low, high = (x - mean - 1.0 / 255.0) * scale, (x - mean + 1.0 / 255.0) * scale
    mirrored = low + high > 0
    a = torch.special.log_ndtr(torch.where(mirrored, -high, low))
    b = torch.special.log_ndtr(torch.where(mirrored, -low, high))
    inner = b + torch.log(-torch.expm1((a - b).clamp(max=-torch.finfo(x.dtype).tiny)))
    edge = torch.where(x < 0, torch.special.log_ndtr(high), torch.special.log_ndtr(-low))
    return torch.where(x.abs() > 1.0 - 1.0 / 255.0, edge, inner)


def bound_term(
    x_0: Tensor, x_t: Tensor, x_0_hat: Tensor, logvar: Tensor, chain: Chain, index: Tensor, discrete: bool = True
) -> Tensor:
    """One term of the bound for each sample, (B,), in bits per dimension (Nichol & Dhariwal 2021, eqs. 5 to 7).

    Args:
        x_0: (B, ...) data.
        x_t: (B, ...) noised by `index` + 1 steps of the chain.
        x_0_hat: (B, ...) what the network makes of it.
        logvar: From `log_variance`.
        chain: The steps.
        index: (B,) which of them.
        discrete: Whether the last term is the probability of an 8-bit picture; else it is a density.
    """
    truth, mean = (posterior_mean(x, x_t, chain, index) for x in (x_0, x_0_hat))
    logvar = logvar.expand_as(mean)
    kl = gaussian_kl(truth, at(chain.log_btilde, index, x_t), mean, logvar)
    if discrete:
        decoder = -discretized_gaussian_log_likelihood(x_0, mean, logvar)
    else:
        decoder = 0.5 * (math.log(2.0 * math.pi) + logvar + (x_0 - mean).square() * torch.exp(-logvar))
    first = at(index, torch.arange(len(index), device=index.device), x_t) == 0
    return torch.where(first, decoder, kl).flatten(1).mean(1) / math.log(2.0)


def prior_term(x_0: Tensor, chain: Chain) -> Tensor:
    """KL(q(x_T | x_0) || N(0, I)), (B,), in bits per dimension: what the last noise level still tells."""
    a2 = chain.abar[-1].to(x_0)
    kl = gaussian_kl(a2.sqrt() * x_0, torch.log1p(-a2), torch.zeros_like(x_0), torch.zeros_like(x_0))
    return kl.flatten(1).mean(1) / math.log(2.0)


@torch.no_grad()
def variational_bound(
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    x_0: Tensor,
    chain: Chain,
    variance: str,
    clip: float | None = None,
    discrete: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """An upper bound on -log2 p(x_0) per dimension, term by term: one draw of x_t for each (Ho et al. 2020, eq. 5).

    Args:
        predict: Maps x_t (B, ...) and the steps (B,) to the x_0 that it sees and v of `log_variance`, or None.
        x_0: (B, ...) float64 in [-1, 1].
        chain: The steps.
        variance: One of `VARIANCES`.
        clip: Where the predicted x_0 is cut, as in sampling; not at all if None.
        discrete: See `bound_term`.
        generator: Source of the noise.

    Returns:
        (B, S + 1): the decoder, the S - 1 steps before it, and the prior. Their sum is the bound.
    """
    terms = []
    device = x_0.device if generator is None else generator.device
    for step in range(len(chain)):
        index = torch.full((len(x_0),), step, device=x_0.device)
        noise = torch.randn(x_0.shape, generator=generator, device=device, dtype=x_0.dtype).to(x_0.device)
        a, s = chain.abar[step].sqrt(), (1.0 - chain.abar[step]).sqrt()
        x_t = a * x_0 + s * noise
        x_0_hat, v = predict(x_t, index)
        x_0_hat = x_0_hat if clip is None else x_0_hat.clamp(-clip, clip)
        logvar = log_variance(variance, v, chain, index, x_t)
        terms.append(bound_term(x_0, x_t, x_0_hat, logvar, chain, index, discrete))
    return torch.stack([*terms, prior_term(x_0, chain)], dim=1)
