"""What diffusers' schedulers do not hold: the noise axis that all diffusions share, timestep samplers, targets and
loss weights. Pure functions.

One notation: x_t = a x_0 + s eps, with x_0 the data and eps ~ N(0, I). s / a is the noise-to-signal ratio, its inverse
squared the SNR, and ln SNR the axis on which all diffusions agree. For schedulers with discrete timesteps a^2 = abar =
`alphas_cumprod` and s^2 = 1 - abar (Ho et al. 2020, eq. 4).

Papers
- Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations": VP, sub-VP and VE.
- Lipman et al. 2023, "Flow Matching for Generative Modeling": the straight path.
- Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models": v prediction.
- Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy".
- Kingma et al. 2021, "Variational Diffusion Models": low-discrepancy sampling of the time.
- Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement": continuous noise levels.
- Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models": log-normal noise levels.

What differs from the papers and why: Karras et al. draw a continuous noise level; here the same law is put on the
discrete timesteps of a scheduler, each with the mass of its cell, so that stock networks and schedulers stay in use.
"""

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

# Written in the scheduler's file, which is published and so cannot import them from here.
from hf_genzoo.schedulers.score_sde import sub_vp_marginal as sub_vp_marginal
from hf_genzoo.schedulers.score_sde import ve_marginal as ve_marginal
from hf_genzoo.schedulers.score_sde import vp_marginal as vp_marginal

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
QUANTITIES = (*PREDICTION_TYPES, "score", "flow")
"""What a network may predict, or a sampler need, at x_t: each is linear in x_0 and x_t (`convert`)."""


def flow_marginal(t: Tensor) -> tuple[Tensor, Tensor]:
    """a and s of the straight path from data (t = 0) to noise (t = 1) (Lipman et al. 2023, with time reversed)."""
    return 1.0 - t, t


def log_snr(a: Tensor, s: Tensor) -> Tensor:
    """ln SNR = 2 ln(a / s)."""
    return 2.0 * (a.log() - s.log())


def convert(value: Tensor, x_t: Tensor, a: Tensor, s: Tensor, source: str, target: str) -> Tensor:
    """Turn what is known of x_0 at x_t = a x_0 + s eps from one quantity into another.

    epsilon is eps; sample is x_0; v_prediction is a eps - s x_0 (Salimans & Ho 2022; for a^2 + s^2 = 1); score is
    -eps / s, the gradient of the log-density of x_t, if eps is its posterior mean; flow is eps - x_0 (Lipman et al.).

    Args:
        value: (B, ...) what is known.
        x_t: (B, ...).
        a: Scale of the data, of a shape that broadcasts against x_t.
        s: Scale of the noise, likewise.
        source: What `value` is, one of `QUANTITIES`.
        target: What to return.

    Raises:
        ValueError: If source or target is unknown.
    """
    for quantity in (source, target):
        if quantity not in QUANTITIES:
            raise ValueError(f"unknown quantity {quantity!r}; choose one of {', '.join(QUANTITIES)}")
    if source == target:
        return value
    if source == "epsilon":
        eps, x_0 = value, (x_t - s * value) / a
    elif source == "score":
        eps, x_0 = -s * value, (x_t + s**2 * value) / a  # Tweedie's formula
    elif source == "sample":
        eps, x_0 = (x_t - a * value) / s, value
    elif source == "v_prediction":
        power = a**2 + s**2
        eps, x_0 = (s * x_t + a * value) / power, (a * x_t - s * value) / power
    else:
        eps, x_0 = (x_t + a * value) / (a + s), (x_t - s * value) / (a + s)
    if target == "epsilon":
        return eps
    if target == "score":
        return -eps / s
    if target == "sample":
        return x_0
    return a * eps - s * x_0 if target == "v_prediction" else eps - x_0


def training_target(scheduler: SchedulerMixin, x_0: Tensor, noise: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """What the network is to predict at x_t: the noise, v, or x_0.

    Args:
        scheduler: Scheduler with `get_velocity` (sqrt(abar) eps - sqrt(1 - abar) x_0; Salimans & Ho 2022, appendix D).
        x_0: (B, ...) data.
        noise: (B, ...) the eps that made x_t.
        t: (B,) integer timesteps.
        prediction_type: "epsilon", "v_prediction" or "sample".

    Raises:
        ValueError: If the prediction type is unknown.
    """
    _check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x_0
    return scheduler.get_velocity(x_0, noise, t)  # type: ignore[attr-defined]


def min_snr_weight(alphas_cumprod: Tensor, t: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Weight of the squared error at each timestep (Hang et al. 2023).

    The weight is min(SNR, gamma) on the error of x_0. An error of eps is sqrt(SNR) times as large as that of x_0 and
    an error of v sqrt(SNR + 1) times, so the same objective has weight min(SNR, gamma) / SNR on eps and
    min(SNR, gamma) / (SNR + 1) on v.

    Args:
        alphas_cumprod: (T,) abar of the scheduler.
        t: (B,) integer timesteps.
        gamma: Where the weight stops growing; the paper's value is 5.
        prediction_type: "epsilon", "v_prediction" or "sample".

    Returns:
        (B,) weights. At SNR 0 the weight of an eps error is its limit, 1.

    Raises:
        ValueError: If gamma is not positive or the prediction type is unknown.
    """
    _check_prediction_type(prediction_type)
    if gamma <= 0:
        raise ValueError(f"gamma must be positive, not {gamma}; leave the weight out to train without it")
    abar = alphas_cumprod.to(t.device)[t]
    snr = abar / (1.0 - abar)
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    if prediction_type == "sample":
        return snr.clamp(max=gamma)
    return snr.clamp(max=gamma) / (snr + 1.0)


def low_discrepancy_uniform(
    n: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """n draws from U[0, 1), one in each interval of length 1/n (Kingma et al. 2021, appendix I.1).

    Each is uniform by itself; together they cover the times evenly, which takes the variance of the loss between
    batches away. All share one random shift, and they come in random order, so that sorted data would do no harm.

    Returns:
        (n,) float64: exact sums of many small masses are compared with it.
    """
    shift = torch.rand((), device=device, dtype=torch.float64, generator=generator)
    order = torch.randperm(n, device=device, generator=generator)
    return (order + shift) / n


def uniform_timesteps(u: Tensor, num_train_timesteps: int) -> Tensor:
    """Uniform timesteps (B,) int64 from uniform numbers u (B,) in [0, 1)."""
    return (u * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def piecewise_uniform_gamma(u: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """gamma = a^2 of each sample: t uniform, gamma ~ U(abar_t, abar_{t-1}) (Saharia et al. 2021, section 2.4).

    A network that is told sqrt(gamma), and not t, can then be sampled by any schedule.

    Args:
        u: (B,) uniform numbers in [0, 1): the whole part of u T is t - 1, the rest the place between the two levels.
        alphas_cumprod: (T,) abar_1 to abar_T of the scheduler; abar_0 is 1.

    Returns:
        (B,) float64 in [abar_T, 1].
    """
    levels = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod]).double().to(u.device)
    place = u.double() * len(alphas_cumprod)
    before = place.long().clamp(max=len(alphas_cumprod) - 1)
    return torch.lerp(levels[before], levels[before + 1], place - before)


def lognormal_timesteps(u: Tensor, alphas_cumprod: Tensor, mean: float, std: float) -> Tensor:
    """Timesteps whose noise-to-signal ratio is log-normal: ln sigma_t ~ N(mean, std^2) (Karras et al. 2022, table 1).

    In the time tau of flow matching, sigma = tau / (1 - tau), the same law is called logit-normal. It is itself a
    weighting of the noise levels: do not stack min-SNR weights on top.

    Args:
        u: (B,) uniform numbers in [0, 1).
        alphas_cumprod: (T,) abar of the scheduler, decreasing and positive.
        mean: Mean of ln sigma; -1.2 in the paper.
        std: Standard deviation of ln sigma; 1.2 in the paper.

    Returns:
        (B,) int64 timesteps.

    Raises:
        ValueError: If std is not positive, or the schedule ends at SNR 0, where sigma is infinite.
    """
    if std <= 0:
        raise ValueError(f"std must be positive, not {std}")
    cumulative = lognormal_timestep_probabilities(alphas_cumprod, mean, std).cumsum(0).to(u.device)
    return torch.searchsorted(cumulative, u.double(), right=True).clamp(max=len(cumulative) - 1)


def lognormal_timestep_probabilities(alphas_cumprod: Tensor, mean: float, std: float) -> Tensor:
    """Probability of each timestep under `lognormal_timesteps`, (T,) float64: the normal's mass of its cell.

    Cells meet halfway between neighbouring ln sigma; mass outside the schedule's range is spread over the rest.
    """
    abar = alphas_cumprod.double()
    if abar[-1] <= 0:
        raise ValueError(
            "alphas_cumprod ends at 0 (zero terminal SNR), where sigma is infinite; use uniform timesteps"
        )
    log_sigma = 0.5 * (torch.log1p(-abar) - torch.log(abar))
    middles = 0.5 * (log_sigma[1:] + log_sigma[:-1])
    first, last = 2 * log_sigma[:1] - middles[:1], 2 * log_sigma[-1:] - middles[-1:]
    edges = torch.cat([first, middles, last])
    mass = torch.special.ndtr((edges - mean) / std).diff()
    return mass / mass.sum()


def _check_prediction_type(prediction_type: str) -> None:
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"unknown prediction_type {prediction_type!r}; choose one of {', '.join(PREDICTION_TYPES)}")
