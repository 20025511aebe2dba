"""What is left of the generator's gradient as the discriminator becomes perfect.

    python -m benchmarks.vanishing_gradients --output_dir outputs/bench-vanishing-gradients

After figures 2 and 3 of Arjovsky & Bottou 2017 (https://arxiv.org/abs/1701.04862): a GAN on `digits` is trained for
some steps and its generator is held; a new discriminator then learns to tell its samples from data, and after every
few of its steps the gradient of the generator's loss is taken over all its weights, for the minimax loss
E log(1 - D(G(z))) and for the non-saturating one, -E log D(G(z)). Writes results.json and figure.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tables.cells import trained
from hf_genzoo.losses import AdversarialLoss, discriminator_loss, generator_loss
from hf_genzoo.training_scripts.train_gan import SMALL, Args, build, dataset, optimizers

STAGES = (50, 300, 1500)  # generator steps before it is held
LOSSES: tuple[AdversarialLoss, ...] = ("minimax", "non_saturating")
PLAIN = {**SMALL, "r1_gamma": 0.0, "adam_beta1": 0.5, "adam_beta2": 0.999, "learning_rate": 2e-4}
PLAIN |= {"lr_scheduler": "constant", "use_ema": False}


def gradient_norm(G: nn.Module, D: nn.Module, z: Tensor, loss: AdversarialLoss) -> float:
    """Norm over all weights of G of the gradient of its loss at latents z, (B, latent_dim)."""
    gradients = torch.autograd.grad(generator_loss(D(G(z)), loss), list(G.parameters()))
    return torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients])).item()


def watch(G: nn.Module, args: Args, steps: int, every: int) -> list[dict[str, Any]]:
    """Train a new discriminator against a held generator; the gradients that it leaves to it."""
    torch.manual_seed(args.seed + 1)
    nets = {**build(args), "net_g": G}
    D, learn = nets["net_d"], optimizers(nets, args)["discriminator"]
    data = dataset(args)
    batches = data.batches(batch_size=args.train_batch_size, seed=args.seed + 1)
    z_fixed = torch.randn(256, args.latent_dim)
    seen = []
    for step in range(steps + 1):
        real = next(batches)[data.key]
        with torch.no_grad():
            fake = G(torch.randn(len(real), args.latent_dim))
        real_logits, fake_logits = D(real), D(fake)
        loss = discriminator_loss(real_logits, fake_logits, "minimax")
        if step % every == 0:
            right = torch.cat([real_logits > 0, fake_logits < 0]).float().mean().item()
            norms = {name: gradient_norm(G, D, z_fixed, name) for name in LOSSES}
            seen.append({"step": step, "discriminator_loss": loss.item(), "accuracy": right, **norms})
        learn.zero_grad()
        loss.backward()
        learn.step()
    return seen


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Both losses side by side, on one logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, loss in zip(axes, LOSSES, strict=True):
        for stage, seen in results.items():
            axis.semilogy([s["step"] for s in seen], [s[loss] for s in seen], label=f"after {stage} steps")
        axis.set(title=loss.replace("_", "-"), xlabel="steps of a new discriminator, generator held")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("norm of the generator's gradient")
    axes[0].legend(title="generator")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(output_dir: Path, steps: int, every: int) -> None:
    import hf_genzoo

    results = {}
    for stage in STAGES:
        folder = output_dir / f"generator-{stage}"
        trained("gan", folder, **PLAIN, max_train_steps=stage)
        args = Args(**{**PLAIN, "output_dir": str(output_dir)})
        results[str(stage)] = watch(hf_genzoo.load(folder).net_g, args, steps, every)
        first, last = results[str(stage)][0], results[str(stage)][-1]
        for loss in LOSSES:
            print(f"generator of {stage} steps, {loss}: {first[loss]:.3g} -> {last[loss]:.3g}", flush=True)
    (output_dir / "results.json").write_text(json.dumps(results, indent=1))
    draw(results, output_dir / "figure.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/bench-vanishing-gradients"), help="Generators and figure."
    )
    parser.add_argument("--steps", type=int, default=1000, help="Steps of each new discriminator.")
    parser.add_argument("--every", type=int, default=20, help="Steps between two measured gradients.")
    args = parser.parse_args()
    run(args.output_dir, args.steps, args.every)


if __name__ == "__main__":
    main()
