"""Disentanglement against beta: Higgins et al. 2017 and Chen et al. 2018 on sprites, small.

    python -m benchmarks.tables.t4 --seeds 3

Every row trains the same networks with ten numbers in the code on the same pictures of `sprites` (32 x 32), except
PCA, which is fitted. The code is the mean of q(z | x). The scores are those of `hf_genzoo.evaluation.disentanglement`,
on fresh pictures of random factors; the reconstruction error, the KL and its total correlation are of the held-out
split. An orientation has no single number that could stand for it here (squares look the same after a quarter turn,
ellipses after half a turn), so no score comes near 1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.data import DataArgs, MapImages, image_dataset, sprites
from hf_genzoo.evaluation import disentanglement
from hf_genzoo.losses import kl_standard_normal, kl_terms

COLUMN = "sprites"
CODE, SIZE, BATCH = 10, 32, 500
SCORED_ON, TESTED_ON = 5000, 2500
SHARED: dict[str, Any] = {
    "preset": "small",
    "dataset_name": "sprites",
    "resolution": SIZE,
    "latent_dim": CODE,
    "block_out_channels": [16, 32, 32],
    "train_batch_size": 64,
    "learning_rate": 1e-3,
    "max_train_steps": 3000,
}
ROWS = (
    Row("pca", "PCA", ""),
    Row("ae", "autoencoder", "autoencoder"),
    Row("beta1", "beta 1 (VAE)", "beta_vae", {"beta": 1.0}),
    Row("beta4", "beta 4", "beta_vae", {"beta": 4.0}),
    Row("beta16", "beta 16", "beta_vae", {"beta": 16.0}),
    Row("tc6", "TC 6", "beta_vae", {"objective": "tc", "beta": 6.0}),
)
SCORES = {
    "beta_vae_score": "beta-VAE score",
    "factor_vae_score": "FactorVAE score",
    "mig": "MIG",
    "dci_disentanglement": "DCI",
    "sap": "SAP",
    "info_m": "InfoM",
    "info_e": "InfoE",
}
Pictures = NDArray[np.uint8]
Encode = Callable[[torch.Tensor], torch.Tensor]
"""From pictures (B, 1, H, W) in [0, 1] to codes (B, d)."""


def pictures(split: str) -> Pictures:
    data = image_dataset(DataArgs(dataset_name="sprites", num_channels=1, resolution=SIZE), split=split)
    assert isinstance(data, MapImages)
    return np.asarray(data.pixels)


def pca() -> tuple[Encode, Encode]:
    """Codes of pictures by their first principal components, and pictures of codes."""
    train = torch.from_numpy(pictures("train")).flatten(1).float() / 255
    mean = train.mean(0)
    covariance = torch.cov((train - mean).T)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -CODE:]  # (pixels, d)

    def decode(codes: torch.Tensor) -> torch.Tensor:
        return (mean + codes @ axes.T).view(-1, 1, SIZE, SIZE)

    return lambda x: (x.flatten(1) - mean) @ axes, decode


def measure(row: Row, seed: int, output_dir: Path) -> dict[str, Any]:
    """Train a row, and score its codes."""
    import hf_genzoo

    if not row.family:
        encode, decode = pca()
        return {**quality(encode, decode), **scores(encode, seed), "steps": 0, "seconds": 0.0}
    record = trained(row.family, output_dir / f"{row.key}-{seed}", seed=seed, **SHARED, **row.settings)
    pipeline: Any = hf_genzoo.load(output_dir / f"{row.key}-{seed}")
    found = quality(pipeline.encode, lambda codes: pipeline.decode(codes, output_type="pt")[0])
    if row.family == "beta_vae":
        found |= divergences(pipeline.vae)
    return {**found, **scores(pipeline.encode, seed), "steps": record["steps"], "seconds": round(record["seconds"], 1)}


def _held_out() -> torch.Tensor:
    return torch.from_numpy(pictures("validation")).float() / 255


def quality(encode: Encode, decode: Encode) -> dict[str, float]:
    """Squared error of held-out pictures, summed over pixels."""
    x = _held_out()
    back = torch.cat([decode(encode(part)) for part in x.split(BATCH)])
    return {"squared_error": float((back - x).square().flatten(1).sum(1).mean())}


def divergences(vae: Any) -> dict[str, float]:
    """The KL of held-out pictures and its three terms in nats, with the held-out split for the data set."""
    torch.manual_seed(0)
    with torch.no_grad():
        mean, logvar = (
            torch.cat(parts) for parts in zip(*(vae.encode(2 * x - 1) for x in _held_out().split(BATCH)), strict=True)
        )
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        terms = kl_terms(z, mean, logvar, len(z))
        names = ("mutual_information", "total_correlation", "dimension_wise_kl")
        return {
            "kl": float(kl_standard_normal(mean, logvar).mean()),
            **dict(zip(names, map(float, terms), strict=True)),
        }


def scores(encode: Encode, seed: int) -> dict[str, float]:
    """Every metric, on pictures rendered for it."""

    def represent(factors: NDArray[np.int64]) -> NDArray[np.float64]:
        x = torch.from_numpy(sprites.render(factors, SIZE)[:, None]).float() / 255
        return encode(x).double().numpy()

    return disentanglement.report(represent, sprites.FACTOR_SIZES, SCORED_ON, TESTED_ON, seed=seed)


def table(cells: Cells) -> str:
    """A line a row that is measured."""
    lines = []
    for row in ROWS:
        if found := cells.read(row.key, COLUMN):
            numbers = [("squared_error", 1), ("kl", 1), ("total_correlation", 2), *((name, 3) for name in SCORES)]
            shown = [
                spread([cell[name] for cell in found], digits) if name in found[0] else "" for name, digits in numbers
            ]
            lines.append([row.title, *shown, spread([cell["seconds"] for cell in found], 0), str(len(found))])
    head = ["sprites", "squared error", "KL", "TC", *SCORES.values(), "seconds", "seeds"]
    return markdown(head, lines)


def main() -> None:
    args = arguments(__doc__, ROWS).parse_args()
    cells, output_dir = Cells("t4"), args.output_dir or Path("outputs/tables/t4")
    if not args.only_write:
        rows = [row for row in ROWS if row.key in args.rows]
        cells.fill(rows, [COLUMN], range(args.seeds), lambda row, _, seed: measure(row, seed, output_dir))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
