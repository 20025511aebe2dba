"""Train an autoencoder (Hinton & Salakhutdinov 2006, https://www.cs.toronto.edu/~hinton/science.pdf), or one that
undoes a corruption (Vincent et al. 2008, https://dl.acm.org/doi/10.1145/1390156.1390294).

An encoder turns a picture into a code, a decoder turns the code into a picture, and both learn to make that picture
the one that went in. With a code much shorter than the picture it must find out what the pictures have in common.
Given a damaged picture instead, the same network learns to repair it: noise, a picture made small, holes, lost colour.

Differs from the papers: convolutions, Adam, no layer-wise pretraining. Without --latent_dim the code is a map of
features with more numbers than pixels, as in Vincent et al. 2010 (https://jmlr.org/papers/v11/vincent10a.html): the
corruption, not the width, keeps it from copying.
"""

import copy
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn

from hf_genzoo.corruptions import Corruption
from hf_genzoo.data import Data, image_dataset
from hf_genzoo.models.autoencoder import ConvAutoencoder
from hf_genzoo.pipelines.autoencoder import AutoencoderPipeline, network_input, picture
from hf_genzoo.training.args import TrainingArgs, flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script

PICTURES_FOR_CODES = 500  # their codes' mean and spread are what the pipeline draws from


@dataclass
class Args(TrainingArgs):
    family: ClassVar[str] = "autoencoder"

    train_batch_size: int = flag(100, "Pictures of one micro-batch on each process.")
    learning_rate: float = flag(1e-3, "Peak learning rate.")
    lr_warmup_steps: int = flag(0, "Optimiser steps of linear warm-up, whatever the number of processes.")

    task: Literal["reconstruct", "denoise", "super_resolution", "completion", "colorization"] = flag(
        "reconstruct", "What the network learns to undo; reconstruct damages nothing."
    )
    noise_sigma: float = flag(0.2, "denoise: standard deviation of the noise, for pixels in [0, 1].")
    factor: int = flag(4, "super_resolution: how many times smaller the given pictures are.")
    hole: float = flag(0.4, "completion: side of the square hole, as a share of the picture's.")
    latent_dim: int | None = flag(None, "Length of the code; by default it is the last map of features.")
    block_out_channels: list[int] = field(
        default_factory=lambda: [32, 96],
        metadata={"help": "Channels at each resolution, finest first; each level halves the picture."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "colorization" and self.num_channels != 3:
            raise ValueError(f"--task colorization needs --num_channels 3, not {self.num_channels}")
        if self.task == "super_resolution" and (self.factor < 2 or self.resolution % self.factor):
            raise ValueError(f"--factor is {self.factor}: it must be at least 2 and divide --resolution")
        if self.noise_sigma <= 0:
            raise ValueError(f"--noise_sigma is {self.noise_sigma}: it must be above 0")
        if not 0 < self.hole < 1:
            raise ValueError(f"--hole is {self.hole}: it must lie between 0 and 1")


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "block_out_channels": [4, 8],
    "latent_dim": 3,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "num_validation_images": 4,
}
SMALL: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 28,
    "block_out_channels": [16, 64],
    "latent_dim": 16,
    "train_batch_size": 64,
    "max_train_steps": 3000,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "channels_last": True,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
PRESETS = {"tiny": TINY, "small": SMALL}


def build(args: Args) -> dict[str, nn.Module]:
    colour = args.task == "colorization"
    autoencoder = ConvAutoencoder(
        sample_size=args.resolution,
        in_channels=1 if colour else args.num_channels + (args.task == "completion"),
        out_channels=2 if colour else args.num_channels,
        latent_dim=args.latent_dim,
        block_out_channels=tuple(args.block_out_channels),
    )
    return {"autoencoder": autoencoder}


def corruption(args: Args) -> Corruption:
    return Corruption(args.task, noise_sigma=args.noise_sigma, factor=args.factor, hole=args.hole)


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    nets = build(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"autoencoder": adam(nets["autoencoder"], args)},
        ema=["autoencoder"],
        data=data,
        export=partial(export, args=args, data=data),
        preview=partial(preview, args=args, data=data),
    )
    autoencoder, corrupt = run.nets["autoencoder"], corruption(args)

    for _ in run.steps():
        for batch in run.update("autoencoder"):
            x = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            damaged, mask = corrupt(x)  # x~ ~ q(x~ | x): Vincent et al. 2008, section 2.3
            out = autoencoder(network_input(args.task, damaged, mask))  # g(f(x~))
            repaired = picture(args.task, out, damaged, mask)
            run.backward(squared_error(repaired, x))  # eq. 5, with the squared error of eq. 2
    return run.output_dir


def squared_error(repaired: Tensor, x: Tensor) -> Tensor:
    """Summed over pixels, averaged over the batch, for pixels in [0, 1]."""
    return 0.25 * F.mse_loss(repaired, x, reduction="sum") / len(x)


def export(nets: dict[str, nn.Module], args: Args, data: Data) -> AutoencoderPipeline:
    """The pipeline, with the mean and spread of the codes of training pictures."""
    autoencoder: Any = copy.deepcopy(nets["autoencoder"])
    device = next(autoencoder.parameters()).device
    x = next(data.batches(batch_size=PICTURES_FOR_CODES, seed=args.seed, device=device))["pixel_values"]
    damaged, mask = corruption(args)(x, torch.Generator().manual_seed(args.seed))
    with torch.no_grad():
        codes = [autoencoder.encode(part) for part in network_input(args.task, damaged, mask).split(50)]
    std, mean = torch.std_mean(torch.cat(codes), dim=0)
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    return AutoencoderPipeline(autoencoder=autoencoder, task=args.task, factor=args.factor)


def preview(pipeline: AutoencoderPipeline, args: Args, data: Data) -> list[Image.Image]:
    """Triples: a picture, what the network is given of it, and its answer."""
    count = max(1, args.num_validation_images // 3)
    x = next(data.batches(batch_size=count, seed=args.seed + 1))["pixel_values"]
    damaged, mask = corruption(args)(x, torch.Generator().manual_seed(args.seed))
    net = pipeline.autoencoder
    given = network_input(args.task, damaged, mask).to(device=net.device, dtype=net.dtype)
    with torch.no_grad():
        out = net(given).float().cpu()
    shown = [x, damaged, picture(args.task, out, damaged, mask).clamp(-1.0, 1.0)]
    rows: Any = [VaeImageProcessor().postprocess(images, output_type="pil") for images in shown]
    return [image for triple in zip(*rows, strict=True) for image in triple]


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
