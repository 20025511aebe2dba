"""Loss terms that several families share: pure functions of tensors.

Papers
- Goodfellow et al. 2014, "Generative Adversarial Networks": the minimax game and its non-saturating form.
- Mao et al. 2017, "Least Squares Generative Adversarial Networks".
- Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization": the hinge.
- Jolicoeur-Martineau 2019, "The relativistic discriminator"; Huang et al. 2024, "The GAN is dead; long live the GAN!
  A Modern GAN Baseline" (R3GAN): pairs of a real and a generated sample.
- Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?": zero-centred gradient penalties.
- Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks": packing.
- Gulrajani et al. 2017, "Improved Training of Wasserstein GANs": the gradient penalty.
- Kingma & Welling 2014, "Auto-Encoding Variational Bayes": the Kullback-Leibler divergence of a diagonal Gaussian.
- Burgess et al. 2018, "Understanding disentangling in beta-VAE": a KL that is held at a rising capacity.
- Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders": the KL in three terms.
- The log-likelihoods are documented in `hf_genzoo.models.vae`.

Sums run over pixels or latents and the batch is kept, always: a mean over pixels would be a hidden weight of one in
some hundreds on the reconstruction, and the caller's `.mean()` over the batch is then plain to see.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

# Defined in the published file, which must stand alone; offered here, where the training of other families looks.
from hf_genzoo.models.vae import (
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
)

__all__ = [
    "AdversarialLoss",
    "annealed_capacity",
    "bernoulli_log_likelihood",
    "continuous_bernoulli_log_likelihood",
    "discriminator_loss",
    "gaussian_log_likelihood",
    "generator_loss",
    "gradient_penalty",
    "kl_standard_normal",
    "kl_terms",
    "pack",
    "stratified_log_weights",
    "zero_centred_penalty",
]

LOG_2PI = math.log(2.0 * math.pi)

AdversarialLoss = Literal["minimax", "non_saturating", "least_squares", "hinge", "relativistic"]


def discriminator_loss(real: Tensor, fake: Tensor, loss: AdversarialLoss) -> Tensor:
    """What the discriminator minimises, from its logits of real and of generated samples, (B,) each.

    - minimax, non_saturating: -E log D(x) - E log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1) with
      D = sigmoid(logit), taken inside the logarithm, where nothing overflows.
    - least_squares: E (D(x) - 1)^2 / 2 + E (D(G(z)) + 1)^2 / 2 (Mao et al. 2017, eq. 2 with a = -1, b = 1).
    - hinge: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Miyato et al. 2018, eq. 16).
    - relativistic: E softplus(D(G(z)) - D(x)), sample by sample in pairs (Huang et al. 2024, eq. 2).

    Raises:
        ValueError: If the loss is unknown.
    """
    if loss in ("minimax", "non_saturating"):
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if loss == "least_squares":
        return 0.5 * (real - 1.0).square().mean() + 0.5 * (fake + 1.0).square().mean()
    if loss == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
    if loss == "relativistic":
        return F.softplus(fake - real).mean()
    raise ValueError(f"unknown loss {loss!r}; choose one of {', '.join(get_args(AdversarialLoss))}")


def generator_loss(fake: Tensor, loss: AdversarialLoss, real: Tensor | None = None) -> Tensor:
    """What the generator minimises, from the discriminator's logits of its samples, (B,).

    - minimax: E log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1), which saturates where the discriminator is sure.
    - non_saturating: -E log D(G(z)) (ibid., section 3).
    - least_squares: E D(G(z))^2 / 2 (Mao et al. 2017, eq. 2 with c = 0: with a = -1 and b = 1 Pearson's chi^2).
    - hinge: -E D(G(z)) (Miyato et al. 2018, eq. 17).
    - relativistic: E softplus(D(x) - D(G(z))) (Huang et al. 2024, eq. 2), for which it needs `real`, (B,).

    Raises:
        ValueError: If the loss is unknown, or it is relativistic and there are no logits of real samples.
    """
    if loss == "minimax":
        return -F.softplus(fake).mean()
    if loss == "non_saturating":
        return F.softplus(-fake).mean()
    if loss == "least_squares":
        return 0.5 * fake.square().mean()
    if loss == "hinge":
        return -fake.mean()
    if loss == "relativistic":
        if real is None:
            raise ValueError("the relativistic loss compares with real samples: pass their logits")
        return F.softplus(real - fake).mean()
    raise ValueError(f"unknown loss {loss!r}; choose one of {', '.join(get_args(AdversarialLoss))}")


def zero_centred_penalty(logits: Tensor, samples: Tensor) -> Tensor:
    """E |grad D|^2 / 2 at the samples: R1 at real ones, R2 at generated ones (Mescheder et al. 2018, eq. 9 and 10).

    The norm runs over everything but the batch. Times gamma it is the paper's regulariser.

    Args:
        logits: (B,), computed from `samples`, each a function of its own sample (no BatchNorm).
        samples: (B, ...) with `requires_grad` set before the discriminator saw them.

    Returns:
        Scalar, differentiable with respect to the discriminator's parameters.
    """
    return 0.5 * _gradients(logits, samples).square().sum(1).mean()


def pack(samples: Tensor, size: int) -> Tensor:
    """Samples (B, C, ...) as packs (B / size, size C, ...) of consecutive ones (Lin et al. 2018, section 2).

    Raises:
        ValueError: If the batch is no multiple of the size.
    """
    if size < 1 or len(samples) % size:
        raise ValueError(f"{len(samples)} samples cannot be put into packs of {size}: choose a divisor")
    return samples.reshape(len(samples) // size, size * samples.shape[1], *samples.shape[2:])


def _gradients(scores: Tensor, samples: Tensor) -> Tensor:
    """Gradient of each score with respect to its own sample, flattened to (B, D).

    Scores of different samples are independent, so the gradient of their sum holds the gradient of each.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return gradient.flatten(1)


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
    norm = torch.linalg.vector_norm(_gradients(critic(x_hat), x_hat), dim=1)
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


def annealed_capacity(step: int, capacity: float, capacity_steps: int) -> float:
    """C in nats: 0 at step 0, rising linearly to `capacity` at `capacity_steps`, constant from there.

    Burgess et al. 2018, section 5.3.

    Raises:
        ValueError: If `capacity_steps` is below 1.
    """
    if capacity_steps < 1:
        raise ValueError(f"capacity_steps must be at least 1, not {capacity_steps}")
    return capacity * min(1.0, step / capacity_steps)


def kl_terms(z: Tensor, mean: Tensor, logvar: Tensor, num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """The KL of a batch in three: what z tells about x, how its numbers hang together, how each strays from the prior.

    E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j)) (Chen et al. 2018, eq. 2),
    estimated at one draw z for each x. The three add up to the mean of log q(z|x) - log p(z) exactly, whatever the
    weights, since each density that one term adds the next one takes away.

    Args:
        z: (B, d) draws, z[i] from q(z | x[i]).
        mean: (B, d) means of q(z | x).
        logvar: (B, d) log-variances of q(z | x).
        num_samples: N, size of the data set from which the batch is drawn without replacement; at least B.

    Returns:
        Mutual information, total correlation and dimension-wise KL: scalars in nats. Estimates may be negative.

    Raises:
        ValueError: If the batch has one sample only, or is larger than the data set.
    """
    log_weight = stratified_log_weights(len(z), num_samples).to(z)
    difference = z[:, None] - mean[None]  # (B, B, d): z[i] under q(z | x[j])
    log_q = -0.5 * (difference.square() * torch.exp(-logvar)[None] + logvar[None] + LOG_2PI)
    log_q_z_given_x = log_q.diagonal().sum(0)  # (B,)
    log_q_z = torch.logsumexp(log_weight + log_q.sum(2), dim=1)
    log_product = torch.logsumexp(log_weight[..., None] + log_q, dim=1).sum(1)
    log_p_z = -0.5 * (z.square() + LOG_2PI).sum(1)
    return (
        (log_q_z_given_x - log_q_z).mean(),
        (log_q_z - log_product).mean(),
        (log_product - log_p_z).mean(),
    )


def stratified_log_weights(batch_size: int, num_samples: int) -> Tensor:
    """Logarithms of minibatch stratified sampling's weights (Chen et al. 2018, appendix C.2).

    w[i, j] is that of q(z[i] | x[j]) in an estimate of q(z[i]) = sum_n q(z[i] | x[n]) / N. z[i] comes from x[i], which
    therefore has a stratum of its own, with weight 1 / N; the others of the batch stand for the N - 1 other samples.
    So the estimate is unbiased, where equal weights 1 / B see x[i] too often. Chen et al. let one of the others carry
    another weight; here all have their mean, (N - 1) / (N (B - 1)), which has the same expectation and less variance,
    and is exact when the batch is the data set.

    Returns:
        (B, B) float64; each row of weights sums to 1.

    Raises:
        ValueError: If the batch has one sample only, or is larger than the data set.
    """
    if not 2 <= batch_size <= num_samples:
        raise ValueError(f"batch_size must lie between 2 and the {num_samples} samples of the data, not {batch_size}")
    other = math.log((num_samples - 1) / num_samples / (batch_size - 1))
    weights = torch.full((batch_size, batch_size), other, dtype=torch.float64)
    return weights.fill_diagonal_(-math.log(num_samples))
