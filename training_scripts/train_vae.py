"""Train a variational autoencoder (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Rezende et al. 2014).

An encoder turns a picture x into a Gaussian q(z|x) over a vector z, a decoder turns z into a distribution over
pictures, and both maximise the evidence lower bound: how well x is reconstructed, minus how far q(z|x) strays from the
standard normal prior. Samples are decoded draws from the prior.

Differs from the paper: convolutional networks, Adam instead of Adagrad, and a choice of likelihoods. The bound sums
over pixels and latents and averages over the batch; a mean over pixels would be a hidden beta-VAE.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import nn

from hf_genzoo.data import Data, image_dataset
from hf_genzoo.losses import kl_standard_normal
from hf_genzoo.models.vae import ConvVAE
from hf_genzoo.pipelines.vae import VAEPipeline
from hf_genzoo.training.args import TrainingArgs, flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script


@dataclass
class Args(TrainingArgs):
    family: ClassVar[str] = "vae"

    train_batch_size: int = flag(100, "Pictures of one micro-batch on each process.")
    learning_rate: float = flag(1e-3, "Peak learning rate.")
    lr_warmup_steps: int = flag(0, "Optimiser steps of linear warm-up, whatever the number of processes.")

    latent_dim: int = flag(20, "Length of the latent vector z.")
    block_out_channels: list[int] = field(
        default_factory=lambda: [32, 64],
        metadata={"help": "Channels at each resolution, finest first; each level halves the picture."},
    )
    hidden_dim: int = flag(256, "Width of the fully connected layers between the convolutions and z.")
    likelihood: Literal["bernoulli", "gaussian", "continuous_bernoulli"] = flag(
        "continuous_bernoulli",
        "p(x|z): bernoulli for binary pictures, gaussian with a learned scalar sigma, or continuous_bernoulli for "
        "grey values in [0, 1].",
    )


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "block_out_channels": [4, 8],
    "hidden_dim": 16,
    "latent_dim": 2,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "num_validation_images": 4,
}
SMALL: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 28,
    "block_out_channels": [16, 64],
    "likelihood": "bernoulli",
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
    vae = ConvVAE(
        sample_size=args.resolution,
        in_channels=args.num_channels,
        latent_dim=args.latent_dim,
        block_out_channels=tuple(args.block_out_channels),
        hidden_dim=args.hidden_dim,
        likelihood=args.likelihood,
    )
    return {"vae": vae}


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    nets = build(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"vae": adam(nets["vae"], args)},
        ema=["vae"],
        data=data,
        export=export,
        preview=partial(preview, args=args, data=data),
    )
    vae = run.nets["vae"]

    for _ in run.steps():  # Kingma & Welling 2014, algorithm 1
        for batch in run.update("vae"):
            x = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            out = vae(x)  # z = mean + sigma * noise, one draw a picture
            log_likelihood = out.log_likelihood  # log p(x|z), summed over pixels: (B,)
            kl = kl_standard_normal(out.mean, out.logvar)  # KL(q(z|x) || p(z)), summed over latents: (B,)
            elbo = (log_likelihood - kl).mean()  # eq. 10
            run.backward(-elbo, kl=kl.mean(), reconstruction=-log_likelihood.mean())
    return run.output_dir


def export(nets: dict[str, nn.Module]) -> VAEPipeline:
    return VAEPipeline(vae=nets["vae"])


def preview(pipeline: VAEPipeline, args: Args, data: Data) -> list[Image.Image]:
    """Pictures beside their reconstructions, in the first half of the grid, then samples."""
    pairs = args.num_validation_images // 4
    samples = pipeline(
        batch_size=args.num_validation_images - 2 * pairs, generator=torch.Generator().manual_seed(args.seed)
    ).images
    if pairs == 0:
        return samples
    pictures = next(data.batches(batch_size=pairs, seed=args.seed))["pixel_values"]
    before: Any = VaeImageProcessor().postprocess(pictures, output_type="pil")
    after = pipeline.reconstruct(before).images
    return [image for pair in zip(before, after, strict=True) for image in pair] + samples


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
