"""Train a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028).

A critic learns to tell data from generated samples; while its slope stays at 1, the difference of its means is the
Wasserstein distance between them, and the generator learns to shrink it. The slope is kept by a penalty at random
points between data and samples, or, with --weight_clip, by clipping the critic's weights (Arjovsky et al. 2017,
https://arxiv.org/abs/1701.07875).

Differs from the paper: an exponential moving average of the generator is published.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from hf_genzoo.data.args import POINT_SETS
from hf_genzoo.losses import gradient_penalty
from hf_genzoo.models.critic import ConvCritic, MLPCritic
from hf_genzoo.models.generator import ConvGenerator, MLPGenerator
from hf_genzoo.pipelines.gan import WGANPipeline
from hf_genzoo.training.args import TrainingArgs, flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts.train_gan import dataset, preview


@dataclass
class Args(TrainingArgs):
    family: ClassVar[str] = "wgan_gp"

    train_batch_size: int = flag(64, "Samples of one micro-batch on each process.")
    learning_rate: float = flag(1e-4, "Peak learning rate of both networks.")
    lr_warmup_steps: int = flag(0, "Optimiser steps of linear warm-up, whatever the number of processes.")
    adam_beta1: float = flag(0.0, "Adam's decay of the mean gradient.")
    adam_beta2: float = flag(0.9, "Adam's decay of the mean squared gradient.")
    max_grad_norm: float = flag(0.0, "Largest gradient norm of one optimiser step; 0 leaves gradients as they are.")

    latent_dim: int = flag(128, "Length of the generator's input z.")
    block_out_channels: list[int] = field(
        default_factory=lambda: [64, 128, 256],
        metadata={"help": "Channels of the generator for pictures at each resolution, finest first."},
    )
    critic_channels: list[int] | None = flag(None, "Those of the critic, if others.")
    hidden_dim: int = flag(512, "Width of both networks' layers for points.")
    n_critic: int = flag(5, "Critic steps for each generator step.")
    lambda_gp: float = flag(10.0, "Weight of the gradient penalty.")
    weight_clip: float = flag(
        0.0, "Clip the critic's weights to this size instead of the penalty (0.01 in the paper)."
    )
    optimizer: Literal["adam", "rmsprop"] = flag("adam", "rmsprop is the clipped WGAN's.")


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "latent_dim": 4,
    "block_out_channels": [4, 8],
    "hidden_dim": 16,
    "n_critic": 2,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "num_validation_images": 4,
}
SMALL: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 28,
    "latent_dim": 64,
    "block_out_channels": [16, 32, 64],
    "n_critic": 3,
    "train_batch_size": 64,
    "max_train_steps": 3500,
    "learning_rate": 1e-3,
    "lr_scheduler": "cosine",
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
    "channels_last": True,
}
RING: dict[str, Any] = {  # eight Gaussians on a circle, in the plane
    "dataset_name": "gaussians2d",
    "dataset_config_name": "ring",
    "latent_dim": 2,
    "hidden_dim": 128,
    "lambda_gp": 0.1,
    "train_batch_size": 256,
    "max_train_steps": 3500,
    "learning_rate": 1e-3,
    "lr_scheduler": "cosine",
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
PRESETS = {"tiny": TINY, "small": SMALL, "ring": RING}


def build(args: Args) -> dict[str, nn.Module]:
    if args.dataset_name in POINT_SETS:
        return {
            "net_g": MLPGenerator(latent_dim=args.latent_dim, hidden_dim=args.hidden_dim),
            "critic": MLPCritic(hidden_dim=args.hidden_dim),
        }
    return {
        "net_g": ConvGenerator(
            sample_size=args.resolution,
            out_channels=args.num_channels,
            latent_dim=args.latent_dim,
            block_out_channels=tuple(args.block_out_channels[::-1]),
        ),
        "critic": ConvCritic(
            sample_size=args.resolution,
            in_channels=args.num_channels,
            block_out_channels=tuple(args.critic_channels or args.block_out_channels),
        ),
    }


def optimizer(net: nn.Module, args: Args) -> torch.optim.Optimizer:
    if args.optimizer == "rmsprop":
        return torch.optim.RMSprop(net.parameters(), lr=args.learning_rate)
    return adam(net, args)


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = dataset(args)
    nets = build(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"critic": optimizer(nets["critic"], args), "generator": optimizer(nets["net_g"], args)},
        updates_per_step={"critic": args.n_critic},
        ema=["net_g"],
        data=data,
        export=export,
        preview=partial(preview, args=args),
    )
    G, D = run.nets["net_g"], run.nets["critic"]

    for _ in run.steps():  # Gulrajani et al. 2017, algorithm 1
        for _ in range(args.n_critic):
            for batch in run.update("critic"):
                real = batch[data.key]  # (B, C, H, W) in [-1, 1], or points (B, 2)
                with torch.no_grad():
                    fake = G(torch.randn(len(real), args.latent_dim, device=run.device))
                distance = D(real).mean() - D(fake).mean()
                if args.weight_clip:
                    run.backward(-distance, wasserstein=distance)
                else:
                    penalty = gradient_penalty(D, real, fake)  # E[(|grad D(x_hat)|_2 - 1)^2], eq. 3
                    run.backward(args.lambda_gp * penalty - distance, wasserstein=distance, penalty=penalty)
            if args.weight_clip:
                clip_weights(D, args.weight_clip)
        for batch in run.update("generator"):
            z = torch.randn(len(batch[data.key]), args.latent_dim, device=run.device)
            run.backward(-D(G(z)).mean())
    return run.output_dir


@torch.no_grad()
def clip_weights(net: nn.Module, size: float) -> None:
    """Arjovsky et al. 2017, algorithm 1, line 7."""
    for parameter in net.parameters():
        parameter.clamp_(-size, size)


def export(nets: dict[str, nn.Module]) -> WGANPipeline:
    return WGANPipeline(net_g=nets["net_g"])


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
