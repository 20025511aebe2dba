"""Train a conditional GAN (Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784).

The generator is told a class, and the discriminator judges whether a sample is real and of its class. It knows the
class as an inner product with its features (projection, Miyato & Koyama 2018, https://arxiv.org/abs/1802.05637) or, by
--conditioning concat, as further channels of its input (in the first paper both join in a hidden layer).

Differs from the papers: generated samples are asked for the classes of the real batch they are compared with, so that
the classes of both are equally frequent and no loss is spent on their difference; networks, losses and penalties are
those of `gan`.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from hf_genzoo.training.args import flag
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts import train_gan
from hf_genzoo.training_scripts.train_gan import AdversarialArgs, build, dataset, fooled, judged, optimizers, preview


@dataclass
class Args(AdversarialArgs):
    family: ClassVar[str] = "cgan"

    class_column: str | None = flag("label", "Column of classes (ClassLabel, integers or strings).")
    conditioning: Literal["projection", "concat"] = flag("projection", "How the discriminator is told the class.")


def _from_gan(preset: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in preset.items() if name != "pack"} | changes


TINY = _from_gan(train_gan.TINY)
SMALL = _from_gan(train_gan.SMALL, num_validation_images=100)
RING, GRID = _from_gan(train_gan.RING), _from_gan(train_gan.GRID)
PRESETS = {"tiny": TINY, "small": SMALL, "ring": RING, "grid": GRID}


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = dataset(args)
    if data.num_classes is None:
        raise ValueError(f"{data.name} has no classes to learn: name their column with --class_column")
    nets = build(args, num_classes=data.num_classes, conditioning=args.conditioning)
    run = Run(
        args,
        nets=nets,
        optimizers=optimizers(nets, args),
        updates_per_step={"discriminator": args.n_discriminator},
        ema=["net_g"],
        data=data,
        export=partial(train_gan.export, class_names=data.class_names),
        preview=partial(preview, args=args),
    )
    G, D = run.nets["net_g"], run.nets["net_d"]

    for _ in run.steps():  # Mirza & Osindero 2014, eq. 2
        for _ in range(args.n_discriminator):
            for batch in run.update("discriminator"):
                x, y = batch[data.key], batch["class_labels"]  # (B, C, H, W) in [-1, 1] or (B, 2); (B,)
                with torch.no_grad():
                    fake = G(torch.randn(len(x), args.latent_dim, device=run.device), y)
                loss, terms = judged(partial(D, class_labels=y), x, fake, args)
                run.backward(loss, **terms)
        for batch in run.update("generator"):
            x, y = batch[data.key], batch["class_labels"]
            fake = G(torch.randn(len(x), args.latent_dim, device=run.device), y)
            run.backward(fooled(partial(D, class_labels=y), x, fake, args))
    return run.output_dir


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
