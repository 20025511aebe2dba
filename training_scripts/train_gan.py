"""Train a generative adversarial network (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661).

A discriminator learns to tell data from generated samples, and the generator learns to be taken for data. Pictures are
made by transposed convolutions (DCGAN, Radford et al. 2016, https://arxiv.org/abs/1511.06434), points by a fully
connected network. By --loss the game is the minimax one, its non-saturating form, least squares (Mao et al. 2017), the
hinge (Lim & Ye 2017) or one of pairs (Jolicoeur-Martineau 2019), which with --r1_gamma and --r2_gamma is that of R3GAN
(Huang et al. 2024); --pack shows the discriminator several samples at once (PacGAN, Lin et al. 2018).

Differs from the papers: Adam for both networks where Goodfellow et al. have momentum; an exponential moving average of
the generator is published; GroupNorm in the generator unless --norm_type batch, and no normalisation in the
discriminator.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from hf_genzoo.data import Data, image_dataset, points_dataset
from hf_genzoo.data.args import POINT_SETS
from hf_genzoo.losses import AdversarialLoss, discriminator_loss, generator_loss, pack, zero_centred_penalty
from hf_genzoo.models.discriminator import ConvDiscriminator, MLPDiscriminator
from hf_genzoo.models.generator import ConvGenerator, MLPGenerator
from hf_genzoo.pipelines.gan import GANPipeline
from hf_genzoo.training.args import TrainingArgs, flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script


@dataclass
class AdversarialArgs(TrainingArgs):
    """What GANs with and without classes share."""

    train_batch_size: int = flag(128, "Samples of one micro-batch on each process.")
    learning_rate: float = flag(2e-4, "Peak learning rate of the generator, and of the discriminator by default.")
    discriminator_learning_rate: float | None = flag(None, "Peak learning rate of the discriminator, if another.")
    lr_warmup_steps: int = flag(0, "Optimiser steps of linear warm-up, whatever the number of processes.")
    adam_beta1: float = flag(0.5, "Adam's decay of the mean gradient.")
    max_grad_norm: float = flag(0.0, "Largest gradient norm of one optimiser step; 0 leaves gradients as they are.")

    latent_dim: int = flag(100, "Length of the generator's input z.")
    block_out_channels: list[int] = field(
        default_factory=lambda: [64, 128, 256],
        metadata={"help": "Channels of the generator for pictures at each resolution, finest first."},
    )
    discriminator_channels: list[int] | None = flag(None, "Those of the discriminator, if others.")
    norm_type: Literal["group", "batch"] = flag("group", "Normalisation of the generator for pictures.")
    hidden_dim: int = flag(512, "Width of both networks' layers for points.")

    loss: AdversarialLoss = flag("non_saturating", "The game that is played.")
    n_discriminator: int = flag(1, "Discriminator steps for each generator step: k of Goodfellow et al. 2014.")
    r1_gamma: float = flag(0.0, "Weight of the discriminator's squared gradient at real samples; 0 is none.")
    r2_gamma: float = flag(0.0, "Weight of the discriminator's squared gradient at generated samples; 0 is none.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_discriminator < 1:
            raise ValueError(f"--n_discriminator is {self.n_discriminator}: it must be at least 1")
        for name in ("r1_gamma", "r2_gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is {getattr(self, name)}: it must be 0 or more")


@dataclass
class Args(AdversarialArgs):
    family: ClassVar[str] = "gan"

    pack: int = flag(1, "Samples that the discriminator judges together; must divide the batch.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pack < 1 or self.train_batch_size % self.pack:
            raise ValueError(f"--pack is {self.pack}: it must divide --train_batch_size {self.train_batch_size}")


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "latent_dim": 4,
    "block_out_channels": [4, 8],
    "hidden_dim": 16,
    "n_discriminator": 2,
    "r1_gamma": 0.1,
    "pack": 2,
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
    "r1_gamma": 1.0,
    "train_batch_size": 64,
    "max_train_steps": 4000,
    "learning_rate": 1e-3,
    "adam_beta1": 0.0,
    "adam_beta2": 0.99,
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
    "train_batch_size": 128,
    "max_train_steps": 5000,
    "learning_rate": 1e-3,
    "lr_scheduler": "cosine",
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
GRID: dict[str, Any] = {**RING, "dataset_config_name": "grid"}  # 25 Gaussians on a grid
PRESETS = {"tiny": TINY, "small": SMALL, "ring": RING, "grid": GRID}


def dataset(args: TrainingArgs) -> Data:
    """Points or pictures, by name."""
    return points_dataset(args) if args.dataset_name in POINT_SETS else image_dataset(args)


def build(
    args: AdversarialArgs, num_classes: int | None = None, packed: int = 1, **judge: Any
) -> dict[str, nn.Module]:
    """Both networks: `packed` samples go into the discriminator at once, `judge` are further settings of it."""
    judge |= {"num_classes": num_classes, "bias": args.loss != "relativistic"}  # of a difference it would drop out
    if args.dataset_name in POINT_SETS:
        return {
            "net_g": MLPGenerator(args.latent_dim, hidden_dim=args.hidden_dim, num_classes=num_classes),
            "net_d": MLPDiscriminator(2 * packed, args.hidden_dim, **judge),
        }
    return {
        "net_g": ConvGenerator(
            latent_dim=args.latent_dim,
            out_channels=args.num_channels,
            sample_size=args.resolution,
            block_out_channels=tuple(args.block_out_channels[::-1]),
            num_classes=num_classes,
            norm_type=args.norm_type,
        ),
        "net_d": ConvDiscriminator(
            in_channels=args.num_channels * packed,
            sample_size=args.resolution,
            block_out_channels=tuple(args.discriminator_channels or args.block_out_channels),
            **judge,
        ),
    }


def optimizers(nets: dict[str, nn.Module], args: AdversarialArgs) -> dict[str, torch.optim.Optimizer]:
    return {
        "discriminator": adam(nets["net_d"], args, args.discriminator_learning_rate),
        "generator": adam(nets["net_g"], args),
    }


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = dataset(args)
    nets = build(args, packed=args.pack)
    run = Run(
        args,
        nets=nets,
        optimizers=optimizers(nets, args),
        updates_per_step={"discriminator": args.n_discriminator},
        ema=["net_g"],
        data=data,
        export=export,
        preview=partial(preview, args=args),
    )
    G, D = run.nets["net_g"], run.nets["net_d"]

    for _ in run.steps():  # Goodfellow et al. 2014, algorithm 1
        for _ in range(args.n_discriminator):
            for batch in run.update("discriminator"):
                x = batch[data.key]  # (B, C, H, W) in [-1, 1], or points (B, 2)
                with torch.no_grad():
                    fake = G(torch.randn(len(x), args.latent_dim, device=run.device))
                loss, terms = judged(D, pack(x, args.pack), pack(fake, args.pack), args)
                run.backward(loss, **terms)
        for batch in run.update("generator"):
            x = batch[data.key]
            fake = G(torch.randn(len(x), args.latent_dim, device=run.device))
            run.backward(fooled(D, pack(x, args.pack), pack(fake, args.pack), args))
    return run.output_dir


def judged(
    D: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, args: AdversarialArgs
) -> tuple[Tensor, dict[str, Tensor]]:
    """The discriminator's loss, and its terms by name."""
    real, fake = real.requires_grad_(args.r1_gamma > 0), fake.requires_grad_(args.r2_gamma > 0)
    real_logits, fake_logits = D(real), D(fake)
    loss = discriminator_loss(real_logits, fake_logits, args.loss)
    terms = {"game": loss}
    if args.r1_gamma:
        terms["r1"] = zero_centred_penalty(real_logits, real)  # Mescheder et al. 2018, eq. 9
        loss = loss + args.r1_gamma * terms["r1"]
    if args.r2_gamma:
        terms["r2"] = zero_centred_penalty(fake_logits, fake)  # ibid., eq. 10
        loss = loss + args.r2_gamma * terms["r2"]
    return loss, terms


def fooled(D: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, args: AdversarialArgs) -> Tensor:
    """The generator's loss; only the relativistic one looks at real samples."""
    if args.loss != "relativistic":
        return generator_loss(D(fake), args.loss)
    with torch.no_grad():
        real_logits = D(real)
    return generator_loss(D(fake), args.loss, real_logits)


def export(nets: dict[str, nn.Module], class_names: list[str] | None = None) -> GANPipeline:
    id2label = None if class_names is None else dict(enumerate(class_names))
    return GANPipeline(net_g=nets["net_g"], id2label=id2label)


def preview(pipeline: GANPipeline, args: TrainingArgs) -> list[Image.Image]:
    """Samples from the same latents each time, class after class where there are classes; points as a scatter plot."""
    count, classes = args.num_validation_images, pipeline.num_classes
    count = 2500 if args.dataset_name in POINT_SETS else count
    return pipeline(
        batch_size=count,
        class_labels=None if classes is None else [i % classes for i in range(count)],
        generator=torch.Generator().manual_seed(args.seed),
    ).images


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
