"""What comes of random codes: a plain autoencoder's, drawn in three ways, and a variational one's.

    python -m benchmarks.latent_sampling

Both networks have 16 numbers in the middle and learn the digits of this package for as many steps. The autoencoder's
codes are drawn from N(0, I), which it was never told of; from a normal law for each number alone, with the mean and
spread of the training data's codes; and from one normal law with all their covariances. The VAE's are drawn from
N(0, I), which it was trained for. Laws that are fitted afterwards are the idea of Ghosh et al. 2020
(https://arxiv.org/abs/1903.12436). The samples are compared with held-out digits in the features of a classifier.
Writes results.json, results.md and figure.png (a row each, real digits first).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tables.cells import markdown, trained
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation.classifier import classify, train_classifier
from hf_genzoo.evaluation.extractors import Features
from hf_genzoo.evaluation.scores import distribution_metrics
from hf_genzoo.images import image_grid

Pictures = NDArray[np.uint8]
CODE, SIZE, SHOWN = 16, 28, 12
SHOWN_METRICS = {"coverage": "coverage", "frechet_ratio": "Frechet ratio", "precision": "precision"}


def digits(split: str) -> MapImages:
    args = DataArgs(dataset_name="digits", class_column="label", num_channels=1, resolution=SIZE)
    data = image_dataset(args, split=split)
    assert isinstance(data, MapImages)
    return data


def draws(codes: torch.Tensor, count: int, seed: int) -> dict[str, torch.Tensor]:
    """Random codes (count, d) by name, from those of training pictures (N, d)."""
    noise = torch.randn(count, codes.shape[1], generator=torch.Generator().manual_seed(seed))
    root = torch.linalg.cholesky(torch.cov(codes.T) + 1e-6 * torch.eye(codes.shape[1]))
    return {
        "autoencoder, N(0, I)": noise,
        "autoencoder, each number's normal law": codes.mean(0) + codes.std(0) * noise,
        "autoencoder, one normal law": codes.mean(0) + noise @ root.T,
    }


def sampled(output_dir: Path, steps: int, count: int, seed: int) -> dict[str, Pictures]:
    """Pictures (count, 1, H, W) by name."""
    import hf_genzoo

    pipelines: dict[str, Any] = {}
    for family in ("autoencoder", "vae"):
        folder = output_dir / family
        trained(family, folder, preset="small", latent_dim=CODE, max_train_steps=steps, seed=seed)
        pipelines[family] = hf_genzoo.load(folder)
    train = torch.from_numpy(np.array(digits("train").pixels))
    codes = torch.cat([pipelines["autoencoder"].encode(part) for part in train.split(500)])
    found = {
        name: pipelines["autoencoder"].decode(drawn, output_type="pt")[0]
        for name, drawn in draws(codes, count, seed).items()
    }
    generator = torch.Generator().manual_seed(seed)
    found["VAE, N(0, I)"] = pipelines["vae"](batch_size=count, generator=generator, output_type="pt")[0]
    return {name: (255 * pixels).round().byte().numpy() for name, pixels in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-latent-sampling"), help="Results.")
    parser.add_argument("--steps", type=int, default=1500, help="Of both trainings.")
    parser.add_argument("--seed", type=int, default=0, help="Of trainings and samples.")
    args = parser.parse_args()
    held_out, train = digits("validation"), digits("train")
    assert train.labels is not None
    assert train.class_names is not None
    real, seen = np.asarray(held_out.pixels), np.asarray(train.pixels)
    some, others = np.random.default_rng(args.seed).permutation(len(seen))[: 2 * len(real)].reshape(2, -1)
    rows = {"real digits": seen[others], **sampled(args.output_dir, args.steps, len(real), args.seed)}
    judge = train_classifier(seen, train.labels, train.class_names)

    def features(pictures: Pictures) -> Features:
        return Features(*classify(judge, pictures))

    found = {}
    for name, pictures in rows.items():
        measured = distribution_metrics(features(pictures), features(real), [features(seen[some])])
        found[name] = {m.name: m.value for m in measured if m.name in SHOWN_METRICS}
    (args.output_dir / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [[name, *(f"{metrics[key]:.2f}" for key in SHOWN_METRICS)] for name, metrics in found.items()]
    text = markdown([f"{len(real)} codes of {CODE} numbers", *SHOWN_METRICS.values()], lines)
    text += "\n![A row each, in the order of the table](figures/latent-sampling.png)\n"
    (args.output_dir / "results.md").write_text(text)
    tiles = [Image.fromarray(picture[0]) for pictures in rows.values() for picture in pictures[:SHOWN]]
    image_grid(tiles, columns=SHOWN).save(args.output_dir / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
