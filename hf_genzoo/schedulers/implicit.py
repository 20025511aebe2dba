"""The sampler of denoising diffusion implicit models: a family of processes with the same marginals, from one without
noise (DDIM) to that of DDPM, on the grids of the authors' code, and backwards from data to noise.

Paper: Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models" (https://arxiv.org/abs/2010.02502).

With x_t = a_t x_0 + s_t eps, a_t^2 = abar_t = 1 - s_t^2, and r the next lower level of the grid, a step is

    x_r = a_r x_0(x_t) + sqrt(s_r^2 - sigma^2) eps(x_t) + sigma noise,  sigma = eta s_r / s_t sqrt(1 - abar_t / abar_r)

(eqs. 12 and 16). eta = 0 is Euler's method on d(x / a) = eps d(s / a) (eq. 14), which can be followed upwards, too.

What diffusers lacks, so that this file is needed (where both do the same, they agree: tests/test_ddim.py)
- `DDIMScheduler` takes t - T // S for the next timestep, which is not on its own grid where S does not divide T.
- It has no quadratic grid (the paper's for CIFAR-10), nor the larger variance sigma-hat of the paper's tables.
- `DDIMInverseScheduler` evaluates the network at the level a step leads to; the paper's is where the step begins.

Which grid: those of the authors' code, "uniform" and "quadratic", end with a call of the network at t = 0. What noise
was added one step earlier, it takes for part of the picture, so with sigma-hat and few steps of "uniform" samples are
noise ("quadratic" leaves a tenth of it). "trailing" begins at t = T - 1 (nearly pure noise, as the first sample is)
and ends at T / S - 1, from where one step leads to the picture; it is the default. "quadratic" begins at 0.8 T.

This file is published beside the weights: it imports numpy, torch and diffusers only.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

GRIDS = ("trailing", "uniform", "quadratic")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
DATA = -1
"""The level below t = 0, where abar is 1: the picture itself."""


class ImplicitDiffusionScheduler(SchedulerMixin, ConfigMixin):
    """Steps between the noise levels of a DDPM, downwards with any amount of noise and upwards without.

    Args:
        num_train_timesteps: Noise levels T of the training.
        beta_start: First beta of the schedule.
        beta_end: Last beta.
        beta_schedule: As in `DDPMScheduler`: "linear", "scaled_linear", "squaredcos_cap_v2", ...
        trained_betas: The betas themselves, in place of a schedule.
        rescale_betas_zero_snr: As in `DDPMScheduler`; for networks that predict v or x_0.
        prediction_type: What the network predicts: "epsilon", "v_prediction" or "sample".
        timestep_spacing: Grid where `set_timesteps` names none: "trailing", "uniform" or "quadratic".
        clip_sample: Clip x_0(x_t) to [-1, 1] going down, and eps(x_t) to what then fits. Not in the paper, and not
            undone by going up.

    Raises:
        ValueError: If the grid or the prediction type is unknown.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "trailing",
        clip_sample: bool = False,
    ):
        _check("timestep_spacing", timestep_spacing, GRIDS)
        _check("prediction_type", prediction_type, PREDICTIONS)
        self._ddpm = DDPMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,  # type: ignore[arg-type]
            trained_betas=None if trained_betas is None else np.asarray(trained_betas, dtype=np.float32),
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self.alphas_cumprod = self._ddpm.alphas_cumprod
        self.init_noise_sigma = 1.0
        self._stop_at(list(range(num_train_timesteps)), None)

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        timestep_spacing: str | None = None,
    ) -> None:
        """Choose the noise levels to stop at.

        Args:
            num_inference_steps: S, 1 to T.
            device: Where `timesteps` lie.
            timestep_spacing: "trailing": S levels, evenly spaced from T - 1 down. "uniform": range(0, T, T // S), as
                in the authors' code; S levels where S divides T, else more. "quadratic": S squares of evenly spaced
                numbers from 0 to sqrt(0.8 T), rounded down, each once, as in the authors' code. None: the config's.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        count = self.config["num_train_timesteps"]
        if not 1 <= num_inference_steps <= count:
            raise ValueError(f"num_inference_steps must be 1 to {count}, not {num_inference_steps}")
        spacing = self.config["timestep_spacing"] if timestep_spacing is None else timestep_spacing
        _check("timestep_spacing", spacing, GRIDS)
        if spacing == "uniform":
            levels = range(0, count, count // num_inference_steps)
        elif spacing == "quadratic":
            roots = np.linspace(0.0, math.sqrt(0.8 * count), num_inference_steps)
            levels = sorted({int(root**2) for root in roots})
        else:
            levels = [round(count * i / num_inference_steps) - 1 for i in range(1, num_inference_steps + 1)]
        self._stop_at(list(levels), device)
        a = self._a(levels[-1])
        if self.config["prediction_type"] == "epsilon" and not self.config["clip_sample"] and a < 1e-3:
            warnings.warn(
                f"at t = {levels[-1]}, where the {spacing} grid begins, the picture is {a:.1g} of the sample: epsilon"
                " does not tell it from the noise. Use another grid, or a scheduler with clip_sample=True",
                UserWarning,
                stacklevel=2,
            )

    def _stop_at(self, levels: list[int], device: str | torch.device | None) -> None:
        self.num_inference_steps = len(levels)
        self._levels = [DATA, *levels]
        self.timesteps = torch.tensor(levels[::-1], device=device)
        self.ascending_timesteps = torch.tensor([0, *levels[:-1]], device=device)
        """Where the network is asked on the way up: where each step begins, t = 0 for the picture itself."""

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The sample as it is: for pipelines that serve other schedulers too."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t (B, ...) of x_0, eps and t (B,) (Ho et al. 2020, eq. 4)."""
        return self._ddpm.add_noise(original_samples, noise, timesteps)  # type: ignore[arg-type]

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        sigma_hat: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple:
        """From x_t to the next lower level of the grid (eq. 12).

        Args:
            model_output: (B, ...) what the network predicts at x_t.
            timestep: t, one of `timesteps`.
            sample: (B, ...) x_t.
            eta: 0 adds no noise (DDIM), 1 as much as DDPM's posterior has (eq. 16).
            sigma_hat: Add noise of variance 1 - abar_t / abar_r, DDPM's larger choice, around the mean of eta = 1;
                that is not a member of the family (section 5.1). The last step adds none.
            generator: Source of the noise, one for the batch or one for each sample.
            return_dict: Return a `DDIMSchedulerOutput` rather than a tuple.

        Returns:
            `prev_sample`, x_r, and `pred_original_sample`, x_0(x_t).

        Raises:
            ValueError: If the timestep is not on the grid, eta is not in [0, 1], or sigma_hat comes without eta = 1.
        """
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must be 0 (no noise) to 1 (that of DDPM), not {eta}")
        if sigma_hat and eta != 1.0:
            raise ValueError(f"sigma_hat is a variance around the mean of eta 1, not of eta {eta}: pass eta=1.0")
        if int(timestep) not in self._levels[1:]:
            raise ValueError(f"timestep {int(timestep)} is not on the grid: call set_timesteps, and use its timesteps")
        t = int(timestep)
        r = self._levels[self._levels.index(t) - 1]
        x_0, eps = self._split(model_output, sample, t)
        if self.config["clip_sample"]:
            x_0 = x_0.clamp(-1.0, 1.0)
            eps = (sample - self._a(t) * x_0) / self._s(t)
        jump = 1.0 - self._abar(t) / self._abar(r)
        sigma = eta * self._s(r) / self._s(t) * math.sqrt(jump)
        x_r = self._a(r) * x_0 + math.sqrt(max(0.0, self._s(r) ** 2 - sigma**2)) * eps
        if sigma_hat and r != DATA:
            sigma = math.sqrt(jump)
        if sigma > 0.0:
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            x_r = x_r + sigma * noise
        return DDIMSchedulerOutput(prev_sample=x_r, pred_original_sample=x_0) if return_dict else (x_r, x_0)

    def ascend(self, model_output: Tensor, index: int, sample: Tensor) -> Tensor:
        """One step towards noise: the step of eta = 0 the other way (eq. 14, reversed).

        Args:
            model_output: (B, ...) what the network predicts for `sample` at `ascending_timesteps[index]`.
            index: Number of the step, from 0; step 0 begins at the picture.
            sample: (B, ...) at the level where the step begins.

        Returns:
            (B, ...) at the next higher level of the grid.
        """
        here, there = self._levels[index], self._levels[index + 1]
        x_0, eps = self._split(model_output, sample, here)
        return self._a(there) * x_0 + self._s(there) * eps

    def _split(self, model_output: Tensor, sample: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """x_0 and eps of a sample, with sample = a x_0 + s eps.

        At the picture itself the network is asked at t = 0, the lowest level it knows, and only its eps is taken.
        """
        t = max(level, 0)
        a, s, kind = self._a(t), self._s(t), self.config["prediction_type"]
        if kind == "epsilon":
            eps, x_0 = model_output, (sample - s * model_output) / a
        elif kind == "sample":
            eps, x_0 = (sample - a * model_output) / s, model_output
        else:
            eps, x_0 = s * sample + a * model_output, a * sample - s * model_output
        return (sample if level == DATA else x_0), eps

    def _abar(self, level: int) -> float:
        return 1.0 if level == DATA else self.alphas_cumprod[level].item()

    def _a(self, level: int) -> float:
        return math.sqrt(self._abar(level))

    def _s(self, level: int) -> float:
        return math.sqrt(1.0 - self._abar(level))

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
