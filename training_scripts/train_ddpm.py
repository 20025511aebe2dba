"""Train a denoising diffusion probabilistic model (Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239).

A U-Net learns to undo noise: a picture x_0 is mixed with Gaussian noise at a random level t, and the network predicts
the noise (or, by --prediction_type, the picture or the velocity). Sampling starts from pure noise and removes it step
by step. With --class_column the network also learns classes, and samples can be guided towards one.

Beyond the paper, each by a flag: cosine schedule (Nichol & Dhariwal 2021), v-prediction (Salimans & Ho 2022), min-SNR
weighting (Hang et al. 2023), noise levels drawn where they teach most (Karras et al. 2022), classifier-free guidance
(Ho & Salimans 2021).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, UNet2DModel
from PIL import Image
from torch import nn

from hf_genzoo.data import image_dataset
from hf_genzoo.diffusion import (
    lognormal_timesteps,
    low_discrepancy_uniform,
    min_snr_weight,
    training_target,
    uniform_timesteps,
)
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline
from hf_genzoo.training.args import TrainingArgs, flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script


@dataclass
class UNetArgs(TrainingArgs):
    """What families share that train a stock U-Net; the values are those of DDPM."""

    train_batch_size: int = flag(128, "Pictures of one micro-batch on each process.")
    learning_rate: float = flag(2e-4, "Peak learning rate.")
    lr_warmup_steps: int = flag(5000, "Optimiser steps of linear warm-up, whatever the number of processes.")
    lr_scheduler: str = flag("constant_with_warmup", "Shape of the learning rate over the run.")

    block_out_channels: list[int] = field(
        default_factory=lambda: [128, 256, 256, 256],
        metadata={"help": "Channels of the U-Net at each resolution, finest first; each level halves the picture."},
    )
    layers_per_block: int = flag(2, "Residual blocks at each resolution.")
    attention_levels: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "Levels with self-attention, 0 being the finest; -1 for none."}
    )
    norm_num_groups: int = flag(32, "Groups of group normalisation; must divide every channel count.")
    dropout: float = flag(0.1, "Dropout in the residual blocks.")


@dataclass
class DiffusionArgs(UNetArgs):
    """What `ddpm` and its descendants share."""

    ddpm_num_steps: int = flag(1000, "Noise levels T of the diffusion process.")
    ddpm_beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = flag(
        "linear", "How noise grows with t: linear (paper), quadratic (scaled_linear) or cosine (squaredcos_cap_v2)."
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = flag("epsilon", "What the network predicts.")

    conditioning_dropout_prob: float = flag(0.1, "Share of labels hidden in training, so that guidance can be used.")
    ddpm_num_inference_steps: int = flag(50, "Denoising steps of the sample grids.")
    guidance_scale: float = flag(2.0, "Classifier-free guidance of class-conditional grids; 1 is none.")


@dataclass
class NoiseLevelArgs(DiffusionArgs):
    """What families share that draw the noise levels by a fixed law."""

    timestep_sampling: Literal["uniform", "stratified", "lognormal"] = flag(
        "uniform",
        "How t is drawn: uniform (paper), one from each of B equal parts of the axis, or stratified with a log-normal "
        "noise-to-signal ratio.",
    )
    noise_mean: float = flag(-1.2, "Mean of the log noise-to-signal ratio for --timestep_sampling lognormal.")
    noise_mean_end: float | None = flag(
        None, "That mean at the end of training, to which it moves evenly from --noise_mean; none: it stays."
    )
    noise_std: float = flag(1.2, "Standard deviation of the log noise-to-signal ratio.")


@dataclass
class SimpleArgs(NoiseLevelArgs):
    """What families share that minimise L_simple and differ in the sampler."""

    snr_gamma: float | None = flag(None, "Clip the loss weight at this signal-to-noise ratio (5.0 is common).")


@dataclass
class Args(SimpleArgs):
    family: ClassVar[str] = "ddpm"

    sampler: Literal["ddpm", "ddim", "dpmsolver++"] = flag("ddim", "Sampler of the sample grids.")


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_levels": [-1],
    "norm_num_groups": 4,
    "dropout": 0.0,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "lr_warmup_steps": 0,
    "num_validation_images": 4,
    "ddpm_num_inference_steps": 3,
}
SMALL: dict[str, Any] = {
    "dataset_name": "digits",
    "class_column": "label",
    "num_channels": 1,
    "resolution": 28,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "attention_levels": [-1],
    "norm_num_groups": 8,
    "dropout": 0.0,
    "ddpm_beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_sampling": "lognormal",
    "noise_mean": 0.4,
    "noise_std": 1.2,
    "guidance_scale": 1.2,
    "num_validation_images": 100,
    "ddpm_num_inference_steps": 20,
    "train_batch_size": 32,
    "max_train_steps": 1200,
    "learning_rate": 5e-3,
    "adam_beta2": 0.99,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
PRESETS = {"tiny": TINY, "small": SMALL}


def stock_unet(args: UNetArgs, in_channels: int, out_channels: int, **settings: Any) -> UNet2DModel:
    """The U-Net of the flags; `settings` are further ones of UNet2DModel."""
    levels = range(len(args.block_out_channels))
    down = tuple("AttnDownBlock2D" if level in args.attention_levels else "DownBlock2D" for level in levels)
    up = tuple("AttnUpBlock2D" if level in args.attention_levels else "UpBlock2D" for level in reversed(levels))
    return UNet2DModel(
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=tuple(args.block_out_channels),
        layers_per_block=args.layers_per_block,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=args.norm_num_groups,
        dropout=args.dropout,
        **{"sample_size": args.resolution, **settings},
    )


def build(args: DiffusionArgs, num_classes: int | None = None, learned_variance: bool = False) -> dict[str, nn.Module]:
    """The U-Net; with classes, one label more than there are classes stands for "none".

    A learned variance takes as many channels as the picture, behind those of the prediction. They begin at 0, halfway
    between the bounds of the variance.
    """
    outputs = args.num_channels * (2 if learned_variance else 1)
    labels = None if num_classes is None else num_classes + 1
    unet = stock_unet(args, args.num_channels, outputs, num_class_embeds=labels)
    if learned_variance:
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter[args.num_channels :])
    return {"unet": unet}


def noise_schedule(args: DiffusionArgs) -> DDPMScheduler:
    """The noise levels; "trailing" sampling grids start from pure noise.

    DDPMScheduler's defaults are spelled out here, because a conversion to another scheduler forgets unspoken ones.
    """
    return DDPMScheduler(
        num_train_timesteps=args.ddpm_num_steps,
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=True,
        beta_schedule=args.ddpm_beta_schedule,
        prediction_type=args.prediction_type,
        timestep_spacing="trailing",
    )


def draw_timesteps(count: int, alphas_cumprod: torch.Tensor, args: NoiseLevelArgs, progress: float) -> torch.Tensor:
    """Noise levels (B,) int64 of one micro-batch, by --timestep_sampling; `progress` in training is from 0 to 1."""
    device = alphas_cumprod.device
    if args.timestep_sampling == "uniform":
        return torch.randint(len(alphas_cumprod), (count,), device=device)
    u = low_discrepancy_uniform(count, device)
    if args.timestep_sampling == "stratified":
        return uniform_timesteps(u, len(alphas_cumprod))
    end = args.noise_mean if args.noise_mean_end is None else args.noise_mean_end
    mean = args.noise_mean + progress * (end - args.noise_mean)
    return lognormal_timesteps(u, alphas_cumprod, mean, args.noise_std)


def hide_labels(labels: torch.Tensor | None, null_label: int | None, probability: float) -> torch.Tensor | None:
    """Replace a random share of labels by the null label (Ho & Salimans 2021, algorithm 1)."""
    if labels is None or null_label is None:
        return None
    hidden = torch.rand(labels.shape, device=labels.device) < probability
    return torch.where(hidden, null_label, labels)


def main(args: Args) -> Path:
    drawn = partial(preview, args=args, sampler=args.sampler)
    return train(args, export, drawn, sampling={"scheduler": SAMPLERS[args.sampler].__name__})


def train(
    args: SimpleArgs,
    export: Callable[..., DenoisingDiffusionPipeline],
    preview: Callable[[Any], list[Image.Image]],
    sampling: dict[str, Any],
) -> Path:
    """Train the network; families that differ in the sampler alone bring theirs.

    Args:
        args: Settings.
        export: Makes the pipeline of nets, scheduler and class_names.
        preview: Draws the sample grid with it.
        sampling: How that is done, for the card, beside steps and guidance.
    """
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    nets = build(args, data.num_classes)
    scheduler = noise_schedule(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"unet": adam(nets["unet"], args)},
        ema=["unet"],
        data=data,
        export=partial(export, scheduler=scheduler, class_names=data.class_names),
        preview=preview,
        sampling={**sampling, **sampling_options(args, data.num_classes)},
    )
    unet = run.nets["unet"]
    alphas_cumprod = scheduler.alphas_cumprod.to(run.device)

    for step in run.steps():  # Ho et al. 2020, algorithm 1
        for batch in run.update("unet"):
            x_0 = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            noise = torch.randn_like(x_0)
            t = draw_timesteps(len(x_0), alphas_cumprod, args, step / run.max_train_steps)
            x_t = scheduler.add_noise(x_0, noise, t)  # eq. 4  # pyright: ignore[reportArgumentType]
            y = hide_labels(batch.get("class_labels"), data.num_classes, args.conditioning_dropout_prob)
            target = training_target(scheduler, x_0, noise, t, args.prediction_type)
            error = (unet(x_t, t, class_labels=y).sample - target).square().mean(dim=(1, 2, 3))  # eq. 14
            if args.snr_gamma is not None:
                error = error * min_snr_weight(alphas_cumprod, t, args.snr_gamma, args.prediction_type)
            run.backward(error.mean())
    return run.output_dir


def export(
    nets: dict[str, nn.Module], scheduler: DDPMScheduler, class_names: list[str] | None
) -> DenoisingDiffusionPipeline:
    id2label = None if class_names is None else dict(enumerate(class_names))
    return DenoisingDiffusionPipeline(unet=nets["unet"], scheduler=scheduler, id2label=id2label)


SAMPLERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpmsolver++": DPMSolverMultistepScheduler}


def sampling(
    pipeline: DiffusionPipeline, args: DiffusionArgs, sampler: str
) -> tuple[DenoisingDiffusionPipeline, dict[str, Any]]:
    """An exported pipeline with another of `SAMPLERS`, and the steps and guidance to call it with."""
    scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config)
    id2label = pipeline.config.get("id2label")  # without classes it is diffusers' own pipeline
    sampled = DenoisingDiffusionPipeline(unet=pipeline.unet, scheduler=scheduler, id2label=id2label)
    sampled.set_progress_bar_config(disable=True)
    return sampled, sampling_options(args, sampled.num_classes)


def sampling_options(args: DiffusionArgs, num_classes: int | None) -> dict[str, Any]:
    """Steps and guidance of the sample grids; without classes there is nothing to guide towards."""
    guidance = {} if num_classes is None else {"guidance_scale": args.guidance_scale}
    return {"num_inference_steps": args.ddpm_num_inference_steps, **guidance}


def preview(pipeline: DenoisingDiffusionPipeline, args: DiffusionArgs, sampler: str) -> list[Image.Image]:
    """Samples from the same noise each time; one class after the other where there are classes."""
    sampled, options = sampling(pipeline, args, sampler)
    return samples(sampled, args, **options)


def samples(pipeline: DenoisingDiffusionPipeline, args: DiffusionArgs, **options: Any) -> list[Image.Image]:
    """The pictures of a grid, drawn with these options."""
    count, classes = args.num_validation_images, pipeline.num_classes
    return pipeline(
        batch_size=count,
        class_labels=None if classes is None else [i % classes for i in range(count)],
        generator=torch.Generator().manual_seed(args.seed),
        **options,
    ).images


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
