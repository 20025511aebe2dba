"""Train an improved DDPM (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672): a diffusion that also learns how
much noise each step back should add.

The network of `ddpm` gets as many channels again, whose output interpolates the variance between its two bounds. They
are taught by the variational bound, the mean by the squared error as before: L_hybrid = L_simple + lambda L_vlb, where
the gradient of L_vlb stops before the mean. With the learned variance few steps suffice, and the bound, which
`pipeline.log_likelihood` gives in bits per dimension, is tighter. `--objective vlb` trains everything by the bound
alone, for which `--timestep_sampling importance` was made.

Differs from the paper: the predicted x_0 is cut to [-1, 1] in the hybrid's bound, as in sampling, so that the variance
that is learnt is the one that sampling needs; any prediction type; classes. Both terms are means over pixels, L_vlb
the sum over T of means in bits, as in the paper. `--variance_weighting interval` teaches the variance where the
gradient of the bound is a millionth of what it is at the weakest noise, and a short training would never come to it.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from hf_genzoo.data import image_dataset
from hf_genzoo.diffusion import low_discrepancy_uniform, training_target, uniform_timesteps
from hf_genzoo.pipelines._variational import at, chain_of
from hf_genzoo.training.args import flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts import train_ddpm
from hf_genzoo.training_scripts.train_ddpm import (
    SAMPLERS,
    DiffusionArgs,
    build,
    export,
    hide_labels,
    noise_schedule,
    preview,
    sampling_options,
)
from hf_genzoo.variational import ImportanceSampler, interval_width, scale_gradient, variational_term


@dataclass
class Args(DiffusionArgs):
    family: ClassVar[str] = "iddpm"

    learning_rate: float = flag(1e-4, "Peak learning rate.")
    lr_warmup_steps: int = flag(0, "Optimiser steps of linear warm-up, whatever the number of processes.")
    ddpm_num_steps: int = flag(4000, "Noise levels T of the diffusion process.")
    ddpm_beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = flag(
        "squaredcos_cap_v2", "How noise grows with t: cosine (squaredcos_cap_v2, paper), linear, or scaled_linear."
    )
    objective: Literal["hybrid", "vlb"] = flag("hybrid", "What is minimised: L_hybrid, or the bound alone.")
    lambda_vlb: float = flag(1e-3, "Weight of the bound, a sum over all T levels, in L_hybrid.")
    variance_weighting: Literal["bound", "interval"] = flag(
        "bound",
        "How much each noise level teaches the variance in L_hybrid: as in the bound (paper), where the weakest noise "
        "teaches nearly all, or alike, each level's gradient over the squared interval of the variance's logarithm.",
    )
    timestep_sampling: Literal["uniform", "stratified", "importance"] = flag(
        "uniform",
        "How t is drawn: uniform (paper, for hybrid), one from each of B equal parts of the axis, or where the loss "
        "was large, with weights that undo it (paper, for vlb).",
    )
    sampler: Literal["ddpm", "ddim", "dpmsolver++"] = flag(
        "ddpm", "Sampler of the sample grids; only ddpm uses the learned variance."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_vlb < 0:
            raise ValueError(f"--lambda_vlb is {self.lambda_vlb}: it must be 0 or more")
        if self.ddpm_num_steps < 2:
            raise ValueError(f"--ddpm_num_steps is {self.ddpm_num_steps}: the bound needs at least 2 noise levels")


_OF_DDPM = ("timestep_sampling", "noise_mean", "noise_std")
TINY: dict[str, Any] = {**train_ddpm.TINY}
SMALL: dict[str, Any] = {name: value for name, value in train_ddpm.SMALL.items() if name not in _OF_DDPM} | {
    "ddpm_num_steps": 1000,
    "timestep_sampling": "stratified",
    "variance_weighting": "interval",
    "ddpm_num_inference_steps": 25,
}
PRESETS = {"tiny": TINY, "small": SMALL}


def reverse_process(args: Args) -> DDPMScheduler:
    """The chain of the paper: a learned variance, and grids from the last noise level to the first.

    A grid that ends above t = 0 would not do: DDPMScheduler then adds noise after its last step.
    """
    config = noise_schedule(args).config
    return DDPMScheduler(**{**config, "variance_type": "learned_range", "timestep_spacing": "linspace"})


def draw_timesteps(count: int, args: Args, importance: ImportanceSampler, device: torch.device) -> tuple[Tensor, Any]:
    """Noise levels (B,) int64 of one micro-batch, by --timestep_sampling, and the weights of their losses."""
    if args.timestep_sampling == "importance":
        return importance.draw(count, device)
    if args.timestep_sampling == "stratified":
        return uniform_timesteps(low_discrepancy_uniform(count, device), args.ddpm_num_steps), 1.0
    return torch.randint(args.ddpm_num_steps, (count,), device=device), 1.0


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    nets = build(args, data.num_classes, learned_variance=True)
    scheduler = reverse_process(args)
    T, importance = args.ddpm_num_steps, ImportanceSampler(args.ddpm_num_steps)
    run = Run(
        args,
        nets=nets,
        optimizers={"unet": adam(nets["unet"], args)},
        ema=["unet"],
        data=data,
        export=partial(export, scheduler=scheduler, class_names=data.class_names),
        preview=partial(preview, args=args, sampler=args.sampler),
        sampling={"scheduler": SAMPLERS[args.sampler].__name__, **sampling_options(args, data.num_classes)},
        states={"importance": importance},
    )
    unet = run.nets["unet"]
    chain = chain_of(scheduler.betas.to(run.device))
    level_weight = interval_width(chain) ** (-2 if args.variance_weighting == "interval" else 0)

    for _ in run.steps():
        for batch in run.update("unet"):
            x_0 = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            noise = torch.randn_like(x_0)
            t, weight = draw_timesteps(len(x_0), args, importance, run.device)
            x_t = scheduler.add_noise(x_0, noise, t)  # pyright: ignore[reportArgumentType]
            y = hide_labels(batch.get("class_labels"), data.num_classes, args.conditioning_dropout_prob)
            output, v = unet(x_t, t, class_labels=y).sample.float().chunk(2, dim=1)  # eq. 15
            target = training_target(scheduler, x_0, noise, t, args.prediction_type)
            simple = (output - target).square().mean(dim=(1, 2, 3))
            if args.objective == "hybrid":
                v = scale_gradient(v, at(level_weight, t, v))
                bound = T * variational_term(output.detach(), v, x_0, x_t, t, chain, args.prediction_type, clip=1.0)
                loss = simple + args.lambda_vlb * bound  # eq. 16
            else:
                loss = bound = T * variational_term(output, v, x_0, x_t, t, chain, args.prediction_type)  # eq. 4
            if args.timestep_sampling == "importance":
                importance.update(t, loss)  # eq. 14
            run.backward((weight * loss).mean(), simple=(weight * simple).mean(), bound=(weight * bound).mean())
    return run.output_dir


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
