"""Noise levels of any scheduler, and what a network's output says about x_0. A part of pipelines' files (see
`hf_genzoo.hub.inline`)."""

import inspect
from typing import Any

import torch
from torch import Tensor


def signal_and_noise(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """a and s of the network's input x_t = a x_0 + s eps at one timestep, a^2 + s^2 = 1.

    Some schedulers stop between two timesteps; they interpolate s / a there, and so does this.

    Raises:
        ValueError: If the scheduler has no `alphas_cumprod`.
    """
    abar = getattr(scheduler, "alphas_cumprod", None)
    if abar is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no alphas_cumprod; use DDIM, DDPM, DPMSolverMultistep, Euler"
        )
    sigmas = ((1.0 - abar.double()) / abar.double()).sqrt()
    place = t.double().cpu()
    below = int(place)
    sigma = torch.lerp(sigmas[below], sigmas[min(below + 1, len(sigmas) - 1)], place.frac())
    a = (1.0 + sigma**2).rsqrt()
    return a, sigma * a


def to_sample(output: Tensor, x_t: Tensor, a: Tensor, s: Tensor, prediction_type: str) -> Tensor:
    """x_0 from an output of the network at x_t, of the shape of both.

    Raises:
        ValueError: If the prediction type is unknown.
    """
    if prediction_type == "epsilon":
        return (x_t - s * output) / a
    if prediction_type == "v_prediction":  # v = a eps - s x_0: Salimans & Ho 2022
        return a * x_t - s * output
    if prediction_type == "sample":
        return output
    raise ValueError(f"unknown prediction_type {prediction_type!r}; choose epsilon, v_prediction or sample")


def from_sample(x_0: Tensor, x_t: Tensor, a: Tensor, s: Tensor, prediction_type: str) -> Tensor:
    """The output of a network that predicts this x_0 at x_t: the inverse of `to_sample`."""
    if prediction_type == "epsilon":
        return (x_t - a * x_0) / s
    if prediction_type == "v_prediction":
        return (a * x_t - x_0) / s
    return x_0


def guided(uncond: Tensor, cond: Tensor, scale: float, channels: int) -> Tensor:
    """Classifier-free guidance, (1 - scale) uncond + scale cond, of the mean alone.

    Args:
        uncond: (B, C or 2C, H, W), the network's output without the caption.
        cond: The same with it.
        scale: 1 is none.
        channels: C. What follows says the variance, and stays that of the conditional output (Nichol et al. 2021).
    """
    mean = uncond[:, :channels] + scale * (cond[:, :channels] - uncond[:, :channels])
    return torch.cat([mean, cond[:, channels:]], dim=1)


def takes_variance(scheduler: Any) -> bool:
    """Whether a scheduler wants the learned variance in the network's output, and is set to."""
    known = "variance_type" in inspect.signature(type(scheduler).__init__).parameters
    return known and str(scheduler.config.get("variance_type")).startswith("learned")
