"""Deterministic samplers on a mixture whose denoiser is exact: each closes in on the solution of the ODE at its order.

The ODE is d(x / a) = eps d(s / a) (Song, Meng & Ermon 2021, eq. 14), from the noisiest level of the schedule down to a
level that all grids have. Halving the steps divides the error by two for methods of order 1, by four for order 2.
"""

import math
from functools import cache
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from oracle import GaussianMixture
from torch import Tensor

from hf_genzoo.demo.samplers import CANDIDATES
from hf_genzoo.schedulers.implicit import ImplicitDiffusionScheduler
from hf_genzoo.training_scripts.train_ddpm import SAMPLERS

LEVELS = 6400  # the grids below divide it, so that their steps are equally long in t
STEPS = (40, 80, 160)
ORDERS = {DDIMScheduler: 1, ImplicitDiffusionScheduler: 1, EulerDiscreteScheduler: 1, DPMSolverMultistepScheduler: 2}
STOP = LEVELS // STEPS[0] - 1
SETTINGS: dict[str, Any] = {
    "num_train_timesteps": LEVELS,
    "beta_start": 0.1 / LEVELS,
    "beta_end": 20.0 / LEVELS,
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}
MIXTURE = GaussianMixture.ring(modes=5, std=0.3)
ABAR = DDPMScheduler(**SETTINGS).alphas_cumprod.double()


def start() -> Tensor:
    return torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def sampled(cls: type, steps: int, prediction_type: str) -> Tensor:
    """x at level STOP, by a scheduler and the exact denoiser."""
    scheduler = cls.from_config(DDPMScheduler(**SETTINGS, prediction_type=prediction_type).config)
    scheduler.set_timesteps(steps)
    x = None
    for t in scheduler.timesteps:
        scale = scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t)  # some work in x / a
        x = start() / scale if x is None else x
        if t == STOP:
            return x * scale
        a, s = ABAR[int(t)].sqrt(), (1 - ABAR[int(t)]).sqrt()
        eps = MIXTURE.epsilon(x * scale, a, s)
        x_0 = (x * scale - s * eps) / a
        output = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0}[prediction_type]
        x = scheduler.step(output, t, x).prev_sample
    raise AssertionError(f"{cls.__name__} does not stop at {STOP}")


@cache
def solution() -> Tensor:
    """The same by Runge-Kutta of order 4 in ln(s / a), in steps far smaller than those of any grid."""
    first, last = ((1 - ABAR[level]).sqrt() / ABAR[level].sqrt() for level in (LEVELS - 1, STOP))
    step = math.log(last / first) / 1500

    def slope(z: Tensor, ratio: float) -> Tensor:
        a = 1 / math.sqrt(1 + ratio**2)
        return ratio * MIXTURE.epsilon(a * z, a, a * ratio)

    z, log_ratio = start() / ABAR[-1].sqrt(), math.log(first)
    for _ in range(1500):
        r0, r1, r2 = (math.exp(log_ratio + share * step) for share in (0.0, 0.5, 1.0))
        k1 = slope(z, r0)
        k2 = slope(z + 0.5 * step * k1, r1)
        k3 = slope(z + 0.5 * step * k2, r1)
        k4 = slope(z + step * k3, r2)
        z, log_ratio = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), log_ratio + step
    return z * ABAR[STOP].sqrt()


def test_every_deterministic_sampler_on_offer_is_tested() -> None:
    offered = {*SAMPLERS.values(), *(getattr(diffusers, name) for name in CANDIDATES.values())}
    assert offered - {DDPMScheduler} <= ORDERS.keys()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cls", ORDERS, ids=lambda cls: cls.__name__)
def test_error_falls_at_the_order(cls: type, prediction_type: str) -> None:
    errors = [(sampled(cls, steps, prediction_type) - solution()).square().mean().sqrt().item() for steps in STEPS]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    print(cls.__name__, prediction_type, [f"{e:.2e}" for e in errors], [f"{o:.2f}" for o in orders])
    assert orders[-1] == pytest.approx(ORDERS[cls], abs=0.2)
