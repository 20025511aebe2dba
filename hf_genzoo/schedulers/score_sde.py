"""Diffusions in continuous time, VE, VP and sub-VP, and their samplers in reverse time.

Papers
- Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, "Score-Based Generative Modeling through Stochastic
  Differential Equations".

x_t = a(t) x_0 + s(t) eps at t in [0, 1]. What the network predicts is turned into eps, and the score is -eps / s: the
paper's scaling of the network by 1 / std.

What differs from the paper and why
- A step of the reverse diffusion and of the ancestral sampler uses the SDE's exact transition between two times, which
  is linear and Gaussian. For VP that is the paper's beta_i up to its own discretisation error, and sub-VP and any
  number of steps need no formulas of their own.
- The grid runs from 1 to the final time in N steps; the paper's code takes its N-th step beyond the final time.
- The network is given x_t / sqrt(a^2 + s^2), so that it need not learn to read inputs of size 50 (VE); for VP that is
  x_t itself.
- The network may predict the velocity in place of eps (Salimans & Ho 2022, appendix D). Near time 1 the noise is
  nearly all of x_t, and a network that has to give it back errs by more than the data's part in it: the ODE, which
  unlike the SDE never forgets an early error, then leads some samples astray.

This file is published beside the weights: it imports torch and diffusers only.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

SDES = ("vp", "sub_vp", "ve")
PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral")
PREDICTIONS = ("epsilon", "v_prediction")

Generators = torch.Generator | list[torch.Generator] | None


def vp_marginal(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> tuple[Tensor, Tensor]:
    """a and s of the variance-preserving SDE at t in [0, 1] (Song et al. 2021, eq. 33)."""
    log_a = -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min
    return log_a.exp(), (-torch.expm1(2.0 * log_a)).sqrt()


def sub_vp_marginal(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> tuple[Tensor, Tensor]:
    """a and s of the sub-VP SDE at t in [0, 1] (Song et al. 2021, eq. 29): a as in VP, s the square of its s."""
    a, s = vp_marginal(t, beta_min, beta_max)
    return a, s**2


def ve_marginal(t: Tensor, sigma_min: float = 0.01, sigma_max: float = 50.0) -> tuple[Tensor, Tensor]:
    """a = 1 and s of the variance-exploding SDE at t in [0, 1] (Song et al. 2021, eq. 31 without its -sigma_min^2)."""
    return torch.ones_like(t), sigma_min * (sigma_max / sigma_min) ** t


@dataclass
class ScoreSdeOutput(BaseOutput):
    """Outcome of a step.

    Attributes:
        prev_sample: (B, ...) sample at the next, smaller time (of a corrector: at the same time).
        prev_sample_mean: The same before its noise was added.
    """

    prev_sample: Tensor
    prev_sample_mean: Tensor


class ScoreSdeScheduler(SchedulerMixin, ConfigMixin):
    """One of the three SDEs, and steps of its samplers.

    Args:
        sde: "vp", "sub_vp" or "ve".
        beta_min: beta(0) of VP and sub-VP.
        beta_max: beta(1).
        sigma_min: Noise level of VE at time 0, for data of about unit size.
        sigma_max: Noise level of VE at time 1; about the largest distance between two samples of the data.
        final_time: Where samplers stop; None is the paper's 1e-3 for VP and sub-VP, 1e-5 for VE.
        predictor: What samples are drawn by unless a call says otherwise: "reverse_diffusion", "euler_maruyama",
            "ancestral", or "ode", the probability-flow ODE, which the pipeline solves.
        corrector_steps: Langevin steps before each step of the predictor.
        snr: Signal-to-noise ratio r that sets the size of a Langevin step.
        prediction_type: What the network predicts: "epsilon", or "v_prediction".

    Raises:
        ValueError: If a value is out of range.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        sde: str = "vp",
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        final_time: float | None = None,
        predictor: str = "reverse_diffusion",
        corrector_steps: int = 0,
        snr: float = 0.16,
        prediction_type: str = "epsilon",
    ):
        for name, value, choices in (
            ("sde", sde, SDES),
            ("predictor", predictor, (*PREDICTORS, "ode")),
            ("prediction_type", prediction_type, PREDICTIONS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
        for low, high in (("beta_min", "beta_max"), ("sigma_min", "sigma_max")):
            if not 0 < self.config[low] < self.config[high]:
                raise ValueError(f"{low} {self.config[low]} and {high} {self.config[high]}: need 0 < {low} < {high}")
        if corrector_steps < 0 or snr <= 0:
            raise ValueError(f"corrector_steps is {corrector_steps} and snr {snr}: need 0 or more, and above 0")
        self.stop = final_time if final_time is not None else (1e-5 if sde == "ve" else 1e-3)
        if not 0 < self.stop < 1:
            raise ValueError(f"final_time must lie between 0 and 1, not {final_time}")
        self.timesteps = torch.empty(0, dtype=torch.float64)

    # The SDE ---------------------------------------------------------------------------------------------------------

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the prior, N(0, I) for VP and sub-VP and N(0, sigma_max^2 I) for VE."""
        return self.config["sigma_max"] if self.config["sde"] == "ve" else 1.0

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and s of x_t = a x_0 + s eps at times t in [0, 1], each of t's shape."""
        config = self.config
        if config["sde"] == "ve":
            return ve_marginal(t, config["sigma_min"], config["sigma_max"])
        law = vp_marginal if config["sde"] == "vp" else sub_vp_marginal
        return law(t, config["beta_min"], config["beta_max"])

    def squared_diffusion(self, t: Tensor) -> Tensor:
        """g(t)^2 (Song et al. 2021, eq. 9, 11 and 12 and appendix C)."""
        if self.config["sde"] == "ve":
            ratio = self.config["sigma_max"] / self.config["sigma_min"]
            return 2.0 * math.log(ratio) * self.marginal(t)[1] ** 2
        beta = self._beta(t)
        if self.config["sde"] == "vp":
            return beta
        log_a = self.marginal(t)[0].log()
        return -beta * torch.expm1(4.0 * log_a)

    def drift(self, sample: Tensor, t: Tensor) -> Tensor:
        """f(x, t) at samples (B, ...) and times, one number or (B,): -beta x / 2, and 0 for VE."""
        if self.config["sde"] == "ve":
            return torch.zeros_like(sample)
        return _per_sample(-0.5 * self._beta(t), sample) * sample

    def log_snr(self, t: Tensor) -> Tensor:
        """ln SNR = 2 ln(a / s), falling in t; its slope is -g^2 / s^2 for each of the SDEs."""
        a, s = self.marginal(t)
        return 2.0 * (a.log() - s.log())

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which ln SNR has a value: the inverse of `log_snr`."""
        config = self.config
        if config["sde"] == "ve":
            ratio = config["sigma_max"] / config["sigma_min"]
            return (-0.5 * log_snr - math.log(config["sigma_min"])) / math.log(ratio)
        # SNR is 1 / (e^B - 1) for VP, 1 / (2 sinh(B / 2))^2 for sub-VP, B the integral of beta from 0 to t.
        integral = (
            F.softplus(-log_snr) if config["sde"] == "vp" else 2.0 * torch.asinh(0.5 * torch.exp(-0.5 * log_snr))
        )
        low, slope = config["beta_min"], config["beta_max"] - config["beta_min"]
        return 2.0 * integral / (low + torch.sqrt(low**2 + 2.0 * slope * integral))

    def _beta(self, t: Tensor) -> Tensor:
        return self.config["beta_min"] + t * (self.config["beta_max"] - self.config["beta_min"])

    # What the network is given, and what it says ---------------------------------------------------------------------

    def time_input(self, t: Tensor) -> Tensor:
        """What the network is told of times: 999 t, and ln sigma for VE (Song et al. 2021, appendix C)."""
        return self.marginal(t)[1].log() if self.config["sde"] == "ve" else 999.0 * t

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """x_t / sqrt(a^2 + s^2) of samples (B, ...) at a time or times (B,)."""
        a, s = self.marginal(timestep)
        return sample / _per_sample((a**2 + s**2).sqrt(), sample)

    def noise(self, model_output: Tensor, timestep: Tensor, given: Tensor) -> Tensor:
        """eps from what the network said of its input `given` (B, ...) at times (B,).

        Of given = a' x_0 + s' eps the velocity is a' eps - s' x_0, and a'^2 + s'^2 = 1.
        """
        if self.config["prediction_type"] == "epsilon":
            return model_output
        a, s = (_per_sample(values, given) for values in self.marginal(timestep))
        return (s * given + a * model_output) / (a**2 + s**2).sqrt()

    def score(self, eps: Tensor, timestep: Tensor) -> Tensor:
        """-eps / s of the noise eps (B, ...) at a time or times (B,)."""
        return -eps / _per_sample(self.marginal(timestep)[1], eps)

    def velocity(self, eps: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
        """dx/dt of the probability-flow ODE, f - g^2 score / 2, from the noise eps (Song et al. 2021, eq. 13)."""
        weight = _per_sample(0.5 * self.squared_diffusion(timestep), sample)
        return self.drift(sample, timestep) - weight * self.score(eps, timestep)

    # Samplers --------------------------------------------------------------------------------------------------------

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose N times, evenly spaced, from each of which a step leads to the next and at last to the final time."""
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, not {num_inference_steps}")
        grid = torch.linspace(1.0, self.stop, num_inference_steps + 1, dtype=torch.float64)
        # Not every device has float64.
        self._grid = grid.to(device, torch.float32 if torch.device(device or "cpu").type == "mps" else torch.float64)
        self.timesteps = self._grid[:-1]

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        generator: Generators = None,
        predictor: str | None = None,
        return_dict: bool = True,
    ) -> ScoreSdeOutput | tuple:
        """One step of a predictor towards the data.

        Args:
            model_output: (B, ...) eps at `sample`, as `noise` makes it of what the network says.
            timestep: One of `timesteps`.
            sample: (B, ...) x_t.
            generator: Source of randomness.
            predictor: One of `PREDICTORS`; None is the configured one.
            return_dict: Return a `ScoreSdeOutput` rather than a tuple.
        """
        predictor = predictor or self.config["predictor"]
        if predictor not in PREDICTORS:
            raise ValueError(f"{predictor!r} makes no random steps; choose one of {', '.join(PREDICTORS)}")
        t, u = timestep, self.next_timestep(timestep)
        score = self.score(model_output, t)
        if predictor == "euler_maruyama":  # appendix D
            squared = self.squared_diffusion(t)
            mean = sample - (t - u) * (self.drift(sample, t) - squared * score)
            std = (squared * (t - u)).sqrt()
        else:
            ratio, variance = self._transition(u, t)
            if predictor == "reverse_diffusion":  # eq. 46
                mean, std = (2.0 - ratio) * sample + variance * score, variance.sqrt()
            else:  # eq. 47 for VE, eq. 4 for VP: the mean and variance of q(x_u | x_t, x_0) at x_0 as it is denoised
                mean = (sample + variance * score) / ratio
                std = self.marginal(u)[1] / self.marginal(t)[1] * variance.sqrt()
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        output = ScoreSdeOutput(prev_sample=mean + std * noise, prev_sample_mean=mean)
        return output if return_dict else output.to_tuple()

    def correct(self, eps: Tensor, timestep: Tensor, sample: Tensor, generator: Generators = None) -> ScoreSdeOutput:
        """One Langevin step, by the noise eps, at a time that stays as it is (Song et al. 2021, algorithms 4 and 5).

        Norms are means over the batch, as in the paper: with a corrector, samples depend on their batch.
        """
        score = self.score(eps, timestep)
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        ratio = noise.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        alpha = self._transition(self.next_timestep(timestep), timestep)[0] ** 2  # 1 - beta_i of VP, 1 for VE
        size = 2.0 * alpha * (self.config["snr"] * ratio) ** 2
        mean = sample + size * score
        return ScoreSdeOutput(prev_sample=mean + (2.0 * size).sqrt() * noise, prev_sample_mean=mean)

    def next_timestep(self, timestep: Tensor) -> Tensor:
        """The smaller time that a step from one of the timesteps leads to."""
        found = (self.timesteps == timestep).nonzero()
        if len(found) != 1:
            raise ValueError(f"time {float(timestep)} is none of the timesteps; call set_timesteps first")
        return self._grid[found[0, 0] + 1]

    def _transition(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """A and B^2 of x_t = A x_u + B z for u < t: the SDE's law from one time to a later one."""
        (a_u, s_u), (a_t, s_t) = self.marginal(u), self.marginal(t)
        ratio = a_t / a_u
        return ratio, s_t**2 - ratio**2 * s_u**2


def _per_sample(values: Tensor, sample: Tensor) -> Tensor:
    """One number, or one for each sample (B,), of a shape and type that multiplies samples (B, ...)."""
    return values.to(sample.dtype).reshape(-1, *(1,) * (sample.ndim - 1)) if values.ndim else values.to(sample.dtype)
