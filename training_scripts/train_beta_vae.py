"""Train a beta-VAE (Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl): a variational autoencoder that
pays more for what its code says, and so comes to say one thing with each number.

Three objectives, all with the networks of `vae`:
- beta: the KL costs beta times as much (Higgins et al. 2017, eq. 4). beta 1 is the VAE.
- capacity: the KL is held at C nats, and C rises (Burgess et al. 2018, https://arxiv.org/abs/1804.03599, eq. 8): first
  the one thing that explains most is coded, then the next.
- tc: only the total correlation, how much the numbers of a code tell about each other, costs beta times as much (Chen
  et al. 2018, https://arxiv.org/abs/1802.04942, eq. 4), so that less is lost of what the code tells about the picture.

Differs from the papers: smaller pictures, fewer steps, convolutions and Adam (Higgins et al. have fully connected
networks and Adagrad for these shapes).
"""

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from hf_genzoo.data import Data, image_dataset
from hf_genzoo.losses import annealed_capacity, kl_standard_normal, kl_terms
from hf_genzoo.pipelines.vae import VAEPipeline
from hf_genzoo.training.args import flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts import train_vae
from hf_genzoo.training_scripts.train_vae import build, export


@dataclass
class Args(train_vae.Args):
    family: ClassVar[str] = "beta_vae"

    train_batch_size: int = flag(64, "Pictures of one micro-batch on each process.")
    learning_rate: float = flag(5e-4, "Peak learning rate.")
    latent_dim: int = flag(10, "Length of the latent vector z.")

    objective: Literal["beta", "capacity", "tc"] = flag("beta", "What is paid for; see above.")
    beta: float = flag(4.0, "beta: weight of the KL; tc: weight of the total correlation.")
    capacity: float = flag(25.0, "capacity: nats at which the KL is held in the end.")
    capacity_steps: int = flag(10_000, "capacity: steps in which it rises there from 0.")
    gamma: float = flag(100.0, "capacity: weight of the distance from it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "capacity", "gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is {getattr(self, name)}: it must be 0 or more")
        if self.capacity_steps < 1:
            raise ValueError(f"--capacity_steps is {self.capacity_steps}: it must be at least 1")


TINY: dict[str, Any] = {**train_vae.TINY}
SMALL: dict[str, Any] = {
    "dataset_name": "sprites",
    "num_channels": 1,
    "resolution": 32,
    "block_out_channels": [32, 32, 64],
    "likelihood": "bernoulli",
    "max_train_steps": 8000,
    "num_validation_images": 100,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "channels_last": True,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
PRESETS = {"tiny": TINY, "small": SMALL}


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    if args.objective == "tc" and data.num_samples is None:
        raise ValueError("--objective tc needs to know how large the data set is: leave --streaming out")
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

    for step in run.steps():
        for batch in run.update("vae"):
            x = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            out = vae(x)
            log_likelihood = out.log_likelihood  # (B,)
            kl = kl_standard_normal(out.mean, out.logvar)  # (B,)
            terms: dict[str, Tensor] = {"kl": kl.mean(), "reconstruction": -log_likelihood.mean()}
            if args.objective == "beta":
                loss = -(log_likelihood - args.beta * kl).mean()  # Higgins et al. 2017, eq. 4
            elif args.objective == "capacity":
                c = annealed_capacity(step, args.capacity, args.capacity_steps)
                loss = -log_likelihood.mean() + args.gamma * (kl.mean() - c).abs()  # Burgess et al. 2018, eq. 8
            else:
                mutual_information, tc, dimension_wise = kl_terms(out.z, out.mean, out.logvar, data.num_samples or 0)
                loss = (
                    -log_likelihood.mean() + mutual_information + args.beta * tc + dimension_wise
                )  # Chen 2018, eq. 4
                terms |= {"mutual_information": mutual_information, "total_correlation": tc}
            run.backward(loss, **terms)
    return run.output_dir


def preview(pipeline: VAEPipeline, args: Args, data: Data) -> list[Image.Image]:
    """Traversals of one picture: each row of the square changes one number of its code."""
    side = max(2, min(math.isqrt(args.num_validation_images), args.latent_dim))
    dims = range(min(side, args.latent_dim))
    start = next(data.batches(batch_size=1, seed=args.seed))["pixel_values"]
    return pipeline.traverse(0.5 * (start + 1.0), dims=dims, range=(-2.0, 2.0), steps=side).images


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
