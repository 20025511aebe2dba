"""Train super-resolution by iterative refinement (SR3; Saharia et al. 2021, https://arxiv.org/abs/2104.07636).

A large picture is mixed with Gaussian noise, and a U-Net that also sees the same picture made small (and enlarged
again by bicubic interpolation) learns to tell noise from picture. Sampling starts from pure noise and paints, step by
step, a large picture that fits the small one; another seed paints another one. --objective regression trains the same
network to give the large picture at once, as the paper's baseline: it learns the mean of all that fit, which is soft.

As in the paper the network is told the noise level and not the number of the step (here as the level of the signal,
sqrt(gamma); in the paper gamma itself), and gamma is drawn for each picture from a law that is uniform between
neighbouring levels. Differs from the paper: the network is a plain UNet2DModel, not that of BigGAN blocks;
v-prediction by a flag; cropping by a flag, for large pictures; a network that answers for the residual by a flag.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn

from hf_genzoo.corruptions import enlarged, low_resolution
from hf_genzoo.data import Data, image_dataset
from hf_genzoo.diffusion import low_discrepancy_uniform, piecewise_uniform_gamma
from hf_genzoo.pipelines.sr3 import SR3Pipeline, denoise, regress, residual_spread
from hf_genzoo.training.args import flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts.train_ddpm import UNetArgs, stock_unet


@dataclass
class Args(UNetArgs):
    family: ClassVar[str] = "sr3"

    train_batch_size: int = flag(256, "Pictures of one micro-batch on each process.")
    learning_rate: float = flag(1e-4, "Peak learning rate.")
    lr_warmup_steps: int = flag(10000, "Optimiser steps of linear warm-up, whatever the number of processes.")
    resolution: int = flag(64, "Height and width of the large pictures, in pixels.")

    scale: Literal[2, 4, 8] = flag(4, "How many times smaller the given pictures are.")
    objective: Literal["diffusion", "regression"] = flag(
        "diffusion", "Draw the large picture from noise, or learn to give it at once (the paper's baseline)."
    )
    loss: Literal["l1", "l2"] = flag("l2", "Norm of the error: absolute or squared.")
    prediction_type: Literal["epsilon", "v_prediction"] = flag("epsilon", "What the network predicts.")
    residual_std: float | None = flag(
        None,
        "Let the network answer only for what the enlarged small picture leaves open, whose standard deviation in "
        "[-1, 1] this is: about 0.1 for photographs. Needs --prediction_type v_prediction. None: as in the paper.",
    )
    gamma_sampling: Literal["uniform", "stratified"] = flag(
        "uniform", "Noise levels of a batch: independent (paper), or one from each of B equal parts of the axis."
    )
    crop_size: int | None = flag(
        None, "Learn from random crops of this side, in pixels of the large picture; by default from whole pictures."
    )

    block_out_channels: list[int] = field(
        default_factory=lambda: [64, 128, 256, 512, 512],
        metadata={"help": "Channels of the U-Net at each resolution, finest first; each level halves the picture."},
    )
    layers_per_block: int = flag(3, "Residual blocks at each resolution.")
    attention_levels: list[int] = field(
        default_factory=lambda: [-1], metadata={"help": "Levels with self-attention, 0 being the finest; -1 for none."}
    )
    dropout: float = flag(0.2, "Dropout in the residual blocks.")

    ddpm_num_steps: int = flag(2000, "Noise levels T between which gamma is drawn.")
    ddpm_beta_schedule: Literal["linear", "squaredcos_cap_v2"] = flag(
        "linear", "How noise grows over the levels: linear (1e-6 to 1e-2) or cosine (squaredcos_cap_v2)."
    )
    ddpm_num_inference_steps: int = flag(100, "Denoising steps of the sample grids and of the evaluation.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.residual_std is not None and self.residual_std <= 0:
            raise ValueError(f"--residual_std is {self.residual_std}: a standard deviation is above 0")
        if self.residual_std is not None and self.prediction_type != "v_prediction":
            raise ValueError(f"--residual_std needs --prediction_type v_prediction, not {self.prediction_type}")
        side, multiple = self.crop_size or self.resolution, 2 ** (len(self.block_out_channels) - 1)
        for name, value in (("resolution", self.resolution), ("crop_size", self.crop_size)):
            if value is not None and (value % self.scale or not 0 < value <= self.resolution):
                raise ValueError(
                    f"--{name} is {value}: --scale {self.scale} must divide it, and it must be at least 1 and at "
                    f"most --resolution {self.resolution}"
                )
        if side % multiple:
            raise ValueError(
                f"--block_out_channels has {len(self.block_out_channels)} levels: pictures of {side} pixels must be "
                f"divisible by {multiple}"
            )


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "scale": 2,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "dropout": 0.0,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "lr_warmup_steps": 0,
    "num_validation_images": 8,
    "ddpm_num_inference_steps": 3,
}
QUICK: dict[str, Any] = {
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "dropout": 0.0,
    "prediction_type": "v_prediction",
    "gamma_sampling": "stratified",
    "ddpm_beta_schedule": "squaredcos_cap_v2",
    "ddpm_num_inference_steps": 25,
    "adam_beta2": 0.99,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
    "num_validation_images": 64,
}
SMALL: dict[str, Any] = {
    **QUICK,
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 28,
    "block_out_channels": [16, 32, 64],
    "train_batch_size": 32,
    "max_train_steps": 1200,
    "learning_rate": 5e-3,
}
PHOTOS: dict[str, Any] = {
    **QUICK,
    "num_channels": 3,
    "resolution": 64,
    "random_flip": True,
    "block_out_channels": [16, 32, 64, 96],
    "train_batch_size": 16,
    "max_train_steps": 1000,
    "learning_rate": 3e-3,
}
PHOTOS256: dict[str, Any] = {
    **PHOTOS,
    "resolution": 256,
    "crop_size": 64,
    "residual_std": 0.1,
    "num_validation_images": 16,
}
PRESETS = {"tiny": TINY, "small": SMALL, "photos": PHOTOS, "photos256": PHOTOS256}


def build(args: Args) -> dict[str, nn.Module]:
    """The U-Net; it is given the enlarged small picture beside the noisy large one."""
    side = args.crop_size or args.resolution
    return {"unet": stock_unet(args, 2 * args.num_channels, args.num_channels, sample_size=side)}


def noise_schedule(args: Args) -> DDPMScheduler:
    """The levels gamma is drawn between, and the sampler; "trailing" grids start from pure noise.

    DDPMScheduler's defaults are spelled out here, because a conversion to another scheduler forgets unspoken ones.
    """
    return DDPMScheduler(
        num_train_timesteps=args.ddpm_num_steps,
        beta_start=1e-6,
        beta_end=1e-2,
        clip_sample=True,
        beta_schedule=args.ddpm_beta_schedule,
        prediction_type=args.prediction_type,
        timestep_spacing="trailing",
    )


def pairs(pictures: Tensor, args: Args) -> tuple[Tensor, Tensor]:
    """Large pictures, and the enlarged small ones: (B, C, H, W) each in [-1, 1], cropped by --crop_size.

    Pictures are made small whole, as they are when the network is used, and cropped at whole small pixels.
    """
    low = enlarged(2.0 * low_resolution(0.5 * (pictures + 1.0), args.scale) - 1.0, args.scale)
    if args.crop_size is None:
        return pictures, low
    places = (pictures.shape[-1] - args.crop_size) // args.scale + 1
    starts = (torch.rand(len(pictures), 2, device=pictures.device) * places).long() * args.scale
    both = [
        pair[:, y : y + args.crop_size, x : x + args.crop_size]
        for pair, (y, x) in zip(torch.cat([pictures, low], dim=1), starts.tolist(), strict=True)
    ]
    x_0, low = torch.stack(both).chunk(2, dim=1)
    return x_0, low


def draw_gamma(count: int, alphas_cumprod: Tensor, args: Args) -> Tensor:
    """gamma (B, 1, 1, 1) of one micro-batch, by --gamma_sampling."""
    device = alphas_cumprod.device
    u = (
        torch.rand(count, device=device)
        if args.gamma_sampling == "uniform"
        else low_discrepancy_uniform(count, device)
    )
    return piecewise_uniform_gamma(u, alphas_cumprod).float()[:, None, None, None]


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    nets = build(args)
    scheduler = noise_schedule(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"unet": adam(nets["unet"], args)},
        ema=["unet"],
        data=data,
        export=partial(export, scheduler=scheduler, args=args),
        preview=partial(preview, args=args, data=data),
        sampling=sampling_options(args),
    )
    unet = run.nets["unet"]
    alphas_cumprod = scheduler.alphas_cumprod.to(run.device)
    distance = {"l1": F.l1_loss, "l2": F.mse_loss}[args.loss]

    for _ in run.steps():  # Saharia et al. 2021, algorithm 1
        for batch in run.update("unet"):
            x_0, low = pairs(batch["pixel_values"], args)  # y_0 and x of the paper
            if args.objective == "regression":
                run.backward(distance(regress(unet, low), x_0))
                continue
            noise = torch.randn_like(x_0)
            gamma = draw_gamma(len(x_0), alphas_cumprod, args)
            a, s = gamma.sqrt(), (1.0 - gamma).sqrt()
            x_t = a * x_0 + s * noise
            target = noise if args.prediction_type == "epsilon" else a * noise - s * x_0
            answer = denoise(unet, low, x_t, a.flatten(), args.residual_std)
            # What the network itself says has unit variance at every level, and so its error counts alike at all.
            unit = 1.0 if args.residual_std is None else residual_spread(a, args.residual_std) / args.residual_std
            run.backward(distance(unit * answer, unit * target))  # eq. 6
    return run.output_dir


def export(nets: dict[str, nn.Module], scheduler: DDPMScheduler, args: Args) -> SR3Pipeline:
    about = {"scale": args.scale, "objective": args.objective, "residual_std": args.residual_std}
    return SR3Pipeline(unet=nets["unet"], scheduler=scheduler, **about)


def sampling_options(args: Args) -> dict[str, Any]:
    """How grids are drawn; a regression draws nothing."""
    return {} if args.objective == "regression" else {"num_inference_steps": args.ddpm_num_inference_steps}


def preview(pipeline: SR3Pipeline, args: Args, data: Data) -> list[Image.Image]:
    """Quadruples: a small picture enlarged by bicubic interpolation, two answers of the network, the truth."""
    count = max(1, args.num_validation_images // 4)
    truth = 0.5 * (next(data.batches(batch_size=count, seed=args.seed + 1))["pixel_values"] + 1.0)
    low = low_resolution(truth, args.scale)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {**sampling_options(args), "output_type": "pt", "return_dict": False}
    drawn = [pipeline(low, generator=torch.Generator().manual_seed(args.seed + i), **options)[0] for i in range(2)]
    bicubic = 0.5 * (enlarged(2.0 * low - 1.0, args.scale) + 1.0)
    rows: Any = [VaeImageProcessor(do_normalize=False).postprocess(x, "pil") for x in (bicubic, *drawn, truth)]
    return [image for four in zip(*rows, strict=True) for image in four]


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
