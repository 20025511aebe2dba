"""How a GAN loses modes, and what keeps them: generators followed through their training.

    python -m benchmarks.mode_collapse --output_dir outputs/bench-mode-collapse

On the ring of eight Gaussians the samples of the generator (its own weights, not their average) are drawn at some
steps of the training, after figure 2 of Metz et al. 2017 (https://arxiv.org/abs/1611.02163). On `digits` a classifier
of real pictures says how often each class is drawn at the end. Every game is played by the same networks, with the
plain game first. Writes results.json, ring.png and digits.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from benchmarks.tables.cells import trained
from hf_genzoo.data import Gaussians2D, MapImages
from hf_genzoo.evaluation.classifier import classify, train_classifier
from hf_genzoo.evaluation.distances import class_balance
from hf_genzoo.evaluation.points import mode_report
from hf_genzoo.images import image_grid
from hf_genzoo.models.classifier import ConvClassifier
from hf_genzoo.training_scripts.train_gan import SMALL, Args, dataset

PLAIN = {"adam_beta1": 0.5, "adam_beta2": 0.999, "r1_gamma": 0.0, "lr_scheduler": "constant", "use_ema": False}
PAIRS = {"loss": "relativistic", "adam_beta1": 0.0, "adam_beta2": 0.99, "r1_gamma": 0.1, "r2_gamma": 0.1}
RING_GAMES: dict[str, dict[str, Any]] = {
    "minimax": {"loss": "minimax"},
    "non-saturating": {},
    "PacGAN4": {"pack": 4},
    "pairs, R1 + R2": PAIRS,
}
DIGIT_GAMES: dict[str, dict[str, Any]] = {
    "non-saturating": {},
    "PacGAN4": {"pack": 4},
    "pairs, R1 + R2": {**PAIRS, "r1_gamma": 1.0, "r2_gamma": 1.0},
}
WEAK = {"discriminator_channels": [4, 8, 16]}  # a quarter of the generator's


def follow_ring(output_dir: Path, steps: int, pictures: int) -> dict[str, list[dict[str, Any]]]:
    """Samples of every game at equally spaced steps."""
    import hf_genzoo

    law, found = Gaussians2D("ring"), {}
    z = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    for name, changes in RING_GAMES.items():
        folder = output_dir / f"ring-{_file_name(name)}"
        every = steps // pictures
        trained("gan", folder, preset="ring", **{**PLAIN, **changes}, max_train_steps=steps, checkpointing_steps=every)
        net_g: nn.Module = hf_genzoo.load(folder).net_g
        found[name] = []
        for step in range(every, steps + 1, every):
            net_g.load_state_dict(load_file(folder / f"checkpoint-{step}" / "model.safetensors"))
            with torch.no_grad():
                points = net_g(z)
            report = mode_report(points, law)
            facts = {"step": step, "modes": report.modes, "high_quality": report.high_quality}
            found[name].append({**facts, "points": points.numpy().round(3).tolist()})
        print(f"ring, {name}: modes {[f['modes'] for f in found[name]]}", flush=True)
    return found


def draw_ring(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A row a game, a column a step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = len(next(iter(found.values())))
    size = (1.7 * columns, 1.8 * len(found))
    figure, axes = plt.subplots(len(found), columns, figsize=size, squeeze=False, layout="constrained")
    modes = Gaussians2D("ring").modes
    assert modes is not None
    for row, (name, seen) in zip(axes, found.items(), strict=True):
        row[0].set_ylabel(name)
        for axis, facts in zip(row, seen, strict=True):
            axis.plot(*modes.T, "o", color="0.8", markersize=9, zorder=0)
            axis.plot(*np.array(facts["points"]).T, ".", color="tab:blue", markersize=2)
            axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[], aspect="equal")
            axis.set_title(
                f"{facts['modes']} of 8" if row is not axes[0] else f"step {facts['step']}: {facts['modes']}"
            )
    figure.savefig(path, dpi=100)
    plt.close(figure)


def count_digits(output_dir: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Classes of 1,000 samples of every game, and a grid of its first ones."""
    import hf_genzoo

    judge, found = _judge(output_dir / "classifier"), {}
    for name, changes in DIGIT_GAMES.items():
        folder = output_dir / f"digits-{_file_name(name)}"
        trained("gan", folder, **{**SMALL, **PLAIN, **WEAK, **changes}, max_train_steps=steps)
        generator = torch.Generator().manual_seed(0)
        drawn = hf_genzoo.load(folder)(batch_size=1000, generator=generator, output_type="np").images
        pictures = (drawn * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)
        classes = classify(judge, pictures)[1].argmax(axis=1)
        divergence, floor = class_balance(classes, 10)
        image_grid([Image.fromarray(p[0]) for p in pictures[:64]]).save(folder / "grid.png")
        found[name] = {"counts": np.bincount(classes, minlength=10).tolist(), "kl": divergence, "floor": floor}
        print(f"digits, {name}: {found[name]}", flush=True)
    return found


def draw_digits(found: dict[str, dict[str, Any]], output_dir: Path) -> None:
    """Above what a game draws, below how often it draws each class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (3.2 * len(found), 5)
    figure, axes = plt.subplots(
        2, len(found), figsize=size, layout="constrained", squeeze=False, height_ratios=(2, 1), sharey="row"
    )
    for (above, below), (name, facts) in zip(axes.T, found.items(), strict=True):
        above.imshow(Image.open(output_dir / f"digits-{_file_name(name)}" / "grid.png"), cmap="gray")
        above.set(title=name, xticks=[], yticks=[])
        below.bar(range(10), np.array(facts["counts"]) / sum(facts["counts"]))
        below.axhline(0.1, color="0.5", linestyle="--")
        below.set(xticks=range(10), title=f"KL {facts['kl']:.3f} (floor {facts['floor']:.3f})")
    axes[1, 0].set_ylabel("share of samples")
    figure.savefig(output_dir / "digits.png", dpi=100)
    plt.close(figure)


def _judge(folder: Path) -> ConvClassifier:
    if not folder.exists():
        data = dataset(Args(**{**SMALL, "class_column": "label"}))
        assert isinstance(data, MapImages)
        assert data.labels is not None
        assert data.class_names is not None
        train_classifier(np.asarray(data.pixels), data.labels, data.class_names).save_pretrained(folder)
    return ConvClassifier.from_pretrained(folder)  # type: ignore[return-value]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def run(output_dir: Path, ring_steps: int, digit_steps: int) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    ring = follow_ring(output_dir, ring_steps, pictures=8)
    draw_ring(ring, output_dir / "ring.png")
    digits = count_digits(output_dir, digit_steps)
    draw_digits(digits, output_dir)
    facts = {name: [{k: v for k, v in f.items() if k != "points"} for f in seen] for name, seen in ring.items()}
    (output_dir / "results.json").write_text(json.dumps({"ring": facts, "digits": digits}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/bench-mode-collapse"), help="Models and figures."
    )
    parser.add_argument("--ring_steps", type=int, default=2000, help="Steps of each game on the ring.")
    parser.add_argument("--digit_steps", type=int, default=1500, help="Steps of each game on digits.")
    args = parser.parse_args()
    run(args.output_dir, args.ring_steps, args.digit_steps)


if __name__ == "__main__":
    main()
